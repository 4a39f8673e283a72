"""Inspects one `datasets.*` section: its files, its pairs, its spikes; and shows frames and spikes side by side.

    inspection = DatasetInspection("train", section, build)
    inspection.findings, inspection.contact_rows()

`build` builds the section's data set; the faults that it raises become findings.
Test: `python -m pytest tests/scripts/test_doctor.py`.
"""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.doctor.inspection import Finding, inspect_frames, read_headers, shared_pictures, spread
from data.frame_io import Frames, open_frames
from data.picture_header import PictureHeader
from data.preparations import remedies
from data.spike.registration import CenterEstimate, exposure_rate, is_off, measure_center, orientations
from data.video_clips import Clip, DataFaults, read_meta_info, write_meta_info
from utils.user_error import UserError
from utils.utils_image import panel, to_8_bits

MEASURED_CLIPS = 12  # of each section, for a check that takes seconds
MEASURED_FRAMES = 2  # of each clip
SHEET_CLIPS = 4  # rows of the contact sheet, which then fits a screen
SHEET_HEIGHT = 240  # approximate height in pixels of the contact sheet's pictures
CERTAIN = 0.1  # another orientation is reported only if its correlation is higher by this: above the noise
LIES = {"up-down": "upside down", "left-right": "mirrored", "both": "turned by 180 degrees"}  # by `FLIPS`, for messages
UNRELATED = 0.1  # correlation of edges below which spikes and frames show different scenes
OFF = 3  # spike frames; smaller offsets are within the precision of the measurement
SHARED = 3  # frames that two clips must share to count as copies: single pictures, such as black ones, may be equal


class Section(Protocol):
    """`datasets.train` or `datasets.test` of the options."""

    dataset_type: str

    def arguments(self) -> dict[str, Any]:
        """The data set's keyword arguments."""


