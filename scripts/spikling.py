"""spikling's functions under spikling's names: its README's lines work with the import changed to this module.

    from scripts.spikling import load_spike_raw, interval_method, transform_interval

    seq = load_spike_raw("raw/operacut.dat")
    transform_interval(seq[:48], 2, "result/operacut-intv.avi")

Interval and window are spikling's bit for bit (data/spike/reconstruction/compat.py says which faults are not kept);
videos have its frames, (length - 32) // stride gray pictures at 30 per second, also as .mp4 and .gif. More methods,
true brightness and streams longer than memory: `python -m scripts.spikes --help`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from data.spike.reconstruction.compat import interval_method, load_spike_raw, window_method
from data.spike.simulation.video import video_to_spike
from data.spike.spikling_npz import dump_spike_numpy, load_spike_numpy
from models.network_spikling import SemiUNet, generate, generate_stream
from models.select_network import load_weights
from scripts.spikes.video import write_video
from utils.user_error import UserError
from utils.utils_checkpoint import write_plain
from utils.utils_progress import track

__all__ = [
    "Generator",
    "dump_spike_numpy",
    "generate",
    "interval_method",
    "load_spike_numpy",
    "load_spike_raw",
    "transform_gen",
    "transform_interval",
    "transform_raw",
    "transform_window",
    "transfrom_window",
    "video_to_spike",
    "window_method",
]

TAIL = 32  # frames at the end of which spikling begins no picture, whatever the window


class Generator(SemiUNet):
    """spikling's network with its `load`."""

    def load(self, path: str | Path) -> "Generator":
        """Loads weights of `main_train_vrt.py --opt options/spikling/train_spikling.json`.

        Raises:
            UserError: no such file, or weights of another network.
        """
        load_weights(self, path)
        return self

    def save(self, path: str | Path) -> None:
        """Writes the weights, with their SHA-256 beside them."""
        write_plain(path, self.state_dict())


def transform_raw(seq: np.ndarray, stride: int, save_path: str | Path) -> None:
    """The spikes themselves as a video, every `stride`-th frame of seq (T, h, w)."""
    _write(save_path, (seq[start].astype(np.uint8) * np.uint8(255) for start in _starts(seq, stride)), seq, stride)


def transform_interval(seq: np.ndarray, stride: int, save_path: str | Path) -> None:
    """`interval_method` of every `stride`-th frame as a video."""
    _write(save_path, (interval_method(seq, start) for start in _starts(seq, stride)), seq, stride)


def transform_window(seq: np.ndarray, window: int, stride: int, save_path: str | Path) -> None:
    """`window_method` over `window` frames from every `stride`-th frame on; at the end over those that exist."""
    pictures = (window_method(seq, start, min(window, len(seq) - start)) for start in _starts(seq, stride))
    _write(save_path, pictures, seq, stride)


def transform_gen(model: nn.Module, seq: np.ndarray, stride: int | str | Path, save_path: str | Path | int) -> None:
    """`generate` from every `stride`-th frame on as a video; spikling's README has the last two the other way round."""
    path, step = (stride, save_path) if isinstance(stride, str | Path) else (save_path, stride)
    assert isinstance(step, int), "one of the two is the stride"
    _write(str(path), generate_stream(model, seq, _starts(seq, step)), seq, step)


transfrom_window = transform_window  # as spikling's README imports it


def _starts(seq: np.ndarray, stride: int) -> range:
    """First spike frames of the pictures.

    Raises:
        UserError: the stream is too short for one picture.
    """
    amount = (len(seq) - TAIL) // stride if stride > 0 else 0
    if amount < 1:
        raise UserError(
            f"{len(seq)} spike frames at stride {stride} give no picture: at least {TAIL} + stride are needed"
        )
    return range(0, amount * stride, stride)


def _write(path: str | Path, pictures: Iterator[np.ndarray], seq: np.ndarray, stride: int) -> None:
    write_video(Path(path), track(pictures, len(_starts(seq, stride)), "transforming", "picture"))
