"""Tiled restoration: exact for what it must be exact for, equal to KAIR's official tester, clear about bad tiles."""

import functools
import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from utils.tile_plan import check_tile, plan_axis, plan_time
from utils.utils_tile import Tiling, restore_tiled

Sizes = tuple[int, int, int]


def video(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Sizes, Sizes, Sizes, tuple[int | None, ...], int]:
    """Sizes of a video, tile, overlap, blend, and scale."""
    axes = []
    for longest in (8, 21, 21):
        length = draw(st.integers(1, longest))
        tile = draw(st.integers(0, longest + 3))
        overlap = draw(st.integers(0, max(tile - 1, 0)))
        axes.append((length, tile, overlap, draw(st.none() | st.integers(0, overlap))))
    lengths, tile, overlap, blend = zip(*axes, strict=True)
    return lengths, tile, overlap, blend, draw(st.sampled_from([1, 1, 2, 3]))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tilings())
def test_identity_and_constant_networks_come_out_exact(tiling: tuple) -> None:
    (frames, rows, columns), tile, overlap, blend, scale = tiling
    lq = video(1, frames, 3, rows, columns)

    def identity(x: Tensor) -> Tensor:
        return x.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)

    tiled = functools.partial(restore_tiled, lq=lq, tile=tile, overlap=overlap, blend=blend, scale=scale)
    torch.testing.assert_close(tiled(identity), identity(lq), rtol=0, atol=1e-6)
    constant = tiled(lambda x: torch.full_like(identity(x), 0.7))
    torch.testing.assert_close(constant, torch.full_like(identity(lq), 0.7), rtol=0, atol=1e-6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(0, 40), st.data())
def test_weights_sum_to_one_and_are_full_at_true_borders(length: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, max(tile - 1, 0)))
    blend = data.draw(st.none() | st.integers(0, overlap))
    plan = plan_axis(length, tile, overlap, blend=blend)
    total = torch.zeros(length)
    for segment in plan:
        assert (segment.weights > 0).all()
        total[segment.place] += segment.weights
    torch.testing.assert_close(total, torch.ones(length), rtol=0, atol=1e-6)
    assert plan[0].begin == 0 and plan[-1].end == length
    if len(plan) > 1 and blend is not None and overlap <= tile // 2:
        assert plan[0].weights[0] == 1 and plan[-1].weights[-1] == 1


@pytest.mark.parametrize("blend", [(0, 0, 0), (0, 4, 2), (2, 4, 4)])
def test_a_local_network_equals_its_whole_output_where_the_halo_covers_its_radius(blend: Sizes) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 3, 3, padding=1)

    def local(x: Tensor) -> Tensor:
        return conv(x.transpose(1, 2)).transpose(1, 2)

    lq = video(2, 9, 3, 30, 35)
    overlap = tuple(b + 2 for b in blend)
    with torch.no_grad():
        entire = local(lq)
        for tile in ((5, 12, 13), (0, 10, 0), (6, 0, 35)):
            tiled = restore_tiled(local, lq, tile=tile, overlap=overlap, blend=blend)
            torch.testing.assert_close(tiled, entire, rtol=0, atol=1e-6)
        # One pixel of halo less must show, or the test above says nothing.
        tight = restore_tiled(local, lq, tile=(0, 12, 0), overlap=(0, 1, 0), blend=(0, 1, 0))
        assert (tight - entire).abs().max() > 1e-3


def test_a_network_that_knows_its_place_gets_it() -> None:
    lq = torch.arange(4 * 20 * 18).float().reshape(1, 4, 1, 20, 18)
    seen = []

    def record(x: Tensor) -> Tensor:
        seen.append((int(x[0, 0, 0, 0, 0]), tuple(x.shape)))
        return x

    restored = restore_tiled(record, lq, tile=(0, 8, 0), overlap=(0, 2, 0))
    assert seen == [(row * 18, (1, 4, 1, 8, 18)) for row in (0, 6, 12)]
    torch.testing.assert_close(restored, lq, rtol=0, atol=0)


