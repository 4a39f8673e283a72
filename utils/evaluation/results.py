"""Writes the results of a test frame by frame, and resumes an interrupted test.

with ResultWriter(folder, save_result=True) as writer:
    evaluate(..., on_frame=writer.add, finished=writer.finished)

<folder>/<clip>/<frame>.png      every restored frame                     with save_result
<folder>/training_free/<clip>/<frame>.png   the training-free ratio       with save_result, of instants
<folder>/<clip>.mp4              input | spikes | restored | sharp        with save_video
<folder>/<clip>_restored.mp4     the restored frames, with the sound      with save_video
<folder>/panels/<clip>_<frame>.png   input | spikes | restored | sharp of the middle frame
<folder>/run.json                the frames, and the weights, options and input files they are restored from
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from utils.evaluation.frame_result import FrameResult
from utils.evaluation.origin import weights_digest
from utils.picture_checks import check_picture
from utils.user_error import UserError
from utils.utils_file import atomic_write, check_relative, read_bytes, read_json
from utils.utils_image import imwrite_rgb, panel
from utils.utils_option import Options, option_changes, options_to_dict
from utils.utils_video import VideoWriter

RUN = "run.json"  # name of the file with weights, options and inputs of the frames
logger = logging.getLogger(__name__)
WITHOUT_EFFECT = ("save_img", "tile_batch", "max_memory", "cuda_graphs")
"""Keys of `val` that don't change restored frames, so they may differ when a run is resumed."""


class TestSet(Protocol):
    """A test data set (`data/dataset_video_test.py`)."""

    @property
    def clips(self) -> Sequence[Any]:
        """The clips, with `name`, `frames` and `target` as in `models.testing.evaluate.ClipSet`."""

    def content(self, index: int) -> Iterator[bytes]:
        """All bytes of the files of clip `index`."""


