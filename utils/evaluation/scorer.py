"""Scores restored frames in background threads, while the network restores the next ones.

    with Scorer(lpips) as scorer:
        for ...:
            scorer.add(clip, frame, sharp, {"": restored, "input": blurred})
    scorer.scores.table()

Threads suffice, as OpenCV, numpy and torch release Python's lock. The number of unfinished frames is limited, so memory
does not grow with a clip. `scripts/benchmark/bench_metrics.py` measures the time of scoring beside the restoration.
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
from utils.evaluation.scores import Scores, key_of
from utils.evaluation.video_metric import CVVDP
from utils.utils_image import as_rgb

Pictures = Mapping[str, np.ndarray]
logger = logging.getLogger(__name__)
OnScored = Callable[[str, str, np.ndarray, Pictures, Mapping[str, float]], None]


def score_frame(restored: np.ndarray, sharp: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM, in RGB and in Y, of two uint8 RGB pictures (H,W,3) or two gray ones (H,W).

    A gray picture against a sharp one in RGB has only the scores in Y. SSIM is left out if a side is smaller than its
    filter of 11 pixels.
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
    """Scores frames that are added one by one, clip after clip.

    Args:
        lpips: also measure LPIPS, of pictures of at least 64 x 64 pixels. None: without LPIPS.
        temporal: also measure tOF, of all frames but a clip's first.
        workers: number of threads; 0: score in the caller's thread. None: one per processor, at most 8.
        video: measures ColorVideoVDP of each clip, whose pictures are kept in memory until its end; the number is in
            the row of its last frame. None: not measured.
        on_scored: called in the caller's thread with clip, frame, sharp, pictures and scores, in order of frames.

    Attributes:
        scores: scores of the frames finished so far; of all frames after `close`.
    """

    def __init__(
        self,
        lpips: LPIPS | None = None,
        *,
        temporal: bool = True,
        workers: int | None = None,
        video: CVVDP | None = None,
        on_scored: OnScored | None = None,
    ) -> None:
        self.scores = Scores()
        self._video = video
        self._clip: list[tuple[np.ndarray, Pictures]] = []
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
        """Adds a frame; waits if too many are unfinished.

        Args:
            sharp: uint8 (H,W,3) RGB.
            pictures: method ("": the network, "input", ...) -> uint8 (H,W,3), or (H,W) if only Y can be scored.
            more: computes further pictures; called in a background thread.
            time: instant as share of the exposure; None if frames are restored at its centre only.

        Raises:
            Exception: an exception of scoring an earlier frame.
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
            self._score_clip()
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
        """Warns once about each score that is left out of small pictures."""
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
        if self._video is not None:
            if self.scores.rows and self.scores.rows[-1]["clip"] != clip:
                self._score_clip()
            self._clip.append((sharp, pictures.result()))
        self.scores.add(clip, frame, row, time)
        if self._on_scored is not None:
            self._on_scored(clip, frame, sharp, pictures.result(), row)

    def _score_clip(self) -> None:
        """Measures the clip just ended and adds the numbers to the row of its last frame."""
        if self._video is None or not self._clip:
            return
        sharp = np.stack([picture for picture, _ in self._clip])  # (T,H,W,3)
        for method, first in self._clip[0][1].items():
            if first.shape == sharp.shape[1:]:
                restored = np.stack([pictures[method] for _, pictures in self._clip])
                self.scores.rows[-1][key_of(method, "cvvdp")] = self._video.of_clip(restored, sharp)
        self._clip = []

    def _score(
        self, sharp: np.ndarray, pictures: Pictures, before: "tuple[str, np.ndarray, Future[Pictures]] | None"
    ) -> dict[str, float]:
        """Scores of a frame. Frames are started in order, so waiting for the previous one can't deadlock."""
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
