"""Restores clips by tiles, scores them, and writes the pictures: a trained experiment or a published VRT model.

    python main_test_vrt.py --opt options/demo/quickstart.json --save_result
    python main_test_vrt.py --opt FILE --checkpoint experiments/TASK --folder_lq BLURRED --folder_gt SHARP \\
        --folder_spike SPIKES --tile 6 64 64 --tile_overlap 2 20 20 --save_result
    python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --folder_lq testsets/GoPro11/test_GT_blurred \\
        --folder_gt testsets/GoPro11/test_GT --tile 18 192 192 --tile_overlap 2 20 20

Prints a table; writes metrics.csv, metrics.json and panels (input | spikes | restored | sharp) into OUTPUT/<task>/,
and with --save_result every frame as OUTPUT/<task>/<clip>/<frame>.png.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data.select_dataset import define_Dataset
from data.spike.sweep import conditions
from models.evaluate import FrameResult, Testing, evaluate
from models.model_base import amp_dtype
from models.select_network import define_G, load_weights
from utils.report_run import Report, find_lpips, training_free
from utils.utils_cli import run_command
from utils.utils_image import imwrite_rgb, panel
from utils.utils_option import Options, load_options
from utils.utils_report import Scores
from utils.utils_sweep import run_sweep

TASKS = Path(__file__).resolve().parent / "options" / "vrt" / "test"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in flags, options, data or checkpoint."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    arguments = parse(argv)
    return run_command(lambda: test(options(arguments), arguments))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags: KAIR's, and those for our own experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--opt", type=Path, help="option file of the experiment to test")
    which.add_argument("--task", help="name of a published model, e.g. 006_VRT_videodeblurring_GoPro")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=c", help="change options")
    parser.add_argument(
        "--checkpoint", type=Path, help="a .pth file or experiment folder [the option file's, the task's]"
    )
    parser.add_argument(
        "--sigma", type=int, default=0, help="noise level out of 255 for denoising (10, 20, 30, 40, 50)"
    )
    parser.add_argument("--folder_lq", help="folder of clips to restore")
    parser.add_argument("--folder_gt", help="folder of sharp clips; without it nothing is scored")
    parser.add_argument("--folder_spike", help="folder of the clips' spike streams")
    parser.add_argument("--tile", type=int, nargs=3, metavar=("T", "H", "W"), help="size of a tile; 0 takes all")
    parser.add_argument(
        "--tile_overlap", type=int, nargs=3, metavar=("T", "H", "W"), help="overlap of neighbouring tiles"
    )
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read clips ahead")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument(
        "--sweep", nargs="+", metavar="KIND=V,V", help="test on other spikes too: threshold=1,2,4 drop=0.5"
    )
    parser.add_argument("--lpips", type=Path, metavar="FOLDER", help="weights of LPIPS [model_zoo/lpips, if there]")
    parser.add_argument("--save_result", action="store_true", help="write every restored frame")
    return parser.parse_args(argv)


def options(arguments: argparse.Namespace) -> Options:
    """The option file of --opt or --task with the flags put in its place."""
    path = arguments.opt or TASKS / f"{arguments.task}.json"
    if not path.is_file():
        choices = "" if arguments.opt else f" Tasks: {', '.join(sorted(file.stem for file in TASKS.glob('*.json')))}."
        raise ValueError(f"There is no option file {path}.{choices}")
    # The checkpoint holds the flow network too.
    flags = {"netG.spynet_path": None, "val.tile": arguments.tile, "val.tile_overlap": arguments.tile_overlap}
    if arguments.folder_lq:
        roots = {"lq": arguments.folder_lq, "gt": arguments.folder_gt, "spike": arguments.folder_spike}
        flags |= {f"datasets.test.dataroot_{name}": root for name, root in roots.items() if root or name == "gt"}
        flags["datasets.test.meta_info_file"] = None
    flags |= {"datasets.test.sigma": arguments.sigma} if arguments.sigma else {}
    given = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None or "tile" not in key]
    return load_options(path, [*given, *arguments.set])


def test(opt: Options, arguments: argparse.Namespace) -> None:
    """Restores and scores the clips; writes what was asked for; prints the table."""
    if opt.datasets.test is None:
        raise ValueError("datasets.test: missing; name the clips in the option file or by --folder_lq")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    testing = Testing.from_options(opt.val, opt.scale, amp_dtype(opt.train.amp_dtype, device), opt.netG)
    check_noise(opt)
    clips = test_set(opt)
    swept = conditions(arguments.sweep, opt.datasets.test) if arguments.sweep else []
    lpips, left_out = find_lpips(arguments.lpips)

    checkpoint = checkpoint_of(opt, arguments)
    network = define_G(opt.netG)
    load_weights(network, checkpoint, prefer_ema=True)
    network.to(device)

    def scores_of(clips: Any, **how: Any) -> Scores:
        return evaluate(network, clips, testing, device, input_scores=True, baselines=training_free(clips), **how)

    folder = arguments.output / opt.task
    size = f"{len(clips.clips)} clips, {sum(map(len, clips.clips))} frames of {opt.datasets.test.dataroot_lq}"
    report = Report(folder, opt.task, [f"checkpoint: {checkpoint}", size], clips)
    write = writer_of(folder, arguments.save_result, report)
    scores = scores_of(clips, on_frame=write, scorer=report.scorer(lpips and lpips.to(device)))
    sweep = run_sweep(swept, scores, lambda changes: scores_of(test_set(opt, changes)))
    print(report.write(scores, sweep))
    if scores.rows and left_out:
        print(left_out)
    print(f"pictures (input | spikes | restored | sharp): {folder / 'panels'}")
    if arguments.save_result:
        print(f"restored frames: {folder}/<clip>/<frame>.png")


def check_noise(opt: Options) -> None:
    """A noise level goes with networks that take one, and only with those."""
    takes, given = getattr(opt.netG, "nonblind_denoising", False), getattr(opt.datasets.test, "sigma", 0) > 0
    if takes and not given:
        raise ValueError(f"--sigma: {opt.task} has to be told the noise level out of 255; it knows 10, 20, 30, 40, 50")
    if given and not takes:
        raise ValueError(f"--sigma: {opt.task} takes no noise level (netG.nonblind_denoising is false); leave it out")


def checkpoint_of(opt: Options, arguments: argparse.Namespace) -> Path:
    """Where the weights are: as --checkpoint says, else the experiment's folder or the published model's place."""
    if arguments.checkpoint:
        return arguments.checkpoint
    path = opt.experiment_dir if arguments.opt else Path("model_zoo/vrt") / f"{opt.task}.pth"
    if not path.exists():
        remedy = f"train first ({arguments.opt})" if arguments.opt else f"put the VRT release's {path.name} there"
        raise ValueError(f"{path}: there is no checkpoint; {remedy}, or name another with --checkpoint")
    return path


def test_set(opt: Options, changes: Mapping[str, Any] | None = None) -> Any:
    """The test set of the options, with keys of its section changed."""
    assert opt.datasets.test is not None
    section = opt.datasets.test.model_copy(update=changes)
    return define_Dataset(section, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)


def writer_of(folder: Path, save_result: bool, report: Report) -> Callable[[FrameResult], None]:
    """What writes a restored frame, where asked for, and shows a clip's middle one."""

    def write(result: FrameResult) -> None:
        report.show(result)
        if result.is_middle:
            imwrite_rgb(folder / "panels" / f"{result.clip}_{result.frame}.png", panel(result.views()))
        if save_result:
            imwrite_rgb(folder / result.clip / f"{result.frame}.png", result.restored)
        if result.index == result.length - 1:
            print(f"restored {result.clip}: {result.length} frames", flush=True)

    return write


if __name__ == "__main__":
    sys.exit(main())