class ResultWriter:
    """Writes restored frames one by one.

    Args:
        folder: folder of the results.
        save_result: write every frame.
        save_video: write two videos of each clip: the restored frames; and input, spikes, restored, sharp.
        fps: frames per second of the videos.
        sound: a video whose sound is copied to the restored one; None: no sound.
        resume: keep the frames written by an interrupted run.
        training_free: computes further restorations of a frame, by method; with `save_result`, "sdm" is written too.
            None: no such restorations.
    """

    def __init__(
        self,
        folder: Path,
        *,
        save_result: bool,
        save_video: bool = False,
        fps: float = 25.0,
        sound: Path | None = None,
        resume: bool = False,
        training_free: Callable[[FrameResult], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        if resume and not save_result:
            raise UserError("--resume continues from the frames that --save_result writes; give both")
        self.folder, self.save_result, self.save_video, self.fps = folder, save_result, save_video, fps
        self.sound, self.resume, self.training_free = sound, resume, training_free
        self._videos: dict[Path, VideoWriter] = {}

    def places(self) -> list[str]:
        """Lines that name the files written."""
        lines = [f"pictures (input | spikes | restored | sharp): {self.folder / 'panels'}"]
        if self.save_result:
            lines.append(f"restored frames: {self.folder}/<clip>/<frame>.png")
        if self.save_video:
            lines.append(
                f"videos: {self.folder}/<clip>_restored.mp4; input | spikes | restored | sharp: "
                f"{self.folder}/<clip>.mp4"
            )
        return lines

    def finished(self, clip: str, frame: str) -> Path | None:
        """The file of a frame restored by an interrupted run; None if there is none. A damaged one is removed."""
        path = frame_path(self.folder, clip, frame)
        if not self.resume or not path.is_file():
            return None
        try:
            check_picture(read_bytes(path), str(path), most_bits=16)
        except UserError as error:
            logger.warning("%s; it is restored again", error)
            path.unlink()
            return None
        return path

    def add(self, result: FrameResult) -> None:
        """Writes a frame; a clip's frames must be added in order.

        Raises:
            OSError: the disk is full or can't be written; earlier frames remain.
        """
        if self.save_result and self.finished(result.clip, result.frame) is None:
            deep = result.restored_deep  # as many bits as the input
            imwrite_rgb(frame_path(self.folder, result.clip, result.frame), result.restored if deep is None else deep)
        if self.save_result and self.training_free is not None:
            place = frame_path(self.folder / "training_free", result.clip, result.frame)
            imwrite_rgb(place, self.training_free(result)["sdm"])
        views = panel(result.views()) if result.is_middle or self.save_video else None
        if views is not None and result.is_middle:
            name = f"{result.clip}_{result.frame}".replace("/", "_")
            imwrite_rgb(self.folder / "panels" / f"{name}.png", views)
        if views is not None and self.save_video:
            clip = self.folder / check_relative(result.clip, self.folder)
            restored = clip.with_name(f"{clip.name}_restored.mp4")
            self._close_all_but(clip.with_name(f"{clip.name}.mp4"), restored)
            self._video(clip.with_name(f"{clip.name}.mp4"), None).write(views)
            self._video(restored, self.sound).write(result.restored)

    def _close_all_but(self, *paths: Path) -> None:
        """Closes the videos of the previous clip, which are complete."""
        for path in [path for path in self._videos if path not in paths]:
            self._videos.pop(path).close()

    def _video(self, path: Path, sound: Path | None) -> VideoWriter:
        if path not in self._videos:
            self._videos[path] = VideoWriter(path, self.fps, sound)
        return self._videos[path]

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # ends all videos, even if ending one raises an error
            for video in self._videos.values():
                stack.callback(video.__exit__, kind, error, trace)


def check_same_run(
    folder: Path, opt: Options, network: nn.Module, test_set: TestSet, amp_dtype: torch.dtype | None, resume: bool
) -> None:
    """Ensures that all frames in `folder` are of one run: with the same weights, options and input files.

    With `resume`, compares this run with the folder's run.json; otherwise removes the frames of the earlier run. Then
    writes this run's run.json.

    Raises:
        UserError: `resume` would mix frames of two runs.
    """
    path, now = folder / RUN, _run(opt, network, test_set, amp_dtype)
    own = _names(test_set)
    if resume:
        _check_resumed(path, now, own)
    else:
        before = _names_before(path)
        # Remove run.json first: frames without it are never resumed, so a crash in between mixes no runs.
        path.unlink(missing_ok=True)
        for clip, frames in [*before.items(), *own.items()]:
            for frame in frames:
                frame_path(folder, clip, frame).unlink(missing_ok=True)
    with atomic_write(path) as file:
        json.dump({"made_with": now, "frames": own}, file, indent=1)


def frame_path(folder: Path, clip: str, frame: str) -> Path:
    """The file of a restored frame.

    Raises:
        UserError: names that lead out of the folder.
    """
    return folder / check_relative(clip, folder) / f"{check_relative(frame, folder)}.png"


def _check_resumed(path: Path, now: Mapping[str, Any], own: Mapping[str, list[str]]) -> None:
    """Raises UserError if the frames beside `path` are of a run with other weights, options or inputs than `now`."""
    remedy = "leave --resume out to restore all of them, or choose another --output"
    if not path.is_file():
        if any(frame_path(path.parent, clip, frame).exists() for clip, frames in own.items() for frame in frames):
            raise UserError(
                f"--resume: the origin of the frames in {path.parent} is unknown ({RUN} is missing); {remedy}"
            )
        return
    try:
        before = read_json(path)["made_with"]
        changes = option_changes(before, now)
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--resume: {path} is damaged, or of another version; {remedy}") from error
    if changes:
        shown = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
        raise UserError(f"--resume: the frames in {path.parent} are of another run ({shown}); {remedy}")


def _names(test_set: TestSet) -> dict[str, list[str]]:
    """Names of the restored frames, by clip."""
    names: dict[str, list[str]] = {}
    for clip in test_set.clips:
        names.setdefault(clip.name, []).extend(clip.frames if clip.target is None else [clip.target])
    return names


def _names_before(path: Path) -> dict[str, list[str]]:
    """Names of the frames restored by an earlier run, by clip; {} if its run.json can't be read."""
    try:
        names = {clip: list(frames) for clip, frames in read_json(path)["frames"].items()}
        for clip, frames in names.items():
            for frame in frames:
                frame_path(path.parent, clip, frame)
    except (UserError, KeyError, TypeError, AttributeError):
        return {}
    return names


def _run(opt: Options, network: nn.Module, test_set: TestSet, amp_dtype: torch.dtype | None) -> dict[str, Any]:
    """Weights, options and input files on which restored frames depend."""
    tree: Mapping[str, Any] = options_to_dict(opt)
    # With tile "auto", tiles depend on max_memory.
    kept_in_val = ("max_memory",) if tree["val"].get("tile") == "auto" else ()
    val = {key: value for key, value in tree["val"].items() if key not in WITHOUT_EFFECT or key in kept_in_val}
    kept = {key: tree[key] for key in ("task", "scale", "netG")}
    inputs: dict[str, Any] = {}
    for index, clip in enumerate(test_set.clips):
        content = inputs.setdefault(clip.name, hashlib.sha256())
        for block in test_set.content(index):
            content.update(block)
    return {
        **kept,
        "test": tree["datasets"]["test"],
        "val": val,
        "amp_dtype": str(amp_dtype),
        "weights": weights_digest(network),
        "inputs": {name: content.hexdigest() for name, content in inputs.items()},
    }
