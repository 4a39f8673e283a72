"""Option files of the project that the documents come from, YAML or JSON, as an option file of this repository.

    python -m scripts.convert_options in.yaml out.json          the documents' YAML template (DATA, MODEL, TRAIN, ...)
    python -m scripts.convert_options in.json out.json          KAIR-like files, whose keys are translated

Of the template, `out.json` is based on the voxel recipe and holds what the template says otherwise. Every key is
converted, or printed under "not converted" with the reason. What would make another network, like dropout or LoRA, is
refused. TRAIN.BATCH_SIZE is one GPU's: with more of them multiply datasets.train.dataloader_batch_size, which is over
all. KAIR-like files also load unconverted (`utils/options/foreign.py`).
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.flags import convert_options_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(convert_options_parser(__doc__ or ""))

import data.select_dataset  # noqa: F401  (registers the data sets)
import models.select_network  # noqa: F401  (registers networks and fusions)
from models.layers.spike.temporal_attention import chunk_limit
from utils.options.text import read_document
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import atomic_write
from utils.utils_option import OptionError, load_options, write_options
from utils.utils_registry import FUSIONS

BASE = Path(__file__).resolve().parents[1] / "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike_voxel.json"
BOTH = ("datasets.train", "datasets.test")

# Template key: option keys that take its value as it is.
SAME = {
    "SEED": ["train.manual_seed"],
    "DATA.CROP_SIZE": ["datasets.train.gt_size"],
    "DATA.CLIP_LEN": ["datasets.train.num_frame"],
    "DATA.PREPROCESSING.VOXEL.APPLY_LOG1P": [f"{section}.spike.log1p" for section in BOTH],
    "MODEL.VRT.USE_CHECKPOINT_ATTN": ["netG.use_checkpoint_attn"],
    "MODEL.VRT.USE_CHECKPOINT_FFN": ["netG.use_checkpoint_ffn"],
    "MODEL.SPIKE_ENCODER.TEMPORAL_STRIDES": ["netG.spike_temporal_strides"],
    "MODEL.SPIKE_TSA.HEADS": ["netG.spike_attn_heads"],
    "MODEL.SPIKE_TSA.MLP_RATIO": ["netG.spike_attn_mlp_ratio"],
    "MODEL.FUSE.HEADS": ["netG.fuse_heads"],
    "MODEL.FUSE.MLP_RATIO": ["netG.fuse_mlp_ratio"],
    "MODEL.DEFORM_GROUPS": ["netG.deformable_groups"],
    "DATALOADER.TRAIN_WORKERS": ["datasets.train.dataloader_num_workers"],
    "DATALOADER.VAL_WORKERS": ["datasets.test.dataloader_num_workers"],
    "DATALOADER.TRAIN_PREFETCH_FACTOR": ["datasets.train.dataloader_prefetch_factor"],
    "DATALOADER.VAL_PREFETCH_FACTOR": ["datasets.test.dataloader_prefetch_factor"],
    "DATALOADER.PERSISTENT_WORKERS": [f"{section}.dataloader_persistent_workers" for section in BOTH],
    "TRAIN.TOTAL_STEPS": ["train.total_iter", "train.G_scheduler_periods"],
    "TRAIN.COMPILE_MODEL": ["train.compile"],
    "TRAIN.MAX_GRAD_NORM": ["train.G_optimizer_clipgrad"],
    "TRAIN.OPTIM.LR": ["train.G_optimizer_lr"],
    "TRAIN.OPTIM.BETAS": ["train.G_optimizer_betas"],
    "TRAIN.OPTIM.WEIGHT_DECAY": ["train.G_optimizer_wd"],
    "TRAIN.SCHED.WARMUP_STEPS": ["train.G_scheduler_warmup_iter"],
    "LOSS.CHARBONNIER.WEIGHT": ["train.G_lossfn_weight"],
    "LOSS.VGG_PERCEPTUAL.LAYERS": ["train.vgg_layers"],
    "LOSS.VGG_PERCEPTUAL.WEIGHT": ["train.G_perceptual_weight"],
    "LOG.TENSORBOARD": ["logger.tensorboard"],
    "LOG.SAVE_DIR": ["path.root"],
    "LOG.VAL_EVERY_STEPS": ["train.checkpoint_test"],
    "LOG.PROGRESS_EVERY_STEPS": ["train.checkpoint_print"],
    "LOG.CHECKPOINT_KEEP_LAST_N": ["train.checkpoint_keep"],
    "LOG.WANDB.ENABLE": ["logger.wandb"],
    "LOG.WANDB.PROJECT": ["logger.wandb_project"],
    "LOG.WANDB.ENTITY": ["logger.wandb_entity"],
    "LOG.WANDB.RUN_NAME": ["logger.wandb_name"],
}
NO_CACHE = "voxels are made from the spikes when they are needed, in about a millisecond"
WRONG_READING = "spikes are bits and not bytes; their size comes from config.yaml or the file's"
NEVER_READ = "the original never read it"
TIMES = "times of a step's sections are always logged"
OWN_TEST = "an option of the test: flags of main_test_vrt.py"
OWN_DATA = "data are prepared by scripts/data_preparation"
# Template key, or the section it is in: why it is not converted.
DROPPED = {
    "DATA.VAL_CROP_SIZE": "tests restore whole frames, in tiles of val.size_patch_testing",
    "DATA.VOXEL_CACHE_DIRNAME": NO_CACHE,
    "DATA.USE_PRECOMPUTED_VOXELS": NO_CACHE,
    "DATA.USE_RAM_CACHE": f"{NO_CACHE}; datasets.*.cache_data keeps the frames in memory",
    "DATA.CACHE_SIZE_GB": NO_CACHE,
    "DATA.ALIGN_LOG_PATHS": "exposures come from <dataroot_spike>/<clip>/sync.json, see docs/data.md",
    "DATA.PREPROCESSING.AUTO_PREPARE": OWN_DATA,
    "DATA.PREPROCESSING.DATASET_TYPE": OWN_DATA,
    "DATA.PREPROCESSING.FORCE_RECOMPUTE": NO_CACHE,
    "DATA.PREPROCESSING.VOXEL.CACHE_DIRNAME": NO_CACHE,
    "DATA.PREPROCESSING.X4K": "exposures come from <dataroot_spike>/<clip>/sync.json, see docs/data.md",
    "DATA.PREPROCESSING.GOPRO": WRONG_READING,
    "MODEL.VRT_CFG": NEVER_READ,
    "DATALOADER.TOTAL_WORKERS": "datasets.train.dataloader_num_workers counts the workers",
    "DATALOADER.PIN_MEMORY": "memory is pinned where there is a GPU",
    "TRAIN.RESUME_FROM_CHECKPOINT": "a run goes on from its folder's newest checkpoint; a fresh one needs another task",
    "TRAIN.CHECKPOINT_PATH": "other keys than this network's; weights to start from are path.pretrained_netG",
    "TRAIN.VAL_BATCH_SIZE": "tests take one clip at a time",
    "TRAIN.DDP_COMPRESSION": "gradients are exchanged in float32",
    "TRAIN.AMP_OPT_LEVEL": f"{NEVER_READ}; train.amp_dtype chooses autocast",
    "TRAIN.TRAIN_CROP_SIZE": f"{NEVER_READ}; DATA.CROP_SIZE is",
    "LOG.ENABLE_TIMING_LOG": TIMES,
    "LOG.TIMING_CONSOLE": TIMES,
    "LOG.TIMING_CONSOLE_INTERVAL": TIMES,
    "LOG.TIMING_FILE": TIMES,
    "LOG.TIMING_FILE_INTERVAL": TIMES,
    "LOG.CHECKPOINT_SAVE_EVERY_EPOCH": "checkpoints go by steps, train.checkpoint_save",
    "LOG.WANDB": "not among the options of W&B here: logger.wandb_*",
    "TEST": OWN_TEST,
}
BINS = ("DATA.K", "DATA.NUM_VOXEL_BINS", "DATA.PREPROCESSING.VOXEL.NUM_BINS")
PARTS = ("TRAIN.GRADIENT_ACCUMULATION_STEPS", "TRAIN.ACCUMULATE_GRAD")
CHUNKS = {"ADAPTIVE_CHUNK": False, "MAX_BATCH_TOKENS": 49152, "CHUNK_SIZE": 64, "CHUNK_SHAPE": "square"}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 the template can't be converted."""
    arguments = convert_options_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: run(arguments.template, arguments.options))


