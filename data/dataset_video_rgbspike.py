"""Blurred frames with the spikes that were recorded during their exposures, for training and testing.

The data sets of `dataset_video_train` and `dataset_video_test` plus spikes. `input_pack_mode` "concat" appends the K
channels, resampled to the frames' resolution, to L: (T, 3+K, H, W). "dual" (the voxel branch) puts them into "L_spike",
(T, K, h, w), at the spike picture's resolution. Only the crop's spikes are decoded.
Test: `python -m pytest tests/data/test_dataset_video_rgbspike.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

import data.spike.representations  # noqa: F401  registers them
from data.augment import INSTANT, Augmentation, chance
from data.dataset_video_test import VideoRecurrentTestDataset
from data.dataset_video_train import Sample, VideoRecurrentTrainDataset
from data.frame_io import Box
from data.spike.encoding import SpikeEncoding, build_encoding, threshold_faults
from data.spike.perturb import Perturbation, build_perturbation
from data.spike.reconstruction.baselines import MOMENT, training_free
from data.spike.sync import ExposureWindow
from data.spike_augment import SpikeChange
from data.spike_io import SpikeFrames
from data.sub_frames import SubFrames
from data.video_clips import FramePairs
from utils.user_error import UserError
from utils.utils_registry import DATASETS, Faults, check_rules, raise_faults

# The options of `SpikeChange.draw`.
SPIKE_JITTERS = (
    "spike_gain_jitter",
    "spike_threshold_jitter",
    "spike_photon_noise",
    "spike_hot_pixels",
    "spike_time_jitter",
)


@dataclass(kw_only=True, eq=False, repr=False)
class SpikeOptions:
    """The options of a data set's spikes, shared by training and test."""

    packs_spikes: ClassVar[str | None] = "concat"

    dataroot_spike: str
    """<clip>/spike/<frame>.dat with <clip>/sync.json, or one .dat per clip; see `spike_io`."""
    spike: dict[str, Any]
    """{"representation": name, **its parameters}."""
    spike_h: int | None = None
    """Height of the spike picture; null: from the nearest config.yaml, else from the file's size."""
    spike_w: int | None = None
    """Width of the spike picture; null: as for the height."""
    spike_flipud: bool = True
    """The files' rows are stored bottom-up."""
    spike_threshold: float = 2.0
    """Threshold of the spike camera: intensity = firing rate x threshold."""
    spike_normalize: dict[str, float | list[float]] | None = None
    """{"mean", "std"} of the channels, numbers or lists; null: the representation's own values."""
    hot_pixel_filter: bool | float = False
    """Replace pixels that fire in (nearly) every frame; a number is the firing rate from which."""
    input_pack_mode: Literal["concat", "dual"] = "concat"
    """"concat": spikes are channels of L; "dual": spikes are L_spike."""
    spike_cache: str | None = None
    """Folder that caches encoded frames (`spike_cache.py`), for slow representations; null: encode on every read."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        return check_rules((threshold_faults, _input_pack_mode), arguments)


class SpikeInput:
    """Finds and checks the spikes of a data set's frames, and adds them to samples.

    Args:
        options: the data set's options of spikes.
        pairs: its frames.
        perturbation: degradation of the spikes in tests; None: none.

    Attributes:
        frames: the spikes by clip and frame.
    """

    def __init__(self, options: SpikeOptions, pairs: FramePairs, perturbation: Perturbation | None = None) -> None:
        self.appended = options.input_pack_mode == "concat"
        self.pairs = pairs
        self.frames = SpikeFrames(
            options.dataroot_spike,
            pairs.clips,
            single=pairs.lq.single is not None,
            encoding=encoding_of(options),
            spike_h=options.spike_h,
            spike_w=options.spike_w,
            flipud=options.spike_flipud,
            perturbation=perturbation,
            cache=options.spike_cache,
        )

    def faults(self, rgb_faults: list[str]) -> list[str]:
        """Faults of the frames, or, if there are none, of the sizes of frames and spikes."""
        faults = [*rgb_faults, *self.frames.faults]
        if not faults:
            sizes = {clip.name: self.pairs.lq.size(clip.name) for clip in self.pairs.clips}
            faults = self.frames.register(sizes, resample=self.appended)
        return faults

    def added_to(
        self,
        sample: dict[str, Any],
        clip: str,
        frames: list[str],
        box: Box | None = None,
        augmentation: Augmentation | None = None,
        change: SpikeChange | None = None,
        windows: Sequence[ExposureWindow] | None = None,
    ) -> dict[str, Any]:
        """The sample with its frames' spikes: channels of `L` (T,3+K,H,W), or `L_spike` (T,K,h,w).

        Args:
            windows: exposure of each frame to encode; None: the files' exposures.
        """
        augmentation = augmentation or Augmentation()
        read = self.frames.read_resampled if self.appended else self.frames.read
        channels = read(clip, frames, box, time_reversed=augmentation.reverse, change=change, windows=windows)
        channels = augmentation.space(channels)
        spikes = torch.from_numpy(np.ascontiguousarray(channels))
        if self.appended:
            return {**sample, "L": torch.cat([sample["L"], spikes], dim=1)}
        return {**sample, "L_spike": spikes}


def encoding_of(options: SpikeOptions, spike: dict[str, Any] | None = None) -> SpikeEncoding:
    """The encoding of the options, or, with `spike`, another representation of the same spikes, not normalised."""
    normalize = options.spike_normalize if spike is None else None
    return build_encoding(spike or options.spike, options.spike_threshold, normalize, options.hot_pixel_filter)


def _input_pack_mode(input_pack_mode: str) -> Faults:
    if input_pack_mode not in ("concat", "dual"):
        yield "input_pack_mode", f"choices: concat, dual; got {input_pack_mode!r}"


@DATASETS.register("VideoRecurrentTrainDatasetRGBSpike", "TrainDatasetRGBSpike", "vrt_video_rgbspike")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainDatasetRGBSpike(SpikeOptions, VideoRecurrentTrainDataset):
    """Training samples with spikes; crops start at whole spike pixels, and reversed samples have reversed spikes."""

    tested_by: ClassVar[str] = "VideoRecurrentTestDatasetRGBSpike"
    """The data set for testing networks trained on this one on clips named on the command line."""

    spike_gain_jitter: float = 0.0
    """Multiply a sample's channels by a factor from 1 - this to 1 + this; for brightness-true representations."""
    spike_threshold_jitter: float = 0.0
    """Remove spikes of a sample, as with a threshold multiplied by up to 1 + this."""
    spike_photon_noise: float = 0.0
    """Remove spikes, and add as many, with a probability of up to this."""
    spike_hot_pixels: float = 0.0
    """Make up to this share of the pixels fire in every spike frame."""
    dataroot_instants: str | None = None
    """Sharp pictures of instants (`data/sub_frames.py`), of which each frame of a sample has one, drawn at random;
    null: the centre."""
    spike_time_jitter: int = 0
    """Shift a sample's exposures by up to this many spike frames, within the streams."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from SpikeOptions.faults(arguments)
        yield from VideoRecurrentTrainDataset.faults(arguments)
        for key in SPIKE_JITTERS:
            value, limit = arguments.get(key, 0), 1 if key in ("spike_photon_noise", "spike_hot_pixels") else math.inf
            if not 0 <= value <= limit:
                yield key, f"0 (off) or more{', up to 1' if limit == 1 else ''}; got {value}"

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        self.encoding = encoding_of(self)
        super().__post_init__()
        if self.spike_gain_jitter and not self.encoding.brightness_true:
            raise UserError(
                "spike_gain_jitter: only firing rates can be scaled, and these channels are not (because of "
                "spike_normalize or the representation); spike_threshold_jitter changes the spikes themselves."
            )

    def _change(self, sample: Sample) -> SpikeChange | None:
        """The augmentation of a sample's spikes; None if all kinds are off."""
        jitters = {key: getattr(self, key) for key in SPIKE_JITTERS}
        return SpikeChange.draw(sample.entropy, **jitters) if any(jitters.values()) else None

    def _roots(self) -> dict[str, str | None]:
        return {
            **super()._roots(),
            "dataroot_spike": self.dataroot_spike,
            "dataroot_instants": self.dataroot_instants,
        }

    def _faults(self) -> list[str]:
        self._spikes = SpikeInput(self, self.pairs)
        self.spikes = self._spikes.frames
        faults = self._spikes.faults(super()._faults())
        self.sub_frames = SubFrames(self.dataroot_instants, self.pairs, self.spikes)
        faults = faults or self.sub_frames.faults()
        side, step = self.gt_size // self.scale, self._crop_step()
        if not faults and side % step:
            near = [size * self.scale for size in (side // step * step, (side // step + 1) * step) if size]
            faults.append(
                f"gt_size: a crop of {side} blurred pixels is not a whole number of spike pixels; "
                f"it must be a multiple of {step} blurred pixels, nearest: {' or '.join(map(str, near))}"
            )
        return faults

    def _crop_step(self) -> int:
        return self.spikes.ratio.numerator

    def read(self, sample: Sample) -> dict[str, Any]:
        item, change, windows = super().read(sample), self._change(sample), self._windows(sample)
        return self._spikes.added_to(
            item, sample.clip.name, sample.frames, sample.box, sample.augmentation, change, windows
        )

    def _sharp(self, sample: Sample) -> np.ndarray:
        return self.sub_frames.read(sample.clip.name, sample.frames, self._windows(sample), sample.box)

    def _windows(self, sample: Sample) -> list[ExposureWindow]:
        """Exposure of each frame, with the instant to restore as centre."""
        rng, name = chance(sample.entropy, INSTANT), sample.clip.name
        if self.dataroot_instants is None:
            return [self.spikes.exposure(name, frame) for frame in sample.frames]
        windows = [self.sub_frames.windows(name, frame) for frame in sample.frames]
        return [of_frame[int(rng.integers(len(of_frame)))] for of_frame in windows]


@DATASETS.register("VideoRecurrentTestDatasetRGBSpike")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTestDatasetRGBSpike(SpikeOptions, VideoRecurrentTestDataset):
    """Test clips with spikes; with `dataroot_gt` null without ground truth."""

    spike_perturb: dict[str, Any] | None = None
    """{"kind": ..., "amount": ...}: degradation of the spikes (`data/spike/perturb.py`); null: none."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        yield from SpikeOptions.faults(arguments)
        yield from VideoRecurrentTestDataset.faults(arguments)
        if arguments.get("sigma"):
            yield "sigma", f"denoising takes no spikes, use VideoRecurrentTestDataset; got {arguments['sigma']}"

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        self.encoding = encoding_of(self)
        super().__post_init__()

    def _roots(self) -> dict[str, str | None]:
        return {**super()._roots(), "dataroot_spike": self.dataroot_spike}

    def _faults(self) -> list[str]:
        self._spikes = SpikeInput(self, self.pairs, build_perturbation(self.spike_perturb))
        self.spikes = self._spikes.frames
        return self._spikes.faults(super()._faults())

    def assumptions(self) -> list[str]:
        """Sentences on the assumptions about the spikes, and the options that change them."""
        clip = self.pairs.clips[0]
        height, width = self.spikes.sizes[clip.name]
        window = self.spikes.exposure(clip.name, clip.frames[0])
        alignment = self.spikes.alignments.get(clip.name)
        spikes = (
            f"spikes of {height}x{width} (else: --set datasets.test.spike_h=... datasets.test.spike_w=...), threshold "
            f"{self.spike_threshold:g} (else: --set datasets.test.spike_threshold=...)"
        )
        if alignment is not None:
            threshold = self.spikes.threshold(clip.name, self.spike_threshold)
            spikes = (
                f"spikes of {alignment.spike_size[0]}x{alignment.spike_size[1]} warped onto the frames, threshold "
                f"{threshold:.3g}, as align.json says ({100 * alignment.warp(1).covered():.0f}% of the frame is seen; "
                "the rest takes the nearest spike pixel)"
            )
        return [
            spikes,
            f"{clip.name}/{clip.frames[0]}: exposed during spike frames {window.begin} to {window.end - 1}, restored "
            f"at {window.center} (else: a sync.json beside the spikes, docs/spike_format.md)",
        ]

    def content(self, index: int) -> Iterator[bytes]:
        clip = self.pairs.clips[index]
        yield from super().content(index)
        yield from self.spikes.content(clip.name, clip.frames)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        sample = super().load(index, begin, end)
        clip = self.clips[index]
        return self._spikes.added_to(sample, clip.name, list(clip.frames[begin:end]))

    def place(self, clip: str, frame: str) -> tuple[str, ExposureWindow]:
        """The blurred frame from which a frame of `clips` is restored, and its exposure, with the instant as centre."""
        return frame, self.spikes.exposure(clip, frame)

    def exposed_spikes(self, clip: str, frame: str) -> np.ndarray:
        """The spikes of a blurred frame's exposure, (L,h,w) uint8."""
        return self.spikes.exposed_spikes(clip, frame)

    def training_free(self, clip: str, frame: str, blurred: np.ndarray) -> dict[str, np.ndarray]:
        """Restorations of a frame without a network (`data/spike/reconstruction/baselines.py`), by name: uint8
        (H,W,3) or (H,W).

        Args:
            blurred: the frame, (H,W,3) uint8 RGB.
        """
        name, window = self.place(clip, frame)
        floor = self.spikes.threshold(clip, self.spike_threshold) / len(window)

        def intensity(section: dict[str, Any]) -> np.ndarray:
            return self.spikes.read_as(clip, name, encoding_of(self, section), window)[0]

        return training_free(blurred, intensity, floor)

    def instants(self, clip: str, frame: str, count: int) -> np.ndarray:
        """Intensities, by the Gaussian, at up to `count` equidistant moments of the exposure, (N,h,w) float32."""
        name, exposure = self.place(clip, frame)
        encoding = encoding_of(self, MOMENT)
        centers = np.unique(np.linspace(exposure.begin, exposure.end - 1, count).round().astype(int)).tolist()
        windows = [replace(exposure, center=center) for center in centers]
        return np.concatenate([self.spikes.read_as(clip, name, encoding, window) for window in windows])
