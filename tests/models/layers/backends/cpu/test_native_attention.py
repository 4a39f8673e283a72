"""The CPU kernel against the plain formula in double precision, and what happens where it can't be had."""

import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.layers.backends import backend
from models.layers.backends.backend import choose_backend
from models.layers.backends.cpu import native_attention
from models.layers.backends.cpu.native import NativeBackend
from models.layers.backends.sdpa import SdpaBackend
from models.layers.vrt.window_layout import Size3, window_layout
from tests.models.layers.vrt.test_window_attention import CASES as WINDOWS
from tests.models.layers.vrt.test_window_attention import make_block

CPU, FLOAT = torch.device("cpu"), torch.float32

# Where it can be compiled it must work: a kernel that fails its trial is a failure here, not a reason to skip.
needs_kernel = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which(os.environ.get("CXX") or "c++") is None,
    reason="the kernel is for Linux with a C++ compiler",
)


def _plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = q @ k.mT * scale
    return (scores if bias is None else scores + bias.mT).softmax(-1) @ v


def _case(windows: int, heads: int, tokens: int, width: int, bias_heads: int | None) -> list[Tensor | None]:
    """Queries, keys and values as a projection leaves them, and a bias."""
    generator = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(windows, tokens, 3, heads, width, generator=generator)
    bias = None if bias_heads is None else torch.randn(1, bias_heads, tokens, tokens, generator=generator)
    return [*qkv.permute(2, 0, 3, 1, 4), bias]


CASES = [
    (3, 6, 384, 16, 6),
    (2, 6, 384, 20, 6),
    (9, 2, 128, 16, 2),
    (5, 3, 64, 20, 1),
    (4, 2, 64, 30, None),
    (17, 2, 21, 10, 2),
    (2, 1, 33, 17, None),
    (1, 2, 1, 1, 2),
    (2, 2, 40, 70, 2),
]


@needs_kernel
def test_it_passes_its_trial() -> None:
    assert NativeBackend().refusal(CPU, FLOAT) is None


@needs_kernel
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_and_gradients_are_the_formulas(case: tuple[int, int, int, int, int | None]) -> None:
    given = _case(*case)
    leaves = [None if x is None else x.detach().requires_grad_() for x in given]
    exact = [None if x is None else x.detach().double().requires_grad_() for x in given]
    out = NativeBackend().attend(*leaves, 0.3)
    expected = _plain(*exact, 0.3)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=4e-6)
    with torch.no_grad():
        assert torch.equal(NativeBackend().attend(*given, 0.3), out)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad.double())
    for leaf, true in zip(leaves, exact, strict=True):
        if leaf is not None:
            largest = float(true.grad.abs().max())
            torch.testing.assert_close(leaf.grad.double(), true.grad, rtol=0, atol=4e-6 * max(1, largest))


@needs_kernel
@pytest.mark.parametrize(("batch", "size", "window", "shift", "mutual"), WINDOWS)
def test_block_equals_sdpa(batch: int, size: Size3, window: Size3, shift: Size3, mutual: bool) -> None:
    block = make_block(window, shift, mutual).float()
    layout = window_layout(batch, size, window, shift, pairs=mutual)
    x = torch.randn(layout.inverse.numel(), 8, requires_grad=True)
    factor = torch.randn_like(x)
    results = []
    for way in (NativeBackend(), SdpaBackend()):
        out = way.run(block, x, layout)
        results.append([out, *torch.autograd.grad((out * factor).sum(), [x, *block.parameters()])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-5)


@needs_kernel
def test_scores_far_apart_are_finite_and_right() -> None:
    torch.manual_seed(0)
    q, k, v, bias = _case(2, 2, 24, 8, 2)
    bias = bias + torch.where(torch.rand(24, 24) < 0.5, -100.0, 0.0)
    for factor in (1.0, 300.0):
        out = NativeBackend().attend(q * factor, k, v, bias, 1.0)
        expected = _plain(q.double() * factor, k.double(), v.double(), bias.double(), 1.0)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-4 * factor / 300 + 4e-6)


@needs_kernel
@pytest.mark.parametrize("place", range(4), ids=["q", "k", "v", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_hidden(place: int, value: float) -> None:
    given = _case(2, 2, 24, 8, 2)
    given[place] = given[place].clone()
    given[place][0, 1, 3, 5] = value
    q, k, v, bias = given
    expected = _plain(q, k, v, bias, 0.3)
    assert not expected.isfinite().all()
    assert torch.equal(NativeBackend().attend(q, k, v, bias, 0.3).isfinite(), expected.isfinite())


@needs_kernel
def test_gradients_repeat_whatever_the_number_of_threads() -> None:
    grads = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = [x.detach().requires_grad_() for x in _case(19, 3, 48, 16, 3)]
            NativeBackend().attend(*leaves, 0.3).square().sum().backward()
            grads.append([leaf.grad for leaf in leaves])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))


