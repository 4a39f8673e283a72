"""Losses: their equations on small clips, and the choice by option."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from models.losses import charbonnier, define_loss, ssim
from utils.evaluation.metrics import ssim as measured_ssim
from utils.utils_registry import LOSSES


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 3, 24, 20, generator=generator), torch.rand(2, 3, 3, 24, 20, generator=generator)


@pytest.mark.parametrize(
    ("name", "equation"),
    [
        ("charbonnier", lambda d: (d**2 + 0.01).sqrt().mean()),
        ("log_charbonnier", lambda d: (d**2 + 0.01).sqrt().mean((2, 3, 4)).log().mean()),
        ("l1", lambda d: d.abs().mean()),
        ("l2", lambda d: (d**2).mean()),
        ("l2sum", lambda d: (d**2).sum()),
    ],
)
def test_equations(name, equation, clips):
    loss = define_loss(name, SimpleNamespace(G_charbonnier_eps=0.01))
    torch.testing.assert_close(loss(*clips), equation(clips[0] - clips[1]))


def test_charbonnier_gradient_is_finite_where_the_clips_are_equal():
    clip = torch.zeros(1, 1, 3, 4, 4, requires_grad=True)
    define_loss("charbonnier", SimpleNamespace(G_charbonnier_eps=1e-9))(clip, torch.zeros(1, 1, 3, 4, 4)).backward()
    assert torch.equal(clip.grad, torch.zeros_like(clip))


def test_ssim_loss_is_the_metric_on_pictures_with_a_black_border(clips):
    # The metric leaves out windows that reach over the border: with 5 black pixels around, the loss's remain.
    a, b = (F.pad((clip[0, 0] * 255).round(), (5, 5, 5, 5)) for clip in clips)
    measured = measured_ssim(*(p.permute(1, 2, 0).numpy().astype("uint8") for p in (a, b)))
    inner = [p[None, None, :, 5:-5, 5:-5].double() / 255 for p in (a, b)]
    assert float(ssim(*inner)) == pytest.approx(1 - measured, abs=1e-9)
    assert float(ssim(clips[0], clips[0])) == pytest.approx(0, abs=1e-5)


def test_unknown_loss_lists_the_choices():
    with pytest.raises(ValueError, match=r"Did you mean 'charbonnier'.*l2sum"):
        define_loss("charbonier", SimpleNamespace())


def test_guided_is_charbonnier_with_spectra_and_means() -> None:
    restored, sharp = torch.rand(2, 3, 3, 8, 10), torch.rand(2, 3, 3, 8, 10)
    loss = LOSSES.get("guided")
    alone = loss(restored, sharp, G_fft_weight=0.0, G_reblur_weight=0.0)
    assert torch.equal(alone, charbonnier(restored, sharp))
    spectrum = torch.fft.fft2(restored - sharp, norm="ortho")[..., : 10 // 2 + 1]
    fft = (spectrum.real.abs() + spectrum.imag.abs()).mean() / 2
    torch.testing.assert_close(loss(restored, sharp, G_fft_weight=2.0, G_reblur_weight=0.0), alone + 2 * fft)
    # Instants that are wrong by opposite amounts are right in the mean.
    error = torch.tensor([-0.2, 0.0, 0.2]).view(1, 3, 1, 1, 1)
    terms = {"G_charbonnier_eps": 1e-12, "G_fft_weight": 0.0, "G_reblur_weight": 1.0}
    torch.testing.assert_close(loss(sharp + error, sharp, **terms), torch.tensor(0.4 / 3), rtol=1e-4, atol=1e-4)
