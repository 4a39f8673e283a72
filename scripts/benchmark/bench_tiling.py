"""How far tiled restoration is from whole restoration, by where tiles begin and how they meet: docs/tiling.md's tables.

    python -m scripts.benchmark.bench_tiling
    python -m scripts.benchmark.bench_tiling --checkpoint experiments/demo_quickstart

Part of a test clip of the option file is restored as a whole, and then in tiles along one axis; what is printed is the
PSNR in dB of the tiled result against the whole one. Without a checkpoint the weights are random, but always the same.
Then come scores against the sharp frames: of a whole clip in our tiles and in the published tester's (`val.tiling`),
and of the last frames of clips that are no whole attention windows, completed by mirrored frames and not.
Last comes the share of pixels computed at the published tester's setting for GoPro, by its rule and by ours.
"""

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_tiling_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_tiling_parser(__doc__ or ""))

import torch
from torch import Tensor, nn

from data.select_dataset import define_Dataset
from models.select_network import define_G, load_weights
from utils.tile_plan import default_blend, segments_of
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_option import load_options
from utils.utils_tile import Tiling, restore_tiled

GOPRO_TILE, GOPRO_OVERLAP, GOPRO_CLIP = (18, 192, 192), (2, 20, 20), (100, 720, 1280)
GOPRO_WINDOW = (6, 8, 8)
SEED = 0
COLUMNS, FRAMES = 4, 1  # axes of (1,T,C,H,W)
SIDE, LENGTH = 128, 16  # columns of the picture that is cut in columns, frames of the clip that is cut in time
# A part of the demo's clip that is cut along every axis, and a smaller one for the last frames.
SCORED_SIDE, SCORED_TILES, SCORED_OVERLAP, LAST_SIDE = 96, (6, 64, 64), (2, 16, 16), 64


@dataclass(frozen=True)
class Cut:
    """Tiles along one axis: which rule puts them where, their size and where they begin."""

    axis: int
    rule: str
    size: int
    begins: tuple[int, ...]

    def overlap(self) -> int:
        """What neighbours share, the least of it."""
        return min(before + self.size - after for before, after in itertools.pairwise(self.begins))

    def blends(self) -> dict[str, int | None]:
        """Ways to meet: all averaged, a hard cut, a ramp over a part, a ramp over all."""
        part, shared = (8 if self.axis == COLUMNS else 2), self.overlap()
        return {"average": None, "cut": 0, "halo and ramp": min(part, shared), "ramp": shared}


