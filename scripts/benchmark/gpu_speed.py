"""Time and memory of networks: steps of `python -m scripts.gpu_check`."""

import gc
import math
import statistics
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import data.select_dataset  # noqa: F401  (registers the data sets)
from models.layers.backends.measure import one_line, timed
from models.network_guided import HALF, Guided
from models.network_vrt import VRT
from models.pretrained import load
from models.select_model import define_Model
from models.training.dry_run import batch_of
from models.training.estimate import estimate_memory
from scripts.benchmark.bench_tiling import GOPRO_CLIP, GOPRO_OVERLAP, GOPRO_TILE, GOPRO_WINDOW
from scripts.benchmark.bench_vrt import NO_CHECKPOINTS, RECIPES, ROOT
from scripts.benchmark.gpu_rows import Row, Rows, Setting
from scripts.benchmark.vrt_worker import GRAPHS, Variant, Workload
from scripts.estimate_memory import NO_FILES
from utils.utils_dist import Dist
from utils.utils_memory import is_out_of_memory
from utils.utils_option import load_options
from utils.utils_tile import Tiling

TINY_NETWORK = (
    "netG.depths=[1,1,1,1,1,1,1,1]", "netG.embed_dims=[8,8,8,8,8,8,8,8]", "netG.num_heads=[2,2,2,2,2,2,2,2]",
    "netG.indep_reconsts=[]", "netG.deformable_groups=2",
)  # fmt: skip
# A step's measured memory over the estimate, from which on a run that was planned by it would not fit.
MEMORY_MARGIN = 1.2
REPEATS = 5


def speed(setting: Setting, backend: str, first: bool) -> Rows:
    """Passes by a back end: `first` those in bf16, else the spike branch, the other precisions and `train.compile`."""
    half = [
        variant(setting, "006", backend, "bf16", step=False),
        variant(setting, "006", backend, "bf16", step=True),
        variant(setting, "006", backend + GRAPHS, "bf16", step=False),
    ]
    later = [
        variant(setting, "voxel", backend, "bf16", step=True),
        variant(setting, "voxel", backend, "bf16", step=False),
        *(variant(setting, "006", backend, kind, step) for kind in ("tf32", "fp32") for step in (False, True)),
        replace(variant(setting, "006", backend, "bf16", step=True), compile=True),
    ]
    chosen = half if first else later
    for one in chosen[:1] if setting.tiny else chosen:
        if setting.in_time and not (one.compile and backend == "eager"):  # nobody compiles eager's blocks
            yield measured(one, repeats(setting))


def repeats(setting: Setting) -> int:
    """Passes whose median is taken."""
    return 1 if setting.tiny else REPEATS


def variant(setting: Setting, recipe: str, backend: str, precision: str, step: bool) -> Variant:
    """A pass of `bench_vrt.py`, of a crop as the recipes train on."""
    tiny = setting.tiny
    kind = "fp32" if tiny else precision
    overrides = (*NO_CHECKPOINTS, *(TINY_NETWORK if tiny else ()))
    size = (2, 16, 16) if tiny else (6, 192, 192)
    return Variant(str(ROOT / RECIPES[recipe]), overrides, backend, size, 1, step, setting.device, kind)


def measured(chosen: Variant, count: int) -> Row:
    """Median time and peak memory of a pass; a failure is the row's."""
    recipe = next(name for name, path in RECIPES.items() if chosen.recipe.endswith(path))
    what = f"{recipe} {'x'.join(map(str, chosen.size))} {'step' if chosen.step else 'forward'}"
    name = f"{chosen.backend} {chosen.precision}{' compiled' if chosen.compile else ''}"
    try:
        return _measured(what, name, Workload(chosen), count)
    except (RuntimeError, ValueError, MemoryError) as error:
        if is_out_of_memory(error):  # a card may be too small for this way
            return Row(what, name, note="out of memory")
        return Row(what, name, fault=one_line(error))
    finally:
        gc.collect()
        if chosen.device == "cuda":
            torch.cuda.empty_cache()


