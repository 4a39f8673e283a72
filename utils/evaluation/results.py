"""What a test leaves behind frame by frame, and how an interrupted one goes on.

with ResultWriter(folder, save_result=True) as writer:
    evaluate(..., on_frame=writer.add, finished=writer.finished)

<folder>/<clip>/<frame>.png      every restored frame                     with save_result
<folder>/<clip>.mp4              input | spikes | restored | sharp        with save_video
<folder>/panels/<clip>_<frame>.png   the same of the middle frame
<folder>/run.json                what the frames were restored with, held against the options by resuming
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from utils.user_error import UserError
from utils.utils_file import atomic_write
from utils.utils_image import imwrite_rgb, panel
from utils.utils_option import Options, option_changes, options_to_dict
from utils.utils_video import VideoWriter

RUN = "run.json"
WITHOUT_EFFECT = ("save_img", "tile_batch", "max_memory", "cuda_graphs")
"""Keys of `val` that may change between the parts of a run."""


class Restored(Protocol):
    """What is kept of a restored frame (`models.testing.evaluate.FrameResult`)."""

    @property
    def clip(self) -> str: ...
    @property
    def frame(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def restored(self) -> np.ndarray: ...
    @property
    def is_middle(self) -> bool: ...
    def views(self) -> list[tuple[str, np.ndarray]]:
        """Titles and pictures, side by side."""


class ResultWriter:
    """Writes restored frames as they come.

    Args:
        folder: of the results.
        save_result: write every frame.
        save_video: write a video of each clip, side by side.
        fps: of the videos.
        resume: frames that are there are finished.
    """

    def __init__(
        self, folder: Path, *, save_result: bool, save_video: bool = False, fps: float = 25.0, resume: bool = False
    ) -> None:
        if resume and not save_result:
            raise UserError("--resume: goes on from the frames that --save_result writes; give both")
        self.folder, self.save_result, self.save_video, self.fps = folder, save_result, save_video, fps
        self.resume = resume
        self._video: VideoWriter | None = None

    def finished(self, clip: str, frame: str) -> Path | None:
        """The file of a frame that an interrupted run has restored."""
        path = self.folder / clip / f"{frame}.png"
        return path if self.resume and path.is_file() else None

    def add(self, result: Restored) -> None:
        """Writes a frame, a clip's frames in order.

        Raises:
            OSError: the disk is full or can't be written; the frames before are there.
        """
        if self.save_result and self.finished(result.clip, result.frame) is None:
            imwrite_rgb(self.folder / result.clip / f"{result.frame}.png", result.restored)
        views = panel(result.views()) if result.is_middle or self.save_video else None
        if views is not None and result.is_middle:
            name = f"{result.clip}_{result.frame}".replace("/", "_")
            imwrite_rgb(self.folder / "panels" / f"{name}.png", views)
        if views is not None and self.save_video:
            self._video_of(result.clip).write(views)

    def _video_of(self, clip: str) -> VideoWriter:
        """The video of a clip; that of the clip before is complete."""
        path = self.folder / f"{clip}.mp4"
        if self._video is not None and self._video.path != path:
            self._video.close()
            self._video = None
        self._video = self._video or VideoWriter(path, self.fps)
        return self._video

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            self._video.__exit__(kind, error, trace)


def check_same_run(folder: Path, opt: Options, network: nn.Module, resume: bool) -> None:
    """Notes in `folder` what frames are restored with; resuming, holds it against what the frames there were made with.

    Raises:
        UserError: `resume` would mix frames of two runs.
    """
    path, now = folder / RUN, _run(opt, network)
    if resume and path.is_file():
        changes = option_changes(json.loads(path.read_text(encoding="utf-8")), now)
        if changes:
            raise UserError(
                f"--resume: the frames in {folder} were restored otherwise ({'; '.join(changes)}); leave --resume out "
                "to restore all of them, or choose another --output"
            )
    with atomic_write(path) as file:
        json.dump(now, file, indent=1)


def _run(opt: Options, network: nn.Module) -> dict[str, Any]:
    """Weights and options that decide what a restored frame is."""
    tree: Mapping[str, Any] = options_to_dict(opt)
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    val = {key: value for key, value in tree["val"].items() if key not in WITHOUT_EFFECT}
    kept = {key: tree[key] for key in ("task", "scale", "netG")}
    return {**kept, "test": tree["datasets"]["test"], "val": val, "weights": digest.hexdigest()}
