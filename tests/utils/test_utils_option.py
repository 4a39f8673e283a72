"""What option files may hold: types, ranges, unknown keys, sections of registered parts, options that go together."""

from pathlib import Path

import pytest

from tests.utils.small_options import Frames, Tiny, base, faults, load, spiky
from utils.options.schema import TrainOptions

# Types


@pytest.mark.parametrize("number", ["3e5", "300000", "3.0e5"])
def test_whole_numbers_may_have_an_exponent(tmp_path: Path, number: str) -> None:
    opt = load(
        tmp_path, base(), f"train.total_iter={number}", f"datasets.train.gt_size={number}", f"netG.depths=[{number}, 2]"
    )
    assert opt.train.total_iter == opt.datasets.train.gt_size == opt.netG.depths[0] == 300000
    assert type(opt.train.total_iter) is type(opt.netG.depths[0]) is int


@pytest.mark.parametrize("value", ["true", "1.5", '"7"', "null", "[7]"])
def test_what_is_no_whole_number(tmp_path: Path, value: str) -> None:
    found = faults(tmp_path, base(), f"train.total_iter={value}", f"datasets.train.num_frame={value}")
    assert set(found) == {"train.total_iter", "datasets.train.num_frame"}
    assert all(message.startswith("expected a whole number, got ") for message in found.values())


@pytest.mark.parametrize("value", ["1", '"true"', "True"])
def test_what_is_no_truth_value(tmp_path: Path, value: str) -> None:
    found = faults(tmp_path, base(), f"datasets.train.use_hflip={value}")
    assert found["datasets.train.use_hflip"].startswith("expected true or false")


def test_numbers_may_be_whole(tmp_path: Path) -> None:
    assert load(tmp_path, base(), "train.E_decay=0", "netG.rate=1").netG.rate == 1.0


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
        (
            "datasets.train.spike=3",
            "datasets.train.spike",
            "not an option of this dataset_type, but of Spikes",
        ),
        ("task=a/b", "task", "name without slashes"),
        ("task=..", "task", "neither . nor .."),
        ("task=.", "task", "neither . nor .."),
        ("logger.wandb_mode=off", "logger.wandb_mode", "one of 'online', 'offline', 'disabled'"),
    ],
)
def test_wrong_values(tmp_path: Path, override: str, name: str, message: str) -> None:
    found = faults(tmp_path, base(), override)
    assert list(found) == [name]
    assert message in found[name]


def test_null_seed_is_the_fixed_default(tmp_path: Path) -> None:
    assert (
        load(tmp_path, base(), "train.manual_seed=null").train.manual_seed
        == load(tmp_path, base()).train.manual_seed
        == 0
    )


def test_options_do_not_change(tmp_path: Path) -> None:
    opt = load(tmp_path, base())
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
        ("val.manual_sed=1", "unknown option; choices: blend"),
        ("logger.tracker_name=1", "unknown option; choices: "),
        ("train.task=x", "unknown here; did you mean task, outside all sections?"),
        ("netG.width=1", "not an option of this net_type, but of other"),
        ("netG.embed_dim=[1]", "unknown option; did you mean 'embed_dims'?"),
        ("datasets.train.dataroot_gtt=x", "unknown option; did you mean 'dataroot_gt'?"),
        ("datasets.train.G_optimizer_lr=1", "unknown here; did you mean train.G_optimizer_lr?"),
        ("datasets.train.seed=1", "unknown option; "),
        ("datasets.val.name=x", "unknown option; choices: test, train"),
        ("path.zzz=1", "unknown option; choices: pretrained_netE, pretrained_netG, root"),
        ("train.zzz=1", "unknown option; docs/options.md lists all"),
    ],
)
def test_unknown_keys(tmp_path: Path, override: str, message: str) -> None:
    found = faults(tmp_path, base(), override)
    name, told = next(iter(found.items()))
    assert override.startswith(name)
    assert message in told


def test_unknown_key_of_a_spike_section(tmp_path: Path) -> None:
    found = faults(tmp_path, spiky(representation="tfp", bin=3))
    assert found["datasets.train.spike.bin"] == "unknown option; did you mean 'bins'?"
    assert faults(tmp_path, spiky(representation="tfp", log1p=True))["datasets.train.spike.log1p"].endswith(
        "but of voxel"
    )


