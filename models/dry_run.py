"""What a run would use: options, network, data sets, one batch, one step (`main_train_vrt.py --dry-run`)."""

import json
import logging
import sys
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from models.select_model import define_Model
from utils.utils_dist import Dist
from utils.utils_option import Options, options_to_dict
from utils.utils_timer import peak_memory

logger = logging.getLogger(__name__)


def dry_run(opt: Options, dist: Dist, train_set: Any, test_set: Any, sample: Any) -> None:
    """Logs what the run would use, and takes one step on this rank's share of a batch; writes nothing.

    Args:
        train_set, test_set: the data sets; the second may be None.
        sample: an index of `train_set`.
    """
    assert opt.datasets.train is not None
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logger.info("options: %s", json.dumps(options_to_dict(opt), indent=1))
    logger.info("training samples: %d; test clips: %s", len(train_set), "none" if test_set is None else len(test_set))
    model = define_Model(opt, dist)
    trained = sum(p.numel() for p in model.netG.parameters())
    logger.info("network %s: %s parameters", opt.netG.net_type, f"{trained:,}")
    share = opt.datasets.train.dataloader_batch_size // dist.world_size
    batch = default_collate([train_set[sample]] * share)
    for name, value in batch.items():
        if isinstance(value, Tensor):
            logger.info("%s: %s %s per rank", name, tuple(value.shape), value.dtype)
    begin = time.perf_counter()
    model.optimize_parameters(1, batch)
    if dist.device.type == "cuda":
        torch.cuda.synchronize()
    memory = peak_memory(dist.device)
    logger.info(
        "first step: %.1f s, loss %.4f%s",
        time.perf_counter() - begin,
        float(model.log["G_loss"]),
        "" if memory is None else f", peak memory {memory:.2f} GB",
    )
