"""What the restoration benchmark compares: each competitor restores clips frame by frame.

    Blurred, TrainingFree, Charge need nothing
    OptionNetwork                 a network of an option file with a checkpoint, or a shipped one by its name
    ModuleNetwork                 any torch.nn.Module by `module:callable`
    Pictures                      another program's results: PNG files

A module is called as `module(L, L_spike)` with blurred frames (1,T,3,H,W) float32 RGB in [0,1] and spike channels
(1,T,K,h,w) float32, and returns (1,T,3,H,W). Its attribute `spike` names the channels' representation as option files
do, e.g. {"representation": "tfp", "bins": 8}; a module without it gets the frames alone.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.dataset_video_test import VideoRecurrentTestDataset
from data.select_dataset import define_Dataset
from models.model_base import amp_dtype
from models.select_network import define_G, load_weights
from models.testing.evaluate import ClipSet, restore_clip
from models.testing.restore import Restorer, Testing
from utils.evaluation.origin import weights_digest
from utils.options.tester_flags import checkpoint_of, options, parse
from utils.user_error import UserError
from utils.utils_image import imread_rgb, tensor2uint


@dataclass(frozen=True)
class ClipFolder:
    """Clips that were recorded alike.

    Attributes:
        group: their name, and folder among other programs' results.
        blurred, sharp, spikes: folders of clips. threshold: of the spike camera.
        factors: what they were recorded with, by name: rows of the table.
    """

    group: str
    blurred: Path
    sharp: Path
    spikes: Path
    threshold: float
    factors: dict[str, str]

    def reference(self) -> VideoRecurrentTestDatasetRGBSpike:
        """The clips as they are, with sharp frames and the exposure's firing rate."""
        return self._with_spikes({"representation": "count"})

    def for_module(self, spike: dict[str, Any] | None) -> ClipSet:
        """The clips for a module whose channels have a representation; None: frames alone."""
        if spike is not None:
            return self._with_spikes(spike)
        return VideoRecurrentTestDataset(dataroot_lq=str(self.blurred), dataroot_gt=str(self.sharp))

    def _with_spikes(self, spike: dict[str, Any]) -> VideoRecurrentTestDatasetRGBSpike:
        return VideoRecurrentTestDatasetRGBSpike(
            dataroot_lq=str(self.blurred),
            dataroot_gt=str(self.sharp),
            dataroot_spike=str(self.spikes),
            spike=spike,
            spike_threshold=self.threshold,
            input_pack_mode="dual",
        )


class Competitor(Protocol):
    """Something that restores clips.

    Attributes:
        name: of its row. origin: where its numbers come from, for the JSON file. computes: whether its time counts.
    """

    name: str
    origin: dict[str, str]
    computes: bool

    def open(self, clips: ClipFolder) -> Any:
        """The clips as this competitor reads them."""

    def restore(self, opened: Any, index: int) -> Iterator[tuple[str, np.ndarray]]:
        """Name and picture (H,W,3) uint8 RGB of each frame of a clip, in order."""


class Blurred:
    """The blurred frames as they are."""

    name, computes = "blurred", False
    origin: dict[str, str] = {}  # noqa: RUF012  (only read)

    def open(self, clips: ClipFolder) -> VideoRecurrentTestDatasetRGBSpike:
        return clips.reference()

    def restore(self, opened: VideoRecurrentTestDatasetRGBSpike, index: int) -> Iterator[tuple[str, np.ndarray]]:
        clip = opened.clips[index]
        for number, frame in enumerate(clip.frames):
            yield frame, tensor2uint(opened.load(index, number, number + 1)["L"][0, :3])


class TrainingFree(Blurred):
    """The blurred frame times a ratio of firing rates (`data/spike/reconstruction/baselines.py`)."""

    name, computes, method = "training-free", True, "sdm"

    def restore(self, opened: VideoRecurrentTestDatasetRGBSpike, index: int) -> Iterator[tuple[str, np.ndarray]]:
        clip = opened.clips[index]
        for frame, blurred in super().restore(opened, index):
            yield frame, opened.training_free(clip.name, frame, blurred)[self.method]


class Charge(TrainingFree):
    """The same with the rates between spikes."""

    name, method = "training-free, charge", "charge"


