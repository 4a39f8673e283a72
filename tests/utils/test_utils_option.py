"""Options against small parts of the tests' own: layers, types, faults, cross-checks, writing."""

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from utils.option_schema import TrainOptions
from utils.utils_option import (
    OptionError,
    Options,
    Registries,
    add_option_arguments,
    load_options,
    options_to_dict,
    write_options,
)
from utils.utils_registry import Registry

Load = Callable[..., Options]
Tree = dict[str, Any]

NETWORKS = Registry("network", "netG.net_type")
DATASETS = Registry("dataset", "datasets.*.dataset_type")
REPRESENTATIONS = Registry("spike representation", "datasets.*.spike.representation")
MODELS = Registry("model", "model")
LOSSES = Registry("loss", "train.G_lossfn_type")
REGISTRIES = Registries(NETWORKS, MODELS, LOSSES, DATASETS, REPRESENTATIONS)


@NETWORKS.register("tiny")
class Tiny:
    def __init__(
        self,
        *,
        upscale: int = 1,
        in_chans: int = 3,
        img_size: tuple[int, ...] = (6, 64, 64),
        window_size: Sequence[int] = (6, 8, 8),
        depths: list[int] = [2, 2],  # noqa: B006
        embed_dims: Sequence[int] = (12, 12),
        num_heads: Sequence[int] = (6, 6),
        indep_reconsts: Sequence[int] = (),
        rate: float = 0.1,
        spynet_path: str | None = None,
    ) -> None: ...


@NETWORKS.register("other")
class Other:
    def __init__(self, *, width: int = 1) -> None: ...


@DATASETS.register("Frames")
class Frames:
    def __init__(
        self,
        *,
        dataroot_gt: str,
        dataroot_lq: str,
        num_frame: int = 6,
        gt_size: int = 64,
        use_hflip: bool = True,
        val_partition: str | list[str] | None = None,
        io_backend: dict[str, str] | None = None,
        seed: int = 0,
        scale: int = 1,
        n_channels: int = 3,
    ) -> None: ...


@DATASETS.register("Spikes", "SpikesToo")
class Spikes:
    packs_spikes = "concat"

    def __init__(
        self, *, dataroot: str, spike: dict[str, Any], input_pack_mode: Literal["concat", "dual"] = "concat"
    ) -> None: ...


@DATASETS.register("HalvesByDefault")
class HalvesByDefault:
    packs_spikes = "concat"

    def __init__(self, *, spike: dict[str, Any] | None = {"representation": "halves"}) -> None:  # noqa: B006
        ...


@REPRESENTATIONS.register("tfp")
class Tfp:
    def __init__(self, *, bins: int = 4) -> None:
        if bins < 1:
            raise ValueError(f"tfp: bins is {bins}")
        self.channels = bins


@REPRESENTATIONS.register("voxel")
class Voxel:
    def __init__(self, *, bins: int = 32, log1p: bool = True) -> None:
        self.channels = bins


@REPRESENTATIONS.register("halves")
class Halves:
    channels = 4


@MODELS.register("plain")
class Plain: ...


@LOSSES.register("charbonnier")
def charbonnier(restored: Any, sharp: Any, *, G_charbonnier_eps: float = 1e-9) -> None: ...


@LOSSES.register("huber")
def huber(restored: Any, sharp: Any, *, G_huber_delta: float = 1.0) -> None: ...