def kair_like(net: nn.Module, lq: Tensor, tile: Sizes, overlap: Sizes, scale: int = 1) -> Tensor:
    """The official tester's rule, by masks over the whole picture: a slow second implementation."""

    def starts(length: int, size: int, shared: int) -> list[int]:
        return [*range(0, length - size, size - shared), max(0, length - size)]

    _, frames, _, height, width = lq.shape
    summed = torch.zeros(*lq.shape[:2], 3, height * scale, width * scale, dtype=torch.float64)
    count = torch.zeros_like(summed)
    clips = starts(frames, tile[0], overlap[0]) if tile[0] else [0]
    rows, columns = starts(height, tile[1], overlap[1]), starts(width, tile[2], overlap[2])
    for clip in clips:
        time = slice(clip, clip + (tile[0] or frames))
        clip_sum, clip_count = torch.zeros_like(summed[:, time]), torch.zeros_like(summed[:, time])
        for row in rows:
            for column in columns:
                patch = net(lq[:, time, :, row : row + tile[1], column : column + tile[2]]).double()
                mask = torch.ones_like(patch)
                for axis, size, shared, first, last in (
                    (3, tile[1], overlap[1], row == rows[0], row == rows[-1]),
                    (4, tile[2], overlap[2], column == columns[0], column == columns[-1]),
                ):
                    if not first:
                        mask.narrow(axis, 0, shared // 2 * scale).zero_()
                    if not last:
                        cut = (shared - shared // 2) * scale
                        mask.narrow(axis, size * scale - cut, cut).zero_()
                y, x = row * scale, column * scale
                where = (..., slice(y, y + tile[1] * scale), slice(x, x + tile[2] * scale))
                clip_sum[where] += patch * mask
                clip_count[where] += mask
        summed[:, time] += clip_sum / clip_count
        count[:, time] += 1
    return (summed / count).float()


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(
    "tile, overlap", [((4, 16, 16), (2, 4, 4)), ((0, 19, 16), (0, 5, 3)), ((3, 12, 24), (1, 5, 6))]
)
def test_where_no_tile_is_ragged_kairs_blend_is_the_official_testers_rule(
    tile: Sizes, overlap: Sizes, scale: int
) -> None:
    torch.manual_seed(1)
    conv = nn.Conv3d(3, 3, 7, padding=3)  # wider than the halo, so that seams show

    def net(x: Tensor) -> Tensor:
        y = conv(x.transpose(1, 2)).transpose(1, 2)
        return y.repeat_interleave(scale, -2).repeat_interleave(scale, -1)

    frames, rows, columns = (3 * size - 2 * shared if size else 7 for size, shared in zip(tile, overlap, strict=True))
    lq = video(1, frames, 3, rows, columns)
    with torch.no_grad():
        ours = restore_tiled(net, lq, tile=tile, overlap=overlap, scale=scale)
        torch.testing.assert_close(ours, kair_like(net, lq, tile, overlap, scale), rtol=0, atol=1e-6)
        assert (ours - net(lq)).abs().max() > 1e-3


def test_a_single_tile_is_the_network_itself() -> None:
    torch.manual_seed(2)
    conv = nn.Conv2d(3, 3, 5, padding=2)

    def net(x: Tensor) -> Tensor:
        return torch.stack([conv(frame) for frame in x.unbind(1)], dim=1)

    lq = video(2, 3, 3, 17, 23)
    with torch.no_grad():
        for tile in ((0, 0, 0), (3, 17, 23), (40, 128, 128)):
            assert torch.equal(restore_tiled(net, lq, tile=tile, overlap=(2, 16, 16)), net(lq))


@pytest.mark.parametrize("spike_size, tile", [((12, 16), (3, 10, 12)), ((6, 8), (0, 8, 8)), ((24, 32), (2, 7, 9))])
def test_spikes_are_cut_by_the_same_box(spike_size: tuple[int, int], tile: Sizes) -> None:
    ratio = 24 // spike_size[0]
    spike = video(1, 5, 1, *spike_size)
    lq = spike.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)

    def difference(frames: Tensor, spikes: Tensor) -> Tensor:
        return frames - spikes.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)

    assert restore_tiled(difference, lq, spike, tile=tile, overlap=(1 if tile[0] else 0, 3, 4)).abs().max() == 0


def test_spikes_at_an_uneven_ratio_are_cut_on_whole_spike_pixels() -> None:
    lq, spike = video(1, 2, 3, 36, 27), video(1, 2, 4, 20, 15)  # 9 rows of pictures hold 5 rows of spikes
    boxes = []

    def net(frames: Tensor, spikes: Tensor) -> Tensor:
        boxes.append((frames.shape[3], spikes.shape[3], frames.shape[4], spikes.shape[4]))
        return frames

    torch.testing.assert_close(restore_tiled(net, lq, spike, tile=(0, 18, 18), overlap=(0, 4, 9)), lq)
    assert set(boxes) == {(18, 10, 18, 10)}
    with pytest.raises(ValueError, match=r"20 rows.*9 rows at a time.*18 or 27"):
        restore_tiled(net, lq, spike, tile=(0, 20, 0), overlap=(0, 4, 0))


def test_networks_that_interpolate_or_change_channels() -> None:
    lq = video(1, 4, 4, 20, 20)

    def middle(x: Tensor) -> Tensor:
        return x[:, 1:2, :3]

    restored = restore_tiled(middle, lq, tile=(0, 8, 8), overlap=(0, 2, 2))
    torch.testing.assert_close(restored, lq[:, 1:2, :3], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="tiled in time"):
        restore_tiled(middle, lq, tile=(2, 8, 8), overlap=(0, 2, 2))
    with pytest.raises(ValueError, match="option scale"):
        restore_tiled(lambda x: x, lq, tile=(0, 8, 8), overlap=(0, 2, 2), scale=2)


def test_results_are_float32_on_the_cpu_and_free_of_graphs() -> None:
    gain = nn.Parameter(torch.ones((), dtype=torch.bfloat16))
    lq = video(1, 2, 2, 12, 12).bfloat16()
    for tile in ((0, 0, 0), (1, 5, 6)):
        restored = restore_tiled(lambda x: x * gain, lq, tile=tile, overlap=(0, 2, 2))
        assert restored.dtype == torch.float32 and not restored.requires_grad


