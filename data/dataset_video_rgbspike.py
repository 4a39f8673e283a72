"""Blurred frames with the spikes that were recorded during their exposures, for training and testing.

The data sets are those of `dataset_video_train` and `dataset_video_test` with spikes added, as `input_pack_mode` says:
"concat" appends the S channels, brought to the frames' resolution, to L: (T, 3+S, H, W); "dual" (the voxel branch)
keeps them at the spike picture's resolution as "L_spike": (T, K, h, w). Only the crop's spikes are decoded.
Test: `python -m pytest tests/data/test_dataset_video_rgbspike.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

import data.spike.representations  # noqa: F401  registers them
from data.augment import Augmentation
from data.dataset_video_test import VideoRecurrentTestDataset
from data.dataset_video_train import VideoRecurrentTrainDataset, Window
from data.frame_io import Box
from data.spike.encoding import SpikeEncoding, build_encoding
from data.spike.perturb import Perturbation, build_perturbation
from data.spike.reconstruction.baselines import MOMENT, training_free
from data.spike_augment import SpikeChange
from data.spike_io import SpikeFrames
from data.video_clips import FramePairs
from utils.user_error import UserError
from utils.utils_registry import DATASETS

SPIKE_JITTERS = (
    "spike_gain_jitter",
    "spike_threshold_jitter",
    "spike_photon_noise",
    "spike_hot_pixels",
    "spike_time_jitter",
)


@dataclass(kw_only=True, eq=False, repr=False)
class _WithSpikes(Dataset[dict[str, Any]]):
    """The options of spikes, and what training and test do with them."""

    packs_spikes: ClassVar[str | None] = "concat"

    dataroot_spike: str
    """<clip>/spike/<frame>.dat with <clip>/sync.json, or one .dat per clip; see `spike_io`."""
    spike: dict[str, Any]
    """{"representation": name, **its parameters}."""
    spike_h: int | None = None
    """Height of the spike picture; null: from the nearest config.yaml, else from the file's size."""
    spike_w: int | None = None
    """Its width, likewise."""
    spike_flipud: bool = True
    """The files' rows are stored bottom-up."""
    spike_threshold: float = 2.0
    """Of the spike camera: intensity = firing rate x threshold."""
    spike_normalize: dict[str, float | list[float]] | None = None
    """{"mean", "std"} of the channels, numbers or lists; null: the representation's own values."""
    hot_pixel_filter: bool | float = False
    """Replace pixels that (nearly) always fire; a number is the rate from which."""
    input_pack_mode: Literal["concat", "dual"] = "concat"
    """"concat": spikes are channels of L; "dual": spikes are L_spike."""
    spike_cache: str | None = None
    """Folder for encoded frames (`spike_cache.py`), for slow representations; null: decode whenever one is read."""

    def __post_init__(self) -> None:
        if self.input_pack_mode not in ("concat", "dual"):
            raise UserError(f"input_pack_mode: {self.input_pack_mode!r} is unknown. Choices: concat, dual.")
        self.encoding = build_encoding(self.spike, self.spike_threshold, self.spike_normalize, self.hot_pixel_filter)
        super().__post_init__()  # type: ignore[misc]  # of the data set mixed with

    def _roots(self) -> dict[str, str | None]:
        return {**super()._roots(), "dataroot_spike": self.dataroot_spike}  # type: ignore[misc]

    def _spike_faults(
        self, pairs: FramePairs, rgb_faults: list[str], perturbation: Perturbation | None = None
    ) -> list[str]:
        """Finds the spikes; returns what does not fit, after `rgb_faults`."""
        self.spikes = SpikeFrames(
            self.dataroot_spike,
            pairs.clips,
            single=pairs.lq.single is not None,
            encoding=self.encoding,
            spike_h=self.spike_h,
            spike_w=self.spike_w,
            flipud=self.spike_flipud,
            perturbation=perturbation,
            cache=self.spike_cache,
        )
        faults = [*rgb_faults, *self.spikes.faults]
        if not faults:
            sizes = {clip.name: pairs.lq.size(clip.name) for clip in pairs.clips}
            faults = self.spikes.register(sizes, resample=self.input_pack_mode == "concat")
        return faults

    def _add_spikes(
        self,
        sample: dict[str, Any],
        clip: str,
        frames: list[str],
        box: Box | None = None,
        augmentation: Augmentation | None = None,
        change: SpikeChange | None = None,
    ) -> dict[str, Any]:
        """Puts the frames' spikes into the sample."""
        augmentation = augmentation or Augmentation()
        read = self.spikes.read_resampled if self.input_pack_mode == "concat" else self.spikes.read
        channels = augmentation.space(read(clip, frames, box, time_reversed=augmentation.reverse, change=change))
        spikes = torch.from_numpy(np.ascontiguousarray(channels))
        if self.input_pack_mode == "concat":
            return {**sample, "L": torch.cat([sample["L"], spikes], dim=1)}
        return {**sample, "L_spike": spikes}


