"""Triton's alignment on a machine without a GPU: right in the interpreter, and compiled for one."""

import logging
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.backends.triton.attention import interpreted
from models.layers.backends.triton.backend import TritonBackend
from models.layers.backends.triton.deform import alignment_features, deformable_alignment
from models.layers.vrt.alignment import DeformableAlignment
from scripts.benchmark.triton_resources import compile_alignment
from tests.interpreter import run_cases
from tests.models.layers.backends.triton.test_attention import check_compiled, prepare_compiler

pytest.importorskip("triton", reason="Triton is not installed")


def test_kernels_in_the_interpreter() -> None:
    run_cases(Path(__file__).with_name("deform_cases.py"))


@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 leaves nothing to compile")
@pytest.mark.parametrize(
    ("capability", "dtype", "precision", "channels", "groups", "neighbours"),
    [
        (90, torch.bfloat16, "highest", 96, 16, 1),
        pytest.param(86, torch.bfloat16, "highest", 120, 16, 2, marks=pytest.mark.slow),
        pytest.param(86, torch.float32, "high", 120, 12, 1, marks=pytest.mark.slow),
        pytest.param(90, torch.float32, "highest", 120, 24, 3, marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_for_a_gpu(
    capability: int,
    dtype: torch.dtype,
    precision: str,
    channels: int,
    groups: int,
    neighbours: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare_compiler(precision, tmp_path, monkeypatch)
    fixed = capability == 86
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: fixed)
    for name, kernel in compile_alignment(capability, dtype, channels, groups, neighbours).items():
        check_compiled(kernel, dtype, precision, products=name.startswith("deform"))
        # Where the gradient of the frames is summed, it is as integers or as float32.
        kinds = set(re.findall(r"\b(?:red|atom)\.\S*add\S*\.(\w+) ", kernel.asm["ptx"]))
        assert kinds == ({"u64" if fixed else "f32"} if name in ("features_backward", "deform_backward") else set())


@pytest.mark.skipif(interpreted(), reason="TRITON_INTERPRET=1 makes them run on a CPU")
def test_kernels_that_fail_leave_alignment_to_torchvision(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    alignment, backend = DeformableAlignment(6, 2, 3, 1), TritonBackend()
    x, flows = torch.randn(1, 3, 4, 5, 6), torch.randn(2, 1, 2, 1, 2, 4, 5)
    with caplog.at_level(logging.WARNING):
        results = [backend.align_clip(alignment, x, flows) for _ in range(2)]
    assert len(caplog.records) == 1
    assert "leaves alignment to torchvision: a trial of its kernels raised" in caplog.text
    for result in results:
        for a, b in zip(result, alignment(x, flows), strict=True):
            assert torch.equal(a, b)


def test_shapes_and_flop_without_data() -> None:
    """On the meta device, as `models/training/estimate.py` runs the network."""
    with torch.device("meta"):
        raw, flows = torch.empty(5, 4, 6, 27 * 4, dtype=torch.bfloat16), torch.empty(5, 2, 2, 4, 6)
        frames, weight = torch.empty(3, 4, 6, 12, dtype=torch.bfloat16), torch.empty(12, 12, 3, 3)
        targets, sources = torch.empty(5, dtype=torch.int32), torch.empty(5, 2, dtype=torch.int32)
        leaves = [x.requires_grad_() for x in (raw, flows, frames, weight, torch.empty(12))]
    with FlopCounterMode(display=False) as counter:
        features = alignment_features(frames, targets, sources, flows)
        out = deformable_alignment(*leaves[:3], sources, *leaves[3:], 10.0)
        forward = counter.get_total_flops()
        grads = torch.autograd.grad(features.sum() + out.sum(), leaves)
    assert (features.shape, out.shape) == ((5, 4, 6, 12 + 2 * 12 + 4), (5, 4, 6, 12))
    assert features.dtype == out.dtype == torch.bfloat16
    assert [(x.shape, x.dtype) for x in grads] == [(x.shape, x.dtype) for x in leaves]
    assert forward == 2 * 9 * 12 * 12 * 5 * 4 * 6
    assert counter.get_total_flops() == 3 * forward
