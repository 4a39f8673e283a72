"""Restoring and scoring clips frame by frame: order, pictures, spikes, the middle frame, what is finished, ranks."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.testing.evaluate import FrameResult, evaluate, merge_scores
from models.testing.evaluate import Testing as Settings  # pytest would collect the name
from utils.evaluation.metrics import psnr, ssim_y
from utils.evaluation.scores import Scores
from utils.options.schema import ValOptions
from utils.user_error import UserError
from utils.utils_dist import Dist
from utils.utils_image import imwrite_rgb

CPU = torch.device("cpu")


class Clips:
    """A test set in memory: clips of random frames up to 0.2, all fields (T,...)."""

    def __init__(self, frames: int = 5, names: tuple[str, ...] = ("walk",), size: tuple[int, int] = (16, 20)) -> None:
        generator = torch.Generator().manual_seed(frames)
        self.samples: list[dict[str, Any]] = [
            {"L": torch.rand(frames, 3, *size, generator=generator) / 5} for _ in names
        ]
        numbers = tuple(f"{number:06d}" for number in range(frames))
        self.clips = [SimpleNamespace(name=name, frames=numbers, target=None) for name in names]
        self.loaded: list[int] = []

    def load(self, index: int, begin: int = 0, end: int | None = None) -> dict[str, Any]:
        self.loaded += range(len(self.clips[index].frames))[begin:end]
        return {key: value[begin:end] for key, value in self.samples[index].items()}


class Darker(nn.Module):
    """Half of each frame, and with spikes their mean on top; counts the frames it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.modes: list[bool] = []

    def forward(self, x: Tensor, spikes: Tensor | None = None) -> Tensor:
        self.frames += x.shape[1]
        self.modes.append(self.training)
        result = x[:, :, :3] / 2
        return result if spikes is None else result + spikes.mean((2, 3, 4))[:, :, None, None, None]


def results(clips: Clips, network: nn.Module, settings: Settings = Settings(), **more: Any) -> list[FrameResult]:  # noqa: B008
    """All that `on_frame` is given."""
    seen: list[FrameResult] = []
    evaluate(network, clips, settings, CPU, seen.append, **more)
    return seen


def as_picture(frame: Tensor) -> np.ndarray:
    return frame.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("tile", [(0, 0, 0), (3, 8, 8), (2, 0, 0)])
def test_frames_come_in_order_and_are_read_once(tile: tuple[int, int, int], workers: int) -> None:
    clips = Clips(7, ("walk", "run"))
    seen = results(clips, Darker(), Settings(tile=tile, tile_overlap=(1, 4, 4)), num_workers=workers)
    assert [(r.clip, r.frame, r.index, r.length) for r in seen] == [
        (name, f"{k:06d}", k, 7) for name in ("walk", "run") for k in range(7)
    ]
    assert [r.is_middle for r in seen] == 2 * [k == 3 for k in range(7)]
    for index, sample in enumerate(clips.samples):
        for result, frame in zip(seen[7 * index :], sample["L"], strict=False):
            np.testing.assert_array_equal(result.blurred, as_picture(frame))
            np.testing.assert_array_equal(result.restored, as_picture(frame / 2))
    assert sorted(clips.loaded) == sorted(2 * list(range(7)))


def test_only_the_clips_asked_for() -> None:
    assert {r.clip for r in results(Clips(2, ("a", "b", "c")), Darker(), indices=[2, 0])} == {"a", "c"}


@pytest.mark.parametrize("frames, middle", [(5, 2), (4, 2), (1, 0)])
def test_center_frame_only(frames: int, middle: int) -> None:
    clips = Clips(frames)
    clips.samples[0]["H"] = clips.samples[0]["L"]
    (result,) = results(clips, Darker(), Settings(center_frame_only=True))
    assert (result.frame, result.index, result.length, result.is_middle) == (f"{middle:06d}", 0, 1, True)
    np.testing.assert_array_equal(result.restored, as_picture(clips.samples[0]["L"][middle] / 2))
    np.testing.assert_array_equal(result.sharp, result.blurred)


def test_the_one_frame_that_is_to_be_made() -> None:
    """The middle one of as many as the network makes, or its only one."""

    class Between(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, 1:2] + x[:, 2:3]) / 2

    clips = Clips(4)
    clips.clips[0].target, clips.clips[0].middle = "between", 1
    clips.samples[0]["H"] = clips.samples[0]["L"]
    frames = clips.samples[0]["L"]
    (result,) = results(clips, Between())
    assert (result.frame, result.length) == ("between", 1)
    np.testing.assert_array_equal(result.restored, as_picture((frames[1] + frames[2]) / 2))
    (result,) = results(clips, Darker())
    np.testing.assert_array_equal(result.restored, as_picture(frames[1] / 2))
    clips.clips[0].target = None
    with pytest.raises(ValueError, match="the network made 1 frames of 4"):
        results(clips, Between())


def test_spikes_follow_their_frames() -> None:
    """In the voxel branch."""
    clips = Clips(4)
    clips.samples[0]["L_spike"] = torch.rand(4, 6, 8, 10)
    seen = results(clips, Darker(), Settings(tile=(3, 8, 8), tile_overlap=(1, 2, 2), flip_seq=True))
    for result, frame, spikes in zip(seen, clips.samples[0]["L"], clips.samples[0]["L_spike"], strict=True):
        assert result.spikes is not None and result.spikes.shape == (8, 10)
        assert abs(result.restored.mean() / 255 - float(frame.mean() / 2 + spikes.mean())) < 0.05


