"""A network's weights from every layout, loaded by name with a comparison that can be read."""

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder
from utils.utils_weights import check_optimizer_state, load_network_weights, load_strict


def network(width: int = 4, extra: bool = False) -> nn.Module:
    return nn.ModuleDict({"head": nn.Linear(3, width), **({"tail": nn.Linear(width, 2)} if extra else {})})


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(network().state_dict())


def test_all_layouts_of_a_file(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    average = {key: value + 1 for key, value in weights.items()}
    layouts = {
        "bare": (weights, False),
        "params": ({"params": weights}, False),
        "both": ({"params": weights, "params_ema": average}, True),
        "only_ema": ({"params_ema": average}, True),
        "state": ({"netG": weights, "netE": average, "samples": 3}, True),
        "no_average": ({"netG": weights, "netE": None}, False),
        "ddp": ({f"module.{key}": value for key, value in weights.items()}, False),
    }
    for name, (content, has_average) in layouts.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        for prefer_ema in (False, True):
            expected = average if has_average and (prefer_ema or name == "only_ema") else weights
            found = load_network_weights(path, prefer_ema=prefer_ema)
            assert list(found) == list(weights), name
            assert all(torch.equal(found[key], expected[key]) for key in weights), (name, prefer_ema)


def test_only_the_weights_asked_for(
    tmp_path: Path, weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """What is taken of a file with both is said; what it does not hold is refused."""
    both = tmp_path / "both.pth"
    torch.save({"params": weights, "params_ema": {key: value + 1 for key, value in weights.items()}}, both)
    with caplog.at_level(logging.INFO):
        load_network_weights(both, only=True)
        load_network_weights(both, prefer_ema=True, only=True)
    assert "weights 'params' are taken and not 'params_ema'; --weights of main_test_vrt.py chooses" in caplog.text
    assert "weights 'params_ema' are taken and not 'params'" in caplog.text
    for content, prefer_ema in ((weights, True), ({"params": weights}, True), ({"params_ema": weights}, False)):
        torch.save(content, both)
        with pytest.raises(ValueError, match=r"both\.pth: holds .*leave --weights out"):
            load_network_weights(both, prefer_ema=prefer_ema, only=True)
    torch.save(weights, both)
    assert torch.equal(load_network_weights(both, only=True)["head.weight"], weights["head.weight"])


def test_folders_give_their_newest_checkpoint(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    checkpoints = CheckpointFolder(tmp_path / "experiment")
    checkpoints.save(1, {"netG": weights})
    newest = {key: value * 2 for key, value in weights.items()}
    folder = checkpoints.save(2, {"netG": newest, "netE": weights})
    for path in (tmp_path / "experiment", tmp_path / "experiment" / "checkpoints", folder):
        assert torch.equal(load_network_weights(path)["head.weight"], newest["head.weight"])
        assert torch.equal(load_network_weights(path, prefer_ema=True)["head.weight"], weights["head.weight"])
    with pytest.raises(ValueError, match="no checkpoint in this folder"):
        load_network_weights(tmp_path)


def test_missing_cut_and_wrong_files_are_named(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(ValueError, match=r"x\.pth: there is no such file"):
        load_network_weights(path)
    torch.save(weights, path)
    content = path.read_bytes()
    for kept in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"x\.pth.*Copy or download it again"):
            load_network_weights(path)
    path.write_text("<html>404: not found</html>")
    with pytest.raises(ValueError, match=r"x\.pth.*Copy or download it again"):
        load_network_weights(path)
    optimizer = torch.optim.Adam(network().parameters()).state_dict()
    for wrong in (optimizer, [1, 2], {}, {"params": {"a": 3}}):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=r"x\.pth: holds no network's weights"):
            load_network_weights(path)


def test_strict_loading_lists_every_difference_and_changes_nothing(weights: dict[str, torch.Tensor]) -> None:
    net = network(5, extra=True)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_strict(net, {**weights, "old.bias": torch.zeros(7)}, "x.pth")
    message = str(caught.value)
    assert message.startswith("x.pth: checkpoint of another architecture")
    assert "2 missing in the checkpoint:\n    tail.weight (2, 5)\n    tail.bias (2)" in message
    assert "1 unknown to the network:\n    old.bias (7)" in message
    assert "2 of another shape:\n    head.weight (4, 3), network (5, 3)\n    head.bias (4), network (5)" in message
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_long_lists_are_cut() -> None:
    with pytest.raises(ValueError) as caught:
        load_strict(nn.Linear(1, 1), {f"k{index}": torch.zeros(1) for index in range(13)}, "x.pth")
    assert "k9 (1)" in str(caught.value) and "k10" not in str(caught.value) and "... and 3 more" in str(caught.value)


def test_equal_architectures_load_fully(weights: dict[str, torch.Tensor]) -> None:
    net = network()
    reordered = dict(reversed(weights.items()))
    assert load_strict(net, reordered, "x.pth") == []
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


def test_partial_loading_goes_by_name_and_says_what_it_left(
    weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    net = network(extra=True)
    tail = net["tail"].weight.detach().clone()
    # The same shapes in another order under other names must not be taken.
    content = {"other.weight": torch.ones(4, 3), **weights, "tail.weight": torch.ones(2, 9)}
    with caplog.at_level(logging.WARNING):
        skipped = load_strict(net, content, "x.pth", strict=False)
    assert sorted(skipped) == ["other.weight", "tail.bias", "tail.weight"]
    assert torch.equal(net["head"].weight, weights["head.weight"]) and torch.equal(net["tail"].weight, tail)
    assert "2 of 4 tensors are loaded" in caplog.text and "tail.weight (2, 9), network (2, 4)" in caplog.text
    with pytest.raises(ValueError, match="another architecture"):
        load_strict(net, {"foreign": torch.ones(1)}, "x.pth", strict=False)


def bad_tensors() -> dict[str, torch.Tensor]:
    plain = torch.ones(4, 3)
    nan = plain.clone()
    nan[1, 2] = float("nan")
    return {
        "not finite": nan,
        "infinite": plain.double() * 1e39,
        "sparse": plain.to_sparse(),
        "complex64": plain.to(torch.complex64),
        "quint8": torch.quantize_per_tensor(plain, 0.1, 0, torch.quint8),
        "no values": torch.empty(4, 3, device="meta"),
        "stores fewer": torch.ones(1).expand(4, 3),
        "of another kind of number": plain.to(torch.int64),
    }


@pytest.mark.parametrize("message", bad_tensors())
def test_tensors_that_are_no_weights(tmp_path: Path, weights: dict[str, torch.Tensor], message: str) -> None:
    net, path = network(), tmp_path / "x.pth"
    torch.save({**weights, "head.weight": bad_tensors()[message]}, path)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UserError, match=rf"x\.pth: [\s\S]*({message}[\s\S]*head\.weight|head\.weight.*{message})"):
        load_strict(net, load_network_weights(path), path)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_names_that_are_numbers(tmp_path: Path) -> None:
    torch.save({0: torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds no network's weights but 0"):
        load_network_weights(tmp_path / "x.pth")
    for content in ([1], {"netG": 3}, None):
        with pytest.raises(UserError, match="holds no network's weights"):
            load_strict(network(), content, "x.pth")  # type: ignore[arg-type]


def test_every_flipped_bit_is_refused_or_harmless(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path, rng = tmp_path / "x.pth", np.random.default_rng(0)
    torch.save(weights, path)
    content, refused = path.read_bytes(), 0
    for bit in rng.integers(8 * len(content), size=150):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            found = load_network_weights(path)
        except UserError as error:
            assert "x.pth" in str(error)
            refused += 1
        else:
            assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)
    assert refused > 20


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state["state"][0]["exp_avg"].view(-1).__setitem__(0, float("nan")), "not finite"),
        (lambda state: state["state"][0].update(exp_avg=torch.zeros(2)), "of another shape"),
        (lambda state: state["state"][0]["exp_avg_sq"].fill_(-1.0), "squares below 0"),
        (lambda state: state["state"][0].update(step=torch.tensor(float("inf"))), "a step that is no count"),
        (lambda state: state["state"][0].update(step=torch.tensor(0.5)), "a step that is no count"),
        (lambda state: state["state"][0].pop("step"), "no step"),
        (lambda state: state["state"].update({7: {}}), "in no group"),
        (lambda state: state["param_groups"][0].update(params=[0, 0]), "names parameters twice"),
        (lambda state: state["param_groups"][0].update(params=[0]), "other groups of parameters"),
        (lambda state: state.update(param_groups=3), "is no state of an optimizer"),
    ],
)
def test_states_that_are_no_optimizers(change: Callable[[dict[str, Any]], object], message: str) -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    net["head"](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = deepcopy(optimizer.state_dict())
    check_optimizer_state(state, optimizer, "models")
    change(state)
    with pytest.raises(UserError, match=f"models: the saved optimizer .*{message}"):
        check_optimizer_state(state, optimizer, "models")