@needs_kernel
def test_only_what_is_wanted_gets_a_gradient() -> None:
    q, k, v, bias = _case(2, 2, 24, 8, 2)
    q = q.detach().requires_grad_()
    NativeBackend().attend(q, k, v, bias, 0.3).sum().backward()
    assert q.grad is not None and k.grad is v.grad is bias.grad is None
    bias = bias.detach().requires_grad_()
    NativeBackend().attend(q.detach(), k, v, bias, 0.3).sum().backward()
    assert bias.grad is not None


@needs_kernel
def test_operators_say_the_shapes_that_they_give() -> None:
    q, k, v, bias = _case(2, 2, 32, 8, 2)
    out, sums = torch.ops.s_vrt.native_attention(q, k, v, bias, 0.3, True)
    samples = [(torch.ops.s_vrt.native_attention.default, (q, k, v, bias, 0.3, True))]
    samples.append((torch.ops.s_vrt.native_attention.default, (q, k, v, None, 0.3, False)))
    backward = torch.ops.s_vrt.native_attention_backward.default
    samples.append((backward, (torch.rand_like(out), q, k, v, bias, out, sums, 0.3, True)))
    samples.append((backward, (torch.rand_like(out), q, k, v, None, out, sums, 0.3, False)))
    for operator, arguments in samples:
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@needs_kernel
def test_auto_takes_it_on_a_cpu_in_float32_only() -> None:
    assert isinstance(choose_backend("auto", CPU, FLOAT), NativeBackend)
    assert isinstance(choose_backend("auto", CPU, torch.bfloat16), SdpaBackend)
    assert isinstance(choose_backend("auto", CPU, torch.float64), SdpaBackend)
    assert isinstance(choose_backend("auto", torch.device("cuda"), FLOAT), SdpaBackend)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing compiled yet, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = (
        native_attention._library, native_attention.trial, native_attention._tile,
        backend._warn_once, backend._tell_once,
    )  # fmt: skip
    for function in known:
        function.cache_clear()
    yield tmp_path
    for function in known:
        function.cache_clear()


def test_without_a_compiler_sdpa_runs_and_the_reason_is_said(
    forgotten: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    remedy = "no C++ compiler found; install one (Debian: apt install g++) or name it in CXX"
    for name, level in (("auto", logging.INFO), ("native", logging.WARNING)):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert isinstance(choose_backend(name, CPU, FLOAT), SdpaBackend)
        [record] = caplog.records
        assert record.levelno == level and remedy in record.getMessage()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("this is no C++", "error"),
        ("int native_tile() { return 1; }", "native_attention"),
    ],
)
@needs_kernel
def test_a_kernel_that_fails_is_refused(
    fault: str, message: str, forgotten: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text(f'extern "C" {{\n{fault}\n}}\n', encoding="utf-8")
    monkeypatch.setattr(native_attention, "SOURCE", source)
    reason = NativeBackend().refusal(CPU, FLOAT)
    assert reason is not None and message in reason


@needs_kernel
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64"])
def test_narrower_vectors_give_the_same(processor: str, forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [flag.replace("native", processor) for flag in native_attention._FLAGS]
    monkeypatch.setattr(native_attention, "_FLAGS", flags)
    assert NativeBackend().refusal(CPU, FLOAT) is None
    for case in CASES[1:]:
        given = [None if x is None else x.requires_grad_() for x in _case(*case)]
        out = NativeBackend().attend(*given, 0.3)
        torch.testing.assert_close(out, _plain(*given, 0.3), rtol=0, atol=4e-6)
        wanted = [x for x in given if x is not None]
        results = [torch.autograd.grad(y.square().sum(), wanted) for y in (out, _plain(*given, 0.3))]
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * max(1, float(expected.abs().max())))


@needs_kernel
def test_a_wrong_kernel_is_refused(forgotten: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = native_attention.SOURCE.read_text(encoding="utf-8")
    source = tmp_path / "wrong.cpp"
    source.write_text(text.replace("LOG2E = 1.44", "LOG2E = 1.45"), encoding="utf-8")
    monkeypatch.setattr(native_attention, "SOURCE", source)
    reason = NativeBackend().refusal(CPU, FLOAT)
    assert reason is not None and "beside the plain formula's result" in reason


@needs_kernel
def test_it_is_compiled_once(forgotten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NativeBackend().refusal(CPU, FLOAT) is None
    [library] = (forgotten / "s_vrt").iterdir()
    before = library.stat().st_mtime_ns
    native_attention._library.cache_clear()
    native_attention._library()
    assert [file.stat().st_mtime_ns for file in (forgotten / "s_vrt").iterdir()] == [before]
    assert os.access(library, os.R_OK)
