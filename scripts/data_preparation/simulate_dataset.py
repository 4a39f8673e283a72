"""Makes a training and test set (sharp and blurred pictures, spikes, their timing) from videos or photographs.

    python -m scripts.data_preparation.simulate_dataset                          # demo set in trainsets/demo, seconds
    python -m scripts.data_preparation.simulate_dataset --video clip.mp4 --root trainsets/mine --scale 0.5
    python -m scripts.data_preparation.simulate_dataset --video a.mp4 frames_b/ c.mp4 --root trainsets/mine

Without --video, photographs that scikit-image ships are moved by a seeded camera path. A video's frames are the
sharp frames; optical flow gives 8 spike frames per sharp frame, and with --upsample more sharp frames: slower motion.
Videos may differ in size. Layout: data/spike/simulation/gopro_layout.py. A data set that is there with the same
parameters is kept. Exit code 2: a mistake in what was asked for, told on stderr.
"""

import argparse
import functools
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.flags import simulate_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(simulate_parser(__doc__ or ""))

from data.spike.simulation.demo_set import DEMO_SIZE, DemoSet, seeded, set_parameters
from data.spike.simulation.gopro_layout import (
    INSTANTS,
    PICTURES,
    RECIPE,
    SPIKES,
    SPLITS,
    SimulatedClip,
    is_complete,
    write_dataset,
)
from data.spike.simulation.interpolate import FLOW_MIN_SIDE, upsampled_clock, upsampled_length
from data.spike.simulation.simulate import ExposedFrame, Exposure, expose
from data.spike.sync import GOPRO_SPIKES_PER_FRAME
from data.spike.video_source import FrameSize, FrameSource
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write

ROOT = Path(__file__).resolve().parents[2]
DEMO_RECIPE = ROOT / "options" / "demo" / "quickstart.json"
RECIPE_STEPS = 2000  # of the option file that is written; about an hour on two CPU cores


def sensor_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `expose` that are options."""
    return {"threshold": args.threshold, "spike_ratio": args.spike_ratio, "light": args.light}


def clip_name(path: Path, sharp_frames: int, part: int) -> str:
    """`<file's name>_<n>_<part>`: underscores of the file's name would shift the second field, so they become '-'."""
    stem = path.name if path.is_dir() else path.stem
    return f"{re.sub(r'[^0-9A-Za-z-]+', '-', stem).strip('-') or 'clip'}_{sharp_frames:02d}_{part:02d}"


def video_parts(
    sources: Sequence[FrameSource], args: argparse.Namespace, exposure: Exposure
) -> Iterator[tuple[FrameSource, str, int, int]]:
    """Which blocks of each source go where: (source, split, first block, number of blocks).

    Several sources are split by source, the last ones for testing. A single one is split in time: its last part is
    for testing, and the pictures between, which would share frames with both, are left out.
    """
    lengths = [upsampled_length(source.length, args.upsample) for source in sources]
    for source, length in zip(sources, lengths, strict=True):
        if exposure.blocks(length) < 1:
            slowed = "" if args.upsample == 1 else f", {length} with --upsample {args.upsample},"
            raise UserError(
                f"{source.path}: {source.length} frames{slowed} are too few; one blurred picture of "
                f"{exposure.sharp_frames} frames needs {exposure.sharp_needed(1)} "
                "(the next one ends its spike stream). Lower --n, or give a longer video"
            )
    if args.split is not None or len(sources) > 1:
        count = args.test_clips if args.test_clips is not None else max(1, round(args.test_fraction * len(sources)))
        if count > len(sources):
            raise UserError(f"--test_clips {count}: there are only {len(sources)} videos")
        for index, source in enumerate(sources):
            split = args.split or ("test" if index >= len(sources) - count else "train")
            yield source, split, 0, exposure.blocks(lengths[index])
        return
    if args.test_clips is not None:
        raise UserError("--test_clips chooses among several videos; split a single one by --test_fraction or --split")
    (source,) = sources
    blocks = exposure.blocks(lengths[0])
    gap = math.ceil(exposure.sharp_frames / exposure.stride)
    test = max(1, round(args.test_fraction * blocks))
    if blocks - gap - test < 1:
        raise UserError(
            f"{source.path}: {blocks} blurred pictures are too few to split in time "
            f"({test} for testing, {gap} between): lower --n or --test_fraction, give more videos, "
            "or send it all to one side with --split train or --split test"
        )
    yield source, "train", 0, blocks - gap - test
    yield source, "test", blocks - test, test


