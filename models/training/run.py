"""State of a training run, its checkpoints and its tests; the loop is in `main_train_vrt.py`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.model_base import ModelBase
from models.select_model import define_Model
from models.testing.evaluate import Testing, evaluate_on_ranks
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_dist import Dist, all_gather_object, check_same_weights, on_main
from utils.utils_logger import Writer, log_validation
from utils.utils_option import Options, option_changes, options_to_dict
from utils.utils_signal import StopRequest, mark_preempted

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

    def finish_last(self) -> None:
        """Completes what the last run did not finish after its newest checkpoint: the files, and the test if due."""
        on_main(lambda: self.checkpoints.finish(self.step), self.dist)
        if self.test_due and on_main(lambda: self.checkpoints.awaits_score(self.step), self.dist):
            self.validate()

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

    def tell_stop(self) -> None:
        """Logs and records the signal by which a rank was told to stop, if there was one."""
        signals = [name for name in all_gather_object(self.stop.signal_name, self.dist) if name]
        if signals:
            logger.warning("Told to stop by %s: the same command goes on after step %d", signals[0], self.step)
            on_main(lambda: mark_preempted(self.opt.experiment_dir, self.step, signals[0]), self.dist)


def resumed(opt: Options, dist: Dist, checkpoints: CheckpointFolder) -> tuple[ModelBase, int, int]:
    """The model with the newest checkpoint, or with the pretrained weights where there is none; its steps and samples.

    Rank 0 reads the checkpoint for all ranks, so that all restore the same.
    """
    assert opt.datasets.train is not None
    step, state = on_main(checkpoints.load_newest, dist) or (0, {})
    model = define_Model(opt, dist, pretrained=step == 0)
    if step:
        model.load_state_dict(state, opt.experiment_dir)
        logger.info("Resumed from step %d of %s", step, opt.experiment_dir)
        log_changes(state.get("options"), opt)
    return model, step, state.get("samples", step * opt.datasets.train.dataloader_batch_size)


def log_changes(before: Mapping[str, Any] | None, opt: Options) -> None:
    """Logs the options that differ from the checkpoint's; KAIR's checkpoints hold no options."""
    if before is None:
        logger.warning(
            "KAIR's files hold neither options nor a count of samples: the run goes on with this file's options, and "
            "the count is the step times this file's batch size."
        )
    for change in option_changes(before, options_to_dict(opt)) if before is not None else []:
        logger.warning("Changed since then: %s", change)
