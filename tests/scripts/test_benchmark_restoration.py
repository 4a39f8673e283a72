"""The restoration benchmark: its frozen list, tables and JSON on tiny clips, and everything that it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.select_network import define_G
from scripts import benchmark_restoration
from scripts.benchmark import benchmark_clips
from scripts.benchmark.competitors import ClipFolder
from scripts.flags import BENCHMARK_LIST
from tests.tiny import NETWORK
from utils.utils_option import load_options

PROTOCOL: dict[str, Any] = {
    "blur": "stored",
    "exposures": [2, 3],
    "thresholds": [2],
    "lights": {"full": 1, "low": 0.25},
    "photons": 1000,
    "spike_ratio": 2,
    "side": 32,
    "scenes": 2,
    "frames": 2,
    "speed": [0.6, 3.0],
    "seed": 1,
    "border": 2,
    "first_frames": 0,
    "last_frames": 0,
}
GROUP, CLIP = "exposure02_threshold2_full", "scene00_02_00"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a frozen list of tiny clips, and the clips; the demo's photographs are one clip of two frames."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        small = benchmark_clips.DemoSet(
            n=2, stride=2, threshold=2.0, spike_ratio=2, light="srgb", size=(32, 32), test_clips=1, test_frames=2
        )
        patch.setattr(benchmark_clips, "PHOTOGRAPHS", small)
        (folder / "protocol.json").write_text(json.dumps({"protocol": PROTOCOL}))
        flags = ["--list", str(folder / "protocol.json"), "--freeze", str(folder / "list.json")]
        assert benchmark_restoration.main([*flags, "--root", str(folder / "clips")]) == 0
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on the tiny clips; gives its exit code and what it wrote."""
    photographs = json.loads((place / "clips" / "photographs" / "simulation.json").read_text())["parameters"]

    class Same:
        n, stride, threshold = 2, 2, 2.0
        parameters = staticmethod(lambda: photographs)

    monkeypatch.setattr(benchmark_clips, "PHOTOGRAPHS", Same)

    def run(*flags: str) -> tuple[int, dict[str, Any]]:
        output = tmp_path / "found.json"
        common = ["--list", str(place / "list.json"), "--root", str(place / "clips"), "--json", str(output)]
        common += ["--output", str(output.with_suffix(".md"))]
        code = benchmark_restoration.main([*common, *flags])
        return code, json.loads(output.read_text()) if output.is_file() else {}

    return run


def test_the_frozen_list_has_every_clip_of_its_protocol() -> None:
    protocol, tree = benchmark_clips.read_list(BENCHMARK_LIST)
    conditions = protocol.conditions()
    assert (len(protocol.exposures), len(protocol.thresholds), len(protocol.lights)) == (3, 3, 2)
    scenes = [
        f"{each.name}/scene{number:02d}_{each.sharp_frames:02d}_00"
        for each in conditions
        for number in range(protocol.scenes)
    ]
    photographs = [f"photographs/{clip.name}" for clip in benchmark_clips.PHOTOGRAPHS.clips() if clip.split == "test"]
    assert list(tree["clips"]) == [*photographs, *scenes]
    assert len(set(tree["clips"].values())) == len(tree["clips"])


def test_the_same_protocol_gives_the_same_clips(place: Path, tmp_path: Path) -> None:
    protocol, tree = benchmark_clips.read_list(place / "list.json")
    scenes = benchmark_clips.GeneratedScenes(protocol)
    condition = protocol.conditions()[-1]
    scenes.write(tmp_path / "again", condition)
    folder = benchmark_clips._laid_out(condition.name, tmp_path / "again", condition.told, {})
    found = benchmark_clips.digests([folder])
    assert len(found) == 2 and found.items() <= tree["clips"].items()


class Ratio(nn.Module):
    """The blurred frame times a ratio of firing rates, in three lines."""

    spike = {"representation": "tfp", "bins": 3}  # noqa: RUF012  (only read)

    def forward(self, L: Tensor, L_spike: Tensor) -> Tensor:
        ratio = (L_spike[:, :, 1:2] + 1) / (L_spike.mean(2, keepdim=True) + 1)
        return L * nn.functional.interpolate(ratio.flatten(0, 1), L.shape[-2:]).unflatten(0, L.shape[:2])


