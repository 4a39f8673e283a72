"""Restores clips by tiles and scores them: the same code for validation while training and for `main_test_vrt.py`."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.testing.restore import Restorer, Testing
from utils.evaluation.frame_result import FrameResult
from utils.evaluation.scorer import Pictures, Scorer
from utils.evaluation.scores import Scores
from utils.user_error import UserError
from utils.utils_dist import Dist, all_gather_object, any_rank, attempt, raise_on_any
from utils.utils_file import read_bytes
from utils.utils_image import as_rgb, decode_rgb, tensor2uint, to_8_bits

Finished = Callable[[str, str], Path | None]
"""By a clip's and a frame's name."""


class ClipSet(Protocol):
    """A test data set (`data/dataset_video_test.py`): clips with names and frame names, read in part."""

    @property
    def clips(self) -> Sequence[Any]:
        """Per clip `name`, `frames` (the frames' names), and `target`: the name of the one frame that is to be made,
        the middle one of what the network makes (the first of two), shown beside the input frame number `middle`; None
        where every frame is to be restored. A set that restores several instants of each exposure also has `times`
        (`FrameResult.times`). Where `packs_spikes` is "window", `L` are the spike frames of each picture."""

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        """Frames [begin, end) of a clip: `L` (T,C,H,W), and where there are any `H`, `L_spike` and `blurred`."""


class ClipReader:
    """Reads a clip's frames once each, ahead of their use where there are threads; drops those no longer needed.

    Args:
        test_set, index: the clip.
        pool: threads that read ahead; None reads when asked.
    """

    def __init__(self, test_set: ClipSet, index: int, pool: ThreadPoolExecutor | None = None) -> None:
        self.test_set, self.index, self.pool = test_set, index, pool
        self.length = len(test_set.clips[index].frames)
        self._frames: dict[int, Future[dict[str, Any]] | dict[str, Any]] = {}

    def frame(self, number: int) -> dict[str, Any]:
        """A frame as the data set gives it, without the axis of time."""
        self._request(number, number + 1, background=False)
        frame = self._frames[number]
        return frame.result() if isinstance(frame, Future) else frame

    def window(self, begin: int, end: int) -> tuple[Tensor, Tensor | None]:
        """`L` and, where there is one, `L_spike` of frames [begin, end), (1,t,...); earlier frames are dropped."""
        self.forget(begin)
        self._request(begin, end)
        frames = [self.frame(number) for number in range(begin, end)]
        self._request(end, min(2 * end - begin, self.length))
        spike = torch.stack([frame["L_spike"] for frame in frames])[None] if "L_spike" in frames[0] else None
        return torch.stack([frame["L"] for frame in frames])[None], spike

    def forget(self, before: int) -> None:
        """Drops cached frames with an index below `before`."""
        for number in [number for number in self._frames if number < before]:
            del self._frames[number]

    def _request(self, begin: int, end: int, background: bool = True) -> None:
        for number in range(begin, end):
            if number in self._frames:
                continue
            if self.pool is not None:
                self._frames[number] = self.pool.submit(self._load, number)
            elif not background:
                self._frames[number] = self._load(number)

    def _load(self, number: int) -> dict[str, Any]:
        sample = self.test_set.load(self.index, number, number + 1)
        return {key: value[0] if isinstance(value, Tensor) else value for key, value in sample.items()}


def restore_clip(
    restorer: Restorer,
    test_set: ClipSet,
    index: int,
    finished: Finished | None = None,
    pool: ThreadPoolExecutor | None = None,
    source: str = "the network",
) -> Iterator[FrameResult]:
    """Restores a clip; its frames come in order, each as soon as it is complete.

    Args:
        restorer: the network and how it is used.
        test_set, index: the clip.
        finished: gives the picture file of a frame that was restored before, or None.
        pool: threads that read frames ahead.
        source: what the network's weights are called in messages.
    """
    clip, reader = test_set.clips[index], ClipReader(test_set, index, pool)
    if clip.target is not None:
        shown, names = [clip.middle], [clip.target]
    elif restorer.testing.center_frame_only:
        shown = [reader.length // 2]
        names = [clip.frames[shown[0]]]
    else:
        shown, names = list(range(reader.length)), list(clip.frames)
    files = {number: finished and finished(clip.name, name) for number, name in zip(shown, names, strict=True)}
    missing = {number for number, file in files.items() if file is None}

    def window(begin: int, end: int) -> tuple[Tensor, Tensor | None]:
        return reader.window(begin, end)

    if clip.target is None:
        pictures = restorer.frames(window, reader.length, missing.__contains__)
    else:
        pictures = _middle(restorer.frames(window, reader.length, interpolates=True), shown[0]) if missing else iter(())
    for place, (number, name) in enumerate(zip(shown, names, strict=True)):
        file = files[number]
        if file is None:
            restored_number, picture = next(pictures)
            assert restored_number == number
            try:
                restored = tensor2uint(picture, reader.frame(number).get("bits", 8))
            except UserError as error:
                raise UserError(f"{clip.name}/{name}, restored by {source}: {error}") from error
        else:
            restored = decode_rgb(read_bytes(file), str(file), most_bits=16)
        yield _result(clip.name, name, (place, len(names)), reader.frame(number), restored, test_set)


def _middle(restored: Iterator[tuple[int, Tensor]], number: int) -> Iterator[tuple[int, Tensor]]:
    """The middle one of the frames that a network makes of a clip (the first of two), under another number."""
    frames = [picture for _, picture in restored]
    yield number, frames[(len(frames) - 1) // 2]


def _result(
    clip: str,
    name: str,
    place: tuple[int, int],
    frame: Mapping[str, Any],
    restored: np.ndarray,
    test_set: ClipSet,
) -> FrameResult:
    """A restored frame with what it was made of, as pictures."""
    window = getattr(test_set, "packs_spikes", None) == "window"  # `L` are spike frames, not a picture
    if window:
        # Light of frames outside the stream is negative.
        blurred, planes = frame.get("blurred"), frame["L"].clamp(min=0)
    else:
        blurred, planes = frame["L"][:3], frame.get("L_spike", frame["L"][3:])
    return FrameResult(
        clip=clip,
        frame=name,
        index=place[0],
        length=place[1],
        blurred=None if blurred is None else tensor2uint(blurred),
        restored=as_rgb(to_8_bits(restored)),
        restored_deep=restored if restored.dtype == np.uint16 else None,
        sharp=as_rgb(tensor2uint(frame["H"])) if "H" in frame else None,
        spikes=tensor2uint(_visible(planes).unsqueeze(0)) if len(planes) else None,
        times=tuple(getattr(test_set, "times", ())),
    )


def evaluate(
    network: nn.Module,
    test_set: ClipSet,
    testing: Testing,
    device: torch.device,
    on_frame: Callable[[FrameResult], None] | None = None,
    input_scores: bool = False,
    indices: Iterable[int] | None = None,
    finished: Finished | None = None,
    num_workers: int = 0,
    scorer: Scorer | None = None,
    baselines: Callable[[FrameResult], Pictures] | None = None,
    source: str = "the network",
) -> Scores:
    """Restores clips, scores their frames where there is ground truth, and hands each frame to `on_frame`, in order.

    No more than the frames of two tiles are held, however long a clip is.

    Args:
        network: as in `Restorer`; evaluated in `eval()` mode and left as it was.
        test_set: where the clips are read from.
        input_scores: also score the blurred input (where it has the size of the ground truth).
        indices: of the clips; None takes all.
        finished: as in `restore_clip`.
        num_workers: threads that read frames ahead; 0 reads when a tile needs them.
        scorer: measures in the background, and is closed; None: one for PSNR and SSIM.
        baselines: further restorations of a frame to score, by method; called in the background.
        source: what the network's weights are called in messages.
    """
    scorer = scorer or Scorer(temporal=False)
    training = network.training
    network.eval()
    try:
        with scorer, ThreadPoolExecutor(num_workers) if num_workers else nullcontext() as pool:
            restorer = Restorer(network, testing, device)
            for index in range(len(test_set.clips)) if indices is None else indices:
                for result in restore_clip(restorer, test_set, index, finished, pool, source):
                    _score(result, scorer, input_scores, baselines)
                    if on_frame is not None:
                        on_frame(result)
    finally:
        network.train(training)
    return scorer.scores


def evaluate_on_ranks(
    network: nn.Module,
    test_set: ClipSet,
    testing: Testing,
    device: torch.device,
    dist: Dist,
    interruptible: Callable[[Callable[[], Scores]], Scores | None] = lambda work: work(),
    **how: Any,
) -> Scores | None:
    """`evaluate` with the clips divided among the ranks.

    Args:
        interruptible: runs a rank's share; returns None where it was told to stop.
        how: further arguments of `evaluate`.

    Returns:
        On every rank the scores of all ranks; None where one of them was told to stop.

    Raises:
        SystemExit: another rank failed.
    """
    names = [clip.name for clip in test_set.clips]
    how["indices"] = range(dist.rank, len(names), dist.world_size)
    own, failure = attempt(lambda: interruptible(lambda: evaluate(network, test_set, testing, device, **how)))
    raise_on_any(failure, dist)
    if any_rank(own is None, dist):
        return None
    assert own is not None
    return merge_scores(own, names, dist)


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
    blurred = result.blurred
    comparable = blurred is None or blurred.shape == result.sharp.shape
    if input_scores and comparable and blurred is not None:
        pictures["input"] = blurred
    more = functools.partial(baselines, result) if baselines is not None and comparable else None
    scorer.add(result.clip, result.frame, result.sharp, pictures, more, result.time)


def _visible(planes: Tensor) -> Tensor:
    """Spike channels (S,h,w) as one picture in [0,1]: their mean, stretched to its 1st and 99th percentile."""
    mean = planes.float().mean(0)
    low, high = torch.quantile(mean.flatten()[:: max(1, mean.numel() // 100_000)], torch.tensor([0.01, 0.99])).tolist()
    return ((mean - low) / max(high - low, 1e-6)).clamp(0, 1)