def test_what_lies_in_the_halo_is_discarded_and_not_multiplied_by_zero() -> None:
    def broken_rim(x: Tensor) -> Tensor:
        return F.pad(x[..., 2:-2, 2:-2], (2, 2, 2, 2), value=float("nan"))

    lq = video(1, 1, 3, 30, 30)
    restored = restore_tiled(broken_rim, lq, tile=(0, 12, 12), overlap=(0, 4, 4))
    torch.testing.assert_close(restored[..., 2:-2, 2:-2], lq[..., 2:-2, 2:-2], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "tile, overlap, blend, message",
    [
        ((0, 8, 8), (0, 8, 2), (None, 0, 0), "tile_overlap: 8 rows are not less than the tile of 8; use at most 7"),
        ((4, 0, 0), (4, 0, 0), (None, 0, 0), "tile_overlap: 4 frames"),
        ((0, 8, -8), (0, 2, 2), (None, 0, 0), "must not be negative"),
        ((0, 8, 8), (0, 2, 2), (None, 3, 0), "blend: 3 rows are more than the overlap of 2"),
        ((8, 8), (0, 2, 2), (None, 0, 0), "tile takes three numbers"),
    ],
)
def test_impossible_tilings_are_refused(tile: tuple, overlap: tuple, blend: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        restore_tiled(nn.Identity(), video(1, 6, 3, 20, 20), tile=tile, overlap=overlap, blend=blend)


def test_spikes_of_another_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong"):
        restore_tiled(max, video(1, 6, 3, 8, 8), video(1, 5, 4, 4, 4), tile=(0, 0, 0), overlap=(0, 0, 0))


def test_check_tile_names_the_nearest_valid_sizes() -> None:
    check_tile((40, 128, 256), (6, 8, 8))
    check_tile((0, 0, 0), (6, 8, 8))
    with pytest.raises(ValueError, match=r"190 columns.*184 or 192"):
        check_tile((12, 192, 190), (6, 8, 8))
    with pytest.raises(ValueError, match=r"5 rows.*use 8, or 0"):
        check_tile((2, 5, 8), (6, 8, 8))


def test_tiles_are_spread_evenly_on_whole_windows() -> None:
    """At the published setting for GoPro a frame's pixels are computed 1.34 times, by KAIR's rule 1.6 times."""
    tiling, size = Tiling((18, 192, 192), (2, 20, 20), window=(6, 8, 8)), (720, 1280)
    for plan, length in zip(tiling.space(size), size, strict=True):
        assert all(part.begin % 8 == 0 and part.end - part.begin == plan[0].end <= 192 for part in plan)
        assert all(before.end - after.begin >= 20 for before, after in itertools.pairwise(plan))
        assert plan[-1].end == length
    assert Tiling((0, 192, 192), (0, 20, 20), window=(1, 8, 8)).computed((1, *size)) <= 1.35
    assert tiling.computed((100, *size)) < 1.7 < 1.6 * 7 * 18 / 100


def test_the_last_tile_ends_with_a_picture_that_is_no_whole_number_of_windows() -> None:
    plan = plan_axis(501, 192, 20, window=8)
    assert [(part.begin % 8, part.end) for part in plan] == [(0, 184), (0, 344), (0, 501)]
    lq = video(1, 1, 3, 37, 45)
    tiled = restore_tiled(
        lambda x: x, lq, tile=(0, 16, 16), overlap=(0, 4, 4), blend=(0, 2, 4), window=(1, 8, 8), batch=3
    )
    torch.testing.assert_close(tiled, lq, rtol=0, atol=1e-6)


@pytest.mark.parametrize("frames", [19, 77, 100])
def test_windows_of_frames_are_whole_attention_windows(frames: int) -> None:
    plan = plan_time(frames, 40, 2, window=6) + plan_time(frames, 18, 2, window=6)
    assert all((part.end - part.begin) % 6 == 0 or part.end - part.begin == frames for part in plan)
    assert all(part.begin % 2 == 0 or part.end == frames for part in plan)


@pytest.mark.parametrize("batch", [2, 5, 100])
def test_tiles_that_go_together_are_those_that_go_alone(batch: int) -> None:
    torch.manual_seed(3)
    conv = nn.Conv3d(3, 3, 3, padding=1)
    calls = []

    def net(x: Tensor) -> Tensor:
        calls.append(len(x))
        return conv(x.transpose(1, 2)).transpose(1, 2)

    lq = video(2, 4, 3, 30, 37)
    settings = {"tile": (0, 16, 16), "overlap": (0, 4, 4), "window": (1, 8, 8)}
    with torch.no_grad():
        alone = restore_tiled(net, lq, **settings)
        count, calls[:] = sum(calls), []
        together = restore_tiled(net, lq, **settings, batch=batch)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert sum(calls) == count and 2 < max(calls) <= 2 * batch
