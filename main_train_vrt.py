"""Trains a network for video restoration from an option file.

    python main_train_vrt.py --opt options/demo/quickstart.json
    torchrun --nproc_per_node=8 main_train_vrt.py --opt options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json
    python main_train_vrt.py --opt FILE --set train.total_iter=100 --dry-run

Running the same command again resumes from the newest complete checkpoint. One rank per GPU; gloo on a CPU.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from data.sampler import GlobalBatchSampler, SampleIndex, init_worker
from data.select_dataset import define_Dataset
from models.dry_run import dry_run
from models.evaluate import Testing, evaluate, merge_scores
from models.model_base import ModelBase, TrainingStopped, check_parts
from models.select_model import define_Model
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_cli import run_command
from utils.utils_dist import Dist, check_same_weights, close_dist, init_dist
from utils.utils_logger import Writer, log_train, log_validation, setup_logger
from utils.utils_option import (
    Options,
    add_option_arguments,
    load_options,
    option_changes,
    options_to_dict,
    write_options,
)
from utils.utils_timer import Timer

logger = logging.getLogger("svrt")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 1 training stopped, 2 a mistake in options or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        return run_command(lambda: run(arguments))
    except TrainingStopped as error:
        logger.error("Training stopped: %s", error)
        return 1
    finally:
        close_dist()


def run(arguments: argparse.Namespace) -> None:
    """Everything that can be wrong with options and data is found here, before anything is built or written."""
    dist = init_dist()
    if not arguments.dry_run:
        setup_logger(None, dist.rank)
    opt = load_options(arguments.opt, arguments.set)
    if opt.datasets.train is None:
        raise ValueError("datasets.train: missing; training needs a training set")
    shared = {"seed": opt.train.manual_seed, "scale": opt.scale, "n_channels": opt.n_channels}
    train_set = define_Dataset(opt.datasets.train, **shared)
    test_set = None if opt.datasets.test is None else define_Dataset(opt.datasets.test, **shared)
    if arguments.dry_run:
        dry_run(opt, dist, train_set, test_set, SampleIndex(epoch=0, index=0))
    else:
        train(opt, dist, train_set, test_set)


def train(opt: Options, dist: Dist, train_set: Any, test_set: Any) -> None:
    """The whole run: from the newest checkpoint, or the start, to `train.total_iter` steps."""
    # The model: fresh, or as the newest checkpoint left it.
    assert opt.datasets.train is not None
    folder = opt.experiment_dir
    checkpoints = CheckpointFolder(folder, keep=opt.train.checkpoint_keep)
    torch.manual_seed(opt.train.manual_seed)
    step, state = checkpoints.load_newest() or (0, None)
    model = define_Model(opt, dist, pretrained=state is None)
    if state is not None:
        model.load_state_dict(state, folder)
        logger.info("Resumed from step %d of %s", step, folder)
        for change in option_changes(state.get("options", {}), options_to_dict(opt)):
            logger.warning("Changed since then: %s", change)

    # One stream of global batches, by the samples seen: the same for any number of ranks and workers.
    batch_size = opt.datasets.train.dataloader_batch_size
    batches = stream(opt, train_set, dist, consumed=step * batch_size)

    # Nothing is wrong so far: the experiment's curves, log and folder.
    writer = Writer(folder, opt.logger, dist.rank, config=options_to_dict(opt), resumed_step=step)
    setup_logger(folder, dist.rank)
    if dist.is_main:
        write_options(opt, folder / "options" / "resolved.json")
    timer = Timer(dist.device)
    logger.info("%d samples, %d per step, %d ranks on %s", len(train_set), batch_size, dist.world_size, dist.device)

    while step < opt.train.total_iter:
        # One optimizer step.
        step += 1
        with timer.step():
            with timer.section("data"):
                batch = next(batches)
            model.optimize_parameters(step, batch)

        # Log, test and save, each at its interval and at the end.
        last = step == opt.train.total_iter
        epoch = (step * batch_size - 1) // len(train_set)
        score = None
        if step % opt.train.checkpoint_print == 0 or last:
            rate = model.current_learning_rate()
            log_train(writer, timer, epoch, step, opt.train.total_iter, batch_size, rate, model.log)
        if test_set is not None and (step % opt.train.checkpoint_test == 0 or last):
            score = validate(opt, dist, model, test_set, writer, epoch, step)
        if step % opt.train.checkpoint_save == 0 or last:
            check_same_weights(model.netG, dist)
            if dist.is_main:
                checkpoints.save(step, {**model.state_dict(), "options": options_to_dict(opt)}, score=score)
                logger.info("Saved step %d", step)
    writer.close()


def stream(opt: Options, train_set: Any, dist: Dist, consumed: int) -> Iterator[dict[str, Any]]:
    """This rank's share of one global batch after another.

    Args:
        consumed: samples that the run has used so far, over all ranks.
    """
    section = opt.datasets.train
    assert section is not None
    sampler = GlobalBatchSampler(
        len(train_set),
        section.dataloader_batch_size,
        rank=dist.rank,
        world_size=dist.world_size,
        seed=opt.train.manual_seed,
        consumed=consumed,
        shuffle=section.dataloader_shuffle,
    )
    check_parts(sampler.local_batch, opt.train.accumulate_grad)
    # As in KAIR, the options count workers over all ranks.
    workers = -(-section.dataloader_num_workers // dist.world_size)
    loader = DataLoader(
        train_set,
        batch_sampler=sampler,
        num_workers=workers,
        worker_init_fn=init_worker,
        pin_memory=dist.device.type == "cuda",
        prefetch_factor=section.dataloader_prefetch_factor if workers else None,
        persistent_workers=section.dataloader_persistent_workers and workers > 0,
    )
    return iter(loader)


def validate(opt: Options, dist: Dist, model: ModelBase, test_set: Any, writer: Writer, epoch: int, step: int) -> float:
    """Restores and scores the test set, its clips dealt out to the ranks; the mean PSNR over clips, the same on all."""
    names = [clip.name for clip in test_set.clips]
    own = range(dist.rank, len(names), dist.world_size)
    testing = Testing.from_options(opt.val, opt.scale, model.amp_dtype, opt.netG)
    show = writer.panels(step, opt.experiment_dir / "images" if opt.val.save_img else None)
    scores = evaluate(model.tested_network, test_set, testing, dist.device, on_frame=show, indices=own)
    scores = merge_scores(scores, names, dist)
    log_validation(writer, epoch, step, scores)
    return scores.mean_over_clips().get("psnr", float("nan"))


if __name__ == "__main__":
    sys.exit(main())
