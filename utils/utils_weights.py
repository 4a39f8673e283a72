"""A network's weights: out of any checkpoint file or folder, into a network, by name."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.user_error import UserError
from utils.utils_checkpoint import STATE, CheckpointFolder, load_plain, read_checkpoint

logger = logging.getLogger(__name__)

SHOWN = 10  # keys named in a message
DDP_PREFIX = "module."


def load_network_weights(path: Path | str, prefer_ema: bool = False) -> dict[str, Tensor]:
    """The weights of one network, on the CPU.

    Args:
        path: a file with a bare state_dict (KAIR's `<iter>_G.pth`), with {'params': ...} and / or {'params_ema': ...}
            (published models); or a folder: an experiment (its newest checkpoint is taken), its `checkpoints`, or one
            `step_...` of them.
        prefer_ema: take the moving average where there is one (`params_ema`, `netE`).

    Returns:
        Names and tensors; the prefix that DDP puts before the names is removed.

    Raises:
        UserError: missing, damaged, or without a network's weights; the message names the file and a remedy.
    """
    path = Path(path)
    content = _load_folder(path) if path.is_dir() else load_plain(path)
    weights = _choose(content, path, prefer_ema)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        keys = ", ".join(map(str, list(content)[:SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path}: holds no network's weights but {keys or 'nothing'}; give a <iter>_G.pth or <iter>_E.pth, "
            f"a file with 'params' or 'params_ema', or an experiment's folder"
        )
    if all(name.startswith(DDP_PREFIX) for name in weights):
        logger.info("%s: the prefix %r of all names is removed", path, DDP_PREFIX)
        weights = {name.removeprefix(DDP_PREFIX): value for name, value in weights.items()}
    return dict(weights)


def load_strict(net: nn.Module, state_dict: Mapping[str, Tensor], path: Path | str, strict: bool = True) -> list[str]:
    """Loads weights by name, never by position.

    Args:
        net: the network.
        state_dict: names and tensors.
        path: where they are from, for messages.
        strict: every name and shape must match. Otherwise what matches is loaded, and the log says what was not.

    Returns:
        Names that were not loaded: empty with `strict`.

    Raises:
        UserError: with `strict`, a checkpoint of another architecture, listing the keys that differ; without it,
            one where nothing matches. The network is unchanged.
    """
    own = net.state_dict()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    reshaped = [name for name in own if name in state_dict and own[name].shape != state_dict[name].shape]
    parts = [
        _listed("missing in the checkpoint", [f"{name} {_shape(own[name])}" for name in missing]),
        _listed("unknown to the network", [f"{name} {_shape(state_dict[name])}" for name in unexpected]),
        _listed(
            "of another shape",
            [f"{name} {_shape(state_dict[name])}, network {_shape(own[name])}" for name in reshaped],
        ),
    ]
    differences = "".join(part for part in parts if part)
    matching = {name: value for name, value in state_dict.items() if name in own and name not in set(reshaped)}
    if differences and (strict or not matching):
        raise UserError(
            f"{path}: checkpoint of another architecture; compare netG in the options with those it was trained "
            f"with{differences}"
        )
    if differences:
        logger.warning("%s: %d of %d tensors are loaded%s", path, len(matching), len(own), differences)
    net.load_state_dict(matching, strict=False)
    return [*missing, *unexpected, *reshaped]


def _load_folder(path: Path) -> Any:
    """The state in an experiment's folder, or in one of its checkpoints."""
    if (path / STATE).exists():
        return read_checkpoint(path)
    found = CheckpointFolder(path.parent if path.name == "checkpoints" else path).load_newest()
    if found is None:
        raise UserError(
            f"{path}: there is no checkpoint in this folder; train first, or give another with --checkpoint"
        )
    logger.info("%s: the checkpoint of step %d is taken", path, found[0])
    return found[1]


def _choose(content: Any, path: Path, prefer_ema: bool) -> Mapping[str, Any]:
    """The state_dict in a checkpoint's content: under a known name, or the content itself."""
    if not isinstance(content, Mapping):
        return {}
    for plain, average in (("params", "params_ema"), ("netG", "netE")):
        order = [average, plain] if prefer_ema else [plain, average]
        for name in order:
            if isinstance(content.get(name), Mapping):
                logger.info("%s: weights %r are taken", path, name)
                return content[name]
    return content


def _listed(title: str, entries: list[str]) -> str:
    """A title with the first entries below it; empty without entries."""
    if not entries:
        return ""
    more = [f"... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return f"\n  {len(entries)} {title}:" + "".join(f"\n    {entry}" for entry in [*entries[:SHOWN], *more])


def _shape(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
