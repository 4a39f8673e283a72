"""A network says what is wrong with its arguments, and the option loader tells all of it before anything is built."""

from pathlib import Path
from typing import Any

import pytest

import data.select_dataset  # noqa: F401  registers the data sets
from models.layers.backends.backend import COMPUTE_BACKENDS
from models.layers.backends.eager import EagerBackend
from models.network_vrt import VRT
from models.select_network import define_G, vrt_with_spike
from utils.user_error import UserError
from utils.utils_option import OptionError, load_options

RECIPES = "options/vrt/006_train_vrt_videodeblurring_gopro"
LISTS = {"depths": [2] * 9, "embed_dims": [12] * 9, "num_heads": [2] * 9}
FAULTS: list[tuple[str, Any]] = [
    ("upscale", 5),
    ("in_chans", 2),
    ("out_chans", 1),
    ("img_size", [2, 0, 8]),
    ("window_size", [0, 4, 4]),
    ("window_size", [4, 4]),
    ("depths", [-1] + [2] * 8),
    ("embed_dims", [12] * 6 + [16] + [12] * 2),
    ("embed_dims", [0] * 9),
    ("embed_dims", [6] * 9),
    ("num_heads", [0] * 9),
    ("num_heads", [5] * 9),
    ("indep_reconsts", [3]),
    ("indep_reconsts", [9]),
    ("mul_attn_ratio", 1.5),
    ("mlp_ratio", -1),
    ("mlp_ratio", 0.01),
    ("mlp_ratio", 1e30),
    ("qk_scale", 1e300),
    ("qk_scale", 0),
    ("drop_path_rate", 1e30),
    ("drop_path_rate", -1),
    ("pa_frames", 3),
    ("deformable_groups", 7),
    ("deformable_groups", 0),
    ("deformable_groups", -2),
    ("compute_backend", "flesh"),
]
SPIKE_FAULTS: list[tuple[str, Any]] = [
    ("spike_bins", 0),
    ("spike_ratio", 3),
    ("spike_temporal_strides", [1, 0, 1]),
    ("spike_temporal_strides", [2, 1, 1]),
    ("spike_attn_heads", 5),
    ("spike_attn_mlp_ratio", 0),
    ("spike_attn_max_batch_tokens", 0),
    ("fuse_heads", 0),
    ("fuse_mlp_ratio", 1e30),
    ("fuse_window", 2),
    ("fuse_max_batch_tokens", -1),
]


def told(recipe: Path, **arguments: Any) -> set[str]:
    """The options that the loader finds at fault."""
    overrides = [f"netG.{key}={value}" for key, value in arguments.items()]
    with pytest.raises(OptionError) as error:
        load_options(recipe, overrides)
    return {fault.split(" (")[0] for fault in error.value.faults}


@pytest.mark.parametrize(("argument", "value"), FAULTS)
def test_vrt_names_the_argument(argument: str, value: object) -> None:
    arguments: dict[str, Any] = {**LISTS, "indep_reconsts": [8], "deformable_groups": 2, argument: value}
    with pytest.raises(UserError, match=rf"\n- netG\.{argument}: "):
        VRT(**arguments)


@pytest.mark.parametrize(("argument", "value"), SPIKE_FAULTS)
def test_the_spike_branch_names_the_argument(argument: str, value: object) -> None:
    sound = {**LISTS, "spike_attn_heads": 2, "fuse_heads": 2, "indep_reconsts": [8], "deformable_groups": 2}
    with pytest.raises(UserError, match=rf"\n- netG\.{argument}: "):
        vrt_with_spike(**{**sound, argument: value})


def test_sound_arguments_have_no_faults() -> None:
    assert not list(VRT.faults({}))
    assert not list(VRT.faults({**LISTS, "indep_reconsts": [7, 8], "pa_frames": 4, "deformable_groups": 6}))
    assert not list(VRT.faults({"pa_frames": 0, "out_chans": 6, "upscale": 1, "nonblind_denoising": False}))


def test_the_loader_tells_all_faults_at_once(repository: Path) -> None:
    """Wrong types, a network's own faults and those of a part that it is made of, in one message."""
    recipe = repository / f"{RECIPES}_rgbspike_voxel.json"
    found = told(
        recipe, window_size=[0, 4, 4], mlp_ratio=-1, drop_path_rate=1e30, qk_scale=1e300, fuse_window=2,
        upscale='"one"', fuse_type="gone", spike_ratio=5, no_such_key=1,
    )  # fmt: skip
    names = "window_size mlp_ratio drop_path_rate qk_scale upscale fuse_type spike_ratio no_such_key".split()
    assert found == {f"netG.{name}" for name in names}


def test_three_entries_are_told_with_the_rest(repository: Path) -> None:
    found = told(
        repository / f"{RECIPES}.json",
        depths=[2, 2, 2], embed_dims=[16, 16, 16], num_heads=[2, 2, 2], indep_reconsts=[3], deformable_groups=7,
    )  # fmt: skip
    assert found == {"netG.depths", "netG.deformable_groups"}


def test_a_registered_back_end_is_reachable_by_its_name(repository: Path) -> None:
    @COMPUTE_BACKENDS.register("of_a_test")
    class OfATest(EagerBackend):
        """Eager under another name."""

    try:
        small = [
            "netG.depths=[1,1,1,1,1,1,1,1]",
            "netG.embed_dims=[8,8,8,8,8,8,8,8]",
            "netG.num_heads=[2,2,2,2,2,2,2,2]",
        ]
        more = ["netG.indep_reconsts=[]", "netG.deformable_groups=2", "netG.spynet_path=null"]
        opt = load_options(repository / f"{RECIPES}.json", [*small, *more, "netG.compute_backend=of_a_test"])
        assert define_G(opt.netG).compute_backend == "of_a_test"
    finally:
        COMPUTE_BACKENDS._parts.pop("of_a_test")


def test_a_data_sets_own_faults_are_told_with_the_networks(repository: Path) -> None:
    recipe = repository / f"{RECIPES}_rgbspike.json"
    with pytest.raises(OptionError) as error:
        load_options(recipe, ["datasets.train.spike_threshold=1e300", "netG.mlp_ratio=-1", "train.manual_seed=1e30"])
    found = {fault.split(" (")[0] for fault in error.value.faults}
    assert found == {"datasets.train.spike_threshold", "netG.mlp_ratio", "train.manual_seed"}
