"""Translates the options of the project that S-VRT's documents describe.

Its JSON files (`options/*.json` there) and the template in its documents load unchanged: keys with a counterpart are
translated, keys without effect are reported once, and parts that do not exist here are refused by name unless they are
switched off. Its YAML template has other sections; `scripts/convert_options.py` converts it.

    "netG": {"optical_flow": {"module": "spynet", "checkpoint": "a.pth"}}  ->  "netG": {"spynet_path": "a.pth"}
    "train": {"amp": {"enable": true, "dtype": "bf16"}}                    ->  "train": {"amp_dtype": "bf16"}
    "spike": {"reconstruction": {"type": "spikecv_tfp", "num_bins": 4}}    ->  "spike": {"bins": 4}, of "tfp"
    "dataset_type": "vrt_video", "TestDataset", ...                        ->  KAIR's name, with or without spikes
"""

from collections.abc import Container
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from utils.options.text import Document, Keys, dotted


class Foreign(NamedTuple):
    """A key, or all keys of a pattern, that this repository does not have.

    Attributes:
        reason: why it has no effect, or what to use instead.
        usual: values that change nothing here, besides null, false, empty ones and {"enable": false, ...}.
        refused: any other value is a fault, as the network or the training would differ.
        silent: no message, as the key depends on another one that has a message.
    """

    reason: str
    usual: tuple[Any, ...] = ()
    refused: bool = False
    silent: bool = False

    def asks_for_nothing(self, value: Any) -> bool:
        """Whether a value switches the part off, or is what this repository does anyway."""
        if self.silent:
            return True
        if isinstance(value, dict) and value.keys() & set(SWITCHES):
            return all(value.get(switch, off[0]) in off for switch, off in SWITCHES.items())
        return value in (None, False, "", [], {}, *self.usual)


SWITCHES = {"enable": (False, None), "representation": ("", None), "strategy": ("concat", None)}
"""Keys that switch a foreign section on, and the values with which it is off."""


def _absent(part: str, instead: str, *usual: Any) -> Foreign:
    return Foreign(f"{part} is not part of this repository; {instead}", usual, refused=True)


# Reasons that several keys share.
BINS = "bins divide the exposure into equal times (spike.bins), without half windows or a separate centre"
ON_DEMAND = "spikes are encoded when they are read, from the .dat files"
FUSION = 'spikes are fused by cross-attention (net_type "vrt_spike") or concatenated (net_type "vrt")'
PHASES = "training has one phase; start a second run from the first one's weights with path.pretrained_netG"
TRACKER = "curves go to TensorBoard and W&B (logger.tensorboard, logger.wandb)"

WITH_ANOTHER = Foreign("", silent=True)  # keys that only matter together with another foreign key

