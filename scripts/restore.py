"""A sharp film from a blurred one, with its spikes by the light network whose weights come with the code.

    ./svrt restore clip.mp4 --spikes clip.dat -o sharp.mp4
    ./svrt restore frames/ --spikes clip.dat -o sharp.mp4 --side_by_side comparison.mp4
    ./svrt restore clip.mp4 --checkpoint experiments/mine --opt trainsets/mine/train.json --spikes clip.dat -o sharp.mp4
    ./svrt restore clip.mp4 --spikes clip.dat -o slow.mp4 --times 0:1:1/16     # 17 instants of every exposure
    ./svrt restore clip.mp4 --download -o sharp.mp4             # without spikes: the published VRT, slow on a CPU

The film is H.264 with the frame rate and the sound of the clip; where the clip is a folder of frames, --fps.
A stream's exposures come from the sync.json beside it; without one, the frames share the stream evenly.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import restore_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(restore_parser(__doc__ or ""))

import torch

from data.select_dataset import define_Dataset
from models.model_base import amp_dtype
from models.select_network import define_G, load_weights
from models.testing.evaluate import restore_clip
from models.testing.restore import Restorer, Testing
from utils.options.flags import tester_parser
from utils.options.tester_flags import checkpoint_of, options
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_image import panel
from utils.utils_memory import keep_freed_memory
from utils.utils_option import Options
from utils.utils_progress import progress
from utils.utils_video import VideoWriter

WITH_SPIKES, WITHOUT_SPIKES = "guided", "006_VRT_videodeblurring_GoPro"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 1 the disk is full, 2 a mistake in what was asked for, 130 Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    arguments = restore_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: restore(arguments), go_on="nothing is left behind; the same command starts again")


def restore(arguments: argparse.Namespace) -> None:
    """Restores the clip frame by frame, however long it is, into the film."""
    for path in filter(None, (arguments.output, arguments.side_by_side)):
        if path.suffix.lower() != ".mp4":
            raise UserError(f"{path}: films are written as .mp4")
    keep_freed_memory()
    tester = as_tester(arguments)
    opt = options(tester)
    clips = test_set(opt)
    if len(clips.clips) != 1:
        raise UserError(f"{arguments.clip}: holds {len(clips.clips)} clips; name one of them, or use ./svrt test")
    network = define_G(opt.netG)
    load_weights(network, checkpoint_of(opt, tester), prefer_ema=arguments.task is None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    testing = Testing.from_options(opt.val, opt.scale, amp_dtype(opt.train.amp_dtype, device), opt.netG)
    for line in clips.assumptions() if hasattr(clips, "assumptions") else ():
        print(line, flush=True)

    # Slow motion would outlast the sound.
    sound = arguments.clip if arguments.clip.is_file() and arguments.times is None else None
    fps = arguments.fps or clips.fps or 25.0
    restorer = Restorer(network.to(device).eval(), testing, device)
    with ExitStack() as stack:
        film = stack.enter_context(VideoWriter(arguments.output, fps, sound))
        both = arguments.side_by_side and stack.enter_context(VideoWriter(arguments.side_by_side, fps, sound))
        bar = stack.enter_context(progress(len(clips.clips[0]), "restoring", "frame"))
        for result in restore_clip(restorer, clips, 0):
            film.write(result.restored)
            if both:
                both.write(panel(result.views()))
            bar.update()
    print(f"{arguments.output}: {film.count} frames at {fps:g} frames/s")
    if both:
        print(f"{arguments.side_by_side}: input | spikes | restored")


def as_tester(arguments: argparse.Namespace) -> argparse.Namespace:
    """The flags of `main_test_vrt.py` that mean the same."""
    if arguments.opt is None and arguments.task is None:
        arguments.task = WITH_SPIKES if arguments.spikes else WITHOUT_SPIKES
    which = ["--opt", arguments.opt] if arguments.opt else ["--task", arguments.task]
    flags: list[Any] = [*which, "--folder_lq", arguments.clip]
    given = {
        "--folder_spike": arguments.spikes,
        "--checkpoint": arguments.checkpoint,
        "--download": arguments.download,
        "--times": arguments.times and ",".join(map(repr, arguments.times)),
    }
    for name, value in given.items():
        flags += [] if value is None else [name, value]
    changes = [] if arguments.threshold is None else [f"datasets.test.spike_threshold={arguments.threshold}"]
    if changes or arguments.set:
        flags += ["--set", *changes, *arguments.set]
    tester = tester_parser("").parse_args([str(flag) for flag in flags])
    tester.tile = ["auto"]
    return tester


def test_set(opt: Options) -> Any:
    """The clip as a data set."""
    assert opt.datasets.test is not None
    return define_Dataset(opt.datasets.test, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)


if __name__ == "__main__":
    sys.exit(main())
