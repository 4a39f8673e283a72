"""Choices kept in the user's cache: read back in the same circumstances, and in no other."""

import logging
from pathlib import Path

import pytest
import torch

from models.layers.backends import choices
from models.layers.backends.choices import Choice, choice_file, driver_version, environment, package_version

KEY = {**environment(torch.device("cpu")), "work": [1, 2]}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("S_VRT_RETUNE", raising=False)
    return tmp_path / "s_vrt"


def test_what_is_written_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Choice.read(KEY) is None
    assert Choice(KEY, "fast", "1 ms").write() == choice_file(KEY)
    assert Choice.read(KEY) == Choice(KEY, "fast", "1 ms")
    for name in ("torch", "triton", "code", "device", "threads", "vectors"):
        assert name in KEY and Choice.read({**KEY, name: "another"}) is None
    monkeypatch.setenv("S_VRT_RETUNE", "1")
    assert Choice.read(KEY) is None


def test_a_file_that_is_damaged_is_told_and_measured_anew(caplog: pytest.LogCaptureFixture) -> None:
    path = Choice(KEY, "fast", "1 ms").write()
    assert path is not None
    for content in ('{"name": "fa', "[]", '{"name": "fast"}'):
        path.write_text(content)
        assert Choice.read(KEY) is None
    assert len(caplog.messages) == 3 and all("measured again" in message for message in caplog.messages)


def test_without_a_cache_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert Choice(KEY, "fast", "1 ms").write() is None
    assert "can't be stored" in caplog.text


@pytest.mark.parametrize(
    "text, version",
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26\nGCC version: 12.2.0", "570.124.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build", "580.159.03"),
    ],
)
def test_driver(text: str, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(choices, "DRIVER", tmp_path / "version")
    assert driver_version() == version


@pytest.mark.parametrize(
    "script, version", [("echo 580.159.03; echo 580.159.03", "580.159.03"), ("exit 9", None), (None, None)]
)
def test_driver_where_the_kernel_tells_nothing(
    script: str | None, version: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr(choices, "DRIVER", tmp_path / "missing")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() == version


def test_packages() -> None:
    assert package_version("torch") and package_version("no-such-package") is None