class _Network:
    """A network as the tester uses it."""

    computes = True

    def __init__(self, name: str, network: nn.Module, testing: Testing, device: torch.device) -> None:
        self.name, self.restorer = name, Restorer(network.to(device).eval(), testing, device)
        self.origin = {
            "weights": f"SHA-256 {weights_digest(network)}",
            "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
        }

    def restore(self, opened: ClipSet, index: int) -> Iterator[tuple[str, np.ndarray]]:
        with torch.inference_mode():
            for result in restore_clip(self.restorer, opened, index, source=self.name):
                yield result.frame, result.restored


class OptionNetwork(_Network):
    """A network of an option file, or of a task whose weights come with the code.

    Args:
        name: of its row; for a task the task's.
        flags: of the tester (`main_test_vrt.py`): --opt FILE --checkpoint PATH, or --task NAME.
        device: where it computes.

    Raises:
        UserError: no such file, task or checkpoint, or faults of the options.
    """

    def __init__(self, name: str, flags: list[str], device: torch.device) -> None:
        arguments = parse(flags, "")
        opt = options(arguments)
        network = define_G(opt.netG)
        checkpoint = checkpoint_of(opt, arguments)
        load_weights(network, checkpoint, prefer_ema=True)
        self.flags = flags
        sections = (opt.datasets.test, opt.datasets.train)
        self.with_spikes = any(hasattr(section, "spike") for section in sections)
        testing = Testing.from_options(opt.val, opt.scale, amp_dtype(opt.train.amp_dtype, device), opt.netG)
        super().__init__(name, network, testing, device)
        self.origin |= {"flags": " ".join(flags), "checkpoint": str(checkpoint)}

    def open(self, clips: ClipFolder) -> ClipSet:
        folders = ["--folder_lq", str(clips.blurred), "--folder_gt", str(clips.sharp)]
        spikes = ["--folder_spike", str(clips.spikes)] if self.with_spikes else []
        opt = options(parse([*self.flags, *folders, *spikes], ""))
        section = opt.datasets.test
        assert section is not None
        changed = section.model_copy(update={"spike_threshold": clips.threshold} if self.with_spikes else {})
        result: ClipSet = define_Dataset(
            changed, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels
        )
        return result


class ModuleNetwork(_Network):
    """A module that a callable returns.

    Args:
        name: of its row. place: `module:callable`, importable from the current folder or the environment.

    Raises:
        UserError: no such module or callable, or it returns no torch.nn.Module.
    """

    def __init__(self, name: str, place: str, device: torch.device) -> None:
        network = _called(place)
        self.spike: dict[str, Any] | None = getattr(network, "spike", None)
        super().__init__(name, network, Testing(), device)
        self.origin |= {"module": place, "spike": str(self.spike)}

    def open(self, clips: ClipFolder) -> ClipSet:
        return clips.for_module(self.spike)


def _called(place: str) -> nn.Module:
    module, _, name = place.partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"--module {place}: {error}; name it as module:callable, importable from here") from error
    network = build() if callable(build) and not isinstance(build, nn.Module) else build
    if not isinstance(network, nn.Module):
        raise UserError(f"--module {place}: it returns {type(network).__name__}, not a torch.nn.Module")
    return network


class Pictures:
    """Results of another program: <folder>/<group>/<clip>/<frame>.png.

    Raises:
        UserError: no such folder; later, files that are missing.
    """

    computes = False

    def __init__(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"--pictures {name}: {folder} is no folder")
        self.name, self.folder, self.origin = name, folder, {"folder": str(folder)}

    def open(self, clips: ClipFolder) -> tuple[ClipFolder, VideoRecurrentTestDatasetRGBSpike]:
        return clips, clips.reference()

    def restore(
        self, opened: tuple[ClipFolder, VideoRecurrentTestDatasetRGBSpike], index: int
    ) -> Iterator[tuple[str, np.ndarray]]:
        group, clip = opened[0].group, opened[1].clips[index]
        files = [self.folder / group / clip.name / f"{frame}.png" for frame in clip.frames]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise UserError(f"{self.name}: {len(missing)} of {len(files)} frames are missing: {', '.join(missing[:3])}")
        for frame, file in zip(clip.frames, files, strict=True):
            yield frame, imread_rgb(file)