def run(template: Path, options: Path) -> None:
    """Converts a file, checks the result and prints what was left out.

    Raises:
        UserError: an option of the template that can't be had here, or the result is no valid option file.
    """
    if options.suffix != ".json":
        raise UserError(f"{options}: the option file to write is JSON; give it a name that ends in .json")
    document = read_document(template)
    document.check(template)
    if document.tree.keys() & {"netG", "datasets", "base"}:
        # Checked before it is written: this file's line numbers are those that the user knows.
        opt = load_options(template)
        write_options(opt, options)
        print(f"{options}: what {template} means, with all defaults; what has no effect was told above")
        return
    tree, left_out = convert(dict(leaves(document.tree)), template)
    base = os.path.relpath(BASE, options.resolve().parent)
    with atomic_write(options) as file:
        file.write(json.dumps({"base": base, "task": template.stem, **tree}, indent=2) + "\n")
    try:
        load_options(options)
    except OptionError:
        options.unlink()
        raise
    print(f"{options}: based on {BASE.name}")
    for key, reason in left_out.items():
        print(f"not converted: {key} ({reason})")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def convert(template: Mapping[str, Any], source: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Options of a template.

    Args:
        template: dotted keys and values.
        source: its file, for messages.

    Returns:
        Sections of the option file, and the keys that are not in it with the reasons.
    """
    conversion = _Conversion(template, source)
    for step in (
        conversion.same, conversion.data, conversion.network, conversion.chunks, conversion.training, conversion.rest
    ):  # fmt: skip
        step()
    return conversion.options, conversion.left_out


class _Conversion:
    """A conversion under way.

    Attributes:
        values: keys that are still to be looked at.
        options: sections made so far. left_out: keys that are not converted, with reasons.
    """

    def __init__(self, template: Mapping[str, Any], source: Path) -> None:
        self.source = source
        self.values = {key: value for key, value in template.items() if value is not None}
        self.left_out = {key: "null: as in the recipe" for key, value in template.items() if value is None}
        self.options: dict[str, Any] = {}

    def put(self, option: str, value: Any) -> None:
        """Sets an option by its dotted name."""
        *sections, key = option.split(".")
        section = self.options
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is dealt with by that."""
        return self.values.pop(key, default)

    def refuse(self, key: str, value: Any, remedy: str) -> UserError:
        """The error for a value that can't be had here."""
        return UserError(f"{self.source}: {key} = {value!r}: {remedy}")

    def number(self, key: str, default: float | None = None) -> Any:
        """The value of a key that is a number, which is dealt with by that; `default` where it is not given."""
        value = self.take(key, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise self.refuse(key, value, "has to be a number")
        return value

    def agreed(self, keys: Sequence[str], meaning: str) -> Any:
        """The value of keys that mean the same, which are dealt with by that; None where none is given."""
        given = {key: self.take(key) for key in keys if key in self.values}
        if len(set(given.values())) > 1:
            said = ", ".join(f"{key} = {value}" for key, value in given.items())
            raise UserError(f"{self.source}: {said} mean the same, {meaning}; give one number")
        return next(iter(given.values()), None)

    def only(self, key: str, accepted: Callable[[Any], bool], remedy: str) -> None:
        """A key with a single value that is possible here, which needs no option."""
        value = self.take(key)
        if value is not None and not accepted(value):
            raise self.refuse(key, value, remedy)

    def same(self) -> None:
        """Values that are taken as they are."""
        for key in [key for key in SAME if key in self.values]:
            value = self.take(key) if key != "DATA.CLIP_LEN" else self.values[key]
            for option in SAME[key]:
                self.put(option, value)

    def data(self) -> None:
        """Folders and spikes."""
        root = self.take("DATA.ROOT")
        for section, split in zip(
            BOTH, (self.take("DATA.TRAIN_SPLIT", "train"), self.take("DATA.VAL_SPLIT", "val")), strict=True
        ):
            if root is not None:
                self.put(f"{section}.dataroot_gt", f"{root}/{split}_GT")
                self.put(f"{section}.dataroot_lq", f"{root}/{split}_GT_blurred")
                self.put(f"{section}.dataroot_spike", f"{root}/{split}")
        bins = self.agreed(BINS, "the bins per frame")
        normalizes = any(key.startswith("DATA.NORM.") for key in self.values)
        mean, std = self.number("DATA.NORM.MEAN", 0), self.number("DATA.NORM.STD", 1)
        for section in BOTH:
            if bins is not None:
                self.put(f"{section}.spike.bins", bins)
            if normalizes:
                self.put(f"{section}.spike_normalize", None if (mean, std) == (0, 1) else {"mean": mean, "std": std})
        self.only(
            "DATA.SPIKE_DIR",
            lambda name: name == "spike",
            "streams lie in <dataroot_spike>/<clip>/spike; rename the folder",
        )
        endings = self.take("DATA.IMAGE_EXTS", [])
        if len(endings) == 1:
            self.put("datasets.train.filename_ext", endings[0].lstrip("."))
        elif endings:
            self.left_out["DATA.IMAGE_EXTS"] = "training has one kind of file, datasets.train.filename_ext"

    def network(self) -> None:
        """What makes the network."""
        self.only(
            "MODEL.USE_SPIKE",
            lambda use: use is True,
            "this converts the branch with spikes; RGB alone is 006_train_vrt_videodeblurring_gopro.json",
        )
        channels = load_options(BASE).netG.embed_dims[:4]
        self.only(
            "MODEL.CHANNELS_PER_SCALE",
            lambda widths: widths == channels,
            f"the spike branch has the channels of VRT's first stages, {channels}; netG.embed_dims sets both",
        )
        self.only("MODEL.LAYERS", lambda count: count == 4, "VRT's encoder has 4 stages")
        self.only(
            "MODEL.SPIKE_ENCODER.SPATIAL_STRIDES",
            lambda strides: strides == [2, 2, 2],
            "VRT's stages halve the size; only [2, 2, 2] fits",
        )
        for part in ("SPIKE_TSA", "FUSE"):
            self.only(
                f"MODEL.{part}.DROPOUT",
                lambda share: share == 0,
                "there is no dropout here; set it to 0 (netG.drop_path_rate is VRT's own regularisation)",
            )
        fusion = self.take("MODEL.FUSE.TYPE")
        if fusion is not None:
            try:
                FUSIONS.get(fusion)
            except UserError as error:
                raise self.refuse("MODEL.FUSE.TYPE", fusion, str(error)) from error
            self.put("netG.fuse_type", fusion)
        frames, crop = self.take("DATA.CLIP_LEN"), self.options.get("datasets", {}).get("train", {}).get("gt_size")
        window = self.take("MODEL.WINDOW_SIZE")
        if window is not None:
            self.put("netG.window_size", [frames if side == "CLIP_LEN" else side for side in window])
        size = [frames, self.take("MODEL.IMG_SIZE_H", crop), self.take("MODEL.IMG_SIZE_W", crop)]
        if None not in size:
            self.put("netG.img_size", size)

    def chunks(self) -> None:
        """Four keys of the attention's chunks become one limit."""
        for part, option in (("SPIKE_TSA", "spike_attn_max_batch_tokens"), ("FUSE", "fuse_max_batch_tokens")):
            keys = {key: f"MODEL.{part}.{key}" for key in CHUNKS}
            if any(key in self.values for key in keys.values()):
                adaptive, tokens, side, shape = (self.take(key, CHUNKS[name]) for name, key in keys.items())
                try:
                    self.put(f"netG.{option}", chunk_limit(adaptive, tokens, side, shape))
                except UserError as error:
                    raise self.refuse(keys["CHUNK_SHAPE"], shape, str(error)) from error

    def training(self) -> None:
        """Batch, steps, optimizer, loss."""
        parts = self.agreed(PARTS, "the parts of a batch")
        if parts is not None:
            self.put("train.accumulate_grad", parts)
        self.precision()
        batch = self.number("TRAIN.BATCH_SIZE", None if parts is None else 1)
        if batch is not None:
            self.put("datasets.train.dataloader_batch_size", batch * (parts or 1))
        if "TRAIN.EPOCHS" in self.values:
            self.take("TRAIN.EPOCHS")
            self.left_out["TRAIN.EPOCHS"] = "training goes by steps: set train.total_iter and train.G_scheduler_periods"
        kind = self.take("TRAIN.OPTIM.TYPE")
        if kind is not None:
            if kind not in ("adam", "adamw", "adamw8bit"):
                raise self.refuse("TRAIN.OPTIM.TYPE", kind, "choices: adam, adamw, adamw8bit (as adamw)")
            self.put("train.G_optimizer_type", kind.removesuffix("8bit"))
            if kind == "adamw8bit":
                self.left_out["TRAIN.OPTIM.TYPE"] = "adamw with moments in float32 takes its place"
        self.only(
            "TRAIN.SCHED.TYPE", lambda name: name == "cosine", "choices: cosine; others by train.G_scheduler_type"
        )
        delta = self.number("LOSS.CHARBONNIER.DELTA")
        if delta is not None:
            self.put("train.G_lossfn_type", "charbonnier")
            # sqrt(d^2 + delta^2) in the documents, sqrt(d^2 + eps) here.
            self.put("train.G_charbonnier_eps", float(f"{delta**2:.12g}"))
        workers = self.values.get("DATALOADER.TOTAL_WORKERS")
        train = self.options.get("datasets", {}).get("train", {})
        if isinstance(workers, int) and "dataloader_num_workers" not in train:
            self.put("datasets.train.dataloader_num_workers", self.take("DATALOADER.TOTAL_WORKERS"))

    def precision(self) -> None:
        """MIXED_PRECISION and AMP_ENABLED: true, false, "bf16" or "fp16"."""
        names = ("TRAIN.MIXED_PRECISION", "TRAIN.AMP_ENABLED")
        given = {name: self.take(name) for name in names if name in self.values}
        for name, value in given.items():
            if value not in (True, False, "bf16", "fp16"):
                raise self.refuse(name, value, "choices: true, false, bf16, fp16")
        if len({bool(value) for value in given.values()}) > 1:
            raise UserError(f"{self.source}: {' and '.join(names)} contradict each other; give one of them")
        if given:
            kind = next((value for value in given.values() if isinstance(value, str)), None)
            # "auto" takes bf16 on GPUs that compute in it.
            self.put("train.amp_dtype", kind or ("auto" if any(given.values()) else None))

    def rest(self) -> None:
        """Every other key with its reason."""
        for key in self.values:
            parts = key.split(".")
            names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            self.left_out[key] = next((DROPPED[name] for name in names if name in DROPPED), "unknown key")


if __name__ == "__main__":
    sys.exit(main())
