"""What an option file names and the disk lacks is told at once, with the preparation of that set; KAIR's files load."""

import json
from pathlib import Path
from typing import Any

import pytest

import main_train_vrt
from data import missing_files
from data.preparations import preparation_of, remedies
from tests.kair_options import DIFFERENCES, kair_options
from tests.tiny import TinyRun, alone
from utils.utils_option import load_options, options_to_dict

PREPARATIONS = {
    "001": "prepare_reds",
    "002": "prepare_reds",
    "003": "prepare_vimeo90k",
    "004": "prepare_vimeo90k",
    "005": "prepare_dvd",
    "006": "prepare_gopro_spike_dataset",
    "007": "prepare_reds",
    "008": "prepare_davis",
    "009": "prepare_vimeo90k",
}


def paths(tree: Any) -> set[str]:
    """Every path of data and weights in a tree of options."""
    if not isinstance(tree, dict):
        return set()
    found = {value for value in tree.values() if isinstance(value, str) and "/" in value}
    return found.union(*map(paths, tree.values()))


@pytest.mark.parametrize("number", DIFFERENCES)
def test_kairs_file_loads_and_what_is_missing_is_told_at_once(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = kair_options(number)
    file = tmp_path / f"{tree['task']}.json"
    file.write_text(json.dumps(tree, indent=1))
    resolved = options_to_dict(load_options(file))
    for section in ("path", "netG", "train", "val"):
        assert tree[section].items() <= resolved[section].items()
    assert all(tree["datasets"][phase].items() <= resolved["datasets"][phase].items() for phase in ("train", "test"))
    monkeypatch.chdir(tmp_path)
    # Memory is estimated in tests/test_main_train.py; full networks take seconds each.
    monkeypatch.setattr(main_train_vrt, "dry_run_without_data", lambda opt, dist: None)
    with alone():
        assert main_train_vrt.main(["--opt", str(file), "--dry-run"]) == 2
    told = capsys.readouterr().err
    named = paths({key: tree[key] for key in ("path", "datasets", "netG")})
    assert len(named) >= 4 and all(f"{path} does not exist" in told for path in named)
    assert f"scripts.data_preparation.{PREPARATIONS[number]} --opt" in told
    assert {name for name in PREPARATIONS.values() if name in told} == {PREPARATIONS[number]}
    assert ("spynet_sintel" in told) == (number != "009") and ("testset_Set8.tar.gz" in told) == (number == "008")


def test_the_folder_nearest_to_the_end_names_the_set() -> None:
    cases = {
        "/mnt/davis/trainsets/GOPRO_Large/train_GT": "prepare_gopro_spike_dataset",
        "testsets/DVD10/test_GT": "prepare_dvd",
        "testsets/REDS4/blur": "prepare_reds",
        "testsets/DAVIS-test": "prepare_davis",
        "trainsets/vimeo90k/vimeo90k_train_GT_all.lmdb": "prepare_vimeo90k",
    }
    for root, command in cases.items():
        preparation = preparation_of(root)
        assert preparation is not None and preparation.command == command, root
    assert preparation_of("data/redshift/frames") is None
    assert "GoPro" in remedies(["nowhere"])[0] and "--demo" in remedies(["nowhere"])[-1]


def test_a_resumed_run_needs_no_start_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = TinyRun.make(tmp_path)
    assert run.train("train.total_iter=1") == 0
    gone = [f"netG.spynet_path={tmp_path}/gone.pth", f"path.pretrained_netG={tmp_path}/gone_too.pth"]
    assert run.train(*gone, "train.total_iter=2") == 0
    assert run.train(*gone, f"path.root={tmp_path}/other") == 2
    told = capsys.readouterr().err
    assert "gone.pth does not exist" in told and "gone_too.pth does not exist" in told
    assert run.train("path.pretrained_netG=", f"path.root={tmp_path}/other") == 2
    assert "path.pretrained_netG: '' does not exist" in capsys.readouterr().err


def test_spynet_alone_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, Path]] = []
    monkeypatch.setattr(missing_files, "download", lambda url, path: fetched.append((url, path)))
    path = "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json"
    expected = tmp_path / missing_files.SPYNET
    opt = load_options(path, [f"netG.spynet_path={expected}", f"path.pretrained_netG={tmp_path}/x.pth"])
    missing_files.fetch_weights(opt, "https://host/v0.0/")
    assert fetched == [(f"https://host/v0.0/{missing_files.SPYNET}", expected)]
    missing_files.fetch_weights(load_options(path, [f"netG.spynet_path={tmp_path}/another.pth"]), "https://host")
    missing_files.fetch_weights(load_options(path, ["netG.spynet_path=null"]), "https://host")
    assert len(fetched) == 1
