"""A run of the test command: a network, its test set and the folder of results; the steps are in `main_test_vrt.py`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.testing.adapt import Adaptation, adapt
from models.testing.evaluate import Testing, evaluate_on_ranks
from utils.evaluation.frame_result import FrameResult
from utils.evaluation.origin import describe, start_results
from utils.evaluation.report import Report, training_free
from utils.evaluation.results import ResultWriter, check_same_run
from utils.evaluation.scorer import Scorer
from utils.evaluation.scores import Scores
from utils.options.tester_flags import input_root
from utils.utils_checkpoint import write_plain
from utils.utils_dist import Dist, on_main
from utils.utils_option import Options
from utils.utils_progress import progress

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """What is tested, on what, and where the results go.

    Attributes:
        network: with the weights of `checkpoint`, on `device`.
        clips: the test set.
        num_workers: threads that read frames ahead.
        adaptation: of the network to the clips; None: not adapted.
    """

    opt: Options
    dist: Dist
    device: torch.device
    testing: Testing
    network: nn.Module
    checkpoint: Path
    clips: Any
    folder: Path
    num_workers: int
    adaptation: Adaptation | None = None

    def adapt(self, seconds: float) -> None:
        """Fine-tunes a copy of the network on the clips; tests it instead if it agrees more with the measurements."""
        self.adaptation = adapt(self.network, self.clips, seconds, self.device, self.opt.train.manual_seed)
        self.network = self.adaptation.network

    def start(self, command: str, *, resume: bool, save_result: bool) -> list[str]:
        """Starts the folder of results: moves those of another origin aside, and removes an earlier run's frames.

        Args:
            command: the command line, which is recorded.
            resume: keep the frames of an interrupted run, which must be of the same weights, options and inputs.
            save_result: whether restored frames are written.

        Returns:
            Lines on the origin of the results and on what is assumed about the data.

        Raises:
            UserError: `resume` would mix frames of two runs.
        """
        assert self.opt.datasets.test is not None
        identity = {"task": self.opt.task, "data": input_root(self.opt.datasets.test), "tile": self.opt.val.tile_size}
        origin = describe(self.checkpoint, self.network, command, **identity)
        if not resume:
            on_main(lambda: start_results(self.folder, origin), self.dist)
        if save_result:
            same = (self.folder, self.opt, self.network, self.clips, self.testing.amp_dtype, resume)
            on_main(lambda: check_same_run(*same), self.dist)
        if self.adaptation is not None:
            write_plain(self.folder / "adapted.pth", {"params": self.network.state_dict()})
            origin["adaptation"] = str(self.adaptation)
        frames = sum(len(clip.frames) for clip in self.clips.clips)
        origin["data"] += f": {len(self.clips.clips)} clips, {frames} frames"
        assumptions = self.clips.assumptions() if hasattr(self.clips, "assumptions") else []
        return [f"{name}: {value}" for name, value in origin.items()] + assumptions

    def restore(self, writer: ResultWriter, report: Report, scorer: Scorer) -> Scores:
        """Restores and scores all frames; hands them to the writer and to the report as they come."""

        def on_frame(result: FrameResult) -> None:
            writer.add(result)
            report.show(result)
            bar.update()
            if result.index == result.length - 1:
                logger.info("restored %s: %d frames", result.clip, result.length)

        own = self.clips.clips[self.dist.rank :: self.dist.world_size]
        # One frame of a clip that names its target, or where `val.center_frame_only` asks for it.
        single = self.testing.center_frame_only
        total = sum(1 if single or clip.target else len(clip.frames) for clip in own)
        with writer, progress(total, "restoring", "frame", enabled=self.dist.is_main) as bar:
            how = {"on_frame": on_frame, "finished": writer.finished, "scorer": scorer, "baselines": report.baselines}
            return self.scores(self.clips, **how)

    def scores(self, clips: Any, **how: Any) -> Scores:
        """Scores of a test set: of the network, the blurred input and the training-free restorations, from all ranks.

        Args:
            how: further arguments of `evaluate`.
        """
        how = {"baselines": training_free(clips), "num_workers": self.num_workers, **how}
        how |= {"input_scores": True, "source": str(self.checkpoint)}
        scores = evaluate_on_ranks(self.network, clips, self.testing, self.device, self.dist, **how)
        assert scores is not None  # nothing interrupts a test
        return scores
