"""Writing sync.json by rule, by numbers and from a log; measuring it."""

import json
from pathlib import Path

import pytest

from data.spike.sync import ExposureWindow, SyncTable
from scripts.data_preparation.make_sync import main
from tests.data.trees import GoproTree, make_gopro_tree


@pytest.fixture
def tree(tmp_path: Path) -> GoproTree:
    """Two clips of five frames, 96x128; the spikes are 48x64, 24 spike frames each, sharp at 12."""
    return make_gopro_tree(tmp_path, size=(96, 128), frames=5, sync=False)


def run(tree: GoproTree, *flags: str, frames: Path | None = None) -> int:
    return main(["--frames", str(frames or tree.gt), "--spikes", str(tree.spike), *flags])


def table(tree: GoproTree, clip: int = 0) -> SyncTable:
    return SyncTable.load(tree.spike / tree.clips[clip] / "sync.json", tree.clips[clip])


def one_file(tree: GoproTree) -> None:
    """Makes one .dat of each clip's five."""
    for clip in tree.clips:
        blocks = sorted((tree.spike / clip / "spike").iterdir())
        content = b"".join(block.read_bytes() for block in blocks)
        for block in blocks:
            block.unlink()
        (tree.spike / clip / f"{clip}.dat").write_bytes(content)


def test_rule(tree: GoproTree, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "--spike_fps", "2000") == 0
    assert (
        table(tree).windows == dict.fromkeys(tree.frames, ExposureWindow(0, 24, 12)) and table(tree).spike_fps == 2000
    )
    path = tree.spike / tree.clips[0] / "sync.json"
    path.write_text(path.read_text().replace('"spike_end": 24', '"spike_end": 20'))
    capsys.readouterr()
    assert run(tree) == 0 and table(tree).window("000000").end == 20
    assert "0 sync.json written, 2 were there" in capsys.readouterr().out
    assert run(tree, "--force") == 0 and table(tree).window("000000").end == 24


def test_one_file_per_clip(tree: GoproTree, capsys: pytest.CaptureFixture[str]) -> None:
    one_file(tree)
    assert run(tree) == 2 and "--spikes_per_frame" in capsys.readouterr().err
    assert run(tree, "--spikes_per_frame", "24.5", "--exposure", "20", "--first", "1") == 0
    assert [table(tree).window(frame).begin for frame in tree.frames] == [1, 25, 50, 75, 99]
    assert table(tree, 1).window("000004") == ExposureWindow(99, 119, 109)
    assert run(tree, "--spikes_per_frame", "30", "--force") == 2
    assert "outside the stream" in capsys.readouterr().err


def test_log(tree: GoproTree, tmp_path: Path) -> None:
    one_file(tree)
    rows = [f"{k},{24 * k},{24 * k + 22},9,{clip}" for clip in tree.clips for k in range(5)]
    log = tmp_path / "align.csv"
    log.write_text("\n".join(["frame_idx,t0,t1,event_count,seq", *rows]) + "\n")
    assert run(tree, "--log", str(log)) == 0
    assert table(tree, 1).window("000003") == ExposureWindow(72, 94, 83)


@pytest.mark.parametrize("frames", ["sharp", "blurred"])
def test_check(tree: GoproTree, frames: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A clip whose sync is 6 spike frames late is found, the other is not; nothing is written."""
    one_file(tree)
    assert run(tree, "--spikes_per_frame", "24") == 0
    path = tree.spike / tree.clips[1] / "sync.json"
    late = json.loads(path.read_text())
    late["frames"] = [
        {**frame, **{key: max(0, frame[key] - 6) for key in ("spike_begin", "spike_end", "spike_center")}}
        for frame in late["frames"][1:]
    ]
    late["frames"].insert(0, {"rgb": "000000", "spike_begin": 0, "spike_end": 24})
    path.write_text(json.dumps(late))
    before = path.read_text()
    capsys.readouterr()
    flags = ["--check"] if frames == "sharp" else ["--check", "--blurred"]
    assert run(tree, *flags, frames=tree.gt if frames == "sharp" else tree.lq) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[1].startswith(tree.clips[0]) and "OFF" not in lines[1]
    assert lines[2].startswith(tree.clips[1]) and lines[2].endswith("OFF")
    assert abs(int(lines[2].split()[1]) - 6) <= 1
    assert run(tree, *flags, "--tolerance", "8", frames=tree.gt if frames == "sharp" else tree.lq) == 0
    assert path.read_text() == before


def test_folders_of_an_option_file(tree: GoproTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tmp_path / "o.json"
    options.write_text(json.dumps({"datasets": {"train": tree.roots}}))
    assert main(["--opt", str(options)]) == 0 and len(table(tree)) == 5
    assert main(["--opt", str(options), "--check", "--samples", "2"]) == 0
    right = float(capsys.readouterr().out.splitlines()[-1].split()[-1])
    options.write_text(json.dumps({"datasets": {"train": {**tree.roots, "spike_flipud": False}}}))
    assert main(["--opt", str(options), "--check", "--samples", "2", "--tolerance", "99"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[-1]) < right - 0.3  # the option is obeyed
    assert main(["--opt", str(options), "--splits", "test"]) == 2
    assert "no dataroot_spike" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--frames", str(tree.gt)])
