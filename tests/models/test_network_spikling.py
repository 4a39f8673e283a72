"""Networks from spikes to pictures: sizes, what they start from, and pictures from windows of a stream."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.network_spikling import SemiUNet, generate, generate_stream, windows_of
from utils.spike_loader import SpikeStream, write_spikes


class Middle(nn.Module):
    """Shows the window's middle frame."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.weight = nn.Parameter(torch.ones(()))
        self.batches: list[int] = []

    def forward(self, L: Tensor) -> Tensor:
        self.batches.append(len(L))
        return self.weight * L[:, :, self.in_chans // 2 : self.in_chans // 2 + 1]


def spikes_of(frames: int, height: int, width: int, rate: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(0).random((frames, height, width)) < rate).astype(np.uint8)


def light_of(spikes: np.ndarray, threshold: float = 1.0) -> Tensor:
    return threshold * torch.from_numpy(spikes).float()[None, None]


def test_semi_unet_has_the_parameters_of_spikling():
    network = SemiUNet()
    assert sum(p.numel() for p in network.parameters()) == 2_895_904
    assert all(p.ndim == 4 for p in network.parameters()), "no biases, no weights of normalisation"


@pytest.mark.parametrize("size", [(8, 12), (6, 8), (9, 7), (5, 4)])
def test_any_height_and_width(size: tuple[int, int]):
    network = SemiUNet()
    picture = network(light_of(spikes_of(network.in_chans, *size)))
    assert picture.shape == (1, 1, 1, *size)
    picture.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_semi_unet_surrounds_spiklings_rows_with_rows_without_spikes():
    """H % 4 = 2 as spikling's camera has: one row above and one below, as its `generate` does."""
    network = SemiUNet().eval()
    spikes = spikes_of(32, 10, 12)
    padded = np.pad(spikes, ((0, 0), (1, 1), (0, 0)))
    torch.testing.assert_close(network(light_of(spikes)), network(light_of(padded))[..., 1:-1, :])


def test_another_window_and_too_small_pictures_are_told():
    with pytest.raises(ValueError, match=r"windows of 32 spike frames, not \(1, 1, 31, 8, 8\)"):
        SemiUNet()(torch.zeros(1, 1, 31, 8, 8))
    with pytest.raises(ValueError, match="more than 4x4 pixels, not 3x4"):
        SemiUNet()(torch.zeros(1, 1, 32, 3, 4))


def test_the_last_sum_is_not_made_in_half_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert SemiUNet()(light_of(spikes_of(32, 8, 8))).dtype == torch.float32


def test_pictures_of_a_stream_come_in_batches_and_in_order(tmp_path):
    seq = spikes_of(20, 8, 16)
    network = Middle(5)
    starts = [0, 3, 15, 7, 1]
    pictures = list(generate_stream(network, seq, starts, batch_size=2))
    assert network.batches == [2, 2, 1]
    for start, picture in zip(starts, pictures, strict=True):
        np.testing.assert_array_equal(picture, 255 * seq[start + 2])
        assert picture.dtype == np.uint8
    write_spikes(tmp_path / "stream.dat", seq)
    stream = SpikeStream(tmp_path / "stream.dat", 8, 16)
    np.testing.assert_array_equal(np.stack(list(generate_stream(network, stream, starts))), np.stack(pictures))


def test_windows_may_reach_outside_where_the_network_takes_them():
    class Filled(Middle):
        partial_windows = True

        def forward(self, L: Tensor) -> Tensor:
            return L.mean(2, keepdim=True).clamp(min=0) + 0 * self.weight

    seq = np.ones((6, 2, 2), np.uint8)
    # Of five frames, two are missing (-1) at either end; the middle of the window is always in the stream.
    for start, present in ((-2, 3), (0, 5), (3, 3)):
        expected = round(255 * (0.8 * present - (5 - present)) / 5)
        assert abs(generate(Filled(5), seq, start, threshold=0.8).astype(int) - expected).max() <= 1
    for start in (-3, 4):
        with pytest.raises(ValueError, match=r"moments 0 to 5"):
            generate(Filled(5), seq, start)


def test_frames_are_pooled_in_little_light():
    network = Middle(3)
    dark = np.zeros((100, 5, 10), np.uint8)
    dark[:, 0, 0] = 1  # a mean rate of 0.02
    assert windows_of(network, dark, 1.0).pooled == 1
    network.partial_windows = True  # type: ignore[assignment]
    assert windows_of(network, dark, 1.0).pooled == 3
    assert windows_of(network, 0 * dark, 1.0).pooled == 7 and windows_of(network, dark[:3], 1.0).pooled == 1
    dark[:, :2] = 1
    assert windows_of(network, dark, 1.0).pooled == 1


def test_windows_of_large_pictures_come_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.network_spikling.BATCH_VALUES", 2 * 3 * 16)
    network = Middle(3)
    list(generate_stream(network, spikes_of(9, 4, 4), range(5)))
    assert network.batches == [2, 2, 1]


def test_generate_takes_the_threshold_and_names_windows_outside():
    seq = spikes_of(10, 4, 4)
    np.testing.assert_array_equal(generate(Middle(3), seq, 4, threshold=0.2), 51 * seq[5])
    for start in (-1, 8):
        with pytest.raises(ValueError, match=r"outside the stream's \[0, 10\).* moments 1 to 8"):
            generate(Middle(3), seq, start)
