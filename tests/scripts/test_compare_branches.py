"""scripts/compare_branches.py: three small trainings, whose table says what the tester measures."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import data.select_dataset  # noqa: F401  registers the data sets
import models.select_model  # noqa: F401  registers the networks
from scripts import compare_branches
from scripts.compare_branches import ABLATIONS, main, steps_within
from scripts.comparison_report import CROP, Comparison, Row, markdown, put_section
from scripts.comparison_training import resident_peak, write_cost
from scripts.comparison_variants import Variant, without_spikes
from tests.tiny import TinyRun, alone, run_test
from utils.user_error import UserError
from utils.utils_image import most_different
from utils.utils_option import load_options, option_changes, options_to_dict

TITLES = {"RGB only": "rgb", "concat": "concat", "voxel": "voxel"}


class Tiny:
    """A comparison of the smallest networks."""

    def __init__(self, root: Path) -> None:
        self.run = TinyRun.make(root)
        self.voxel = root / "voxel.json"
        spikes = {phase: {"spike": {"bins": 4}, "input_pack_mode": "dual"} for phase in ("train", "test")}
        network = {"net_type": "vrt_spike"}
        self.voxel.write_text(json.dumps({"base": "tiny.json", "datasets": spikes, "netG": network}))
        self.output, self.results = root / "docs" / "results.md", root / "results"
        self.argv = ["--opt_concat", str(self.run.options), "--opt_voxel", str(self.voxel), "--timed_steps", "1"]
        self.argv += ["--steps", "2", "--name", "tiny", "--output", str(self.output), "--results", str(self.results)]

    def __call__(self, *flags: str) -> int:
        with alone():
            return main([*self.argv, *flags])

    def metrics(self, kind: str, label: str = "intact") -> dict[str, float]:
        """Means over frames that were written."""
        path = self.results / "compare_tiny" / kind / label / "metrics.json"
        return json.loads(path.read_text())["mean_over_frames"]

    def table(self, head: str) -> dict[str, list[str]]:
        """Cells by the first one of the table that begins with `head`."""
        lines = self.output.read_text().split(head)[1].split("\n\n")[0].splitlines()[2:]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {first: rest for first, *rest in cells}


@pytest.mark.slow
def test_tables_say_what_the_tester_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tiny = Tiny(tmp_path)
    put_section(tiny.output, "of before", "Kept.\n")
    assert tiny() == 0

    rows = tiny.table("| | PSNR")
    measured = {title: tiny.metrics(kind) for title, kind in TITLES.items()}
    base = measured["RGB only"]
    assert rows["blurred input"][:2] == [f"{base['input_psnr']:.2f}", f"{base['input_ssim']:.4f}"]
    for title, mean in measured.items():
        gains = [f"{mean['psnr'] - base[key]:+.2f}" for key in ("input_psnr", "psnr")]
        assert rows[title][:4] == [f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}", *gains]
        assert float(rows[title][5]) > 0 and 0.1 < float(rows[title][6].removesuffix(" GB")) < 10
        folder = tmp_path / "experiments" / f"compare_tiny_{TITLES[title]}"
        assert f": {rows[title][4]} parameters" in (folder / "train.log").read_text()
        assert "Testing" not in (folder / "train.log").read_text()
    parameters = [int(rows[title][4].replace(",", "")) for title in TITLES]
    assert parameters == sorted(set(parameters))

    worse = tiny.table("| spikes")
    assert list(worse) == ["intact", *ABLATIONS]
    for label in worse:
        folder_name = re.sub(r"\W+", "_", label).strip("_")
        for column, title in ((0, "concat"), (2, "voxel")):
            psnr = tiny.metrics(TITLES[title], folder_name)["psnr"]
            assert worse[label][column : column + 2] == [f"{psnr:.2f}", f"{psnr - measured[title]['psnr']:+.2f}"]

    for kind, label, section in (("voxel", "intact", None), ("concat", "half_of_them_dropped", "drop")):
        flags = ["--opt", tiny.results / "compare_tiny" / kind / "options.json", "--output", tmp_path / "again"]
        perturb = 'datasets.test.spike_perturb={"kind": "drop", "amount": 0.5}'
        assert run_test(*flags, *(["--set", perturb] if section else [])) == 0
        again = json.loads((tmp_path / "again" / f"compare_tiny_{kind}" / "metrics.json").read_text())
        assert tiny.metrics(kind, label).items() <= again["mean_over_frames"].items()

    text = tiny.output.read_text()
    assert "Kept." in text and "python -m scripts.compare_branches --opt_concat" in text
    figure = cv2.imread(str(tiny.output.parent / "figures" / "comparison_tiny.jpg"))
    assert figure.shape[0] > 2 * 24 and figure.shape[1] > 5 * 32

    check_running_again(tiny, tmp_path)


def check_running_again(tiny: Tiny, root: Path) -> None:
    """Only what is missing is trained; other options under the same name are refused."""
    experiments = root / "experiments"
    stamps = {path: path.stat().st_mtime_ns for path in experiments.rglob("*.pth")}
    rgb = tiny.metrics("rgb")
    shutil.rmtree(experiments / "compare_tiny_rgb")
    assert tiny() == 0
    assert tiny.metrics("rgb") == rgb
    for path, stamp in stamps.items():
        assert ("compare_tiny_rgb" in path.parts) == (path.stat().st_mtime_ns != stamp)
    assert tiny.output.read_text().count("<!-- begin") == 2

    text, options = tiny.output.read_text(), (tiny.results / "compare_tiny/concat/options.json").read_text()
    assert tiny("--set", "train.G_optimizer_lr=1e-4") == 2
    assert tiny.output.read_text() == text
    assert (tiny.results / "compare_tiny/concat/options.json").read_text() == options


def test_rgb_only_is_the_concat_recipe_without_spikes(repository: Path) -> None:
    concat = load_options(repository / "options/demo/quickstart.json")
    tree = without_spikes(concat)
    assert "in_chans" not in tree["netG"]
    for phase in ("train", "test"):
        assert not [key for key in tree["datasets"][phase] if "spike" in key]
    before = options_to_dict(concat)
    changed = {change.split(":")[0] for change in option_changes(before, tree)}
    expected = {"netG.in_chans", "datasets.train.dataroot_instants"}
    expected |= {f"datasets.{phase}.dataset_type" for phase in ("train", "test")}
    assert {
        key for key in changed if "spike" not in key and "pack_mode" not in key and "hot_pixel" not in key
    } == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"manual_seed": 1}}, "train.manual_seed: RGB only 0, concat 0, voxel 1"),
        ({"datasets": {"train": {"gt_size": 8}}}, "datasets.train.gt_size: RGB only 16, concat 16, voxel 8"),
        ({"datasets": {"test": None}}, "datasets.test: missing in the options of voxel"),
    ],
)
def test_unlike_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    tiny = Tiny(tmp_path)
    tree = json.loads(tiny.voxel.read_text())
    for section, values in change.items():
        for key, value in values.items():
            known = tree.setdefault(section, {}).get(key)
            tree[section][key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    tiny.voxel.write_text(json.dumps(tree))
    assert tiny() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists() and not tiny.results.exists()


def test_variants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    clock = iter(range(1000))
    monkeypatch.setattr(compare_branches, "step_of", lambda name: lambda: taken.append(name))
    monkeypatch.setattr(compare_branches.time, "perf_counter", lambda: next(clock) ** 2)
    seconds = compare_branches.time_steps(["a", "b"], 3)  # type: ignore[arg-type]
    assert taken == ["a", "b"] * 5
    # Steps run from 2k to 2k + 1, which takes 4k + 1; the first two rounds, k = 0 to 3, are not counted.
    assert seconds == [4 * 6 + 1, 4 * 7 + 1]


def test_steps_within_a_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the cost of a step; a training that has begun keeps its number."""
    opt = load_options(TinyRun.make(tmp_path).options)
    begun = Variant("c", opt.model_copy(update={"task": "begun"}), tmp_path)
    begun.begun_with.parent.mkdir(parents=True)
    begun.begun_with.write_text(json.dumps({"train": {"total_iter": 7}}))
    fresh = [Variant(title, opt, tmp_path) for title in ("a", "b")]
    monkeypatch.setattr(compare_branches, "time_steps", lambda variants, *_: [0.5, 200.0][: len(variants)])
    assert steps_within(90, [*fresh, begun], 3) == {"a": 180, "b": 1, "c": 7}


