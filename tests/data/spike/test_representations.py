"""data/spike/representations.py: values by hand, and exactness under crops, flips, transposes and time reversal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.spike.encoding import build_encoding
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.sync import ExposureWindow
from utils.utils_registry import REPRESENTATIONS

EVERY = [
    {"representation": "tfp"},
    {"representation": "tfp", "bins": 7},
    {"representation": "count"},
    {"representation": "halves"},
    {"representation": "centroid"},
    {"representation": "voxel"},
    {"representation": "voxel", "bins": 5, "log1p": False},
    {"representation": "ema"},
    {"representation": "raw", "length": 7},
    {"representation": "interval", "orders": [1, 2, 3], "reach": 9},
    {"representation": "interval"},
    {"representation": "gaussian", "sigma": 2.5},
    {"representation": "contrast", "sigma": 2.5},
    {"representation": "charge", "sigma": 2.5},
    {"representation": "charge", "sigma": 1.5, "reach": 7},
    {"representation": "charge_count"},
    {"representation": "charge_count", "reach": 7},
    {"representation": "guided", "sigmas": [1.5, 4.0], "bins": 5, "reach": 9},
]


def name_of(spike: dict) -> str:
    return "-".join(str(value) for value in spike.values())


def random_block(length: int = 30, h: int = 9, w: int = 11, seed: int = 0) -> np.ndarray:
    """Random spikes with a dark, a saturated and a gradient region."""
    rng = np.random.default_rng(seed)
    rate = np.linspace(0, 0.5, w) * np.ones((h, w))
    spikes = (rng.random((length, h, w)) < rate).astype(np.uint8)
    spikes[:, 0, 1] = 1
    spikes[:, 1, 2] = 0
    return spikes


WINDOW = ExposureWindow(4, 25, 13)


@pytest.mark.parametrize("spike", EVERY, ids=name_of)
def test_shape_and_type(spike: dict) -> None:
    encoding = build_encoding(spike, spike_threshold=2.0)
    result = encoding(random_block(), WINDOW)
    assert result.shape == (encoding.channels, 9, 11) and result.dtype == np.float32 and np.isfinite(result).all()
    assert (
        encoding.channels
        == REPRESENTATIONS.get(spike["representation"])(
            **{key: value for key, value in spike.items() if key != "representation"}
        ).channels
    )


@pytest.mark.parametrize("spike", EVERY, ids=name_of)
@settings(max_examples=15, deadline=None)
@given(top=st.integers(0, 8), left=st.integers(0, 10), seed=st.integers(0, 9))
def test_commutes_with_crops_flips_transposes(spike: dict, top: int, left: int, seed: int) -> None:
    encoding = build_encoding(spike, spike_threshold=2.0, spike_normalize={"mean": 0.3, "std": 0.7})
    spikes = random_block(seed=seed)
    whole = encoding(spikes, WINDOW)
    np.testing.assert_array_equal(encoding(spikes[:, top:, left : left + 5], WINDOW), whole[:, top:, left : left + 5])
    np.testing.assert_array_equal(encoding(spikes[:, ::-1], WINDOW), whole[:, ::-1])
    np.testing.assert_array_equal(encoding(spikes[:, :, ::-1], WINDOW), whole[:, :, ::-1])
    np.testing.assert_array_equal(encoding(spikes.transpose(0, 2, 1), WINDOW), whole.transpose(0, 2, 1))


@pytest.mark.parametrize("spike", EVERY, ids=name_of)
@settings(max_examples=15, deadline=None)
@given(length=st.integers(20, 45), seed=st.integers(0, 9), data=st.data())
def test_time_reversal(spike: dict, length: int, seed: int, data: st.DataObject) -> None:
    """Bins reverse; halves exchanges and negates; centroid negates; interval is later; the others stay."""
    encoding = build_encoding(spike, spike_threshold=2.0)
    center = data.draw(st.integers(7, length - 9))
    window = ExposureWindow(data.draw(st.integers(0, center)), data.draw(st.integers(center + 2, length)), center)
    spikes = random_block(length, seed=seed)
    forward = encoding(spikes, window)
    backward = encoding(spikes[::-1], window.reversed(length))
    name = spike["representation"]
    if name in ("tfp", "voxel", "raw"):
        np.testing.assert_array_equal(backward, forward[::-1])
    elif name == "halves":
        np.testing.assert_array_equal(backward, forward[[1, 0, 2, 3]] * np.float32([1, 1, -1, 1])[:, None, None])
    elif name == "centroid":
        np.testing.assert_array_equal(backward, -forward)
    elif name in ("count", "gaussian", "contrast", "charge", "charge_count"):
        np.testing.assert_array_equal(backward, forward)
    elif name == "interval":
        later = ExposureWindow(window.begin, window.end, center + 1)
        np.testing.assert_array_equal(backward, encoding(spikes, later))


@pytest.mark.parametrize("spike", EVERY, ids=name_of)
@settings(max_examples=20, deadline=None)
@given(length=st.integers(20, 60), data=st.data())
def test_depends_on_its_support_only(spike: dict, length: int, data: st.DataObject) -> None:
    encoding = build_encoding(spike, spike_threshold=2.0)
    center = data.draw(st.integers(3, length - 4))
    window = ExposureWindow(data.draw(st.integers(0, center)), data.draw(st.integers(center + 1, length)), center)
    spikes = random_block(length)
    begin, end = encoding.support(window, length)
    other = spikes.copy()
    other[:begin] ^= 1
    other[end:] ^= 1
    np.testing.assert_array_equal(encoding(other, window), encoding(spikes, window))
    np.testing.assert_array_equal(encoding(spikes[begin:end], window.shifted(-begin)), encoding(spikes, window))


@pytest.mark.parametrize("spike", EVERY, ids=name_of)
def test_brightness_true_ones_read_as_intensity(spike: dict) -> None:
    """Evenly spaced spikes at rate 1/4 with threshold 2 mean an intensity of 1/2.

    Up to the phase's ripple for smooth weights, and for the third-order interval, which does not fit into its reach.
    """
    encoding = build_encoding(spike, spike_threshold=2.0)
    spikes = np.zeros((112, 2, 2), np.uint8)  # whole numbers of spikes in 4 and in 7 bins
    spikes[::4] = 1
    result = encoding(spikes, ExposureWindow(0, 112, 40))
    if not encoding.brightness_true:
        return
    if spike["representation"] == "halves":
        np.testing.assert_array_equal(result[2], 0)
        result = result[[0, 1, 3]]
    if spike["representation"] == "contrast":
        np.testing.assert_array_equal(result[1], result[0] - encode_all(spikes, representation="count")[0])
        result = result[:1]
    tolerance = {"ema": 0.2, "interval": 0.02, "gaussian": 0.01, "contrast": 0.01}.get(spike["representation"], 1e-6)
    np.testing.assert_allclose(result, 0.5, atol=tolerance)


def encode_all(spikes: np.ndarray, **spike: object) -> np.ndarray:
    """The whole block as one exposure, centred at frame 40."""
    return build_encoding(spike, 2.0)(spikes, ExposureWindow(0, len(spikes), 40))


def block_of(*rows: str) -> np.ndarray:
    """One column of pixels, each given as its spikes over time."""
    return np.array([[int(bit) for bit in row] for row in rows], np.uint8).T[:, :, None]


def encode(spikes: np.ndarray, window: ExposureWindow, threshold: float, **spike: object) -> np.ndarray:
    """(channels, pixels)."""
    return build_encoding(spike, threshold)(spikes, window)[:, :, 0]


def test_values_by_hand() -> None:
    spikes = block_of("1100100000", "0000000001")
    whole = ExposureWindow(0, 10, 5)
    np.testing.assert_allclose(encode(spikes, whole, 2.0, representation="tfp", bins=2), [[1.2, 0.0], [0.0, 0.4]])
    np.testing.assert_allclose(encode(spikes, whole, 2.0, representation="count"), [[0.6, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(
        encode(spikes, whole, 1.0, representation="halves"), [[0.6, 0], [0, 0.2], [0.6, -0.2], [0.3, 0.1]], rtol=1e-6
    )
    np.testing.assert_allclose(
        encode(block_of("1100100000", "0000000001", "0000000000"), whole, 2.0, representation="centroid"),
        [[(-9 - 7 - 1) / 30, 0.9, 0]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        encode(spikes, whole, 2.0, representation="voxel", bins=4),
        np.log1p([[2, 0], [1, 0], [0, 0], [0, 1]]),
        rtol=1e-6,
    )
    # Bins of 2.5 frames: the third frame's spike is shared between the first two.
    np.testing.assert_allclose(
        encode(block_of("0010000000"), whole, 2.0, representation="voxel", bins=4, log1p=False)[:, 0], [0.5, 0.5, 0, 0]
    )
    np.testing.assert_array_equal(
        encode(spikes, ExposureWindow(0, 10, 3), 2.0, representation="raw", length=5),
        [[1, 0], [0, 0], [0, 0], [1, 0], [0, 0]],
    )
    np.testing.assert_allclose(
        encode(spikes, ExposureWindow(0, 5, 2), 2.0, representation="tfp", bins=1), [[1.2, 0]], rtol=1e-6
    )


def test_ema_is_a_recursive_filter() -> None:
    """The weighted mean equals the recursion, state = decay x state + spike, normalised, at the exposure's end."""
    spikes = random_block(40)
    decay = math.exp(-1 / 3.0)
    state, norm = np.zeros(spikes.shape[1:]), 0.0
    for frame in spikes[:25]:
        state, norm = decay * state + frame, decay * norm + 1
    result = build_encoding({"representation": "ema", "decays": [3.0]}, 2.0)(spikes, ExposureWindow(5, 25, 9))
    np.testing.assert_allclose(result[0], 2.0 * state / norm, atol=2e-3)


