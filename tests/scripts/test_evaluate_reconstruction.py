"""The table of reconstructions: training-free figures, a network's row, pictures, and mistakes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.spike.simulate import integrate_and_fire
from models.network_spikling import SpikeRefine
from scripts.evaluate_reconstruction import main
from utils.spike_loader import write_spikes

SIZE = (16, 24)


@pytest.fixture
def base_root(tmp_path: Path) -> Path:
    """Two still scenes of 121 frames in Spike-Zoo's layout; the second picture is in colour and twice the size."""
    rng = np.random.default_rng(0)
    (tmp_path / "gt").mkdir()
    for name, factor in (("a", 1), ("b", 2)):
        gray = cv2.resize(rng.integers(60, 200, (4, 6), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        light = np.repeat(gray[None] / 255, 121, axis=0)
        write_spikes(tmp_path / "spike" / f"{name}.dat", integrate_and_fire(light, 2.0, rng))
        picture = cv2.resize(gray, (factor * SIZE[1], factor * SIZE[0]), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / "gt" / f"{name}.png"), picture if factor == 1 else cv2.merge([picture] * 3))
    (tmp_path / "config.yaml").write_text(f"spike_h: {SIZE[0]}\nspike_w: {SIZE[1]}\n")
    return tmp_path


def test_table_has_every_method_and_stream(base_root: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    (base_root / "opt.json").write_text(
        json.dumps(
            {
                "task": "refine",
                "netG": {"net_type": "spike_refine", "in_chans": 61, "channels": [4, 4, 4], "blocks": [0, 0, 0]},
            }
        )
    )
    torch.save(SpikeRefine(channels=[4, 4, 4], blocks=[0, 0, 0]).state_dict(), base_root / "net.pth")
    command = ["--data", str(base_root / "spike"), "--threshold", "2", "--json", str(base_root / "scores.json")]
    command += ["--network", str(base_root / "opt.json"), str(base_root / "net.pth"), "--save", str(base_root / "out")]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    (header,) = [line for line in lines if line.startswith("PSNR / SSIM")]
    assert header.split()[3:] == ["a", "b", "mean"]
    scores = json.loads((base_root / "scores.json").read_text())
    assert {"window 41", "interval 2", "gaussian 6", "opt"} <= set(scores)
    for name in ("a", "b"):
        # Nothing moves: the longest average is the best, and single intervals are the worst but for short windows.
        assert scores["gaussian 10"][name]["psnr"] > 40 > scores["window 9"][name]["psnr"]
        assert scores["opt"][name]["psnr"] > 30
        assert (base_root / "out" / f"{name}.png").is_file()
    (best,) = [line for line in lines if line.startswith("best training-free")]
    expected = max(row["a"]["psnr"] for name, row in scores.items() if name != "opt")
    assert f"{expected:.2f} / " in best
    assert lines[-1].startswith("opt ")


def test_mistakes_are_told(base_root: Path, capsys: pytest.CaptureFixture[str]):
    data = ["--data", str(base_root / "spike"), "--threshold", "2"]
    assert main([*data, "--center", "121"]) == 2
    assert "has spike frames [0, 121)" in capsys.readouterr().err
    assert main(["--data", str(base_root / "none"), "--threshold", "2"]) == 2
    assert "no such file" in capsys.readouterr().err
    cv2.imwrite(str(base_root / "gt" / "b.png"), np.zeros((20, 24), np.uint8))
    assert main(data) == 2
    assert "no whole multiple" in capsys.readouterr().err
    (base_root / "gt" / "a.png").unlink()
    assert main(data) == 2
    assert "there is no sharp picture a.png" in capsys.readouterr().err


def test_figures_of_the_real_streams(shared_data: Path, tmp_path: Path):
    """Those of the data's README, and the Gaussian that is hardest to beat."""
    gopro = shared_data / "gopro_spike_sample" / "000226.dat"
    size = ["--spike_h", "360", "--spike_w", "640", "--center", "40"]
    assert main(["--data", str(gopro), "--threshold", "2", *size, "--json", str(tmp_path / "gopro.json")]) == 0
    found = {name: row["000226"]["psnr"] for name, row in json.loads((tmp_path / "gopro.json").read_text()).items()}
    expected = {"window 41": 28.0, "interval 1": 24.4, "interval 2": 32.1, "gaussian 6": 34.5}
    assert {name: round(found[name], 1) for name in expected} == expected
