"""Base of every trained model: the network and its moving average, the optimizer step, and the state to save.

A model is a subclass with `compute_losses`. A step consists of: learning rate, random seed, gradients of every
micro-batch, clipping, a check of all ranks that loss and gradient are finite, optimizer, moving average.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.training.execution import compile_blocks, make_deterministic
from models.training.schedule import learning_rate
from utils.user_error import UserError
from utils.utils_dist import Dist, all_gather_object, all_reduce_sum, any_rank
from utils.utils_option import TrainOptions
from utils.utils_timer import Timer
from utils.utils_weights import check_optimizer_state, load_strict

logger = logging.getLogger(__name__)

Batch = Mapping[str, Any]


class TrainingStopped(RuntimeError):
    """Training can't go on: the loss stayed infinite or not a number."""


class ModelBase:
    """A network in training.

    Args:
        netG: the network; moved to the device of this rank.
        train: the `train` section of the options.
        dist: rank, number of ranks and device.
        find_unused_parameters: passed to DistributedDataParallel.

    Attributes:
        netG: the bare network. netE: its moving average, or None with `E_decay` 0.
        log: measurements of the last step on this rank, as detached tensors or numbers.
        timer: times the parts of a step: forward, backward, step (the optimizer's).
        bad_steps: number of steps skipped in a row. bad_steps_file: file to which rank 0 adds a JSON line for each;
            None: no file.
    """

    def __init__(self, netG: nn.Module, train: TrainOptions, dist: Dist, find_unused_parameters: bool = False) -> None:
        if train.deterministic:
            make_deterministic(dist.device)
        self.train_options = train
        self.dist = dist
        self.find_unused_parameters = find_unused_parameters
        self.netG = netG.to(dist.device)
        self.netE = deepcopy(self.netG).eval().requires_grad_(False) if train.E_decay > 0 else None
        self.amp_dtype = amp_dtype(train.amp_dtype, dist.device)
        self.scaler = torch.amp.GradScaler(dist.device.type, enabled=self.amp_dtype is torch.float16)
        self.optimizer = self._define_optimizer()
        self.timer = Timer(dist.device)
        self.bad_steps = 0
        self.bad_steps_file: Path | None = None
        self.log: dict[str, Tensor | float] = {}
        self._sums: dict[str, Tensor | float] = {}
        self._summed = 0
        self._fixed: bool | None = None
        self.network: nn.Module = self.netG

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss for a micro-batch on this rank's device, by name; their sum is minimised."""
        raise TypeError(f"{type(self).__name__} must define compute_losses")

    @property
    def tested_network(self) -> nn.Module:
        """The network that tests use: the moving average where there is one."""
        return self.netG if self.netE is None else self.netE

    def current_learning_rate(self) -> float:
        """Learning rate of the first parameter group in the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def measured(self) -> dict[str, float]:
        """`log` averaged over the steps taken since the last call, and over the ranks; every rank must call this.

        The mean over steps, because the loss of a single small batch depends more on its samples than on the network's
        progress. If every step was skipped, the numbers of the last one.
        """
        sums, count = (self._sums, self._summed) if self._summed else (self.log, 1)
        totals = all_reduce_sum([float(value) / count for value in sums.values()], self.dist)
        self._sums, self._summed = {}, 0
        return dict(zip(sums, (totals / self.dist.world_size).tolist(), strict=True))

    def prepare(self, step: int) -> None:
        """Compiles blocks before the first step; freezes the parameters of `fix_keys` before step `fix_iter`, and wraps
        the network for DDP whenever that changes.

        DDP reads `requires_grad` when it wraps. Parameters unfrozen later would not be reduced, so the ranks' weights
        would silently differ (with a static graph the run ends); the wrapper is therefore recreated at the switch.
        """
        fixed = step < (self.train_options.fix_iter or 0)
        if fixed == self._fixed:
            return
        for name, parameter in self.netG.named_parameters():
            if self._is_fixable(name):
                parameter.requires_grad_(not fixed)
                parameter.grad = None
        if self._fixed is None and self.train_options.compile:
            compile_blocks(self.netG)
        if self._fixed is not None:
            logger.info(
                "Step %d: the parameters of fix_keys %s are trained from here on.", step, self.train_options.fix_keys
            )
        self._fixed = fixed
        self.network = self.netG
        if self.dist.world_size > 1:
            self.network = DistributedDataParallel(
                self.netG,
                device_ids=[self.dist.device.index] if self.dist.device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=self.find_unused_parameters,
                gradient_as_bucket_view=True,
            )

    def optimize_parameters(self, step: int, batch: Batch) -> bool:
        """One optimizer step on this rank's share of the global batch.

        Args:
            step: number of the step, counted from 1.
            batch: tensors with this rank's samples first, as the loader gives them.

        Returns:
            Whether the step was taken: a loss or gradient that is not finite on any rank skips it on all.

        Raises:
            TrainingStopped: `train.max_bad_steps` steps in a row were skipped.
        """
        self.prepare(step)
        self._set_learning_rate(step)
        # Drop path's random numbers depend on (seed, rank, step) alone, so that a resumed run draws the same ones.
        entropy = np.random.SeedSequence([self.train_options.manual_seed, self.dist.rank, step])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        self.netG.train()
        if not self._accumulate_gradients(batch):
            self._skip(step, batch)
            return False
        self.scaler.unscale_(self.optimizer)
        limit = self.train_options.G_optimizer_clipgrad or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), limit, foreach=True)
        self.log["grad_norm"] = norm.detach()
        # With fp16 the scaler itself finds infinite gradients and lowers its scale, so only the loss is checked here.
        judged = self.log["G_loss"] if self.scaler.is_enabled() else self.log["G_loss"] + self.log["grad_norm"]
        if any_rank(~torch.isfinite(torch.as_tensor(judged)), self.dist):
            if self.scaler.is_enabled():
                self.scaler.update()
            self._skip(step, batch)
            return False
        with self.timer.section("step"):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.bad_steps = 0
        # Summed on the device: reading the numbers would make every step wait for it.
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in self.log.items()}
        self._summed += 1
        self._update_average()
        return True

    def to_device(self, batch: Batch) -> dict[str, Any]:
        """The batch with its tensors on this rank's device."""
        return {
            key: value.to(self.dist.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The state from which training continues bit for bit, together with the counter of samples."""
        return {
            "netG": self.netG.state_dict(),
            "netE": None if self.netE is None else self.netE.state_dict(),
            "optimizerG": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "bad_steps": self.bad_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path | str) -> None:
        """Restores a state from `state_dict`; parts that KAIR's files lack (optimizer, average) may be missing.

        Args:
            source: the experiment's folder, for messages.

        Raises:
            UserError: the state is of another architecture (the message lists the keys) or has other parameter groups.
        """
        load_strict(self.netG, state["netG"], source)
        if self.netE is not None:
            load_strict(self.netE, state.get("netE") or state["netG"], source)
        if state.get("optimizerG"):
            self.optimizer.load_state_dict(_with_current_rates(state["optimizerG"], self.optimizer, source))
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.bad_steps = state.get("bad_steps", 0)

    def _define_optimizer(self) -> torch.optim.Optimizer:
        """Adam or AdamW; parameters that `fix_keys` names form a group with `fix_lr_mul` times the learning rate.

        A group's learning rate at the start is its `initial_lr`, PyTorch's name: KAIR's scheduler reads it from our
        optimizer file, and would otherwise start from the decayed `lr`.
        """
        train = self.train_options
        multiplier = 1.0 if train.fix_lr_mul is None else train.fix_lr_mul
        slower = multiplier != 1
        groups: list[dict[str, Any]] = [{"params": [], "initial_lr": train.G_optimizer_lr}]
        groups += [{"params": [], "initial_lr": train.G_optimizer_lr * multiplier}] if slower else []
        for name, parameter in self.netG.named_parameters():
            groups[-1 if slower and self._is_fixable(name) else 0]["params"].append(parameter)
        # Drop empty groups, as KAIR does: 009's file has fix_lr_mul 0 without fix_keys.
        groups = [group for group in groups if group["params"]]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.G_optimizer_type]
        betas = (train.G_optimizer_betas[0], train.G_optimizer_betas[1])
        return kind(groups, lr=train.G_optimizer_lr, betas=betas, weight_decay=train.G_optimizer_wd)

    def _is_fixable(self, name: str) -> bool:
        """Whether `fix_keys` names this parameter and `fix_iter` is in use."""
        return bool(self.train_options.fix_iter) and any(key in name for key in self.train_options.fix_keys)

    def _set_learning_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, group["initial_lr"], self.train_options)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.netG.parameters() if p.grad is not None)

    def _accumulate_gradients(self, batch: Batch) -> bool:
        """Gradients and log of the mean loss over this rank's samples, in `accumulate_grad` parts.

        Returns:
            Whether the losses of all ranks are finite. The first loss that is not ends the step before its backward
            pass, where infinite coordinates of flow and deformable convolution would index memory out of bounds.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.train_options.accumulate_grad
        totals: dict[str, Tensor] = {}
        for index, part in enumerate(split(batch, parts)):
            last = index == parts - 1
            waits = not last and isinstance(self.network, DistributedDataParallel)
            with self.network.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with self.timer.section("forward"):
                    terms = self.compute_losses(self.to_device(part))
                    loss = torch.stack(list(terms.values())).sum() / parts
                for name, term in {"G_loss": loss * parts, **terms}.items():
                    totals[name] = totals.get(name, 0) + term.detach() / parts
                if any_rank(~torch.isfinite(loss.detach()), self.dist):
                    self.log = {**totals, "grad_norm": float("nan")}
                    return False
                with self.timer.section("backward"):
                    self.scaler.scale(loss).backward()
        self.log = dict(totals)
        return True

    def _skip(self, step: int, batch: Batch) -> None:
        """Counts and records a step that is not finite; raises TrainingStopped after too many in a row."""
        self.bad_steps += 1
        logger.warning("Step %d skipped: loss or gradient is not finite (%d in a row).", step, self.bad_steps)
        own = {"rank": self.dist.rank, "loss": f"{float(self.log['G_loss']):g}", "keys": batch.get("key")}
        ranks = all_gather_object(own, self.dist)
        if self.dist.is_main and self.bad_steps_file is not None:
            with open(self.bad_steps_file, "a", encoding="utf-8") as file:
                norm = f"{float(self.log['grad_norm']):g}"
                file.write(
                    json.dumps({"step": step, "in_a_row": self.bad_steps, "grad_norm": norm, "ranks": ranks}) + "\n"
                )
        if self.bad_steps >= self.train_options.max_bad_steps:
            told = "" if self.bad_steps_file is None else f" (all of them: {self.bad_steps_file})"
            losses = "; ".join(f"rank {rank['rank']}, loss {rank['loss']}: {rank['keys']}" for rank in ranks)
            raise TrainingStopped(
                f"{self.bad_steps} steps in a row had a loss or gradient that is not finite; samples of the last "
                f"one{told}: {losses}. Look at these files, lower train.G_optimizer_lr, or set "
                "train.G_optimizer_clipgrad."
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        """netE = E_decay * netE + (1 - E_decay) * netG, all tensors at once; buffers are copied."""
        if self.netE is None:
            return
        average = get_ema_multi_avg_fn(self.train_options.E_decay)
        average(list(self.netE.parameters()), list(self.netG.parameters()), None)
        for kept, current in zip(self.netE.buffers(), self.netG.buffers(), strict=True):
            kept.copy_(current)


def amp_dtype(name: str | None, device: torch.device) -> torch.dtype | None:
    """The type of autocast called `name`: "bf16", "fp16", None, or "auto" (bf16 on GPUs that have it, else none)."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def split(batch: Batch, parts: int) -> Iterator[dict[str, Any]]:
    """A batch cut into equal parts along its samples."""
    size = len(next(value for value in batch.values() if isinstance(value, Tensor)))
    check_parts(size, parts)
    for begin in range(0, size, size // parts):
        yield {key: value[begin : begin + size // parts] for key, value in batch.items()}


def check_parts(size: int, parts: int) -> None:
    """Raises UserError if `parts` does not divide the `size` samples of a rank's step."""
    if size % parts:
        raise UserError(
            f"train.accumulate_grad: {parts} parts do not divide this rank's {size} samples of a step "
            f"(datasets.train.dataloader_batch_size over all ranks)"
        )


def _with_current_rates(
    saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, source: Path | str
) -> dict[str, Any]:
    """The saved optimizer state, with the settings of this run's groups: edited options take effect on resuming.

    KAIR's files hold the learning rates of the saved step, and the `initial_lr` of KAIR's options.
    """
    now = optimizer.state_dict()["param_groups"]
    check_optimizer_state(saved, optimizer, source)
    before = [group for group in saved["param_groups"] if group["params"]]
    groups = [{**current, "params": old["params"]} for current, old in zip(now, before, strict=True)]
    return {"state": saved["state"], "param_groups": groups}