def _measured(what: str, name: str, workload: Workload, count: int) -> Row:
    cuda = workload.device.type == "cuda"
    output = workload.output()  # compiles, captures and, by "auto", measures
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = [workload.timed()["seconds"] for _ in range(count)]
    automatic = [module.automatic for module in workload.network.modules() if isinstance(module, VRT)]
    chosen = ", ".join(name for choices in automatic for name in choices.names())
    return Row(
        what, name, 1e3 * statistics.median(seconds), workload.memory()["peak"] / 1e9 if cuda else None,
        f"auto is {chosen}" if chosen else "",
        None if np.isfinite(output).all() else "numbers that are not finite",
    )  # fmt: skip


def memory(setting: Setting) -> Rows:
    """A training step's peak memory beside what `scripts.estimate_memory` says."""
    device = torch.device("cuda", 0) if setting.device == "cuda" else torch.device("cpu")
    for recipe in ("006",) if setting.tiny else ("006", "voxel"):
        opt = load_options(
            ROOT / RECIPES[recipe],
            [*NO_FILES, *(TINY_NETWORK if setting.tiny else ()), *(["datasets.train.gt_size=16"] * setting.tiny)],
        )
        model = define_Model(opt, Dist(0, 1, 0, device), pretrained=False)
        batch = {key: value.uniform_() for key, value in batch_of(opt, 1).items()}
        estimate = estimate_memory(model, batch, setting.device)
        if setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for number in (1, 2):
            model.optimize_parameters(number, batch)
        note = f"estimated {estimate.total / 1e9:.2f} GB"
        found = peak(setting)
        over = found is not None and found > MEMORY_MARGIN * estimate.total / 1e9
        yield Row(
            f"{recipe} step, as the recipe says", "memory", None, found, note, f"more than {note}" if over else None
        )
        del model, batch
        gc.collect()


def tiles(setting: Setting) -> Rows:
    """Seconds per 720p frame in the published tester's tiles."""
    size = (2, 16, 16) if setting.tiny else GOPRO_TILE
    for graphs in ("",) if setting.tiny else ("", GRAPHS):
        row = measured(
            replace(variant(setting, "006", "auto" + graphs, "bf16", step=False), size=size),
            1 if setting.tiny else REPEATS,
        )
        if row.milliseconds is None:
            yield row
            continue
        share = Tiling(GOPRO_TILE, GOPRO_OVERLAP, window=GOPRO_WINDOW).computed(GOPRO_CLIP)
        per_frame = row.milliseconds * share * math.prod(GOPRO_CLIP[1:]) / math.prod(size)
        note = f"{1e3 / per_frame:.2f} frames/s; {row.note}".removesuffix("; ")
        yield replace(row, what=f"720p frame in tiles of {'x'.join(map(str, size))}", milliseconds=per_frame, note=note)


def light(setting: Setting) -> Rows:
    """The light network on a 720p frame."""
    device = torch.device(setting.device)
    network = load("guided", device).network
    assert isinstance(network, Guided)
    bins = network.conv_first.in_channels - HALF**2 * (3 + network.widths)
    height, width = (32, 48) if setting.tiny else GOPRO_CLIP[1:]
    frame = torch.rand(1, 1, 3, height, width, device=device)
    spikes = torch.rand(1, 1, bins, height // 2, width // 2, device=device)
    for half in (True, False):

        def run(half: bool = half) -> Tensor:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, half):
                return network(frame, spikes)

        finite = bool(torch.isfinite(run()).all())
        samples = [timed(run, device) for _ in range(repeats(setting))]
        yield Row(
            f"light network, {height}x{width}", "bf16" if half else "fp32",
            statistics.median(milliseconds for milliseconds, _ in samples),
            max(used for _, used in samples) / 1e9 or None,
            fault=None if finite else "numbers that are not finite",
        )  # fmt: skip


def peak(setting: Setting) -> float | None:
    """GB that tensors took at most on the GPU so far; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if setting.device == "cuda" else None