def test_interval_by_hand() -> None:
    """Centre 5: (2k-1) / (k-th spike from 5 on - k-th spike before 5), and what is left where there are fewer."""
    window = ExposureWindow(0, 10, 5)
    spikes = block_of(
        "0101010101",  # spikes at 3, 5: 1/2; at 1, 7: 3/6
        "1000000010",  # 0 and 8; k = 2: all spikes over all frames, 2/10
        "0000010000",  # 5 only: half a spike in half a frame on the one side, none in 5 frames on the other
        "0000000000",  # dark
        "1111111111",  # saturated
        "0000110000",  # a spike at the centre counts as after it: 4, 5
    )
    result = encode(spikes, window, 1.0, representation="interval", orders=[1, 2])
    np.testing.assert_allclose(result[0], [1 / 2, 1 / 8, 0.5 / 5.5, 0, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(result[1], [3 / 6, 2 / 10, 1 / 10, 0, 1, 2 / 10], rtol=1e-6)


def test_interval_at_the_streams_ends() -> None:
    spikes = block_of("0101010101")
    for center in (0, 9):
        result = encode(spikes, ExposureWindow(0, 10, center), 1.0, representation="interval", orders=[1, 2])
        assert ((result > 0) & (result <= 1)).all()
    assert encode(spikes[:1], ExposureWindow(0, 1, 0), 1.0, representation="interval") == 0


def test_interval_over_many_frames() -> None:
    """Counts and times beyond 255: one spike on either side of 300 dark frames; 300 spikes in a row."""
    spikes = np.zeros((600, 2, 1), np.uint8)
    spikes[[0, 599], 0] = 1
    spikes[:, 1] = 1
    result = encode(spikes, ExposureWindow(0, 600, 300), 1.0, representation="interval", orders=[1, 299], reach=300)
    np.testing.assert_allclose(result, [[1 / 599, 1], [2 / 600, 1]], rtol=1e-6)


def test_raw_at_the_streams_ends() -> None:
    spikes = random_block(10)
    window = ExposureWindow(0, 10, 1)
    with pytest.raises(ValueError, match=r"frames \[-1, 4\) around frame 1 extend beyond .* \[0, 10\).*\"shift\""):
        build_encoding({"representation": "raw", "length": 5}, 2.0)(spikes, window)
    shifted = build_encoding({"representation": "raw", "length": 5, "edge": "shift"}, 2.0)
    np.testing.assert_array_equal(shifted(spikes, window), spikes[:5])
    np.testing.assert_array_equal(shifted(spikes, ExposureWindow(0, 10, 9)), spikes[5:])
    np.testing.assert_array_equal(shifted(spikes, ExposureWindow(0, 10, 5)), spikes[3:8])
    with pytest.raises(ValueError, match=r"\[0, 4\); choose a smaller length\."):
        shifted(spikes[:4], ExposureWindow(0, 4, 1))


@pytest.mark.parametrize(
    ("spike", "message"),
    [
        ({"representation": "tfp", "bins": 0}, "tfp: bins is 0; at least 1"),
        ({"representation": "voxel", "bins": -1}, "voxel: bins is -1"),
        ({"representation": "raw", "length": 4}, "raw: length is 4; an odd"),
        ({"representation": "raw", "edge": "wrap"}, "raw: edge is 'wrap'; choices"),
        ({"representation": "interval", "orders": []}, "interval: number of orders is 0"),
        ({"representation": "interval", "orders": [2, 0]}, "interval: orders is 0"),
        ({"representation": "interval", "reach": 0}, "interval: reach is 0"),
        ({"representation": "gaussian", "sigma": 0.0}, "gaussian: sigma is 0"),
        ({"representation": "charge", "sigma": 0.0}, "spike representation charge: sigma is 0"),
        ({"representation": "charge_count", "reach": 0}, "spike representation charge: reach is 0"),
        ({"representation": "ema", "decays": []}, "ema: number of decays is 0"),
        ({"representation": "ema", "decays": [-1.0]}, "ema: decays are"),
        ({"representation": "tpf"}, "no spike representation is called 'tpf'. Did you mean 'tfp'"),
        ({"representation": "tfp", "bin": 4}, "'tfp' has no parameter bin; it has: bins"),
        ({"representation": "count", "bins": 4}, "'count' has no parameter bins; it has: none"),
        ({"bins": 4}, '"representation" is missing; choices: centroid, charge, charge_count, contrast, count'),
    ],
)
def test_faulty_options(spike: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoding(spike, spike_threshold=2.0)


def test_guided_sees_both_sides_of_an_instant_at_the_streams_ends() -> None:
    """A still scene reads as bright at the first instant as at the middle: one-sided intervals would read 1.5 times."""
    light = np.full((56, 24, 24), 0.55)
    spikes = integrate_and_fire(light, 2.0, np.random.default_rng(0))
    encoding = build_encoding({"representation": "guided"}, 2.0)
    for center in (0, 28, 55):
        channels = encoding(spikes, ExposureWindow(0, 56, center))
        assert channels[:-3].mean((1, 2)) == pytest.approx(0.55, abs=0.1)
    assert encoding(spikes, ExposureWindow(0, 56, 0))[-2, 0, 0] == np.float32(0.5 / 56)  # its place is its own
