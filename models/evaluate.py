"""Restores clips by tiles and scores them: the same code for validation while training and for `main_test_vrt.py`."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from utils.utils_dist import Dist, all_gather_object
from utils.utils_image import tensor2uint
from utils.utils_option import ValOptions
from utils.utils_report import Scores
from utils.utils_scoring import Pictures, Scorer
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


class ClipSet(Protocol):
    """A test data set (`data/dataset_video_test.py`): clips with names and frame names, read in part."""

    @property
    def clips(self) -> Sequence[Any]:
        """Per clip `name` and `frames`, the names of its frames."""

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Frames [begin, end) of a clip: `L` (T,C,H,W), and where there are any `H` and `L_spike`."""


@dataclass(frozen=True)
class FrameResult:
    """A restored frame; pictures are uint8 RGB (H,W,3).

    Attributes:
        clip, frame: names.
        index, length: place among the frames that the clip gives, and how many there are: frames come in order, the
            last one has index length - 1.
        blurred: the input frame. restored: the network's. sharp: the ground truth, None where there is none.
        spikes: a view of the frame's spikes (h,w) gray, None without spikes.
    """

    clip: str
    frame: str
    index: int
    length: int
    blurred: np.ndarray
    restored: np.ndarray
    sharp: np.ndarray | None
    spikes: np.ndarray | None

    @property
    def is_middle(self) -> bool:
        """Whether this is the clip's middle frame, the one shown of a clip."""
        return self.index == self.length // 2

    def views(self) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures side by side: input, spikes, restored, sharp, as far as they are there."""
        pictures = {"input": self.blurred, "spikes": self.spikes, "restored": self.restored, "sharp": self.sharp}
        return [(title, picture) for title, picture in pictures.items() if picture is not None]


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


def frame_results(batch: Mapping[str, Any], restored: Tensor, testing: Testing) -> Iterator[FrameResult]:
    """The frames of a batch's first clip and of its restoration as pictures.

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
    first = len(blurred) // 2 if testing.center_frame_only else 0
    for index, picture in enumerate(restored[0]):
        yield FrameResult(
            clip=batch["folder"][0],
            frame=Path(_first(batch["lq_path"][first + index])).stem,
            index=index,
            length=restored.shape[1],
            blurred=tensor2uint(blurred[first + index, :3]),
            restored=tensor2uint(picture),
            sharp=tensor2uint(batch["H"][0][first + index]) if "H" in batch else None,
            spikes=tensor2uint(_visible(planes[first + index]).unsqueeze(0)) if planes.shape[1] else None,
        )


def evaluate(
    network: nn.Module,
    test_set: ClipSet,
    testing: Testing,
    device: torch.device,
    on_frame: Callable[[FrameResult], None] | None = None,
    input_scores: bool = False,
    indices: Iterable[int] | None = None,
    scorer: Scorer | None = None,
    baselines: Callable[[FrameResult], Pictures] | None = None,
) -> Scores:
    """Restores clips, scores their frames where there is ground truth, and hands each frame to `on_frame`, in order.

    Args:
        network: as in `restore_clip`; evaluated in `eval()` mode and left as it was.
        test_set: where the clips are read from.
        input_scores: also score the blurred input (where it has the size of the ground truth).
        indices: of the clips; None takes all.
        scorer: measures in the background, and is closed; None: one for PSNR and SSIM.
        baselines: further restorations of a frame to score, by method; called in the background.
    """
    scorer = scorer or Scorer(temporal=False)
    training = network.training
    network.eval()
    try:
        with scorer:
            for index in range(len(test_set.clips)) if indices is None else indices:
                sample = test_set.load(index)
                batch = {key: value[None] if isinstance(value, Tensor) else value for key, value in sample.items()}
                batch["folder"] = [sample["folder"]]
                for result in frame_results(batch, restore_clip(network, batch, testing, device), testing):
                    _score(result, scorer, input_scores, baselines)
                    if on_frame is not None:
                        on_frame(result)
    finally:
        network.train(training)
    return scorer.scores


def merge_scores(scores: Scores, order: list[str], dist: Dist) -> Scores:
    """The scores of all ranks, clips in the given order: what one process would have measured."""
    rows = [row for part in all_gather_object(scores.rows, dist) for row in part]
    return Scores(sorted(rows, key=lambda row: order.index(str(row["clip"]))))


def _score(
    result: FrameResult, scorer: Scorer, input_scores: bool, baselines: Callable[[FrameResult], Pictures] | None
) -> None:
    """Hands a frame to the scorer where there is ground truth."""
    if result.sharp is None:
        return
    pictures = {"": result.restored}
    comparable = result.blurred.shape == result.sharp.shape
    if input_scores and comparable:
        pictures["input"] = result.blurred
    more = functools.partial(baselines, result) if baselines is not None and comparable else None
    scorer.add(result.clip, result.frame, result.sharp, pictures, more)


def _visible(planes: Tensor) -> Tensor:
    """Spike channels (S,h,w) as one picture in [0,1]: their mean, stretched to its 1st and 99th percentile."""
    mean = planes.float().mean(0)
    low, high = torch.quantile(mean.flatten()[:: max(1, mean.numel() // 100_000)], torch.tensor([0.01, 0.99])).tolist()
    return ((mean - low) / max(high - low, 1e-6)).clamp(0, 1)


def _first(path: Any) -> str:
    """A path as collated by a DataLoader (a list of one) or as the dataset gave it."""
    return path if isinstance(path, str) else path[0]
