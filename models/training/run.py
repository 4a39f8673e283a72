"""State of a training run, its checkpoints and its tests; the loop is in `main_train_vrt.py`."""

import logging
from dataclasses import dataclass, field
from typing import Any

from models.model_base import ModelBase
from models.testing.evaluate import Testing, evaluate_on_ranks
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_dist import Dist, check_same_weights, on_main
from utils.utils_logger import Writer, log_validation
from utils.utils_option import Options, options_to_dict
from utils.utils_signal import StopRequest

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """State of the training loop, and what it saves and tests with.

    Attributes:
        step: optimizer steps taken. samples: samples consumed by them, over all ranks; the next batch follows from it.
        saved: last step with a checkpoint.
        epoch_length: number of samples of the training set.
    """

    opt: Options
    dist: Dist
    model: ModelBase
    test_set: Any
    checkpoints: CheckpointFolder
    writer: Writer
    stop: StopRequest
    epoch_length: int
    step: int
    samples: int
    saved: int = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.step

    @property
    def epoch(self) -> int:
        """Epoch of the last sample consumed."""
        return (self.samples - 1) // self.epoch_length

    @property
    def last(self) -> bool:
        """Whether this was the last step."""
        return self.step == self.opt.train.total_iter

    @property
    def test_due(self) -> bool:
        """Whether the network is to be tested after this step."""
        interval = self.opt.train.checkpoint_test
        if interval is None or self.test_set is None or self.step == 0:
            return False
        return self.step % interval == 0 or self.last

    def save(self) -> None:
        """Checks that all ranks have the same weights, and writes a checkpoint on rank 0."""
        check_same_weights(self.model.netG, self.dist)
        state = {**self.model.state_dict(), "samples": self.samples, "options": options_to_dict(self.opt)}
        on_main(lambda: self.checkpoints.save(self.step, state), self.dist)
        self.saved = self.step
        logger.info("Saved step %d", self.step)

    def validate(self) -> None:
        """Restores and scores the test set, whose clips are divided among the ranks; ends early if the run is told to
        stop."""
        testing = Testing.from_options(self.opt.val, self.opt.scale, self.model.amp_dtype, self.opt.netG)
        show = self.writer.panels(self.step, self.opt.experiment_dir / "images" if self.opt.val.save_img else None)
        network, device = self.model.tested_network, self.dist.device
        how: dict[str, Any] = {"on_frame": show, "source": f"the network of step {self.step}"}
        scores = evaluate_on_ranks(network, self.test_set, testing, device, self.dist, self.stop.interruptible, **how)
        if scores is None:
            return
        log_validation(self.writer, self.epoch, self.step, scores)
        psnr = scores.mean_over_clips().get("psnr", float("nan"))
        on_main(lambda: self.checkpoints.record_score(self.step, psnr), self.dist)
