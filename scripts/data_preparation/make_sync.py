"""Writes every clip's sync.json, and checks it against the pictures.

    python -m scripts.data_preparation.make_sync --opt FILE                      clips and folders of an option file
    python -m scripts.data_preparation.make_sync --frames DIR --spikes DIR
    python -m scripts.data_preparation.make_sync --opt FILE --check              measures, writes nothing

One .dat per frame: the exposure is the rule of data/spike/sync.py (the GoPro set's, else the whole file).
One .dat per clip: frame k is exposed from FIRST + k * SPIKES_PER_FRAME on, for EXPOSURE spike frames.
--log FILE.csv takes an alignment log instead. A sync.json that is there is kept, unless --force.

--check finds, for some frames of each clip, the spike frame that is most like the sharp frame (without sharp frames:
the shift of the exposure most like the blurred one), and prints its offset from what sync says.
Exit code: 0 all is well, 1 a clip is off by more than --tolerance, 2 something is missing.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import make_sync_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(make_sync_parser(__doc__ or ""))

from data.doctor.inspection import spread
from data.frame_io import FolderFrames, Frames, open_frames
from data.spike.registration import CenterEstimate, is_off, measure_center
from data.spike.sync import GOPRO_CLIP, ExposureWindow, SyncTable, default_window, write_sync
from data.spike_files import find_spikes
from data.spike_io import SpikeFrames
from data.video_clips import Clip
from scripts.data_preparation.preparation import sections
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_cli import run_command

GOPRO_SPIKE_FPS = 1920.0  # 240 sharp frames a second, 8 spike frames each


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = _parse(argv)
    off: list[str] = []

    def work() -> None:
        for recording in _recordings(arguments):
            if arguments.check:
                off.extend(check(recording, arguments))
            else:
                write(recording, arguments)

    return run_command(work) or (1 if off else 0)


@dataclass(frozen=True)
class Recording:
    """Frames and their spikes.

    Attributes:
        frames: RGB frames.
        sharp: they are the sharp ones.
        spikes: <clip>/spike/<frame>.dat below it.
        size: height and width of the spike picture; None: from config.yaml or the files' size.
        flipud: the files' rows are stored bottom-up.
    """

    frames: Frames
    sharp: bool
    spikes: Path
    size: tuple[int | None, int | None] = (None, None)
    flipud: bool = True

    @property
    def clips(self) -> list[Clip]:
        """The clips of the frames."""
        return [Clip(name, tuple(frames)) for name, frames in self.frames.clips.items()]


def write(recording: Recording, arguments: argparse.Namespace) -> None:
    """Writes the sync.json of all clips that lack one."""
    written = 0
    for clip in recording.clips:
        folder = recording.spikes / clip.name
        if arguments.force or not (folder / "sync.json").is_file():
            write_clip(folder, _windows(folder, clip, recording, arguments), arguments.spike_fps)
            written += 1
    print(f"{recording.spikes}: {written} sync.json written, {len(recording.clips) - written} were there")


def write_clip(folder: Path, windows: Mapping[str, ExposureWindow], spike_fps: float | None = None) -> None:
    """Writes <folder>/sync.json; the GoPro set's spikes per second are known."""
    known = GOPRO_SPIKE_FPS if GOPRO_CLIP.match(folder.name) else None
    write_sync(folder / "sync.json", folder.name, windows, spike_fps or known)


def windows_by_rule(
    folder: Path, clip: Clip, size: tuple[int | None, int | None] = (None, None)
) -> dict[str, ExposureWindow]:
    """The exposures of a clip that has one .dat per frame.

    Args:
        size: height and width of the spike picture; None: from config.yaml or the file's size.
    """
    files = find_spikes(clip, folder)
    if files.missing:
        raise UserError(files.missing)
    if files.whole_clip:
        raise UserError(
            f"{next(iter(files.paths.values()))} holds all frames' spikes: say how they follow each other by "
            "--spikes_per_frame and --exposure, or by --log"
        )
    windows = {}
    for frame, path in files.paths.items():
        stream = SpikeStream(path, *size)
        size = stream.spike_h, stream.spike_w
        windows[frame] = default_window(folder.name, len(stream))
    return windows


