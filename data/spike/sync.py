"""The spike frames recorded during the exposure of each RGB frame.

A clip's <dataroot_spike>/<clip>/sync.json:

    {"seq_name": "clip", "spike_fps": 1920.0,
     "frames": [{"rgb": "000000", "spike_begin": 0, "spike_end": 81, "spike_center": 40}, ...]}

[spike_begin, spike_end) counts in the frame's own `.dat` if the clip has one per frame
(<dataroot_spike>/<clip>/spike/<frame>.dat), else in the clip's single `.dat`. `spike_fps` and `spike_center` are
optional; by default the centre is the middle of the exposure. An alignment log `frame_idx,t0,t1,event_count,seq` (CSV)
can be read too. Without either, `default_window` applies.
"""

import csv
import difflib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.user_error import UserError
from utils.utils_file import atomic_write, read_json, read_text

GOPRO_CLIP = re.compile(r"GOPR\d+_(\d+)_")  # names of the GoPro set's clips; the group is the sharp frames averaged
GOPRO_SPIKES_PER_FRAME = 8  # spike frames between two sharp frames of the GoPro spike set
LOG_COLUMNS = ["frame_idx", "t0", "t1", "event_count", "seq"]  # the header of an alignment log (docs/spike_format.md)


@dataclass(frozen=True)
class ExposureWindow:
    """Spike frames [begin, end) of an exposure, and the spike frame `center` at the time of the sharp frame.

    Raises:
        UserError: not 0 <= begin <= center < end.
    """

    begin: int
    end: int
    center: int

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.center < self.end:
            raise UserError(
                f"exposure [{self.begin}, {self.end}) with centre {self.center}: 0 <= begin <= centre < end is needed."
            )

    def __len__(self) -> int:
        """Spike frames in the exposure."""
        return self.end - self.begin

    def reversed(self, length: int) -> "ExposureWindow":
        """The same exposure in the time-reversed stream of `length` frames: frame t becomes length - 1 - t."""
        self.check(length)
        return ExposureWindow(length - self.end, length - self.begin, length - 1 - self.center)

    def at(self, time: float) -> "ExposureWindow":
        """The same exposure with the instant `time` as its centre, 0 at its first spike frame and 1 at its last."""
        return ExposureWindow(self.begin, self.end, self.begin + round(time * (len(self) - 1)))

    def shifted(self, offset: int) -> "ExposureWindow":
        """The same exposure with all indices increased by `offset`; in a block from frame b on it is shifted(-b)."""
        return ExposureWindow(self.begin + offset, self.end + offset, self.center + offset)

    def check(self, length: int) -> None:
        """
        Raises:
            UserError: the exposure does not lie inside a stream of `length` frames.
        """
        if self.end > length:
            raise UserError(
                f"exposure [{self.begin}, {self.end}) lies outside the stream, which has spike frames [0, {length}): "
                "the sync.json belongs to another stream, or the .dat is incomplete."
            )