def test_equal_time_and_a_further_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Tiny(tmp_path)
    del tiny.argv[tiny.argv.index("--steps") : tiny.argv.index("--steps") + 2]
    trained: dict[str, int] = {}

    def train(variant: Variant) -> dict[str, Any]:
        trained[variant.title] = load_options(variant.options_file).train.total_iter
        raise UserError("not today")

    monkeypatch.setattr(compare_branches, "train", train)
    monkeypatch.setattr(compare_branches, "time_steps", lambda variants, *_: [0.25 * (k + 1) for k in range(4)])
    assert tiny("--seconds", "60", "--also", f"wide={tiny.run.options}") == 2
    assert trained == {"RGB only": 240} and "not today" in capsys.readouterr().err
    steps = {
        kind: json.loads((tiny.results / "compare_tiny" / kind / "options.json").read_text())["train"]["total_iter"]
        for kind in ("rgb", "concat", "voxel", "wide")
    }
    assert steps == {"rgb": 240, "concat": 120, "voxel": 80, "wide": 60}


def comparison(name: str, gain: float) -> Comparison:
    rows = [
        Row("RGB only", 20.0, 0.5, 1000, 0.25, None, "none"),
        Row("concat", 20.0 + gain, 0.625, 2000, 0.5, 1.25, "tfp (bins 4)"),
    ]
    ablation = {"intact": {"concat": 20.0 + gain}, "none (zero)": {"concat": 19.0}}
    return Comparison(name, "python -m x --name y", ["Machine: m."], 18.0, 0.25, rows, ablation, "figures/a.jpg")


