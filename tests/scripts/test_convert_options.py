"""The template of the project's first documents becomes an option file that says the same, or says what it can't."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import convert_options
from utils.utils_option import Options, load_options

CHUNKS = {"ADAPTIVE_CHUNK": True, "MAX_BATCH_TOKENS": 4096, "CHUNK_SIZE": 64, "CHUNK_SHAPE": "square"}
ATTENTION = {"HEADS": 6, "DROPOUT": 0, "MLP_RATIO": 3, **CHUNKS}
# All keys of the documents.
TEMPLATE: dict[str, Any] = {
    "SEED": 123,
    "DATA": {
        "ROOT": "sets/gopro",
        "TRAIN_SPLIT": "train",
        "VAL_SPLIT": "val",
        "CROP_SIZE": 256,
        "VAL_CROP_SIZE": None,
        "CLIP_LEN": 5,
        "K": 16,
        "NUM_VOXEL_BINS": 16,
        "VOXEL_CACHE_DIRNAME": "spike_vox",
        "SPIKE_DIR": "spike",
        "USE_PRECOMPUTED_VOXELS": True,
        "USE_RAM_CACHE": True,
        "CACHE_SIZE_GB": 1.5,
        "IMAGE_EXTS": [".jpg"],
        "ALIGN_LOG_PATHS": ["a.csv"],
        "NORM": {"MEAN": 0.5, "STD": 2},
        "PREPROCESSING": {
            "AUTO_PREPARE": False,
            "DATASET_TYPE": "gopro",
            "FORCE_RECOMPUTE": False,
            "VOXEL": {"NUM_BINS": 16, "APPLY_LOG1P": False, "CACHE_DIRNAME": "spike_vox"},
            "X4K": {"FPS": 1000, "EXPOSURE_FRAMES": 33},
            "GOPRO": {"SPIKE_TEMPORAL_FRAMES": 10, "SPIKE_HEIGHT": 396, "SPIKE_WIDTH": 640},
        },
    },
    "MODEL": {
        "USE_SPIKE": True,
        "VRT_CFG": "third_party/VRT/options/x.json",
        "CHANNELS_PER_SCALE": [96, 96, 96, 96],
        "LAYERS": 4,
        "VRT": {"USE_CHECKPOINT_ATTN": False, "USE_CHECKPOINT_FFN": True},
        "SPIKE_ENCODER": {"TEMPORAL_STRIDES": [1, 1, 1], "SPATIAL_STRIDES": [2, 2, 2]},
        "SPIKE_TSA": ATTENTION,
        "FUSE": {"TYPE": "TemporalCrossAttn", **ATTENTION, "ADAPTIVE_CHUNK": False},
        "WINDOW_SIZE": ["CLIP_LEN", 8, 8],
        "IMG_SIZE_H": 224,
        "IMG_SIZE_W": 240,
        "DEFORM_GROUPS": 12,
    },
    "DATALOADER": {
        "TOTAL_WORKERS": "auto",
        "TRAIN_WORKERS": 7,
        "VAL_WORKERS": 3,
        "TRAIN_PREFETCH_FACTOR": 4,
        "VAL_PREFETCH_FACTOR": 5,
        "PIN_MEMORY": True,
        "PERSISTENT_WORKERS": True,
    },
    "TRAIN": {
        "RESUME_FROM_CHECKPOINT": False,
        "CHECKPOINT_PATH": "x.pth",
        "EPOCHS": 20,
        "TOTAL_STEPS": 9000,
        "BATCH_SIZE": 2,
        "VAL_BATCH_SIZE": 1,
        "COMPILE_MODEL": True,
        "GRADIENT_ACCUMULATION_STEPS": 6,
        "MAX_GRAD_NORM": 1.0,
        "DDP_COMPRESSION": "bf16",
        "OPTIM": {"TYPE": "adamw8bit", "LR": 1e-4, "BETAS": [0.9, 0.99], "WEIGHT_DECAY": 1e-4},
        "SCHED": {"TYPE": "cosine", "WARMUP_STEPS": 256},
        "MIXED_PRECISION": "bf16",
        "ACCUMULATE_GRAD": 6,
        "AMP_ENABLED": True,
        "AMP_OPT_LEVEL": "O1",
        "TRAIN_CROP_SIZE": 128,
    },
    "LOSS": {
        "CHARBONNIER": {"DELTA": 1e-3, "WEIGHT": 0.9},
        "VGG_PERCEPTUAL": {"LAYERS": ["relu2_2", "relu3_3"], "WEIGHT": 0.2},
    },
    "LOG": {
        "TENSORBOARD": False,
        "SAVE_DIR": "outputs",
        "VAL_EVERY_STEPS": 1000,
        "PROGRESS_EVERY_STEPS": 20,
        "ENABLE_TIMING_LOG": True,
        "TIMING_CONSOLE": True,
        "TIMING_CONSOLE_INTERVAL": 10,
        "TIMING_FILE": True,
        "TIMING_FILE_INTERVAL": 50,
        "CHECKPOINT_SAVE_EVERY_EPOCH": True,
        "CHECKPOINT_KEEP_LAST_N": 5,
        "WANDB": {
            "ENABLE": True,
            "PROJECT": "deblur",
            "ENTITY": "lab",
            "RUN_NAME": "first",
            "RESUME": "allow",
            "JOB_TYPE": "train",
            "TAGS": [],
            "WATCH": False,
            "LOG_CHECKPOINTS": False,
            "LOG_IMAGES": True,
        },
    },
    "TEST": {"BATCH_SIZE": 1, "NUM_WORKERS": 4, "CHECKPOINT_PATH": "y.pth"},
}
# Option -> what it has to be after conversion of TEMPLATE; leaf names of the template's keys that it comes from.
EXPECTED = {
    "train.manual_seed": 123,
    "datasets.train.dataroot_gt": "sets/gopro/train_GT",
    "datasets.train.dataroot_lq": "sets/gopro/train_GT_blurred",
    "datasets.train.dataroot_spike": "sets/gopro/train",
    "datasets.test.dataroot_gt": "sets/gopro/val_GT",
    "datasets.test.dataroot_spike": "sets/gopro/val",
    "datasets.train.gt_size": 256,
    "datasets.train.num_frame": 5,
    "datasets.train.spike": {"representation": "voxel", "bins": 16, "log1p": False},
    "datasets.test.spike": {"representation": "voxel", "bins": 16, "log1p": False},
    "datasets.train.filename_ext": "jpg",
    "datasets.train.spike_normalize": {"mean": 0.5, "std": 2},
    "datasets.test.spike_normalize": {"mean": 0.5, "std": 2},
    "netG.use_checkpoint_attn": False,
    "netG.use_checkpoint_ffn": True,
    "netG.spike_temporal_strides": [1, 1, 1],
    "netG.spike_bins": 16,
    "netG.spike_attn_heads": 6,
    "netG.spike_attn_mlp_ratio": 3.0,
    "netG.spike_attn_max_batch_tokens": 4096,
    "netG.fuse_type": "TemporalCrossAttn",
    "netG.fuse_heads": 6,
    "netG.fuse_mlp_ratio": 3.0,
    "netG.fuse_max_batch_tokens": 64 * 64,
    "netG.window_size": [5, 8, 8],
    "netG.img_size": [5, 224, 240],
    "netG.deformable_groups": 12,
    "datasets.train.dataloader_num_workers": 7,
    "datasets.test.dataloader_num_workers": 3,
    "datasets.train.dataloader_prefetch_factor": 4,
    "datasets.test.dataloader_prefetch_factor": 5,
    "datasets.train.dataloader_persistent_workers": True,
    "train.total_iter": 9000,
    "train.G_scheduler_periods": 9000,
    "train.G_scheduler_warmup_iter": 256,
    "datasets.train.dataloader_batch_size": 12,
    "train.accumulate_grad": 6,
    "train.amp_dtype": "bf16",
    "train.compile": True,
    "train.G_optimizer_clipgrad": 1.0,
    "train.G_optimizer_type": "adamw",
    "train.G_optimizer_lr": 1e-4,
    "train.G_optimizer_betas": [0.9, 0.99],
    "train.G_optimizer_wd": 1e-4,
    "train.G_charbonnier_eps": 1e-6,
    "train.G_lossfn_weight": 0.9,
    "train.vgg_layers": ["relu2_2", "relu3_3"],
    "train.G_perceptual_weight": 0.2,
    "logger.tensorboard": False,
    "path.root": "outputs",
    "train.checkpoint_test": 1000,
    "train.checkpoint_print": 20,
    "train.checkpoint_keep": 5,
    "logger.wandb": True,
    "logger.wandb_project": "deblur",
    "logger.wandb_entity": "lab",
    "logger.wandb_name": "first",
}
NOT_CONVERTED = """
DATA.VAL_CROP_SIZE DATA.VOXEL_CACHE_DIRNAME DATA.USE_PRECOMPUTED_VOXELS DATA.USE_RAM_CACHE DATA.CACHE_SIZE_GB
DATA.ALIGN_LOG_PATHS DATA.PREPROCESSING.AUTO_PREPARE DATA.PREPROCESSING.DATASET_TYPE DATA.PREPROCESSING.FORCE_RECOMPUTE
DATA.PREPROCESSING.VOXEL.CACHE_DIRNAME DATA.PREPROCESSING.X4K.FPS DATA.PREPROCESSING.X4K.EXPOSURE_FRAMES
DATA.PREPROCESSING.GOPRO.SPIKE_TEMPORAL_FRAMES DATA.PREPROCESSING.GOPRO.SPIKE_HEIGHT
DATA.PREPROCESSING.GOPRO.SPIKE_WIDTH MODEL.VRT_CFG  DATALOADER.TOTAL_WORKERS
DATALOADER.PIN_MEMORY TRAIN.RESUME_FROM_CHECKPOINT TRAIN.CHECKPOINT_PATH TRAIN.EPOCHS TRAIN.VAL_BATCH_SIZE
TRAIN.DDP_COMPRESSION TRAIN.OPTIM.TYPE TRAIN.AMP_OPT_LEVEL
TRAIN.TRAIN_CROP_SIZE LOG.ENABLE_TIMING_LOG LOG.TIMING_CONSOLE LOG.TIMING_CONSOLE_INTERVAL LOG.TIMING_FILE
LOG.TIMING_FILE_INTERVAL LOG.CHECKPOINT_SAVE_EVERY_EPOCH LOG.WANDB.RESUME LOG.WANDB.JOB_TYPE LOG.WANDB.TAGS
LOG.WANDB.WATCH LOG.WANDB.LOG_CHECKPOINTS LOG.WANDB.LOG_IMAGES TEST.BATCH_SIZE TEST.NUM_WORKERS TEST.CHECKPOINT_PATH
""".split()


def run(folder: Path, template: dict[str, Any], code: int = 0) -> Path:
    source, target = folder / "baseline.yaml", folder / "out.json"
    source.write_text(yaml.safe_dump(template))
    assert convert_options.main([str(source), str(target)]) == code
    return target


def value(opt: Options, name: str) -> Any:
    found: Any = opt.model_dump()
    for key in name.split("."):
        found = found[key]
    return found


def test_every_key_of_the_documents_is_converted_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = load_options(run(tmp_path, TEMPLATE))
    assert opt.task == "baseline" and opt.netG.net_type == "vrt_spike"
    assert {name: value(opt, name) for name in EXPECTED} == EXPECTED
    named = re.findall(r"^not converted: (\S+) \(.{10,}\)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert sorted(named) == sorted(NOT_CONVERTED)


def test_each_converted_key_makes_a_difference(tmp_path: Path) -> None:
    """A key that the conversion forgot would leave the same file without it."""
    entire = json.loads(run(tmp_path, TEMPLATE).read_text())
    told = dict(convert_options.leaves(TEMPLATE))
    alike = {*NOT_CONVERTED, *convert_options.BINS, *convert_options.PARTS} - {"TRAIN.OPTIM.TYPE"}
    # Values that are the only one possible, or those of the recipe.
    alike |= {"DATA.SPIKE_DIR", "DATA.TRAIN_SPLIT", "DATA.VAL_SPLIT", "MODEL.USE_SPIKE", "MODEL.LAYERS"}
    alike |= {
        "MODEL.SPIKE_ENCODER.SPATIAL_STRIDES",
        "TRAIN.SCHED.TYPE",
        "MODEL.CHANNELS_PER_SCALE",
        "TRAIN.AMP_ENABLED",
    }
    alike |= {
        f"MODEL.{part}.{key}" for part in ("SPIKE_TSA", "FUSE") for key in ("DROPOUT", "CHUNK_SIZE", "CHUNK_SHAPE")
    }
    alike |= {"MODEL.FUSE.MAX_BATCH_TOKENS", "MODEL.FUSE.ADAPTIVE_CHUNK", "MODEL.SPIKE_TSA.ADAPTIVE_CHUNK"}
    for key in told.keys() - alike:
        fewer, left_out = convert_options.convert({k: v for k, v in told.items() if k != key}, Path("x.yaml"))
        assert fewer != {k: v for k, v in entire.items() if k not in ("base", "task")}, key
        assert key not in left_out


def test_an_empty_template_is_the_recipe(tmp_path: Path) -> None:
    target = run(tmp_path, {"SEED": 0})
    assert json.loads(target.read_text())["train"] == {"manual_seed": 0}
    created, recipe = load_options(target).model_dump(), load_options(convert_options.BASE).model_dump()
    assert {**created, "task": recipe["task"]} == recipe


def test_unknown_keys_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        tmp_path, {"MODEL": {"COLOUR": "red", "FUSE": {"HEAD": 2}}, "EXTRA": 1, "LOG": {"WANDB": {"API_KEY": "secret"}}}
    )
    out = capsys.readouterr().out
    assert "not converted: MODEL.COLOUR (unknown key)\n" in out
    assert "not converted: MODEL.FUSE.HEAD (unknown key)\n" in out and "not converted: EXTRA (unknown key)\n" in out
    assert "not converted: LOG.WANDB.API_KEY" in out and "secret" not in out


@pytest.mark.parametrize(
    "template, message",
    [
        ({"MODEL": {"SPIKE_TSA": {"DROPOUT": 0.1}}}, r"MODEL\.SPIKE_TSA\.DROPOUT = 0\.1: there is no dropout"),
        ({"MODEL": {"FUSE": {"DROPOUT": 0.1}}}, r"MODEL\.FUSE\.DROPOUT = 0\.1: there is no dropout"),
        ({"MODEL": {"FUSE": {"TYPE": "Sum"}}}, r"MODEL\.FUSE\.TYPE = 'Sum': .*temporal_cross_attention"),
        ({"MODEL": {"FUSE": {"CHUNK_SHAPE": "round"}}}, r"MODEL\.FUSE\.CHUNK_SHAPE = 'round': .*square, wide, tall"),
        ({"MODEL": {"USE_SPIKE": False}}, r"USE_SPIKE = False: .*RGB alone"),
        ({"MODEL": {"LAYERS": 3}}, r"LAYERS = 3: .*4 stages"),
        ({"MODEL": {"SPIKE_ENCODER": {"SPATIAL_STRIDES": [2, 2, 1]}}}, r"only \[2, 2, 2\] fits"),
        ({"DATA": {"K": 32, "NUM_VOXEL_BINS": 16}}, r"DATA\.K = 32, DATA\.NUM_VOXEL_BINS = 16 mean the same"),
        ({"TRAIN": {"GRADIENT_ACCUMULATION_STEPS": 2, "ACCUMULATE_GRAD": 4}}, r"ACCUMULATE_GRAD = 4 mean the same"),
        ({"TRAIN": {"MIXED_PRECISION": True, "AMP_ENABLED": False}}, r"contradict each other"),
        ({"TRAIN": {"MIXED_PRECISION": "fp8"}}, r"MIXED_PRECISION = 'fp8': choices: true, false, bf16, fp16"),
        (
            {"MODEL": {"CHANNELS_PER_SCALE": [64, 64, 96, 96]}},
            r"\[64, 64, 96, 96\]: .*\[96, 96, 96, 96\]; netG.embed_dims",
        ),
        ({"DATA": {"SPIKE_DIR": "events"}}, r"SPIKE_DIR = 'events': .*rename the folder"),
        ({"TRAIN": {"OPTIM": {"TYPE": "lion"}}}, r"OPTIM\.TYPE = 'lion': choices: adam, adamw"),
        ({"TRAIN": {"SCHED": {"TYPE": "step"}}}, r"SCHED\.TYPE = 'step': choices: cosine"),
        ({"TRAIN": {"BATCH_SIZE": "two"}}, r"BATCH_SIZE = 'two': has to be a number"),
        ({"TRAIN": {"OPTIM": {"LR": -1}}}, r"train\.G_optimizer_lr"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_written(
    tmp_path: Path, template: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run(tmp_path, template, code=2).exists()
    assert re.search(message, capsys.readouterr().err)


LOW_MEMORY = """
DATA:
  CLIP_LEN: 3
  CROP_SIZE: 128
