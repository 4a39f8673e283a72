"""data/spike/sync.py: exposure windows, the GoPro rule, sync.json and the alignment log."""

import json
from pathlib import Path

import pytest

from data.spike.sync import ExposureWindow, SyncTable, default_window, write_sync


@pytest.mark.parametrize(
    ("clip", "frames", "window"),
    [
        ("GOPR0884_11_00", 88, (0, 81, 40)),
        ("GOPR0372_07_00", 56, (0, 49, 24)),
        ("GOPR0374_13_02", 104, (0, 97, 48)),
        ("GOPR0884_11_00", 80, (0, 80, 40)),  # another length: the whole file
        ("GOPR0884_11_00", 301, (0, 301, 150)),
        ("video_11_00", 88, (0, 88, 44)),  # another data set
        ("200_part1", 301, (0, 301, 150)),
        ("x", 1, (0, 1, 0)),
    ],
)
def test_default_window(clip: str, frames: int, window: tuple[int, int, int]) -> None:
    assert default_window(clip, frames) == ExposureWindow(*window)


def test_window_reversed_and_shifted() -> None:
    """Reversing maps the window's frames onto the same frames of the reversed stream, and twice is nothing."""
    window = ExposureWindow(3, 9, 5)
    frames = list(range(12))
    reversed_window = window.reversed(12)
    assert frames[::-1][reversed_window.begin : reversed_window.end] == frames[3:9][::-1]
    assert frames[::-1][reversed_window.center] == 5
    assert reversed_window.reversed(12) == window and len(window) == len(reversed_window) == 6
    assert window.shifted(-3) == ExposureWindow(0, 6, 2)
    with pytest.raises(ValueError, match=r"\[3, 9\) lies outside .* \[0, 8\)"):
        window.reversed(8)


@pytest.mark.parametrize("values", [(-1, 4, 2), (0, 4, 4), (2, 4, 1), (3, 3, 3)])
def test_impossible_windows(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="0 <= begin <= centre < end"):
        ExposureWindow(*values)


def test_sync_round_trip(tmp_path: Path) -> None:
    windows = {"000226.png": ExposureWindow(0, 81, 40), "frame.v2": ExposureWindow(8, 10, 9)}
    path = tmp_path / "clip" / "sync.json"
    write_sync(path, "clip", windows, spike_fps=1920.0)
    table = SyncTable.load(path, "clip")
    assert (table.seq_name, table.spike_fps, len(table)) == ("clip", 1920.0, 2)
    assert table.windows == {"000226": ExposureWindow(0, 81, 40), "frame.v2": ExposureWindow(8, 10, 9)}
    for name in ("000226", "000226.png", "some/where/000226.PNG", "some\\where\\000226.jpg"):
        assert table.window(name) == ExposureWindow(0, 81, 40)
    assert table.window("frame.v2.png") == ExposureWindow(8, 10, 9)
    with pytest.raises(ValueError, match=r"sync\.json: RGB frame '000227' is not among its 2 frames.*'000226'"):
        table.window("000227.png")
    with pytest.raises(ValueError, match=r"seq_name is 'clip', not the clip 'other'"):
        SyncTable.load(path, "other")
    with pytest.raises(ValueError, match="'a' is listed twice"):
        write_sync(path, "clip", {"a.png": windows["000226.png"], "a.jpg": windows["000226.png"]})
    assert len(SyncTable.load(path)) == 2


def test_center_left_out_is_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "sync.json"
    path.write_text('{"seq_name": "c", "frames": [{"rgb": "0", "spike_begin": 0, "spike_end": 81}]}')
    assert SyncTable.load(path).window("0") == ExposureWindow(0, 81, 40)
    assert SyncTable.load(path).spike_fps is None


GOOD = {"rgb": "000000", "spike_begin": 0, "spike_end": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ([], "is needed"),
        ({"seq_name": "c", "frames": []}, "is needed"),
        ({"frames": [GOOD]}, "seq_name is None"),
        ({"seq_name": "c", "spike_fps": "40k", "frames": [GOOD]}, "spike_fps is '40k'"),
        ({"seq_name": "c", "frames": [{**GOOD, "rgb": 3}]}, r"frames\[0\] needs rgb"),
        ({"seq_name": "c", "frames": [GOOD, {"rgb": "000001"}]}, r"frames\[1\]\.spike_begin is None"),
        ({"seq_name": "c", "frames": [{**GOOD, "spike_end": 8.5}]}, r"frames\[0\]\.spike_end is 8\.5"),
        ({"seq_name": "c", "frames": [{**GOOD, "spike_center": 9}]}, r"frames\[0\]: exposure \[0, 8\) with centre 9"),
        ({"seq_name": "c", "frames": [GOOD, GOOD]}, "'000000' is listed twice"),
    ],
)
def test_faulty_sync_files(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "sync.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"sync\.json.*{message}"):
        SyncTable.load(path)


def test_missing_sync_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sync\.json: no such file; .*make_sync\.py"):
        SyncTable.load(tmp_path / "sync.json")


def test_alignment_log(tmp_path: Path) -> None:
    path = tmp_path / "align.csv"
    path.write_text("frame_idx,t0,t1,event_count,seq\n0,0,33,1200,a\n1,15,48,1300,a\n0,5,9,7,b\n")
    table = SyncTable.load(path, "a")
    assert len(table) == 2 and table.seq_name == "a"
    assert table.window("000001.png") == ExposureWindow(15, 48, 31)
    assert SyncTable.load(path, "b").window("0") == ExposureWindow(5, 9, 7)
    with pytest.raises(ValueError, match="RGB frame '000002' is not among"):
        table.window("000002.png")
    for clip in (None, "c"):
        with pytest.raises(ValueError, match=r"align\.csv: no clip .*; the file has a, b"):
            SyncTable.load(path, clip)
    path.write_text("frame_idx,t0,t1,event_count,seq\n0,0.0,0.033,12,a\n")
    with pytest.raises(ValueError, match=r"line 2: frame_idx, t0 and t1 must be whole"):
        SyncTable.load(path)
    path.write_text("frame,t0,t1\n0,0,1\n")
    with pytest.raises(ValueError, match=r"align\.csv: columns are \['frame', 't0', 't1'\]"):
        SyncTable.load(path)