@DATASETS.register("VideoRecurrentTrainDatasetRGBSpike", "TrainDatasetRGBSpike", "vrt_video_rgbspike")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTrainDatasetRGBSpike(_WithSpikes, VideoRecurrentTrainDataset):
    """Training windows with spikes; crops lie on whole spike pixels, and reversed windows have reversed spikes."""

    spike_gain_jitter: float = 0.0
    """Multiply a sample's channels by a factor from 1 - this to 1 + this; for brightness-true representations."""
    spike_threshold_jitter: float = 0.0
    """Make a sample's spikes fewer, as with a threshold up to 1 + this times as high."""
    spike_photon_noise: float = 0.0
    """Lose spikes, and add as many, with a probability of up to this."""
    spike_hot_pixels: float = 0.0
    """Make up to this share of the pixels fire in every spike frame."""
    spike_time_jitter: int = 0
    """Shift a sample's exposures by up to so many spike frames, as far as the streams go."""

    def __post_init__(self) -> None:
        for key in SPIKE_JITTERS:
            value, limit = getattr(self, key), 1 if key in ("spike_photon_noise", "spike_hot_pixels") else math.inf
            if not 0 <= value <= limit:
                raise UserError(f"{key}: {value}; it is 0 (off) or more" + (" up to 1." if limit == 1 else "."))
        super().__post_init__()
        if self.spike_gain_jitter and not self.encoding.brightness_true:
            raise UserError(
                "spike_gain_jitter: only firing rates can be scaled, and these channels are none (spike_normalize, or "
                "the representation); spike_threshold_jitter changes the spikes themselves."
            )

    def _change(self, window: Window) -> SpikeChange | None:
        """What is done to the spikes of a sample; None where all of it is off."""
        jitters = {key: getattr(self, key) for key in SPIKE_JITTERS}
        return SpikeChange.draw(window.entropy, **jitters) if any(jitters.values()) else None

    def _faults(self) -> list[str]:
        faults = self._spike_faults(self.pairs, super()._faults())
        side, step = self.gt_size // self.scale, self._crop_step()
        if not faults and side % step:
            near = [size * self.scale for size in (side // step * step, (side // step + 1) * step) if size]
            faults.append(
                f"gt_size: a crop of {side} blurred pixels is not a whole number of spike pixels; "
                f"it has to be a multiple of {step} blurred pixels, nearest: {' or '.join(map(str, near))}"
            )
        return faults

    def _crop_step(self) -> int:
        return self.spikes.ratio.numerator

    def sample(self, window: Window) -> dict[str, Any]:
        sample = super().sample(window)
        change = self._change(window)
        return self._add_spikes(sample, window.clip.name, window.frames, window.box, window.augmentation, change)


@DATASETS.register("VideoRecurrentTestDatasetRGBSpike")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTestDatasetRGBSpike(_WithSpikes, VideoRecurrentTestDataset):
    """Test clips with spikes; with `dataroot_gt` null without ground truth."""

    spike_perturb: dict[str, Any] | None = None
    """{"kind": ..., "amount": ...}: spikes made worse on purpose (`data/spike/perturb.py`); null: as recorded."""

    def __post_init__(self) -> None:
        if self.sigma:
            raise UserError(f"sigma: {self.sigma}; denoising takes no spikes, use VideoRecurrentTestDataset.")
        super().__post_init__()

    def _faults(self) -> list[str]:
        return self._spike_faults(self.pairs, super()._faults(), build_perturbation(self.spike_perturb))

    def assumptions(self) -> list[str]:
        """What is taken for granted of the spikes, and where to say otherwise, in sentences."""
        clip = self.clips[0]
        height, width = self.spikes.sizes[clip.name]
        window = self.spikes.exposure(clip.name, clip.frames[0])
        return [
            f"spikes of {height}x{width} (else: --set datasets.test.spike_h=... datasets.test.spike_w=...), threshold "
            f"{self.spike_threshold:g} (else: --set datasets.test.spike_threshold=...)",
            f"{clip.name}/{clip.frames[0]}: exposed during spike frames {window.begin} to {window.end - 1}, restored "
            f"at {window.center} (else: a sync.json beside the spikes, docs/spike_format.md)",
        ]

    def content(self, index: int) -> Iterator[bytes]:
        clip = self.clips[index]
        yield from super().content(index)
        yield from self.spikes.content(clip.name, clip.frames)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        sample = super().load(index, begin, end)
        clip = self.clips[index]
        return self._add_spikes(sample, clip.name, list(clip.frames[begin:end]))

    def training_free(self, clip: str, frame: str, blurred: np.ndarray) -> dict[str, np.ndarray]:
        """Restorations of a frame without a network (`data/spike/reconstruction/baselines.py`), by name: uint8
        (H,W,3) or (H,W).

        Args:
            blurred: the frame, (H,W,3) uint8 RGB.
        """
        floor = self.spike_threshold / len(self.spikes.exposure(clip, frame))

        def intensity(section: dict[str, Any]) -> np.ndarray:
            return self.spikes.read_as(clip, frame, self._encoding_of(section))[0]

        return training_free(blurred, intensity, floor)

    def instants(self, clip: str, frame: str, count: int) -> np.ndarray:
        """The exposure in at most `count` moments evenly apart, (N,h,w) float32: the Gaussian's view of each."""
        exposure, encoding = self.spikes.exposure(clip, frame), self._encoding_of(MOMENT)
        centers = np.unique(np.linspace(exposure.begin, exposure.end - 1, count).round().astype(int)).tolist()
        windows = [replace(exposure, center=center) for center in centers]
        return np.concatenate([self.spikes.read_as(clip, frame, encoding, window) for window in windows])

    def _encoding_of(self, spike: dict[str, Any]) -> SpikeEncoding:
        """Another representation of the same spikes, not normalised."""
        return build_encoding(spike, self.spike_threshold, None, self.hot_pixel_filter)