MODEL:
  CHANNELS_PER_SCALE: [96, 96, 96, 96]
  VRT: {USE_CHECKPOINT_ATTN: true, USE_CHECKPOINT_FFN: true}
  SPIKE_TSA: {ADAPTIVE_CHUNK: true}
  FUSE: {ADAPTIVE_CHUNK: true}
TRAIN: {BATCH_SIZE: 1, ACCUMULATE_GRAD: 4, MIXED_PRECISION: true}
"""


def test_the_documents_low_memory_template_keeps_its_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = load_options(run(tmp_path, yaml.safe_load(LOW_MEMORY)))
    assert (opt.train.accumulate_grad, opt.datasets.train.dataloader_batch_size, opt.train.amp_dtype) == (4, 4, "auto")
    assert "not converted" not in capsys.readouterr().out


def test_json_is_taken_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "template.json").write_text(json.dumps({"TRAIN": {"ACCUMULATE_GRAD": 2}}))
    (tmp_path / "kair.json").write_text(json.dumps({"base": str(convert_options.BASE), "path": {"strict_load": False}}))
    for name in ("template", "kair"):
        assert convert_options.main([str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}_out.json")]) == 0
    assert load_options(tmp_path / "template_out.json").train.accumulate_grad == 2
    assert load_options(tmp_path / "kair_out.json").train.G_param_strict is False


def test_the_option_file_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.yaml").write_text("SEED: 1\n")
    assert convert_options.main([str(tmp_path / "in.yaml"), str(tmp_path / "out.yaml")]) == 2
    assert "ends in .json" in capsys.readouterr().err
