"""What each process of the DDP test does (tests/models/test_network_vrt_ddp.py)."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.models.vrt_cases import small_vrt


def clips() -> torch.Tensor:
    """The global batch: two clips."""
    return torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def work(rank: int, meeting_point: str, result: str) -> None:
    """One backward pass on this rank's clip; rank 0 saves the averaged gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    network = small_vrt(use_checkpoint_attn=True, use_checkpoint_ffn=True).train()
    for block in network.modules():
        if hasattr(block, "drop_path"):
            block.drop_path = 0.0
    wrapped = DistributedDataParallel(network)
    wrapped(clips()[rank : rank + 1]).square().mean().backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in network.named_parameters()}, result)
    dist.destroy_process_group()
