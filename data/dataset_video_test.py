"""Test clips of blurred video, with or without sharp frames: one item is one clip, or a part of it.

    dataset = VideoRecurrentTestDataset(dataroot_lq="GoPro11/test_GT_blurred", dataroot_gt="GoPro11/test_GT")
    dataset.clips[0].name, len(dataset.clips[0])     # without loading a frame
    sample = dataset[0]                              # the whole clip
    part = dataset.load(0, 20, 40)                   # its frames 20 to 39

A root holds clip folders, or is itself a folder of frames.
Test: `python -m pytest tests/data/test_dataset_video_test.py`.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.utils.data import Dataset

from data.noise import ClipNoise
from data.video_clips import Clip, FramePairs, bits_of, check_channels, check_roots, report_faults, to_tensor
from utils.utils_registry import DATASETS, Faults, raise_faults

logger = logging.getLogger(__name__)


@DATASETS.register("SingleVideoRecurrentTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class SingleVideoRecurrentTestDataset(Dataset[dict[str, Any]]):
    """Clips without ground truth.

    An item is {"L": (T,3,H,W) float32 RGB in [0, 1], "bits": bits per channel of the files, 8 or 16, "folder": the
    clip's name, "lq_path": [T names of files]}.
    `clips` lists the clips in the order of the items; `fps` is their frame rate, None if unknown.

    Raises:
        UserError: the data can't be used with these options; the message lists all faults found.
    """

    packs_spikes: ClassVar[str | None] = None

    dataroot_lq: str
    """Blurred frames: <clip>/<frame>.<ext>, one folder of frames, or an LMDB."""
    meta_info_file: str | None = None
    """List of clips and frames, lines `clip n_frames (h,w,c) first_frame`; null: all in the folders."""
    filename_tmpl: str = "06d"
    """Format of frame names from the frame numbers in the meta info file."""
    filename_ext: str | None = None
    """The frames' extension; null: any image."""
    io_backend: dict[str, str] | None = None
    """{"type": "disk"} (the default) or {"type": "lmdb"}."""
    cache_data: bool = False
    """Decode all frames into memory first."""
    num_frame: int = -1
    """Frames per clip, from its beginning; -1: all."""
    scale: int = 1
    """Size of the sharp frames over that of the blurred ones."""
    n_channels: int = 3
    """Only 3."""

    @staticmethod
    def faults(arguments: Mapping[str, Any]) -> Faults:
        """Faults of the options, as (option, sentence); absent options are not checked."""
        if arguments.get("num_frame", -1) != -1 and arguments["num_frame"] < 1:
            yield "num_frame", f"-1 (all frames of a clip), or 1 or more; got {arguments['num_frame']}"

    def __post_init__(self) -> None:
        raise_faults("", self.faults(vars(self)))
        check_channels(self.n_channels)
        check_roots(self._roots())
        self.pairs = FramePairs(
            dataroot_lq=self.dataroot_lq,
            dataroot_gt=self._roots().get("dataroot_gt"),
            scale=self.scale,
            meta_info_file=self.meta_info_file,
            filename_tmpl=self.filename_tmpl,
            filename_ext=self.filename_ext,
            io_backend=self.io_backend,
            pair_by=self._pair_by(),
        )
        if self.num_frame > 0:
            self.pairs.clips = [Clip(clip.name, clip.frames[: self.num_frame]) for clip in self.pairs.clips]
        self.clips, self.fps = self.pairs.clips, self.pairs.lq.fps
        report_faults(self._faults(), f"The test data in {self.dataroot_lq} can't be used")
        if self.cache_data:
            self.pairs.preload()
        logger.info("%s: %d clips, %d frames", type(self).__name__, len(self), sum(map(len, self.clips)))

    def _roots(self) -> dict[str, str | None]:
        """Data roots by their options."""
        return {"dataroot_lq": self.dataroot_lq}

    def _pair_by(self) -> str:
        """How blurred and sharp frames are paired, see `FramePairs`."""
        return "name"

    def _faults(self) -> list[str]:
        """Faults that prevent using the data with these options."""
        return self.pairs.faults()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.load(index)

    def content(self, index: int) -> Iterator[bytes]:
        """All bytes of the input files of clip `index`."""
        clip = self.pairs.clips[index]
        return self.pairs.lq.content(clip.name, clip.frames)

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Frames [begin, end) of clip `index`, as an item; `end` None: to the clip's end."""
        clip = self.clips[index]
        frames = list(clip.frames[begin:end])
        blurred = self.pairs.read_lq(clip.name, frames)
        result: dict[str, Any] = {
            "L": to_tensor(blurred),
            "bits": bits_of(blurred),
            "folder": clip.name,
            "lq_path": [self.pairs.lq.where(clip.name, frame) for frame in frames],
        }
        if self.pairs.gt is not None:
            result["H"] = to_tensor(self.pairs.read_gt(clip.name, frames))
        return result


@DATASETS.register("VideoRecurrentTestDataset")
@dataclass(kw_only=True, eq=False, repr=False)
class VideoRecurrentTestDataset(SingleVideoRecurrentTestDataset):
    """Clips with ground truth: items also hold "H", (T,3,H*scale,W*scale)."""

    dataroot_gt: str | None
    """Sharp frames with the same clip and frame names as the blurred ones; null: no sharp frames, and no "H"."""
    pair_by: Literal["name", "order"] = "name"
    """How blurred and sharp clips and frames are paired: by equal names, or by their positions in natural order."""
    sigma: float = 0.0
    """Above 0: non-blind denoising. L are the sharp frames with Gaussian noise of sigma/255, the same in every run
    (without sharp frames: those of dataroot_lq, which are noisy already), and the noise level as fourth channel."""

    def __post_init__(self) -> None:
        self._noise: tuple[int, ClipNoise] | None = None
        super().__post_init__()
        if self.sigma and self.dataroot_gt is not None and self.dataroot_gt != self.dataroot_lq:
            logger.warning(
                "dataroot_lq %s: not used; as in KAIR, the noise of sigma %g is added to the sharp frames of %s",
                self.dataroot_lq, self.sigma, self.dataroot_gt,
            )  # fmt: skip

    def _roots(self) -> dict[str, str | None]:
        return {"dataroot_gt": self.dataroot_gt, **super()._roots()}

    def _pair_by(self) -> str:
        return self.pair_by

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        sample = super().load(index, begin, end)
        if not self.sigma:
            return sample
        frames, level = sample.get("H", sample["L"]), self.sigma / 255
        if self.dataroot_gt is not None:
            # As in KAIR, a clip's noise is one draw, of which every part of the clip has its own part.
            count = len(self.clips[index])
            if self._noise is None or self._noise[0] != index:
                self._noise = index, ClipNoise((count, *frames.shape[1:]))
            numbers = range(count)[begin:end]
            frames = frames + level * self._noise[1].part(numbers.start, numbers.stop)
        return {**sample, "L": torch.cat([frames, torch.full_like(frames[:, :1], level)], dim=1)}