def test_sections_replace_their_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "results.md"
    for name, gain in (("a", 1.0), (r"b\1", 2.0), ("a", 3.0)):
        put_section(path, name, markdown(comparison(name, gain)))
    text = path.read_text()
    assert text.count("# Results\n") == 1 and text.count("<!-- begin a -->") == text.count("<!-- end a -->") == 1
    assert text.index("<!-- end a -->") < text.index("<!-- begin b")
    assert "| concat | 23.00 | 0.6250 | +5.00 | +3.00 | 2,000 | 0.500 | 1.25 GB |" in text
    assert "| RGB only | 20.00 | 0.5000 | +2.00 | +0.00 | 1,000 | 0.250 | not known |" in text
    assert "| none (zero) | 19.00 | -4.00 |" in text and "+1.00 | 2,000" not in text


def test_the_crop_is_where_pictures_differ_most() -> None:
    sharp = np.zeros((2 * CROP, 3 * CROP, 3), np.uint8)
    blurred = sharp.copy()
    blurred[CROP : 2 * CROP, 2 * CROP :] = 9
    blurred[:20, :20] = 99
    assert most_different(blurred, sharp, CROP) == (CROP, 2 * CROP, CROP, CROP)
    assert most_different(blurred[:30, :40], sharp[:30, :40], CROP) == (0, 0, 30, 40)


@pytest.mark.skipif(resident_peak() is None, reason="the system does not tell a process's peak memory")
def test_the_larger_peak_stays_and_times_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = tmp_path / "cost.json"
    write_cost(path)
    found = json.loads(path.read_text())
    assert found["of"] == "RAM" and 0.05 < found["gb"] < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    path.write_text('{"gb": 1000000.0, "of": "RAM", "processor_seconds": 1000.0}')
    write_cost(path)
    after = json.loads(path.read_text())
    assert after["gb"] == 1e6 and 1000 < after["processor_seconds"] - found["processor_seconds"] < 1100


@pytest.mark.parametrize(
    "flags", [["--name", "a/b"], ["--timed_steps", "0"], ["--seconds", "60"], ["--also", "voxel=a.json"]]
)
def test_flags_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: Sequence[str]) -> None:
    assert Tiny(tmp_path)(*flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_a_training_that_was_told_to_stop_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = subprocess.CompletedProcess([], returncode=0)
    monkeypatch.setattr(compare_branches.subprocess, "run", lambda *arguments, **flags: stopped)
    assert Tiny(tmp_path)() == 2
    assert "RGB only: training was told to stop; the same command goes on" in capsys.readouterr().err
