"""Triton's alignment against torchvision's; run in the interpreter by `test_triton_deform.py`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from models.layers.backends.triton import deform as triton_deform
from models.layers.backends.triton.alignment import align, by_tap, plain_alignment
from models.layers.backends.triton.attention import Tiles
from models.layers.backends.triton.backend import TritonBackend
from models.layers.backends.triton.deform import alignment_features, deformable_alignment
from models.layers.ops import chunks
from models.layers.ops.chunks import Budget
from models.layers.vrt.alignment import DeformableAlignment
from tests.models.vrt_cases import small_vrt

RESIDUE = 2.5


@dataclass(frozen=True)
class Case:
    """Sizes; `tiles` in place of the operators' own."""

    neighbours: int
    channels: int
    groups: int
    height: int
    width: int
    tiles: Tiles | None = None


CASES = (
    Case(1, 18, 3, 5, 7),  # groups of 6 channels, the last pack of groups is not full
    Case(2, 12, 4, 4, 3, Tiles(16, 32, 4, 1)),  # pictures that share a tile, packs with room for more than all groups
    Case(3, 15, 9, 1, 6),  # groups of 5 channels, one row
    Case(1, 20, 1, 6, 1),  # one group wider than a tile, one column
)
SMALL = Case(1, 12, 2, 3, 5)


@dataclass
class Inputs:
    """What both ways get: `leaves` are raw, flows, frames, weight and bias."""

    leaves: list[Tensor]
    targets: Tensor
    sources: Tensor

    def run(self, plain: bool) -> tuple[Tensor, Tensor]:
        """Features and aligned frames."""
        raw, flows, frames, weight, bias = self.leaves
        if plain:
            return plain_alignment(raw, flows, frames, self.targets, self.sources, weight, bias, RESIDUE)
        ordered = by_tap(raw.permute(3, 0, 1, 2), flows.shape[1]).permute(1, 2, 3, 0)
        aligned = deformable_alignment(ordered, flows, frames, self.sources, weight, bias, RESIDUE)
        return alignment_features(frames, self.targets, self.sources, flows), aligned

    def to(self, *dtypes: torch.dtype) -> "Inputs":
        """Leaves of their own, in one type or one for each."""
        types = dtypes if len(dtypes) > 1 else dtypes * len(self.leaves)
        leaves = [leaf.detach().to(dtype).requires_grad_() for leaf, dtype in zip(self.leaves, types, strict=True)]
        return Inputs(leaves, self.targets, self.sources)


def inputs(case: Case, reach: float = 2.0) -> Inputs:
    """Three pairs of two frames, one neighbour missing; numbers that bfloat16 has, so that all types see the same."""
    generator = torch.Generator().manual_seed(0)
    height, width, channels = case.height, case.width, case.channels
    shapes = [(3, height, width, 27 * case.groups), (3, case.neighbours, 2, height, width)]
    shapes += [(2, height, width, channels), (channels, channels, 3, 3), (channels,)]
    leaves = [torch.randn(shape, generator=generator).bfloat16().float() for shape in shapes]
    leaves[1] *= reach
    # Frames of another order in memory, which the kernels can't read as they are.
    leaves[2] = leaves[2].transpose(1, 2).contiguous().transpose(1, 2)
    sources = torch.arange(3 * case.neighbours, dtype=torch.int32).view(3, -1) % 2
    sources[-1, -1] = -1
    return Inputs(leaves, torch.tensor([0, 1, 0], dtype=torch.int32), sources)


def compare(given: Inputs, exact: Inputs, tolerance: float, parts: tuple[int, ...] = (0, 1)) -> None:
    """Results and, of `parts` of them together, gradients."""
    got, reference = given.run(plain=False), exact.run(plain=True)
    for a, b in zip(got, reference, strict=True):
        torch.testing.assert_close(a.double() / b.abs().max(), b / b.abs().max(), rtol=0, atol=tolerance)
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(reference[i].shape, generator=generator).bfloat16().double() for i in parts]
    sums = [sum((out[i].double() * f).sum() for i, f in zip(parts, factors, strict=True)) for out in (got, reference)]
    grads = torch.autograd.grad(sums[0], given.leaves), torch.autograd.grad(sums[1], exact.leaves)
    for leaf, a, b in zip(given.leaves, *grads, strict=True):
        assert a.dtype == leaf.dtype
        torch.testing.assert_close(a.double() / b.abs().max(), b / b.abs().max(), rtol=0, atol=tolerance)


