"""Where options come from and go to: bases, --set, aliases, options without effect, written files, the command line."""

import argparse
import json
import logging
from pathlib import Path

import pytest

from tests.utils.small_options import REGISTRIES, Tree, base, load, spiky
from utils.utils_option import OptionError, add_option_arguments, load_options, options_to_dict, write_options

# Layers


def test_precedence_defaults_base_file_set(tmp_path: Path) -> None:
    under = base()
    under["train"] |= {"checkpoint_save": 1, "checkpoint_test": 1, "fix_keys": ["a", "b"]}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "under.json").write_text(json.dumps(under))
    over = {"base": "deep/under.json", "train": {"checkpoint_test": 2, "fix_keys": ["c"], "total_iter": 7}}
    opt = load(tmp_path, over, "train.total_iter=9", "netG.depths=[4, 4]")
    assert (opt.train.checkpoint_print, opt.train.checkpoint_save, opt.train.checkpoint_test) == (200, 1, 2)
    assert (opt.train.fix_keys, opt.train.total_iter, opt.netG.depths) == (["c"], 9, [4, 4])
    assert opt.task == "a_task"


def test_base_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.yml").write_text("base: two.json\nscale: 1\n")
    (tmp_path / "a" / "two.json").write_text(json.dumps(base()))
    assert load(tmp_path, {"base": "a/one.yml", "task": "x"}).task == "x"


def test_circles_of_bases_are_told(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"base": "opt.json"}')
    with pytest.raises(OptionError, match=r"circle: opt\.json -> other\.json -> opt\.json"):
        load(tmp_path, {"base": "other.json"})


@pytest.mark.parametrize(
    ("name", "words"), [("missing.json", r"no file .*missing\.json"), (1, "name of an option file")]
)
def test_base_has_to_be_a_file(tmp_path: Path, name: object, words: str) -> None:
    with pytest.raises(OptionError, match=rf"base \(.*opt\.json:2\): .*{words}"):
        load(tmp_path, {"base": name})


def test_another_representation_drops_the_parameters_of_the_one_below(tmp_path: Path) -> None:
    (tmp_path / "under.json").write_text(json.dumps(spiky(representation="tfp", bins=2)))
    same, other = {"representation": "tfp"}, {"representation": "voxel", "log1p": False}
    both = {"base": "under.json", "datasets": {"train": {"spike": other}, "test": {"spike": other}}}
    assert load(tmp_path, both).datasets.train.spike.bins == 32
    assert load(tmp_path, {"base": "under.json", "datasets": {"train": {"spike": same}}}).datasets.train.spike.bins == 2


def test_null_removes_an_inherited_section(tmp_path: Path) -> None:
    assert load(tmp_path, spiky(), "datasets.test=null").datasets.test is None


def test_faults_name_the_file_and_line_of_the_layer_that_has_them(tmp_path: Path) -> None:
    under = base() | {"scale": "two"}
    (tmp_path / "under.json").write_text(json.dumps(under, indent=1))
    line = json.dumps(under, indent=1).split("\n").index(' "scale": "two"') + 1
    with pytest.raises(OptionError) as raised:
        load(tmp_path, {"base": "under.json", "n_channels": "3"}, "train.E_decay=high")
    assert raised.value.faults == [
        f'scale ({tmp_path}/under.json:{line}): expected a whole number, got "two"',
        f'n_channels ({tmp_path}/opt.json:3): expected a whole number, got "3"; write it without quotes',
        'train.E_decay (--set): expected a number, got "high"',
    ]


# Aliases, and options without effect


def test_names_of_the_documents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = spiky(bins=9)
    for section in tree["datasets"].values():
        section |= {"batch_size": 3, "num_worker": 5, "spike_channels": 1}
        del section["spike"]
    tree["logging"] = {"use_tensorboard": False, "use_wandb": True, "wandb_project": "p", "wandb_api_key": "s3cret"}
    tree["wandb_name"] = "n"
    opt = load(tmp_path, tree)
    assert (opt.datasets.train.dataloader_batch_size, opt.datasets.train.dataloader_num_workers) == (3, 5)
    assert opt.datasets.train.arguments()["spike"] == {"representation": "tfp", "bins": 1}
    log = opt.logger
    assert (log.tensorboard, log.wandb, log.wandb_project, log.wandb_name) == (False, True, "p", "n")
    assert "logger.wandb_api_key" in caplog.text and "WANDB_API_KEY" in caplog.text
    assert "s3cret" not in caplog.text + json.dumps(options_to_dict(opt))
    roots = {"dataset_type": "Frames", "dataroot_GT": "g", "dataroot_LQ": "l", "num_frames": 4, "patch_size": 8}
    train = load(tmp_path, base() | {"datasets": {"train": roots}}).datasets.train
    assert (train.dataroot_gt, train.dataroot_lq, train.num_frame, train.gt_size) == ("g", "l", 4, 8)


@pytest.mark.parametrize("place", ["wandb_api_key", "train.wandb_api_key", "logger.wandb_api_key"])
def test_key_is_dropped_wherever_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    load(tmp_path, base(), f"{place}=s3cret")
    assert f"{place} (--set) is not used" in caplog.text
    assert "s3cret" not in caplog.text


def test_alias_in_the_base_and_name_in_the_file(tmp_path: Path) -> None:
    under = base()
    under["datasets"]["train"]["patch_size"] = 8
    (tmp_path / "under.json").write_text(json.dumps(under))
    over = {"base": "under.json", "datasets": {"train": {"gt_size": 16}}}
    assert load(tmp_path, over).datasets.train.gt_size == 16
    assert load(tmp_path, over, "datasets.train.patch_size=24").datasets.train.gt_size == 24


def test_alias_and_name_together(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"train\.dataroot_GT and datasets\.train\.dataroot_gt are the same option"):
        load(tmp_path, base(), "datasets.train.dataroot_GT=x", "datasets.train.dataroot_gt=y")


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
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    world_size: int | None,
    told: str,
) -> None:
    if world_size:
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
    load(tmp_path, base(), override)
    assert len(caplog.records) == bool(told)
    assert told in caplog.text
    caplog.clear()
    monkeypatch.setenv("RANK", "1")
    load(tmp_path, base(), override)
    assert not caplog.records


# Writing, and the command line


@pytest.mark.parametrize("tree", [base(), spiky(representation="voxel", bins=2)], ids=["frames", "spikes"])
def test_written_options_load_equal(tmp_path: Path, tree: Tree) -> None:
    opt = load(tmp_path, tree, "val.tile=[6, 64, 64]", "train.fix_keys=[]", 'path.root="é//x"')
    path = tmp_path / "new" / "resolved.json"
    write_options(opt, path)
    again = load_options(path, registries=REGISTRIES)
    assert again == opt
    assert options_to_dict(again) == json.loads(path.read_text()) == options_to_dict(opt)
    assert [file.name for file in path.parent.iterdir()] == ["resolved.json"]


def test_different_options_are_not_equal(tmp_path: Path) -> None:
    assert load(tmp_path, base()) == load(tmp_path, base())
    assert load(tmp_path, base()) != load(tmp_path, base(), "netG.rate=0.2")
    assert load(tmp_path, base()) != load(tmp_path, base(), "datasets.train.gt_size=32")


def test_experiment_dir(tmp_path: Path) -> None:
    assert load(tmp_path, base(), "path.root=elsewhere").experiment_dir == Path("elsewhere/a_task")


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
