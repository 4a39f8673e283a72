"""Looks at everything that a run would use, and says what is wrong and what to do.

    python -m scripts.doctor --opt options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike_local.json
    python -m scripts.doctor --opt FILE --fix-meta --set netG.spynet_path=null

Reads the options, versions, GPUs and the disk; the header and end of every picture (a few are decoded), all pairs,
spike files and exposures; whether spikes lie the right way up and at the right moment (on a sample); whether test
pictures are among the training ones; then takes one dry step. Ends with a list of what is wrong and what to do, a
contact sheet (experiments/<task>/doctor.png), and exit code 0 (nothing is wrong) or 1. --fix-meta writes the meta info
files anew from what is there.
"""

import argparse
import logging
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import doctor_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(doctor_parser(__doc__ or ""))

import numpy as np
import torch

from data.doctor.dataset_inspection import DatasetInspection, leaks
from data.doctor.inspection import Finding
from data.loader import SHARED_MEMORY, SHARED_MEMORY_REMEDY, shared_memory
from data.missing_files import WEIGHTS, missing_weights
from data.sampler import SampleIndex
from data.select_dataset import define_Dataset
from models.training.dry_run import dry_run
from scripts.check_requirements import missing
from utils.user_error import UserError
from utils.utils_dist import close_dist, init_dist
from utils.utils_image import imwrite_rgb
from utils.utils_option import Options, load_options

SHOWN = 8  # findings of a kind that are listed in full
LOW_DISK = 5e9  # bytes
ROOT = Path(__file__).resolve().parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 nothing is wrong, 1 something is."""
    arguments = doctor_parser(__doc__ or "").parse_args(argv)
    findings = list(examine(arguments))
    print(conclusion(findings))
    return 1 if any(finding.serious for finding in findings) else 0


def examine(arguments: argparse.Namespace) -> Iterator[Finding]:
    """All that is wrong, in the order in which it is found."""
    try:
        opt = load_options(arguments.opt, arguments.set)
    except UserError as error:
        yield Finding("options", str(error), "correct the option file; docs/options.md lists all keys")
        return
    yield from environment(opt)
    inspections = []
    for phase, section in opt.datasets:
        if section is not None:
            inspection = DatasetInspection(phase, section, lambda s: build(opt, s), fix_meta=arguments.fix_meta)
            print(inspection.summary())
            yield from inspection.findings
            inspections.append(inspection)
    if len(inspections) == 2:
        yield from leaks(*inspections)
    yield from shared_memory_room(opt, inspections)
    rows = [row for inspection in inspections for row in inspection.contact_rows()]
    if rows:
        sheet = arguments.sheet or opt.experiment_dir / "doctor.png"
        imwrite_rgb(sheet, stacked(rows))
        print(f"contact sheet: {sheet}")
    if not arguments.no_step:
        yield from dry_step(opt, inspections)


def build(opt: Options, section: Any) -> Any:
    """The data set of a section, as a run makes it."""
    return define_Dataset(section, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)


def environment(opt: Options) -> Iterator[Finding]:
    """Prints versions, devices and free disk; what of them is wrong, and weights that are not there."""
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    for fault in missing(ROOT / "requirement.txt"):
        yield Finding("versions", fault, "pip install -r requirement.txt")
    count = torch.cuda.device_count()
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        print(f"GPU {index}: {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    if not count:
        print("no GPU: training would run on the CPU")
    elif torch.distributed.is_nccl_available():
        print(f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
    elif count > 1:
        yield Finding("versions", "this torch has no NCCL, so the GPUs can't work together", "install torch for CUDA")
    root = Path(opt.path.root).absolute()
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    print(f"{free / 1e9:.0f} GB are free in {place}")
    if free < LOW_DISK:
        yield Finding("disk", f"only {free / 1e9:.1f} GB are free in {place}", "make room, or set path.root", False)
    for name, path in missing_weights(opt):
        yield Finding("weights", f"{name}: {path} does not exist", f"put there {WEIGHTS[name]}")


def shared_memory_room(opt: Options, inspections: Sequence[DatasetInspection]) -> Iterator[Finding]:
    """Holds what the loader's workers keep in shared memory against its size."""
    train = opt.datasets.train
    dataset = next((inspection.dataset for inspection in inspections if inspection.phase == "train"), None)
    if train is None or dataset is None or not train.dataloader_num_workers or not SHARED_MEMORY.is_dir():
        return
    try:
        sample = dataset[SampleIndex(epoch=0, index=0)]
    except UserError:
        return  # a finding of its own
    ranks = max(1, torch.cuda.device_count())
    size = sum(value.nbytes for value in sample.values() if isinstance(value, torch.Tensor))
    # Every worker works on one batch while those it has made wait.
    batches = train.dataloader_num_workers * (train.dataloader_prefetch_factor + 1)
    needed = batches * size * -(-train.dataloader_batch_size // ranks)
    print(f"{shared_memory()}; the loader's workers need about {needed / 2**20:.0f} MiB")
    if needed > shutil.disk_usage(SHARED_MEMORY).free:
        what = f"{shared_memory()} is too small for the workers' {batches} batches, about {needed / 2**20:.0f} MiB"
        yield Finding("shared memory", what, SHARED_MEMORY_REMEDY)


def dry_step(opt: Options, inspections: Sequence[DatasetInspection]) -> Iterator[Finding]:
    """One step on one batch, where everything is there that it needs."""
    sets = {inspection.phase: inspection.dataset for inspection in inspections}
    if opt.datasets.train is None or None in sets.values() or missing_weights(opt):
        yield Finding("dry step", "no dry step was taken: something that it needs is missing", "see the list", False)
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: not record.getMessage().startswith("options: "))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:], root.level = [handler], logging.INFO
    try:
        dry_run(opt, init_dist(), sets["train"], sets.get("test"), SampleIndex(epoch=0, index=0))
    except Exception as error:  # whatever ends the step would end the run
        yield Finding("dry step", f"{type(error).__name__}: {error}", "see the message")
    finally:
        root.handlers[:], root.level = before
        close_dist()


def conclusion(findings: Sequence[Finding]) -> str:
    """The list of what is wrong and what to do, the worst first."""
    lines = []
    for serious in (True, False):
        chosen = [finding for finding in findings if finding.serious == serious]
        kinds = dict.fromkeys(finding.kind for finding in chosen)
        lines += [("Wrong:" if serious else "Notices:")] if kinds else []
        for kind in kinds:
            same = [finding for finding in chosen if finding.kind == kind]
            for finding, following in zip(same[:SHOWN], [*same[1:SHOWN], None], strict=False):
                lines.append(f"  [{kind}] {finding.what}")
                if following is None or following.remedy != finding.remedy:
                    lines.append(f"      -> {finding.remedy}")
            lines += [f"  [{kind}] ... and {len(same) - SHOWN} more"] if len(same) > SHOWN else []
    return "\n".join(lines) if lines else "Nothing is wrong."


def stacked(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures one below the other, the narrower ones filled up with black."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