def _windows(
    folder: Path, clip: Clip, recording: Recording, arguments: argparse.Namespace
) -> dict[str, ExposureWindow]:
    if arguments.log is not None:
        table = SyncTable.load(arguments.log, folder.name)
        return {frame: table.window(frame) for frame in clip.frames}
    if arguments.spikes_per_frame is None:
        return windows_by_rule(folder, clip, recording.size)
    period, length = arguments.spikes_per_frame, arguments.exposure or round(arguments.spikes_per_frame)
    begins = [arguments.first + round(k * period) for k in range(len(clip.frames))]
    windows = {
        frame: ExposureWindow(begin, begin + length, begin + length // 2)
        for frame, begin in zip(clip.frames, begins, strict=True)
    }
    files = find_spikes(clip, folder)
    if files.missing:
        raise UserError(files.missing)
    for frame, path in files.paths.items():
        windows[frame].check(len(SpikeStream(path, *recording.size)))
    return windows


def check(recording: Recording, arguments: argparse.Namespace) -> list[str]:
    """Prints every clip's offset; returns the clips that are off."""
    off = []
    found = SpikeFrames.plain(recording.spikes, recording.clips, recording.size, recording.flipud)
    if found.faults:
        raise UserError("\n  ".join(["The spikes can't be checked:", *found.faults[:10]]))
    print(f"{recording.spikes}, offsets in spike frames")
    print(f"{'clip':30s} {'offset':>7s} {'correlation there':>18s} {'as sync says':>13s}")
    for clip in recording.clips:
        estimates = clip_estimates(recording, found, clip, arguments.samples)
        offset = round(statistics.median(estimate.offset for estimate in estimates))
        best, stated = (statistics.mean(getattr(e, key) for e in estimates) for key in ("best", "stated"))
        wrong = is_off(estimates, arguments.tolerance)
        print(f"{clip.name:30s} {offset:+7d} {best:18.3f} {stated:13.3f}{'   OFF' if wrong else ''}")
        off += [clip.name] if wrong else []
    return off


def clip_estimates(recording: Recording, spikes: SpikeFrames, clip: Clip, samples: int) -> list[CenterEstimate]:
    """Measures some frames of a clip, spread evenly."""
    estimates = []
    for frame in spread(clip.frames, samples):
        stream, window = spikes.stream(clip.name, frame)
        gray = spikes.as_seen(clip.name, recording.frames.read(clip.name, frame))
        estimates.append(measure_center(stream, window, gray, sharp=recording.sharp))
    return estimates


def _recordings(arguments: argparse.Namespace) -> list[Recording]:
    """What the flags name, or every split of the option file that has spikes."""
    if arguments.frames is not None:
        return [Recording(FolderFrames(arguments.frames, "--frames"), not arguments.blurred, arguments.spikes)]
    found = []
    for split in arguments.splits:
        section = sections(arguments.opt)[split]
        if not section.get("dataroot_spike"):
            continue
        side = "lq" if arguments.blurred or not section.get("dataroot_gt") else "gt"
        frames = open_frames(f"dataroot_{side}", section[f"dataroot_{side}"], section.get("io_backend"))
        size, flipud = (section.get("spike_h"), section.get("spike_w")), section.get("spike_flipud", True)
        found.append(Recording(frames, side == "gt", Path(section["dataroot_spike"]).expanduser(), size, flipud))
    if not found:
        raise UserError(f"{arguments.opt}: no dataroot_spike in datasets.{' or datasets.'.join(arguments.splits)}")
    return found


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_sync_parser(__doc__ or "")
    arguments = parser.parse_args(argv)
    if [arguments.opt is None, arguments.frames is None, arguments.spikes is None].count(True) != (
        2 if arguments.opt else 1
    ):
        parser.error("name the folders by --opt FILE, or by --frames and --spikes")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
