"""Memory of training by a recipe, per GPU: neither a GPU nor data nor weights are needed.

    python -m scripts.estimate_memory options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike_voxel.json
    python -m scripts.estimate_memory RECIPE... --gpus 8 --set datasets.train.gt_size=128

What the figures hold and what they leave out: `models/training/estimate.py`. `main_train_vrt.py --opt RECIPE --dry-run`
measures on a GPU.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import estimate_memory_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(estimate_memory_parser(__doc__ or ""))

import torch

import data.select_dataset  # noqa: F401  (registers the data sets)
from models.model_base import check_parts
from models.select_model import define_Model
from models.training.dry_run import batch_of
from models.training.estimate import MemoryEstimate, estimate_memory
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_dist import Dist
from utils.utils_option import Options, load_options

# Weights change no memory.
NO_FILES = (
    "netG.spynet_path=null",
    "path.pretrained_netG=null",
    "path.pretrained_netE=null",
    "train.vgg_weights=random",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = estimate_memory_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: run(arguments.recipe, arguments.gpus, arguments.set))


def run(recipes: Sequence[str], gpus: int, overrides: Sequence[str]) -> None:
    """Prints a line for each recipe."""
    for recipe in recipes:
        opt = load_options(recipe, [*NO_FILES, *overrides])
        clips = clips_at_once(opt, gpus)
        print(f"{opt.task}, {clips} clip{'s'[: clips > 1]} at a time: {estimate_recipe(opt, clips)}", flush=True)


def clips_at_once(opt: Options, gpus: int) -> int:
    """Clips that a GPU works on at a time.

    Raises:
        UserError: there is no training set, or its clips can't be dealt out.
    """
    if opt.datasets.train is None:
        raise UserError("datasets.train: missing; the estimate is of training")
    clips = opt.datasets.train.dataloader_batch_size
    if gpus < 1 or clips % gpus:
        raise UserError(
            f"--gpus {gpus}: datasets.train.dataloader_batch_size = {clips} clips can't be dealt out to them"
        )
    check_parts(clips // gpus, opt.train.accumulate_grad)
    return clips // gpus // opt.train.accumulate_grad


def estimate_recipe(opt: Options, clips: int) -> MemoryEstimate:
    """The estimate for `clips` clips of the recipe's size."""
    model = define_Model(opt, Dist(rank=0, world_size=1, local_rank=0, device=torch.device("cpu")), pretrained=False)
    return estimate_memory(model, batch_of(opt, clips))


if __name__ == "__main__":
    sys.exit(main())