FOREIGN = {
    "runtime": Foreign("threads follow OMP_NUM_THREADS"),
    "datasets.*.rgb_normalize": Foreign("frames stay in [0, 1]; the network normalizes where it has to"),
    "datasets.*.spike_config": Foreign("the spikes' size comes from spike_h and spike_w or from config.yaml"),
    "datasets.*.spike_folder_name": _absent("another folder than <clip>/spike", "rename the folders", "spike"),
    "datasets.*.spike_filename_ext": _absent("another ending than .dat", "rename the files", "dat", ".dat"),
    "datasets.*.spike_flow": _absent("SCFlow", "flow comes from the RGB frames (SpyNet)"),
    "datasets.*.tfp_*": Foreign(BINS),
    "datasets.*.middle_tfp_center": Foreign(BINS),
    "datasets.*.spike_win": Foreign(BINS),
    "datasets.*.keep_legacy_l": Foreign("samples hold L, and L_spike where input_pack_mode is dual"),
    "datasets.*.compat": Foreign("samples hold L, and L_spike where input_pack_mode is dual"),
    "datasets.*.in_memory_*": Foreign("datasets.*.cache_data keeps the decoded frames in memory"),
    "datasets.*.dataloader_epoch_repeat": Foreign("the length of training is counted in steps, not epochs", (1,)),
    "datasets.*.spike.precomputed": Foreign(ON_DEMAND),
    "netG.task": Foreign("net_type and upscale define the network's task"),
    "netG.scale": Foreign("netG.upscale is the network's scale", (1,)),
    "netG.recal_all_flows": Foreign("KAIR's network never read it"),
    "netG.out_chans": _absent("another number of output channels than RGB's 3", "leave it out", 3),
    "netG.dcn": _absent("DCNv4", "alignment is by DCNv2", {"type": "dcnv2", "apply_softmax": False}),
    "netG.dcn_type": _absent("DCNv4", "alignment is by DCNv2", "DCNv2"),
    "netG.dcn_apply_softmax": WITH_ANOTHER,
    "netG.use_flash_attn": Foreign("netG.compute_backend chooses how attention is computed"),
    "netG.use_sgp": _absent("SGP", "blocks have the paper's attention"),
    "netG.sgp_*": WITH_ANOTHER,
    "netG.pa_fuse_amp_policy": Foreign("train.amp_dtype chooses autocast"),
    "netG.output_mode": _absent("the interpolation mode", "009 is the recipe for frame interpolation", "restoration"),
    "netG.restoration_reducer": WITH_ANOTHER,
    "netG.input_mode": _absent("the fusion's input mode", FUSION, "concat"),
    "netG.input": _absent("the fusion's input mode", FUSION),
    "netG.fusion": _absent("the fusion framework (gated, PASE, Mamba, ...)", FUSION),
    "netG.spike_encoder": _absent("PASE", FUSION),
    "train.use_lora": _absent("LoRA", "train.fix_keys freezes parameters by name, for train.fix_iter steps"),
    "train.lora_*": WITH_ANOTHER,
    "train.phase*": WITH_ANOTHER,
    "train.two_run": _absent("the two-run training", PHASES),
    "train.freeze_backbone": _absent("freezing the backbone", "train.fix_keys freezes parameters by name"),
    "train.freeze_known_unused_parameters": Foreign("every parameter is used"),
    "train.partial_load": Foreign("train.G_param_strict: false takes the weights that fit"),
    "train.fusion_*": WITH_ANOTHER,
    "train.timing": Foreign("the times of a step's parts are always logged"),
    "train.profiler": Foreign("the times of a step's parts are always logged"),
    "val.amp": Foreign("tests compute in train.amp_dtype"),
    "val.distributed_patch_testing": Foreign("clips are shared among the ranks"),
    "val.lazy_flow_cache_mode": Foreign("flow is computed with its tile"),
    "val.cache_flow_patches_cpu": Foreign("flow is computed with its tile"),
    "val.disable_checkpoint_during_validation": Foreign("nothing is recomputed in tests"),
    "val.profile_patch_timing": Foreign("the times of a step's parts are always logged"),
    "logger.use_swanlab": Foreign(TRACKER),
    "logger.swanlab_*": WITH_ANOTHER,
    "logger.use_logfire": Foreign(TRACKER),
    "logger.logfire_*": WITH_ANOTHER,
}
"""By the key's dotted name, in which `*` matches any text."""

# Foreign keys that have a counterpart under another name.
MOVED = {
    ("path", "strict_load"): ("train", "G_param_strict"),
    ("netG", "optical_flow", "checkpoint"): ("netG", "spynet_path"),
    ("val", "patch_batch_size"): ("val", "tile_batch"),
}

DTYPES = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16"}  # names of `train.amp_dtype`

OPEN_TYPES = ("vrt_video", "vrt_video_rgbspike", "traindataset", "testdataset")
"""Foreign names whose class depends on the phase, and on whether there are spikes."""

OTHER = {"train": "test", "test": "train"}  # the phase from which missing options of spikes are copied

# Options of spikes that both phases share.
SPIKE_KEYS = ("spike", "spike_h", "spike_w", "spike_flipud", "spike_normalize", "spike_threshold", "input_pack_mode")


def translate(document: Document) -> None:
    """Translates a file's foreign keys that have a counterpart here, in place."""
    for old, new in MOVED.items():
        if _has(document, old):
            document.move(old, new)
    _flow(document)
    _precision(document)
    for phase in ("train", "test"):
        _sides(document, ("datasets", phase))
        _spikes(document, ("datasets", phase))


def foreign_keys(keys: Keys, known: Container[str], section: dict[str, Any]) -> dict[str, Foreign]:
    """The foreign keys of the section at `keys`, without those in `known`, the section's own keys."""
    parents = [str(key) for key in keys]
    names = {key: ".".join([*parents, key]) for key in section if key not in known}
    return {
        key: foreign
        for key, name in names.items()
        for pattern, foreign in FOREIGN.items()
        if name.count(".") == pattern.count(".") and fnmatchcase(name, pattern)
    }


def complete(document: Document) -> None:
    """Fills in, after all layers are merged, what depends on several sections: class and spikes of `OPEN_TYPES`."""
    sections = {phase: document.find(("datasets", phase)) for phase in ("train", "test")}
    sections = {phase: section for phase, section in sections.items() if isinstance(section, dict)}
    open_phases = [phase for phase, section in sections.items() if _type(section) in OPEN_TYPES]
    if not open_phases:
        return
    channels, colors = document.find(("netG", "in_chans")), document.tree.get("n_channels", 3)
    appended = channels - 3 if isinstance(channels, int) else 0
    spiky = appended > 0 or any("rgbspike" in _type(s) or "dataroot_spike" in s for s in sections.values())
    for phase in open_phases:
        section, other = sections[phase], sections.get(OTHER[phase], {})
        section["dataset_type"] = f"VideoRecurrent{phase.capitalize()}Dataset{'RGBSpike' if spiky else ''}"
        if spiky:
            _complete_spikes(document, phase, section, other)
        if appended > 0 and "spike" not in section:
            spike = {"representation": "tfp", "bins": appended}
            document.put(("datasets", phase, "spike"), spike, ("netG", "in_chans"))
    if spiky and colors == channels:
        # The documents' template counts the spikes among the top level's channels.
        document.tree["n_channels"] = 3


