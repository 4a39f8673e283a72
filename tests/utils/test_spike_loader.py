"""utils/spike_loader.py: the bits, the boxes, the geometry and every fault of a `.dat` file."""

import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.benchmark.bench_spikes import plain_decode
from utils.spike_loader import (
    SpikeFormatError,
    SpikeStream,
    SpikeStreamSimple,
    data_parameter_dict,
    find_geometry,
    find_threshold,
    write_spikes,
)
from utils.user_error import UserError


def random_spikes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, shape, np.uint8)


def test_bit_layout(tmp_path: Path) -> None:
    """Least significant bit first, row-major, rows bottom-up, every frame whole bytes: 3 x 3 pixels are 2 bytes."""
    spikes = np.zeros((2, 3, 3), np.uint8)
    spikes[0, 2, 0] = 1  # bottom left: pixel 0 of the file
    spikes[0, 2, 2] = 1  # pixel 2
    spikes[1, 0, 2] = 1  # top right: pixel 8, first bit of the second byte
    path = tmp_path / "layout.dat"
    write_spikes(path, spikes)
    assert path.read_bytes() == bytes([0b101, 0, 0, 1])
    write_spikes(path, spikes, flipud=False)
    assert path.read_bytes() == bytes([0b01000000, 1, 0b100, 0])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 19), st.integers(1, 35)),
    stored_flipped=st.booleans(),
    seed=st.integers(0, 99),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, shape: tuple, stored_flipped: bool, seed: int) -> None:
    spikes = random_spikes(*shape, seed=seed)
    path = tmp_path_factory.mktemp("round") / "a.dat"
    write_spikes(path, spikes.astype(bool) if seed % 2 else spikes.astype(np.int64), flipud=stored_flipped)
    stream = SpikeStream(path, shape[1], shape[2], flipud=stored_flipped)
    read = stream.get_spike_matrix()
    assert stream.shape == shape and len(stream) == shape[0]
    assert read.dtype == np.uint8 and read.flags.c_contiguous
    np.testing.assert_array_equal(read, spikes)
    np.testing.assert_array_equal(stream.get_spike_matrix(flipud=not stored_flipped), spikes[:, ::-1])
    copy = path.with_name("b.dat")
    write_spikes(copy, read, flipud=stored_flipped)
    assert copy.read_bytes() == path.read_bytes()


@settings(max_examples=80, deadline=None)
@given(data=st.data(), width=st.sampled_from([1, 7, 8, 13, 24, 40]), head_columns=st.sampled_from([0, 3, 16]))
def test_crop_is_a_slice_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, width: int, head_columns: int
) -> None:
    length, height = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 11))
    recorded = random_spikes(length, height, width + head_columns, seed=data.draw(st.integers(0, 99)))
    path = tmp_path_factory.mktemp("crop") / "a.dat"
    write_spikes(path, recorded)
    stream = SpikeStream(path, height, width, head_columns=head_columns)
    spikes = recorded[:, :, :width]
    box = []
    for size in (length, height, width):
        begin = data.draw(st.integers(0, size - 1))
        box.append((begin, data.draw(st.integers(1, size - begin))))
    (begin, frames), (top, h), (left, w) = box
    cut = (slice(begin, begin + frames), slice(top, top + h), slice(left, left + w))
    got = stream.crop(begin, frames, top, left, h, w)
    assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable
    np.testing.assert_array_equal(got, spikes[cut])
    np.testing.assert_array_equal(stream.crop(begin, frames, top, left, h, w, flipud=False), spikes[:, ::-1][cut])
    np.testing.assert_array_equal(stream.get_block_spikes(begin, frames), spikes[begin : begin + frames])


