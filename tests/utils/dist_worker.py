"""A rank that tries every function of utils_dist and writes what it got; started by test_utils_dist.py.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python -m tests.utils.dist_worker FOLDER [crash]

With "crash" rank 1 dies in torchrun's first attempt, before the ranks have met a second time.
"""

import json
import os
import sys
from pathlib import Path

import torch

from utils.utils_dist import (
    Dist,
    all_gather_object,
    all_reduce_sum,
    any_rank,
    broadcast_object,
    check_same_weights,
    close_dist,
    init_dist,
    on_main,
)


def from_main(dist: Dist, fails: bool) -> str:
    """What on_main gives, or the error that it raises."""

    def action() -> str:
        if fails:
            raise ValueError(f"rank {dist.rank} failed")
        return f"rank {dist.rank}"

    try:
        return on_main(action, dist)
    except ValueError as error:
        return f"error: {error}"


def complaint(network: torch.nn.Module, dist: Dist) -> str:
    """What check_same_weights says, "" if nothing."""
    try:
        check_same_weights(network, dist)
        return ""
    except RuntimeError as error:
        return str(error)


def main(folder: Path, crash: bool) -> None:
    torch.set_num_threads(1)
    dist = init_dist("cpu", timeout_minutes=1)
    if crash and dist.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(3)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    network[1].running_mean.fill_(float(dist.rank))
    found = {
        "dist": [dist.rank, dist.world_size, dist.local_rank, str(dist.device), dist.is_main],
        "sum": all_reduce_sum([1.0 + dist.rank, 1e-17, 2.0**53 * dist.rank], dist).tolist(),
        "sum_dtype": str(all_reduce_sum(torch.ones(2, dtype=torch.float32), dist).dtype),
        "any": [any_rank(flag, dist) for flag in (False, dist.rank == 1, True, torch.tensor(dist.rank == 0))],
        "main": [from_main(dist, fails) for fails in (False, True)],
        "broadcast": broadcast_object({"from": dist.rank}, dist),
        "gather": all_gather_object("ab" * (dist.rank + 1), dist),
        "same": complaint(network, dist),
    }
    # One bit of one weight on one rank.
    weight = network[0].weight.detach().view(torch.int32)
    weight[0, 0] ^= dist.rank
    found["different"] = complaint(network, dist)
    (folder / f"rank{dist.rank}.json").write_text(json.dumps(found))
    close_dist()
    close_dist()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "crash" in sys.argv[2:])
