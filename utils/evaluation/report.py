"""Writes a test's scores and its report page.

report = Report(folder, title, settings, clips, compared)
scores = evaluate(..., on_frame=report.show, scorer=report.scorer(lpips), baselines=report.baselines)
report.write(scores)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from utils.evaluation.compared import ComparedResults
from utils.evaluation.frame_result import FrameResult
from utils.evaluation.lpips import LPIPS, missing_files
from utils.evaluation.report_gallery import Gallery
from utils.evaluation.report_page import write_page
from utils.evaluation.scorer import Scorer
from utils.evaluation.scores import Scores
from utils.evaluation.sweep import Sweep
from utils.evaluation.trust_meter import TrustMeter
from utils.evaluation.video_metric import CVVDP
from utils.utils_dist import Dist, all_gather_object

INSTANTS = 16  # of an exposure


@runtime_checkable
class SpikeViews(Protocol):
    """A test set with spikes (`data/dataset_video_rgbspike.py`)."""

    def training_free(self, clip: str, frame: str, blurred: Any) -> dict[str, np.ndarray]:
        """Restorations without a network, by name."""

    def instants(self, clip: str, frame: str, count: int) -> np.ndarray:
        """Moments of the exposure, (N,h,w) float32."""


def training_free(clips: Any) -> Callable[[FrameResult], Mapping[str, np.ndarray]]:
    """Training-free restorations of a frame of a test set, by method; none without spikes."""

    def restorations(result: FrameResult) -> Mapping[str, np.ndarray]:
        if not isinstance(clips, SpikeViews):
            return {}
        return clips.training_free(result.clip, result.frame, result.blurred)

    return restorations


class Report:
    """Collects what the page shows while a test runs.

    Args:
        folder: where metrics and page are written.
        title, settings: of the page.
        clips: the test set; with spikes it also gives the training-free restorations and the exposures.
        compared: results of other tests.
        trust: judges the exposures; None: not asked for.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        settings: Sequence[str],
        clips: Any,
        compared: ComparedResults,
        trust: TrustMeter | None = None,
    ) -> None:
        self.folder, self.title, self.settings = folder, title, list(settings)
        self.gallery = Gallery()
        self.trust = trust
        self._order = [clip.name for clip in clips.clips]
        self._training_free, self._compared = training_free(clips), compared
        self._spikes = clips if isinstance(clips, SpikeViews) else None

    def baselines(self, result: FrameResult) -> dict[str, np.ndarray]:
        """Other restorations of a frame, by method: training-free ones, and those of other tests."""
        return {**self._training_free(result), **self._compared.pictures(result)}

    def scorer(self, lpips: LPIPS | None, video: CVVDP | None = None) -> Scorer:
        """Measures everything, and tells the gallery."""
        return Scorer(lpips, video=video, on_scored=self.gallery.judge)

    def show(self, result: FrameResult) -> None:
        """Takes a clip's middle frame into the gallery, and the instants of its exposure; judges every exposure."""
        self._take(result)
        verdict = None if self.trust is None else self.trust.add(result)
        if verdict is not None and result.is_of_middle:
            self.gallery.add_view(result.clip, "contradiction", verdict.picture)

    def _take(self, result: FrameResult) -> None:
        """Into the gallery, where it stands for its clip."""
        if not (result.is_middle or (result.is_of_middle and result.times)):
            return
        baselines = self.baselines(result)
        if result.time is not None and result.blurred is not None:
            pictures = {name: baselines[name] for name in ("sdm",) if name in baselines} | {"": result.restored}
            self.gallery.add_instant(result.clip, result.frame, result.time, result.blurred, pictures)
        if not result.is_middle:
            return
        pictures = {} if result.blurred is None else {"input": result.blurred}
        pictures |= {**baselines, "": result.restored}
        optional = {"sharp": result.sharp, "spikes": result.spikes}
        pictures |= {name: picture for name, picture in optional.items() if picture is not None}
        instants = None if self._spikes is None else self._spikes.instants(result.clip, result.frame, INSTANTS)
        self.gallery.show(result.clip, result.frame, pictures, instants)

    def gather(self, dist: Dist) -> None:
        """Takes the pictures of all ranks, clips in the data set's order."""
        self.gallery = Gallery.merged(all_gather_object(self.gallery, dist), self._order)
        if self.trust is not None:
            self.trust.gather(dist, self._order)

    def write(self, scores: Scores, sweep: Sweep | None = None) -> str:
        """Writes metrics and page; returns the tables and where everything is."""
        said = []
        if self._compared.folders:
            scores.network = self.title
        if scores.rows:
            scores.write(self.folder)
            said += [scores.table(), scores.method_table(), scores.instants_table()]
        if self.trust is not None:
            self.trust.write()
            said.append(self.trust.table())
        if sweep is not None:
            sweep.write(self.folder)
            said.append(sweep.table())
        page = self.folder / "index.html"
        write_page(page, self.title, self.settings, scores, self.gallery, sweep, self.trust)
        places = [f"report: {page}"]
        if scores.rows:
            places.append(f"per frame: {self.folder / 'metrics.csv'}, summary: {self.folder / 'metrics.json'}")
        if self.trust is not None:
            places.append(f"trust: {self.folder / 'trust.csv'}, maps: {self.folder}/trust/<clip>/<frame>.png")
        return "\n\n".join(["", *filter(None, said), "\n".join(places)])


def find_lpips(folder: Path | None, default: Path = Path("model_zoo/lpips")) -> tuple[LPIPS | None, str]:
    """LPIPS by AlexNet and "", or None and a line that says why not.

    Args:
        folder: where its files are, as asked for; None: the default folder, and nothing is wrong where they are not.

    Raises:
        UserError: `folder` is given and lacks a file.
    """
    missing = [] if folder else missing_files(default)
    if missing:
        return None, f"LPIPS is left out: {' and '.join(map(str, missing))} are not there (docs/evaluation.md)"
    return LPIPS(folder or default), ""