def choose(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.tiles is not None:
        monkeypatch.setattr(triton_deform, "deform_tiles", lambda *_: case.tiles)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(case, monkeypatch)
    # Tiles of pixels are summed by several programs.
    monkeypatch.setattr(triton_deform, "_WEIGHT_PROGRAMS", 30)
    given = inputs(case)
    compare(given.to(torch.float32), given.to(torch.float64), 2e-6)


def test_bfloat16() -> None:
    given = inputs(SMALL)
    half, single = torch.bfloat16, torch.float32
    compare(given.to(half, single, half, single, single), given.to(torch.float64), 2e-2)


def test_places_far_outside() -> None:
    """Nothing is read there, and nothing but the bias comes of it."""
    given = inputs(SMALL, reach=30.0)
    flows = given.leaves[1]
    flows[0, :, 0, 2], flows[1, :, 1, 2], flows[2, :, :, 1] = 3e9, -1e20, 40.0
    # Offsets of a few 1e3 pixels leave float32 no fraction that the two ways would round alike.
    compare(given.to(torch.float32), given.to(torch.float64), 1e-5)
    out = given.to(torch.float32).run(plain=False)[1]
    assert torch.equal(out[0, 2], given.leaves[4].expand_as(out[0, 2]))


def test_places_on_pixels() -> None:
    """Where a sample has a kink, the derivative is torchvision's; the borders, -1 and the size, are such places."""
    given = inputs(SMALL)
    given.leaves[0].zero_()
    given.leaves[1].round_()
    # `grid_sample`, which the features' plain way goes by, has its grid rounded: it may be on either side of a pixel.
    compare(given.to(torch.float32), given.to(torch.float64), 2e-6, parts=(1,))


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_sums_have_no_order(deterministic: None) -> None:
    given = inputs(SMALL)
    compare(given.to(torch.float32), given.to(torch.float64), 2e-6)
    _, flows, frames, *_ = given.to(torch.float32).leaves
    factor = torch.randn(3, *frames.shape[1:3], 2 * 12 + 2)

    def gradient(order: list[int]) -> Tensor:
        out = alignment_features(frames, given.targets[order], given.sources[order], flows[order])
        return torch.autograd.grad((out * factor[order]).sum(), frames)[0]

    forwards, backwards = gradient([0, 1, 2]), gradient([2, 1, 0])
    assert torch.equal(forwards, backwards)
    assert forwards.any()


def test_operators_are_registered_as_torch_wants_it() -> None:
    given = inputs(Case(2, 4, 2, 1, 2)).to(torch.float32)
    raw, flows, frames, weight, bias = given.leaves
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    settings = (raw, flows, frames, given.sources, weight, bias, RESIDUE)
    torch.library.opcheck(deformable_alignment, settings, test_utils=utilities)
    torch.library.opcheck(alignment_features, (frames, given.targets, given.sources, flows), test_utils=utilities)


@pytest.mark.parametrize(("pa_frames", "frames"), [(2, 2), (6, 3)])
def test_alignment(pa_frames: int, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it by the back end, traced, in chunks and under autocast, against the other path."""
    torch.manual_seed(0)
    module = DeformableAlignment(6, pa_frames, 3 * pa_frames // 2, 4)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, flows = torch.randn(1, frames, 3, 3, 6), torch.randn(2, 1, frames - 1, pa_frames // 2, 2, 3, 3)
    leaves = [x.requires_grad_(), flows.requires_grad_(), *module.parameters()]
    factor = torch.randn(2, *x.shape)

    def back_end(*given: Any) -> Sequence[Tensor]:
        if torch.is_grad_enabled():
            return TritonBackend().align_clip(*given)
        ((_, *directions),) = TritonBackend().align_chunks(*given)
        return directions

    def results(run: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
        out = torch.stack(run(module, x, flows))
        return [out, *torch.autograd.grad((out * factor).sum(), leaves)]

    entire = results(back_end)
    for a, b in zip(entire, results(DeformableAlignment.forward), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.detach().abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        half = torch.stack(back_end(module, x, flows))
    assert half.dtype == torch.float32 and (half - entire[0]).norm() < 0.03 * entire[0].norm()
    monkeypatch.setattr(chunks, "PAIRS", Budget(cpu=1, accelerator=1))
    with torch.no_grad():
        chunked = torch.stack(back_end(module, x, flows))
    torch.testing.assert_close(chunked, entire[0].detach(), rtol=1e-5, atol=1e-5)
    if pa_frames == 2:
        traced = torch.compile(align, backend="aot_eager", fullgraph=True)
        for a, b in zip(results(traced), entire, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_network() -> None:
    """Attention and alignment of a whole network."""
    x = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = small_vrt(compute_backend="sdpa")
    with torch.no_grad():
        expected = network(x)
        network.compute_backend = "triton"
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-4)
