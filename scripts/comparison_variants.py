"""What `scripts.compare_branches` compares: options of each network, and whether they are trained and tested alike."""

import argparse
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.user_error import UserError
from utils.utils_file import read_json
from utils.utils_option import DatasetOptions, Options, load_options, option_changes, options_to_dict
from utils.utils_registry import DATASETS

RGB_DATASETS = {"train": "VideoRecurrentTrainDataset", "test": "VideoRecurrentTestDataset"}
BRANCHES = 3  # RGB only, concat, voxel
SAME_CLIPS = {  # what has to agree for a comparison to be one
    "train": ("manual_seed",),
    "datasets.train": ("dataroot_gt", "dataroot_lq"),
    "datasets.test": ("dataroot_gt", "dataroot_lq"),
}
SAME = {  # of the branches, which see the same frames in the same order
    "train": ("total_iter", "manual_seed"),
    "datasets.train": ("dataroot_gt", "dataroot_lq", "num_frame", "gt_size", "dataloader_batch_size"),
    "datasets.test": ("dataroot_gt", "dataroot_lq", "num_frame"),
}


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
    def begun_with(self) -> Path:
        """The options with which its training began, a file that is there if it has begun."""
        return self.opt.experiment_dir / "options" / "resolved.json"

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


def variants_of(arguments: argparse.Namespace, steps: Mapping[str, int]) -> list[Variant]:
    """RGB only, concat, voxel and those of --also, with the changes of the command line; writes nothing.

    Args:
        steps: `train.total_iter` by title; others have --steps, or their option file's.

    Raises:
        UserError: faults of the options, or two networks of one name.
    """
    folder = arguments.results / f"compare_{arguments.name}"
    also = [(title, Path(file)) for title, _, file in (words.partition("=") for words in arguments.also)]
    files = [
        ("RGB only", arguments.opt_concat),
        ("concat", arguments.opt_concat),
        ("voxel", arguments.opt_voxel),
        *also,
    ]
    kinds = ["rgb", "concat", "voxel", *(re.sub(r"\W+", "_", title) for title, _ in also)]
    if len(set(kinds)) < len(kinds) or not all(kinds):
        raise UserError(f"--also {' '.join(arguments.also)}: TITLE=FILE, each with a title of its own")
    variants = []
    for (title, path), kind in zip(files, kinds, strict=True):
        total = steps.get(title, arguments.steps)
        changes = [*arguments.set, *([] if total is None else [f"train.total_iter={total}"])]
        opt = load_options(path, [*changes, f"task=compare_{arguments.name}_{kind}"])
        variants.append(Variant(title, opt if kind != "rgb" else _reloaded(without_spikes(opt)), folder / kind))
    return variants


def _reloaded(tree: dict[str, Any]) -> Options:
    """Options of a tree, checked."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "rgb.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        return load_options(path)


def without_spikes(opt: Options) -> dict[str, Any]:
    """All options of a concat run as those of the same run with frames alone."""
    tree = options_to_dict(opt)
    datasets = dict(tree["datasets"])
    for phase, dataset_type in RGB_DATASETS.items():
        if datasets.get(phase) is not None:
            kept = set(DATASETS.parameters(dataset_type)) | set(DatasetOptions.model_fields)
            section = {key: value for key, value in datasets[phase].items() if key in kept}
            datasets[phase] = {**section, "dataset_type": dataset_type}
    network = {key: value for key, value in tree["netG"].items() if key != "in_chans"}
    return {**tree, "datasets": datasets, "netG": network}


def check_alike(variants: Sequence[Variant], same_steps: bool) -> None:
    """
    Args:
        variants: the three branches first.
        same_steps: whether the branches have to take the same number of steps.

    Raises:
        UserError: a set is missing, or steps, seed, data or the like differ, so that there is nothing to compare.
    """
    faults = [*_unlike(variants, SAME_CLIPS), *_unlike(variants[:BRANCHES], SAME)]
    faults = [fault for fault in dict.fromkeys(faults) if same_steps or not fault.startswith("train.total_iter:")]
    if faults:
        raise UserError(f"the networks would not be trained and tested alike; set the same: {'; '.join(faults)}")


def _unlike(variants: Sequence[Variant], same: Mapping[str, Sequence[str]]) -> list[str]:
    """What differs of what has to be the same."""
    trees = [options_to_dict(variant.opt) for variant in variants]
    faults = []
    for name, keys in same.items():
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
    return faults


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
    path = variant.begun_with
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
