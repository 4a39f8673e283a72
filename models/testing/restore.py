"""Restores clips through a network in tiles that fit into memory; frames come out as soon as they are complete.

    restorer = Restorer(network, Testing(tile=(18, 192, 192), tile_overlap=(2, 20, 20)), device)
    for index, frame in restorer.frames(read, frames=100): ...      # frame (C,H,W) float32 on the CPU

`tile` "auto" measures what two small tiles take and chooses, of all tiles that fit into `max_memory`, the one that
computes the fewest pixels twice. Where memory runs out all the same, a tile is halved and the work goes on.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor, nn

from models.testing.auto_tile import TileCost, choose_tile, least_side, measure_cost, tile_units
from models.testing.cuda_graphs import GraphedNetwork
from utils.tile_plan import Blend
from utils.user_error import UserError
from utils.utils_memory import (
    SAFE_SHARE,
    free_memory,
    give_back_memory,
    is_out_of_memory,
    memory_limit,
    parse_memory,
    used_memory,
)
from utils.utils_option import NetworkOptions, ValOptions
from utils.utils_registry import NETWORKS
from utils.utils_tile import KAIR_BLEND, Tiling, check_video, restore_window, stream

logger = logging.getLogger(__name__)

Read = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""Frames [begin, end) of a clip: (1,t,C,H,W), and its spikes (1,t,K,h,w) or None."""


@dataclass(frozen=True)
class Testing:
    """How a clip is restored.

    Attributes:
        tile: frames, rows and columns of a tile at most, 0 takes the whole axis; "auto": as memory allows.
        tile_overlap: how much neighbouring tiles share at least, per axis.
        blend: per axis how much of that is led over from tile to tile; None averages all of it.
        scale: size of the output over that of the input.
        amp_dtype: type of autocast, or None.
        pad_seq: repeat the last frame once and drop its result.
        flip_seq: restore each tile in reverse too and average.
        center_frame_only: keep the result of the middle frame alone.
        window: rows and columns of tiles are multiples of it: the network's attention window, or its `tile_multiple`.
        tile_batch: tiles that go through the network at once.
        max_memory: bytes on the device, or None.
        published: exactly the official tester's tiles.
        cuda_graphs: replay the network from CUDA graphs, on a GPU (`models/testing/cuda_graphs.py`); "auto": of the
            sizes of tiles for which that is faster.
    """

    tile: tuple[int, int, int] | Literal["auto"] = (0, 0, 0)
    tile_overlap: tuple[int, int, int] = (0, 0, 0)
    blend: Blend = KAIR_BLEND
    scale: int = 1
    amp_dtype: torch.dtype | None = None
    pad_seq: bool = False
    flip_seq: bool = False
    center_frame_only: bool = False
    window: tuple[int, int, int] = (1, 1, 1)
    tile_batch: int = 1
    max_memory: int | None = None
    cuda_graphs: bool | Literal["auto"] = False
    published: bool = False

    @classmethod
    def from_options(
        cls,
        val: ValOptions,
        scale: int,
        amp_dtype: torch.dtype | None,
        netG: NetworkOptions | None = None,
    ) -> "Testing":
        """The settings of the `val` section, for the network of a section."""
        multiple = (1, 1, 1) if netG is None else getattr(NETWORKS.get(netG.net_type), "tile_multiple", (1, 1, 1))
        window = getattr(netG, "window_size", multiple)
        return cls(
            tile=val.tile_size,
            tile_overlap=val.tile_overlap_size,
            blend=val.blend_size,
            scale=scale,
            amp_dtype=amp_dtype,
            pad_seq=val.pad_seq,
            flip_seq=val.flip_seq,
            center_frame_only=val.center_frame_only,
            window=(window[0], window[1], window[2]),
            tile_batch=val.tile_batch,
            max_memory=None if val.max_memory is None else parse_memory(val.max_memory),
            cuda_graphs=val.cuda_graphs,
            published=val.tiling == "official",
        )


class TooLarge(Exception):
    """A window of frames can't be restored in smaller tiles than it was tried in."""


