"""Triton's attention on a machine without a GPU: right in the interpreter, and compiled for one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.backends.triton.attention import interpreted, window_attention
from models.layers.backends.triton.backend import TritonBackend, relative_bias
from models.layers.vrt.window_attention import WindowCodes
from scripts.benchmark.triton_resources import compile_kernels
from tests.interpreter import run_cases

triton = pytest.importorskip("triton", reason="Triton is not installed")
# What a program may use on GPUs of compute capability 8.6 and 8.9, the smallest of those that are supported.
SHARED_MEMORY = 101376


def test_kernels_in_the_interpreter() -> None:
    run_cases(Path(__file__).with_name("cases.py"))


@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 leaves nothing to compile")
@pytest.mark.parametrize(
    ("capability", "dtype", "precision", "window", "head_dim", "mutual", "count"),
    [
        (90, torch.bfloat16, "highest", (6, 8, 8), 16, False, 3),
        (90, torch.bfloat16, "highest", (2, 8, 8), 16, True, 2),
        pytest.param(86, torch.bfloat16, "highest", (6, 8, 8), 20, False, 3, marks=pytest.mark.slow),
        pytest.param(86, torch.float32, "high", (2, 8, 8), 20, True, 2, marks=pytest.mark.slow),
        pytest.param(90, torch.float32, "highest", (1, 8, 8), 20, False, 3, marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_for_a_gpu(
    capability: int,
    dtype: torch.dtype,
    precision: str,
    window: tuple,
    head_dim: int,
    mutual: bool,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare_compiler(precision, tmp_path, monkeypatch)
    kernels = compile_kernels(capability, dtype, window, head_dim, mutual, padded=mutual)
    assert len(kernels) == count
    for kernel in kernels.values():
        check_compiled(kernel, dtype, precision)


def prepare_compiler(precision: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where there is no compiler for GPUs; float32 products are of torch's `precision` from then on."""
    if not (Path(triton.__file__).parent / "backends/nvidia/bin/ptxas").exists():
        pytest.skip("this build of Triton has no ptxas")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)


def check_compiled(kernel: Any, dtype: torch.dtype, precision: str, products: bool = True) -> None:
    assert kernel.asm["cubin"]
    assert kernel.metadata.shared <= SHARED_MEMORY
    # Products are made by tensor cores, except for float32 at torch's highest precision.
    assert ("mma" in kernel.asm["ptx"]) == (products and (dtype == torch.bfloat16 or precision == "high"))


@pytest.mark.parametrize("window", [(3, 4, 5), (2, 3, 2), (1, 1, 1)])
def test_relative_bias_equals_that_of_the_codes(window: tuple[int, int, int]) -> None:
    codes = WindowCodes((3, 4, 5))
    table = torch.randn(5 * 7 * 9, 2, dtype=torch.float64, requires_grad=True)
    expected, bias = codes.relative_bias(table, window), relative_bias(table, codes.window, window)
    assert torch.equal(bias, expected)
    factor = torch.randn_like(bias)
    (reference,), (grad,) = (torch.autograd.grad((x * factor).sum(), table) for x in (expected, bias))
    torch.testing.assert_close(grad, reference, rtol=0, atol=1e-12)


@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 makes it run on a CPU")
def test_refusals_say_why() -> None:
    backend = TritonBackend()
    assert "not for 'cpu'" in str(backend.refusal(torch.device("cpu"), torch.float32))
    assert "not in torch.float64" in str(backend.refusal(torch.device("cpu"), torch.float64))


def test_shapes_without_data() -> None:
    """On the meta device, as `models/training/estimate.py` runs the network."""
    qkv = torch.empty(2, 5, 9, 10, 3 * 12, device="meta", requires_grad=True)
    bias = torch.empty(3, 32, 32, device="meta", requires_grad=True)
    out, lse = window_attention(qkv, bias, None, None, (2, 4, 4), (1, 2, 2), 3, 0.5, False)
    assert (out.shape, lse.shape) == ((2, 5, 9, 10, 12), (2 * 3 * 3 * 3, 3, 32))
    grads = torch.autograd.grad(out.sum(), (qkv, bias))
    assert [grad.shape for grad in grads] == [qkv.shape, bias.shape]


def test_flop_are_those_of_the_products() -> None:
    """Padded windows count, as they are computed."""
    qkv = torch.empty(1, 3, 8, 6, 3 * 12, device="meta", requires_grad=True)
    for mutual, tokens in ((False, 32), (True, 16)):
        with FlopCounterMode(display=False) as counter:
            out, _ = window_attention(qkv, None, None, None, (2, 4, 4), (0, 0, 0), 3, 0.5, mutual)
            forward = counter.get_total_flops()
            out.sum().backward()
        assert forward == 2 * 2 * (4 * 8 * 8) * tokens * 12
        assert counter.get_total_flops() == forward * 7 // 2