class Plain(nn.Module):
    """Frames alone, given back; or broken on purpose."""

    broken = ""

    def forward(self, L: Tensor) -> Tensor:
        if self.broken == "nan":
            return L * torch.nan
        return L[..., :-2] if self.broken == "size" else L


def test_table_and_json(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = "tests.scripts.test_benchmark_restoration"
    code, found = run("--module", f"{module}:Ratio", "--name", "ratio", "--module", f"{module}:Plain")
    text = capsys.readouterr().out
    assert code == 0
    competitors = found["competitors"]
    assert list(competitors) == ["blurred", "training-free", "training-free, charge", "ratio", f"{module}:Plain"]
    # A module that gives the frames back scores as they do, number by number.
    for key in ("frames", "clips", "psnr_by_speed", "interval_over_clips"):
        assert competitors[f"{module}:Plain"][key] == competitors["blurred"][key]
    low, high = competitors["ratio"]["interval_over_clips"]["psnr"]
    assert low < competitors["ratio"]["mean_over_clips"]["psnr"] < high
    assert competitors["ratio"]["seconds_per_frame"] > 0 and competitors["blurred"]["seconds_per_frame"] is None
    assert len(found["sha256"]) == 9 and set(found["sources"].values()) == {"demo12", "scene00", "scene01"}
    section = (tmp_path / "found.md").read_text(encoding="utf-8")
    assert section.count("<!-- begin benchmark -->") == 1 and section.split("-->\n\n")[1].split("\n<!--")[0] in text
    for row in ("| blurred |", "| ratio |", "| exposure 2 sharp frames | 4 |", "| low light | 4 |", "| above 8 |"):
        assert row in text


def test_networks_of_option_files(run: Any, tmp_path: Path) -> None:
    """RGB only and concat, which start as the blurred frame: all numbers are the blurred frames'."""
    flags = []
    sets = {
        "rgb": {"dataset_type": "VideoRecurrentTestDataset"},
        "concat": {"dataset_type": "VideoRecurrentTestDatasetRGBSpike", "spike": {"representation": "tfp", "bins": 2}},
    }
    for name, section in sets.items():
        roots = {f"dataroot_{kind}": "elsewhere" for kind in ("gt", "lq", *(["spike"] if "spike" in section else []))}
        netG = {**NETWORK, "init_type": "identity", "spynet_path": None}
        tree = {"task": name, "model": "vrt", "datasets": {"test": {**section, **roots}}, "netG": netG}
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
        weights = define_G(load_options(tmp_path / f"{name}.json").netG).state_dict()
        torch.save({"params": weights}, tmp_path / f"{name}.pth")
        flags += ["--opt", str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}.pth")]
    # Trained on generated samples, without a test set in its options.
    netG = {"net_type": "nafnet", "channels": 2, "encoder": [1], "middle": 1, "decoder": [1], "init_type": "identity"}
    train = {"dataset_type": "GuidedSyntheticDataset", "spike": {"representation": "guided"}}
    tree = {"task": "nafnet", "model": "vrt", "datasets": {"train": train}, "netG": netG}
    (tmp_path / "nafnet.json").write_text(json.dumps(tree))
    torch.save({"params": define_G(load_options(tmp_path / "nafnet.json").netG).state_dict()}, tmp_path / "nafnet.pth")
    flags += ["--opt", str(tmp_path / "nafnet.json"), str(tmp_path / "nafnet.pth")]
    code, found = run(*flags)
    assert code == 0 and list(found["competitors"])[3:] == ["rgb", "concat", "nafnet"]
    blurred = found["competitors"]["blurred"]["frames"]
    for name in (*sets, "nafnet"):
        assert found["competitors"][name]["frames"] == blurred
        assert found["competitors"][name]["parameters"].replace(",", "").isdecimal()


def test_pictures_of_another_program(run: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "other"
    for group in (place / "clips").iterdir():
        shutil.copytree(group / "GOPRO_Large" / "test_GT", results / group.name)
    code, found = run("--pictures", str(results))
    assert code == 0 and found["competitors"]["other"]["mean_over_frames"]["psnr"] is None  # infinite
    file = results / GROUP / CLIP / "000001.png"
    cv2.imwrite(str(file), np.zeros((32, 30, 3), np.uint8))
    assert run("--pictures", str(results))[0] == 2
    assert f"{GROUP}/{CLIP}/000001 is 32x30, the sharp frame 32x32" in capsys.readouterr().err
    file.unlink()
    assert run("--pictures", str(results))[0] == 2
    assert "1 of 2 frames are missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("broken", "message"), [("nan", "not numbers"), ("size", "32, 30) of a tile of 2 frames, 32 x 32")]
)
def test_broken_networks_are_refused(
    broken: str, message: str, run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Plain, "broken", broken)
    monkeypatch.setattr("scripts.benchmark.competitors._called", lambda _: Plain())
    assert run("--module", "any:thing")[0] == 2
    assert message in capsys.readouterr().err