def test_agrees_with_the_plain_decoder(tmp_path: Path) -> None:
    write_spikes(tmp_path / "a.dat", random_spikes(5, 6, 12))
    stream = SpikeStreamSimple(tmp_path / "a.dat", 6, 12)
    np.testing.assert_array_equal(stream.get_spike_matrix(), plain_decode(tmp_path / "a.dat", 6, 12))
    np.testing.assert_array_equal(stream.get_block_spikes(2, 2), plain_decode(tmp_path / "a.dat", 6, 12, 2, 2))


@pytest.mark.parametrize("width", [640, 641])
def test_reads_only_what_is_asked_for(tmp_path: Path, width: int) -> None:
    """A block deep in a (sparse) file of 2 GB costs the memory of the block."""
    path = tmp_path / "large.dat"
    frame_bytes = -(-360 * width // 8)
    with open(path, "wb") as file:
        file.truncate(70_000 * frame_bytes)
    tracemalloc.start()
    stream = SpikeStream(path, 360, width)
    assert stream.crop(69_000, 40, 100, 200, 96, 96).sum() == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(stream) == 70_000 and peak < 40 * 96 * width * 2.5


@pytest.mark.parametrize(
    ("begin", "length", "top", "left", "h", "w", "message"),
    [
        (-1, 1, 0, 0, 1, 1, r"frames \[-1, 0\).*\[0, 5\)"),
        (4, 2, 0, 0, 1, 1, r"frames \[4, 6\).*\[0, 5\)"),
        (0, 0, 0, 0, 1, 1, r"frames \[0, 0\)"),
        (0, 1, 3, 0, 4, 1, r"rows \[3, 7\).*\[0, 6\)"),
        (0, 1, 0, -2, 1, 4, r"columns \[-2, 2\).*\[0, 16\)"),
        (0, 1, 0, 9, 1, 8, r"columns \[9, 17\)"),
    ],
)
def test_out_of_range_is_an_error(
    tmp_path: Path, begin: int, length: int, top: int, left: int, h: int, w: int, message: str
) -> None:
    write_spikes(tmp_path / "a.dat", random_spikes(5, 6, 16))
    stream = SpikeStream(tmp_path / "a.dat", 6, 16)
    with pytest.raises(ValueError, match=rf"a\.dat.*{message}"):
        stream.crop(begin, length, top, left, h, w)
    with pytest.raises(ValueError, match=r"frames \[4, 6\)"):
        stream.get_block_spikes(4, 2)


def test_wrong_size_names_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "000226.dat"
    path.write_bytes(bytes(88 * 28800))
    with pytest.raises(
        SpikeFormatError, match=r"000226\.dat: 2534400 bytes are 202\.75 frames of 250x400.*360x640 \(88"
    ):
        SpikeStream(path, 250, 400)
    path.write_bytes(bytes(88 * 28800 - 1))
    with pytest.raises(SpikeFormatError, match=r"87\.999*|88\.00.*truncated"):
        SpikeStream(path, 360, 640)
    with pytest.raises(SpikeFormatError, match="with 16 head columns"):
        SpikeStream(path, 250, 400, head_columns=16)


def test_geometry_from_the_size(tmp_path: Path) -> None:
    """One known geometry fits: taken. Several, or none: an error that lists them."""
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(301 * 12500))
    assert SpikeStream(path).shape == (301, 250, 400)
    path.write_bytes(bytes(7 * 13000))
    assert SpikeStream(path, head_columns=16).shape == (7, 250, 400)
    path.write_bytes(bytes(88 * 28800))
    with pytest.raises(SpikeFormatError, match=r"360x640 \(88 frames\), 396x640 \(80 frames\), 180x320 \(352 frames\)"):
        SpikeStream(path)
    path.write_bytes(bytes(101))
    with pytest.raises(SpikeFormatError, match="fit: none"):
        SpikeStream(path)