def video_clips(sources: Sequence[FrameSource], args: argparse.Namespace, exposure: Exposure) -> list[SimulatedClip]:
    """Clips of real videos, interpolated to the spike clock."""

    def exposed(source: FrameSource, first_block: int, length: int, index: int) -> Iterator[ExposedFrame]:
        begin, count = first_block * exposure.stride, exposure.sharp_needed(length)
        ticks = upsampled_clock(source.frames, begin, count, args.upsample)
        start = seeded(args.seed, index)
        return expose(ticks, exposure, start=start, instants=args.instants, **sensor_options(args))

    for source in sources:
        # Told now, not after the clips before it are simulated.
        height, width = next(source.frames(0, 1)).shape[:2]
        if min(height, width) < FLOW_MIN_SIDE:
            raise UserError(
                f"{source.path}: optical flow needs frames of at least {FLOW_MIN_SIDE}x{FLOW_MIN_SIDE}, these come to "
                f"{height}x{width}: raise --scale, or give --size"
            )
    clips: list[SimulatedClip] = []
    for index, (source, split, first, length) in enumerate(video_parts(sources, args, exposure)):
        part = int(len(sources) == 1 and first > 0)
        name = clip_name(source.path, exposure.sharp_frames, part)
        if any(clip.name == name for clip in clips):
            raise UserError(f"{source.path}: another video gives the clip the same name {name!r}: rename one of them")
        clips.append(SimulatedClip(split, name, length, functools.partial(exposed, source, first, length, index)))
    return clips


def make_from_videos(args: argparse.Namespace) -> None:
    """The data set of real videos, at args.root, unless it is there already."""
    size = FrameSize(args.scale, args.size and tuple(args.size), args.spike_ratio)
    sources = [FrameSource(path, size, args.max_frames) for path in args.video]
    kind = {
        "kind": "videos",
        "sources": [source.identity() for source in sources],
        "scale": args.scale,
        "size": args.size,
        "max_frames": args.max_frames,
        "split": args.split,
        "test_clips": args.test_clips,
        "test_fraction": args.test_fraction,
    }
    physical_times(args, sources)
    # Left out where they are the defaults, so that sets of before are known again.
    kind |= {"upsample": args.upsample} if args.upsample > 1 else {}
    kind |= {"spike_fps": args.spike_fps} if args.spike_fps is not None else {}
    kind |= {"instants": args.instants} if args.instants else {}
    exposure = Exposure(args.n, args.n if args.stride is None else args.stride)
    parameters = set_parameters(kind, exposure, args.seed, sensor_options(args))
    clips: list[SimulatedClip] = []
    if args.force or not is_complete(args.root, parameters):
        clips = video_clips(sources, args, exposure)
        write_dataset(args.root, clips, exposure, parameters)
        write_recipe(args.root, args, tests=any(clip.split == "test" for clip in clips))
    tell(args, clips)


def physical_times(args: argparse.Namespace, sources: Sequence[FrameSource]) -> None:
    """Puts --spike_fps and --exposure_ms into numbers of frames, `upsample` and `n`, and says what they come to.

    Raises:
        UserError: a frame rate that is not known or differs between videos, or times that no number of frames gives.
    """
    if args.spike_fps is None and args.exposure_ms is None:
        return
    rates = {source.fps for source in sources}
    video_fps = next(iter(rates))
    if len(rates) > 1 or video_fps is None:
        raise UserError(
            "--spike_fps and --exposure_ms need videos of one known frame rate; these have "
            f"{', '.join(sorted(str(rate) for rate in rates))}: give --n and --upsample instead"
        )
    sharp_fps = video_fps * args.upsample
    if args.spike_fps is not None:
        args.upsample = max(1, round(args.spike_fps / (GOPRO_SPIKES_PER_FRAME * video_fps)))
        sharp_fps = video_fps * args.upsample
        if not 0.8 < args.spike_fps / (GOPRO_SPIKES_PER_FRAME * sharp_fps) < 1.25:
            raise UserError(
                f"--spike_fps {args.spike_fps:g}: the least for this video is {GOPRO_SPIKES_PER_FRAME * sharp_fps:g}"
            )
    args.spike_fps = GOPRO_SPIKES_PER_FRAME * sharp_fps
    if args.exposure_ms is not None:
        args.n = round(args.exposure_ms * sharp_fps / 1000) + 1
        if args.n < 2:
            raise UserError(
                f"--exposure_ms {args.exposure_ms:g}: shorter than one sharp frame of {1000 / sharp_fps:.1f} ms; "
                "raise --spike_fps or --upsample"
            )
    print(
        f"spike camera of {args.spike_fps:g} frames/s, exposure of {1000 * (args.n - 1) / sharp_fps:.1f} ms "
        f"(--n {args.n} --upsample {args.upsample})"
    )


def make_demo(args: argparse.Namespace) -> None:
    """The data set of moving photographs, at args.root, unless it is there already."""
    demo = DemoSet(
        n=args.n,
        stride=args.n if args.stride is None else args.stride,
        seed=args.seed,
        size=tuple(args.size or DEMO_SIZE),
        train_clips=args.train_clips,
        train_frames=args.train_frames,
        test_clips=args.test_clips,
        test_frames=args.test_frames,
        instants=args.instants,
        **sensor_options(args),
    )
    tell(args, demo.write(args.root, args.force))