def default_window(clip: str, num_spike_frames: int) -> ExposureWindow:
    """The exposure of a frame that has its own `.dat` and no sync.json.

    GoPro spike set: the second field of the clip's name is n, the number of sharp frames averaged
    ("GOPR0884_11_00": 11). Sharp frame j is at spike frame 8 j, so in a file of 8 n spike frames the exposure, sharp
    frames 0 to n - 1, is [0, 8 (n - 1) + 1), and its middle frame n // 2 is at 8 (n // 2). In other clips and files of
    other lengths the exposure is the whole file and the centre its middle, num_spike_frames // 2.
    """
    match = GOPRO_CLIP.match(clip)
    averaged = int(match[1]) if match else 0
    step = GOPRO_SPIKES_PER_FRAME
    if averaged and num_spike_frames == step * averaged:
        return ExposureWindow(0, step * (averaged - 1) + 1, step * (averaged // 2))
    return ExposureWindow(0, num_spike_frames, num_spike_frames // 2)


def evenly_shared(frames: Sequence[str], num_spike_frames: int) -> dict[str, ExposureWindow]:
    """Exposures of a clip's frames in one stream without timing information: equal shares, without gaps.

    Raises:
        UserError: fewer spike frames than frames.
    """
    if num_spike_frames < len(frames):
        raise UserError(f"{num_spike_frames} spike frames are too few for {len(frames)} frames")
    edges = [number * num_spike_frames // len(frames) for number in range(len(frames) + 1)]
    windows = (ExposureWindow(begin, end, (begin + end) // 2) for begin, end in pairwise(edges))
    return dict(zip(frames, windows, strict=True))


class SyncTable:
    """The exposures of one clip, by RGB frame.

    Attributes:
        path: the file read.
        seq_name: the clip.
        spike_fps: spike frames per second; None if the file lacks it.
        windows: RGB frame (name without suffix) -> exposure, in the file's order.
    """

    def __init__(
        self, path: Path, seq_name: str, windows: Mapping[str, ExposureWindow], spike_fps: float | None = None
    ) -> None:
        self.path = path
        self.seq_name = seq_name
        self.spike_fps = spike_fps
        self.windows = dict(windows)

    def __len__(self) -> int:
        """Number of RGB frames."""
        return len(self.windows)

    @classmethod
    def load(cls, path: str | Path, seq_name: str | None = None) -> "SyncTable":
        """Reads sync.json, or an alignment log if the name ends in ".csv".

        Args:
            seq_name: the clip; required for a log of several clips. A file of another clip is an error.

        Raises:
            UserError: no such file, not in the format (the message names entry and key), or without `seq_name`.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file; write it with scripts/data_preparation/make_sync.py.")
        if path.suffix.lower() == ".csv":
            return _load_log(path, seq_name)
        return _load_json(path, seq_name)

    def window(self, rgb_name: str) -> ExposureWindow:
        """The exposure of an RGB frame, named as in the file ("000226"), with or without suffix or folder.

        A log numbers frames without padding (226); its frames are found by zero-padded numbers too.

        Raises:
            UserError: the frame is not in the file.
        """
        stem = _stem(rgb_name)
        if stem in self.windows:
            return self.windows[stem]
        if stem.isdecimal() and str(int(stem)) in self.windows:
            return self.windows[str(int(stem))]
        near = difflib.get_close_matches(stem, self.windows, n=1)
        hint = f" The nearest name is {near[0]!r}." if near else ""
        raise UserError(f"{self.path}: RGB frame {stem!r} is not among its {len(self)} frames.{hint}")


def exposure_of(
    frame: str, frames: Sequence[str], folder: str | None, sync: SyncTable | None, num_spike_frames: int
) -> ExposureWindow:
    """The exposure of one of a clip's frames in its file of spikes: by sync.json, or by the rule without one.

    Args:
        folder: name of the clip's folder; None: the spikes are one file, which `frames` share evenly.

    Raises:
        UserError: sync.json lacks the frame, or the exposure is outside the file.
    """
    if sync is not None:
        window = sync.window(frame)
    elif folder is None:
        window = evenly_shared(frames, num_spike_frames)[frame]
    else:
        window = default_window(folder, num_spike_frames)
    window.check(num_spike_frames)
    return window


def write_sync(
    path: str | Path, seq_name: str, frames: Mapping[str, ExposureWindow], spike_fps: float | None = None
) -> None:
    """Writes a sync.json, completely or not at all.

    Args:
        frames: RGB frame (a suffix is removed) -> its exposure.
        spike_fps: spike frames per second; None: not written.
    """
    content: dict[str, Any] = {"seq_name": seq_name}
    if spike_fps is not None:
        content["spike_fps"] = spike_fps
    entries = [(_stem(rgb), window) for rgb, window in frames.items()]
    _unique(Path(path), entries)
    content["frames"] = [
        {"rgb": rgb, "spike_begin": window.begin, "spike_end": window.end, "spike_center": window.center}
        for rgb, window in entries
    ]
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def sub_frame_name(frame: str, center: int) -> str:
    """Name of the sharp picture at spike frame `center` of a blurred frame's exposure."""
    return f"{frame}_{center:04d}"


def _stem(rgb_name: str) -> str:
    """A frame's name without folder and picture suffix; other dots are kept."""
    name = rgb_name.replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"\.(png|jpe?g|bmp|tiff?|webp|dat)$", "", name, flags=re.IGNORECASE)


def _unique(path: Path, entries: Iterable[tuple[str, ExposureWindow]]) -> dict[str, ExposureWindow]:
    windows: dict[str, ExposureWindow] = {}
    for rgb, window in entries:
        if rgb in windows:
            raise UserError(f"{path}: RGB frame {rgb!r} is listed twice.")
        windows[rgb] = window
    return windows


def _load_json(path: Path, seq_name: str | None) -> SyncTable:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
        raise UserError(
            f'{path}: {{"seq_name": ..., "frames": [{{"rgb", "spike_begin", "spike_end"}}, ...]}} is needed.'
        )
    found = content.get("seq_name")
    if not isinstance(found, str):
        raise UserError(f"{path}: seq_name is {found!r}; the clip's name is needed.")
    if seq_name is not None and found != seq_name:
        raise UserError(f"{path}: seq_name is {found!r}, not the clip {seq_name!r}.")
    spike_fps = content.get("spike_fps")
    if spike_fps is not None and (isinstance(spike_fps, bool) or not isinstance(spike_fps, int | float)):
        raise UserError(f"{path}: spike_fps is {spike_fps!r}; a number is needed.")
    entries = [_json_entry(path, number, entry) for number, entry in enumerate(content["frames"])]
    return SyncTable(path, found, _unique(path, entries), spike_fps)


def _json_entry(path: Path, number: int, entry: object) -> tuple[str, ExposureWindow]:
    if not isinstance(entry, dict) or not isinstance(entry.get("rgb"), str):
        raise UserError(f"{path}: frames[{number}] needs rgb, the RGB frame's name.")
    for key in ("spike_begin", "spike_end", "spike_center"):
        if key == "spike_center" and entry.get(key) is None:
            continue
        if type(entry.get(key)) is not int:
            raise UserError(f"{path}: frames[{number}].{key} is {entry.get(key)!r}; a spike frame's index is needed.")
    return _stem(entry["rgb"]), _window(
        f"{path}: frames[{number}]", entry["spike_begin"], entry["spike_end"], entry.get("spike_center")
    )


def _window(where: str, begin: int, end: int, center: int | None) -> ExposureWindow:
    try:
        return ExposureWindow(begin, end, (begin + end) // 2 if center is None else center)
    except UserError as fault:
        raise UserError(f"{where}: {fault}") from fault


def _load_log(path: Path, seq_name: str | None) -> SyncTable:
    """An alignment log: t0 and t1 are half-open spike frame indices; event_count is not used."""
    reader = csv.DictReader(io.StringIO(read_text(path)))
    try:
        rows = list(reader)
    except csv.Error as fault:
        raise UserError(f"{path}: can't be read as CSV ({fault}); copy it again.") from fault
    if list(reader.fieldnames or []) != LOG_COLUMNS or not rows or any(row["seq"] is None for row in rows):
        raise UserError(f"{path}: columns are {reader.fieldnames}; {','.join(LOG_COLUMNS)} and frames are needed.")
    clips = sorted({row["seq"] for row in rows})
    if seq_name is None and len(clips) == 1:
        seq_name = clips[0]
    if seq_name not in clips:
        raise UserError(f"{path}: no clip {seq_name!r}; the file has {', '.join(clips)}.")
    entries = []
    for line, row in enumerate(rows, start=2):
        if row["seq"] != seq_name:
            continue
        try:
            frame, begin, end = (int(row[column]) for column in LOG_COLUMNS[:3])
        except (TypeError, ValueError) as fault:
            raise UserError(f"{path}: line {line}: frame_idx, t0 and t1 must be whole spike frame indices.") from fault
        entries.append((str(frame), _window(f"{path}: line {line}", begin, end, None)))
    assert seq_name is not None
    return SyncTable(path, seq_name, _unique(path, entries))
