"""Encoded spikes of RGB frames: finds a frame's file and exposure, and the ratio of the pictures' resolutions.

Files, below `dataroot_spike`: <clip>/spike/<frame>.dat, one per RGB frame, with <clip>/sync.json or the rule of
`sync.default_window`; or one file for the whole clip, <clip>/spike/<any name>.dat or <clip>/<clip>.dat, with
<clip>/sync.json. If the RGB root is a single clip, `dataroot_spike` may be that clip's folder, or its only file: with
sync.json beside it, or else with exposures that divide the file evenly, which is reported as an assumption.

The spike picture has the frames' field of view; its pixels are `ratio` frame pixels wide (2 for GoPro, exactly: frame
pixel x has its centre at (x + 1/2) / ratio spike pixels). All crops consist of whole spike pixels.

If <clip>/align.json, or else <dataroot_spike>/align.json, gives a homography between the cameras
(`data/spike/alignment/result.py`), the spike picture is a grid on the frame: channels are interpolated once, from the
sensor's pixels to the requested ones, and are scaled by the measured threshold.
"""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from data.frame_io import Box
from data.spike.alignment.result import FILE_NAME, Alignment, Warp
from data.spike.encoding import SpikeEncoding, build_encoding
from data.spike.perturb import Perturbation, PerturbedStream
from data.spike.registration import gray_at_size
from data.spike.resampling import enlarge, shrink
from data.spike.sync import ExposureWindow, SyncTable, exposure_of
from data.spike_augment import ChangedStream, SpikeChange
from data.spike_cache import SpikeCache, description
from data.spike_files import clip_folder, find_spikes
from data.video_clips import Clip
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_file import read_bytes
from utils.utils_image import to_8_bits


@dataclass(frozen=True)
class SpikeFile:
    """The spikes of an RGB frame: a `.dat` file and the exposure in it."""

    path: Path
    window: ExposureWindow


