"""A network's weights from every layout, loaded by name with a comparison that can be read."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from utils.utils_checkpoint import CheckpointFolder
from utils.utils_weights import load_network_weights, load_strict


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
