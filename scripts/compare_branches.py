"""Trains RGB only, concat and voxel alike and sets them side by side in a Markdown file.

    python -m scripts.compare_branches --steps 400
    python -m scripts.compare_branches --name gpu --steps 1000 --set datasets.train.gt_size=128
    python -m scripts.compare_branches --name equal --seconds 900 --also guided=options/demo/guided.json --benchmark \\
        --set path.pretrained_netG=null

RGB only is the concat branch's option file without spikes; --also adds networks trained on the same clips, --set is for
all. Steps, seed and data of the branches are the same, so they see the same frames in the same order; with --seconds
each takes the steps that fit into this processor time (on a GPU: time), by their median cost. Each trains in a process
of its own by `main_train_vrt.py`, as `experiments/compare_NAME_VARIANT`; the same command again goes on from there, and
trains nothing that is trained. Then steps of all are timed in turn within one process, the held-out clips restored by
the tester's code, intact and with spikes made worse, and the section NAME of --output and a figure beside it written.
--benchmark runs them on the frozen clips too (docs/benchmark.md). Needs the data of the option files, for the default
ones `python -m scripts.data_preparation.simulate_dataset`.
"""

import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import compare_branches_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(compare_branches_parser(__doc__ or ""))

import numpy as np
import torch

from data.select_dataset import define_Dataset
from main_train_vrt import stream
from models.model_base import amp_dtype
from models.select_model import define_Model
from models.select_network import define_G, load_weights
from models.testing.evaluate import FrameResult, Testing, evaluate
from scripts import benchmark_restoration
from scripts.comparison_report import Comparison, Row, machine, markdown, put_section, write_figure
from scripts.comparison_variants import Variant, check_alike, check_unchanged, variants_of
from utils.evaluation.scores import Scores
from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_cli import run_command, without_secrets
from utils.utils_dist import init_dist
from utils.utils_file import read_json
from utils.utils_option import load_options, option_changes, options_to_dict, write_options
from utils.utils_registry import DATASETS

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS: dict[str, dict[str, Any]] = {
    "none (zero)": {"kind": "zero"},
    "shuffled in time": {"kind": "shuffle"},
    "4 spike frames late": {"kind": "shift", "amount": 4},
    "8 spike frames late": {"kind": "shift", "amount": 8},
    "half of them dropped": {"kind": "drop", "amount": 0.5},
}
FIGURE_CLIPS = 2
WARM_UP = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a mistake in options, data or flags."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    return run_command(lambda: compare(arguments, argv))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    return compare_branches_parser(__doc__ or "").parse_args(argv)