def test_geometry_from_config(tmp_path: Path) -> None:
    """The nearest config.yaml that has the geometry, upwards; what is given explicitly wins."""
    folder = tmp_path / "train" / "clip" / "spike"
    write_spikes(folder / "000000.dat", random_spikes(4, 6, 8))
    (tmp_path / "config.yaml").write_text("spike_h: 6\nspike_w: 8\n")
    (folder / "config.yaml").write_text("filename: nothing about geometry\n")
    assert SpikeStream(folder / "000000").shape == (4, 6, 8)
    assert find_geometry(folder) == (6, 8)
    assert SpikeStream(folder / "000000.dat", 12, 8).shape == (2, 12, 8)
    (folder.parent / "config.yaml").write_text("spike_h: 12\nspike_w: 8\n")
    assert SpikeStream(folder / "000000.dat").shape == (2, 12, 8)
    (folder / "config.yaml").write_text("spike_h: 7\nspike_w: 8\n")
    with pytest.raises(SpikeFormatError, match=r"frames of 7x8.*spike.config\.yaml"):
        SpikeStream(folder / "000000.dat")
    (folder / "config.yaml").write_text("spike_h: '7'\nspike_w: 8\n")
    with pytest.raises(SpikeFormatError, match=r"config\.yaml: spike_h is '7'"):
        SpikeStream(folder / "000000.dat")
    (folder / "config.yaml").write_text("spike_h: [\n")
    with pytest.raises(SpikeFormatError, match=r"config\.yaml: not readable"):
        SpikeStream(folder / "000000.dat")


def test_unusable_files_and_arguments(tmp_path: Path) -> None:
    with pytest.raises(SpikeFormatError, match=r"absent\.dat: no readable spike file"):
        SpikeStream(tmp_path / "absent.dat", 6, 8)
    (tmp_path / "folder.dat").mkdir()
    with pytest.raises(SpikeFormatError, match="no readable spike file"):
        SpikeStream(tmp_path / "folder.dat", 6, 8)
    (tmp_path / "empty.dat").touch()
    with pytest.raises(SpikeFormatError, match=r"empty\.dat: the spike file is empty"):
        SpikeStream(tmp_path / "empty.dat", 6, 8)
    write_spikes(tmp_path / "a.dat", random_spikes(1, 6, 8))
    with pytest.raises(SpikeFormatError, match="both or neither"):
        SpikeStream(tmp_path / "a.dat", spike_h=6)
    with pytest.raises(SpikeFormatError, match=r"0x8.*no picture size"):
        SpikeStream(tmp_path / "a.dat", 0, 8)
    with pytest.raises(SpikeFormatError, match="camera_type='PCIE'"):
        SpikeStream(tmp_path / "a.dat", 6, 8, camera_type="PCIE")


