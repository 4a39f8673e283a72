"""Perturbed spikes: what each kind does, exactly; crops, seeds, and the option of test data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.spike.encoding import build_encoding
from data.spike.perturb import Perturbation, PerturbedStream, build_perturbation
from data.spike.simulation.simulate import integrate_and_fire
from data.spike.sync import ExposureWindow
from tests.data.trees import make_gopro_tree
from utils.spike_loader import SpikeStream, write_spikes

SHAPE = (12, 6, 20)
SECTIONS: list[dict[str, Any]] = [
    {"kind": "zero"},
    {"kind": "shuffle"},
    {"kind": "shift", "amount": 5},
    {"kind": "drop", "amount": 0.5},
    {"kind": "noise", "amount": 0.1},
    {"kind": "threshold", "amount": 3},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_spikes(tmp_path / "a.dat", np.random.default_rng(1).random(SHAPE) < 0.4)
    return tmp_path / "a.dat"


def perturbed(path: Path, section: dict[str, Any], name: str = "clip/a") -> PerturbedStream:
    perturbation = build_perturbation(section)
    assert perturbation is not None
    return PerturbedStream(perturbation, name, path, *SHAPE[1:])


def intact(path: Path) -> np.ndarray:
    return SpikeStream(path, *SHAPE[1:]).get_spike_matrix()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["kind"])
def test_every_way_of_reading_gives_the_same_spikes(path: Path, section: dict[str, Any]) -> None:
    stream = perturbed(path, section)
    whole = stream.get_spike_matrix()
    assert whole.shape == SHAPE and whole.dtype == np.uint8 and whole.max() <= 1
    assert np.array_equal(stream.crop(3, 7, 1, 9, 4, 10), whole[3:10, 1:5, 9:19])
    assert np.array_equal(stream.get_block_spikes(2, 5, flipud=False), whole[2:7, ::-1])
    assert np.array_equal(perturbed(path, section).get_spike_matrix(), whole)


def test_zero_shift_and_shuffle(path: Path) -> None:
    spikes = intact(path)
    assert not perturbed(path, {"kind": "zero"}).get_spike_matrix().any()
    for amount in (0, 4, -3, 12):
        shifted = perturbed(path, {"kind": "shift", "amount": amount}).get_spike_matrix()
        assert np.array_equal(shifted, np.roll(spikes, amount, axis=0))
    shuffled = perturbed(path, {"kind": "shuffle"}).get_spike_matrix()
    assert not np.array_equal(shuffled, spikes)
    assert sorted(frame.tobytes() for frame in shuffled) == sorted(frame.tobytes() for frame in spikes)


@pytest.mark.parametrize("amount", [0, 0.25, 1])
def test_drop_only_removes_and_noise_only_adds(tmp_path: Path, amount: float) -> None:
    shape = (40, 50, 64)
    spikes = (np.random.default_rng(2).random(shape) < 0.5).astype(np.uint8)
    write_spikes(tmp_path / "b.dat", spikes)
    for kind, candidates in (("drop", spikes == 1), ("noise", spikes == 0)):
        stream = PerturbedStream(Perturbation(kind, amount), "b", tmp_path / "b.dat", *shape[1:])
        changed = stream.get_spike_matrix() != spikes
        assert not changed[~candidates].any()
        # Four standard deviations of a share of 64 000 draws; 0 and 1 are exact.
        assert abs(changed[candidates].mean() - amount) <= 4 * np.sqrt(amount * (1 - amount) / candidates.sum())


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_threshold_is_the_camera_of_that_threshold(tmp_path: Path, factor: int) -> None:
    """The thinned spikes are those that a pixel of the higher threshold fires from the same light, spike for spike."""
    rng = np.random.default_rng(3)
    # Multiples of 1/64: sums are exact, so that neither camera rounds.
    light, start = rng.integers(0, 65, (300, 4, 8)) / 64, rng.integers(0, 128, (4, 8)) / 64
    write_spikes(tmp_path / "c.dat", integrate_and_fire(light, 2.0, start))
    thinned = PerturbedStream(Perturbation("threshold", factor), "c", tmp_path / "c.dat", 4, 8).get_spike_matrix()
    matching = np.zeros((4, 8), bool)
    for charge in range(factor):
        matching |= (integrate_and_fire(light, 2.0 * factor, start + 2.0 * charge) == thinned).all(axis=0)
    assert matching.all() and 60 < thinned.sum(axis=0).mean() * factor < 90
    later = PerturbedStream(Perturbation("threshold", factor), "c", tmp_path / "c.dat", 4, 8).crop(280, 9, 1, 2, 2, 3)
    assert np.array_equal(later, thinned[280:289, 1:3, 2:5])


def test_pixels_of_a_higher_threshold_are_out_of_step(tmp_path: Path) -> None:
    write_spikes(tmp_path / "d.dat", np.ones((4, 40, 64), bool))
    stream = PerturbedStream(Perturbation("threshold", 4), "d", tmp_path / "d.dat", 40, 64)
    thinned = stream.get_spike_matrix()
    assert (thinned.sum(axis=0) == 1).all()
    assert abs(thinned.mean(axis=(1, 2)) - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 2560)


def test_chance_depends_on_seed_stream_and_frame(path: Path) -> None:
    for kind, amount in (("drop", 0.5), ("noise", 0.5), ("shuffle", None), ("threshold", 2)):
        section = {"kind": kind} if amount is None else {"kind": kind, "amount": amount}
        first = perturbed(path, section).get_spike_matrix()
        assert not np.array_equal(first, perturbed(path, {**section, "seed": 1}).get_spike_matrix())
        assert not np.array_equal(first, perturbed(path, section, name="clip/b").get_spike_matrix())
    write_spikes(path, np.ones(SHAPE, bool))
    frames = perturbed(path, {"kind": "drop", "amount": 0.5}).get_spike_matrix()
    assert len({frame.tobytes() for frame in frames}) == SHAPE[0]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "kind ''; choices: drop, noise, shift, shuffle, threshold, zero"),
        ({"kind": "blur"}, "kind 'blur'; choices"),
        ({"kind": "shift"}, "shift needs an amount"),
        ({"kind": "shift", "amount": 1.5}, "whole number of spike frames"),
        ({"kind": "drop", "amount": 1.5}, r"a probability in \[0, 1\]"),
        ({"kind": "noise", "amount": True}, "noise needs an amount"),
        ({"kind": "threshold"}, "threshold needs an amount"),
        ({"kind": "threshold", "amount": 1.5}, "threshold times 1.5; from recorded spikes, .* a whole multiple"),
        ({"kind": "threshold", "amount": 0.5}, "threshold times 0.5"),
        ({"kind": "zero", "amount": 1}, "zero takes no amount"),
        ({"kind": "zero", "frames": 1}, "unknown frames; it has kind, amount and seed"),
        ({"kind": "zero", "seed": -1}, "seed is -1"),
    ],
)
def test_mistakes(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"spike_perturb: .*{message}"):
        build_perturbation(section)


@pytest.mark.parametrize("mode", ["concat", "dual"])
def test_a_test_set_encodes_the_perturbed_spikes(tmp_path: Path, mode: str) -> None:
    tree = make_gopro_tree(tmp_path, clips=1, frames=2)
    spike = {"representation": "tfp", "bins": 4}
    options: dict[str, Any] = {**tree.roots, "spike": spike, "input_pack_mode": mode}
    section = {"kind": "drop", "amount": 0.5}
    dataset = VideoRecurrentTestDatasetRGBSpike(**options, spike_perturb=section)
    plain = VideoRecurrentTestDatasetRGBSpike(**options)[0]
    sample = dataset[0]
    assert np.array_equal(sample["L"][:, :3], plain["L"][:, :3])
    assert not np.array_equal(sample["L_spike" if mode == "dual" else "L"], plain["L_spike" if mode == "dual" else "L"])
    if mode == "dual":
        stream = PerturbedStream(
            Perturbation("drop", 0.5), f"{tree.clips[0]}/000001", tree.spike / tree.clips[0] / "spike/000001.dat"
        )
        expected = build_encoding(spike, 2.0)(stream.get_spike_matrix(), ExposureWindow(0, 24, 12))
        assert np.array_equal(sample["L_spike"][1], expected)


def test_a_test_set_refuses_an_unknown_kind(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, clips=1, frames=2)
    with pytest.raises(ValueError, match="spike_perturb: kind 'gone'"):
        VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike={"representation": "tfp"}, spike_perturb={"kind": "gone"})