class SpikeFrames:
    """Encoded spikes by clip and RGB frame.

    Args:
        dataroot_spike: the data root.
        clips: the clips and RGB frames that need spikes.
        single: the RGB root is a single clip, so the data root may be its folder.
        encoding: maps spikes to channels.
        spike_h, spike_w: size of the spike picture; None: from config.yaml or the file's size.
        flipud: rows are stored bottom-up.
        perturbation: degradation of the spikes before encoding; None: none.
        cache: folder of encoded frames (`spike_cache.py`); None: encode on every read.

    Attributes:
        faults: missing and invalid files; spikes can be read only if this is empty.
        sizes: height and width of every clip's spike picture; of an aligned clip, of the grid.
        alignments: of the aligned clips, by clip.
        ratio: frame pixels per spike pixel, after `register`.
    """

    def __init__(
        self,
        dataroot_spike: str,
        clips: list[Clip],
        *,
        single: bool,
        encoding: SpikeEncoding,
        spike_h: int | None,
        spike_w: int | None,
        flipud: bool,
        perturbation: Perturbation | None = None,
        cache: str | None = None,
    ) -> None:
        self.encoding = encoding
        self.cache: SpikeCache | None = None
        if cache is not None:
            shared = {"encoding": encoding, "perturbation": perturbation, "flipud": flipud}
            self.cache = SpikeCache(Path(cache).expanduser(), description(shared))
        self.flipud = flipud
        self.perturbation = perturbation
        self.root = Path(dataroot_spike).expanduser()
        self.faults: list[str] = []
        self.sizes: dict[str, tuple[int, int]] = {}
        self.alignments: dict[str, Alignment] = {}
        self.ratio = Fraction(0)
        self._files: dict[tuple[str, str], SpikeFile] = {}
        for clip in clips:
            self._add_clip(clip, clip_folder(self.root, clip.name, single), (spike_h, spike_w))

    @classmethod
    def plain(
        cls, root: Path, clips: list[Clip], size: tuple[int | None, int | None] = (None, None), flipud: bool = True
    ) -> "SpikeFrames":
        """For streams and exposures only, with the encoding "count"; None in `size`: from config.yaml or the files."""
        encoding = build_encoding({"representation": "count"}, 1.0)
        return cls(str(root), clips, single=False, encoding=encoding, spike_h=size[0], spike_w=size[1], flipud=flipud)

    def stream(self, clip: str, frame: str) -> tuple[SpikeStream, ExposureWindow]:
        """The stream that holds an RGB frame's spikes, and the exposure in it."""
        file = self._files[clip, frame]
        return self._open(clip, file.path), file.window

    def exposed_spikes(self, clip: str, frame: str) -> np.ndarray:
        """The spikes of an RGB frame's exposure, (L,h,w) uint8; of an aligned clip, on its grid."""
        stream, window = self.stream(clip, frame)
        spikes = stream.crop(window.begin, len(window), 0, 0, stream.spike_h, stream.spike_w)
        alignment = self.alignments.get(clip)
        return spikes if alignment is None else alignment.warp(alignment.ratio).nearest(spikes)

    def _add_clip(self, clip: Clip, folder: Path, size: tuple[int | None, int | None]) -> None:
        """Finds and checks the spikes of a clip's frames: files, sizes, exposures."""
        # If `dataroot_spike` is a file, no folder name identifies the clip.
        alone = folder.is_file()
        name = None if alone else os.path.basename(os.path.abspath(folder))
        files = find_spikes(clip, folder)
        paths, whole_clip = files.paths, files.whole_clip
        self.faults += [files.missing] if files.missing else []
        sync_path = (folder.parent if alone else folder) / "sync.json"
        has_sync = sync_path.exists() or sync_path.is_symlink()  # a broken link is a fault, which reading reports
        if whole_clip and not has_sync and not alone:
            self.faults.append(
                f"{sync_path}: no such file, and {next(iter(paths.values()))} holds all frames' spikes; "
                "scripts/data_preparation/make_sync.py writes it"
            )
            return
        try:
            sync = SyncTable.load(sync_path, name) if has_sync else None
            alignment = self._alignment(folder.parent if alone else folder)
        except UserError as error:
            self.faults.append(str(error))
            return
        if alignment is not None:
            self.alignments[clip.name], size = alignment, alignment.spike_size
        lengths: dict[Path, int] = {}
        for frame, path in paths.items():
            try:
                if path not in lengths:
                    stream = SpikeStream(path, *size, flipud=self.flipud)
                    # Use the first file's size for the whole clip, so that config.yaml is read once.
                    size = self.sizes[clip.name] = stream.spike_h, stream.spike_w
                    lengths[path] = len(stream)
                window = exposure_of(frame, clip.frames, name, sync, lengths[path])
            except UserError as error:
                self.faults.append(str(error) if str(path) in str(error) else f"{path}: {error}")
                if whole_clip and path not in lengths:
                    return  # the other frames would repeat the fault
            else:
                self._files[clip.name, frame] = SpikeFile(path, window)
        if alignment is not None:
            self.sizes[clip.name] = alignment.warp(alignment.ratio).size

    def _alignment(self, folder: Path) -> Alignment | None:
        """The alignment of the clip whose spikes are in `folder`."""
        place = next((place for place in (folder, self.root) if (place / FILE_NAME).is_file()), None)
        return None if place is None else Alignment.load(place / FILE_NAME)

    def register(self, frame_sizes: dict[str, tuple[int, int]], *, resample: bool) -> list[str]:
        """Computes `ratio` from the blurred frames' sizes; returns the faults.

        Args:
            frame_sizes: height and width of every clip's blurred frames.
            resample: channels will be resampled to the frames' resolution, so the ratio or its inverse must be whole.
        """
        faults = []
        for name, (height, width) in frame_sizes.items():
            alignment = self.alignments.get(name)
            if alignment is not None and alignment.frame_size != (height, width):
                faults.append(
                    f"{name}: frames of {height}x{width}, but its {FILE_NAME} is about frames of "
                    f"{alignment.frame_size[0]}x{alignment.frame_size[1]}; align these: python -m scripts.align"
                )
                continue
            spike_h, spike_w = self.sizes[name]
            ratios = Fraction(height, spike_h), Fraction(width, spike_w)
            self.ratio = self.ratio or ratios[0]
            if ratios[0] != ratios[1]:
                faults.append(
                    f"{name}: frames of {height}x{width} are {_number(ratios[0])} times as high and "
                    f"{_number(ratios[1])} times as wide as spikes of {spike_h}x{spike_w}; "
                    "correct spike_h and spike_w (or config.yaml)"
                )
            elif ratios[0] != self.ratio:
                faults.append(
                    f"{name}: frames are {_number(ratios[0])} times as large as the spike picture, but "
                    f"{_number(self.ratio)} times in {next(iter(frame_sizes))}; a data set needs one factor"
                )
        if not faults and resample and 1 not in (self.ratio.numerator, self.ratio.denominator):
            faults.append(
                f"the frames are {_number(self.ratio)} times as large as the spike picture; input_pack_mode "
                '"concat" needs a whole factor, "dual" does not'
            )
        return faults

    def read(
        self,
        clip: str,
        frames: list[str],
        box: Box | None = None,
        *,
        time_reversed: bool = False,
        change: SpikeChange | None = None,
        windows: Sequence[ExposureWindow] | None = None,
    ) -> np.ndarray:
        """Channels at the spike picture's resolution.

        Args:
            clip, frames: RGB frames by name.
            box: part of the picture, in pixels of the blurred frames, on whole spike pixels; None: all.
            time_reversed: reverse the spikes of each frame in time.
            change: augmentation of the spikes; None: none.
            windows: exposure of each frame to encode; None: the files' exposures.

        Returns:
            (T, channels, h, w) float32.
        """
        box = self._spike_box(clip, box)
        files = self._exposed(clip, frames, windows)
        return np.stack([self._encode(clip, file, box, time_reversed, change) for file in files])

    def read_resampled(
        self,
        clip: str,
        frames: list[str],
        box: Box | None = None,
        *,
        time_reversed: bool = False,
        change: SpikeChange | None = None,
        windows: Sequence[ExposureWindow] | None = None,
    ) -> np.ndarray:
        """Channels at the blurred frames' resolution: interpolated bilinearly if frames are finer, averaged if coarser.

        The crop of the whole picture's result equals the result of the crop bit for bit: the interpolation uses the
        spike pixels around the crop, and repeats pixels at the picture's border only.

        Returns:
            (T, channels, H, W) float32.
        """
        files = self._exposed(clip, frames, windows)
        if clip in self.alignments:
            warp = self.alignments[clip].warp(1)
            box = Box(0, 0, *warp.size) if box is None else box
            return np.stack([self._warped(clip, file, box, warp, time_reversed, change) for file in files])
        box = self._spike_box(clip, box)
        if self.ratio < 1:
            factor = self.ratio.denominator
            return np.stack([shrink(self._encode(clip, f, box, time_reversed, change), factor) for f in files])
        height, width = self.sizes[clip]
        top, left = max(box.top - 1, 0), max(box.left - 1, 0)
        bottom, right = min(box.top + box.height + 1, height), min(box.left + box.width + 1, width)
        around = Box(top, left, bottom - top, right - left)
        border = (
            (0, 0),
            (top - box.top + 1, box.top + box.height + 1 - bottom),
            (left - box.left + 1, box.left + box.width + 1 - right),
        )
        factor = self.ratio.numerator
        encoded = (self._encode(clip, file, around, time_reversed, change) for file in files)
        return np.stack([enlarge(np.pad(channels, border, "edge"), factor) for channels in encoded])

    def read_as(
        self, clip: str, frame: str, encoding: SpikeEncoding, window: ExposureWindow | None = None
    ) -> np.ndarray:
        """Channels of one whole RGB frame by another encoding, and exposure if given, (channels, h, w) float32."""
        file = self._files[clip, frame]
        stream, window = self._open(clip, file.path), window or file.window
        if clip not in self.alignments:
            return encoding.encode_crop(stream, window, 0, 0, *self.sizes[clip])
        alignment = self.alignments[clip]
        sensor = Box(0, 0, *alignment.spike_size)
        channels = self._of_clip(clip, encoding).encode_crop(stream, window, 0, 0, *alignment.spike_size)
        warp = alignment.warp(alignment.ratio)
        return warp.sample(channels, sensor, Box(0, 0, *warp.size))

    def as_seen(self, clip: str, picture: np.ndarray) -> np.ndarray:
        """A frame, (H,W,3) RGB, as gray in [0,1] on the sensor's pixels, (h,w) float32."""
        picture = to_8_bits(picture)
        if clip in self.alignments:
            alignment = self.alignments[clip]
            return gray_at_size(alignment.as_seen(picture), alignment.spike_size)
        return gray_at_size(picture, self.sizes[clip])

    def threshold(self, clip: str, stated: float) -> float:
        """The threshold of a clip's camera: as its alignment measured it, else as stated."""
        alignment = self.alignments.get(clip)
        return stated if alignment is None or alignment.threshold is None else alignment.threshold

    def content(self, clip: str, frames: Iterable[str]) -> Iterator[bytes]:
        """The bytes of the frames' spike files, with sizes and exposures."""
        read: set[Path] = set()
        for frame in frames:
            file = self._files[clip, frame]
            alignment = self.alignments.get(clip)
            told = () if alignment is None else (alignment.homography, alignment.threshold)
            yield repr((frame, self.sizes[clip], file.window, *told)).encode()
            if file.path not in read:  # one file may hold all frames of the clip
                yield read_bytes(file.path)
            read.add(file.path)

    def exposure(self, clip: str, frame: str) -> ExposureWindow:
        """The exposure of an RGB frame in its spike file."""
        return self._files[clip, frame].window

    def _spike_box(self, clip: str, box: Box | None) -> Box:
        """A box of the blurred frames, converted to spike pixels; None: the whole picture."""
        assert self.ratio and not self.faults
        return Box(0, 0, *self.sizes[clip]) if box is None else box.scaled(self.ratio.denominator, self.ratio.numerator)

    def _exposed(self, clip: str, frames: list[str], windows: Sequence[ExposureWindow] | None) -> list[SpikeFile]:
        """The files of frames, with the exposures `windows` if given."""
        files = [self._files[clip, frame] for frame in frames]
        if windows is None:
            return files
        return [SpikeFile(file.path, window) for file, window in zip(files, windows, strict=True)]

    def _encode(
        self, clip: str, file: SpikeFile, box: Box, time_reversed: bool, change: SpikeChange | None = None
    ) -> np.ndarray:
        """(channels, h, w) of a box of one frame; decodes the box only, or reads it from the cache."""
        if self.cache is not None and change is None:
            window = [file.window.begin, file.window.end, file.window.center]
            own = {"window": window, "size": self.sizes[clip], "clip": clip, "reversed": time_reversed}
            if clip in self.alignments:
                own["alignment"] = [*self.alignments[clip].homography, self.alignments[clip].threshold]
            full_frame = Box(0, 0, *self.sizes[clip])
            return self.cache.read(
                file.path, own, box, lambda: self._decode(clip, file, full_frame, time_reversed, None)
            )
        return self._decode(clip, file, box, time_reversed, change)

    def _decode(
        self, clip: str, file: SpikeFile, box: Box, time_reversed: bool, change: SpikeChange | None
    ) -> np.ndarray:
        if clip in self.alignments:
            warp = self.alignments[clip].warp(self.alignments[clip].ratio)
            return self._warped(clip, file, box, warp, time_reversed, change)
        return self._sensed(clip, file, box, time_reversed, change)

    def _warped(
        self, clip: str, file: SpikeFile, box: Box, warp: Warp, time_reversed: bool, change: SpikeChange | None
    ) -> np.ndarray:
        """(channels, h, w) of a box of an aligned clip's grid."""
        source = warp.source(box)
        return warp.sample(self._sensed(clip, file, source, time_reversed, change), source, box)

    def _of_clip(self, clip: str, encoding: SpikeEncoding) -> SpikeEncoding:
        """An encoding with the threshold of a clip's camera."""
        threshold = self.threshold(clip, encoding.threshold)
        if threshold == encoding.threshold:
            return encoding
        own = copy.copy(encoding)
        own.threshold = threshold
        return own

    def _sensed(
        self, clip: str, file: SpikeFile, box: Box, time_reversed: bool, change: SpikeChange | None
    ) -> np.ndarray:
        """(channels, h, w) of a box of the sensor's pixels."""
        stream, encoding = self._open(clip, file.path, change), self._of_clip(clip, self.encoding)
        window = file.window if change is None else change.window(file.window, encoding, len(stream))
        encoded = encoding.encode_crop(
            stream, window, box.top, box.left, box.height, box.width, time_reversed=time_reversed
        )
        if change is not None and change.gain != 1:
            encoded *= np.float32(change.gain)
        return encoded

    def _open(self, clip: str, path: Path, change: SpikeChange | None = None) -> SpikeStream:
        alignment = self.alignments.get(clip)
        size = self.sizes[clip] if alignment is None else alignment.spike_size
        name = f"{clip}/{path.stem}"
        if change is not None and change.changes_spikes:
            return ChangedStream(change, name, path, *size, flipud=self.flipud)
        if self.perturbation is None:
            return SpikeStream(path, *size, flipud=self.flipud)
        return PerturbedStream(self.perturbation, name, path, *size, flipud=self.flipud)


def _number(ratio: Fraction) -> str:
    """A ratio as decimal text: 2, 2.88."""
    return f"{float(ratio):g}"
