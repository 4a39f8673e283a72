"""Learning rates: KAIR's curves, ending right."""

import math
from types import SimpleNamespace

import pytest
import torch

from models.training.schedule import learning_rate


def options(**changes):
    defaults = dict(
        G_scheduler_type="CosineAnnealingWarmRestarts",
        G_scheduler_milestones=[],
        G_scheduler_gamma=0.5,
        G_scheduler_periods=100,
        G_scheduler_restart_weights=1,
        G_scheduler_eta_min=1e-7,
        G_scheduler_warmup_iter=0,
        total_iter=100,
    )
    return SimpleNamespace(**{**defaults, **changes})


def torch_rates(scheduler, steps):
    return [(scheduler.step(step), scheduler.get_last_lr()[0])[1] for step in steps]


def test_cosine_is_pytorchs_but_ends_at_eta_min():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=4e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 100, 1, 1e-7)
    ours = [learning_rate(step, 4e-4, options()) for step in range(1, 101)]
    assert ours[:99] == pytest.approx(torch_rates(scheduler, range(1, 100)), rel=1e-12)
    assert ours[99] == 1e-7
    assert torch_rates(scheduler, [100])[0] == 4e-4  # the fault that this mends


def test_periods_grow_by_the_restart_weight():
    rates = options(G_scheduler_periods=10, G_scheduler_restart_weights=2)
    assert learning_rate(10, 1.0, rates) == pytest.approx(1e-7)
    assert learning_rate(20, 1.0, rates) == pytest.approx((1 + 1e-7) / 2)
    assert learning_rate(30, 1.0, rates) == pytest.approx(1e-7)


def test_listed_periods_and_weights():
    rates = options(G_scheduler_periods=[10, 20], G_scheduler_restart_weights=[1, 0.5])
    assert learning_rate(11, 1.0, rates) == pytest.approx(1e-7 + (0.5 - 1e-7) * (1 + math.cos(math.pi / 20)) / 2)
    assert learning_rate(30, 1.0, rates) == pytest.approx(1e-7)
    assert learning_rate(31, 1.0, rates) == 1e-7


def test_no_period_means_the_whole_run():
    assert learning_rate(100, 1.0, options(G_scheduler_periods=None)) == pytest.approx(1e-7)


def test_multistep_is_pytorchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5], 0.5)
    expected = []
    for _ in range(1, 8):
        optimizer.step()
        scheduler.step()
        expected.append(scheduler.get_last_lr()[0])
    rates = options(G_scheduler_type="MultiStepLR", G_scheduler_milestones=[3, 5])
    assert [learning_rate(step, 1.0, rates) for step in range(1, 8)] == expected


def test_warm_up_is_linear():
    rates = options(G_scheduler_type="MultiStepLR", G_scheduler_warmup_iter=4)
    assert [learning_rate(step, 1.0, rates) for step in range(1, 6)] == [0.25, 0.5, 0.75, 1, 1]
