"""What a dry run tells; the rest of it is in tests/test_main_train.py."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from models.training import dry_run
from tests.tiny import TinyRun


def told(run: TinyRun, caplog: pytest.LogCaptureFixture, *overrides: str) -> str:
    with caplog.at_level(logging.INFO):
        assert run.train(*overrides, flags=("--dry-run",)) == 0
    assert not run.folder.parent.exists()
    return caplog.text


def test_memory_is_estimated_for_a_part_of_a_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = ["datasets.train.dataloader_batch_size=4", "train.accumulate_grad=2"]
    text = told(TinyRun.make(tmp_path), caplog, *clips)
    assert "memory per GPU, estimated for CUDA and 2 clips at a time: 0." in text
    assert "autocast to bfloat16" in text and "first step: " in text


def test_a_cpu_takes_no_step_of_a_large_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "CPU_BYTES", 1000)
    text = told(TinyRun.make(tmp_path), caplog)
    assert "no step taken" in text and "first step" not in text


def test_a_step_that_does_not_fit_is_told_with_remedies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(dry_run.ModelBase, "optimize_parameters", refuse)
    text = told(TinyRun.make(tmp_path), caplog)
    assert "does not fit into the memory of cpu: lower datasets.train.gt_size" in text
    assert "Tried to allocate 2.00 GiB" in text and "first step:" not in text
