"""Spikling's npz pairs: its bit layout, round trips, and what is not one."""

import numpy as np
import pytest

from data.spike.spikling_npz import dump_spike_numpy, load_spike_numpy, spike_numpy_shape
from utils.spike_loader import SpikeFormatError


@pytest.mark.parametrize("length", [1, 8, 32, 33])
def test_round_trip_in_spiklings_layout(tmp_path, length: int):
    rng = np.random.default_rng(length)
    seq = rng.integers(0, 2, (length, 3, 5), np.uint8)
    tag = rng.integers(0, 256, (3, 5), np.uint8)
    dump_spike_numpy(tmp_path / "pair.npz", seq.astype(bool), tag)
    loaded, picture = load_spike_numpy(tmp_path / "pair.npz")
    np.testing.assert_array_equal(loaded, seq)
    np.testing.assert_array_equal(picture, tag)
    assert loaded.dtype == picture.dtype == np.uint8
    assert spike_numpy_shape(tmp_path / "pair.npz") == (length, 3, 5)
    stored = np.load(tmp_path / "pair.npz")
    assert int(stored["length"]) == length and len(stored["seq"]) == -(-length // 8)
    for frame in range(length):  # bit i & 7 of seq[i >> 3]
        np.testing.assert_array_equal(stored["seq"][frame >> 3] >> (frame & 7) & 1, seq[frame])


def test_a_file_is_whole_or_not_there(tmp_path):
    seq, tag = np.zeros((8, 2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    for bad_seq, bad_tag in ((seq + 2, tag), (seq[0], tag), (seq, tag[:1]), (seq, tag.astype(float))):
        with pytest.raises(SpikeFormatError, match=r"pair\.npz"):
            dump_spike_numpy(tmp_path / "pair.npz", bad_seq, bad_tag)
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_pair_is_told(tmp_path):
    path = tmp_path / "pair.npz"
    with pytest.raises(SpikeFormatError, match="cannot be read"):
        load_spike_numpy(path)
    path.write_bytes(b"no archive")
    with pytest.raises(SpikeFormatError, match=r"a pair of spikling is an \.npz"):
        load_spike_numpy(path)
    np.savez(path, seq=np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(SpikeFormatError, match=r"a pair of spikling is an \.npz"):
        load_spike_numpy(path)
    np.savez(path, seq=np.zeros((1, 2, 2), np.uint8), tag=np.zeros((2, 2), np.uint8), length=9)
    with pytest.raises(SpikeFormatError, match="are inconsistent"):
        load_spike_numpy(path)


@pytest.mark.parametrize(
    "length", [[8, 8], float("nan"), 20.7, 0, -8, 10**12, "8", True, np.zeros(0, int)], ids=lambda length: str(length)
)
def test_lengths_that_are_no_counts(tmp_path, length):
    path = tmp_path / "pair.npz"
    np.savez(path, seq=np.zeros((1, 2, 2), np.uint8), tag=np.zeros((2, 2), np.uint8), length=length)
    for read in (load_spike_numpy, spike_numpy_shape):
        with pytest.raises(SpikeFormatError, match=r"pair\.npz: length is .*not a count"):
            read(path)
