"""Dry run (`main_train_vrt.py --dry-run`): logs options, network, data sets, one batch, memory and one step."""

import json
import logging
import sys
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from models.model_base import Batch, ModelBase, split
from models.select_model import define_Model
from models.training.estimate import GB, MemoryEstimate, estimate_memory
from utils.utils_dist import Dist
from utils.utils_option import Options, options_to_dict
from utils.utils_timer import peak_gpu_gigabytes

logger = logging.getLogger(__name__)

# Bytes of activations up to which a step on a CPU takes seconds, rather than minutes.
CPU_BYTES = 1_000_000_000


def dry_run(opt: Options, dist: Dist, train_set: Any, test_set: Any, sample: Any) -> None:
    """Logs what the run would use; writes no file.

    Takes a step on this rank's share of a batch: on a GPU always, on a CPU only with activations up to `CPU_BYTES`.

    Args:
        train_set, test_set: the data sets; the second may be None.
        sample: an index of `train_set`.
    """
    assert opt.datasets.train is not None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    _tell_options(opt)
    logger.info("training samples: %d; test clips: %s", len(train_set), "none" if test_set is None else len(test_set))
    model = define_Model(opt, dist)
    share = opt.datasets.train.dataloader_batch_size // dist.world_size
    batch = default_collate([train_set[sample]] * share)
    for name, value in batch.items():
        if isinstance(value, Tensor):
            logger.info("%s: %s %s per rank", name, tuple(value.shape), value.dtype)
    estimate = _tell_memory(model, opt, batch)
    if dist.device.type == "cpu" and estimate.activations > CPU_BYTES:
        logger.info(
            "no step taken, as this is a CPU and the network large (more than %.0f GB of activations); on a GPU a step "
            "is taken and its time and memory are measured",
            CPU_BYTES / GB,
        )
        return
    _take_step(model, batch)


def dry_run_without_data(opt: Options, dist: Dist) -> None:
    """Logs options, network and memory; neither data nor weights are needed, and no step is taken."""
    assert opt.datasets.train is not None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    _tell_options(opt)
    # Memory does not depend on the weights' values.
    train = opt.train.model_copy(update={"vgg_weights": "random", "vgg_path": None})
    model = define_Model(opt.model_copy(update={"train": train}), dist, pretrained=False)
    share = opt.datasets.train.dataloader_batch_size // dist.world_size
    _tell_memory(model, opt, batch_of(opt, share))


def batch_of(opt: Options, clips: int) -> dict[str, Tensor]:
    """Tensors of the shapes that the training set would deliver, spikes at the resolution that the network expects."""
    section = opt.datasets.train
    assert section is not None
    sharp, frames = section.gt_size, section.num_frame
    blurred = sharp // opt.scale
    channels = getattr(opt.netG, "in_chans", opt.n_channels)
    batch = {
        "L": torch.empty(clips, frames, channels, blurred, blurred),
        "H": torch.empty(clips, frames, opt.n_channels, sharp, sharp),
    }
    bins = getattr(opt.netG, "spike_bins", None)
    if bins is not None:
        side = blurred // opt.netG.spike_ratio
        batch["L_spike"] = torch.empty(clips, frames, bins, side, side)
    return batch


def _tell_options(opt: Options) -> None:
    """Logs one line per section: one line per key would fill many screens."""
    tree = options_to_dict(opt)
    top = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    sections = {"options": top, **{f"datasets.{key}": part for key, part in tree["datasets"].items()}}
    sections |= {key: tree[key] for key in ("netG", "train", "val")}
    for name, section in sections.items():
        logger.info("%s: %s", name, json.dumps(section))


def _tell_memory(model: ModelBase, opt: Options, batch: Batch) -> MemoryEstimate:
    parameters = sum(p.numel() for p in model.netG.parameters())
    logger.info("network %s: %s parameters", opt.netG.net_type, f"{parameters:,}")
    part = next(split(batch, opt.train.accumulate_grad))
    estimate = estimate_memory(model, part)
    clips = len(next(value for value in part.values() if isinstance(value, Tensor)))
    logger.info("memory per GPU, estimated for CUDA and %d clips at a time: %s", clips, estimate)
    return estimate


def _take_step(model: ModelBase, batch: Batch) -> None:
    """Takes the first step and logs its time, loss and, on a GPU, memory."""
    device = model.dist.device
    begin = time.perf_counter()
    try:
        model.optimize_parameters(1, batch)
    except torch.OutOfMemoryError as error:
        logger.warning(
            "the first step does not fit into the memory of %s: lower datasets.train.gt_size or num_frame, take more "
            "GPUs or train.accumulate_grad, or recompute more (netG.use_checkpoint_attn, use_checkpoint_ffn)\n%s",
            device,
            error,
        )
        return
    if device.type == "cuda":
        torch.cuda.synchronize()
    memory = peak_gpu_gigabytes(device)
    logger.info(
        "first step: %.1f s, loss %.4f%s",
        time.perf_counter() - begin,
        float(model.log["G_loss"]),
        "" if memory is None else f", measured memory {memory:.2f} GB",
    )
