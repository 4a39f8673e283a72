"""KAIR's option files of VRT, 001 to 009: that of 006 is a fixture, the others are given by how they differ from it.

    tree = kair_options("009")      # as the file's JSON

Keys and values are those of the files in KAIR's options/vrt.
"""

import copy
from pathlib import Path
from typing import Any

from utils.options.text import read_document

KAIR_STYLE = Path(__file__).resolve().parent / "fixtures" / "options" / "006_kair_style.json"

SUPER_RESOLUTION: dict[str, Any] = {
    "upscale": 4,
    "depths": [8] * 7 + [4] * 6,
    "indep_reconsts": [11, 12],
    "embed_dims": [120] * 7 + [180] * 6,
    "num_heads": [6] * 13,
}
NOTHING_RECOMPUTED: dict[str, Any] = {
    "use_checkpoint_attn": False,
    "use_checkpoint_ffn": False,
    "no_checkpoint_attn_blocks": [],
    "no_checkpoint_ffn_blocks": [],
}
VIMEO = "trainsets/vimeo90k/vimeo90k_train_"


def _roots(train: tuple[str, str], test: tuple[str, str], meta_info: str) -> dict[str, Any]:
    """The `datasets` keys that say where things are, sharp frames first."""
    return {
        "train": {
            "dataroot_gt": f"trainsets/{train[0]}",
            "dataroot_lq": f"trainsets/{train[1]}",
            "meta_info_file": f"data/meta_info/meta_info_{meta_info}_GT.txt",
        },
        "test": {"dataroot_gt": f"testsets/{test[0]}", "dataroot_lq": f"testsets/{test[1]}"},
    }


def _reds(lq: str, test_lq: str) -> dict[str, Any]:
    frames = {"filename_tmpl": "08d", "filename_ext": "png"}
    roots = _roots(("REDS/train_sharp_with_val.lmdb", f"REDS/{lq}.lmdb"), ("REDS4/GT", f"REDS4/{test_lq}"), "REDS")
    return {"train": {**roots["train"], **frames}, "test": roots["test"]}


def _bicubic(**network: Any) -> dict[str, Any]:
    datasets = _reds("train_sharp_bicubic_with_val", "sharp_bicubic")
    datasets["train"] |= {"val_partition": "REDS4", "gt_size": 256}
    datasets["test"] |= {"cache_data": True}
    netG = {**SUPER_RESOLUTION, **NOTHING_RECOMPUTED, **network}
    return {"scale": 4, "datasets": datasets, "netG": netG, "val": {"num_frame_testing": 40, "size_patch_testing": 128}}


def _vimeo(lq: str, test_lq: str) -> dict[str, Any]:
    train = {
        "dataset_type": "VideoRecurrentTrainVimeoDataset",
        "num_frame": -1,
        "gt_size": 256,
        "random_reverse": True,
        "pad_sequence": True,
        **dict.fromkeys(("filename_tmpl", "filename_ext", "test_mode")),
    }
    roots = _roots(("vimeo90k/vimeo90k_train_GT_all.lmdb", f"vimeo90k/{lq}.lmdb"), ("Vid4/GT", f"Vid4/{test_lq}"), "")
    roots["train"] |= {"meta_info_file": "data/meta_info/meta_info_Vimeo90K_train_GT.txt", **train}
    roots["test"] |= {"cache_data": True}
    network = {"img_size": [8, 64, 64], "window_size": [8, 8, 8], "pa_frames": 4}
    return {
        "scale": 4,
        "path": {"pretrained_netG": "model_zoo/vrt/002_VRT_videosr_bi_REDS_16frames.pth"},
        "datasets": roots,
        "netG": {**SUPER_RESOLUTION, **NOTHING_RECOMPUTED, **network},
        "train": {"G_param_strict": False, "E_param_strict": False},
        "val": {"num_frame_testing": 32, "size_patch_testing": 128},
    }


def _denoising() -> dict[str, Any]:
    datasets = _roots(("DAVIS/train_GT.lmdb", "DAVIS/train_GT.lmdb"), ("Set8", "Set8"), "DAVIS_train")
    kind = "VideoRecurrentTrainNonblindDenoisingDataset"
    frames = {"filename_tmpl": "05d", "filename_ext": "jpg", "sigma_min": 0, "sigma_max": 50}
    datasets["train"] |= {"dataset_type": kind, **frames}
    datasets["test"] |= {"cache_data": True, "sigma": 30}
    return {
        "datasets": datasets,
        "netG": {"nonblind_denoising": True},
        "val": {"num_frame_testing": 12, "size_patch_testing": 256},
    }


