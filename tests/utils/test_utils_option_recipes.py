"""The project's own parts: KAIR's files, the recipes, and that docs/options.md is complete."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import data.select_dataset  # noqa: F401  registers by being imported
import models.select_model  # noqa: F401  likewise
from utils.options.checks import NO_EFFECT
from utils.options.layers import DATASET_ALIASES, LOGGER_ALIASES, NETWORK_ALIASES, SECRETS
from utils.options.parts import INJECTED, Registries, all_sections
from utils.options.schema import (
    DatasetOptions,
    LoggerOptions,
    NetworkOptions,
    Options,
    PathOptions,
    Section,
    TopOptions,
    TrainOptions,
    ValOptions,
)
from utils.options.text import read_document
from utils.utils_option import OptionError, load_options, options_to_dict, write_options
from utils.utils_registry import DATASETS, LOSSES, NETWORKS, REPRESENTATIONS

ROOT = Path(__file__).resolve().parents[2]
VRT = ROOT / "options" / "vrt"
GOPRO = VRT / "006_train_vrt_videodeblurring_gopro.json"
KAIR_STYLE = ROOT / "tests" / "fixtures" / "options" / "006_kair_style.json"
RECIPES = sorted((ROOT / "options").rglob("*.json"))
HEADINGS = {"Top level": ""}
SECTIONS: dict[str, type[Section]] = {
    "": TopOptions,
    "path": PathOptions,
    "datasets": DatasetOptions,
    "netG": NetworkOptions,
    "train": TrainOptions,
    "val": ValOptions,
    "logger": LoggerOptions,
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_are_read_back_equal(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opt = load_options(recipe)
    assert opt.task == recipe.stem or recipe.parent.name == "demo"
    assert not caplog.records, "a recipe asks for something that has no effect"
    write_options(opt, tmp_path / "resolved.json")
    assert load_options(tmp_path / "resolved.json") == opt


def test_kairs_file_has_kairs_values(caplog: pytest.LogCaptureFixture) -> None:
    opt = load_options(KAIR_STYLE)
    tree = read_document(KAIR_STYLE).tree
    resolved = options_to_dict(opt)
    assert flat(tree).items() <= flat(resolved).items()
    no_effect = {record.getMessage().split(" ")[0].rstrip(":") for record in caplog.records}
    assert no_effect == {"use_static_graph", "gpu_ids", "dist"}
    assert load_options(GOPRO).model_copy(update={key: getattr(opt, key) for key in no_effect}) == opt


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names with their values as JSON."""
    found = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and key != "io_backend"
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": repr(value)}
    return {key: repr(float(text)) if re.fullmatch(r"-?[\d.e-]+", text) else text for key, text in found.items()}


@pytest.mark.parametrize(
    ("name", "roots", "frames", "tile"),
    [
        ("005_train_vrt_videodeblurring_dvd", ("trainsets/DVD/train_GT", "testsets/DVD10/test_GT"), "05d jpg", 256),
        ("007_train_vrt_videodeblurring_reds", ("trainsets/REDS/train_sharp", "testsets/REDS4/GT"), "08d png", 256),
    ],
)
def test_official_recipes_differ_from_006_in_data_and_tiles_only(
    name: str, roots: tuple[str, str], frames: str, tile: int
) -> None:
    opt, gopro = load_options(VRT / f"{name}.json"), load_options(GOPRO)
    assert (opt.netG, opt.train, opt.path, opt.logger) == (gopro.netG, gopro.train, gopro.path, gopro.logger)
    assert opt.datasets.train is not None and opt.datasets.test is not None
    train, test = opt.datasets.train, opt.datasets.test
    assert train.dataroot_gt.startswith(roots[0]) and test.dataroot_gt.startswith(roots[1])
    assert f"{train.filename_tmpl} {train.filename_ext}" == frames
    assert (opt.val.tile_size, opt.val.tile_overlap_size) == ((12, tile, tile), (2, 20, 20))


@pytest.mark.parametrize(("suffix", "in_chans"), [("rgbspike", 7), ("rgbspike_local", 4), ("debug", 4)])
def test_recipes_with_spikes_derive_the_input_channels(suffix: str, in_chans: int) -> None:
    opt = load_options(VRT / f"006_train_vrt_videodeblurring_gopro_{suffix}.json")
    assert opt.netG.in_chans == opt.netG.arguments()["in_chans"] == in_chans
    bins = {"representation": "tfp", "bins": in_chans - 3}
    assert opt.datasets.train is not None and opt.datasets.test is not None
    assert opt.datasets.train.arguments()["spike"] == opt.datasets.test.arguments()["spike"] == bins


@pytest.mark.parametrize("suffix", ["rgbspike", "rgbspike_local", "rgbspike_voxel", "rgbspike_voxel_lowmem"])
def test_recipes_with_spikes_have_the_documents_loss(suffix: str) -> None:
    train = load_options(VRT / f"006_train_vrt_videodeblurring_gopro_{suffix}.json").train
    assert (train.G_charbonnier_eps, train.G_perceptual_weight, train.E_decay) == (1e-6, 0.1, 0.999)
    assert (train.vgg_type, train.vgg_layers, train.vgg_weights) == ("vgg16", ["relu3_3"], "at_hand")
    assert load_options(GOPRO).train.G_charbonnier_eps == 1e-9


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_arguments_fit_the_constructors(recipe: Path) -> None:
    opt = load_options(recipe)
    inspect.signature(NETWORKS.get(opt.netG.net_type)).bind(**opt.netG.arguments())
    for section in (opt.datasets.train, opt.datasets.test):
        if section is not None:
            assert not INJECTED & set(section.arguments())
            inspect.signature(DATASETS.get(section.dataset_type)).bind(**section.arguments())