@pytest.mark.parametrize(
    ("override", "name", "message"),
    [
        ("netG.net_type=tinny", "netG.net_type", "Did you mean 'tiny'? Choices: other, tiny, tiny_spike."),
        ("netG.net_type=3", "netG.net_type", "required, one of other, tiny"),
        ("datasets.train.dataset_type=Frame", "datasets.train.dataset_type", "Did you mean 'Frames'?"),
        ("model=plane", "model", "Did you mean 'plain'? Choices: plain."),
        ("train.G_lossfn_type=l1", "train.G_lossfn_type", "Choices: charbonnier, huber."),
    ],
)
def test_unknown_parts(tmp_path: Path, override: str, name: str, message: str) -> None:
    assert message in faults(tmp_path, base(), override)[name]


def test_unknown_representation_is_the_only_fault_it_makes(tmp_path: Path) -> None:
    found = faults(tmp_path, spiky(representation="tfp", bins=2), "datasets.train.spike.representation=tpf")
    assert list(found) == ["datasets.train.spike.representation"]
    found = faults(tmp_path, spiky(representation="tpf", bins=2))
    assert list(found) == ["datasets.train.spike.representation", "datasets.test.spike.representation"]


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    tree = spiky(representation="tpf")
    tree["datasets"]["test"] = {"dataset_type": "Frames", "num_frame": "all"}
    tree |= {"scale": 1.5, "foo": 1, "val": {"tile": [1, 2]}, "logger": {"wandb": 1}, "path": {"rot": "x"}}
    tree["netG"] |= {"depths": [1, "2"], "rate": 2}
    tree["train"] = {"G_optimizer_lr": "fast", "total_iter": 0}
    assert set(faults(tmp_path, tree, "train.E_decay=2")) == {
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
        "netG.rate",
    }


# Registered parts


def test_arguments_are_the_constructors(tmp_path: Path) -> None:
    opt = load(tmp_path, base(), "datasets.train.gt_size=32", "netG.img_size=[6, 32, 32]")
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
    assert load(tmp_path, base(), "netG={'net_type': 'other'}".replace("'", '"')).netG.arguments() == {"width": 1}


def test_arguments_are_the_callers_own(tmp_path: Path) -> None:
    opt = load(tmp_path, base(), 'datasets.train.io_backend={"type": "disk"}')
    assert opt.datasets.train is not None
    opt.datasets.train.arguments()["io_backend"].pop("type")
    assert opt.datasets.train.arguments()["io_backend"] == {"type": "disk"}


def test_spike_arguments_hold_the_representations_defaults(tmp_path: Path) -> None:
    train = load(tmp_path, spiky(representation="voxel", log1p=False)).datasets.train
    assert train is not None
    assert train.arguments()["spike"] == {"representation": "voxel", "bins": 32, "log1p": False}


def test_required_spike_section(tmp_path: Path) -> None:
    tree = base() | {"datasets": {"train": {"dataset_type": "Spikes", "dataroot": "x"}}}
    assert faults(tmp_path, tree) == {"datasets.train.spike": "required, but missing"}
    assert "section" in faults(tmp_path, tree, "datasets.train.spike=null")["datasets.train.spike"]


def test_parameters_of_the_chosen_loss_are_options(tmp_path: Path) -> None:
    assert load(tmp_path, base(), "train.G_lossfn_type=huber", "train.G_huber_delta=2").train.G_huber_delta == 2.0
    assert faults(tmp_path, base(), "train.G_huber_delta=-1", "train.G_lossfn_type=huber") == {
        "train.G_huber_delta": "above 0; got -1.0"
    }


def test_parameters_of_another_loss_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opt = load(tmp_path, base(), "train.G_huber_delta=2")
    assert not hasattr(opt.train, "G_huber_delta")
    assert "train.G_huber_delta has no effect: it belongs to the loss huber." in caplog.messages


# Several options together


def test_input_channels_follow_the_spikes(tmp_path: Path) -> None:
    assert load(tmp_path, base()).netG.in_chans == 3
    assert load(tmp_path, base(), "n_channels=1").netG.in_chans == 1
    assert load(tmp_path, spiky(representation="tfp", bins=1)).netG.in_chans == 4
    assert load(tmp_path, spiky(bins=1), "netG.in_chans=4").netG.in_chans == 4
    assert load(tmp_path, spiky(bins=1), "netG.in_chans=null").netG.in_chans == 4
    assert load(tmp_path, spiky(representation="halves"), "datasets.train=null").netG.in_chans == 7
    dual = [f"datasets.{phase}.input_pack_mode=dual" for phase in ("train", "test")]
    net = load(tmp_path, spiky(bins=1), *dual, "netG.net_type=tiny_spike").netG
    assert net.arguments().items() >= {"in_chans": 3, "spike_bins": 1}.items()


