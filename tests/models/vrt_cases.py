"""Networks and numbers that several VRT tests share: small configurations and the weights of the numeric fixtures."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.network_vrt import VRT

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "vrt"

SMALL: dict[str, Any] = {
    "upscale": 1,
    "img_size": [6, 16, 16],
    "window_size": [6, 8, 8],
    "depths": [2] * 7 + [1] * 2,
    "indep_reconsts": [8],
    "embed_dims": [8] * 7 + [12] * 2,
    "num_heads": [2] * 9,
    "pa_frames": 2,
    "deformable_groups": 4,
}

OFFICIAL_006: dict[str, Any] = {
    "upscale": 1,
    "img_size": [6, 192, 192],
    "window_size": [6, 8, 8],
    "depths": [8] * 7 + [4] * 4,
    "indep_reconsts": [9, 10],
    "embed_dims": [96] * 7 + [120] * 4,
    "num_heads": [6] * 11,
    "pa_frames": 2,
    "deformable_groups": 16,
}
OFFICIAL_001: dict[str, Any] = {
    "upscale": 4,
    "img_size": [6, 64, 64],
    "window_size": [6, 8, 8],
    "depths": [8] * 7 + [4] * 6,
    "indep_reconsts": [11, 12],
    "embed_dims": [120] * 7 + [180] * 6,
    "num_heads": [6] * 13,
    "pa_frames": 2,
    "deformable_groups": 12,
}


def small_vrt(**changes: Any) -> VRT:
    """A small network in evaluation mode with the fixtures' weights (flow and offsets are not zero)."""
    return fill(VRT(**{**SMALL, **changes})).eval()


def fixture_vrt(name: str, dtype: torch.dtype) -> tuple[VRT, dict[str, Any]]:
    """The network of fixture NAME.npz with its weights, and the file's arrays."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return fill(VRT(**json.loads(str(arrays["config"])))).eval().to(dtype), arrays


def key_list(name: str) -> dict[str, list[int]]:
    """Key to shape, from NAME.keys.json."""
    return json.loads((FIXTURES / f"{name}.keys.json").read_text())


def fill(network: nn.Module) -> Any:
    """Sets every weight from its name, as the fixtures' makers did."""
    state = {}
    for key, value in network.state_dict().items():
        constant = key.endswith(("relative_position_index", "position_bias")) or key in ("spynet.mean", "spynet.std")
        state[key] = value if constant else torch.from_numpy(_weight(key, tuple(value.shape)))
    network.load_state_dict(state, strict=True)
    return network


def _weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    value: Any = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("relative_position_bias_table"):
        value = 0.5 * value
    elif len(shape) == 1:
        value = 1 + 0.1 * value if key.endswith("weight") else 0.05 * value
    else:
        # A float64 scalar: the division, and what follows, is in float64, as it was for the stored outputs.
        value = value / np.sqrt(np.prod(shape[1:]))
    if key.startswith("spynet.") and ".basic_module.8." in key:
        level = int(key.split(".")[2])
        if key.endswith("weight"):
            value = value * 0.05 * 2.0 ** (level - 5)
        else:
            value = np.array({2: (0.3, -0.2), 5: (0.0, -0.05)}.get(level, (0.0, 0.0)))
    if "conv_offset.6" in key:
        value = 0.05 * value
    halved = ("attn.proj.", "mlp.fc2.", "linear1.", "linear2.", ".linear.", "pa_fuse.fc2.", "conv_last.")
    if len(shape) > 1 and any(part in key for part in halved):
        value = 0.5 * value
    return np.asarray(value, dtype=np.float32)
