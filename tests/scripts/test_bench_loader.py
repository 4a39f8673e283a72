"""The loader's benchmark: runs, loads the same samples in all ways, and prints its table."""

import sys
from pathlib import Path

import pytest
import torch

from data.frame_io import FolderFrames
from data.sampler import SampleIndex
from scripts.benchmark.bench_loader import main, make_data, measure, timed_parts, ways
from scripts.data_preparation.make_tiles import tile_frames
from tests.tiny import alone


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("bench"), (96, 128), 8)


@pytest.fixture(scope="module")
def tiles(roots: dict[str, str]) -> dict[str, str]:
    created = {}
    for side in ("gt", "lq"):
        source = Path(roots[f"dataroot_{side}"])
        tile_frames(FolderFrames(source, side), source.with_name(f"{side}_tiles"), workers=1)
        created[f"dataroot_{side}"] = f"{source}_tiles"
    return created


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def test_all_ways_load_the_same_pictures(roots: dict[str, str], tiles: dict[str, str], cache: str) -> None:
    loaders = ways(roots, tiles, gt_size=48, cache=cache)
    samples = {name: load(SampleIndex(3, 1)) for name, load in loaders.items()}
    assert all(torch.equal(samples["KAIR"][key], samples["PNG, RGB only"][key]) for key in ("L", "H"))
    for name in ("concat", "voxel"):
        png, tiled = samples[f"PNG, {name}"], samples[f"tiles, {name}"]
        assert all(torch.equal(png[key], tiled[key]) for key in png if key != "key")
    assert samples["tiles, concat"]["L"].shape == (6, 7, 48, 48)
    assert samples["tiles, voxel"]["L_spike"].shape == (6, 32, 24, 24)


def test_measures_and_parts(roots: dict[str, str], tiles: dict[str, str], cache: str) -> None:
    with alone():
        rows = measure(ways(roots, tiles, gt_size=48, cache=cache), [SampleIndex(epoch, 0) for epoch in range(2)])
    by_name = {row["way"]: row for row in rows}
    assert by_name["KAIR"]["ratio"] == 1 and all(row["ms"] > 0 for row in rows)
    assert by_name["PNG, RGB only"]["spikes"] == 0 < by_name["PNG, voxel"]["spikes"] < 1
    with timed_parts() as spent:
        pass
    assert set(spent.values()) == {0.0}


def test_a_way_that_loads_something_else_is_refused(roots: dict[str, str], tiles: dict[str, str], cache: str) -> None:
    loaders = ways(roots, tiles, gt_size=48, cache=cache)
    load = loaders["PNG, RGB only"]
    loaders["PNG, RGB only"] = lambda sample: {**load(sample), "L": torch.zeros(1)}
    with pytest.raises(AssertionError, match="do not load the same sample"):
        measure(loaders, [SampleIndex(0, 0)])


def test_command(roots: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [f"--{side}={roots[f'dataroot_{side}']}" for side in ("gt", "lq", "spike")]
    monkeypatch.setattr(sys, "argv", ["bench_loader.py", *folders, "--gt_size=48", "--samples=1"])
    with alone():
        main()
    printed = capsys.readouterr().out
    for part in ("| tiles, voxel |", "bytes per frame", "times KAIR's way at least, goal 5.0", "goal 5 %"):
        assert part in printed
