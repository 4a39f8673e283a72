"""Reads config.yaml, SpikeCV's description of a data set, which lies beside or above spike streams.

    data_parameter_dict("GOPRO_Large_spike_seq/train/GOPR0884_11_00/spike/000226.dat", "raw")
    find_geometry("GOPRO_Large_spike_seq/train")        # (360, 640)

These names can be imported from `utils/spike_loader.py` too.
"""

import os
from pathlib import Path
from typing import Any

from utils.user_error import UserError
from utils.utils_file import list_folder, read_yaml

LABEL_DATA_TYPE = {  # SpikeCV's names and numbers of the kinds of labels, its spelling included
    "raw": 0,
    "reconstruction": 1,
    "optical_flow": 2,
    "mono_depth_estimation": 3.1,
    "stero_depth_estimation": 3.2,
    "detection": 4,
    "tracking": 5,
    "recognition": 6,
    "bayer": 7,
}

SPIKECV_DATASETS = Path("..", "spkData", "datasets")  # where SpikeCV's own scripts look for a relative name


class SpikeFormatError(UserError):
    """A spike file or its description is invalid; the message names the file and the remedy."""


def data_parameter_dict(data_filename: str | Path, label_type: str = "raw") -> dict[str, Any]:
    """SpikeCV's description of a file, from its data set's config.yaml; `SpikeStream(**it)` opens the file.

    Args:
        data_filename: a `.dat` file (with or without the suffix) or a folder of them, absolute or relative to the
            working directory, else to SpikeCV's ../spkData/datasets. For a folder, `filepath` is its first file by
            name.
        label_type: kind of labels, one of LABEL_DATA_TYPE; config.yaml must list it.

    Returns:
        `filepath, spike_h, spike_w, filelist` (None for a single file), and for a labelled data set also
        `labeled_data_type, labeled_data_suffix, labeled_data_dir` (the label's file, or all of a folder) and
        `label_root_list` (the folder of the labels, None for a single file). In label paths `data_field_identifier` is
        replaced by `label_field_identifier` if config.yaml has both.

    Raises:
        SpikeFormatError: no such file, no config.yaml with the geometry, or a label type that is unknown or not in the
            data set.
    """
    if label_type not in LABEL_DATA_TYPE:
        raise SpikeFormatError(f"label type {label_type!r} is unknown; choices: {', '.join(LABEL_DATA_TYPE)}.")
    path = _existing_path(Path(data_filename))
    found = nearest_config(path if path.is_dir() else path.parent)
    if found is None:
        raise SpikeFormatError(
            f"{path}: no config.yaml with spike_h and spike_w in its folder or above; write one (two lines), or give "
            "spike_h and spike_w to SpikeStream."
        )
    config_path, config = found
    if LABEL_DATA_TYPE[label_type] not in (config.get("labeled_data_type") or [0]):
        raise SpikeFormatError(
            f"{config_path}: the data set has no {label_type!r} labels (number {LABEL_DATA_TYPE[label_type]}); its "
            f"labeled_data_type is {config['labeled_data_type']}."
        )
    files = list_folder(path, (".dat",)) if path.is_dir() else [path]
    if not files:
        raise SpikeFormatError(f"{path}: the folder has no .dat file.")
    parameters: dict[str, Any] = {
        "filepath": str(files[0]),
        "spike_h": config["spike_h"],
        "spike_w": config["spike_w"],
        "filelist": [str(file) for file in files] if path.is_dir() else None,
    }
    if config.get("is_labeled"):
        parameters |= _label_parameters(path, config_path, config)
    return parameters


def find_geometry(folder: str | Path) -> tuple[int, int] | None:
    """(spike_h, spike_w) from the nearest config.yaml in `folder` or above it; None without one."""
    found = nearest_config(Path(folder))
    return None if found is None else (found[1]["spike_h"], found[1]["spike_w"])


def find_threshold(folder: str | Path) -> float | None:
    """spike_threshold (intensity = firing rate x threshold) from the nearest config.yaml in `folder` or above it; None
    without one.

    Raises:
        SpikeFormatError: the value is not a number above 0.
    """
    found = nearest_config(Path(folder))
    value = None if found is None else found[1].get("spike_threshold")
    if found is None or value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise SpikeFormatError(f"{found[0]}: spike_threshold is {value!r}; a number above 0 is needed.")
    return float(value)


def nearest_config(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Path and content of the nearest config.yaml with spike_h and spike_w, in `folder` or above."""
    folder = folder.resolve()
    for place in (folder, *folder.parents):
        path = place / "config.yaml"
        if not os.path.lexists(path):  # a broken link counts as a file, so that reading it reports the fault
            continue
        try:
            config = read_yaml(path)
        except UserError as fault:
            raise SpikeFormatError(str(fault)) from fault
        if isinstance(config, dict) and "spike_h" in config and "spike_w" in config:
            for key in ("spike_h", "spike_w"):
                if type(config[key]) is not int:
                    raise SpikeFormatError(f"{path}: {key} is {config[key]!r}; a whole number of pixels is needed.")
            return path, config
    return None


def _existing_path(path: Path) -> Path:
    """The first existing one of `path`, `path` with ".dat" added, and both below SpikeCV's data sets."""
    tried = [path, path.with_name(path.name + ".dat")]
    if not path.is_absolute():
        tried += [SPIKECV_DATASETS / candidate for candidate in tried]
    for candidate in tried:
        if candidate.exists():
            return candidate.resolve()
    raise SpikeFormatError(f"{path}: no such file or folder; looked for {', '.join(map(str, tried))}.")


def _label_parameters(path: Path, config_path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The label entries of data_parameter_dict, for one file or a folder."""
    suffix = config.get("labeled_data_suffix")
    if not suffix:
        raise SpikeFormatError(f"{config_path}: is_labeled is true but labeled_data_suffix is missing.")
    data_part, label_part = config.get("data_field_identifier"), config.get("label_field_identifier")
    root = config_path.parent
    pieces = [p.replace(data_part, label_part) if data_part and label_part else p for p in path.relative_to(root).parts]
    labels = root.joinpath(*pieces)
    single = path.is_file()
    return {
        "labeled_data_type": config["labeled_data_type"],
        "labeled_data_suffix": suffix,
        "labeled_data_dir": str(labels.with_suffix(f".{suffix}"))
        if single
        else [str(label) for label in list_folder(labels, (f".{suffix}".lower(),))]
        if labels.is_dir()
        else [],
        "label_root_list": None if single else str(labels),
    }