class DatasetInspection:
    """Inspects one section.

    Args:
        phase: "train" or "test".
        section: the section of the options.
        build: builds the data set of a section.
        fix_meta: rewrite the section's meta info file first.

    Attributes:
        findings: the faults and notices.
        dataset: the data set, None if it could not be built.
        headers: headers of all pictures, by the option of their root.
    """

    def __init__(self, phase: str, section: Section, build: Callable[[Any], Any], *, fix_meta: bool = False) -> None:
        self.phase = phase
        self.arguments = section.arguments()
        self.dataset: Any = None
        self.roots: dict[str, Frames] = {}
        self.headers: dict[str, dict[tuple[str, str], PictureHeader]] = {}
        self.findings: list[Finding] = []
        self.findings += self._inspect_roots()
        self.findings += self._fix_meta() if fix_meta else []
        self.findings += self._build(section, build)
        if hasattr(self.dataset, "pairs"):
            self.findings += self._unlisted()
            if hasattr(self.dataset, "spikes"):
                self.findings += self._inspect_registration()

    def summary(self) -> str:
        """One line with the numbers of pictures, items and findings."""
        pictures = sum(map(len, self.headers.values()))
        clips = "not usable" if self.dataset is None else f"{len(self.dataset)} items"
        return f"datasets.{self.phase}: {pictures} pictures inspected, {clips}, {len(self.findings)} findings"

    def used_headers(self) -> dict[tuple[str, str], PictureHeader]:
        """Headers of the sharp pictures, or else the blurred ones, of the clips in use."""
        option = "dataroot_gt" if "dataroot_gt" in self.headers else next(iter(self.headers), None)
        used = {clip.name for clip in self.dataset.clips} if hasattr(self.dataset, "clips") else None
        headers = self.headers[option] if option else {}
        return {key: header for key, header in headers.items() if used is None or key[0] in used}

    def _inspect_roots(self) -> Iterator[Finding]:
        backend, suffix = self.arguments.get("io_backend"), self.arguments.get("filename_ext")
        for option, root in self.arguments.items():
            if not option.startswith("dataroot_") or root is None:
                continue
            if option == "dataroot_spike":
                if not Path(root).expanduser().is_dir():
                    yield self._missing(option, f"the folder {root} does not exist")
                continue
            try:
                self.roots[option] = frames = open_frames(option, root, backend, suffix)
                self.headers[option] = read_headers(frames)
            except (UserError, OSError) as error:
                yield self._missing(option, str(error).removeprefix(f"{option}: "))
                continue
            yield from inspect_frames(f"datasets.{self.phase}.{option}", frames, self.headers[option])

    def _missing(self, option: str, what: str) -> Finding:
        remedy = f"correct the path, or: {' '.join(remedies([self.arguments[option]]))}"
        return Finding("missing", f"datasets.{self.phase}.{option}: {what}", remedy)

    def _fix_meta(self) -> Iterator[Finding]:
        path = self.arguments.get("meta_info_file")
        if path is None or not self.roots:
            return
        in_all_roots = set.intersection(*(set(frames.clips) for frames in self.roots.values()))
        try:
            counts = write_meta_info(Path(path).expanduser(), next(iter(self.roots.values())), in_all_roots)
            what = f"{path}: rewritten, {len(counts)} clips, {sum(counts.values())} frames"
            yield Finding("meta info", what, "nothing to do", serious=False)
        except UserError as error:
            yield Finding("meta info", f"{path}: not changed: {error}", "complete the clip, or remove it")

    def _build(self, section: Section, build: Callable[[Any], Any]) -> Iterator[Finding]:
        if any(finding.kind == "missing" for finding in self.findings):
            return
        named = " ".join(finding.what for finding in self.findings)
        try:
            self.dataset = build(section)
        except DataFaults as faults:
            for fault in faults.faults:
                if fault.split(":")[0] not in named:
                    yield Finding(
                        "data", f"datasets.{self.phase}: {fault}", "see the sentence; docs/data.md has the layout"
                    )
        except UserError as error:
            yield Finding("data", f"datasets.{self.phase}: {error}", "see the sentence; docs/data.md has the layout")

    def _unlisted(self) -> Iterator[Finding]:
        """Clips of dataroot_lq that the meta info file does not list, or lists with too few frames."""
        path = self.arguments.get("meta_info_file")
        if path is None or "dataroot_lq" not in self.roots or self.arguments.get("val_partition"):
            return
        listed = {clip.name: len(clip) for clip in read_meta_info(path, self.arguments["filename_tmpl"])}
        frame_counts = {clip: len(frames) for clip, frames in self.roots["dataroot_lq"].clips.items()}
        incomplete = [clip for clip in frame_counts if listed.get(clip, 0) < frame_counts[clip]]
        if incomplete:
            count = sum(frame_counts[clip] - listed.get(clip, 0) for clip in incomplete)
            what = f"{path} leaves out {count} frames of {', '.join(incomplete[:5])}"
            remedy = "if they are not left out on purpose, --fix-meta lists all frames"
            yield Finding("meta info", f"datasets.{self.phase}: {what}", remedy, serious=False)

    def _sound_clips(self) -> list[Clip]:
        """The clips in use whose pictures can all be read."""
        faulty = {finding.clip for finding in self.findings}
        return [clip for clip in self.dataset.clips if clip.name not in faulty]

    def _inspect_registration(self) -> Iterator[Finding]:
        """Faults of the spikes' orientation and time, measured on a few frames of several clips."""
        for clip in spread(self._sound_clips(), MEASURED_CLIPS):
            turned: list[dict[str, float]] = []
            moments: list[CenterEstimate] = []
            for frame in spread(clip.frames, MEASURED_FRAMES):
                blurred, sharp = self._grays(clip, frame)
                stream, window = self.dataset.spikes.stream(clip.name, frame)
                turned.append(orientations(exposure_rate(stream, window), blurred))
                reference = blurred if sharp is None else sharp
                moments.append(measure_center(stream, window, reference, sharp=sharp is not None))
            yield from self._orientation(clip, turned)
            yield from self._moment(clip, moments)

    def _orientation(self, clip: Clip, turned: list[dict[str, float]]) -> Iterator[Finding]:
        mean = {name: statistics.mean(scores[name] for scores in turned) for name in turned[0]}
        best, stated = max(mean, key=lambda name: mean[name]), mean["none"]
        where = f"datasets.{self.phase}: {clip.name}"
        if mean[best] > stated + CERTAIN:
            flag = self.arguments.get("spike_flipud", True)
            remedy = f"set spike_flipud to {str(not flag).lower()}" if best == "up-down" else "turn the frames or files"
            what = f"{where}: the spikes are {LIES[best]}: edges correlate {mean[best]:.2f}, {stated:.2f} as read"
            yield Finding("orientation", what, remedy)
        elif stated < UNRELATED:
            what = f"{where}: the spikes show another scene than the frames: their edges correlate {stated:.2f}"
            yield Finding("orientation", what, "correct spike_h and spike_w (config.yaml), or the clip's name")

    def _moment(self, clip: Clip, moments: list[CenterEstimate]) -> Iterator[Finding]:
        offset = round(statistics.median(moment.offset for moment in moments))
        if is_off(moments, OFF):
            when = f"{abs(offset)} spike frames {'after' if offset > 0 else 'before'} the time in sync.json"
            what = f"datasets.{self.phase}: {clip.name}: the spikes match the frames {when}"
            remedy = "correct the clip's sync.json; make_sync.py --check measures all clips"
            yield Finding("sync", what, remedy)

    def _grays(self, clip: Clip, frame: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The blurred and the sharp frame in gray on the sensor's pixels."""
        pairs, spikes = self.dataset.pairs, self.dataset.spikes
        blurred = spikes.as_seen(clip.name, pairs.lq.read(clip.name, frame))
        sharp = None if pairs.gt is None else spikes.as_seen(clip.name, pairs.gt.read(clip.name, frame))
        return blurred, sharp

    def contact_rows(self) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8, one per clip: a frame, its spikes and its sharp frame side by side."""
        if not hasattr(self.dataset, "pairs"):
            return []
        rows = []
        for clip in spread(self._sound_clips(), SHEET_CLIPS):
            frame, pairs = clip.frames[len(clip) // 2], self.dataset.pairs
            pictures = [(f"{self.phase} {clip.name}/{frame}", to_8_bits(pairs.lq.read(clip.name, frame)))]
            if hasattr(self.dataset, "spikes"):
                rate = exposure_rate(*self.dataset.spikes.stream(clip.name, frame))
                pictures.append(("spikes", (255 * rate / max(float(rate.max()), 1e-6)).round().astype(np.uint8)))
            if pairs.gt is not None:
                pictures.append(("sharp", to_8_bits(pairs.gt.read(clip.name, frame))))
            rows.append(panel([(title, _for_sheet(picture)) for title, picture in pictures]))
        return rows


def leaks(train: DatasetInspection, test: DatasetInspection) -> Iterator[Finding]:
    """Finds test clips that are copies of training clips, or have the same names."""
    shared = shared_pictures(train.used_headers(), test.used_headers())
    for (test_clip, train_clip), (frame, frames) in shared.items():
        if len(frames) >= SHARED:
            what = (
                f"test clip {test_clip} has {len(frames)} pictures of training clip {train_clip} "
                f"(such as {train_clip}/{frame})"
            )
            yield Finding("leak", what, "leave the clip out of training: val_partition, meta_info_file, or remove it")
    copies = {test_clip for test_clip, _ in shared}
    same = {key[0] for key in train.used_headers()} & {key[0] for key in test.used_headers()}
    if same - copies:
        what = f"clips of training and test have the same name: {', '.join(sorted(same - copies)[:5])}"
        yield Finding("leak", what, "make sure that they are not the same scene", serious=False)


def _for_sheet(picture: np.ndarray) -> np.ndarray:
    """A picture resized to about `SHEET_HEIGHT`, by skipping or repeating pixels."""
    height = picture.shape[0]
    step, times = max(1, round(height / SHEET_HEIGHT)), max(1, SHEET_HEIGHT // height)
    return picture[::step, ::step].repeat(times, axis=0).repeat(times, axis=1)
