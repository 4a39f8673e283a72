"""Execution of a network in training: compiled blocks (`train.compile`), deterministic algorithms
(`train.deterministic`).
"""

import logging
import os
import shutil

import torch
from torch import nn

from models.layers.ops.compiled import CompiledBlock, allow_graphs
from utils.user_error import UserError

logger = logging.getLogger(__name__)

# torch.compile's default backend, which generates C++ or Triton kernels; tests replace it by one without a compiler.
BACKEND = "inductor"


def compile_blocks(network: nn.Module) -> None:
    """Compiles the transformer blocks for passes with gradients, in place. Optical flow, deformable alignment,
    convolutions and passes without gradients are not compiled. Parameter names don't change.

    Raises:
        UserError: no C++ compiler is installed.
    """
    if BACKEND == "inductor" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("train.compile: torch.compile needs a C++ compiler; install g++, or set train.compile=false")
    # DDP's optimizer splits graphs at bucket boundaries. The blocks' graphs are smaller than a bucket, and a split
    # graph can't contain checkpointing.
    torch._dynamo.config.optimize_ddp = False
    allow_graphs()
    blocks = [module for module in network.modules() if isinstance(module, CompiledBlock)]
    for block in blocks:
        block.compile(backend=BACKEND, dynamic=False)
    logger.info("train.compile: %d blocks are compiled in the first step, which takes minutes", len(blocks))


def make_deterministic(device: torch.device) -> None:
    """Selects algorithms that repeat bit for bit, for the whole process; call it before the first GPU operation.

    On a CPU an operation without such an algorithm raises an error. On a GPU the gradients of grid_sample, of
    deform_conv2d and of attention with a mask have none: torch warns about each once and runs it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    if device.type != "cpu":
        logger.warning(
            "train.deterministic: on a GPU the gradients of warping and of deformable convolution are summed in "
            "varying order, so runs repeat closely but not bit for bit; all other operations repeat bit for bit."
        )