def _interpolation() -> dict[str, Any]:
    train = {
        "dataset_type": "VideoRecurrentTrainVimeoVFIDataset",
        "dataroot_gt": f"{VIMEO}GT_all.lmdb",
        "dataroot_lq": f"{VIMEO}GT_all.lmdb",
        "meta_info_file": "data/meta_info/meta_info_Vimeo90K_train_GT.txt",
        "num_frame": 7,
        "temporal_scale": 2,
        "random_reverse": True,
        "color_jitter": True,
        **dict.fromkeys(("filename_tmpl", "filename_ext", "test_mode")),
    }
    test = {
        "dataset_type": "VideoTestVimeo90KDataset",
        "dataroot_gt": "testsets/vimeo90k/vimeo_septuplet/sequences",
        "dataroot_lq": "testsets/vimeo90k/vimeo_septuplet/sequences",
        "meta_info_file": "data/meta_info/meta_info_Vimeo90K_test_GT.txt",
        "pad_sequence": False,
        "num_frame": 7,
        "temporal_scale": 2,
        "cache_data": False,
        "io_backend": None,
    }
    network = {
        "img_size": [4, 192, 192],
        "window_size": [4, 8, 8],
        "indep_reconsts": [],
        "pa_frames": 0,
        **NOTHING_RECOMPUTED,
        "use_checkpoint_attn": True,
        "no_checkpoint_attn_blocks": [1, 2, 3, 4, 5],
        **dict.fromkeys(("spynet_path", "deformable_groups", "nonblind_denoising")),
    }
    return {
        "datasets": {"train": train, "test": test},
        "netG": network,
        "train": {"fix_iter": -1, "fix_lr_mul": 0, "fix_keys": [], "G_param_strict": False, "E_param_strict": False},
        "val": {"num_frame_testing": 0, "num_frame_overlapping": 0, "size_patch_testing": 0},
    }


SR_WINDOW = {"img_size": [6, 64, 64], "window_size": [6, 8, 8], "pa_frames": 2, "deformable_groups": 12}
SR_16 = {"img_size": [16, 64, 64], "window_size": [8, 8, 8], "pa_frames": 4, "use_checkpoint_attn": True}
DIFFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "001": ("videosr_bi_reds_6frames", _bicubic(**SR_WINDOW)),
    "002": ("videosr_bi_reds_16frames", _bicubic(**SR_16, no_checkpoint_attn_blocks=[0, 1, 2, 3, 4, 5])),
    "003": ("videosr_bi_vimeo_7frames", _vimeo("vimeo90k_train_LR7frames", "BIx4")),
    "004": ("videosr_bd_vimeo_7frames", _vimeo("vimeo90k_train_BDLR7frames", "BDx4")),
    "005": (
        "videodeblurring_dvd",
        {
            "datasets": _roots(
                ("DVD/train_GT.lmdb", "DVD/train_GT_blurred.lmdb"),
                ("DVD10/test_GT", "DVD10/test_GT_blurred"),
                "DVD_train",
            ),
            "val": {"num_frame_testing": 12, "size_patch_testing": 256},
        },
    ),
    "006": ("videodeblurring_gopro", {}),
    "007": (
        "videodeblurring_reds",
        {
            "datasets": _reds("train_blur_with_val", "blur"),
            "val": {"num_frame_testing": 12, "size_patch_testing": 256},
        },
    ),
    "008": ("videodenoising_davis", _denoising()),
    "009": ("videofi_vimeo_4frames", _interpolation()),
}


def kair_options(number: str) -> dict[str, Any]:
    """The tree of KAIR's option file 001 to 009."""
    tree = copy.deepcopy(read_document(KAIR_STYLE).tree)
    name, differences = DIFFERENCES[number]
    tree["task"] = f"{number}_train_vrt_{name}"
    _put(tree, differences)
    return tree


def _put(tree: dict[str, Any], differences: dict[str, Any]) -> None:
    """Sets keys section by section; None takes a key out."""
    for key, value in differences.items():
        if isinstance(value, dict):
            _put(tree.setdefault(key, {}), value)
        elif value is None:
            tree.pop(key, None)
        else:
            tree[key] = value
