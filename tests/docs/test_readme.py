"""README.md: every command runs, in a copy of the repository with small data; the Python of both languages runs.

A command is run as it stands there, but for what would take a machine: networks and steps are shrunk by `--set`, eight
GPUs become two processes, and `tensorboard` and the tests' runner are started for something that ends.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.network_vrt import VRT
from tests.data.trees import make_gopro_tree
from tests.tiny import NETWORK
from utils.spike_loader import write_spikes
from utils.utils_option import load_options

READMES = ["README.md", "README_zh-CN.md"]
ROOT = Path(__file__).resolve().parents[2]
SHRINK = [
    *(f"netG.{key}={json.dumps(value)}" for key, value in NETWORK.items() if key != "net_type"),
    "netG.spynet_path=null",
    "netG.use_checkpoint_attn=false",
    "netG.use_checkpoint_ffn=false",
    "datasets.train.num_frame=2",
    "datasets.train.gt_size=16",
    "datasets.train.dataloader_batch_size=2",
    "datasets.train.dataloader_num_workers=0",
    "datasets.test.num_frame=2",
    "train.total_iter=1",
    "train.fix_iter=0",
    "val.tile=[0,0,0]",
]


def commands(name: str) -> list[str]:
    """The shell commands of a page, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


COMMANDS = commands("README.md")


def runnable(command: str) -> list[str]:
    """The words of a command, made small enough for a test."""
    words = shlex.split(command)
    shrink = ["--set", *SHRINK]
    if "tensorboard.main" in words:
        return [*words, "--inspect"]
    if words[0] == "./scripts/run_tests.sh":
        return [*words, "--numprocesses", "0", "tests/models/training/test_schedule.py"]
    if words[0] == "./launch_train.sh":
        words[1] = "2" if words[1] == "8" else words[1]
        return words if "--dry-run" in words else [*words, *([] if "--" in words else ["--"]), *shrink]
    words = ["--nproc_per_node=2" if word == "--nproc_per_node=8" else word for word in words]
    return [*words, *shrink] if "--opt" in words else words


def listed_files() -> list[str]:
    """The repository's files, those not yet committed included."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files with small data sets and checkpoints where the page expects them."""
    root = tmp_path_factory.mktemp("readme") / "S-VRT"
    for name in listed_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    raw_gopro(root / "trainsets")
    write_spikes(root / "000226.dat", np.random.default_rng(0).integers(0, 2, (88, 360, 640), np.uint8))
    frames = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    video = cv2.VideoWriter(str(root / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 24, (64, 48))
    for frame in frames:
        video.write(cv2.GaussianBlur(frame, (9, 9), 3))
    video.release()
    published(root)
    return root


def raw_gopro(root: Path) -> None:
    """GoPro as downloaded: <split>/<clip>/{sharp,blur} and the spike sequences."""
    for phase in ("train", "test"):
        tree = make_gopro_tree(root, phase=phase, clips=1, frames=4, size=(64, 64), spikes_per_frame=8, seed=len(phase))
        for kind, made in (("sharp", tree.gt), ("blur", tree.lq)):
            for clip in tree.clips:
                (root / "GOPRO_Large" / phase / clip).mkdir(parents=True, exist_ok=True)
                (made / clip).rename(root / "GOPRO_Large" / phase / clip / kind)
            made.rmdir()


def published(root: Path) -> None:
    """A checkpoint of the 006 network, and two frames to run it on."""
    options = load_options(ROOT / "options/vrt/test/006_VRT_videodeblurring_GoPro.json", ["netG.spynet_path=null"])
    (root / "model_zoo/vrt").mkdir(parents=True)
    weights = VRT(**options.netG.arguments()).state_dict()
    torch.save({"params": weights}, root / "model_zoo/vrt/006_VRT_videodeblurring_GoPro.pth")
    for name in ("test_GT", "test_GT_blurred"):
        for frame in ("000000.png", "000001.png"):
            file = root / "testsets/GoPro11" / name / "GOPR0384_11_00" / frame
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.random.default_rng(1).integers(0, 255, (16, 16, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(command: str, clone: Path):
    # The commands come in the page's order, and later ones use what earlier ones made.
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    # The copy's files are those that mypy has checked here: half a minute less.
    environment["MYPY_CACHE_DIR"] = str(ROOT / ".mypy_cache")
    if command == "./svrt train --opt options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json":
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    done = subprocess.run(runnable(command), cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_what_the_page_says_is_written(clone: Path):
    assert list((clone / "results/demo_quickstart/panels").glob("*.png"))
    assert list((clone / "results/demo_quickstart/demo12_07_00").glob("*.png"))
    table = json.loads((clone / "results/demo_quickstart/metrics.json").read_text())
    assert {"mean_over_clips", "mean_over_frames"} <= set(table)
    folder = clone / "experiments/demo_quickstart"
    assert {path.name for path in folder.iterdir()} >= {"train.log", "tb_logger", "checkpoints", "models"}
    assert {path.name for path in (folder / "models").glob("*.pth")} == {"1_G.pth", "1_E.pth", "1_optimizerG.pth"}


@pytest.mark.slow
def test_commands_change_no_file_of_the_repository(clone: Path) -> None:
    changed = [name for name in listed_files() if (clone / name).read_bytes() != (ROOT / name).read_bytes()]
    assert changed == []


def test_no_command_of_a_document_writes_into_the_repository() -> None:
    for page in [*READMES, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]:
        for command in commands(page):
            words = shlex.split(command)
            written = [value for flag, value in itertools.pairwise(words) if flag in ("--out", "--output", "-o")]
            tracked = {Path(name).parts[0] for name in listed_files()}
            assert not {Path(value).parts[0] for value in written} & tracked, command


@pytest.mark.parametrize("name", READMES)
def test_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_spikes("000226.dat", np.random.default_rng(0).integers(0, 2, (88, 360, 640), np.uint8))
    for source in re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(source, name, "exec"), {})


def test_pages_link_to_files_that_exist():
    for page in [*(ROOT / name for name in READMES), *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"(?s)```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"))
        text = re.sub(r"(?m)^    .*$", "", text)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