# Windows of 4 frames and 8 x 8 pixels, as in options/demo/quickstart.json.
CUTS = [
    Cut(COLUMNS, "KAIR's: multiples of 4, the last moved back", 72, (0, 52, 56)),
    Cut(COLUMNS, "evenly, at any pixel", 74, (0, 54)),
    Cut(COLUMNS, "whole windows", 72, (0, 56)),
    Cut(COLUMNS, "whole windows", 80, (0, 48)),
    Cut(FRAMES, "KAIR's: the last moved back", 8, (0, 6, 8)),
    Cut(FRAMES, "evenly, as short as can be", 7, (0, 4, 9)),
    Cut(FRAMES, "whole windows", 8, (0, 4, 8)),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in flags, options or data."""
    arguments = bench_tiling_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: bench(arguments.opt, arguments.checkpoint))


def bench(options: Path, checkpoint: Path | None) -> None:
    """Prints all tables."""
    opt = load_options(options, ["netG.init_type=default"])
    if opt.datasets.test is None:
        raise UserError("datasets.test: missing; the clips to restore are taken from it")
    torch.manual_seed(SEED)
    network = define_G(opt.netG).eval()
    if checkpoint is not None:
        load_weights(network, checkpoint, prefer_ema=True)
    sample = define_Dataset(opt.datasets.test, seed=SEED, scale=opt.scale, n_channels=opt.n_channels).load(0)
    frames = sample["L"][None]  # (1, T, C, H, W)
    # A clip that is too short goes on backwards.
    longer = torch.cat([frames, frames.flip(1)] * -(-LENGTH // (2 * frames.shape[1])), dim=1)
    parts = {COLUMNS: longer[:, :4, :, :SIDE, :SIDE], FRAMES: longer[:, :LENGTH, :, : SIDE // 2, : SIDE // 2]}
    print(f"weights: {checkpoint or 'random'}; PSNR of tiled against whole restoration, dB\n")
    print("| axis | tiles begin | size | overlap | average | cut | halo and ramp | ramp |")
    print("|---|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        untiled = {axis: network(part) for axis, part in parts.items()}
        for cut in CUTS:
            tiles = [network(parts[cut.axis].narrow(cut.axis, begin, cut.size)) for begin in cut.begins]
            values = [psnr(joined(tiles, cut, blend), untiled[cut.axis]) for blend in cut.blends().values()]
            axis = "columns" if cut.axis == COLUMNS else "frames"
            row = [axis, cut.rule, str(cut.size), str(cut.overlap()), *(f"{value:.1f}" for value in values)]
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"\n{scores(network, frames, sample['H'][None], opt.netG.window_size)}", flush=True)
    print(f"\n{computed()}")


def scores(network: nn.Module, lq: Tensor, gt: Tensor, window: Sequence[int]) -> str:
    """PSNR against the sharp frames of ways to restore a clip, lines of text.

    Args:
        lq: (1, T, C, H, W). gt: (1, T, 3, H, W).
        window: the network's attention window.
    """
    tiles: dict[str, Any] = {"tile": SCORED_TILES, "overlap": SCORED_OVERLAP, "window": tuple(window)}
    part, sharp = lq[..., :SCORED_SIDE, :SCORED_SIDE], gt[..., :SCORED_SIDE, :SCORED_SIDE]
    ours = restore_tiled(network, part, blend=default_blend(SCORED_OVERLAP), **tiles)
    published = restore_tiled(network, part, published=True, **tiles)
    lines = [
        f"against the sharp frames, dB: {part.shape[1]} frames of {SCORED_SIDE} x {SCORED_SIDE}, tile {SCORED_TILES}, "
        f"overlap {SCORED_OVERLAP}:",
        f"  val.tiling even {psnr(ours, sharp):.3f}, official {psnr(published, sharp):.3f}",
        f"last frame of a clip of {LAST_SIDE} x {LAST_SIDE}, completed by mirrored frames, and not:",
    ]
    for frames in range(window[0] + 1, min(2 * window[0], lq.shape[1] + 1)):
        part, sharp = lq[:, :frames, :, :LAST_SIDE, :LAST_SIDE], gt[:, frames - 1, :, :LAST_SIDE, :LAST_SIDE]
        found = [restore_tiled(network, part, window=size)[:, -1] for size in (tuple(window), (1, *window[1:]))]
        values = [psnr(restored, sharp) for restored in found]
        lines.append(f"  {frames} frames: {values[0]:.3f}, {values[1]:.3f}, {values[0] - values[1]:+.3f}")
    return "\n".join(lines)


def joined(tiles: Sequence[Tensor], cut: Cut, blend: int | None) -> Tensor:
    """The tiles put together along their axis."""
    segments = segments_of(list(cut.begins), [begin + cut.size for begin in cut.begins], blend, 1)
    size = list(tiles[0].shape)
    size[cut.axis] = segments[-1].end
    output = torch.zeros(size)
    for tile, segment in zip(tiles, segments, strict=True):
        length = segment.place.stop - segment.place.start
        shape = [length if axis == cut.axis else 1 for axis in range(5)]
        weights = segment.weights.expand(length).reshape(shape)
        kept = tile.narrow(cut.axis, segment.keep.start, length)
        output.narrow(cut.axis, segment.place.start, length).add_(kept * weights)
    return output


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, for values in [0, 1]; infinite for equal ones."""
    error = float(((a - b) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf


def computed() -> str:
    """Shares of pixels computed at the setting for GoPro."""
    ours = Tiling(GOPRO_TILE, GOPRO_OVERLAP, window=GOPRO_WINDOW)
    per_axis = []
    for length, tile, overlap in zip(GOPRO_CLIP, GOPRO_TILE, GOPRO_OVERLAP, strict=True):
        begins = [*range(0, length - tile, tile - overlap), length - tile]
        per_axis.append(len(begins) * tile / length)
    ours_frame = Tiling((0, *GOPRO_TILE[1:]), GOPRO_OVERLAP, window=(1, *GOPRO_WINDOW[1:])).computed(GOPRO_CLIP)
    return (
        f"computed pixels, tile {GOPRO_TILE}, overlap {GOPRO_OVERLAP}, clip {GOPRO_CLIP}:\n"
        f"  of a frame: KAIR {per_axis[1] * per_axis[2]:.2f}, here {ours_frame:.2f}\n"
        f"  of the clip: KAIR {math.prod(per_axis):.2f}, here {ours.computed(GOPRO_CLIP):.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
