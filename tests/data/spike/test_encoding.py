"""data/spike/encoding.py: crops read from a stream, hot pixels, normalisation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.encoding import SpikeEncoding, build_encoding
from data.spike.representations import PlaybackBins
from data.spike.sync import ExposureWindow
from utils.spike_loader import SpikeStream, write_spikes

WINDOW = ExposureWindow(6, 30, 20)
HOT = [(0, 0), (3, 4), (3, 5), (8, 12), (5, 0)]  # corner, a pair, the other corner, an edge


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> SpikeStream:
    spikes = (np.random.default_rng(1).random((40, 9, 13)) < 0.3).astype(np.uint8)
    for row, column in HOT:
        spikes[:, row, column] = 1
    path = tmp_path_factory.mktemp("encoding") / "a.dat"
    write_spikes(path, spikes)
    return SpikeStream(path, 9, 13)


@settings(max_examples=60, deadline=None)
@given(
    spike=st.sampled_from(
        [
            {"representation": "tfp"},
            {"representation": "voxel"},
            {"representation": "raw", "length": 11},
            {"representation": "interval", "reach": 8},
            {"representation": "ema", "decays": [2.0]},
            {"representation": "gaussian", "sigma": 3.0},
        ]
    ),
    hot=st.booleans(),
    time_reversed=st.booleans(),
    data=st.data(),
)
def test_crop_of_a_stream_equals_the_whole(
    stream: SpikeStream, spike: dict, hot: bool, time_reversed: bool, data: st.DataObject
) -> None:
    """Exactly, hot pixels on and beside the crop's border included."""
    encoding = build_encoding(spike, 2.0, {"mean": 0.3, "std": 0.2}, hot_pixel_filter=hot)
    top, left = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 12))
    h, w = data.draw(st.integers(1, 9 - top)), data.draw(st.integers(1, 13 - left))
    spikes, window = stream.get_spike_matrix(), WINDOW
    if time_reversed:
        spikes, window = spikes[::-1], WINDOW.reversed(len(stream))
    entire = encoding(spikes, window)
    crop = encoding.encode_crop(stream, WINDOW, top, left, h, w, time_reversed=time_reversed)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, entire[:, top : top + h, left : left + w])


def test_hot_pixels_become_their_neighbours_median(stream: SpikeStream) -> None:
    spikes = stream.get_spike_matrix()
    plain = build_encoding({"representation": "tfp"}, 2.0)(spikes, WINDOW)
    filtered = build_encoding({"representation": "tfp"}, 2.0, hot_pixel_filter=True)(spikes, WINDOW)
    for row, column in HOT:
        for channel in range(4):
            around = [
                plain[channel, r, c]
                for r in range(max(0, row - 1), min(9, row + 2))
                for c in range(max(0, column - 1), min(13, column + 2))
                if (r, c) != (row, column)
            ]
            assert filtered[channel, row, column] == np.median(around)
    cold = np.ones((9, 13), bool)
    cold[tuple(np.transpose(HOT))] = False
    np.testing.assert_array_equal(filtered[:, cold], plain[:, cold])


@pytest.mark.parametrize("spike", [{"representation": "voxel"}, {"representation": "interval"}])
def test_hot_pixel_filter_commutes_with_flips_and_transposes(stream: SpikeStream, spike: dict) -> None:
    encoding = build_encoding(spike, 2.0, hot_pixel_filter=0.9)
    spikes = stream.get_spike_matrix()
    entire = encoding(spikes, WINDOW)
    np.testing.assert_array_equal(encoding(spikes[:, ::-1, ::-1], WINDOW), entire[:, ::-1, ::-1])
    np.testing.assert_array_equal(encoding(spikes.transpose(0, 2, 1), WINDOW), entire.transpose(0, 2, 1))


