"""VRT under DistributedDataParallel: shared constants and checkpointing do not get in its way."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.models.vrt_cases import small_vrt
from tests.models.vrt_ddp_worker import clips, work


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")
def test_two_processes_give_one_process_gradients(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path / "meet"), str(tmp_path / "gradients.pth")), nprocs=2)
    averaged = torch.load(tmp_path / "gradients.pth")
    network = small_vrt()
    network(clips()).square().mean().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(averaged[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)
