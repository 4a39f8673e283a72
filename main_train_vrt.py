"""Trains a network for video restoration from an option file.

    python main_train_vrt.py --opt options/demo/quickstart.json
    torchrun --nproc_per_node=8 main_train_vrt.py --opt options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json
    python main_train_vrt.py --opt FILE --set train.total_iter=100 --dry-run

Running the same command again resumes from the newest complete checkpoint, on any number of ranks that divides the
batch. On SIGTERM, SIGINT or SIGUSR1 the run saves a checkpoint and ends. One rank per GPU (NCCL); on a CPU the ranks
communicate by gloo. See docs/training.md.
"""

import argparse
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from utils.options.flags import answer_first, trainer_parser

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(trainer_parser(__doc__ or ""))

import torch

from data.loader import Batches
from data.missing_files import check_files, fetch_weights, missing_data
from data.sampler import SampleIndex, training_batches
from data.select_dataset import define_Dataset
from models.model_base import TrainingStopped, check_parts
from models.training.dry_run import dry_run, dry_run_without_data
from models.training.run import Run, resumed
from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder, NotSaved
from utils.utils_cli import run_command
from utils.utils_dist import Dist, any_rank, attempt, close_dist, init_dist, on_main, raise_on_any
from utils.utils_lock import FolderLock
from utils.utils_logger import Writer, check_logger, log_train, setup_logger
from utils.utils_memory import keep_freed_memory
from utils.utils_option import Options, load_options, options_to_dict, write_options
from utils.utils_progress import progress
from utils.utils_signal import StopRequest, clear_preempted
from utils.utils_timer import StepProfiler

logger = logging.getLogger("svrt")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done or stopped on request, 1 failed, 2 mistake in options or
    data."""
    arguments = trainer_parser(__doc__ or "").parse_args(argv)
    try:
        code = run_command(lambda: run(arguments), go_on="the same command resumes from the newest checkpoint")
    except (TrainingStopped, NotSaved) as error:
        logger.error("Training stopped: %s", error)
        traceback.clear_frames(error.__traceback__)  # ends the loader's workers
        return 1
    if code == 0:
        # Not after an error: leaving the group may wait for ever for ranks that are still at work.
        close_dist()
    return code


def run(arguments: argparse.Namespace) -> None:
    """Checks options and data before anything is built or written, then trains."""
    dist = init_dist()
    keep_freed_memory()
    if not arguments.dry_run:
        setup_logger(None, dist.rank)
    opt = load_options(arguments.opt, arguments.set)
    if opt.datasets.train is None:
        raise UserError("datasets.train: missing; training needs a training set")
    if arguments.dry_run and any(missing_data(opt)):
        dry_run_without_data(opt, dist)  # `check_files` lists the missing files next
    check_logger(opt.logger)
    if arguments.download:
        on_main(lambda: fetch_weights(opt, arguments.download), dist)
    check_files(opt, weights=not CheckpointFolder(opt.experiment_dir).any())  # a resumed run's checkpoint has weights
    shared = {"seed": opt.train.manual_seed, "scale": opt.scale, "n_channels": opt.n_channels}
    train_set = define_Dataset(opt.datasets.train, **shared)
    test_set = None if opt.datasets.test is None else define_Dataset(opt.datasets.test, **shared)
    if arguments.dry_run:
        dry_run(opt, dist, train_set, test_set, SampleIndex(epoch=0, index=0))
        return
    with StopRequest() as stop:
        train(opt, dist, train_set, test_set, stop, profiled_steps=arguments.profile)


def train(opt: Options, dist: Dist, train_set: Any, test_set: Any, stop: StopRequest, profiled_steps: int) -> None:
    """Trains from the newest checkpoint, or from the start, up to `train.total_iter` steps or a request to stop."""
    # Restore the newest checkpoint. One run per folder: two would remove each other's files and mix their checkpoints.
    assert opt.datasets.train is not None
    folder, batch_size = opt.experiment_dir, opt.datasets.train.dataloader_batch_size
    lock = FolderLock(folder)
    on_main(lambda: lock.acquire() if folder.exists() else None, dist)
    checkpoints = CheckpointFolder(folder, keep=opt.train.checkpoint_keep)
    torch.manual_seed(opt.train.manual_seed)
    model, step, samples = resumed(opt, dist, checkpoints)

    # Open the stream of global batches. It depends on the samples seen, not on the number of ranks and workers.
    batches = stream(opt, train_set, dist, consumed=samples)
    if step >= opt.train.total_iter:
        logger.info(
            "Finished already: all %d steps are taken. To go on raise train.total_iter; to test: ./svrt test --opt %s",
            opt.train.total_iter, shlex.quote(str(folder / "options" / "resolved.json")),
        )  # fmt: skip

    # All checks have passed: create the experiment's folder, log and curves.
    on_main(lock.acquire, dist)
    writer = Writer(folder, opt.logger, dist.rank, config=options_to_dict(opt), resumed_step=step)
    setup_logger(folder, dist.rank)
    if dist.is_main:
        write_options(opt, folder / "options" / "resolved.json")
        clear_preempted(folder)
    model.bad_steps_file = folder / "bad_steps.jsonl"
    profiler = StepProfiler(profiled_steps, folder / "profile", dist.rank, dist.device)
    run = Run(opt, dist, model, test_set, checkpoints, writer, stop, len(train_set), step, samples)
    logger.info("%d samples, %d per step, %d ranks on %s", len(train_set), batch_size, dist.world_size, dist.device)

    # Finish what the last run's end left undone after its last checkpoint.
    if step:
        run.finish_last()

    failure: Exception | None = None
    bars = progress(opt.train.total_iter, "training", "step", done=step, enabled=dist.is_main)
    with bars as bar, closing(batches):
        while run.step < opt.train.total_iter:
            # Take one optimizer step, unless a rank was told to stop or failed to read its batch.
            with model.timer.step():
                with model.timer.section("data"):
                    batch, failure = attempt(lambda: next(batches))
                if any_rank(stop.requested or failure is not None, dist):
                    break
                assert batch is not None
                run.step, run.samples = run.step + 1, run.samples + batch_size
                model.optimize_parameters(run.step, batch)
            profiler.step()
            bar.update()

            # Log, save and test, each at its interval and at the end. Save first: a crash during a test loses no step.
            if run.step % opt.train.checkpoint_print == 0 or run.last:
                rate, total = model.current_learning_rate(), opt.train.total_iter
                log_train(writer, model.timer, run.epoch, run.step, total, batch_size, rate, model.measured())
            if run.step % opt.train.checkpoint_save == 0 or run.test_due or run.last:
                run.save()
            if run.test_due:
                run.validate()

    # Save the steps that no checkpoint holds yet, then report the failure or the signal.
    if run.step > run.saved:
        run.save()
    raise_on_any(failure, dist)
    run.tell_stop()
    profiler.close()
    writer.close()
    lock.release()


def stream(opt: Options, train_set: Any, dist: Dist, consumed: int) -> Batches:
    """This rank's share of one global batch after another.

    Args:
        consumed: samples that the run has used so far, over all ranks.
    """
    assert opt.datasets.train is not None
    check_parts(opt.datasets.train.dataloader_batch_size // dist.world_size, opt.train.accumulate_grad)
    return training_batches(
        train_set,
        opt.datasets.train,
        rank=dist.rank,
        world_size=dist.world_size,
        seed=opt.train.manual_seed,
        consumed=consumed,
        pin_memory=dist.device.type == "cuda",
    )


if __name__ == "__main__":
    sys.exit(main())