def test_pictures_of_concatenated_spikes() -> None:
    """They are shown stretched to black and white; the frame itself is not touched by them."""
    clips = Clips(1)
    spikes = torch.linspace(0, 0.1, 320).reshape(1, 1, 16, 20)
    clips.samples[0]["L"] = torch.cat([clips.samples[0]["L"], spikes], 1)
    (result,) = results(clips, Darker())
    assert result.spikes is not None and result.spikes.min() == 0 and result.spikes.max() == 255
    np.testing.assert_array_equal(result.blurred, as_picture(clips.samples[0]["L"][0, :3]))
    assert [title for title, _ in result.views()] == ["input", "spikes", "restored"]


def test_finished_frames_are_taken_and_not_computed(tmp_path: Path) -> None:
    clips, network = Clips(9), Darker()
    kept = np.full((16, 20, 3), 77, np.uint8)
    for number in range(6):
        imwrite_rgb(tmp_path / f"{number:06d}.png", kept)

    def finished(clip: str, frame: str) -> Path | None:
        path = tmp_path / f"{frame}.png"
        return path if path.is_file() else None

    settings = Settings(tile=(3, 0, 0), tile_overlap=(0, 0, 0))
    seen = results(clips, network, settings, finished=finished)
    assert network.frames == 3 and [result.frame for result in seen] == [f"{k:06d}" for k in range(9)]
    assert all((result.restored == kept).all() for result in seen[:6])
    entire = results(Clips(9), Darker(), settings)
    for result, expected in zip(seen[6:], entire[6:], strict=True):
        np.testing.assert_array_equal(result.restored, expected.restored)
    network.frames = 0
    (tmp_path / "000003.png").unlink()
    assert (results(clips, network, settings, finished=finished)[3].restored != kept).any() and network.frames == 6


def test_evaluate_scores_what_was_restored() -> None:
    clips = Clips(3, ("walk", "run"))
    for sample in clips.samples:
        sample["H"] = (sample["L"] + 0.02).clamp(0, 1)
    seen: list[FrameResult] = []
    network = Darker().train()
    scores = evaluate(network, clips, Settings(), CPU, seen.append, input_scores=True)
    assert network.training and network.modes == [False, False]
    assert [(row["clip"], row["frame"]) for row in scores.rows] == [
        (name, f"{k:06d}") for name in ("walk", "run") for k in range(3)
    ]
    for row, result in zip(scores.rows, seen, strict=True):
        assert result.sharp is not None
        assert row["psnr"] == psnr(result.restored, result.sharp)
        assert row["ssim_y"] == ssim_y(result.restored, result.sharp)
        assert row["input_psnr"] == psnr(result.blurred, result.sharp)


def test_evaluate_without_ground_truth() -> None:
    seen: list[FrameResult] = []
    scores = evaluate(Darker().eval(), Clips(2), Settings(), CPU, seen.append, input_scores=True)
    assert scores.rows == [] and len(seen) == 2 and seen[0].sharp is None
    assert [title for title, _ in seen[1].views()] == ["input", "restored"]


def test_a_failure_leaves_the_networks_mode() -> None:
    network, clips = Darker().train(), Clips(1)
    clips.samples[0] = {}
    with pytest.raises(KeyError):
        evaluate(network, clips, Settings(), CPU)
    assert network.training


def test_a_picture_that_is_not_numbers_is_named_with_its_weights() -> None:
    clips = Clips(3)
    clips.samples[0]["L"][1, 0, 4, 4] = torch.nan
    told = "walk/000001, restored by a.pth: a picture has values that are not numbers"
    with pytest.raises(UserError, match=re.escape(told)):
        evaluate(Darker(), clips, Settings(), CPU, source="a.pth")


def test_upscaling_is_not_scored_against_a_small_input() -> None:
    class Enlarge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat_interleave(2, -2).repeat_interleave(2, -1)

    clips = Clips(2)
    clips.samples[0]["H"] = Enlarge()(clips.samples[0]["L"])
    settings = Settings(scale=2, tile=(0, 8, 8), tile_overlap=(0, 4, 4))
    scores = evaluate(Enlarge(), clips, settings, CPU, None, True)
    assert "input_psnr" not in scores.rows[0]
    assert scores.rows[0]["ssim"] == pytest.approx(1)


def test_settings_come_from_the_options() -> None:
    val = ValOptions(tile=[6, 64, 32], tile_overlap=[2, 16, 6], pad_seq=True, center_frame_only=True)
    expected = Settings((6, 64, 32), (2, 16, 6), (0, 8, 6), 4, torch.bfloat16, pad_seq=True, center_frame_only=True)
    assert Settings.from_options(val, 4, torch.bfloat16) == expected
    changed = val.model_copy(update={"flip_seq": True, "tile": "auto", "max_memory": "2GB", "blend": [None, 0, 3]})
    assert Settings.from_options(changed, 4, torch.bfloat16) == replace(
        expected, flip_seq=True, tile="auto", max_memory=2 * 10**9, blend=(None, 0, 3)
    )


def test_merged_scores_are_in_the_clips_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, other = (
        Scores([{"clip": name, "frame": str(k), "psnr": 1.0} for name in names for k in range(2)])
        for names in (["a", "c"], ["b", "d"])
    )
    monkeypatch.setattr("models.testing.evaluate.all_gather_object", lambda rows, dist: [rows, other.rows])
    merged = merge_scores(own, ["d", "a", "b", "c"], Dist(0, 2, 0, CPU))
    assert [(row["clip"], row["frame"]) for row in merged.rows] == [(name, k) for name in "dabc" for k in "01"]
