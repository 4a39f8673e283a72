"""The sections of an option file: names, types, ranges and defaults of all keys that don't depend on a registered part.

`docs/options.md` describes each key; a test compares it with this file. Keys have KAIR's names where KAIR has them.
`utils/options/parts.py` adds the keys of registered parts to `netG`, `datasets.*` and, for the loss, `train`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from utils.tile_plan import default_blend


def _whole(value: Any) -> Any:
    """Converts an integer that JSON reads as a float, such as 3e5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seed(value: Any) -> Any:
    """KAIR's null means a random seed; here it means 0, so that every run can be repeated."""
    return 0 if value is None else _whole(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
NotNegative = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A section of the options: unknown keys and wrong types are faults, and values can't be changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class PathOptions(Section):
    """`path`: the folder of results and the files of initial weights."""

    root: str = "experiments"
    pretrained_netG: str | None = None
    pretrained_netE: str | None = None


class PartOptions(Section):
    """A section whose remaining keys are the keyword parameters of a registered part."""

    argument_names: ClassVar[tuple[str, ...]] = ()

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the registered part, as copies in plain types."""
        return self.model_dump(include=set(self.argument_names))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Declares the registered part's keys for mypy."""


class RepresentationOptions(PartOptions):
    """`datasets.*.spike`: a spike representation and its parameters."""

    representation: str = "tfp"


class DatasetOptions(PartOptions):
    """`datasets.train` or `datasets.test`: a data set and its loader."""

    dataset_type: str
    name: str = "dataset"
    scale: Positive | None = None
    dataloader_shuffle: bool = True
    dataloader_num_workers: NotNegative = 2
    dataloader_batch_size: Positive = 1
    dataloader_prefetch_factor: Positive = 2
    dataloader_persistent_workers: bool = False


class DatasetsOptions(Section):
    """`datasets`: the training set, and the test set used during training."""

    train: SerializeAsAny[DatasetOptions] | None = None
    test: SerializeAsAny[DatasetOptions] | None = None


class NetworkOptions(PartOptions):
    """`netG`: the network."""

    net_type: str
    init_type: Literal["default", "identity"] = "default"
    init_bn_type: str = "uniform"
    init_gain: float = 0.2


class TrainOptions(Section):
    """`train`: loss, optimizer, schedule, checkpoints."""

    G_lossfn_type: str = "charbonnier"
    G_lossfn_weight: Rate = 1.0
    G_perceptual_weight: Rate = 0.0
    vgg_type: Literal["vgg16", "vgg19"] = "vgg16"
    vgg_layers: Annotated[list[str], Field(min_length=1)] = ["relu3_3"]
    vgg_layer_weights: list[Rate] | None = None
    vgg_distance: Literal["l1", "l2"] = "l1"
    vgg_path: str | None = None
    vgg_weights: Literal["imagenet", "at_hand", "random"] = "imagenet"
    vgg_max_frames: Positive | None = None

    E_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0

    G_optimizer_type: Literal["adam", "adamw"] = "adam"
    G_optimizer_lr: Annotated[float, Field(gt=0)] = 4e-4
    G_optimizer_betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.999,
    ]
    G_optimizer_wd: Rate = 0.0
    G_optimizer_clipgrad: Rate | None = None
    G_optimizer_reuse: bool = True

    fix_iter: Annotated[Whole, Field(ge=-1)] | None = 0
    fix_lr_mul: Rate | None = 1.0
    fix_keys: list[str] = []

    total_iter: Positive = 300000
    G_scheduler_type: Literal["CosineAnnealingWarmRestarts", "MultiStepLR"] = "CosineAnnealingWarmRestarts"
    G_scheduler_milestones: list[NotNegative] = []
    G_scheduler_gamma: Rate = 0.1
    G_scheduler_periods: Positive | list[Positive]
    G_scheduler_restart_weights: Rate | list[Rate] = 1.0
    G_scheduler_eta_min: Rate = 1e-7
    G_scheduler_warmup_iter: NotNegative = 0

    G_regularizer_orthstep: Whole | None = None
    G_regularizer_clipstep: Whole | None = None
    G_param_strict: bool = True
    E_param_strict: bool = True

    checkpoint_test: Positive | None = 5000
    checkpoint_save: Positive = 5000
    checkpoint_print: Positive = 200
    checkpoint_keep: Positive = 3

    # NumPy's and PyTorch's generators accept seeds of 32 bits on all platforms.
    manual_seed: Annotated[int, BeforeValidator(_seed), Field(ge=0, lt=2**32)] = 0
    deterministic: bool = False
    amp_dtype: Literal["auto", "bf16", "fp16"] | None = "auto"
    accumulate_grad: Positive = 1
    max_bad_steps: Positive = 10
    compile: bool = False


