"""How a network is executed, by the options `train.compile` and `train.deterministic`: compiled blocks, algorithms that
repeat bit for bit.
"""

import logging
import os
import shutil

import torch
from torch import nn

from models.layers.ops.compiled import CompiledBlock, allow_graphs
from utils.user_error import UserError

logger = logging.getLogger(__name__)

# torch.compile's backend.
BACKEND = "inductor"


def compile_blocks(network: nn.Module) -> None:
    """Compiles the transformer blocks' pass with gradients, in place; optical flow, deformable alignment, convolutions
    and all that runs without gradients stay as they are. Names of parameters don't change.

    Raises:
        UserError: there is no C++ compiler.
    """
    if BACKEND == "inductor" and not shutil.which(os.environ.get("CXX", "g++")):
        raise UserError("train.compile: torch.compile needs a C++ compiler; install g++, or set train.compile=false")
    # The blocks' graphs are smaller than DDP's buckets: cutting them further would only forbid recomputing in them.
    torch._dynamo.config.optimize_ddp = False
    allow_graphs()
    blocks = [module for module in network.modules() if isinstance(module, CompiledBlock)]
    for block in blocks:
        block.compile(backend=BACKEND, dynamic=False)
    logger.info("train.compile: %d blocks are compiled in the first step, which takes minutes", len(blocks))


def make_deterministic(device: torch.device) -> None:
    """Chooses algorithms that repeat bit for bit, for the whole process; to be called before the first GPU work.

    On a CPU an operation without such an algorithm is an error. On a GPU the gradients of grid_sample, of
    deform_conv2d and of attention with a mask have none: torch warns of each once, and they go on.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    if device.type != "cpu":
        logger.warning(
            "train.deterministic: on a GPU the gradients of warping and of deformable convolution are summed in no "
            "fixed order, so runs repeat closely but not bit for bit; everything else does."
        )
