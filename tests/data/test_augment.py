"""The augmentation moves pixels and frames, and nothing else."""

import numpy as np
import pytest
import torch

from data.augment import Appearance, Augmentation

ALL = [Augmentation(bool(n & 1), bool(n & 2), bool(n & 4), bool(n & 8)) for n in range(16)]


def test_each_operation() -> None:
    array = np.arange(6).reshape(1, 2, 3)
    assert Augmentation(hflip=True).space(array).tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert Augmentation(vflip=True).space(array).tolist() == [[[3, 4, 5], [0, 1, 2]]]
    assert Augmentation(transpose=True).space(array).tolist() == [[[0, 3], [1, 4], [2, 5]]]
    assert Augmentation(hflip=True, transpose=True).space(array).tolist() == [[[2, 5], [1, 4], [0, 3]]]
    assert Augmentation(reverse=True).time(np.arange(3)).tolist() == [2, 1, 0]
    assert Augmentation().time(array) is array and Augmentation().space(array) is array


@pytest.mark.parametrize("augmentation", ALL)
def test_channels_last_equals_channels_first(augmentation: Augmentation) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    last = augmentation.space(frames, axes=(-3, -2))
    assert np.array_equal(np.moveaxis(last, -1, 1), augmentation.space(np.moveaxis(frames, -1, 1)))


@pytest.mark.parametrize("augmentation", ALL)
def test_commutes_with_pixel_replication(augmentation: Augmentation) -> None:
    """Spikes at half the resolution stay registered with the frames."""
    spikes = np.random.default_rng(1).integers(0, 2, (5, 4, 4))
    enlarged = spikes.repeat(2, -1).repeat(2, -2)
    assert np.array_equal(augmentation.space(spikes).repeat(2, -1).repeat(2, -2), augmentation.space(enlarged))


def test_switches_don_t_change_the_other_choices() -> None:
    everything = {"use_hflip": True, "use_rot": True, "random_reverse": True}
    for seed in range(20):
        full = Augmentation.draw(np.random.default_rng(seed), **everything)
        no_rot = Augmentation.draw(np.random.default_rng(seed), **{**everything, "use_rot": False})
        assert no_rot == Augmentation(hflip=full.hflip, reverse=full.reverse)
        assert (
            Augmentation.draw(np.random.default_rng(seed), use_hflip=False, use_rot=False, random_reverse=False)
            == Augmentation()
        )


def test_each_choice_has_probability_one_half() -> None:
    rng = np.random.default_rng(0)
    draws = [Augmentation.draw(rng, use_hflip=True, use_rot=True, random_reverse=True) for _ in range(2000)]
    for name in ("hflip", "vflip", "transpose", "reverse"):
        assert 900 < sum(getattr(draw, name) for draw in draws) < 1100
    assert len(set(draws)) == 16


def test_appearance() -> None:
    frames = torch.linspace(0, 1, 24).reshape(2, 3, 2, 2)
    assert Appearance().apply(frames) is frames
    changed = Appearance(brightness=0.1, contrast=0.8).apply(frames)
    assert torch.allclose(changed, ((frames - 0.5) * 0.8 + 0.6).clamp(0, 1))
    assert Appearance(contrast=1.9).apply(frames).min() == 0
    drawn = [Appearance.draw((1, 2, k), brightness_jitter=0.2, contrast_jitter=0.1) for k in range(200)]
    assert drawn[0] == Appearance.draw((1, 2, 0), brightness_jitter=0.2, contrast_jitter=0.1)
    assert -0.2 < min(a.brightness for a in drawn) < -0.15 and 0.15 < max(a.brightness for a in drawn) < 0.2
    assert 0.9 < min(a.contrast for a in drawn) < 0.92 and 1.08 < max(a.contrast for a in drawn) < 1.1
    assert Appearance.draw((1, 2, 0), brightness_jitter=0, contrast_jitter=0) == Appearance()