def test_hot_pixel_filter_leaves_a_saturated_area_alone() -> None:
    spikes = np.zeros((10, 8, 8), np.uint8)
    spikes[:, :, 4:] = 1
    window = ExposureWindow(0, 10, 5)
    for hot in (False, True):
        result = build_encoding({"representation": "count"}, 1.0, hot_pixel_filter=hot)(spikes, window)
        np.testing.assert_array_equal(result[0], spikes[0])
    single = np.ones((10, 1, 1), np.uint8)
    assert build_encoding({"representation": "count"}, 1.0, hot_pixel_filter=True)(single, window) == 1


def test_normalisation(stream: SpikeStream) -> None:
    spikes = stream.get_spike_matrix()
    plain = build_encoding({"representation": "tfp"}, 2.0)
    entire = build_encoding({"representation": "tfp"}, 2.0, {"mean": 0.5, "std": 0.25})
    each = build_encoding({"representation": "tfp"}, 2.0, {"mean": [0.1, 0.2, 0.3, 0.4], "std": [1, 2, 3, 4]})
    expected = plain(spikes, WINDOW)
    np.testing.assert_allclose(entire(spikes, WINDOW), (expected - 0.5) / 0.25, rtol=1e-6, atol=1e-6)
    mean, std = np.float32([0.1, 0.2, 0.3, 0.4]), np.float32([1, 2, 3, 4])
    np.testing.assert_array_equal(each(spikes, WINDOW), (expected - mean[:, None, None]) / std[:, None, None])
    assert plain.brightness_true and not entire.brightness_true


def test_bool_spikes_and_untouched_input(stream: SpikeStream) -> None:
    spikes = stream.get_spike_matrix()
    before = spikes.copy()
    for name in ("tfp", "raw", "voxel", "interval"):
        spike = {"representation": name} | ({"length": 11} if name == "raw" else {})
        encoding = build_encoding(spike, 2.0, {"mean": 1.0, "std": 2.0})
        np.testing.assert_array_equal(encoding(spikes.astype(bool), WINDOW), encoding(spikes, WINDOW))
    np.testing.assert_array_equal(spikes, before)


def test_faults(stream: SpikeStream) -> None:
    encoding = build_encoding({"representation": "tfp"}, 2.0)
    with pytest.raises(ValueError, match=r"a\.dat: exposure \[6, 41\) lies outside the stream.*\[0, 40\)"):
        encoding.encode_crop(stream, ExposureWindow(6, 41, 20), 0, 0, 2, 2)
    with pytest.raises(ValueError, match=r"a\.dat: rows \[8, 10\)"):
        encoding.encode_crop(stream, WINDOW, 8, 0, 2, 2)
    with pytest.raises(ValueError, match=r"a\.dat: a crop of 0x2"):
        build_encoding({"representation": "tfp"}, 2.0, hot_pixel_filter=True).encode_crop(stream, WINDOW, 3, 3, 0, 2)
    with pytest.raises(ValueError, match=r"float64 of shape .* uint8 or bool is needed"):
        encoding(np.zeros((40, 2, 2)), WINDOW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "spike_threshold: .*; got 0"),
        ({"threshold": float("nan")}, "spike_threshold: .*; got nan"),
        ({"hot_rate": 1.5}, "hot_pixel_filter is 1.5"),
        ({"normalize": {"mean": 0}}, r'spike_normalize has \[\'mean\'\]; "mean" and "std"'),
        ({"normalize": {"mean": 0, "std": 0}}, "numbers above 0"),
        ({"normalize": {"mean": [0, 1], "std": 1}}, r"spike_normalize.mean is \[0, 1\]; one number, or 4"),
    ],
)
def test_faulty_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikeEncoding(PlaybackBins(), **{"threshold": 2.0, **arguments})


def test_a_hot_rate_of_one_replaces_pixels_that_always_fire() -> None:
    spikes = np.zeros((4, 3, 3), np.uint8)
    spikes[:, 1, 1], spikes[1:, 0, 0] = 1, 1
    filtered = build_encoding({"representation": "count"}, 1.0, hot_pixel_filter=1.0)(spikes, ExposureWindow(0, 4, 2))
    assert filtered[0, 1, 1] == 0 and filtered[0, 0, 0] == 0.75
