"""Trains RGB only, concat and voxel alike and sets them side by side in a Markdown file.

    python -m scripts.compare_branches --steps 400
    python -m scripts.compare_branches --name gpu --steps 1000 --set datasets.train.gt_size=128

RGB only is the concat branch's option file without spikes; --set changes all three. Steps, seed and data are the same,
so the networks see the same frames in the same order. Each trains in a process of its own by `main_train_vrt.py`, as
`experiments/compare_NAME_VARIANT`; the same command again goes on from there, and trains nothing that is trained. Then
steps of the three are timed in turn within one process, the held-out clips restored by the tester's code, intact and
with spikes made worse, and the section NAME of --output and a figure beside it written. Needs the data of the option
files, for the default ones `python -m scripts.data_preparation.simulate_dataset`.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from scripts.comparison_report import Comparison, Row, machine, markdown, put_section, write_figure
from utils.evaluation.scores import Scores
from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_cli import run_command, without_secrets
from utils.utils_dist import init_dist
from utils.utils_file import read_json
from utils.utils_option import DatasetOptions, Options, load_options, option_changes, options_to_dict, write_options
from utils.utils_registry import DATASETS

ROOT = Path(__file__).resolve().parents[1]
RGB_DATASETS = {"train": "VideoRecurrentTrainDataset", "test": "VideoRecurrentTestDataset"}
ABLATIONS: dict[str, dict[str, Any]] = {
    "none (zero)": {"kind": "zero"},
    "shuffled in time": {"kind": "shuffle"},
    "4 spike frames late": {"kind": "shift", "amount": 4},
    "8 spike frames late": {"kind": "shift", "amount": 8},
    "half of them dropped": {"kind": "drop", "amount": 0.5},
}
SAME = {  # what has to agree for a comparison to be one
    "train": ("total_iter", "manual_seed"),
    "datasets.train": ("dataroot_gt", "dataroot_lq", "num_frame", "gt_size", "dataloader_batch_size"),
    "datasets.test": ("dataroot_gt", "dataroot_lq", "num_frame"),
}
FIGURE_CLIPS = 2
WARM_UP = 2


@dataclass
class Variant:
    """One of the networks compared.

    Attributes:
        title: its name in tables.
        opt: its options.
        results: folder of its option file and scores.
        middles: pictures of the first clips' middle frames by clip and title, once scored.
    """

    title: str
    opt: Options
    results: Path
    middles: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def options_file(self) -> Path:
        """All its options, for `main_train_vrt.py` and `main_test_vrt.py`."""
        return self.results / "options.json"

    @property
    def train_section(self) -> DatasetOptions:
        """`datasets.train`, which is there (`check_alike`)."""
        assert self.opt.datasets.train is not None
        return self.opt.datasets.train

    @property
    def test_section(self) -> DatasetOptions:
        """`datasets.test`, likewise."""
        assert self.opt.datasets.test is not None
        return self.opt.datasets.test

    def shared(self) -> dict[str, int]:
        """What data sets are given besides their section."""
        return {"seed": self.opt.train.manual_seed, "scale": self.opt.scale, "n_channels": self.opt.n_channels}


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
    variants = variants_of(arguments)
    check_alike(variants)
    for variant in variants:
        check_unchanged(variant)
    for variant in variants:
        write_options(variant.opt, variant.options_file)

    memory = [train(variant) for variant in variants]
    seconds = time_steps(variants, arguments.timed_steps)
    means = [score(variant, "intact").mean_over_frames() for variant in variants]
    ablation = {"intact": {v.title: mean["psnr"] for v, mean in zip(variants, means, strict=True) if has_spikes(v)}}
    for label, section in ABLATIONS.items():
        ablation[label] = {
            v.title: score(v, label, section).mean_over_frames()["psnr"] for v in filter(has_spikes, variants)
        }

    rows = [
        Row(v.title, mean["psnr"], mean["ssim"], count_parameters(v), seconds_of, gb, spikes_of(v))
        for v, mean, seconds_of, gb in zip(variants, means, seconds, memory, strict=True)
    ]
    figure = Path("figures") / f"comparison_{arguments.name}.jpg"
    found = Comparison(
        name=arguments.name,
        command=shlex.join(["python", "-m", "scripts.compare_branches", *without_secrets(argv)]),
        settings=settings_of(variants, rows, arguments.timed_steps),
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


def variants_of(arguments: argparse.Namespace) -> list[Variant]:
    """RGB only, concat and voxel with the changes of the command line; writes nothing."""
    changes = [*arguments.set, *([] if arguments.steps is None else [f"train.total_iter={arguments.steps}"])]
    folder = arguments.results / f"compare_{arguments.name}"

    def loaded(path: Path, kind: str) -> Options:
        return load_options(path, [*changes, f"task=compare_{arguments.name}_{kind}"])

    concat, voxel = loaded(arguments.opt_concat, "concat"), loaded(arguments.opt_voxel, "voxel")
    rgb = without_spikes(options_to_dict(loaded(arguments.opt_concat, "rgb")))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "rgb.json"
        path.write_text(json.dumps(rgb), encoding="utf-8")
        plain = load_options(path)
    return [
        Variant("RGB only", plain, folder / "rgb"),
        Variant("concat", concat, folder / "concat"),
        Variant("voxel", voxel, folder / "voxel"),
    ]


def without_spikes(tree: dict[str, Any]) -> dict[str, Any]:
    """All options of a concat run as those of the same run with frames alone."""
    datasets = dict(tree["datasets"])
    for phase, dataset_type in RGB_DATASETS.items():
        if datasets.get(phase) is not None:
            kept = set(DATASETS.parameters(dataset_type)) | set(DatasetOptions.model_fields)
            section = {key: value for key, value in datasets[phase].items() if key in kept}
            datasets[phase] = {**section, "dataset_type": dataset_type}
    network = {key: value for key, value in tree["netG"].items() if key != "in_chans"}
    return {**tree, "datasets": datasets, "netG": network}


def check_alike(variants: Sequence[Variant]) -> None:
    """
    Raises:
        UserError: a set is missing, or steps, seed, data or the like differ, so that there is nothing to compare.
    """
    trees = [options_to_dict(variant.opt) for variant in variants]
    faults = []
    for name, keys in SAME.items():
        sections = [find(tree, name) for tree in trees]
        if None in sections:
            raise UserError(f"{name}: missing in the options of {variants[sections.index(None)].title}")
        for key in keys:
            values = [section.get(key) for section in sections]
            if any(value != values[0] for value in values):
                faults.append(
                    f"{name}.{key}: {', '.join(f'{v.title} {x}' for v, x in zip(variants, values, strict=True))}"
                )
        if name == "datasets.test" and sections[0].get("dataroot_gt") is None:
            raise UserError("datasets.test.dataroot_gt: null; scores need sharp frames")
    if faults:
        raise UserError(f"the networks would not be trained and tested alike; set the same: {'; '.join(faults)}")


def find(tree: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name."""
    for key in name.split("."):
        tree = tree[key]
    return tree