def test_other_clips_than_the_list_are_refused(
    run: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads((place / "list.json").read_text())
    tree["clips"][f"{GROUP}/{CLIP}"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(tree))
    assert run("--list", str(tmp_path / "other.json"))[0] == 2
    assert f"1 of 9 clips are not those of {tmp_path / 'other.json'} ({GROUP}/{CLIP})" in capsys.readouterr().err


def test_audit_finds_a_test_frame_in_a_training_set(
    run: Any, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tmp_path / "train" / "clip"
    training.mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(training / "0.png"), picture)
    folder = ClipFolder(GROUP, *(place / "clips" / GROUP / "GOPRO_Large" / f"test_GT{end}" for end in ("_blurred", "")),
                        place / "clips" / GROUP / "GOPRO_Large_spike_seq" / "test", 2.0, {})  # fmt: skip
    found = benchmark_clips.audit([folder], training)
    assert found["frames"] == 1 and int(found["least distance in bits"]) > 6
    shown = cv2.imread(str(folder.sharp / CLIP / "000000.png"))
    brighter = np.clip(cv2.resize(shown, (48, 48)).astype(int) + 10, 0, 255).astype(np.uint8)
    cv2.imwrite(str(training / "1.jpg"), brighter)
    assert run("--audit", str(training.parent))[0] == 2
    assert f"{GROUP}/{CLIP}/000000 and {training / '1.jpg'}" in capsys.readouterr().err


def test_clips_of_the_user(run: Any, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = place / "clips" / GROUP
    code, found = run("--only_clips", "--clips", "mine", "2", str(root))
    assert code == 0 and list(found["sha256"]) == [f"mine/{CLIP}", "mine/scene01_02_00"]
    pictures = root / "GOPRO_Large"
    folders = [pictures / "test_GT_blurred", pictures / "test_GT", root / "GOPRO_Large_spike_seq" / "test"]
    by_folders = benchmark_clips.named_clips(["mine", "2", *map(str, folders)])
    assert benchmark_clips.digests([by_folders]) == found["sha256"]
    assert run("--only_clips")[0] == 2 and run("--clips", "mine", "two", str(root))[0] == 2
    assert run("--module", "json:loads", "--name", "blurred")[0] == 2
    assert run("--module", "json:nothing")[0] == 2
    assert run("--module", "collections:OrderedDict")[0] == 2
    message = capsys.readouterr().err
    for part in ("leaves no clips", "the threshold is 'two'", "two competitors of one name", "has no attribute"):
        assert part in message
    assert "not a torch.nn.Module" in message


def test_protocols_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, message in (
        ({"blur": "gamma"}, "blur is 'gamma'"),
        ({"frames": 2, "last_frames": 2}, "none of 2 frames would be scored"),
        ({"lights": {"none": 0}}, "shares of full light"),
        ({"threshold": 2}, "threshold missing or unknown"),
    ):
        path = tmp_path / "list.json"
        path.write_text(json.dumps({"protocol": {**PROTOCOL, **changes}}))
        assert benchmark_restoration.main(["--list", str(path), "--root", str(tmp_path / "clips")]) == 2
        assert message in capsys.readouterr().err
