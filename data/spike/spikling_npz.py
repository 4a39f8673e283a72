"""Spikling's `.npz` pairs: L spike frames and the picture at their middle.

    seq     uint8 (ceil(L/8), H, W)   spikes packed along time: frame i is bit i & 7, least significant first, of
                                      seq[i >> 3]
    tag     uint8 (H, W)              gray picture at frame L // 2
    length  int                       L

    dump_spike_numpy("pair.npz", seq, tag);  seq, tag = load_spike_numpy("pair.npz")

Format and names: github.com/lshpku/spikling, `utils.py`.
"""

from pathlib import Path

import numpy as np

from utils.numpy_files import read_npz
from utils.spike_loader import SpikeFormatError
from utils.user_error import UserError
from utils.utils_file import atomic_write

MOST_FRAMES = 1 << 31  # of a pair: a count beyond 32 bits is damage


def load_spike_numpy(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The spikes (L, H, W) uint8 0/1 and the picture (H, W) uint8 of a pair.

    Raises:
        SpikeFormatError: no such file, not an .npz, or arrays of inconsistent shapes.
    """
    packed, tag, length = _load(path, "seq", "tag", "length")
    frames = int(length.item())
    fits = packed.ndim == 3 and packed.dtype == tag.dtype == np.uint8 and packed.shape[1:] == tag.shape
    if not fits or packed.size == 0 or len(packed) != -(-frames // 8):
        raise SpikeFormatError(
            f"{path}: seq {packed.dtype} {packed.shape}, tag {tag.dtype} {tag.shape} and length {frames} are "
            f"inconsistent; seq uint8 (ceil(length/8), H, W) and tag uint8 (H, W) are needed"
        )
    return np.unpackbits(packed, axis=0, count=frames, bitorder="little"), tag


def spike_numpy_shape(path: str | Path) -> tuple[int, int, int]:
    """(L, H, W) of a pair, without reading its spikes; raises as `load_spike_numpy` does."""
    tag, length = _load(path, "tag", "length")
    if tag.ndim != 2 or tag.size == 0:
        raise SpikeFormatError(f"{path}: tag is {tag.dtype} {tag.shape}, not a picture (H, W)")
    return int(length.item()), *tag.shape


def dump_spike_numpy(path: str | Path, seq: np.ndarray, tag: np.ndarray) -> None:
    """Writes a pair, completely or not at all.

    Args:
        seq: (L, H, W) spikes, bool or integers 0/1.
        tag: (H, W) uint8.

    Raises:
        SpikeFormatError: another shape or type, or a value other than 0 and 1.
    """
    seq, tag = np.asarray(seq), np.asarray(tag)
    if seq.ndim != 3 or seq.size == 0 or tag.dtype != np.uint8 or tag.shape != seq.shape[1:]:
        raise SpikeFormatError(
            f"{path}: seq {seq.dtype} {seq.shape} and tag {tag.dtype} {tag.shape}; spikes (L, H, W) and a picture "
            f"uint8 (H, W) are needed"
        )
    if not ((seq == 0) | (seq == 1)).all():
        raise SpikeFormatError(f"{path}: spikes must be 0 or 1, found values from {seq.min()} to {seq.max()}.")
    packed = np.packbits(seq.astype(np.bool_), axis=0, bitorder="little")
    with atomic_write(path, "wb") as file:
        np.savez(file, seq=packed, tag=tag, length=len(seq))


def _load(path: str | Path, *names: str) -> list[np.ndarray]:
    """The arrays `names` of a pair; the last name is `length`."""
    try:
        arrays = read_npz(path, names)
    except UserError as error:
        raise SpikeFormatError(f"{error}; a pair of spikling is an .npz with seq, tag and length") from error
    length = arrays["length"]
    if length.size != 1 or length.dtype.kind not in "iu" or not 1 <= int(length.item()) <= MOST_FRAMES:
        raise SpikeFormatError(f"{path}: length is {length.dtype} {np.array2string(length, threshold=4)}, not a count")
    return [arrays[name] for name in names]
