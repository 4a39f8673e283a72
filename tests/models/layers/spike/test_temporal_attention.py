"""Attention over time: against loops over pixels, in chunks, in time, and as a fusion that starts as the identity."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.layers.ops.chunks import over_pixels
from models.layers.spike.temporal_attention import (
    RelativeBias,
    SpikeTemporalSA,
    TemporalAttention,
    TemporalBlock,
    TemporalCrossAttentionFusion,
    chunk_limit,
    with_margin,
)
from utils.utils_registry import FUSIONS

DIM, HEADS, REACH = 8, 2, 3


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shake(module: nn.Module) -> Any:
    """Random parameters, so that none is zero or one."""
    for i, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * noise(*parameter.shape, seed=i, dtype=parameter.dtype)
    return module


def block(**options: Any) -> TemporalBlock:
    return shake(TemporalBlock(DIM, HEADS, REACH, **options).double())


def by_loops(layer: TemporalAttention, queries: Tensor, sources: Tensor) -> Tensor:
    """One pixel, head and frame after another, from the definition."""
    (batch, count, height, width, _), window = queries.shape, layer.window
    key, value = layer.key_value(sources).chunk(2, -1)
    query, out = layer.query(queries), torch.zeros_like(queries)
    depth = DIM // HEADS
    for b, t, y, x, n in torch.cartesian_prod(*map(torch.arange, (batch, count, height, width, HEADS))).tolist():
        part = slice(n * depth, (n + 1) * depth)
        scores, values = [], []
        for s, dy, dx in torch.cartesian_prod(
            torch.arange(sources.shape[1]), torch.arange(window), torch.arange(window)
        ).tolist():
            distance = t * layer.bias.steps[0] - s * layer.bias.steps[1]
            score = query[b, t, y, x, part] @ key[b, s, y + dy, x + dx, part] / depth**0.5
            score = score + layer.bias.time[n, min(max(distance, -REACH), REACH) + REACH]
            if layer.bias.place is not None:
                score = score + layer.bias.place[n, dy * window + dx]
            scores.append(score)
            values.append(value[b, s, y + dy, x + dx, part])
        out[b, t, y, x, part] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return layer.project(out)


@pytest.mark.parametrize(
    ("window", "steps", "frames", "tokens"),
    [(1, (1, 1), 3, 3), (1, (1, 2), 6, 3), (3, (1, 1), 2, 2), (1, (1, 1), 1, 1)],
)
def test_attention_equals_its_definition(window: int, steps: tuple[int, int], frames: int, tokens: int) -> None:
    layer = shake(TemporalAttention(DIM, HEADS, REACH, window, steps).double())
    queries, sources = noise(2, frames, 2, 3, DIM), noise(2, tokens, 1 + window, 2 + window, DIM, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(layer(queries, sources), by_loops(layer, queries, sources), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cross", [False, True])
def test_block_equals_its_definition(cross: bool) -> None:
    layer = block(cross=cross)
    x, spikes = noise(1, 2, 2, 3, DIM), noise(1, 2, 2, 3, DIM, seed=1)

    def normal(features: Tensor, norm: nn.LayerNorm) -> Tensor:
        centred = features - features.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    with torch.no_grad():
        queries = normal(x, layer.norm1)
        keys = normal(spikes, layer.norm_source) if layer.norm_source is not None else queries
        attended = x + by_loops(layer.attn, queries, keys)
        hidden = layer.mlp[0](normal(attended, layer.norm2))
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        reference = attended + layer.mlp[2](hidden)
        torch.testing.assert_close(layer(x, spikes if cross else None), reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 3, 5, 7, 10, 20, 35, 69, 70, 105])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_chunks_change_nothing(limit: int, window: int | None) -> None:
    """Images of 5 x 7, 3 of them; outputs and all gradients."""
    kind = {"cross": False} if window is None else {"cross": True, "window": window}
    results = []
    for tokens in (limit, 10**6):
        layer = block(max_batch_tokens=tokens, **kind)
        inputs = [noise(3, 2, 5, 7, DIM, seed=i).requires_grad_() for i in range(1 if window is None else 2)]
        out = layer(*inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), [*inputs, *layer.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("limit", [1, 4, 7, 34, 35, 71])
def test_no_chunk_is_larger_than_the_limit(limit: int) -> None:
    x, sources = noise(3, 2, 5, 7, 1), noise(3, 2, 7, 9, 1)
    sizes = []

    def centre(chunk: Tensor, part: Tensor | None) -> Tensor:
        assert part is not None
        sizes.append(chunk.shape[0] * chunk.shape[2] * chunk.shape[3])
        return part[:, :, 1:-1, 1:-1] + 0 * chunk

    assert torch.equal(over_pixels(centre, x, sources, limit), sources[:, :, 1:-1, 1:-1])
    assert max(sizes) <= limit
    assert sum(sizes) == 105


@pytest.mark.parametrize("window", [1, 3])
def test_a_pixel_sees_its_neighbourhood_at_all_times(window: int) -> None:
    layer = block(cross=True, window=window)
    x, spikes = noise(1, 3, 5, 5, DIM), noise(1, 3, 5, 5, DIM, seed=1)
    other = spikes.clone()
    other[0, 1, 2, 2] += noise(DIM, seed=2)
    with torch.no_grad():
        changed = (layer(x, spikes) != layer(x, other)).any(-1)[0]
    margin = window // 2
    expected = torch.zeros(3, 5, 5, dtype=torch.bool)
    expected[:, 2 - margin : 3 + margin, 2 - margin : 3 + margin] = True
    assert torch.equal(changed, expected)


def test_margin_repeats_the_edge() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3, 1)
    expected = [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]]
    assert with_margin(x, 1)[0, 0, :, :, 0].tolist() == expected
    assert with_margin(x, 0) is x


def test_the_bias_tells_before_from_after_and_nothing_else_does() -> None:
    layer = TemporalBlock(DIM, HEADS, REACH).double()
    x = noise(1, 4, 2, 2, DIM)

    def asymmetry() -> float:
        return float((layer(x) - layer(x.flip(1)).flip(1)).abs().max())

    with torch.no_grad():
        assert asymmetry() > 1e-5  # at the start already
        layer.attn.bias.time.zero_()
        assert asymmetry() < 1e-12


def test_near_frames_weigh_more_at_the_start() -> None:
    bias = TemporalAttention(DIM, 4, 5).bias(6, 6)
    for i in range(6):
        assert (bias[:3, i].argmax(-1) == i).all()


def test_longer_clips_share_the_farthest_distance() -> None:
    bias = shake(TemporalAttention(DIM, HEADS, REACH)).bias(9, 9)
    assert bias.shape == (HEADS, 9, 9)
    assert torch.equal(bias[:, 8, 0], bias[:, 8, 5])
    assert torch.equal(bias[:, 0, 8], bias[:, 0, 3])
    assert not torch.equal(bias[:, 8, 0], bias[:, 8, 6])


@pytest.mark.parametrize("kind", [{}, {"cross": True}, {"cross": True, "window": 3}])
def test_recomputing_changes_nothing_and_keeps_less(kind: dict) -> None:
    results = []
    for recompute in (False, True):
        layer = block(recompute=recompute, max_batch_tokens=10, **kind)
        inputs = [noise(2, 3, 4, 4, DIM, seed=i).requires_grad_() for i in range(2 if kind else 1)]
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.nbytes), t)[1], lambda t: t
        ):
            out = layer(*inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), [*inputs, *layer.parameters()]), sum(sizes)])
    *plain, plain_size = results[0]
    *recomputed, recomputed_size = results[1]
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.equal(a, b)
    assert recomputed_size < plain_size / 2


class TestFusion:
    """The registered fusion."""

    @staticmethod
    def fusion(**options: Any) -> TemporalCrossAttentionFusion:
        torch.manual_seed(0)
        return TemporalCrossAttentionFusion([DIM] * 4, REACH, [1, 1, 2, 2], **{"heads": HEADS, **options})

    @pytest.mark.parametrize("window", [1, 3])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_starts_as_the_identity_bit_for_bit(self, window: int, autocast: bool) -> None:
        fusion = self.fusion(window=window, max_batch_tokens=7)
        for stage, tokens in enumerate((3, 3, 2, 2)):
            frames = noise(2, 3, 4, 5, DIM, dtype=torch.float32)
            spikes = 100 * noise(2, tokens, 4, 5, DIM, seed=1, dtype=torch.float32)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                fused = fusion(stage, frames, spikes)
            assert torch.equal(fused, frames)

    def test_learns_at_once_and_then_everything_behind_it(self) -> None:
        fusion = self.fusion(window=3)
        frames, reference = (
            noise(1, 4, 3, 3, DIM, dtype=torch.float32),
            noise(1, 4, 3, 3, DIM, seed=2, dtype=torch.float32),
        )
        spikes = noise(1, 4, 3, 3, DIM, seed=1, dtype=torch.float32).requires_grad_()
        optimizer = torch.optim.SGD(fusion.scales[0].parameters(), lr=0.1)
        start = {name: p.detach().clone() for name, p in fusion.scales[0].named_parameters()}
        zero = {name for name, value in start.items() if not value.any() and "norm" not in name}
        assert zero == {f"{name}.{kind}" for name in ("attn.project", "mlp.2") for kind in ("weight", "bias")}
        for step in (1, 2):
            optimizer.zero_grad()
            spikes.grad = None
            (fusion(0, frames, spikes) - reference).square().sum().backward()
            optimizer.step()
            moved = {name for name, p in fusion.scales[0].named_parameters() if not torch.equal(p, start[name])}
            assert moved == (zero if step == 1 else set(start))
            assert spikes.grad is not None
            assert bool(spikes.grad.any()) == (step > 1)

    def test_is_found_under_the_documents_name(self) -> None:
        for name in ("temporal_cross_attention", "MultiScaleTemporalCrossAttnFuse"):
            assert FUSIONS.get(name) is TemporalCrossAttentionFusion

    def test_faults_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"netG\.fuse_heads.*got 3"):
            self.fusion(heads=3)
        with pytest.raises(ValueError, match=r"netG\.fuse_window.*got 2"):
            self.fusion(window=2)
        with pytest.raises(ValueError, match=r"netG\.fuse_max_batch_tokens.*got 0"):
            self.fusion(max_batch_tokens=0)
        with pytest.raises(ValueError, match=r"netG\.spike_attn_heads.*got 5"):
            SpikeTemporalSA([DIM] * 4, REACH, [1] * 4, heads=5)


def test_autocast_stays_close() -> None:
    layer = shake(TemporalBlock(DIM, HEADS, REACH, cross=True, window=3))
    x, spikes = (noise(1, 3, 4, 4, DIM, seed=i, dtype=torch.float32) for i in range(2))
    expected = layer(x, spikes)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, spikes)
    assert out.dtype == torch.float32
    assert (out - expected).abs().mean() < 0.02 * expected.abs().mean()


# The first traces alike, without a compiler and the time that it takes.
@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
            ],
        ),
    ],
)
def test_a_compiled_block_equals_the_block(backend: str) -> None:
    layer = block(cross=True, window=3).float()
    inputs = [noise(1, 3, 4, 4, DIM, seed=i, dtype=torch.float32).requires_grad_() for i in range(2)]
    leaves = [*inputs, *layer.parameters()]
    results = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend=backend)):
        out = function(*inputs)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_limits_of_the_first_documents() -> None:
    assert chunk_limit(True, 49152, 64, "square") == 49152
    assert chunk_limit(False, 49152, 64, "wide") == 4096
    with pytest.raises(ValueError, match="square, wide, tall"):
        chunk_limit(True, 1, 64, "round")


def test_the_relative_bias_starts_with_a_slope_per_head() -> None:
    """-|distance in frames| / 2^head with noise of 0.02, and -(dx^2 + dy^2) / 2^head without."""
    bias = RelativeBias(num_heads=3, reach=4, window=3, steps=(1, 1))
    slopes = torch.tensor([1.0, 0.5, 0.25])[:, None]
    time = bias.time + slopes * torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    assert time.abs().max() < 0.1 and 0.01 < time.std() < 0.03
    assert torch.equal(bias.place, -slopes * torch.tensor([2.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0]))
