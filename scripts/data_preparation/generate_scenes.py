"""Makes a training set of generated scenes, recorded as the restoration benchmark's are, of other photographs.

    python -m scripts.data_preparation.generate_scenes
    python -m scripts.compare_branches --name scenes --seconds 3600 --benchmark \\
        --also guided=options/demo/guided.json --set path.pretrained_netG=null \\
        datasets.train.dataroot_gt=trainsets/scenes/GOPRO_Large/train_GT \\
        datasets.train.dataroot_lq=trainsets/scenes/GOPRO_Large/train_GT_blurred \\
        datasets.train.dataroot_spike=trainsets/scenes/GOPRO_Large_spike_seq/train

The second trains RGB only, concat, voxel and the light network for equal processor time, and scores them on the
benchmark; the same command again goes on. The weights of the light network that come with the code had samples of
their own (`GuidedSyntheticDataset`). Layout: data/spike/simulation/gopro_layout.py. A set that is there with the same
parameters is kept. Exit code 2: a mistake.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.flags import BENCHMARK_LIST, scenes_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(scenes_parser(__doc__ or ""))

from data.spike.simulation.benchmark_set import LARGEST_SIDE, GeneratedScenes
from scripts.benchmark.benchmark_clips import read_list
from utils.user_error import UserError
from utils.utils_cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 2 a mistake in what was asked for."""
    arguments = scenes_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: generate(arguments))


def generate(arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: values out of range, or the folder holds something else.
    """
    if not 8 <= arguments.size <= LARGEST_SIDE:
        raise UserError(f"--size {arguments.size}: from 8 to {LARGEST_SIDE}")
    protocol = replace(
        read_list(BENCHMARK_LIST)[0],
        exposures=(arguments.n,),
        thresholds=(arguments.threshold,),
        lights={"full": 1.0},
        side=arguments.size,
        scenes=arguments.clips,
        frames=arguments.frames,
        seed=arguments.seed,
    )
    GeneratedScenes(protocol, "train").write(arguments.root, protocol.conditions()[0])
    print(f"{arguments.root}: {arguments.clips} clips of {arguments.frames} blurred pictures, spike threshold "
          f"{arguments.threshold:g}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