def check_unchanged(variant: Variant) -> None:
    """
    Raises:
        UserError: its experiment was begun with other options, so that going on would mix the two.
    """
    path = variant.opt.experiment_dir / "options" / "resolved.json"
    if not path.is_file():
        return
    now = options_to_dict(variant.opt)
    now["datasets"] = {**now["datasets"], "test": None}
    changes = option_changes(read_json(path), now)
    if changes:
        raise UserError(
            f"{variant.opt.experiment_dir} was trained with other options ({'; '.join(changes)}); choose another "
            "--name, or remove that folder"
        )


def train(variant: Variant) -> float | None:
    """Trains what is left to train; the peak memory in GB, None where it is not known."""
    opt, peak = variant.opt, variant.opt.experiment_dir / "peak_memory.json"
    if opt.train.total_iter not in CheckpointFolder(opt.experiment_dir).steps():
        print(f"{variant.title}: trains in {opt.experiment_dir}", flush=True)
        # Testing comes later, and is not to count in the peak memory.
        flags = ["--opt", str(variant.options_file), "--set", "datasets.test=null"]
        command = [sys.executable, "-m", "scripts.comparison_training", "--peak_memory", str(peak), *flags]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
        if code:
            raise UserError(f"{variant.title}: training ended with exit code {code}; its last lines above say why")
        if opt.train.total_iter not in CheckpointFolder(opt.experiment_dir).steps():
            raise UserError(f"{variant.title}: training was told to stop; the same command goes on with it")
    return read_json(peak)["gb"] if peak.is_file() else None


def time_steps(variants: Sequence[Variant], rounds: int) -> list[float]:
    """Median seconds of a training step of every variant, loading included; the variants take turns."""
    steps = [step_of(variant) for variant in variants]
    seconds: list[list[float]] = [[] for _ in variants]
    for index in range(WARM_UP + rounds):
        for step, kept in zip(steps, seconds, strict=True):
            begin = time.perf_counter()
            step()
            elapsed = time.perf_counter() - begin
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


def settings_of(variants: Sequence[Variant], rows: Sequence[Row], rounds: int) -> list[str]:
    """What has to be known to read the tables."""
    opt, section = variants[0].opt, variants[0].train_section
    batch, size = section.dataloader_batch_size, section.gt_size
    memory_of = "tensors on the GPU" if torch.cuda.is_available() else "resident memory of the training process"
    differing = option_changes(options_to_dict(variants[1].opt), options_to_dict(variants[2].opt))
    further = [change for change in differing if change.startswith(("train.", "val."))]
    return [
        f"Machine: {machine()}.",
        f"Training: {opt.train.total_iter} steps of {batch} x {section.num_frame} frames, crops of {size} x {size}, "
        f"seed {opt.train.manual_seed}, widths {opt.netG.embed_dims}; the same frames in the same order for all three.",
        f"Spikes: {'; '.join(f'{row.title}: {row.spikes}' for row in rows)}.",
        *([f"Options that differ between concat and voxel: {'; '.join(further)}."] if further else []),
        "PSNR and SSIM: means over all frames of the held-out clips (`main_test_vrt.py`).",
        f"Seconds: median of {rounds} steps, loading included, the three taking turns in one process. "
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
