"""One optimizer step and what surrounds it, on a network of three linear layers."""

import warnings
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.model_base import Batch, ModelBase, TrainingStopped, amp_dtype, check_parts, split
from models.training.schedule import learning_rate
from utils.options.schema import TrainOptions
from utils.utils_dist import Dist

CPU = Dist(rank=0, world_size=1, local_rank=0, device=torch.device("cpu"))


class Net(nn.Module):
    """Three layers, two of which carry the names that `fix_keys` looks for, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet, self.pa_deform, self.body = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return self.body(torch.tanh(self.pa_deform(torch.tanh(self.spynet(x)))))


class Model(ModelBase):
    """Squared error, and a term that weighs nothing."""

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        difference = self.network(batch["L"]) - batch["H"]
        return {"G_pixel": difference.square().mean(), "G_other": 0 * difference.mean()}


def make(**train: Any) -> Model:
    """A model with the given `train` options, the same weights each time."""
    torch.manual_seed(0)
    options = TrainOptions(**{"G_scheduler_periods": 100, "total_iter": 100, "G_optimizer_lr": 0.01, **train})
    return Model(Net(), options, CPU)


def batch(seed: int, size: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    pair = {"L": torch.randn(size, 3, generator=generator), "H": torch.randn(size, 2, generator=generator)}
    return {**pair, "key": [f"clip/{seed}_{sample}" for sample in range(size)]}


def steps(model: Model, *numbers: int) -> None:
    for number in numbers:
        assert model.optimize_parameters(number, batch(number))


def weights(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.netG.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the parameters that are not what they were."""
    return {name for name in before if name != "seen" and not torch.equal(before[name], after[name])}


def test_a_step_is_adams() -> None:
    """Against torch's own Adam, fed by hand."""
    model, twin = make(G_optimizer_betas=[0.8, 0.95]), make().netG
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.8, 0.95))
    for number in (1, 2, 3):
        optimizer.param_groups[0]["lr"] = learning_rate(number, 0.01, model.train_options)
        optimizer.zero_grad()
        (twin(batch(number)["L"]) - batch(number)["H"]).square().mean().backward()
        optimizer.step()
        steps(model, number)
        assert model.current_learning_rate() == optimizer.param_groups[0]["lr"]
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in weights(model).items())


def test_adamw_decays_weights_apart_from_gradients() -> None:
    plain, decayed = make(G_optimizer_type="adamw"), make(G_optimizer_type="adamw", G_optimizer_wd=0.5)
    start = weights(plain)
    for model in (plain, decayed):
        steps(model, 1)
    rate = plain.current_learning_rate()
    for name in moved(start, weights(plain)):
        expected = weights(plain)[name] - rate * 0.5 * start[name]
        torch.testing.assert_close(weights(decayed)[name], expected)


def test_the_average_is_an_exponential_one() -> None:
    model = make(E_decay=0.75)
    expected = {name: value.double() for name, value in weights(model).items()}
    for number in range(1, 5):
        steps(model, number)
        current = weights(model)
        expected = {name: 0.75 * value + 0.25 * current[name].double() for name, value in expected.items()}
    assert model.netE is not None and model.tested_network is model.netE
    averaged = model.netE.state_dict()
    for name in moved(weights(make()), current):
        torch.testing.assert_close(averaged[name].double(), expected[name], rtol=1e-6, atol=1e-7)
    assert torch.equal(averaged["seen"], current["seen"])  # buffers are copied
    assert not model.netE.training and not any(p.requires_grad for p in model.netE.parameters())


def test_without_decay_there_is_no_average() -> None:
    model = make()
    assert model.netE is None and model.tested_network is model.netG and model.state_dict()["netE"] is None


def test_parts_of_a_step_make_the_same_step() -> None:
    entire, parted = make(), make(accumulate_grad=2)
    for model in (entire, parted):
        steps(model, 1, 2, 3)
    for name, value in weights(entire).items():
        if name != "seen":
            torch.testing.assert_close(weights(parted)[name], value, rtol=1e-5, atol=1e-6)
    for name in ("G_loss", "G_pixel", "G_other"):
        torch.testing.assert_close(parted.log[name], entire.log[name])