def compare(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """The whole comparison; everything that can be wrong with options is found before anything is trained."""
    if not re.fullmatch(r"[\w.-]+", arguments.name):
        raise UserError(f"--name {arguments.name!r}: letters, digits, '_', '-' and '.' make a name")
    if arguments.timed_steps < 1:
        raise UserError(f"--timed_steps {arguments.timed_steps}: at least 1 is needed")
    if arguments.seconds is not None and (arguments.steps is not None or not arguments.seconds > 0):
        raise UserError(f"--seconds {arguments.seconds:g}: above 0, and without --steps, which it replaces")
    variants = variants_of(arguments, {})
    check_alike(variants, same_steps=arguments.seconds is None)
    if arguments.seconds is not None:
        variants = variants_of(arguments, steps_within(arguments.seconds, variants, arguments.timed_steps))
    for variant in variants:
        check_unchanged(variant)
    for variant in variants:
        write_options(variant.opt, variant.options_file)

    costs = [train(variant) for variant in variants]
    seconds = time_steps(variants, arguments.timed_steps)
    means = [score(variant, "intact").mean_over_frames() for variant in variants]
    ablation = {"intact": {v.title: mean["psnr"] for v, mean in zip(variants, means, strict=True) if has_spikes(v)}}
    for label, section in ABLATIONS.items():
        ablation[label] = {
            v.title: score(v, label, section).mean_over_frames()["psnr"] for v in filter(has_spikes, variants)
        }

    rows = [
        Row(v.title, mean["psnr"], mean["ssim"], count_parameters(v), seconds_of, cost.get("gb"), spikes_of(v))
        for v, mean, seconds_of, cost in zip(variants, means, seconds, costs, strict=True)
    ]
    figure = Path("figures") / f"comparison_{arguments.name}.jpg"
    found = Comparison(
        name=arguments.name,
        command=shlex.join(["python", "-m", "scripts.compare_branches", *without_secrets(argv)]),
        settings=[
            f"Machine: {machine()}.",
            training_of(variants, costs, arguments.seconds),
            *settings_of(variants, rows, arguments.timed_steps),
        ],
        input_psnr=means[0]["input_psnr"],
        input_ssim=means[0]["input_ssim"],
        rows=rows,
        ablation=ablation,
        figure=figure.as_posix(),
    )
    write_figure(arguments.output.parent / figure, figure_clips(variants))
    text = markdown(found)
    put_section(arguments.output, arguments.name, text)
    print(f"\n{text}\nwritten to {arguments.output}; scores: {arguments.results / f'compare_{arguments.name}'}")
    if arguments.benchmark:
        benchmark(variants, arguments)


def benchmark(variants: Sequence[Variant], arguments: argparse.Namespace) -> None:
    """All networks on the frozen benchmark: tables with intervals in a section of the same file.

    Raises:
        UserError: the benchmark can't be run; its message is above.
    """
    named = [word for v in variants for word in ("--opt", str(v.options_file), "--name", v.title)]
    places = ["--output", str(arguments.output), "--section", f"benchmark_{arguments.name}"]
    places += ["--json", str(arguments.results / f"compare_{arguments.name}" / "benchmark.json")]
    if benchmark_restoration.main([*named, *places]):
        raise UserError("the benchmark was not run; the trainings are kept, and the same command goes on")


def steps_within(seconds: float, variants: Sequence[Variant], rounds: int) -> dict[str, int]:
    """Steps that each network takes in a processor time, by title; a training that has begun keeps its number."""
    steps = {v.title: read_json(v.begun_with)["train"]["total_iter"] for v in variants if v.begun_with.is_file()}
    fresh = [variant for variant in variants if variant.title not in steps]
    # A GPU's work is no time of the process, which waits for it.
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    costs = time_steps(fresh, rounds, clock)
    return steps | {v.title: max(1, round(seconds / cost)) for v, cost in zip(fresh, costs, strict=True)}


def train(variant: Variant) -> dict[str, Any]:
    """Trains what is left to train; what it cost, as `scripts.comparison_training` writes it, empty where not known."""
    opt, cost = variant.opt, variant.opt.experiment_dir / "cost.json"
    if opt.train.total_iter not in CheckpointFolder(opt.experiment_dir).steps():
        print(f"{variant.title}: trains in {opt.experiment_dir}", flush=True)
        # Testing comes later, and is not to count in the peak memory.
        flags = ["--opt", str(variant.options_file), "--set", "datasets.test=null"]
        command = [sys.executable, "-m", "scripts.comparison_training", "--cost", str(cost), *flags]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
        if code:
            raise UserError(f"{variant.title}: training ended with exit code {code}; its last lines above say why")
        if opt.train.total_iter not in CheckpointFolder(opt.experiment_dir).steps():
            raise UserError(f"{variant.title}: training was told to stop; the same command goes on with it")
    return read_json(cost) if cost.is_file() else {}


def time_steps(variants: Sequence[Variant], rounds: int, clock: Callable[[], float] | None = None) -> list[float]:
    """Median seconds of a training step of every variant, loading included; the variants take turns.

    Args:
        clock: what time is read from; None: `time.perf_counter`.
    """
    clock = clock or time.perf_counter
    steps = [step_of(variant) for variant in variants]
    seconds: list[list[float]] = [[] for _ in variants]
    for index in range(WARM_UP + rounds):
        for step, kept in zip(steps, seconds, strict=True):
            begin = clock()
            step()
            elapsed = clock() - begin
            if index >= WARM_UP:
                kept.append(elapsed)
    return [statistics.median(kept) for kept in seconds]


def step_of(variant: Variant) -> Callable[[], None]:
    """What takes one optimizer step of a fresh network, as the last step of a training does."""
    opt, dist = variant.opt, init_dist()
    batches = stream(opt, define_Dataset(variant.train_section, **variant.shared()), dist, consumed=0)
    model = define_Model(opt, dist, pretrained=False)

    def step() -> None:
        model.optimize_parameters(opt.train.total_iter, next(batches))
        if dist.device.type == "cuda":
            torch.cuda.synchronize(dist.device)

    return step


def score(variant: Variant, label: str, perturb: Mapping[str, Any] | None = None) -> Scores:
    """Scores of the trained network on the held-out clips, as `main_test_vrt.py` measures and writes them.

    Args:
        label: what is done to the spikes, in words; "intact" keeps the middle frames.
        perturb: `datasets.test.spike_perturb`.
    """
    changes = [] if perturb is None else [f"datasets.test.spike_perturb={json.dumps(perturb)}"]
    opt = load_options(variant.options_file, changes)
    assert opt.datasets.test is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = define_G(opt.netG)
    load_weights(network, opt.experiment_dir, prefer_ema=True)
    clips = define_Dataset(opt.datasets.test, **variant.shared())
    dtype = amp_dtype(opt.train.amp_dtype, device)
    testing = Testing.from_options(opt.val, opt.scale, dtype, opt.netG)

    def keep(result: FrameResult) -> None:
        if perturb is None and len(variant.middles) < FIGURE_CLIPS and result.is_middle:
            titles = {"restored": variant.title}
            variant.middles[result.clip] = {titles.get(title, title): picture for title, picture in result.views()}

    scores = evaluate(network.to(device), clips, testing, device, on_frame=keep, input_scores=True)
    scores.write(variant.results / re.sub(r"\W+", "_", label).strip("_"))
    print(f"{variant.title}, tested with spikes {label}: {scores.mean_over_frames()['psnr']:.2f} dB", flush=True)
    return scores


def count_parameters(variant: Variant) -> int:
    """Parameters of the network; it is made without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in define_G(variant.opt.netG).parameters())


def has_spikes(variant: Variant) -> bool:
    """Whether its test set has spikes to make worse."""
    return "spike" in DATASETS.parameters(variant.test_section.dataset_type)


def spikes_of(variant: Variant) -> str:
    """What a variant is given of the spikes, in words."""
    spike = options_to_dict(variant.opt)["datasets"]["train"].get("spike")
    if spike is None:
        return "none"
    name, *rest = (f"{key} {value}" if key != "representation" else str(value) for key, value in spike.items())
    return f"{name} ({', '.join(rest)})" if rest else name


def training_of(variants: Sequence[Variant], costs: Sequence[Mapping[str, Any]], seconds: float | None) -> str:
    """How long all were trained, on what."""
    opt, section = variants[0].opt, variants[0].train_section
    batch, size = section.dataloader_batch_size, section.gt_size
    seen = f"{batch} x {section.num_frame} frames, crops of {size} x {size}, seed {opt.train.manual_seed}, widths "
    seen += f"{opt.netG.embed_dims}; the same frames in the same order for all three."
    if seconds is None:
        return f"Training: {opt.train.total_iter} steps of {seen}"
    spent = "; ".join(
        f"{v.title} {v.opt.train.total_iter:,} steps, {cost.get('processor_seconds', math.nan):.0f} s"
        for v, cost in zip(variants, costs, strict=True)
    )
    return f"Training: {seconds:g} processor seconds of each ({spent}, start and loading included); branches: {seen}"


def settings_of(variants: Sequence[Variant], rows: Sequence[Row], rounds: int) -> list[str]:
    """What else has to be known to read the tables."""
    memory_of = "tensors on the GPU" if torch.cuda.is_available() else "resident memory of the training process"
    differing = option_changes(options_to_dict(variants[1].opt), options_to_dict(variants[2].opt))
    further = [c for c in differing if c.startswith(("train.", "val.")) and not c.startswith("train.total_iter:")]
    return [
        f"Spikes: {'; '.join(f'{row.title}: {row.spikes}' for row in rows)}.",
        *([f"Options that differ between concat and voxel: {'; '.join(further)}."] if further else []),
        "PSNR and SSIM: means over all frames of the held-out clips (`main_test_vrt.py`).",
        f"Seconds: median of {rounds} steps, loading included, the networks taking turns in one process. "
        f"Peak memory: {memory_of}.",
    ]


def figure_clips(variants: Sequence[Variant]) -> list[dict[str, np.ndarray]]:
    """Pictures by title of the middle frames of the first clips: input, all variants, sharp."""
    pictures = []
    for name, shown in variants[0].middles.items():
        restored = {variant.title: variant.middles[name][variant.title] for variant in variants}
        pictures.append({"input": shown["input"], **restored, "sharp": shown["sharp"]})
    return pictures


if __name__ == "__main__":
    sys.exit(main())
