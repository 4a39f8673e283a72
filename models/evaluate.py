"""Restores clips by tiles and scores them: the same code for validation while training and for `main_test_vrt.py`."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.utils_dist import Dist, all_gather_object
from utils.utils_image import tensor2uint
from utils.utils_option import ValOptions
from utils.utils_report import Scores
from utils.utils_scoring import score_frame
from utils.utils_tile import restore_tiled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Testing:
    """How a clip is restored.

    Attributes:
        tile: frames, rows and columns of a tile; 0 takes the whole axis.
        tile_overlap: how much neighbouring tiles share, per axis.
        scale: size of the output over that of the input.
        amp_dtype: type of autocast, or None.
        pad_seq: repeat the last frame once and drop its result.
        flip_seq: restore the reversed clip too and average.
        center_frame_only: keep the result of the middle frame alone.
    """

    tile: tuple[int, int, int] = (0, 0, 0)
    tile_overlap: tuple[int, int, int] = (0, 0, 0)
    scale: int = 1
    amp_dtype: torch.dtype | None = None
    pad_seq: bool = False
    flip_seq: bool = False
    center_frame_only: bool = False

    @classmethod
    def from_options(cls, val: ValOptions, scale: int, amp_dtype: torch.dtype | None) -> "Testing":
        """The settings of the `val` section."""
        return cls(
            tile=val.tile_size,
            tile_overlap=val.tile_overlap_size,
            scale=scale,
            amp_dtype=amp_dtype,
            pad_seq=val.pad_seq,
            flip_seq=val.flip_seq,
            center_frame_only=val.center_frame_only,
        )


@dataclass(frozen=True)
class Clip:
    """A restored clip as uint8 RGB pictures (H,W,3), an entry per frame; `sharp` is empty without ground truth."""

    folder: str
    frames: list[str]
    blurred: list[np.ndarray]
    restored: list[np.ndarray]
    sharp: list[np.ndarray]
    spikes: list[np.ndarray]

    def views(self, index: int) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures of one frame, side by side: input, spikes, restored, sharp, as far as they are there."""
        pictures = {"input": self.blurred, "spikes": self.spikes, "restored": self.restored, "sharp": self.sharp}
        return [(title, frames[index]) for title, frames in pictures.items() if frames]


