"""data/spike/simulation/video.py: streams and spikling's pairs from videos, frame by frame."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data.spike.simulation.presets import PRESETS
from data.spike.simulation.simulate import IntegrateAndFire
from data.spike.simulation.video import spike_frames, video_to_spike, write_frames
from data.spike.spikling_npz import load_spike_numpy
from utils.spike_loader import SpikeStream, find_threshold
from utils.spike_writer import write_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """22 gray frames of 24x40, as a folder of pictures."""
    path = tmp_path / "frames"
    path.mkdir()
    for index in range(22):
        gray = np.random.default_rng(index).integers(0, 256, (24, 40), np.uint8)
        cv2.imwrite(str(path / f"{index:03d}.png"), gray)
    return path


def test_pairs_are_what_spiklings_sensor_gives(folder: Path, tmp_path: Path) -> None:
    pattern = str(tmp_path / "out" / "sp{:04d}.npz")
    assert video_to_spike(folder, (24, 24), 8, pattern) == 2
    gray = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.iterdir())])[:, :, 8:32]
    pairs = [load_spike_numpy(pattern.format(number)) for number in (1, 2)]
    for index, (spikes, tag) in enumerate(pairs):
        assert spikes.shape == (8, 24, 24)
        np.testing.assert_array_equal(tag, gray[8 * index + 4])
    spikes = np.concatenate([spikes for spikes, _ in pairs]).astype(np.int64)
    error = np.abs(255 * spikes.sum(axis=0) - gray[:16].astype(np.int64).sum(axis=0))
    assert error.max() <= 255  # the sensor runs on from one pair to the next
    assert len(np.unique(spikes[0])) == 2  # and starts out of step


def test_further_videos_get_further_numbers(folder: Path, tmp_path: Path) -> None:
    pattern = str(tmp_path / "sp{:04d}.npz")
    first = (video_to_spike(folder, (24, 24), 8, pattern), (tmp_path / "sp0001.npz").read_bytes())
    assert video_to_spike(folder, (24, 24), 8, pattern) == first[0]
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == [f"sp000{number}.npz" for number in (1, 2, 3, 4)]
    assert (tmp_path / "sp0001.npz").read_bytes() == first[1]


def test_bad_videos_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path, window, out, said in (
        (broken, 8, "sp{}.npz", "cannot be decoded"),
        (tmp_path / "none.mp4", 8, "sp{}.npz", "no such video"),
        (folder, 23, "sp{}.npz", "22 frames are fewer"),
        (folder, 8, "sp.npz", "a name like"),
        (folder, 8, "sp{}.dat", "a name like"),
        (folder, 0, "sp{}.npz", "window 0"),
    ):
        with pytest.raises(ValueError, match=said):
            video_to_spike(path, (24, 24), window, tmp_path / out)
    assert not list(tmp_path.glob("*.npz"))


def test_a_stream_is_written_frame_by_frame(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (30, 4, 6), np.uint8)
    frames = (np.repeat(frame[..., None], 3, axis=2) for frame in gray)
    taken: list[int] = []

    def counted() -> object:
        for index, frame in enumerate(frames):
            taken.append(index)
            yield frame

    spikes = spike_frames(counted(), lambda size: PRESETS["spikling"].sensor(size, np.random.default_rng(3)))  # type: ignore[arg-type]
    next(spikes)
    assert taken == [0]
    assert write_frames(tmp_path / "a.dat", spikes) == 29
    expected = PRESETS["spikling"].sensor((4, 6), np.random.default_rng(3)).step(gray)
    np.testing.assert_array_equal(SpikeStream(tmp_path / "a.dat", 4, 6).get_spike_matrix(), expected[1:])


def test_the_spike_picture_is_smaller_by_the_ratio() -> None:
    frames = [np.full((4, 8, 3), 128, np.uint8)] * 4
    sizes: list[tuple[int, int]] = []

    def make(size: tuple[int, int]) -> IntegrateAndFire:
        sizes.append(size)
        return IntegrateAndFire(size)

    assert [frame.shape for frame in spike_frames(frames, make, 2)] == [(2, 4)] * 4 and sizes == [(2, 4)]


def test_config_is_spikecvs(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", 250, 400, 2.0)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (content["spike_h"], content["spike_w"], content["is_labeled"]) == (250, 400, False)
    assert content["labeled_data_type"] == [0]
    assert find_threshold(tmp_path) == 2.0
    write_config(tmp_path / "config.yaml", 250, 400)
    assert find_threshold(tmp_path) is None
