"""Restores clips by tiles, scores them, and writes the pictures: a trained experiment or a published VRT model.

    python main_test_vrt.py --opt options/demo/quickstart.json --save_result
    python main_test_vrt.py --opt FILE --checkpoint experiments/TASK --folder_lq BLURRED --folder_gt SHARP \\
        --folder_spike SPIKES --tile auto --max_memory 10GB --save_result --save_video
    python main_test_vrt.py --task 006_VRT_videodeblurring_GoPro --download --folder_lq clip.mp4 --save_video
    torchrun --nproc_per_node=4 main_test_vrt.py --opt FILE --save_result            # clips are dealt out to 4 GPUs
    python main_test_vrt.py --opt options/demo/quickstart.json --sweep threshold=1,2,4 drop=0.2,1
    python main_test_vrt.py --task guided --folder_lq clip.mp4 --folder_spike clip.dat --times 0:1:1/16 --save_video
    python main_test_vrt.py --task guided --folder_lq clip.mp4 --folder_spike clip.dat --trust
    python main_test_vrt.py --task spike_refine --folder_spike clip.dat --save_video                 # spikes alone
    python main_test_vrt.py --opt options/demo/quickstart.json --compare results/guided  # of a test by --save_result

Frames are read, restored and written as they come, so a clip may be of any length; `--resume` goes on with an
interrupted run. Prints tables; writes into OUTPUT/<task>/ a report (index.html), metrics.csv, metrics.json and panels
(input | spikes | restored | sharp), with --save_result <clip>/<frame>.png, with --save_video <clip>.mp4. More:
docs/testing.md, docs/evaluation.md.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.options.flags import answer_first, tester_parser

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(tester_parser(__doc__ or ""))

from torch import nn

from data.missing_files import check_files
from data.select_dataset import define_Dataset
from data.spike.sweep import conditions
from models.model_base import amp_dtype
from models.select_network import define_G, load_weights
from models.testing.evaluate import Testing
from models.testing.run import Run
from utils.evaluation.compared import ComparedResults
from utils.evaluation.report import Report, find_lpips, training_free
from utils.evaluation.results import ResultWriter
from utils.evaluation.sweep import run_sweep
from utils.evaluation.trust_meter import TrustMeter
from utils.evaluation.video_metric import CVVDP
from utils.options.tester_flags import check_noise, checkpoint_of, options, parse
from utils.user_error import UserError
from utils.utils_cli import run_command, without_secrets
from utils.utils_dist import close_dist, device_called, init_dist, on_main
from utils.utils_file import remove_stale
from utils.utils_lock import FolderLock
from utils.utils_memory import keep_freed_memory
from utils.utils_option import Options
from utils.utils_signal import exit_on_sigterm


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code: 0 done, 1 the disk is full, 2 a mistake in flags, options or data, 130 Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    arguments = parse(argv, __doc__ or "")
    arguments.command = shlex.join(["./svrt", "test", *without_secrets(sys.argv[1:] if argv is None else argv)])
    go_on = "the same command with --save_result --resume goes on"
    if not arguments.save_result:
        go_on = "nothing is kept to go on from; with --save_result, --resume goes on after the frames that are written"
    with exit_on_sigterm():
        return run_command(lambda: test(options(arguments), arguments), go_on)


def test(opt: Options, arguments: argparse.Namespace) -> None:
    """Restores and scores the clips; writes what was asked for; prints the table."""
    # Check flags, options and data, and load the weights, before anything is restored or written.
    if opt.datasets.test is None:
        raise UserError("datasets.test: missing; name clips there, by --folder_lq or (spikes alone) --folder_spike")
    dist = init_dist()
    keep_freed_memory()
    if arguments.adapt and dist.world_size > 1:
        raise UserError("--adapt: one process alone adapts; start it without torchrun")
    device = dist.device if arguments.device is None else device_called(arguments.device)
    testing = Testing.from_options(opt.val, opt.scale, amp_dtype(opt.train.amp_dtype, device), opt.netG)
    check_noise(opt)
    check_files(opt, phases=["test"], weights=False)
    clips, folder = test_set(opt), arguments.output / opt.task
    compared = ComparedResults(arguments.compare, clips.clips)
    swept = conditions(arguments.sweep, opt.datasets.test) if arguments.sweep else []
    lpips, left_out = find_lpips(arguments.lpips)
    video = CVVDP(device) if arguments.cvvdp else None
    writer = result_writer(folder, clips, getattr(opt.datasets.test, "dataroot_lq", None), arguments)
    trust = TrustMeter(folder, clips) if arguments.trust else None
    checkpoint = checkpoint_of(opt, arguments)
    network = trained_network(opt, checkpoint, arguments)

    # Lock the folder, so that its frames and report are of one run, and write the origin of the results.
    lock = FolderLock(folder)
    on_main(lock.acquire, dist)
    on_main(lambda: remove_stale(folder), dist)
    run = Run(opt, dist, device, testing, network.to(device), checkpoint, clips, folder, arguments.num_workers)
    if arguments.adapt:
        run.adapt(arguments.adapt)
    notes = run.start(arguments.command, resume=arguments.resume, save_result=arguments.save_result)
    if dist.is_main:
        print("\n".join(notes), flush=True)

    # Restore and score every frame, and write the report; then test again on degraded spikes.
    report = Report(folder, opt.task, notes, clips, compared, trust)
    scores = run.restore(writer, report, report.scorer(lpips and lpips.to(device), video))
    report.gather(dist)
    on_main(lambda: report.write(scores), dist)  # a sweep may take long, or end in an error
    sweep = run_sweep(swept, scores, lambda changes: run.scores(test_set(opt, changes)))
    tables = on_main(lambda: report.write(scores, sweep), dist)
    lock.release()
    close_dist()
    if dist.is_main:
        print("\n".join([tables, *([left_out] if scores.rows and left_out else []), *writer.places()]))


def result_writer(folder: Path, clips: Any, root: str | None, arguments: argparse.Namespace) -> ResultWriter:
    """The writer of the files that the flags ask for; `root` is that of the blurred frames, or None."""
    source = None if root is None else Path(root).expanduser()
    return ResultWriter(
        folder,
        save_result=arguments.save_result,
        save_video=arguments.save_video,
        fps=arguments.fps or clips.fps or 25.0,
        sound=source if source and source.is_file() and not arguments.times else None,  # slow motion outlasts the sound
        resume=arguments.resume,
        training_free=training_free(clips) if arguments.times else None,
    )


def trained_network(opt: Options, checkpoint: Path, arguments: argparse.Namespace) -> nn.Module:
    """The network with the weights of a checkpoint."""
    network = define_G(opt.netG)
    # The published tester takes "params" of a file with both; of our experiments the moving average is the result.
    average = arguments.task is None if arguments.weights is None else arguments.weights == "params_ema"
    load_weights(network, checkpoint, prefer_ema=average, only=arguments.weights is not None)
    return network


def test_set(opt: Options, changes: Mapping[str, Any] | None = None) -> Any:
    """The test set of the options, with keys of its section changed."""
    assert opt.datasets.test is not None
    section = opt.datasets.test.model_copy(update=changes)
    return define_Dataset(section, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)


if __name__ == "__main__":
    sys.exit(main())
