"""Reads a network's weights from checkpoint files and folders, checks them, and loads them by name."""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.user_error import UserError
from utils.utils_checkpoint import STATE, CheckpointFolder, load_plain, read_checkpoint

logger = logging.getLogger(__name__)

SHOWN = 10  # keys listed in a message, which then fits a screen
DDP_PREFIX = "module."  # DistributedDataParallel's prefix of parameter names


def load_network_weights(path: Path | str, prefer_ema: bool = False, only: bool = False) -> dict[str, Tensor]:
    """The weights of one network, on the CPU.

    Args:
        path: a file with a bare state_dict (KAIR's `<iter>_G.pth`), with {'params': ...} and / or {'params_ema': ...}
            (published models); or a folder: an experiment or its `checkpoints`, of which the newest checkpoint is read,
            or one `step_...`.
        prefer_ema: read the moving average (`params_ema`, `netE`) if there is one.
        only: accept the preferred weights only; a bare state_dict is not a moving average.

    Returns:
        Names and tensors, without DDP's prefix of the names.

    Raises:
        UserError: missing, damaged, or without a network's weights; the message names the file and a remedy.
    """
    path = Path(path)
    content = _load_folder(path) if path.is_dir() else load_plain(path)
    weights = _choose(content, path, prefer_ema, only)
    if not weights or not all(isinstance(k, str) and isinstance(value, Tensor) for k, value in weights.items()):
        keys = ", ".join(map(str, list(content)[:SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(
            f"{path}: holds no network's weights but {keys or 'nothing'}; give a <iter>_G.pth or <iter>_E.pth, "
            f"a file with 'params' or 'params_ema', or an experiment's folder"
        )
    check_tensors(weights, path)
    if all(name.startswith(DDP_PREFIX) for name in weights):
        logger.info("%s: the prefix %r of all names is removed", path, DDP_PREFIX)
        weights = {name.removeprefix(DDP_PREFIX): value for name, value in weights.items()}
    return dict(weights)


def check_tensors(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Checks that tensors are plain and finite.

    Args:
        tensors: weights or moments by name.
        path: their file, for messages.

    Raises:
        UserError: a tensor is sparse, quantized, complex or without content, or has values that are not finite in
            float32.
    """
    for name, tensor in tensors.items():
        fault = _fault(tensor)
        if fault:
            raise UserError(
                f"{path}: {name} {fault}; give a file of plain, finite tensors, as torch.save writes a network"
            )


def check_optimizer_state(saved: Any, optimizer: torch.optim.Optimizer, source: Path | str) -> None:
    """Checks that a saved state fits an optimizer.

    Args:
        saved: `state_dict` of an Adam or AdamW.
        optimizer: the optimizer that will load it.
        source: its file or folder, for messages.

    Raises:
        UserError: other groups of parameters, moments of other shapes, or values that Adam can't produce.
    """
    fault = next(_optimizer_faults(saved, optimizer), None)
    if fault is not None:
        raise UserError(
            f"{source}: the saved optimizer {fault}; set train.fix_iter, fix_keys and fix_lr_mul as they were, or "
            f"go on under a new task with path.pretrained_netG"
        )


def _fault(tensor: Tensor) -> str:
    """Why a tensor can't be a network's weight; "" if it can."""
    if tensor.is_meta:
        return "has a shape but no values (device meta)"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"is sparse or nested ({tensor.layout})"
    if tensor.is_quantized or tensor.is_complex():
        return f"holds {tensor.dtype}, which no network here has"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"claims {tensor.numel()} values and stores fewer"
    # Check in float32, the networks' type: a float64 beyond its range would become infinite.
    if tensor.is_floating_point() and not tensor.float().isfinite().all():
        return "has values that are not finite numbers (NaN or infinite)"
    return ""


def load_strict(net: nn.Module, state_dict: Mapping[str, Tensor], path: Path | str, strict: bool = True) -> list[str]:
    """Loads weights by name, never by position.

    Args:
        net: the network.
        state_dict: names and tensors.
        path: their file, for messages.
        strict: every name and shape must match. Otherwise matching tensors are loaded, and the others are logged.

    Returns:
        Names that were not loaded: empty with `strict`.

    Raises:
        UserError: with `strict`, a checkpoint of another architecture (the message lists the keys that differ);
            without it, one in which no tensor matches. The network is unchanged.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise UserError(f"{path}: holds no network's weights; give a <iter>_G.pth or an experiment's folder")
    check_tensors(state_dict, path)
    own = net.state_dict()
    shared = [name for name in own if name in state_dict]
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    reshaped = [name for name in shared if own[name].shape != state_dict[name].shape]
    other = [name for name in shared if own[name].is_floating_point() != state_dict[name].is_floating_point()]
    shapes = {name: f"{name} {_shape(tensor)}" for name, tensor in [*own.items(), *state_dict.items()]}
    differences = (
        _listed("missing in the checkpoint", [shapes[name] for name in missing])
        + _listed("unknown to the network", [shapes[name] for name in unexpected])
        + _listed("of another shape", [f"{shapes[name]}, network {_shape(own[name])}" for name in reshaped])
        + _listed(
            "of another kind of number",
            [f"{name} {state_dict[name].dtype}, network {own[name].dtype}" for name in other],
        )
    )
    matching = {name: state_dict[name] for name in shared if name not in {*reshaped, *other}}
    if differences and (strict or not matching):
        raise UserError(
            f"{path}: checkpoint of another architecture; compare netG in the options with those it was trained "
            f"with{differences}"
        )
    if differences:
        logger.warning("%s: %d of %d tensors are loaded%s", path, len(matching), len(own), differences)
    net.load_state_dict(matching, strict=False)
    return [*missing, *unexpected, *reshaped, *other]


def _optimizer_faults(saved: Any, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """Faults of a saved state of Adam or AdamW, as predicates of "the saved optimizer ..."."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        numbers = [[int(number) for number in group["params"]] for group in saved["param_groups"] if group["params"]]
        state = {int(number): dict(moments) for number, moments in saved["state"].items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        yield "is no state of an optimizer"
        return
    if [len(group) for group in numbers] != [len(group["params"]) for group in optimizer.param_groups]:
        yield "has other groups of parameters"
        return
    order = [number for group in numbers for number in group]
    if len(set(order)) != len(order) or not state.keys() <= set(order):
        yield "names parameters twice, or ones that are in no group"
        return
    for number, parameter in zip(order, parameters, strict=True):
        moments = state.get(number)
        if moments is not None:
            yield from (f"has for parameter {number} {fault}" for fault in _moment_faults(moments, parameter))


def _moment_faults(moments: dict[str, Any], parameter: Tensor) -> Iterator[str]:
    """Faults of one parameter's `step`, `exp_avg` and `exp_avg_sq`."""
    if not {"step", "exp_avg", "exp_avg_sq"} <= moments.keys():
        yield "no step, exp_avg and exp_avg_sq"
        return
    step = moments["step"]
    if isinstance(step, Tensor):
        step = float(step) if step.numel() == 1 and not step.is_complex() else None
    # Adam counts steps from 1 and divides by 1 - beta ** step, which is 0 at step 0.
    if not isinstance(step, (int, float)) or not (math.isfinite(step) and step >= 1 and step == int(step)):
        yield f"a step that is no count: {moments['step']}"
    for name in ("exp_avg", "exp_avg_sq"):
        moment = moments[name]
        if not isinstance(moment, Tensor) or moment.shape != parameter.shape or not moment.is_floating_point():
            yield f"a moment {name} of another shape or type than its weights {tuple(parameter.shape)}"
            continue
        if fault := _fault(moment):
            yield f"a moment {name} that {fault}"
        elif name == "exp_avg_sq" and bool((moment < 0).any()):
            yield "a mean of squares below 0"


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


def _choose(content: Any, path: Path, prefer_ema: bool, only: bool) -> Mapping[str, Any]:
    """The state_dict in a checkpoint: the value of a known key, or the content itself."""
    if not isinstance(content, Mapping):
        return {}
    for plain, average in (("params", "params_ema"), ("netG", "netE")):
        order = [average, plain] if prefer_ema else [plain, average]
        found = [name for name in order if isinstance(content.get(name), Mapping)]
        if found and not (only and found[0] != order[0]):
            beside = f" and not {found[1]!r}; --weights of main_test_vrt.py chooses" if len(found) > 1 else ""
            logger.info("%s: weights %r are taken%s", path, found[0], beside)
            result: Mapping[str, Any] = content[found[0]]
            return result
        if found:
            raise UserError(f"{path}: holds {found[0]!r} and no {order[0]!r}; leave --weights out")
    if only and prefer_ema:
        raise UserError(f"{path}: holds one network and no moving average; leave --weights out")
    return content


def _listed(title: str, entries: list[str]) -> str:
    """A title followed by the first entries; "" without entries."""
    if not entries:
        return ""
    more = [f"... and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return f"\n  {len(entries)} {title}:" + "".join(f"\n    {entry}" for entry in [*entries[:SHOWN], *more])


def _shape(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
