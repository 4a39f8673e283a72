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
from torch.utils.data import DataLoader, Dataset

from data.sampler import GlobalBatchSampler, init_worker
from data.select_dataset import define_Dataset
from models.evaluate import Testing, evaluate, merge_scores
from models.model_base import ModelBase, TrainingStopped
from models.select_model import define_Model
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_dist import Dist, check_same_weights, close_dist, init_dist
from utils.utils_logger import Writer, log_train, log_validation, setup_logger
from utils.utils_option import Options, add_option_arguments, load_options, options_to_dict, write_options
from utils.utils_timer import Timer

logger = logging.getLogger("svrt")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 1 training stopped, 2 a mistake in options or data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_option_arguments(parser)
    arguments = parser.parse_args(argv)
    dist = init_dist()
    try:
        opt = load_options(arguments.opt, arguments.set)
        if arguments.dry_run:
            dry_run(opt, dist)
        else:
            train(opt, dist)
        return 0
    except ValueError as error:
        print_once(dist, f"Error: {error}")
        return 2
    except TrainingStopped as error:
        print_once(dist, f"Training stopped: {error}")
        return 1
    finally:
        close_dist()


def train(opt: Options, dist: Dist) -> None:
    """The whole run: from the newest checkpoint, or the start, to `train.total_iter` steps."""
    # Everything that can be wrong with data and options is found before anything is built or written.
    train_set, test_set = define_datasets(opt)
    batch_size = opt.datasets.train.dataloader_batch_size

    # The experiment's folder, its logs and its options.
    folder = opt.experiment_dir
    setup_logger(folder, dist.rank)
    writer = Writer(folder, opt.logger, dist.rank, config=options_to_dict(opt))
    if dist.rank == 0:
        write_options(opt, folder / "options" / "resolved.json")

    # The model, as the newest checkpoint left it.
    torch.manual_seed(opt.train.manual_seed)
    checkpoints = CheckpointFolder(folder, keep=opt.train.checkpoint_keep)
    resumed = checkpoints.load_newest()
    model = define_Model(opt, dist, pretrained=resumed is None)
    step = 0
    if resumed is not None:
        step, state = resumed
        model.load_state_dict(state)
        logger.info("Resumed from step %d of %s", step, folder)

    # One stream of global batches: the samples of a step do not depend on the number of ranks or workers.
    sampler = GlobalBatchSampler(
        len(train_set),
        batch_size,
        rank=dist.rank,
        world_size=dist.world_size,
        seed=opt.train.manual_seed,
        consumed=step * batch_size,
        shuffle=opt.datasets.train.dataloader_shuffle,
    )
    batches = iterate(opt, train_set, sampler, dist)
    timer = Timer(dist.device)
    logger.info(
        "%d training samples, %d steps of %d samples on %d ranks",
        len(train_set),
        opt.train.total_iter,
        batch_size,
        dist.world_size,
    )

    while step < opt.train.total_iter:
        # One step.
        step += 1
        with timer.step():
            with timer.section("data"):
                batch = next(batches)
            model.optimize_parameters(step, batch)

        # Log, test and save at their intervals and at the end.
        last = step == opt.train.total_iter
        epoch = (step * batch_size - 1) // len(train_set)
        if step % opt.train.checkpoint_print == 0 or last:
            log_train(
                writer, timer, epoch, step, opt.train.total_iter, batch_size, model.current_learning_rate(), model.log
            )
        tested = test_set is not None and (step % opt.train.checkpoint_test == 0 or last)
        score = validate(opt, model, test_set, writer, dist, epoch, step) if tested else None
        if step % opt.train.checkpoint_save == 0 or last:
            check_same_weights(model.netG, dist)
            save(checkpoints, step, model, opt, score, dist)
    writer.close()


def define_datasets(opt: Options) -> tuple[Dataset, Dataset | None]:
    """The training set and, where the options name one, the test set."""
    if opt.datasets.train is None:
        raise ValueError("datasets.train: missing; training needs a training set")
    shared = {"seed": opt.train.manual_seed, "scale": opt.scale, "n_channels": opt.n_channels}
    test = opt.datasets.test
    return define_Dataset(opt.datasets.train, **shared), None if test is None else define_Dataset(test, **shared)


def iterate(opt: Options, train_set: Dataset, sampler: GlobalBatchSampler, dist: Dist) -> Iterator[dict[str, Any]]:
    """This rank's share of one global batch after another; workers are a total over the ranks, as in KAIR."""
    section = opt.datasets.train
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


def validate(
    opt: Options, model: ModelBase, test_set: Dataset, writer: Writer, dist: Dist, epoch: int, step: int
) -> float:
    """Restores the test set, clips shared out over the ranks without repeats; the mean PSNR over clips."""
    names = list(test_set.clips)
    loader = DataLoader(test_set, sampler=range(dist.rank, len(names), dist.world_size), num_workers=0)
    testing = Testing.from_options(opt.val, opt.scale, model.amp_dtype)
    pictures = writer.panels(step, opt.experiment_dir / "images" if opt.val.save_img else None)
    scores = evaluate(model.tested_network, loader, testing, dist.device, on_clip=pictures)
    scores = merge_scores(scores, names, dist)
    log_validation(writer, epoch, step, scores)
    return scores.mean_over_clips().get("psnr", float("nan"))


def save(
    checkpoints: CheckpointFolder, step: int, model: ModelBase, opt: Options, score: float | None, dist: Dist
) -> None:
    """Writes the run's whole state; rank 0 writes, the others go on."""
    if dist.rank == 0:
        checkpoints.save(step, {**model.state_dict(), "options": options_to_dict(opt)}, score=score)
        logger.info("Saved step %d", step)


def dry_run(opt: Options, dist: Dist) -> None:
    """Shows what a run would use, and exits: options, network, data sets, one batch, one step."""


def print_once(dist: Dist, text: str) -> None:
    """An error for the person at the terminal, from one rank."""
    if dist.rank == 0:
        sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
