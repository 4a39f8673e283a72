"""Clips of spikes alone: which pictures, their windows, thresholds and sharp frames, and what can't be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.dataset_spike_stream import SpikeStreamTestDataset
from data.spike.simulation.simulate import integrate_and_fire
from utils.spike_loader import write_spikes
from utils.spike_windows import MISSING
from utils.user_error import UserError
from utils.utils_image import imwrite_rgb

SIZE = (24, 32)
FRAMES = 20


def write_stream(path: Path, frames: int = FRAMES, level: float = 0.5) -> np.ndarray:
    """A still gray ramp recorded with threshold 2; returns its spikes."""
    light = np.linspace(0.2, level, SIZE[1])[None, None] * np.ones((frames, *SIZE))
    spikes = integrate_and_fire(light, 2.0, np.random.default_rng(0))
    write_spikes(path, spikes)
    return spikes


def of(path: Path, **options: Any) -> SpikeStreamTestDataset:
    return SpikeStreamTestDataset(
        dataroot_spike=str(path), spike_h=SIZE[0], spike_w=SIZE[1], **{"window": 5, "spike_threshold": 2.0, **options}
    )


def test_a_picture_every_stride_of_a_stream(tmp_path: Path) -> None:
    spikes = write_stream(tmp_path / "walk.dat")
    inside, beyond = of(tmp_path / "walk.dat", stride=6), of(tmp_path / "walk.dat", stride=6, partial_windows=True)
    # The middles of windows inside are frames 2 to 17: 2, 8 and 14, shifted so that both ends are left alike.
    assert inside.clips[0].name == "walk" and inside.clips[0].frames == ("000004", "000010", "000016")
    assert beyond.clips[0].frames == ("000001", "000007", "000013", "000019")
    sample = inside.load(0, 1, 3)
    np.testing.assert_array_equal(sample["L"].numpy(), 2.0 * np.stack([spikes[8:13], spikes[14:19]]))
    assert "H" not in sample and "blurred" not in sample
    first = beyond.load(0)["L"][0].numpy()
    np.testing.assert_array_equal(first, np.concatenate([np.full((1, *SIZE), MISSING), 2.0 * spikes[:4]]))


def test_every_stream_of_a_folder_is_a_clip(tmp_path: Path) -> None:
    for name in ("b", "a/spike/000001"):
        write_stream(tmp_path / f"{name}.dat")
    assert [clip.name for clip in of(tmp_path).clips] == ["b", "a/spike/000001"]


def test_a_picture_for_every_frame_at_its_centre_with_its_sharp_frame_in_gray(tmp_path: Path) -> None:
    spikes = write_stream(tmp_path / "walk.dat")
    colour = np.full((2 * SIZE[0], 2 * SIZE[1], 3), (100, 0, 0), np.uint8)
    for side, value in (("blurred", colour), ("sharp", 2 * colour)):
        for name in "01":
            imwrite_rgb(tmp_path / side / f"{name}.png", value)
    both = of(tmp_path / "walk.dat", dataroot_lq=str(tmp_path / "blurred"), dataroot_gt=str(tmp_path / "sharp"))
    sample = both.load(0)
    # Two frames share 20 spike frames: [0, 10) and [10, 20), with the centres 5 and 15.
    np.testing.assert_array_equal(sample["L"].numpy(), 2.0 * np.stack([spikes[3:8], spikes[13:18]]))
    assert sample["H"].shape == (2, 1, *SIZE) and sample["blurred"].shape == (2, 3, *colour.shape[:2])
    np.testing.assert_allclose(sample["H"].numpy(), 0.299 * 200 / 255, atol=1e-3)  # BT.601
    alone = of(tmp_path / "walk.dat", dataroot_gt=str(tmp_path / "sharp"))
    np.testing.assert_array_equal(alone.load(0)["H"], sample["H"])
    assert "blurred" not in alone.load(0) and alone.clips[0].frames == both.clips[0].frames == ("0", "1")


def test_thresholds(tmp_path: Path) -> None:
    write_stream(tmp_path / "dark" / "walk.dat", level=0.3)
    chosen = of(tmp_path, spike_threshold=None)
    assert chosen.threshold("dark/walk") == pytest.approx(2 * 0.9 / 0.3, rel=0.2)  # the brightest pixels become 0.9
    assert "chosen from the clip's brightness" in chosen.assumptions()[0]
    before = list(chosen.content(0))
    (tmp_path / "config.yaml").write_text(f"spike_h: {SIZE[0]}\nspike_w: {SIZE[1]}\nspike_threshold: 3.0\n")
    stated = of(tmp_path, spike_threshold=None)
    assert stated.threshold("dark/walk") == 3.0 and "chosen" not in stated.assumptions()[0]
    assert of(tmp_path).threshold("dark/walk") == 2.0
    after = list(stated.content(0))
    assert before[0] != after[0] and before[1] == after[1] == (tmp_path / "dark" / "walk.dat").read_bytes()


def test_training_free_pictures_show_the_scene(tmp_path: Path) -> None:
    write_stream(tmp_path / "walk.dat", 60)
    clips = of(tmp_path / "walk.dat", stride=60)
    pictures = clips.training_free("walk", clips.clips[0].frames[0], None)
    assert set(pictures) == {"gaussian", "interval"}
    for picture in pictures.values():
        assert picture.shape == (*SIZE, 3) and abs(picture[:, -4:].mean() / 255 - 0.48) < 0.05
    assert clips.instants("walk", clips.clips[0].frames[0], 3).shape == (3, *SIZE)


def test_what_cannot_be_used(tmp_path: Path) -> None:
    write_stream(tmp_path / "s" / "walk.dat")
    imwrite_rgb(tmp_path / "sharp" / "0.png", np.zeros((*SIZE, 3), np.uint8))
    for options, told in (
        ({"window": 41}, "20 spike frames are fewer than a window's 41"),
        ({"window": 41, "dataroot_lq": str(tmp_path / "sharp")}, "sharp/0: .*too few for a window of 41 around 10"),
        ({"spike_threshold": None, "dataroot_gt": str(tmp_path / "sharp")}, "scores need the camera's threshold"),
        ({"stride": 0}, "stride: 1 or more"),
        ({"dataroot_lq": str(tmp_path / "none")}, "dataroot_lq: .*none"),
    ):
        with pytest.raises(UserError, match=told):
            of(tmp_path / "s" / "walk.dat", **options)
    with pytest.raises(UserError, match=r"holds no \.dat"):
        of(tmp_path / "sharp")
