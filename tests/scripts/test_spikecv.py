"""scripts/spikecv.py and utils/spike_loader.py: lines of SpikeCV's scripts, with the import changed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from scripts.spikecv import (
    TFSTP,
    SpikeStream,
    SpikeToRaw,
    ToNPYArray,
    ToTorchTensor,
    data_parameter_dict,
    obtain_reconstruction_video,
    obtain_spike_video,
)


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A stream of 6 frames of 8 x 416 with 16 head columns, and its config.yaml."""
    spikes = np.random.default_rng(0).integers(0, 2, (6, 8, 416), np.uint8)
    SpikeToRaw(tmp_path / "car.dat", spikes)
    (tmp_path / "config.yaml").write_text("spike_h: 8\nspike_w: 416\nis_labeled: false\nlabeled_data_type: [0]\n")
    return tmp_path / "car.dat", spikes


def test_reading_with_and_without_the_head(recording: tuple[Path, np.ndarray]) -> None:
    path, spikes = recording
    stream = SpikeStream(offline=True, print_dat_detail=False, **data_parameter_dict(path, "raw"))
    assert (stream.spike_height, stream.spike_width, stream.filename, stream.camera_type) == (8, 416, str(path), 1)
    assert stream.SpikeMatrix is None
    entire = stream.get_spike_matrix(flipud=True, with_head=True)
    np.testing.assert_array_equal(entire, spikes[:, :, :400])
    np.testing.assert_array_equal(stream.SpikeMatrix, entire)
    block = stream.get_block_spikes(begin_idx=2, block_len=3, flipud=False, with_head=True)
    np.testing.assert_array_equal(block, spikes[2:5, ::-1, :400])
    np.testing.assert_array_equal(stream.SpikeMatrix, block)
    np.testing.assert_array_equal(stream.get_file_matrix(True, 2, 3, True), spikes[2:5, :, :400])
    np.testing.assert_array_equal(stream.get_file_matrix(), spikes)
    with pytest.raises(ValueError, match=r"spike_w=416; this one has spike_w=32.*head_columns"):
        SpikeStream(path, 8 * 13, 32).get_block_spikes(0, with_head=True)


def test_arrays_and_tensors() -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (2, 3, 4), np.uint8)[:, ::-1]
    tensor = ToTorchTensor(torch.float16)(spikes)
    assert tensor.dtype == torch.float16 and ToTorchTensor()(tensor).dtype == torch.float32
    array = ToNPYArray()(tensor)
    assert array.dtype == np.float64 and ToNPYArray(bool)(spikes).dtype == bool
    np.testing.assert_array_equal(array, spikes)
    for convert in (ToTorchTensor(), ToNPYArray()):
        with pytest.raises(TypeError, match="not list"):
            convert([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_reconstruction_to_a_video(recording: tuple[Path, np.ndarray], name: str, tmp_path: Path) -> None:
    path, _ = recording
    parameters = data_parameter_dict(path, "raw")
    spikes = SpikeStream(**parameters).get_block_spikes(begin_idx=0, block_len=6)
    images = TFSTP(parameters.get("spike_h"), parameters.get("spike_w"), torch.device("cpu")).spikes2images_offline(
        spikes
    )
    for write, frames in ((obtain_reconstruction_video, images), (obtain_spike_video, spikes)):
        write(frames, str(tmp_path / name), **parameters)
        video = cv2.VideoCapture(str(tmp_path / name))
        assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (6, 8)
    with pytest.raises(ValueError, match="have \\(8, 416\\)"):
        obtain_reconstruction_video(images, tmp_path / name, spike_h=16, spike_w=416)


def test_a_file_that_exists_is_kept_where_asked(recording: tuple[Path, np.ndarray]) -> None:
    path, spikes = recording
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        SpikeToRaw(path, 1 - spikes, delete_if_exists=False)
    assert path.read_bytes() == before