def base() -> Tree:
    """A file without faults."""
    return {
        "task": "a_task",
        "model": "plain",
        "datasets": {"train": {"dataset_type": "Frames", "dataroot_gt": "gt", "dataroot_lq": "lq"}},
        "netG": {"net_type": "tiny"},
        "train": {"total_iter": 100},
    }


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a tree, or text, written to a file."""

    def load_tree(tree: Tree | str, *overrides: str) -> Options:
        path = tmp_path / "opt.json"
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree, indent=1))
        return load_options(path, overrides, registries=REGISTRIES)

    return load_tree


@pytest.fixture
def faults(load: Load) -> Callable[..., dict[str, str]]:
    """What is wrong, by dotted name."""

    def faults_of(tree: Tree, *overrides: str) -> dict[str, str]:
        with pytest.raises(OptionError) as raised:
            load(tree, *overrides)
        found = {}
        for fault in raised.value.faults:
            name, _, message = fault.partition(": ")
            found[name.split(" (")[0]] = message
        assert len(found) == len(raised.value.faults), "two faults of one option"
        return found

    return faults_of


def spiky(**spike: Any) -> Tree:
    """A file with spikes in training and test."""
    section = {"dataset_type": "Spikes", "dataroot": "d", "spike": spike}
    return base() | {"datasets": {"train": section, "test": dict(section)}}


# Layers


def test_precedence_defaults_base_file_set(load: Load, tmp_path: Path) -> None:
    under = base()
    under["train"] |= {"checkpoint_save": 1, "checkpoint_test": 1, "fix_keys": ["a", "b"]}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "under.json").write_text(json.dumps(under))
    over = {"base": "deep/under.json", "train": {"checkpoint_test": 2, "fix_keys": ["c"], "total_iter": 7}}
    opt = load(over, "train.total_iter=9", "netG.depths=[4, 4]")
    assert (opt.train.checkpoint_print, opt.train.checkpoint_save, opt.train.checkpoint_test) == (200, 1, 2)
    assert (opt.train.fix_keys, opt.train.total_iter, opt.netG.depths) == (["c"], 9, [4, 4])
    assert opt.task == "a_task"


def test_base_is_relative_to_the_file_that_names_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.yml").write_text("base: two.json\nscale: 1\n")
    (tmp_path / "a" / "two.json").write_text(json.dumps(base()))
    assert load({"base": "a/one.yml", "task": "x"}).task == "x"


def test_circles_of_bases_are_told(load: Load, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"base": "opt.json"}')
    with pytest.raises(OptionError, match=r"circle: opt\.json -> other\.json -> opt\.json"):
        load({"base": "other.json"})


@pytest.mark.parametrize(
    ("name", "words"), [("missing.json", r"no file .*missing\.json"), (1, "name of an option file")]
)
def test_base_has_to_be_a_file(load: Load, name: Any, words: str) -> None:
    with pytest.raises(OptionError, match=rf"base \(.*opt\.json:2\): .*{words}"):
        load({"base": name})


def test_another_representation_drops_the_parameters_of_the_one_below(load: Load, tmp_path: Path) -> None:
    (tmp_path / "under.json").write_text(json.dumps(spiky(representation="tfp", bins=2)))
    same, other = {"representation": "tfp"}, {"representation": "voxel", "log1p": False}
    both = {"base": "under.json", "datasets": {"train": {"spike": other}, "test": {"spike": other}}}
    assert load(both).datasets.train.spike.bins == 32
    assert load({"base": "under.json", "datasets": {"train": {"spike": same}}}).datasets.train.spike.bins == 2


def test_null_removes_an_inherited_section(load: Load) -> None:
    assert load(spiky(), "datasets.test=null").datasets.test is None


def test_faults_name_the_file_and_line_of_the_layer_that_has_them(load: Load, tmp_path: Path) -> None:
    under = base() | {"scale": "two"}
    (tmp_path / "under.json").write_text(json.dumps(under, indent=1))
    line = json.dumps(under, indent=1).split("\n").index(' "scale": "two"') + 1
    with pytest.raises(OptionError) as raised:
        load({"base": "under.json", "n_channels": "3"}, "train.E_decay=high")
    assert raised.value.faults == [
        f'scale ({tmp_path}/under.json:{line}): expected a whole number, got "two"',
        f'n_channels ({tmp_path}/opt.json:3): expected a whole number, got "3"; write it without quotes',
        'train.E_decay (--set): expected a number, got "high"',
    ]


# Types


@pytest.mark.parametrize("number", ["3e5", "300000", "3.0e5"])
def test_whole_numbers_may_have_an_exponent(load: Load, number: str) -> None:
    opt = load(base(), f"train.total_iter={number}", f"datasets.train.gt_size={number}", f"netG.depths=[{number}, 2]")
    assert opt.train.total_iter == opt.datasets.train.gt_size == opt.netG.depths[0] == 300000
    assert type(opt.train.total_iter) is type(opt.netG.depths[0]) is int


@pytest.mark.parametrize("value", ["true", "1.5", '"7"', "null", "[7]"])
def test_what_is_no_whole_number(faults: Any, value: str) -> None:
    found = faults(base(), f"train.total_iter={value}", f"datasets.train.num_frame={value}")
    assert set(found) == {"train.total_iter", "datasets.train.num_frame"}
    assert all(message.startswith("expected a whole number, got ") for message in found.values())


@pytest.mark.parametrize("value", ["1", '"true"', "True"])
def test_what_is_no_truth_value(faults: Any, value: str) -> None:
    found = faults(base(), f"datasets.train.use_hflip={value}")
    assert found["datasets.train.use_hflip"].startswith("expected true or false")


def test_numbers_may_be_whole(load: Load) -> None:
    assert load(base(), "train.E_decay=0", "netG.rate=1").netG.rate == 1.0


@pytest.mark.parametrize(
    ("override", "name", "message"),
    [
        ("train.E_decay=1", "train.E_decay", "expected a number below 1.0, got 1"),
        ("train.total_iter=0", "train.total_iter", "expected a number above 0, got 0"),
        ("datasets.train.dataloader_batch_size=0", "datasets.train.dataloader_batch_size", "above 0"),
        ("train.G_optimizer_betas=[0.9]", "train.G_optimizer_betas", "at least 2 values"),
        ("train.G_optimizer_type=adan", "train.G_optimizer_type", "'adam', 'adamw', got \"adan\"; did you mean 'adam"),
        ("train.vgg_type=VGG16", "train.vgg_type", "one of 'vgg16', 'vgg19', got \"VGG16\"; did you mean 'vgg16'?"),
        ("train.G_scheduler_periods=[1, x]", "train.G_scheduler_periods", "a whole number or a list"),
        ('train.G_scheduler_periods=[1, "x"]', "train.G_scheduler_periods[1]", 'a whole number, got "x"'),
        ("datasets.train.val_partition=[1]", "datasets.train.val_partition[0]", "expected text, got 1"),
        ("train.fix_keys=spynet", "train.fix_keys", 'a list, got "spynet"; write ["spynet"]'),
        ("train.G_optimizer_clipgrad=None", "train.G_optimizer_clipgrad", "null has no quotes"),
        ("val=3", "val", "expected a section"),
        ("train=null", "train", "expected a section"),
        ("netG=vrt", "netG", "section {...} with net_type"),
        ("datasets=x", "datasets", "expected a section"),
        ("datasets.train.spike=3", "datasets.train.spike", "not an option of this one, but of HalvesByDefault, Spikes"),
        ("task=a/b", "task", "name without slashes"),
        ("logger.wandb_mode=off", "logger.wandb_mode", "one of 'online', 'offline', 'disabled'"),
    ],
)
def test_wrong_values(faults: Any, override: str, name: str, message: str) -> None:
    found = faults(base(), override)
    assert list(found) == [name]
    assert message in found[name]


def test_null_seed_is_the_fixed_default(load: Load) -> None:
    assert load(base(), "train.manual_seed=null").train.manual_seed == load(base()).train.manual_seed == 0


def test_options_do_not_change(load: Load) -> None:
    opt = load(base())
    for section, key in ((opt, "task"), (opt.train, "total_iter"), (opt.netG, "rate")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, key, 1)


# Unknown keys


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_itr=1", "unknown option; did you mean 'total_iter'?"),
        ("trian.total_iter=1", "unknown option; did you mean 'train'?"),
        ("total_iter=1", "unknown here; did you mean train.total_iter?"),
        ("train.depths=[1]", "unknown here; did you mean netG.depths?"),
        ("val.manual_sed=1", "unknown option; did you mean train.manual_seed?"),
        ("train.task=x", "unknown here; did you mean task, outside all sections?"),
        ("netG.width=1", "not an option of this one, but of other"),
        ("netG.embed_dim=[1]", "unknown option; did you mean 'embed_dims'?"),
        ("datasets.train.dataroot_gtt=x", "unknown option; did you mean 'dataroot_gt'?"),
        ("datasets.train.G_optimizer_lr=1", "unknown here; did you mean train.G_optimizer_lr?"),
        ("datasets.train.seed=1", "unknown option; "),
        ("datasets.val.name=x", "unknown option; choices: test, train"),
        ("path.zzz=1", "unknown option; choices: pretrained_netE, pretrained_netG, root"),
        ("train.zzz=1", "unknown option; docs/options.md lists all"),
    ],
)
def test_unknown_keys(faults: Any, override: str, message: str) -> None:
    found = faults(base(), override)
    name, told = next(iter(found.items()))
    assert override.startswith(name)
    assert message in told


def test_unknown_key_of_a_spike_section(faults: Any) -> None:
    found = faults(spiky(representation="tfp", bin=3))
    assert found["datasets.train.spike.bin"] == "unknown option; did you mean 'bins'?"
    assert faults(spiky(representation="tfp", log1p=True))["datasets.train.spike.log1p"].endswith("but of voxel")


@pytest.mark.parametrize(
    ("override", "name", "message"),
    [
        ("netG.net_type=tinny", "netG.net_type", "Did you mean 'tiny'? Choices: other, tiny."),
        ("netG.net_type=3", "netG.net_type", "required, one of other, tiny"),
        ("datasets.train.dataset_type=Frame", "datasets.train.dataset_type", "Did you mean 'Frames'?"),
        ("model=plane", "model", "Did you mean 'plain'? Choices: plain."),
        ("train.G_lossfn_type=l1", "train.G_lossfn_type", "Choices: charbonnier, huber."),
    ],
)
def test_unknown_parts(faults: Any, override: str, name: str, message: str) -> None:
    assert message in faults(base(), override)[name]


def test_every_fault_is_told_at_once(faults: Any) -> None:
    tree = spiky(representation="tpf")
    tree["datasets"]["test"] = {"dataset_type": "Frames", "num_frame": "all"}
    tree |= {"scale": 1.5, "foo": 1, "val": {"tile": [1, 2]}, "logger": {"wandb": 1}, "path": {"rot": "x"}}
    tree["netG"] |= {"depths": [1, "2"]}
    tree["train"] = {"G_optimizer_lr": "fast", "total_iter": 0}
    assert set(faults(tree, "train.E_decay=2")) == {
        "scale",
        "foo",
        "path.rot",
        "val.tile",
        "logger.wandb",
        "train.G_optimizer_lr",
        "train.total_iter",
        "train.E_decay",
        "datasets.train.spike.representation",
        "datasets.test.num_frame",
        "datasets.test.dataroot_gt",
        "datasets.test.dataroot_lq",
        "netG.depths[1]",
    }


# Registered parts


def test_arguments_are_the_constructors(load: Load) -> None:
    opt = load(base(), "datasets.train.gt_size=32", "netG.img_size=[6, 32, 32]")
    assert opt.datasets.train is not None
    assert opt.datasets.train.arguments() == {
        "dataroot_gt": "gt",
        "dataroot_lq": "lq",
        "num_frame": 6,
        "gt_size": 32,
        "use_hflip": True,
        "val_partition": None,
        "io_backend": None,
    }
    Frames(**opt.datasets.train.arguments(), seed=1, scale=1, n_channels=3)
    Tiny(**opt.netG.arguments())
    assert opt.netG.arguments()["img_size"] == (6, 32, 32)
    assert opt.netG.arguments()["window_size"] == [6, 8, 8]
    assert load(base(), "netG={'net_type': 'other'}".replace("'", '"')).netG.arguments() == {"width": 1}


def test_arguments_are_the_callers_own(load: Load) -> None:
    opt = load(base(), 'datasets.train.io_backend={"type": "disk"}')
    assert opt.datasets.train is not None
    opt.datasets.train.arguments()["io_backend"].pop("type")
    assert opt.datasets.train.arguments()["io_backend"] == {"type": "disk"}


def test_spike_arguments_hold_the_representations_defaults(load: Load) -> None:
    train = load(spiky(representation="voxel", log1p=False)).datasets.train
    assert train is not None
    assert train.arguments()["spike"] == {"representation": "voxel", "bins": 32, "log1p": False}


def test_default_spike_section_of_a_dataset(load: Load) -> None:
    tree = base() | {"datasets": {"train": {"dataset_type": "HalvesByDefault"}}}
    opt = load(tree)
    assert (opt.datasets.train.arguments(), opt.netG.in_chans) == ({"spike": {"representation": "halves"}}, 7)
    assert load(tree, "datasets.train.spike.representation=voxel").netG.in_chans == 35


def test_required_spike_section(faults: Any) -> None:
    tree = base() | {"datasets": {"train": {"dataset_type": "Spikes", "dataroot": "x"}}}
    assert faults(tree) == {"datasets.train.spike": "required, but missing"}
    assert "section" in faults(tree, "datasets.train.spike=null")["datasets.train.spike"]


def test_parameters_of_the_chosen_loss_are_options(load: Load, faults: Any) -> None:
    assert load(base(), "train.G_lossfn_type=huber", "train.G_huber_delta=2").train.G_huber_delta == 2.0
    assert faults(base(), "train.G_huber_delta=2")["train.G_huber_delta"] == "not an option of this one, but of huber"


# Several options together


def test_input_channels_follow_the_spikes(load: Load) -> None:
    assert load(base()).netG.in_chans == 3
    assert load(base(), "n_channels=1").netG.in_chans == 1
    assert load(spiky(representation="tfp", bins=1)).netG.in_chans == 4
    assert load(spiky(bins=1), "netG.in_chans=4").netG.in_chans == 4
    assert load(spiky(bins=1), "netG.in_chans=null").netG.in_chans == 4
    assert load(spiky(representation="halves"), "datasets.train=null").netG.in_chans == 7
    dual = [f"datasets.{phase}.input_pack_mode=dual" for phase in ("train", "test")]
    assert load(spiky(bins=1), *dual).netG.in_chans == 3


def test_input_channels_that_disagree(faults: Any) -> None:
    told = faults(spiky(bins=4), "netG.in_chans=4")["netG.in_chans"]
    assert told.startswith("is 4, but datasets.train delivers 7 and datasets.test delivers 7 channels")
    told = faults(spiky(bins=4), "datasets.test.spike.bins=1")["datasets"]
    assert told.startswith("datasets.train delivers 7 and datasets.test delivers 4 input channels")


def test_representation_refuses_its_parameters(faults: Any) -> None:
    assert faults(spiky(bins=0)) == {
        "datasets.train.spike": "tfp: bins is 0",
        "datasets.test.spike": "tfp: bins is 0",
    }


@pytest.mark.parametrize(
    ("overrides", "name", "message"),
    [
        (["netG.upscale=4"], "netG.upscale", "is 4, but scale is 1"),
        (["scale=4", "netG.upscale=4", "datasets.train.gt_size=66"], "datasets.train.gt_size", "no multiple of scale"),
        (["datasets.train.scale=2"], "datasets.train.scale", "is 2, but the top scale is 1"),
        (["netG.depths=[2, 2, 2]"], "netG.depths", "has 3 values, embed_dims 2, num_heads 2"),
        (["netG.embed_dims=[12, 13]"], "netG.embed_dims[1]", "13 can't be split into num_heads[1] = 6"),
        (["netG.num_heads=[6, 0]"], "netG.embed_dims[1]", "0 heads"),
        (["netG.indep_reconsts=[1, 2]"], "netG.indep_reconsts", "[2]: there are stages 0 to 1 only"),
        (["train.G_scheduler_type=MultiStepLR"], "train.G_scheduler_milestones", "required by MultiStepLR"),
        (["train.G_scheduler_restart_weights=[1]"], "train.G_scheduler_restart_weights", "same length"),
        (["train.vgg_layer_weights=[1, 2]"], "train.vgg_layer_weights", "needs 1 values"),
        (["val.size_patch_testing=60"], "val.size_patch_testing", "56 or 64"),
        (["val.tile=[6, 64, 60]"], "val.tile", "60 columns"),
        (["val.tile=[2, 64, 64]"], "val.tile", "2 frames can't overlap by 2"),
        (["val.num_frame_testing=2"], "val.num_frame_testing", "2 frames can't overlap by 2"),
        (["val.tile=[6, 64, 64]", "val.blend=[null, 24, 0]"], "val.blend[1]", "24 rows are more than"),
    ],
)
def test_options_that_do_not_go_together(faults: Any, overrides: list[str], name: str, message: str) -> None:
    assert message in faults(base(), *overrides)[name]


def test_tiles_by_kairs_keys_or_ours(load: Load) -> None:
    kair = ["val.num_frame_testing=18", "val.size_patch_testing=192"]
    val = load(base(), *kair).val
    assert (val.tile_size, val.tile_overlap_size) == ((18, 192, 192), (2, 20, 20))
    val = load(base(), *kair, "val.tile=[6, 64, 128]", "val.tile_overlap=[0, 16, 32]").val
    assert (val.tile_size, val.tile_overlap_size) == ((6, 64, 128), (0, 16, 32))
    assert load(base()).val.tile_size == (0, 0, 0)


def test_periods_follow_the_steps(load: Load) -> None:
    assert load(base()).train.G_scheduler_periods == 100
    assert load(base(), "train.total_iter=7", "train.G_scheduler_periods=null").train.G_scheduler_periods == 7
    assert load(base(), "train.G_scheduler_periods=[3, 4]").train.G_scheduler_periods == [3, 4]


def test_strictness_of_both_networks_is_the_files(load: Load) -> None:
    train = load(base(), "train.E_param_strict=false").train
    assert (train.G_param_strict, train.E_param_strict) == (True, False)


# Aliases, and options without effect


def test_names_of_the_documents(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    tree = spiky(bins=9)
    for section in tree["datasets"].values():
        section |= {"batch_size": 3, "num_worker": 5, "spike_channels": 1}
        del section["spike"]
    tree["logging"] = {"use_tensorboard": False, "use_wandb": True, "wandb_project": "p", "wandb_api_key": "s3cret"}
    tree["wandb_name"] = "n"
    opt = load(tree)
    assert (opt.datasets.train.dataloader_batch_size, opt.datasets.train.dataloader_num_workers) == (3, 5)
    assert opt.datasets.train.arguments()["spike"] == {"representation": "tfp", "bins": 1}
    log = opt.logger
    assert (log.tensorboard, log.wandb, log.wandb_project, log.wandb_name) == (False, True, "p", "n")
    assert "logger.wandb_api_key" in caplog.text and "WANDB_API_KEY" in caplog.text
    assert "s3cret" not in caplog.text + json.dumps(options_to_dict(opt))
    roots = {"dataset_type": "Frames", "dataroot_GT": "g", "dataroot_LQ": "l", "num_frames": 4, "patch_size": 8}
    train = load(base() | {"datasets": {"train": roots}}).datasets.train
    assert (train.dataroot_gt, train.dataroot_lq, train.num_frame, train.gt_size) == ("g", "l", 4, 8)


@pytest.mark.parametrize("place", ["wandb_api_key", "train.wandb_api_key", "logger.wandb_api_key"])
def test_key_is_dropped_wherever_it_is(load: Load, caplog: pytest.LogCaptureFixture, place: str) -> None:
    load(base(), f"{place}=s3cret")
    assert f"{place} (--set) is not used" in caplog.text
    assert "s3cret" not in caplog.text


def test_alias_in_the_base_and_name_in_the_file(load: Load, tmp_path: Path) -> None:
    under = base()
    under["datasets"]["train"]["patch_size"] = 8
    (tmp_path / "under.json").write_text(json.dumps(under))
    over = {"base": "under.json", "datasets": {"train": {"gt_size": 16}}}
    assert load(over).datasets.train.gt_size == 16
    assert load(over, "datasets.train.patch_size=24").datasets.train.gt_size == 24


def test_alias_and_name_together(load: Load) -> None:
    with pytest.raises(OptionError, match=r"train\.dataroot_GT and datasets\.train\.dataroot_gt are the same option"):
        load(base(), "datasets.train.dataroot_GT=x", "datasets.train.dataroot_gt=y")


@pytest.mark.parametrize(
    ("override", "world_size", "told"),
    [
        ("use_static_graph=true", None, "use_static_graph has no effect"),
        ("gpu_ids=[0, 1]", None, "gpu_ids [0, 1] has no effect"),
        ("gpu_ids=[0]", 2, "gpu_ids [0] has no effect"),
        ("gpu_ids=[0]", None, ""),
        ("dist=true", None, "dist: true has no effect: this run has one process"),
        ("dist=true", 2, ""),
        ("dist=false", 2, "dist: false has no effect: this run has 2 processes"),
        ("merge_bn=true", None, "merge_bn"),
        ("train.G_regularizer_orthstep=100", None, "train.G_regularizer_orthstep has no effect"),
        ("train.G_regularizer_clipstep=100", None, "train.G_regularizer_clipstep has no effect"),
        ("train.G_regularizer_orthstep=null", None, ""),
    ],
)
def test_options_without_effect_are_named_once(
    load: Load,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    world_size: int | None,
    told: str,
) -> None:
    if world_size:
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
    load(base(), override)
    assert len(caplog.records) == bool(told)
    assert told in caplog.text
    caplog.clear()
    monkeypatch.setenv("RANK", "1")
    load(base(), override)
    assert not caplog.records


# Writing, and the command line


@pytest.mark.parametrize("tree", [base(), spiky(representation="voxel", bins=2)], ids=["frames", "spikes"])
def test_written_options_load_equal(load: Load, tmp_path: Path, tree: Tree) -> None:
    opt = load(tree, "val.tile=[6, 64, 64]", "train.fix_keys=[]", 'path.root="é//x"')
    path = tmp_path / "new" / "resolved.json"
    write_options(opt, path)
    again = load_options(path, registries=REGISTRIES)
    assert again == opt
    assert options_to_dict(again) == json.loads(path.read_text()) == options_to_dict(opt)
    assert [file.name for file in path.parent.iterdir()] == ["resolved.json"]


def test_different_options_are_not_equal(load: Load) -> None:
    assert load(base()) == load(base())
    assert load(base()) != load(base(), "netG.rate=0.2")
    assert load(base()) != load(base(), "datasets.train.gt_size=32")


def test_experiment_dir(load: Load) -> None:
    assert load(base(), "path.root=elsewhere").experiment_dir == Path("elsewhere/a_task")


def test_arguments_of_the_entry_scripts(caplog: pytest.LogCaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    add_option_arguments(parser)
    arguments = parser.parse_args(["--opt", "f.json", "--set", "a.b=1", "c=2", "--dry-run", "--set", "d=3"])
    assert (arguments.opt, arguments.set, arguments.dry_run) == ("f.json", ["a.b=1", "c=2", "d=3"], True)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        arguments = parser.parse_args("--opt f --launcher pytorch --local_rank 0 --local-rank=1 --dist True".split())
    assert (arguments.set, arguments.dry_run) == ([], False)
    assert [r.args for r in caplog.records] == [("--launcher",), ("--local_rank",), ("--local-rank",), ("--dist",)]


def test_opt_is_required_without_a_default() -> None:
    parser = argparse.ArgumentParser()
    add_option_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    parser = argparse.ArgumentParser()
    add_option_arguments(parser, default="f.json")
    assert parser.parse_args([]).opt == "f.json"


def test_train_defaults_are_kairs() -> None:
    defaults = {key: field.default for key, field in TrainOptions.model_fields.items()}
    kair = {"G_optimizer_betas": [0.9, 0.999], "G_optimizer_wd": 0, "G_scheduler_restart_weights": 1, "E_decay": 0}
    assert {key: defaults[key] for key in kair} == kair
