"""utils/spike_writer.py: a stream in blocks is the stream at once, and a failure leaves nothing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.spike_loader import SpikeStream
from utils.spike_writer import write_spikes, writing_spikes


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 19)),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 11), max_size=3),
    flipud=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_blocks_are_the_stream_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], seed: int, cuts: list[int], flipud: bool
) -> None:
    folder = tmp_path_factory.mktemp("writer")
    spikes = np.random.default_rng(seed).integers(0, 2, shape, np.uint8)
    write_spikes(folder / "whole.dat", spikes, flipud)
    with writing_spikes(folder / "blocks.dat", flipud) as writer:
        for block in np.split(spikes, sorted({cut for cut in cuts if cut < len(spikes)})):
            writer.write(block)
    assert writer.frames == len(spikes)
    assert (folder / "blocks.dat").read_bytes() == (folder / "whole.dat").read_bytes()
    stream = SpikeStream(folder / "blocks.dat", *shape[1:], flipud=flipud)
    np.testing.assert_array_equal(stream.get_spike_matrix(), spikes)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([], "no spike frame"),
        ([np.zeros((2, 3, 8), np.uint8), np.zeros((2, 8, 3), np.uint8)], "one size"),
        ([np.zeros((2, 3, 8), np.uint8), np.full((2, 3, 8), 2)], "0 or 1"),
        ([np.zeros((3, 8), np.uint8)], r"\(T, H, W\)"),
    ],
)
def test_what_is_no_stream_leaves_no_file(tmp_path: Path, blocks: list[np.ndarray], said: str) -> None:
    def write() -> None:
        with writing_spikes(tmp_path / "a.dat") as writer:
            for block in blocks:
                writer.write(block)

    with pytest.raises(ValueError, match=said):
        write()
    assert not list(tmp_path.iterdir())
