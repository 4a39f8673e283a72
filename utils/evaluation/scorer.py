"""Scores restored frames in the background, while the network restores the next ones.

    with Scorer(lpips) as scorer:
        for ...:
            scorer.add(clip, frame, sharp, {"": restored, "input": blurred})
    scorer.scores.table()

Threads suffice: OpenCV, numpy and torch compute without Python's lock. At most a few frames wait at a time, so memory
does not grow with a clip. `scripts/benchmark/bench_metrics.py` measures what scoring costs beside the restoration.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np

from utils.evaluation.lpips import LPIPS, MINIMUM
from utils.evaluation.metrics import WINDOW, optical_flow, psnr, psnr_y, ssim, ssim_y, tof
from utils.evaluation.scores import Scores
from utils.utils_image import as_rgb

Pictures = Mapping[str, np.ndarray]
logger = logging.getLogger(__name__)
OnScored = Callable[[str, str, np.ndarray, Pictures, Mapping[str, float]], None]


def score_frame(restored: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM, in RGB and in Y, of two uint8 RGB pictures (H,W,3) or two gray ones (H,W).

    Of a gray picture against a sharp one in RGB only those in Y. SSIM is left out where a side is smaller than its
    window of 11 pixels.
    """
    compared = as_rgb(restored) if sharp.ndim == 3 else restored
    measured = {psnr: "psnr", ssim: "ssim", psnr_y: "psnr_y", ssim_y: "ssim_y"}
    gray, small = restored.ndim < sharp.ndim, min(sharp.shape[:2]) < WINDOW
    return {
        name: metric(compared, sharp)
        for metric, name in measured.items()
        if not (gray and metric in (psnr, ssim)) and not (small and metric in (ssim, ssim_y))
    }


class Scorer:
    """Collects the scores of frames handed to it one by one, clip after clip.

    Args:
        lpips: also measure LPIPS with it, of pictures of at least 64 x 64 pixels. None: not.
        temporal: also measure tOF, of all but a clip's first frame.
        workers: threads; 0 scores at once in the caller's. None: one per processor, at most 8.
        on_scored: called in the caller's thread with clip, frame, sharp, pictures and scores, frames in order.

    Attributes:
        scores: of the frames finished so far; all of them after `close`.
    """

    def __init__(
        self,
        lpips: LPIPS | None = None,
        *,
        temporal: bool = True,
        workers: int | None = None,
        on_scored: OnScored | None = None,
    ) -> None:
        self.scores = Scores()
        self._lpips, self._temporal, self._on_scored = lpips, temporal, on_scored
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        self._pool = ThreadPoolExecutor(workers, "scorer") if workers else None
        self._limit = workers + 2 if workers else 0
        self._waiting: deque[tuple[str, str, float | None, np.ndarray, Future[Pictures], Future[dict[str, float]]]]
        self._waiting = deque()
        self._before: tuple[str, np.ndarray, Future[Pictures]] | None = None
        self._warned: set[str] = set()

    def add(
        self,
        clip: str,
        frame: str,
        sharp: np.ndarray,
        pictures: Pictures,
        more: Callable[[], Pictures] | None = None,
        time: float | None = None,
    ) -> None:
        """Hands over a frame; waits where too many are unfinished.

        Args:
            sharp: uint8 (H,W,3) RGB.
            pictures: by method ("": the network, "input", ...), uint8 (H,W,3), or (H,W) where only Y can be scored.
            more: makes further pictures, called in the background.
            time: instant of the exposure, None where frames are restored at its centre alone.

        Raises:
            Exception: what scoring an earlier frame raised.
        """
        self._warn_of_small(sharp)
        all_pictures = self._run(lambda: {**pictures, **(more() if more else {})})
        before = self._before if self._before is not None and self._before[0] == clip else None
        self._before = (clip, sharp, all_pictures)
        scored = self._run(lambda: self._score(sharp, all_pictures.result(), before))
        self._waiting.append((clip, frame, time, sharp, all_pictures, scored))
        while self._waiting and (len(self._waiting) > self._limit or self._waiting[0][-1].done()):
            self._finish_first()

    def close(self) -> Scores:
        """Waits for all frames and returns their scores."""
        try:
            while self._waiting:
                self._finish_first()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
        return self.scores

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _warn_of_small(self, sharp: np.ndarray) -> None:
        """Says once which numbers small pictures lack."""
        lacking = {"SSIM": WINDOW} if self._lpips is None else {"SSIM": WINDOW, "LPIPS": MINIMUM}
        for name, side in lacking.items():
            if min(sharp.shape[:2]) < side and name not in self._warned:
                self._warned.add(name)
                logger.warning("%s is left out of pictures with a side below %d pixels", name, side)

    def _run(self, work: Callable[[], Any]) -> "Future[Any]":
        if self._pool is not None:
            return self._pool.submit(work)
        done: Future[Any] = Future()
        done.set_result(work())
        return done

    def _finish_first(self) -> None:
        clip, frame, time, sharp, pictures, scored = self._waiting.popleft()
        row = scored.result()
        self.scores.add(clip, frame, row, time)
        if self._on_scored is not None:
            self._on_scored(clip, frame, sharp, pictures.result(), row)

    def _score(
        self, sharp: np.ndarray, pictures: Pictures, before: "tuple[str, np.ndarray, Future[Pictures]] | None"
    ) -> dict[str, float]:
        """The row of a frame. Frames are begun in order, so the one before is finished or on its way."""
        row: dict[str, float] = {}
        earlier = before[2].result() if before is not None and self._temporal else {}
        sharp_flow = optical_flow(before[1], sharp) if before is not None and self._temporal else None
        for method, picture in pictures.items():
            found = score_frame(picture, sharp)
            if self._lpips is not None and picture.ndim == 3 and min(sharp.shape[:2]) >= MINIMUM:
                found["lpips"] = self._lpips.of_pictures(picture, sharp)
            if sharp_flow is not None and method in earlier:
                found["tof"] = tof(optical_flow(earlier[method], picture), sharp_flow)
            row |= {f"{method}_{name}" if method else name: value for name, value in found.items()}
        return row
