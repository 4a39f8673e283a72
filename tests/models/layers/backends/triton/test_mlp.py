"""Triton's kernels that begin with LayerNorm, on a machine without a GPU: right in the interpreter, and compiled."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.backends.triton.attention import interpreted
from models.layers.backends.triton.mlp import add_gated_mlp, split_lanes
from models.layers.backends.triton.norm_linear import norm_linear
from scripts.benchmark.triton_resources import compile_fused, registers
from tests.interpreter import run_cases
from tests.models.layers.backends.triton.test_attention import check_compiled, prepare_compiler

pytest.importorskip("triton", reason="Triton is not installed")


def test_kernel_in_the_interpreter() -> None:
    run_cases(Path(__file__).with_name("mlp_cases.py"))


@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 leaves nothing to compile")
@pytest.mark.parametrize(
    ("capability", "dtype", "precision", "channels", "spilled"),
    [
        (90, torch.bfloat16, "highest", 96, 0),
        (90, torch.bfloat16, "highest", 120, 0),
        pytest.param(90, torch.bfloat16, "highest", 180, 0, marks=pytest.mark.slow),
        pytest.param(86, torch.bfloat16, "highest", 180, 100, marks=pytest.mark.slow),
        pytest.param(86, torch.float32, "high", 120, 0, marks=pytest.mark.slow),
        pytest.param(90, torch.float32, "highest", 96, 0, marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_for_a_gpu(
    capability: int,
    dtype: torch.dtype,
    precision: str,
    channels: int,
    spilled: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare_compiler(precision, tmp_path, monkeypatch)
    for kernel in compile_fused(capability, dtype, channels).values():
        check_compiled(kernel, dtype, precision)
        assert registers(kernel)[1] <= spilled


def test_lanes_are_as_few_as_two_powers_of_two_can_be() -> None:
    for channels in range(1, 300):
        sums = [a + b for a in (16, 32, 64, 128, 256, 512) for b in (0, 16, 32, 64, 128, 256) if a + b >= channels]
        assert sum(split_lanes(channels)) == min(sums)


def test_shapes_and_flop_without_data() -> None:
    """On the meta device, as `estimate.py` runs the network; products, and what they take going backward."""
    shapes = [(30, 12), (12,), (12,), (24, 12), (24,), (24, 12), (24,), (12, 24), (12,)]
    tensors = [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        out = add_gated_mlp(*tensors, torch.empty(3, device="meta"), 1e-5)
        forward = counter.get_total_flops()
        grads = torch.autograd.grad(out.sum(), tensors)
    assert [tuple(tensor.shape) for tensor in (out, *grads)] == [shapes[0], *shapes]
    product = 2 * 30 * 12 * 24
    assert (forward, counter.get_total_flops()) == (3 * product, 11 * product)
    with FlopCounterMode(display=False) as counter:
        out = norm_linear(*tensors[:5], 1e-5)
        forward = counter.get_total_flops()
        grads = torch.autograd.grad(out.sum(), tensors[:5])
    assert [tuple(tensor.shape) for tensor in (out, *grads)] == [(30, 24), *shapes[:5]]
    assert (forward, counter.get_total_flops()) == (product, 3 * product)