def tell(args: argparse.Namespace, clips: Sequence[SimulatedClip]) -> None:
    """Prints what was written, or that the set was kept, and how to train on it."""
    if not clips:
        print(f"{args.root} is complete and made with these parameters: kept (--force makes it again)")
    for split in SPLITS if clips else ():
        lengths = [clip.length for clip in clips if clip.split == split]
        print(f"{split}: {len(lengths)} clips, {sum(lengths)} pictures")
    if clips:
        print(f"written to {args.root}")
    print(how_to_train(args))


def how_to_train(args: argparse.Namespace) -> str:
    """The command that trains on the data set."""
    recipe = args.root / RECIPE if args.video else DEMO_RECIPE.relative_to(ROOT)
    return f"train on it: ./svrt train --opt {shlex.quote(str(recipe))}"


def write_recipe(root: Path, args: argparse.Namespace, tests: bool) -> None:
    """Writes an option file that trains the demo's network on the data set, and longer.

    Args:
        tests: there are clips for testing.
    """

    def section(split: str) -> dict[str, Any]:
        pictures = root / PICTURES
        return {
            "dataroot_gt": str(pictures / f"{split}_GT"),
            "dataroot_lq": str(pictures / f"{split}_GT_blurred"),
            "dataroot_spike": str(root / SPIKES / split),
            "spike_threshold": args.threshold,
            **(
                {"dataroot_instants": str(pictures / f"{split}_{INSTANTS}")}
                if args.instants and split == "train"
                else {}
            ),
        }

    instants = {"dataroot_instants": str(root / PICTURES / f"train_{INSTANTS}")} if args.instants else {}
    every = RECIPE_STEPS // 4
    tree = {
        "base": os.path.relpath(DEMO_RECIPE, root),
        "task": root.name,
        "datasets": {"train": {**section("train"), **instants}, "test": section("test") if tests else None},
        "train": {"total_iter": RECIPE_STEPS, "checkpoint_save": every, "checkpoint_test": every},
    }
    with atomic_write(root / RECIPE) as file:
        json.dump(tree, file, indent=2, ensure_ascii=False)


VIDEO_DEFAULTS: dict[str, Any] = {
    "scale": 1.0,
    "max_frames": None,
    "split": None,
    "test_fraction": 0.2,
    "upsample": 1,
    "spike_fps": None,
    "exposure_ms": None,
}
DEMO_DEFAULTS: dict[str, Any] = {"train_clips": 12, "train_frames": 12, "test_frames": 8, "test_clips": 3}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what belongs to only one of videos and demo is None where it was not given."""
    return simulate_parser(__doc__ or "").parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Fills in defaults; raises UserError for numbers out of range and for options that would have no effect."""
    defaults, foreign = (VIDEO_DEFAULTS, DEMO_DEFAULTS) if args.video else (DEMO_DEFAULTS, VIDEO_DEFAULTS)
    for name in foreign:
        if getattr(args, name) is not None and not (args.video and name == "test_clips"):
            raise UserError(f"--{name} has no effect {'with' if args.video else 'without'} --video: leave it out")
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    least = {
        "threshold": 1,
        "spike_ratio": 1,
        "seed": 0,
        "instants": 0,
        "max_frames": 1,
        "upsample": 1,
        "train_clips": 0,
        "test_clips": 0,
        "train_frames": 1,
        "test_frames": 1,
    }
    for name, limit in least.items():
        if getattr(args, name) is not None and not getattr(args, name) >= limit:
            raise UserError(f"--{name} must be at least {limit}, got {getattr(args, name)}")
    if not args.video and args.train_clips + args.test_clips == 0:
        raise UserError("--train_clips 0 and --test_clips 0 leave nothing to make")
    if args.video and not 0 < args.scale <= 8:
        raise UserError(f"--scale must lie in (0, 8], got {args.scale}")
    if args.spike_fps is not None and (args.upsample != 1 or not args.spike_fps > 0):
        raise UserError("--spike_fps is above 0, and takes the place of --upsample: give one of them")
    if args.exposure_ms is not None and not args.exposure_ms > 0:
        raise UserError(f"--exposure_ms must be above 0, got {args.exposure_ms:g}")
    if args.video and not 0 < args.test_fraction < 1:
        raise UserError(f"--test_fraction must lie between 0 and 1, got {args.test_fraction}")
    if args.size is not None and min(args.size) < FLOW_MIN_SIDE:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: both must be at least {FLOW_MIN_SIDE}")
    if args.size is not None and args.video and args.scale != 1.0:
        raise UserError("--size and --scale both resize: give one of them")
    if args.root is None:
        if args.video:
            raise UserError("--root is missing: say where the data set of these videos goes")
        args.root = Path("trainsets/demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)

    def simulate() -> None:
        check(args)
        if args.video:
            make_from_videos(args)
        else:
            make_demo(args)

    return run_command(simulate, go_on="nothing is left behind; the same command starts again")


if __name__ == "__main__":
    sys.exit(main())