class ValOptions(Section):
    """`val`: how sequences are restored, in training and by `main_test_vrt.py`."""

    save_img: bool = False
    pad_seq: bool = False
    flip_seq: bool = False
    center_frame_only: bool = False
    num_frame_testing: NotNegative = 0
    num_frame_overlapping: NotNegative = 2
    size_patch_testing: NotNegative = 0
    size_patch_overlapping: NotNegative = 20
    tile: Annotated[list[NotNegative], Field(min_length=3, max_length=3)] | Literal["auto"] | None = None
    tile_overlap: Annotated[list[NotNegative], Field(min_length=3, max_length=3)] | None = None
    blend: Annotated[list[NotNegative | None], Field(min_length=3, max_length=3)] | None = None
    tiling: Literal["even", "official"] = "even"
    tile_batch: Positive = 1
    max_memory: str | None = None
    cuda_graphs: bool | Literal["auto"] = False

    @property
    def tile_size(self) -> tuple[int, int, int] | Literal["auto"]:
        """Frames, height and width of a tile: `tile` if given, else KAIR's keys; 0: the whole axis."""
        if self.tile == "auto":
            return "auto"
        frames, height, width = self.tile or [self.num_frame_testing, self.size_patch_testing, self.size_patch_testing]
        return frames, height, width

    @property
    def tile_overlap_size(self) -> tuple[int, int, int]:
        """Overlap of neighbouring tiles in frames, rows and columns: `tile_overlap` if given, else KAIR's keys."""
        side = self.size_patch_overlapping
        frames, height, width = self.tile_overlap or [self.num_frame_overlapping, side, side]
        return frames, height, width

    @property
    def blend_size(self) -> tuple[int | None, int | None, int | None]:
        """Blend in frames, rows and columns: `blend` if given, else the best one measured (docs/tiling.md)."""
        frames, rows, columns = self.blend or default_blend(self.tile_overlap_size)
        return frames, rows, columns


class LoggerOptions(Section):
    """`logger`: the services for curves and pictures."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "s-vrt"
    wandb_name: str | None = None
    wandb_entity: str | None = None
    wandb_mode: Literal["online", "offline", "disabled"] | None = None


FOLDER_NAME = r"^(?:[^./\\\x00-\x1f]|\.[^./\\\x00-\x1f]|\.\.[^/\\\x00-\x1f])[^/\\\x00-\x1f]*$"
"""A name without slashes and control characters, other than "." and "..", so that results stay inside their root."""


class TopOptions(Section):
    """The keys outside all sections."""

    task: Annotated[str, Field(min_length=1, max_length=80, pattern=FOLDER_NAME)]
    model: str = "vrt"
    gpu_ids: list[NotNegative] | None = None
    dist: bool | None = None
    find_unused_parameters: bool = False
    use_static_graph: bool = False
    scale: Positive = 1
    n_channels: Positive = 3
    merge_bn: bool = False
    merge_bn_startpoint: Whole = -1


class Options(TopOptions):
    """All options of a run, checked; created by `load_options`."""

    path: PathOptions = PathOptions()
    datasets: DatasetsOptions = DatasetsOptions()
    netG: SerializeAsAny[NetworkOptions]
    train: SerializeAsAny[TrainOptions]
    val: ValOptions = ValOptions()
    logger: LoggerOptions = LoggerOptions()

    @property
    def experiment_dir(self) -> Path:
        """The folder of this run: `path.root`/`task`."""
        return Path(self.path.root) / self.task