class Restorer:
    """A network with the tiles it is used in.

    Args:
        network: takes (B,T,C,H,W), and where there are spikes of their own also (B,T,K,h,w); its mode is not changed.
            With `cuda_graphs` it must not be moved while this is in use.

    Attributes:
        tiling: the tiles in use, made smaller when memory runs out.
    """

    def __init__(self, network: nn.Module, testing: Testing, device: torch.device) -> None:
        self.network, self.testing, self.device = network, testing, device
        self._graphs: GraphedNetwork | None = None
        if testing.cuda_graphs and device.type == "cuda":
            self._graphs = GraphedNetwork(network, measured=testing.cuda_graphs == "auto")
        elif testing.cuda_graphs is True:
            _tell_no_graphs(device.type)
        self.limit = testing.max_memory
        if testing.tile == "auto" and self.limit is None:
            self.limit = used_memory(device) + int(SAFE_SHARE * free_memory(device))
        self._check_limit()
        self.tiling = self._tiling((0, 0, 0) if testing.tile == "auto" else testing.tile)
        self._cost: TileCost | None = None

    def frames(
        self, read: Read, frames: int, is_needed: Callable[[int], bool] = lambda _: True, interpolates: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Yields index and picture (C,H*scale,W*scale) of the needed frames, in order, float32 on the CPU.

        Args:
            read: reads frames [begin, end) of the clip; called for one window after the other.
            frames: length of the clip.
            is_needed: whether a frame has to be restored.
            interpolates: the network may return another number of frames than it gets.

        Raises:
            UserError: the clip can't be restored as asked, or not within the memory that is there.
        """
        start, padded = 0, frames + self.testing.pad_seq
        if self.testing.tile == "auto":
            self._use(self._chosen(read, padded))
        while True:
            # After a smaller tile was chosen, what comes before `start` is done, and seen only as its halo.
            origin = max(0, start - self.tiling.overlap[0])

            def window(begin: int, end: int, origin: int = origin) -> Tensor:
                restored = self._window(*self._read(read, origin + begin, origin + end, frames))
                if restored.shape[1] != end - begin and not interpolates:
                    raise UserError(
                        f"the network made {restored.shape[1]} frames of {end - begin}; frame interpolation "
                        "(netG.pa_frames = 0) is tested with a dataset_type for it, VFI_DAVIS or VFI_UCF101"
                    )
                return restored

            def needed(index: int, origin: int = origin, start: int = start) -> bool:
                return start <= origin + index < frames and is_needed(origin + index)

            try:
                for index, frame in stream(window, padded - origin, self.tiling, needed):
                    start = origin + index + 1
                    yield origin + index, frame[0]
                return
            except TooLarge:
                self._use(self._fewer_frames(self.tiling, padded - origin))

    def _read(self, read: Read, begin: int, end: int, frames: int) -> tuple[Tensor, Tensor | None]:
        """Frames of the clip as `pad_seq` lengthens it."""
        lq, spike = read(begin, min(end, frames))
        if end > frames:
            lq = torch.cat([lq, lq[:, -1:]], dim=1)
            spike = None if spike is None else torch.cat([spike, spike[:, -1:]], dim=1)
        check_video(lq, spike)
        return lq, spike

    def _window(self, lq: Tensor, spike: Tensor | None) -> Tensor:
        """Restores frames that go through the network together; makes tiles smaller where memory runs out."""
        while True:
            try:
                with memory_limit(self.limit, self.device):
                    return restore_window(self._run, lq, spike, self.tiling).clone()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            give_back_memory(self.device)
            if self._cost is not None:
                self._cost = replace(self._cost, per_pixel=1.5 * self._cost.per_pixel)
            self._use(self._smaller(self.tiling, lq, spike))
            _, rows, columns = self.tiling.tile
            logger.warning(
                "out of memory (%s); goes on in tiles of %d rows, %d columns, %d at once",
                reason, rows, columns, self.tiling.batch,
            )  # fmt: skip

    def _check_limit(self) -> None:
        """
        Raises:
            UserError: what the process holds already is as much as it may use.
        """
        used = 0 if self.limit is None else used_memory(self.device)
        if self.limit is not None and used >= self.limit:
            raise UserError(
                f"max_memory: {self.limit / 1e9:.2f} GB are allowed, and before the first tile the process holds "
                f"{used / 1e9:.2f} GB on {self.device}; allow more than that"
            )

    def _use(self, tiling: Tiling) -> None:
        """Goes on in other tiles; graphs of those before would only take memory."""
        if self._graphs is not None and tiling != self.tiling:
            self._graphs.release()
        self.tiling = tiling

    def _run(self, *tiles: Tensor, graphs: bool = True) -> Tensor:
        """The network's result for a batch of tiles, in both directions of time where asked for."""
        dtype = self.testing.amp_dtype
        network = self._graphs if graphs and self._graphs is not None else self.network
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            tiles = tuple(tile.to(self.device) for tile in tiles)
            restored = network(*tiles)
            if self.testing.flip_seq:
                restored = (restored.float() + network(*(tile.flip(1) for tile in tiles)).float().flip(1)) / 2
        return restored

    def _tiling(self, tile: tuple[int, int, int]) -> Tiling:
        testing = self.testing
        return Tiling(
            tile, testing.tile_overlap, testing.blend, testing.scale, testing.window, testing.tile_batch,
            testing.published,
        )  # fmt: skip

    def _smaller(self, tiling: Tiling, lq: Tensor, spike: Tensor | None) -> Tiling:
        """Half as many tiles at once, or a tile half as large along its longer side.

        Raises:
            TooLarge: there is no smaller one.
        """
        if tiling.batch > 1:
            return replace(tiling, batch=tiling.batch // 2)
        if tiling.published:
            raise TooLarge
        units = tile_units(lq, spike, tiling.window)
        plans = tiling.space(lq.shape[3:], None if spike is None else spike.shape[3:])
        sides = [plan[0].end - plan[0].begin for plan in plans]
        for axis in sorted((1, 2), key=lambda axis: -sides[axis - 1]):
            unit, side = units[axis - 1], sides[axis - 1]
            half = max(-(-side // 2 // unit) * unit, least_side(tiling.overlap[axis], unit))
            if half < side:
                tile = list(tiling.tile)
                tile[axis] = half
                return replace(tiling, tile=(tile[0], tile[1], tile[2]))
        raise TooLarge

    def _fewer_frames(self, tiling: Tiling, frames: int) -> Tiling:
        """A tile of half as many frames.

        Raises:
            UserError: there is no smaller one.
        """
        if tiling.published:
            raise UserError(
                f"val.tiling: tiles of {list(tiling.tile)} do not fit into the memory of {self.device}, and "
                '"official" takes no others; choose a smaller --tile, or --tiling even'
            )
        now = min(tiling.tile[0] or frames, frames)
        half = max(now // 2, tiling.overlap[0] + 1)
        if half >= now:
            _, rows, columns = tiling.tile
            raise UserError(
                f"max_memory: even a tile of {now} frames, {rows} x {columns}, does not fit into the memory of "
                f"{self.device}{'' if self.limit is None else f', {self.limit / 1e9:.2f} GB'}; allow more"
            )
        logger.warning("out of memory; goes on in tiles of %d frames", half)
        return replace(tiling, tile=(half, *tiling.tile[1:]))

    def _chosen(self, read: Read, frames: int) -> Tiling:
        """The tiles for `tile` "auto" and a clip."""
        assert self.limit is not None
        self._check_limit()
        lq, spike = read(0, min(frames - self.testing.pad_seq, max(self.testing.window[0], 2)))
        size, tiling = lq.shape[3:], self._tiling((0, 0, 0))
        if self._cost is None:
            with memory_limit(self.limit, self.device):
                self._cost = measure_cost(partial(self._run, graphs=False), lq, spike, tiling, self.device)
        room = self.limit - used_memory(self.device)
        if self._graphs is not None:
            # Graphs keep a pass's memory, and other shapes, those of a clip's end, need as much beside it.
            room //= 2
        tile = choose_tile(self._cost, frames, size, tile_units(lq, spike, tiling.window), tiling, room)
        # 0 for a whole axis, which may be shorter than the overlap.
        counted = [0 if part == length else part for part, length in zip(tile, (frames, *size), strict=True)]
        tiling = self._tiling((counted[0], counted[1], counted[2]))
        logger.info(
            "tile auto: %d frames, %d x %d, expected to take %.2f of %.2f GB; computes %.2f times the clip's pixels",
            *tile, self._cost.of(tile, size) / 1e9, room / 1e9, tiling.computed((frames, *size)),
        )  # fmt: skip
        return tiling


@cache
def _tell_no_graphs(device_type: str) -> None:
    logger.warning("val.cuda_graphs has no effect on a %s: graphs are for CUDA GPUs", device_type)