def test_gradients_are_clipped_and_their_norm_told() -> None:
    free, clipped = make(), make(G_optimizer_clipgrad=0.01)
    for model in (free, clipped):
        steps(model, 1)
    norm = torch.stack([p.grad.norm() for p in clipped.netG.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0)
    assert clipped.log["grad_norm"] == free.log["grad_norm"] > 0.1  # the norm before clipping
    for one, other in zip(free.netG.parameters(), clipped.netG.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad, one.grad * 0.01 / free.log["grad_norm"], rtol=1e-3, atol=1e-7)


def test_fixed_parameters_wait_for_fix_iter() -> None:
    model = make(fix_iter=3, fix_keys=["spynet", "deform"])
    names = {"body.weight", "body.bias"}
    start = weights(model)
    steps(model, 1, 2)
    assert moved(start, weights(model)) == names
    # The norm that clips is that of the parameters that learn.
    own = torch.stack([p.grad.norm() for name, p in model.netG.named_parameters() if name in names]).norm()  # type: ignore[union-attr]
    torch.testing.assert_close(model.log["grad_norm"], own)
    middle = weights(model)
    steps(model, 3)
    assert moved(middle, weights(model)) == set(start) - {"seen"}


def test_parameters_of_fix_keys_have_their_own_rate() -> None:
    model = make(fix_iter=1, fix_keys=["spynet"], fix_lr_mul=0.25)
    steps(model, 1)
    usual, slow = model.optimizer.param_groups
    assert slow["lr"] == pytest.approx(0.25 * usual["lr"], rel=1e-4)
    assert [p.shape for p in slow["params"]] == [(4, 3), (4,)]
    assert len(make(fix_keys=["spynet"], fix_lr_mul=0.25).optimizer.param_groups) == 1


def test_a_step_that_is_not_finite_is_skipped() -> None:
    model = make(E_decay=0.5)
    steps(model, 1)
    state, buffer = model.state_dict(), model.netG.seen.clone()
    before = [weights(model), {n: v.clone() for n, v in state["netE"].items()}, _flat(state["optimizerG"])]
    broken = batch(2)
    broken["L"][1, 0] = float("nan")
    assert not model.optimize_parameters(2, broken)
    assert model.bad_steps == 1 == model.state_dict()["bad_steps"]
    state = model.state_dict()
    assert not moved(before[0], weights(model)) and not moved(before[1], state["netE"])
    assert torch.equal(before[2], _flat(state["optimizerG"]))
    assert torch.equal(model.netG.seen, buffer + 1)
    steps(model, 3)
    assert model.bad_steps == 0


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loss_is_judged_before_the_backward_pass(parts: int) -> None:
    """Backwards through infinite coordinates of flow, memory of others would be touched."""
    model, broken = make(accumulate_grad=parts), batch(1)
    broken["H"][:] = float("inf")
    with mock.patch.object(torch.Tensor, "backward", side_effect=AssertionError("backward")):
        assert not model.optimize_parameters(1, broken)
    assert np.isnan(float(model.log["grad_norm"])) and not np.isfinite(float(model.log["G_loss"]))


def test_a_gradient_that_is_not_finite_is_skipped_too() -> None:
    model = make()
    start = weights(model)
    model.netG.body.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert not model.optimize_parameters(1, batch(1))
    assert torch.isfinite(model.log["G_loss"]) and not moved(start, weights(model))


def test_too_many_bad_steps_end_the_training() -> None:
    model, broken = make(max_bad_steps=3), batch(7)
    broken["H"][:] = float("inf")
    assert not model.optimize_parameters(1, broken) and not model.optimize_parameters(2, broken)
    with pytest.raises(TrainingStopped, match=r"3 steps in a row .*clip/7_0.*G_optimizer_lr"):
        model.optimize_parameters(3, broken)


def test_noise_is_a_function_of_the_step() -> None:
    """Whatever the global generator did before, a step draws the same numbers."""
    drawn = []
    for disturbance in (1, 2):
        model = make()
        torch.manual_seed(disturbance)
        steps(model, 5)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    steps(make(), 6)
    assert not torch.equal(drawn[0], torch.rand(3))


def test_a_state_continues_bit_for_bit() -> None:
    settings: dict[str, Any] = {"E_decay": 0.9, "fix_iter": 4, "fix_keys": ["spynet"], "fix_lr_mul": 0.5}
    entire, first, second = make(**settings), make(**settings), make(**settings)
    steps(entire, 1, 2, 3, 4, 5)
    steps(first, 1, 2)
    second.load_state_dict(first.state_dict(), "experiments/x")
    steps(second, 3, 4, 5)
    assert not moved(weights(entire), weights(second))
    assert not moved(entire.state_dict()["netE"], second.state_dict()["netE"])
    assert torch.equal(_flat(entire.state_dict()["optimizerG"]), _flat(second.state_dict()["optimizerG"]))


def test_fix_lr_mul_0_is_no_1() -> None:
    """As in KAIR, whose cosine then climbs from 0 to eta_min; without fix_keys there is one group (its 009 file)."""
    model = make(fix_iter=1, fix_keys=["spynet"], fix_lr_mul=0, G_scheduler_eta_min=1e-9)
    assert [group["initial_lr"] for group in model.optimizer.param_groups] == [0.01, 0]
    before = weights(model)
    steps(model, 1, 2)
    flow = (weights(model)["spynet.weight"] - before["spynet.weight"]).abs().max()
    body = (weights(model)["body.weight"] - before["body.weight"]).abs().max()
    assert flow <= 1e-8 and body > 1e-3
    assert len(make(fix_iter=-1, fix_keys=[], fix_lr_mul=0).optimizer.param_groups) == 1


def test_kair_goes_on_from_our_optimizer_file_at_our_rate() -> None:
    """KAIR loads the optimizer, then makes PyTorch's scheduler, then calls it with the number of the step."""
    settings = {"fix_iter": 1, "fix_keys": ["spynet"], "fix_lr_mul": 0.125, "G_optimizer_lr": 4e-4}
    model = make(**settings, G_scheduler_eta_min=1e-7)
    steps(model, 30)
    theirs = make(**settings).optimizer
    for group in theirs.param_groups:
        del group["initial_lr"]
    theirs.load_state_dict(model.state_dict()["optimizerG"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 100, 1, eta_min=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `scheduler.step` before `optimizer.step`, as KAIR has it
        scheduler.step(31)
    steps(model, 31)
    expected = [group["lr"] for group in model.optimizer.param_groups]
    assert [group["lr"] for group in theirs.param_groups] == pytest.approx(expected, rel=1e-9)


def test_kairs_optimizer_file_is_taken_with_this_runs_rates() -> None:
    model, other = make(), make(G_optimizer_lr=0.5)
    steps(model, 1)
    state = model.state_dict()
    kair = {**state["optimizerG"], "param_groups": [dict(group) for group in state["optimizerG"]["param_groups"]]}
    for group in kair["param_groups"]:
        del group["initial_lr"]
    other.load_state_dict({"netG": state["netG"], "optimizerG": kair}, "models")
    assert other.optimizer.param_groups[0]["initial_lr"] == 0.5
    assert torch.equal(_flat(other.state_dict()["optimizerG"]), _flat(state["optimizerG"]))
    steps(other, 2)


def test_without_an_average_in_the_state_it_starts_from_the_weights() -> None:
    model, other = make(), make(E_decay=0.9)
    steps(model, 1)
    other.load_state_dict({"netG": model.state_dict()["netG"]}, "models")
    assert other.netE is not None and not moved(weights(model), other.netE.state_dict())


def test_a_state_that_does_not_fit_is_explained() -> None:
    state = make().state_dict()
    narrow = {**state, "netG": {**state["netG"], "body.bias": torch.zeros(3)}}
    with pytest.raises(ValueError, match=r"(?s)experiments/x: checkpoint of another architecture.*body.bias \(3\)"):
        make().load_state_dict(narrow, "experiments/x")
    with pytest.raises(ValueError, match=r"experiments/x: the saved optimizer has other groups.*fix_lr_mul"):
        make(fix_iter=1, fix_keys=["spynet"], fix_lr_mul=0.5).load_state_dict(state, "experiments/x")


def test_a_batch_is_split_into_equal_parts() -> None:
    parts = list(split(batch(1, 6), 3))
    assert [part["key"] for part in parts] == [[f"clip/1_{k}", f"clip/1_{k + 1}"] for k in (0, 2, 4)]
    assert torch.equal(torch.cat([part["L"] for part in parts]), batch(1, 6)["L"])
    with pytest.raises(ValueError, match=r"accumulate_grad: 4 parts do not divide this rank's 6 samples"):
        list(split(batch(1, 6), 4))
    check_parts(6, 3)


@pytest.mark.parametrize(
    "name, expected", [("auto", None), (None, None), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_types_of_autocast_on_a_cpu(name: str | None, expected: torch.dtype | None) -> None:
    assert amp_dtype(name, torch.device("cpu")) is expected


def test_a_model_needs_its_losses() -> None:
    model = ModelBase(Net(), make().train_options, CPU)
    with pytest.raises(TypeError, match="ModelBase must define compute_losses"):
        model.optimize_parameters(1, batch(1))


def _flat(optimizer: dict[str, Any]) -> Tensor:
    """The moments and step numbers of an optimizer's state in one vector."""
    states = [optimizer["state"][key] for key in sorted(optimizer["state"])]
    return torch.cat([value.detach().clone().flatten().float() for state in states for value in state.values()])