@pytest.mark.parametrize(
    "spikes", [np.full((1, 2, 2), 2), np.full((1, 2, 2), 0.5), np.zeros((2, 2)), np.zeros((0, 2, 2))]
)
def test_write_refuses_what_is_no_spikes(tmp_path: Path, spikes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a\.dat"):
        write_spikes(tmp_path / "a.dat", spikes)
    assert list(tmp_path.iterdir()) == []


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dat"
    write_spikes(path, np.ones((1, 2, 4)))

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_spikes(path, np.zeros((1, 2, 4)))
    assert path.read_bytes() == b"\xff" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def spikecv_set(tmp_path: Path) -> Path:
    """A data set laid out and described as SpikeCV's: spikes and labels in folders named by the identifiers."""
    root = tmp_path / "motVidar"
    for name in ("000", "001"):
        write_spikes(root / "spikes" / "cars" / f"{name}.dat", random_spikes(3, 6, 8, seed=int(name)))
        (root / "labels" / "cars").mkdir(parents=True, exist_ok=True)
        (root / "labels" / "cars" / f"{name}.txt").touch()
    (root / "config.yaml").write_text(
        "filename: motVidar\nspike_w: 8\nspike_h: 6\nis_labeled: true\nlabeled_data_type: [4, 5]\n"
        "labeled_data_suffix: txt\ndata_field_identifier: spikes\nlabel_field_identifier: labels\n"
    )
    return root


def test_data_parameter_dict(spikecv_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spikecv_set / "spikes" / "cars" / "000.dat"
    labels = spikecv_set / "labels" / "cars"
    single = data_parameter_dict(path, "tracking")
    assert single == {
        "filepath": str(path),
        "spike_h": 6,
        "spike_w": 8,
        "filelist": None,
        "labeled_data_type": [4, 5],
        "labeled_data_suffix": "txt",
        "labeled_data_dir": str(labels / "000.txt"),
        "label_root_list": None,
    }
    entire = data_parameter_dict(path.parent, "detection")
    assert entire["filepath"] == str(path) and entire["filelist"] == [str(path), str(path.with_name("001.dat"))]
    assert entire["labeled_data_dir"] == [str(labels / "000.txt"), str(labels / "001.txt")]
    for parameters in (single, entire):
        np.testing.assert_array_equal(SpikeStream(**parameters).get_spike_matrix(), random_spikes(3, 6, 8))
    stream = SpikeStream(offline=True, print_dat_detail=False, **single)
    np.testing.assert_array_equal(stream.get_block_spikes(begin_idx=1, block_len=2), random_spikes(3, 6, 8)[1:])

    monkeypatch.chdir(spikecv_set)
    assert data_parameter_dict("spikes/cars/000", "tracking") == single
    scripts = spikecv_set / "spkExamples"
    (spikecv_set / "spkData").mkdir()
    (spikecv_set / "spkData" / "datasets").symlink_to(spikecv_set.parent)
    scripts.mkdir()
    monkeypatch.chdir(scripts)
    assert data_parameter_dict("motVidar/spikes/cars/000.dat", "tracking") == single


def test_data_parameter_dict_of_an_unlabelled_set(tmp_path: Path) -> None:
    write_spikes(tmp_path / "000000.dat", random_spikes(3, 6, 8))
    (tmp_path / "config.yaml").write_text("spike_h: 6\nspike_w: 8\nis_labeled: false\nlabeled_data_type: [0]\n")
    parameters = data_parameter_dict(tmp_path / "000000.dat", "raw")
    assert set(parameters) == {"filepath", "spike_h", "spike_w", "filelist"}
    assert SpikeStream(**parameters).shape == (3, 6, 8)


def test_data_parameter_dict_faults(spikecv_set: Path) -> None:
    path = spikecv_set / "spikes" / "cars" / "000.dat"
    with pytest.raises(SpikeFormatError, match="'trackin' is unknown; choices: raw, "):
        data_parameter_dict(path, "trackin")
    with pytest.raises(SpikeFormatError, match=r"config\.yaml: the data set has no 'raw' labels"):
        data_parameter_dict(path, "raw")
    with pytest.raises(SpikeFormatError, match=r"002\.dat: no such file or folder"):
        data_parameter_dict(path.with_name("002.dat"), "tracking")
    (spikecv_set / "config.yaml").unlink()
    with pytest.raises(SpikeFormatError, match=r"no config\.yaml with spike_h and spike_w"):
        data_parameter_dict(path, "tracking")


def laplacian_correlation(first: np.ndarray, second: np.ndarray) -> float:
    edges = [cv2.Laplacian(picture.astype(np.float64), cv2.CV_64F)[1:-1, 1:-1].ravel() for picture in (first, second)]
    return float(np.corrcoef(*edges)[0, 1])


def test_gopro_sample(shared_data: Path) -> None:
    """The real file: 88 frames, rate 0.2062, and the picture's edges where they are in the sharp frame.

    Plain correlation reads 0.91 for the wrong bit order; the edges' reads 0.35 and more for the right decoding and
    below 0.03 for every wrong one.
    """
    folder = shared_data / "gopro_spike_sample"
    stream = SpikeStream(folder / "000226.dat", 360, 640)
    assert stream.shape == (88, 360, 640)
    spikes = stream.get_spike_matrix()
    assert spikes.mean() == pytest.approx(0.2062, abs=5e-5)
    gray = cv2.resize(
        cv2.imread(str(folder / "000226.png"), cv2.IMREAD_GRAYSCALE), (640, 360), interpolation=cv2.INTER_AREA
    )
    picture = stream.get_block_spikes(20, 41).mean(axis=0)
    assert laplacian_correlation(picture, gray) > 0.35
    packed = np.fromfile(folder / "000226.dat", np.uint8)[20 * 28800 : 61 * 28800]
    big = np.unpackbits(packed, bitorder="big").reshape(41, 360, 640)[:, ::-1].mean(axis=0)
    for wrong in (picture[::-1], picture[:, ::-1], picture[::-1, ::-1], big):
        assert abs(laplacian_correlation(wrong, gray)) < 0.03


@pytest.mark.parametrize(("line", "expected"), [("", None), ("spike_threshold: 2", 2.0), ("spike_threshold:", None)])
def test_threshold_of_config(tmp_path: Path, line: str, expected: float | None) -> None:
    (tmp_path / "config.yaml").write_text(f"spike_h: 6\nspike_w: 8\n{line}\n")
    (tmp_path / "clip").mkdir()
    assert find_threshold(tmp_path / "clip") == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "true"])