def restore_clip(network: nn.Module, batch: Mapping[str, Any], testing: Testing, device: torch.device) -> Tensor:
    """Restores the clips of a batch.

    Args:
        network: takes (B,T,C,H,W), and with `L_spike` in the batch also (B,T,K,h,w); its mode is not changed.
        batch: `L` (B,T,C,H,W) in [0,1], `L_spike` (B,T,K,h,w) for the voxel branch.

    Returns:
        (B,T,3,H*scale,W*scale) float32 in [0,1] on the CPU; T is 1 with `center_frame_only`.
    """
    blurred, spikes = batch["L"], batch.get("L_spike")
    num_frames = blurred.shape[1]

    def run(frames: Tensor) -> Tensor:
        chosen_spikes = None if spikes is None else spikes[:, frames]
        autocast = torch.autocast(device.type, testing.amp_dtype, enabled=testing.amp_dtype is not None)
        with torch.inference_mode(), autocast:
            return restore_tiled(
                lambda *tiles: network(*(tile.to(device) for tile in tiles)),
                blurred[:, frames],
                chosen_spikes,
                tile=testing.tile,
                overlap=testing.tile_overlap,
                scale=testing.scale,
            )[:, :num_frames]

    order = torch.arange(num_frames + testing.pad_seq).clamp(max=num_frames - 1)
    restored = run(order)
    if testing.flip_seq:
        # The padding stays at the end of the reversed clip, so that both passes see it where `[:num_frames]` cuts.
        backwards = torch.cat([torch.arange(num_frames).flip(0), torch.zeros(int(testing.pad_seq), dtype=torch.long)])
        restored = (restored + run(backwards).flip(1)) / 2
    if testing.center_frame_only:
        restored = restored[:, num_frames // 2 : num_frames // 2 + 1]
    return restored.float().clamp(0, 1)


def as_pictures(batch: Mapping[str, Any], restored: Tensor, testing: Testing) -> Clip:
    """The first clip of a batch and its restoration as uint8 pictures.

    Raises:
        ValueError: the network made frames that the clip does not have.
    """
    blurred, spikes = batch["L"][0], batch.get("L_spike")
    if not testing.center_frame_only and restored.shape[1] != len(blurred):
        raise ValueError(
            f"{batch['folder'][0]}: the network made {restored.shape[1]} frames of {len(blurred)}; clips are tested "
            "frame by frame, which frame interpolation (netG.pa_frames = 0) does not fit"
        )
    planes = spikes[0] if spikes is not None else blurred[:, 3:]
    middle = slice(len(blurred) // 2, len(blurred) // 2 + 1) if testing.center_frame_only else slice(None)
    sharp = batch["H"][0][middle] if "H" in batch else []
    return Clip(
        folder=batch["folder"][0],
        frames=[Path(_first(path)).stem for path in batch["lq_path"]][middle],
        blurred=[tensor2uint(frame[:3]) for frame in blurred[middle]],
        restored=[tensor2uint(frame) for frame in restored[0]],
        sharp=[tensor2uint(frame) for frame in sharp],
        spikes=[tensor2uint(_visible(frame).unsqueeze(0)) for frame in planes[middle]] if planes.shape[1] else [],
    )


def evaluate(
    network: nn.Module,
    clips: Iterable[Mapping[str, Any]],
    testing: Testing,
    device: torch.device,
    on_clip: Callable[[Clip], None] | None = None,
    input_scores: bool = False,
) -> Scores:
    """Restores every clip, scores its frames where there is ground truth, and hands each clip to `on_clip`.

    Args:
        network: as in `restore_clip`; evaluated in `eval()` mode and left as it was.
        clips: batches of one clip, as a DataLoader of a test dataset gives them.
        input_scores: also score the blurred input (where it has the size of the ground truth).
    """
    scores = Scores()
    training = network.training
    network.eval()
    try:
        for batch in clips:
            clip = as_pictures(batch, restore_clip(network, batch, testing, device), testing)
            _score(clip, scores, input_scores)
            if on_clip is not None:
                on_clip(clip)
    finally:
        network.train(training)
    return scores


def merge_scores(scores: Scores, order: list[str], dist: Dist) -> Scores:
    """The scores of all ranks, clips in the given order: what one process would have measured."""
    rows = [row for part in all_gather_object(scores.rows, dist) for row in part]
    return Scores(sorted(rows, key=lambda row: order.index(str(row["clip"]))))


def _score(clip: Clip, scores: Scores, input_scores: bool) -> None:
    """Adds the scores of a clip's frames."""
    for frame, blurred, restored, sharp in zip(clip.frames, clip.blurred, clip.restored, clip.sharp, strict=False):
        row = score_frame(restored, sharp)
        if input_scores and blurred.shape == sharp.shape:
            row |= {f"input_{name}": value for name, value in score_frame(blurred, sharp).items()}
        scores.add(clip.folder, frame, row)


def _visible(planes: Tensor) -> Tensor:
    """Spike channels (S,h,w) as one picture in [0,1]: their mean, stretched to its 1st and 99th percentile."""
    mean = planes.float().mean(0)
    low, high = torch.quantile(mean.flatten()[:: max(1, mean.numel() // 100_000)], torch.tensor([0.01, 0.99])).tolist()
    return ((mean - low) / max(high - low, 1e-6)).clamp(0, 1)


def _first(path: Any) -> str:
    """A path as collated by a DataLoader (a list of one) or as the dataset gave it."""
    return path if isinstance(path, str) else path[0]