def test_spikes_beside_the_frames_need_a_network_that_takes_them(tmp_path: Path) -> None:
    dual = [f"datasets.{phase}.input_pack_mode=dual" for phase in ("train", "test")]
    told = faults(tmp_path, spiky(), dual[0])
    assert "takes none of the spikes" in told["datasets.train.input_pack_mode"]
    told = faults(tmp_path, spiky(), dual[1], "netG.net_type=tiny_spike")
    assert "takes spikes beside the frames" in told["datasets.train.input_pack_mode"]
    told = faults(tmp_path, base(), "netG.net_type=tiny_spike")
    assert "takes spikes beside the frames: choose a dataset_type" in told["datasets.train"]
    told = faults(tmp_path, spiky(bins=4), *dual, "netG.net_type=tiny_spike", "netG.spike_bins=5")
    assert told["netG.spike_bins"].startswith(
        "is 5, but datasets.train delivers 4 and datasets.test delivers 4 channels"
    )
    told = faults(tmp_path, spiky(bins=4), *dual, "netG.net_type=tiny_spike", "datasets.test.spike.bins=1")
    assert told["datasets"].startswith("datasets.train delivers 4 and datasets.test delivers 1 spike channels")


def test_input_channels_that_disagree(tmp_path: Path) -> None:
    told = faults(tmp_path, spiky(bins=4), "netG.in_chans=4")["netG.in_chans"]
    assert told.startswith("is 4, but datasets.train delivers 7 and datasets.test delivers 7 channels")
    told = faults(tmp_path, spiky(bins=4), "datasets.test.spike.bins=1")["datasets"]
    assert told.startswith("datasets.train delivers 7 and datasets.test delivers 4 input channels")


def test_representation_refuses_its_parameters(tmp_path: Path) -> None:
    assert faults(tmp_path, spiky(bins=0)) == {
        "datasets.train.spike": "tfp: bins is 0",
        "datasets.test.spike": "tfp: bins is 0",
    }


@pytest.mark.parametrize(
    ("overrides", "name", "message"),
    [
        (["netG.upscale=4"], "netG.upscale", "is 4, but scale is 1"),
        (["scale=4", "netG.upscale=4", "datasets.train.gt_size=66"], "datasets.train.gt_size", "no multiple of scale"),
        (["datasets.train.scale=2"], "datasets.train.scale", "is 2, but the top scale is 1"),
        (["netG.depths=[2, 2, 2]"], "netG.depths", "has 3 values, embed_dims 2"),
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
def test_options_that_do_not_go_together(tmp_path: Path, overrides: list[str], name: str, message: str) -> None:
    assert message in faults(tmp_path, base(), *overrides)[name]


def test_tiles_by_kairs_keys_or_ours(tmp_path: Path) -> None:
    kair = ["val.num_frame_testing=18", "val.size_patch_testing=192"]
    val = load(tmp_path, base(), *kair).val
    assert (val.tile_size, val.tile_overlap_size) == ((18, 192, 192), (2, 20, 20))
    val = load(tmp_path, base(), *kair, "val.tile=[6, 64, 128]", "val.tile_overlap=[0, 16, 32]").val
    assert (val.tile_size, val.tile_overlap_size) == ((6, 64, 128), (0, 16, 32))
    assert load(tmp_path, base()).val.tile_size == (0, 0, 0)


def test_periods_follow_the_steps(tmp_path: Path) -> None:
    assert load(tmp_path, base()).train.G_scheduler_periods == 100
    assert load(tmp_path, base(), "train.total_iter=7", "train.G_scheduler_periods=null").train.G_scheduler_periods == 7
    assert load(tmp_path, base(), "train.G_scheduler_periods=[3, 4]").train.G_scheduler_periods == [3, 4]


def test_strictness_of_both_networks_is_the_files(tmp_path: Path) -> None:
    train = load(tmp_path, base(), "train.E_param_strict=false").train
    assert (train.G_param_strict, train.E_param_strict) == (True, False)


def test_train_defaults_are_kairs() -> None:
    defaults = {key: field.default for key, field in TrainOptions.model_fields.items()}
    kair = {"G_optimizer_betas": [0.9, 0.999], "G_optimizer_wd": 0, "G_scheduler_restart_weights": 1, "E_decay": 0}
    assert {key: defaults[key] for key in kair} == kair


@pytest.mark.parametrize("key", ["logger.wandb", "logger.wandb_mode"])
def test_a_key_of_an_account_is_not_echoed(tmp_path: Path, key: str) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"
    for value in (secret, f'{{"key": "{secret}"}}', f'["{secret}"]'):
        found = faults(tmp_path, base(), f"{key}={value}")
        assert key in str(found) and "not shown" in str(found) and secret[:8] not in str(found)