def test_threshold_that_is_none(tmp_path: Path, value: str) -> None:
    (tmp_path / "config.yaml").write_text(f"spike_h: 6\nspike_w: 8\nspike_threshold: {value}\n")
    with pytest.raises(SpikeFormatError, match=r"config\.yaml: spike_threshold"):
        find_threshold(tmp_path)


def test_a_recording_cut_in_its_last_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused with the command that cuts it; read without the incomplete frame where that is asked for."""
    spikes = np.random.default_rng(0).integers(0, 2, (5, 12, 10), np.uint8)
    write_spikes(tmp_path / "cut.dat", spikes)
    content = (tmp_path / "cut.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(content[:-4])
    with pytest.raises(SpikeFormatError, match=r"convert IN OUT --end 4 makes a stream of the whole frames"):
        SpikeStream(tmp_path / "cut.dat", 12, 10)
    stream = SpikeStream(tmp_path / "cut.dat", 12, 10, drop_incomplete=True)
    np.testing.assert_array_equal(stream.get_spike_matrix(), spikes[:4])
    assert "the last of 5 frames is incomplete, 11 of 15 bytes" in caplog.text
    (tmp_path / "cut.dat").write_bytes(content[:14])
    with pytest.raises(SpikeFormatError, match="truncated"):
        SpikeStream(tmp_path / "cut.dat", 12, 10, drop_incomplete=True)


def test_raw_lines_are_not_taken_for_another_camera(tmp_path: Path) -> None:
    (tmp_path / "raw.dat").write_bytes(bytes(8 * 1000 * 1024 // 8))
    with pytest.raises(SpikeFormatError, match=r"256x256 \(125 frames\), the 1000x1000 camera's raw lines"):
        SpikeStream(tmp_path / "raw.dat")
    assert len(SpikeStream(tmp_path / "raw.dat", 256, 256)) == 125


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    """A mapped file would end the process; a data set on a network drive may be rewritten while a training reads."""
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(range(256)) * 40)
    stream = SpikeStream(path, 8, 8)
    entire = stream.get_block_spikes(1000, 2)
    os.truncate(path, 8 * 1001)
    np.testing.assert_array_equal(stream.get_block_spikes(1000, 1), entire[:1])
    with pytest.raises(SpikeFormatError, match=r"a\.dat: shorter than when it was opened, 8 bytes of frames"):
        stream.get_block_spikes(1000, 2)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.dat"):
        stream.get_block_spikes(0, 1)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dat")
    with pytest.raises(SpikeFormatError, match=r"a\.dat: no readable spike file .*a pipe"):
        SpikeStream(tmp_path / "a.dat", 8, 8)
