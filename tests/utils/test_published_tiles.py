"""The published tester's tiles (KAIR's and VRT's main_test_vrt.py): origins, trimming, averaging, mirrored ends.

`val.tiling: "official"` is held against the rule as `tests/published_rule.py` has it, with networks whose result
depends on where a tile lies and on all that it sees.
"""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models.select_model  # noqa: F401  registers by being imported
from models.testing.restore import Restorer
from models.testing.restore import Testing as Settings
from tests.published_rule import Sizes, by_the_published_rule
from utils.tile_plan import plan_published
from utils.user_error import UserError
from utils.utils_option import load_options
from utils.utils_tile import restore_tiled

CPU = torch.device("cpu")
WINDOW = (6, 8, 8)


def aware(x: Tensor, scale: int = 1) -> Tensor:
    """(B,T,3,H,W) to (B,T,3,H*scale,W*scale): the frames, their mean over the tile, and ramps over its extent."""
    y = x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    frames, rows, columns = (torch.linspace(0, 0.1, y.shape[axis]) for axis in (1, 3, 4))
    ramp = frames[:, None, None, None] + rows[:, None] + 2 * columns
    return 0.5 * y + 0.2 * x.mean() + ramp


def clip(frames: int, rows: int, columns: int) -> Tensor:
    return torch.rand(1, frames, 3, rows, columns, generator=torch.Generator().manual_seed(frames))


CASES = [
    ((12, 16, 16), (2, 4, 4), 1, (30, 40, 56)),  # several of everything
    ((12, 16, 16), (2, 5, 5), 1, (13, 35, 16)),  # an odd overlap, the last tiles moved back, one column of tiles
    ((6, 16, 16), (2, 6, 6), 4, (7, 24, 29)),  # super-resolution: the trim counts output pixels
    ((12, 16, 16), (2, 4, 4), 1, (5, 9, 12)),  # smaller than a tile: nothing is mirrored
    ((0, 0, 0), (2, 20, 20), 1, (7, 21, 30)),  # untiled: frames, rows and columns are mirrored
    ((0, 16, 16), (0, 4, 4), 2, (2, 20, 33)),  # mirrored in time alone, as often as there are frames
    ((6, 0, 0), (2, 4, 4), 1, (11, 3, 18)),  # in space alone
]


@pytest.mark.parametrize(("tile", "overlap", "scale", "size"), CASES)
def test_official_tiles_are_the_published_rule(tile: Sizes, overlap: Sizes, scale: int, size: Sizes) -> None:
    lq, net = clip(*size), functools.partial(aware, scale=scale)
    expected = by_the_published_rule(net, lq, tile, overlap, WINDOW, scale)
    found = restore_tiled(net, lq, tile=tile, overlap=overlap, scale=scale, window=WINDOW, published=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    settings = Settings(tile=tile, tile_overlap=overlap, scale=scale, window=WINDOW, tile_batch=3, published=True)
    restorer = Restorer(torch.nn.Module(), settings, CPU)
    restorer.network = lambda x: torch.cat([net(part) for part in x.split(1)])  # type: ignore[assignment]
    frames = dict(restorer.frames(lambda begin, end: (lq[:, begin:end], None), size[0]))
    torch.testing.assert_close(torch.stack([frames[k] for k in sorted(frames)])[None], expected, rtol=0, atol=1e-6)
    ours = restore_tiled(net, lq, tile=tile, overlap=overlap, scale=scale, window=WINDOW)
    assert (ours - expected).abs().max() > 1e-3 or size == (5, 9, 12), "this network can't tell the rules apart"


def test_golden_origins_and_trims_of_the_published_setting_for_gopro() -> None:
    """Tile 18 192 192, overlap 2 20 20, 100 frames of 720p."""
    rows = plan_published(720, 192, 20, trims=True)
    assert [part.begin for part in rows] == [0, 172, 344, 516, 528]
    assert [(part.place.start, part.place.stop) for part in rows] == [
        (0, 182),
        (182, 354),
        (354, 526),
        (526, 698),
        (538, 720),
    ]
    assert rows[3].weights[:12].tolist() == [1] * 12 and rows[3].weights[12:].tolist() == [0.5] * 160
    assert [part.begin for part in plan_published(1280, 192, 20, trims=True)] == [*range(0, 1088, 172), 1088]
    frames = plan_published(100, 18, 2, trims=False)
    assert [part.begin for part in frames] == [0, 16, 32, 48, 64, 80, 82]
    assert frames[0].weights.tolist() == [1] * 16 + [0.5] * 2 and frames[-1].weights.tolist() == [0.5] * 16 + [1] * 2
    # Super-resolution by 4: neighbours share 80 output pixels and lose 20 of them.
    first, second, *_ = plan_published(320, 128, 20, trims=True, scale=4)
    assert (first.place.stop, second.place.start) == (4 * 128 - 10, 4 * 108 + 10)


def test_without_an_overlap_nothing_is_trimmed() -> None:
    """The published tester throws whole tiles away and divides by zero."""
    lq = clip(2, 32, 32)
    found = restore_tiled(lambda x: x, lq, tile=(0, 16, 16), overlap=(0, 0, 0), window=(2, 8, 8), published=True)
    torch.testing.assert_close(found, lq, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("frames", "order"), [(8, [*range(8), 7, 6, 5, 4]), (6, [*range(6)]), (2, [0, 1, 1, 0]), (1, [0, 0])]
)
def test_our_default_completes_the_last_frames_too(frames: int, order: list[int]) -> None:
    """Rows and columns are left to the network, which pads them by itself."""
    lq, seen = clip(frames, 21, 30), []

    def record(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    found = restore_tiled(record, lq, window=WINDOW)
    assert len(seen) == 1 and torch.equal(seen[0], lq[:, order])
    torch.testing.assert_close(found, lq, rtol=0, atol=0)


GOPRO = Path(__file__).resolve().parents[2] / "options/vrt/test/006_VRT_videodeblurring_GoPro.json"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (['val.tile="auto"'], "name a tile"),
        (["val.tile=[12,128,192]"], "its tiles are square"),
        (["val.blend=[0,8,8]"], "leave blend out"),
    ],
)
def test_what_the_published_tester_cannot_do_is_refused(changes: list[str], told: str) -> None:
    assert load_options(GOPRO, ["val.tiling=official"]).val.tiling == "official"
    with pytest.raises(UserError, match=told):
        load_options(GOPRO, ["val.tiling=official", *changes])


def test_official_tiles_are_not_made_smaller() -> None:
    class Hungry(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("out of memory")

    settings = Settings(tile=(6, 16, 16), tile_overlap=(2, 4, 4), window=WINDOW, published=True)
    lq = clip(6, 32, 32)
    with pytest.raises(UserError, match="choose a smaller --tile, or --tiling even"):
        list(Restorer(Hungry(), settings, CPU).frames(lambda begin, end: (lq[:, begin:end], None), 6))