def _complete_spikes(document: Document, phase: str, section: dict[str, Any], other: dict[str, Any]) -> None:
    """Copies missing options of spikes from the other phase, and sets the folder of the spikes."""
    keys = ("datasets", phase)
    for key in SPIKE_KEYS:
        if key in other and key not in section:
            document.put((*keys, key), other[key], ("datasets", OTHER[phase], key))
    root, elsewhere = section.get("dataroot_lq"), str(other.get("dataroot_spike", "")).rstrip("/")
    if "dataroot_spike" in section or not isinstance(root, str):
        return
    if elsewhere.endswith(f"/{OTHER[phase]}"):
        root = elsewhere.removesuffix(OTHER[phase]) + phase
    document.put((*keys, "dataroot_spike"), root, (*keys, "dataroot_lq"))
    document.notices.append(f"{dotted(keys)}.dataroot_spike is not given; spikes are looked for in {root}.")


def _type(section: dict[str, Any]) -> str:
    return str(section.get("dataset_type", "")).lower()


def _flow(document: Document) -> None:
    """Removes `netG.optical_flow`, whose checkpoint was moved to `spynet_path` by `MOVED`."""
    flow = document.find(("netG", "optical_flow"))
    if not isinstance(flow, dict):
        return
    module = flow.get("module", "spynet")
    if module != "spynet":
        _fault(
            document, ("netG", "optical_flow", "module"), f"{module!r} is not part of this repository; choices: spynet"
        )
    document.pop(("netG", "optical_flow"))


def _precision(document: Document) -> None:
    """Translates `train.amp` and `train.compile`, which are sections in foreign files."""
    amp = document.find(("train", "amp"))
    if isinstance(amp, dict):
        document.pop(("train", "amp"))
        kind = amp.get("dtype", "bf16") if amp.get("enable", False) else None
        if kind is not None and kind not in DTYPES:
            _fault(document, ("train", "amp", "dtype"), f"expected one of {', '.join(DTYPES)}, got {kind!r}")
        document.put(("train", "amp_dtype"), DTYPES.get(str(kind)), ("train", "amp"))
    compiled = document.find(("train", "compile"))
    if isinstance(compiled, dict):
        document.put(("train", "compile"), bool(compiled.get("enable", False)), ("train", "compile"))


def _sides(document: Document, keys: Keys) -> None:
    """Translates a crop of [256, 256] to 256."""
    size = document.find((*keys, "gt_size"))
    if isinstance(size, list) and len(size) == 2:
        if size[0] == size[1]:
            document.put((*keys, "gt_size"), size[0], (*keys, "gt_size"))
        else:
            _fault(document, (*keys, "gt_size"), f"{size}: crops are square; give one number")


def _spikes(document: Document, keys: Keys) -> None:
    """Translates the spikes' representation and reconstruction."""
    keys = (*keys, "spike")
    flat = (*keys[:-1], "spike_reconstruction")
    if _has(document, flat):
        value = document.pop(flat)
        older = value if isinstance(value, dict) else {"type": value}
        nested = document.find((*keys, "reconstruction")) or {}
        document.put((*keys, "reconstruction"), {**older, **nested}, flat)
    spike = document.find(keys)
    if not isinstance(spike, dict):
        return
    made_of = spike.pop("reconstruction", None) or {}
    if spike.get("representation") == "raw_window":
        spike["representation"] = "raw"
        for old in ("raw_window_length", "bins"):
            if spike.get(old) is not None:
                document.move((*keys, old), (*keys, "length"))
        return
    spike.pop("raw_window_length", None)
    kind = made_of.get("type")
    if kind is not None and kind != "spikecv_tfp":
        _fault(
            document,
            (*keys, "reconstruction", "type"),
            f"{kind!r} is not part of this repository; choose one of spike.representation",
        )
    elif kind is not None:
        spike.setdefault("representation", "tfp")
        document.notices.append(f'spike.reconstruction "spikecv_tfp" is read as spike.representation "tfp": {BINS}.')
    if made_of.get("num_bins") is not None:
        spike["num_bins"] = made_of["num_bins"]
        document.places[(*keys, "num_bins")] = document.place((*keys, "reconstruction", "num_bins"))
        document.move((*keys, "num_bins"), (*keys, "bins"))


def _has(document: Document, keys: Keys) -> bool:
    section = document.find(keys[:-1])
    return isinstance(section, dict) and keys[-1] in section


def _fault(document: Document, keys: Keys, message: str) -> None:
    document.faults.append(f"{dotted(keys)} ({document.place(keys)}): {message}")