@pytest.mark.parametrize("name", REPRESENTATIONS.names())
def test_every_representation_decides_the_input_channels(name: str) -> None:
    spike = [f'datasets.{phase}.spike={{"representation": "{name}"}}' for phase in ("train", "test")]
    opt = load_options(VRT / "006_train_vrt_videodeblurring_gopro_rgbspike.json", spike)
    assert opt.netG.in_chans == 3 + REPRESENTATIONS.get(name)().channels


def test_file_of_the_spike_fork(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its keys, at the places where it has them."""
    spikes = {
        "dataset_type": "VideoRecurrentTrainDatasetRGBSpike",
        "dataroot_spike": "trainsets/GOPRO_Large_spike_seq/train",
        "spike_h": 250,
        "spike_w": 400,
        "spike_channels": 1,
        "spike_flipud": True,
        "scale": 1,
        "dataloader_prefetch_factor": 2,
        "dataloader_persistent_workers": True,
    }
    logs = {"use_tensorboard": True, "use_wandb": True, "wandb_api_key": "s3cret", "wandb_project": "p"}
    tree = {"base": str(GOPRO), "datasets": {"train": spikes, "test": None}, "netG": {"in_chans": 4}, "logging": logs}
    (tmp_path / "fork.json").write_text(json.dumps(tree))
    opt = load_options(tmp_path / "fork.json")
    assert opt.netG.in_chans == 4
    assert "s3cret" not in caplog.text + json.dumps(options_to_dict(opt))


def test_training_with_spikes_and_testing_without_is_told() -> None:
    spikes = {"dataset_type": "VideoRecurrentTrainDatasetRGBSpike", "dataroot_spike": "x", "spike": {"bins": 4}}
    overrides = [f"datasets.train.{key}={json.dumps(value)}" for key, value in spikes.items()]
    with pytest.raises(OptionError, match=r"datasets\.train delivers 7 and datasets\.test delivers 3 input channels"):
        load_options(GOPRO, overrides)


def test_misspelt_options_of_the_projects_parts() -> None:
    overrides = ["datasets.train.dataroot_spike=x", "netG.deformable_group=1", "train.gt_size=1", "model=vtr"]
    with pytest.raises(OptionError) as raised:
        load_options(GOPRO, overrides)
    told = "\n".join(raised.value.faults)
    takers = "SpikeStreamTestDataset, VideoInstantsTestDataset, VideoRecurrentTestDatasetRGBSpike"
    assert f"but of {takers}, VideoRecurrentTrainDatasetRGBSpike" in told
    assert "did you mean 'deformable_groups'?" in told
    assert "train.gt_size (--set): unknown here; did you mean datasets.*.gt_size?" in told
    assert "Did you mean 'vrt'?" in told


def test_every_option_is_read_or_named_as_having_no_effect() -> None:
    """Looks for `section.key` in the code; parameters of losses reach them by name."""
    files = [*ROOT.glob("main_*.py"), *(f for room in ("data", "models", "utils") for f in (ROOT / room).rglob("*.py"))]
    code = "\n".join(f.read_text() for f in files if f.parent.name != "options" and f.name != "utils_option.py")
    code += (ROOT / "utils" / "options" / "schema.py").read_text().replace("self.", "val.")
    holder = r"\b(?:opt|options|train|train_options|val|path|section|netG)"
    indirect = {"gpu_ids", "dist", *(f"train.{key}" for name in LOSSES.names() for key in LOSSES.parameters(name))}
    indirect |= {"datasets.name", "datasets.scale"}  # for people; has to agree with another option
    names = {f"{section}.{key}".lstrip(".") for section, model in SECTIONS.items() for key in model.model_fields}
    attributes = set(re.findall(rf"(?={holder}\.(\w+))", code))
    read = {name for name in names if name.rpartition(".")[2] in attributes}
    assert not read & set(NO_EFFECT), "these are read now: take them out of NO_EFFECT"
    assert names - read - indirect == set(NO_EFFECT)


def documented() -> dict[str, dict[str, str]]:
    """Keys and defaults of docs/options.md by section."""
    sections: dict[str, dict[str, str]] = {}
    for line in (ROOT / "docs" / "options.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections[HEADINGS.get(line[3:], line[3:])] = {}
        elif line.startswith("| `"):
            names, default = line.split("|")[1:3]
            list(sections.values())[-1].update(dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip()))
    return sections


def test_document_has_every_key_and_no_other() -> None:
    schema: dict[str, set[str]] = {}
    for section, _, model in all_sections(Registries()):
        schema.setdefault(section, set()).update(model.model_fields)
    written = documented()
    aliases = written.pop("Aliases")
    assert {section: sorted(keys) for section, keys in written.items()} == {
        section: sorted(keys) for section, keys in schema.items()
    }
    assert set(aliases) == {*DATASET_ALIASES, *NETWORK_ALIASES, "logging", "use_tensorboard", "use_wandb", *SECRETS}
    assert set(LOGGER_ALIASES.values()) <= schema["logger"]
    sections = set(Options.model_fields) - schema[""]
    assert sections == {section.split(".")[0] for section in schema if section}


def test_document_has_the_defaults() -> None:
    written = documented()
    fields = [
        (section, key, field)
        for section, part, model in all_sections(Registries())
        for key, field in model.model_fields.items()
        if part in ("", "vrt", "VideoRecurrentTrainDatasetRGBSpike", "tfp", "raw", "interval", "ema", "gaussian")
    ]
    assert len(fields) > 100
    for section, key, field in fields:
        text = written[section][key].strip("`")
        if text in ("required", "total_iter"):
            assert field.is_required(), key
        elif text.startswith(("eight", "120 ", "six")):
            continue
        else:
            assert json.loads(text) == field.default, f"{section}.{key}"
