"""From raw GoPro and spikes to a trained network with one command."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.data.raw_trees import raw_gopro
from tests.tiny import TinyRun, environment


@pytest.mark.slow
def test_one_command_prepares_checks_and_trains(tmp_path: Path, repository: Path) -> None:
    recipe = repository / "options/vrt/006_train_vrt_videodeblurring_gopro_debug.json"
    run = TinyRun.make(tmp_path)
    for folder in ("GOPRO_Large", "GOPRO_Large_spike_seq"):
        shutil.rmtree(tmp_path / folder)
    gopro, spikes = raw_gopro(tmp_path, size=(64, 80))
    tiny = json.loads(run.options.read_text())
    roots = {
        phase: {
            "dataroot_gt": str(gopro / f"{phase}_GT_tiles"),
            "dataroot_lq": str(gopro / f"{phase}_GT_blurred_tiles"),
            "dataroot_spike": str(spikes / phase),
            "filename_ext": "tif",
            "num_frame": 2,
        }
        for phase in ("train", "test")
    }
    roots["train"] |= {"gt_size": 16}
    changes = {"netG": tiny["netG"], "train": {"total_iter": 2, "fix_iter": 0}, "path": tiny["path"]}
    changes["netG"] |= {"use_checkpoint_attn": False, "use_checkpoint_ffn": False}
    changes["val"] = {"tile": [0, 0, 0]}
    options = tmp_path / "run.json"
    options.write_text(json.dumps({"base": str(recipe), "task": "run", "datasets": roots, **changes}))
    command = [str(repository / "launch_train.sh"), "1", str(options), "--prepare-data"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for part in ("train: 2 clips, 8 frames", "Nothing is wrong.", "contact sheet: "):
        assert part in done.stdout
    folder = tmp_path / "experiments/run"
    assert (folder / "models/2_G.pth").is_file() and (folder / "doctor.png").is_file()
    assert "Average PSNR" in (folder / "train.log").read_text()

    shutil.rmtree(folder)
    (spikes / "train/GOPR0001_03_00/spike/000048.dat").unlink()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "000048.dat" in done.stderr and not folder.exists()
