"""Restoring within memory: padding and reversal, halving when memory runs out, the automatic tile, constant memory."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.layers.ops.chunks import laid_out_for
from models.testing import restore as restore_module
from models.testing.auto_tile import TileCost, choose_tile
from models.testing.cuda_graphs import GraphedNetwork
from models.testing.restore import Restorer, _tell_no_graphs
from models.testing.restore import Testing as Settings  # pytest would collect the name
from tests.fresh_memory import fresh_ones
from tests.tiny import environment
from utils.options.schema import ValOptions
from utils.utils_memory import used_memory
from utils.utils_tile import Tiling

CPU = torch.device("cpu")


def clip(frames: int, size: tuple[int, int] = (16, 20)) -> Tensor:
    return torch.rand(1, frames, 3, *size, generator=torch.Generator().manual_seed(frames)) / 5


def restore(network: nn.Module, lq: Tensor, settings: Settings) -> Tensor:
    """The whole restored clip, (1,T,C,H,W)."""
    restorer = Restorer(network, settings, CPU)
    created = list(restorer.frames(lambda begin, end: (lq[:, begin:end], None), lq.shape[1]))
    assert [index for index, _ in created] == list(range(lq.shape[1]))
    return torch.stack([frame for _, frame in created])[None]


class Causal(nn.Module):
    """Frame t becomes half the running sum up to t: what a frame becomes depends on order and position in the clip."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) / 2


class FutureSum(nn.Module):
    """Frame t becomes a tenth of the sum of frames t to the end, so that padding at the end shows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1).cumsum(1).flip(1) / 10


class Limited(nn.Module):
    """Fails above a number of pixels of all tiles at once, as a GPU does."""

    def __init__(self, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        if x.numel() // x.shape[2] > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2 GiB")
        return x / 2


def test_plain() -> None:
    lq = clip(5)
    assert torch.equal(restore(Causal(), lq, Settings()), lq.cumsum(1) / 2)
    assert torch.equal(restore(Causal(), lq, Settings(tile=(5, 16, 20), tile_overlap=(2, 4, 4))), lq.cumsum(1) / 2)


def test_pad_seq_repeats_the_last_frame_and_drops_it() -> None:
    lq, network = clip(4), FutureSum()
    padded = torch.cat([lq, lq[:, -1:]], 1)
    restored = restore(network, lq, Settings(pad_seq=True))
    assert torch.equal(restored, network(padded)[:, :4]) and not torch.allclose(restored, network(lq))
    tiled = restore(nn.Identity(), lq, Settings(pad_seq=True, tile=(2, 0, 0), tile_overlap=(0, 0, 0)))
    assert torch.equal(tiled, lq)


def test_flip_seq_averages_both_directions() -> None:
    lq = clip(4)
    expected = (lq.cumsum(1) / 2 + (lq.flip(1).cumsum(1) / 2).flip(1)) / 2
    restored = restore(Causal(), lq, Settings(flip_seq=True))
    torch.testing.assert_close(restored, expected)
    # A clip and its reverse get the same result, reversed.
    torch.testing.assert_close(restore(Causal(), lq.flip(1), Settings(flip_seq=True)), restored.flip(1))


def test_flip_seq_reverses_the_padded_clip() -> None:
    """As KAIR does."""
    lq, network = clip(3), FutureSum()
    padded = torch.cat([lq, lq[:, -1:]], 1)
    expected = (network(padded) + network(padded.flip(1)).flip(1))[:, :3] / 2
    torch.testing.assert_close(restore(network, lq, Settings(flip_seq=True, pad_seq=True)), expected)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_running_out_of_memory_halves_the_tile(error: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    """First fewer tiles at once, then smaller ones along the longer side; what is restored is the same."""
    lq, network = clip(3, (32, 64)), Limited(3 * 16 * 16, error)
    settings = Settings(tile=(0, 32, 32), tile_overlap=(0, 8, 8), tile_batch=4, window=(1, 8, 8))
    torch.testing.assert_close(restore(network, lq, settings), lq / 2)
    # 64 columns in tiles of 32 that share 8: three, one with the next two apart.
    assert network.shapes[:4] == [(3, 3, 3, 32, 32), (2, 3, 3, 32, 32), (1, 3, 3, 32, 32), (1, 3, 3, 16, 32)]
    assert set(network.shapes[4:]) == {(1, 3, 3, 16, 16)}
    assert "goes on in tiles of 16 rows, 32 columns, 1 at once" in caplog.text


def test_then_it_halves_frames() -> None:
    """Frames that are done stay done: none is made twice but those of the halo."""
    lq, network = clip(16, (16, 16)), Limited(5 * 16 * 16)
    settings = Settings(tile=(8, 16, 16), tile_overlap=(2, 8, 8), window=(1, 8, 8))
    torch.testing.assert_close(restore(network, lq, settings), lq / 2)
    assert [shape[1] for shape in network.shapes[:2]] == [7, 4] and max(shape[1] for shape in network.shapes[1:]) == 4


def test_nothing_fits() -> None:
    settings = Settings(tile=(4, 16, 16), tile_overlap=(1, 4, 4), window=(1, 8, 8))
    with pytest.raises(ValueError, match="max_memory: even a tile of 2 frames, 16 x 16, does not fit"):
        restore(Limited(10), clip(6, (32, 32)), settings)


@pytest.mark.parametrize("tile", ["auto", (0, 0, 0)])
def test_less_memory_than_the_process_holds(tile: Any) -> None:
    with pytest.raises(ValueError, match=r"max_memory: 0\.01 GB are allowed, and .* the process holds .* allow more"):
        Restorer(Limited(10), Settings(tile=tile, max_memory=10_000_000), CPU)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        restore(Limited(1, ZeroDivisionError), clip(2), Settings())


class Greedy(nn.Module):
    """Takes 600 bytes per pixel of a tile, in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.take, self.sizes = Take(), []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape[-2:]))
        return x * self.take(x)


