"""Restoring and scoring clips: padding, reversal, the middle frame, spikes, pictures, merging over ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.evaluate import Clip, as_pictures, evaluate, merge_scores, restore_clip
from models.evaluate import Testing as Settings  # pytest would collect the name
from utils.option_schema import ValOptions
from utils.utils_dist import Dist
from utils.utils_metric import psnr, ssim_y
from utils.utils_report import Scores

CPU = torch.device("cpu")


class Causal(nn.Module):
    """Frame t becomes half the running sum up to t: what a frame becomes depends on order and position in the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor, spikes: Tensor | None = None) -> Tensor:
        self.lengths.append(x.shape[1])
        self.modes.append(self.training)
        result = x[:, :, :3].cumsum(1) / 2
        return result if spikes is None else result + spikes.mean((2, 3, 4))[:, :, None, None, None]


class FutureSum(nn.Module):
    """Frame t becomes a tenth of the sum of frames t to the end, so that padding at the end shows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1).cumsum(1).flip(1) / 10


def clip(frames: int = 5, size: tuple[int, int] = (16, 20), **more: Any) -> dict[str, Any]:
    """A batch of one clip as a loader gives it, values up to 0.2."""
    generator = torch.Generator().manual_seed(frames)
    return {
        "L": torch.rand(1, frames, 3, *size, generator=generator) / 5,
        "folder": ["walk"],
        "lq_path": [(f"walk/{index:06d}.png",) for index in range(frames)],
        **more,
    }


def test_plain() -> None:
    batch = clip()
    restored = restore_clip(Causal(), batch, Settings(), CPU)
    torch.testing.assert_close(restored, (batch["L"].cumsum(1) / 2).clamp(0, 1), rtol=0, atol=0)


def test_results_are_between_0_and_1() -> None:
    batch = clip(8)
    batch["L"] = batch["L"] * 10 - 1
    restored = restore_clip(Causal(), batch, Settings(), CPU)
    assert restored.min() == 0 and restored.max() == 1 and restored.dtype == torch.float32


def test_pad_seq_repeats_the_last_frame_and_drops_it() -> None:
    batch, network = clip(4), FutureSum()
    padded = torch.cat([batch["L"], batch["L"][:, -1:]], 1)
    restored = restore_clip(network, batch, Settings(pad_seq=True), CPU)
    assert restored.shape[1] == 4
    torch.testing.assert_close(restored, network(padded)[:, :4], rtol=0, atol=0)
    assert not torch.allclose(restored, network(batch["L"]))


def test_flip_seq_averages_both_directions() -> None:
    batch = clip(4)
    frames = batch["L"]
    expected = (frames.cumsum(1) / 2 + (frames.flip(1).cumsum(1) / 2).flip(1)) / 2
    network = Causal()
    restored = restore_clip(network, batch, Settings(flip_seq=True), CPU)
    torch.testing.assert_close(restored, expected)
    assert network.lengths == [4, 4]
    # A clip and its reverse get the same result, reversed.
    backwards = restore_clip(Causal(), {**batch, "L": frames.flip(1)}, Settings(flip_seq=True), CPU)
    torch.testing.assert_close(backwards, restored.flip(1))


def test_flip_seq_pads_each_direction_at_its_own_end() -> None:
    frames = clip(3)["L"]
    network = FutureSum()
    forwards = network(torch.cat([frames, frames[:, -1:]], 1))[:, :3]
    backwards = network(torch.cat([frames.flip(1), frames[:, :1]], 1))[:, :3].flip(1)
    restored = restore_clip(network, clip(3), Settings(flip_seq=True, pad_seq=True), CPU)
    torch.testing.assert_close(restored, (forwards + backwards) / 2)


@pytest.mark.parametrize("frames, middle", [(5, 2), (4, 2), (1, 0)])
def test_center_frame_only(frames: int, middle: int) -> None:
    batch = clip(frames, H=clip(frames)["L"])
    testing = Settings(center_frame_only=True)
    restored = restore_clip(Causal(), batch, testing, CPU)
    whole = restore_clip(Causal(), batch, Settings(), CPU)
    assert torch.equal(restored, whole[:, middle : middle + 1])
    pictures = as_pictures(batch, restored, testing)
    assert pictures.frames == [f"{middle:06d}"]
    assert len(pictures.blurred) == len(pictures.restored) == len(pictures.sharp) == 1
    np.testing.assert_array_equal(pictures.blurred[0], as_pictures(batch, whole, Settings()).blurred[middle])


def test_one_tile_equals_no_tiles_and_tiles_of_a_pointwise_network_too() -> None:
    batch, pointwise = clip(6), nn.Identity()
    whole = restore_clip(Causal(), batch, Settings(), CPU)
    assert torch.equal(restore_clip(Causal(), batch, Settings(tile=(6, 16, 20), tile_overlap=(2, 4, 4)), CPU), whole)
    tiled = restore_clip(pointwise, batch, Settings(tile=(3, 8, 8), tile_overlap=(1, 4, 4)), CPU)
    torch.testing.assert_close(tiled, batch["L"])


def test_spikes_follow_their_frames() -> None:
    """In the voxel branch; reversed with the frames, and cut with them."""
    batch = clip(4, L_spike=torch.rand(1, 4, 6, 8, 10))
    settings = Settings(flip_seq=True, pad_seq=True)
    means = batch["L_spike"].mean((2, 3, 4))[:, :, None, None, None]
    plain, with_spikes = (
        restore_clip(Causal(), {**batch, **change}, settings, CPU) for change in ({"L_spike": means * 0}, {})
    )
    torch.testing.assert_close(with_spikes, (plain + means).clamp(0, 1))
    pictures = as_pictures(batch, plain, Settings())
    assert [picture.shape for picture in pictures.spikes] == [(8, 10)] * 4


def test_pictures_of_concatenated_spikes() -> None:
    """They are shown stretched to black and white; the frame itself is not touched by them."""
    spikes = torch.linspace(0, 0.1, 320).reshape(1, 1, 1, 16, 20)
    batch = clip(1)
    batch["L"] = torch.cat([batch["L"], spikes], 2)
    pictures = as_pictures(batch, batch["L"][:, :, :3], Settings())
    assert pictures.spikes[0].min() == 0 and pictures.spikes[0].max() == 255
    np.testing.assert_array_equal(pictures.blurred[0], pictures.restored[0])
    assert [title for title, _ in pictures.views(0)] == ["input", "spikes", "restored"]


def test_evaluate_scores_what_was_restored() -> None:
    batch = clip(3)
    batch["H"] = (batch["L"] + 0.02).clamp(0, 1)
    seen: list[Clip] = []
    network = Causal().train()
    scores = evaluate(network, [batch, {**batch, "folder": ["run"]}], Settings(), CPU, seen.append, input_scores=True)
    assert network.training and network.modes == [False, False]
    assert [(row["clip"], row["frame"]) for row in scores.rows] == [
        (name, f"{k:06d}") for name in ("walk", "run") for k in range(3)
    ]
    for row, restored, sharp, blurred in zip(
        scores.rows, seen[0].restored, seen[0].sharp, seen[0].blurred, strict=False
    ):
        assert row["psnr"] == psnr(restored, sharp) and row["ssim_y"] == ssim_y(restored, sharp)
        assert row["input_psnr"] == psnr(blurred, sharp)
    assert len(seen) == 2


def test_evaluate_without_ground_truth() -> None:
    seen: list[Clip] = []
    scores = evaluate(Causal().eval(), [clip(2)], Settings(), CPU, seen.append, input_scores=True)
    assert scores.rows == [] and len(seen[0].restored) == 2 and seen[0].sharp == []
    assert [title for title, _ in seen[0].views(1)] == ["input", "restored"]


def test_a_failure_leaves_the_networks_mode() -> None:
    network = Causal().train()
    with pytest.raises(KeyError):
        evaluate(network, [{"folder": ["x"]}], Settings(), CPU)
    assert network.training


def test_upscaling_is_not_scored_against_a_small_input() -> None:
    class Enlarge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat_interleave(2, 3).repeat_interleave(2, 4)

    batch = clip(2)
    batch["H"] = Enlarge()(batch["L"])
    scores = evaluate(Enlarge(), [batch], Settings(scale=2, tile=(0, 8, 8), tile_overlap=(0, 4, 4)), CPU, None, True)
    assert "input_psnr" not in scores.rows[0]
    assert scores.rows[0]["ssim"] == pytest.approx(1)


def test_settings_come_from_the_options() -> None:
    val = ValOptions(tile=[6, 64, 32], tile_overlap=[2, 16, 8], pad_seq=True, center_frame_only=True)
    expected = Settings((6, 64, 32), (2, 16, 8), 4, torch.bfloat16, pad_seq=True, center_frame_only=True)
    assert Settings.from_options(val, 4, torch.bfloat16) == expected
    assert replace(expected, flip_seq=True) == Settings.from_options(
        val.model_copy(update={"flip_seq": True}), 4, torch.bfloat16
    )


def test_merged_scores_are_in_the_clips_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, other = (
        Scores([{"clip": name, "frame": str(k), "psnr": 1.0} for name in names for k in range(2)])
        for names in (["a", "c"], ["b", "d"])
    )
    monkeypatch.setattr("models.evaluate.all_gather_object", lambda rows, dist: [rows, other.rows])
    merged = merge_scores(own, ["d", "a", "b", "c"], Dist(0, 2, 0, CPU))
    assert [(row["clip"], row["frame"]) for row in merged.rows] == [(name, k) for name in "dabc" for k in "01"]
