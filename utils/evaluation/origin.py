"""Records the origin of results next to them; moves results of another origin aside, so that none are mixed or lost.

<folder>/about.json    task, checkpoint and its weights, data, tiles, commit, date, command
"""

import hashlib
import json
import logging
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.user_error import UserError
from utils.utils_file import atomic_write, read_json
from utils.utils_lock import NAME as LOCK

logger = logging.getLogger(__name__)

ABOUT = "about.json"  # name of the file with the origin
IDENTITY = ("task", "weights", "data", "tile")
"""Results that agree in these are of the same test; its files are replaced."""
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, whose commit is recorded."""


def describe(checkpoint: Path, network: nn.Module, command: str, **identity: Any) -> dict[str, str]:
    """The origin of a test's results.

    Args:
        checkpoint: path of the weights. network: the network with its weights loaded.
        command: the command line.
        identity: values of `task`, `data`, `tile`.
    """
    return {
        **{name: str(value) for name, value in identity.items()},
        "checkpoint": str(checkpoint),
        "weights": f"{weights_digest(network)} (digest of the loaded tensors, not of the file)",
        "commit": commit(),
        "date": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": command,
    }


def start_results(folder: Path, about: Mapping[str, str]) -> None:
    """Writes `about` into the folder; files of another test are moved to `<folder>_<date of its last change>`."""
    found = [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []
    if found and not _is_same(folder / ABOUT, about):
        date, number = f"{datetime.fromtimestamp(folder.stat().st_mtime):%Y%m%d_%H%M%S}", 1
        while (aside := folder.with_name(f"{folder.name}_{date}{f'_{number}' * (number > 1)}")).exists():
            number += 1
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
        logger.warning("%s held results of other weights, data or tiles: they are in %s now", folder, aside)
    with atomic_write(folder / ABOUT) as file:
        json.dump(dict(about), file, indent=1, ensure_ascii=False)


def _is_same(path: Path, about: Mapping[str, str]) -> bool:
    try:
        before = read_json(path)
        return all(before.get(name) == about[name] for name in IDENTITY)
    except (UserError, OSError, AttributeError):
        return False


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def commit() -> str:
    """The checkout's commit, followed by "(changed)" if tracked files differ; "not a git checkout" outside of git."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, check=True, text=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return name.stdout.strip() + (" (changed)" if changes.stdout.strip() else "")