class Take(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(fresh_ones(150 * x.shape[-2] * x.shape[-1])).view(150, *x.shape[-2:])[:1]


def test_the_budget_of_a_cpu_is_kept() -> None:
    """A first tile that takes more than allowed is halved; the network sees none twice as large as fits."""
    lq, network = clip(1, (640, 640)), Greedy()
    limit = used_memory(CPU) + 100_000_000
    settings = Settings(tile_overlap=(0, 16, 16), window=(1, 8, 8), max_memory=limit)
    torch.testing.assert_close(restore(network, lq, settings), lq)
    assert network.sizes[0] == (640, 640) and max(a * b for a, b in network.sizes[2:]) * 600 < 130_000_000


def test_the_automatic_tile_is_the_largest_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lq, network = clip(1, (640, 640)), Greedy()
    settings = Settings(tile="auto", tile_overlap=(0, 16, 16), window=(1, 8, 8))
    limit = used_memory(CPU) + 100_000_000
    restored = restore(network, lq, Settings(**{**vars(settings), "max_memory": limit}))
    torch.testing.assert_close(restored, lq)
    side = max(a * b for a, b in network.sizes)
    assert 10_000_000 < side * 600 < 105_000_000
    assert re.search(r"tile auto: 1 frames, \d+ x \d+, expected to take", caplog.text)
    assert restore(Greedy(), lq, settings).shape == lq.shape


def test_graphs_are_for_gpus(caplog: pytest.LogCaptureFixture) -> None:
    """On a CPU one line says so, however often clips are restored."""
    _tell_no_graphs.cache_clear()
    settings = Settings.from_options(ValOptions(cuda_graphs=True), 1, None)
    for _ in range(2):
        assert torch.equal(restore(Causal(), clip(3), settings), clip(3).cumsum(1) / 2)
    assert caplog.messages == ["val.cuda_graphs has no effect on a cpu: graphs are for CUDA GPUs"]


def test_automatic_tiles_leave_room_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep a pass's memory; those of other tiles are let go, and measuring makes none."""
    rooms: list[float] = []
    graphed = GraphedNetwork(Greedy().eval())

    def choose(cost: TileCost, *remaining: Any) -> tuple[int, int, int]:
        rooms.append(remaining[-1])
        assert not graphed._seen
        return choose_tile(cost, *remaining)

    monkeypatch.setattr(restore_module, "choose_tile", choose)
    monkeypatch.setattr(restore_module, "used_memory", lambda _: 0)
    limit = used_memory(CPU) + 600_000_000
    settings = Settings(tile="auto", tile_overlap=(0, 16, 16), window=(1, 8, 8), max_memory=limit)
    restorer = Restorer(graphed.network, settings, CPU)
    lq = clip(1, (256, 256))
    for graphs in (None, graphed):
        restorer._graphs = graphs
        with laid_out_for("cuda"):
            list(restorer.frames(lambda begin, end: (lq[:, begin:end], None), 1))
    assert rooms == [limit, limit // 2] and graphed._seen
    restorer._use(replace(restorer.tiling, tile=(1, 64, 64)))
    assert not graphed._seen


COST = TileCost(fixed=1e6, per_pixel=100.0, per_host_pixel=10.0)


def test_what_is_chosen_fits_and_computes_least() -> None:
    tiling, size = Tiling(overlap=(2, 16, 16), window=(6, 8, 8)), (720, 1280)
    entire = choose_tile(COST, 30, size, (8, 8), tiling, 1e12)
    assert entire == (30, *size)
    assert choose_tile(COST, 1000, size, (8, 8), tiling, 1e12) == (42, *size)  # a clip's length is no excuse
    shares = []
    for room in (2e9, 1e9, 0.5e9):
        tile = choose_tile(COST, 100, size, (8, 8), tiling, room)
        assert COST.of(tile, size) <= room and tile[0] % 6 == 0 and tile[1] % 8 == 0 and tile[2] % 8 == 0
        shares.append(Tiling(tile, (2, 16, 16), window=(6, 8, 8)).computed((100, *size)))
    assert shares == sorted(shares)
    with pytest.raises(ValueError, match=r"a tile of 6 frames, 32 x 32, takes about .* GB, 0\.00 GB are left"):
        choose_tile(COST, 100, size, (8, 8), tiling, 1e6)


MEASURE = """
import sys, resource, torch
from types import SimpleNamespace
from models.testing.evaluate import Testing, evaluate
frames = int(sys.argv[1])
class Clips:
    clips = [SimpleNamespace(name="c", frames=tuple(map(str, range(frames))), target=None)]
    def load(self, index, begin, end):
        return {"L": torch.full((end - begin, 3, 144, 256), 0.5)}
torch.set_num_threads(1)
settings = Testing(tile=(12, 96, 0), tile_overlap=(2, 16, 0))
seen = []
evaluate(torch.nn.Identity(), Clips(), settings, torch.device("cpu"), on_frame=lambda result: seen.append(result.frame))
assert len(seen) == frames
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(repository: Path) -> None:
    """600 frames of 144x256 are 265 MB as floats; the peak of 60 and of 600 frames differs by less than 10 %."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MEASURE, str(frames)],
                cwd=repository,
                env=environment(),
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for frames in (60, 600)
    ]
    assert peaks[1] < 1.1 * peaks[0], peaks


def test_what_a_tile_is_expected_to_take_has_a_margin() -> None:
    """Of 15 % on all that grows with the tile: 100 bytes per pixel of the tile, 10 per pixel of whole frames."""
    assert COST.of((6, 32, 32), (64, 64)) == 1e6 + 1.15 * (100 * 6 * 32 * 32 + 10 * 6 * 64 * 64)


def test_running_out_of_memory_raises_the_expected_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next clip begins with a smaller tile."""
    monkeypatch.setattr(restore_module, "measure_cost", lambda *_: COST)
    settings = Settings(tile="auto", tile_overlap=(0, 8, 8), window=(1, 8, 8), max_memory=used_memory(CPU) + 10**9)
    restorer = Restorer(Limited(2 * 32 * 32), settings, CPU)
    lq = clip(2, (64, 64))
    list(restorer.frames(lambda begin, end: (lq[:, begin:end], None), 2))
    assert restorer._cost is not None and restorer._cost.per_pixel == 1.5**2 * COST.per_pixel
    assert (restorer._cost.fixed, restorer._cost.per_host_pixel) == (COST.fixed, COST.per_host_pixel)
