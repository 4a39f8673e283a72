"""Checkpoints: a run's whole state, written completely or not at all, so that a run can resume after any crash.

    experiments/<task>/checkpoints/step_00005000/state.pth    the state from which the run continues
                                                /meta.json    step, format, torch version, size and SHA-256 of state.pth
                                                /COMPLETE     written last
                                                /score.json   the step's score, once it is tested
                                                /PINNED       created by the user: this checkpoint is never removed
    experiments/<task>/checkpoints/best.json                  step and score of the best one, which is never removed
    experiments/<task>/models/5000_G.pth, 5000_E.pth, 5000_optimizerG.pth     the same tensors under KAIR's names
                                                          (beside each: <name>.sha256)

A state is a dict of tensors and plain values. Its entries `netG`, `netE` and `optimizerG` (state_dicts, or None) are
also written as KAIR's files; if only those exist, they are loaded. Rank 0 saves; every rank may load.
Files are read with `weights_only=True`, so that a checkpoint of unknown origin can't run code.
"""

import errno
import json
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from utils.user_error import UserError
from utils.utils_file import atomic_write, check_sha256, digest_file, open_regular, read_json, sha256_of, write_sha256

logger = logging.getLogger(__name__)

FORMAT = 1  # increased when a checkpoint's layout changes; newer formats are refused
KAIR_NAMES = {"netG": "G", "netE": "E", "optimizerG": "optimizerG"}  # key of a state: KAIR's name in the file's name
STATE, META, COMPLETE, PINNED, SCORE, BEST = "state.pth", "meta.json", "COMPLETE", "PINNED", "score.json", "best.json"
FOLDER_ATTRIBUTE = 0x10  # MS-DOS's attribute of a folder, in a zip file's directory
# Prefixes of a folder being written, and of an old folder that is being replaced by a new one of the same step.
UNFINISHED, SET_ASIDE = ".unfinished_", ".replaced_"


class DamagedFile(UserError):
    """A file that is incomplete, cut short or altered; the message names it."""


class NotSaved(Exception):
    """A checkpoint could not be written; the message gives the reason and says that earlier ones are intact."""


class CheckpointFolder:
    """The checkpoints of one experiment.

    Args:
        experiment_dir: `experiments/<task>`.
        keep: number of newest checkpoints to keep, besides the best and the pinned ones; None: all.

    Raises:
        UserError: `keep` is below 1.
    """

    def __init__(self, experiment_dir: Path | str, keep: int | None = 3) -> None:
        if keep is not None and keep < 1:
            raise UserError(f"train.checkpoint_keep: {keep}; at least 1 checkpoint must be kept, null keeps all")
        self.folder = Path(experiment_dir) / "checkpoints"
        self.models = Path(experiment_dir) / "models"
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Writes a checkpoint and KAIR's files, then removes old checkpoints. Rank 0 only.

        Earlier checkpoints are untouched until the new one has its final name.

        Args:
            step: optimizer steps taken.
            state: tensors on any device and plain values; with `netG`, see the module.

        Returns:
            The checkpoint's folder.

        Raises:
            TypeError: a value of the state is neither a tensor nor plain, so that it could not be loaded.
            NotSaved: the disk is full or can't be written; the message names the file.
        """
        assert state.get("netG"), "a state needs the network's weights under 'netG'"
        portable = _portable(state, "state", {})
        with _explained(step, self.folder):
            self._clean()
            final = self._write_folder(step, portable)
            self._write_kair(step, portable)
            self._prune(step)
        return final

    def finish(self, step: int) -> None:
        """Completes the save of `step` after a crash: removes unfinished files, writes KAIR's files. Rank 0 only."""
        with _explained(step, self.folder):
            self._clean()
            last = self.models / f"{step}_{KAIR_NAMES['optimizerG']}.pth"
            if step in self.steps() and not digest_file(last).exists():
                self._write_kair(step, read_checkpoint(self._name(step)))

    def record_score(self, step: int, score: float) -> None:
        """Records the test score of a saved step (higher is better); the best step is never removed. Rank 0 only."""
        if score > self._best().get("score", -float("inf")):
            _write_json(self.folder / BEST, {"step": step, "score": score})
        _write_json(self._name(step) / SCORE, {"score": score if score == score else None})
        self._prune(max(self.steps()))

    def awaits_score(self, step: int) -> bool:
        """Whether the checkpoint of this step exists and its test was not completed."""
        return (self._name(step) / COMPLETE).exists() and not (self._name(step) / SCORE).exists()

    def load_newest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest complete and undamaged checkpoint as (step, state), tensors on the CPU.

        Damaged checkpoints are skipped with a warning. If only KAIR's files exist, the state has `netG`, and those of
        `netE` and `optimizerG` that exist for the same step.

        Returns:
            None without any checkpoint.

        Raises:
            UserError: there are checkpoints, but none can be read; or a newer version of this code wrote them.
        """
        self._best()  # raises for a damaged best.json, which would otherwise end the run at its first test
        damaged = []
        for step, folder in sorted(self._candidates().items(), reverse=True):
            try:
                return step, read_checkpoint(folder)
            except DamagedFile as error:
                damaged.append(error)
                logger.warning("%s. The one before it is taken; delete the folder %s to be rid of this.", error, folder)
        found = self._load_kair(damaged)
        if found is None and damaged:
            raise UserError(
                f"{self.folder.parent}: no checkpoint can be read. {damaged[0]}. Copy an intact one there, or "
                f"delete the folders 'checkpoints' and 'models' to start again"
            )
        return found

    def any(self) -> bool:
        """Whether a run would be resumed: there is a checkpoint or a network of KAIR's, damaged or not."""
        return bool(self._candidates() or _kair_steps(self.models, KAIR_NAMES["netG"]))

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(step for step, folder in self._candidates().items() if (folder / COMPLETE).exists())

    def best_step(self) -> int | None:
        """Step of the best checkpoint; None without scores."""
        return self._best().get("step")

    def _candidates(self) -> dict[int, Path]:
        """Folders by step; one set aside counts if a crash prevented its replacement from getting the name."""
        found: dict[int, Path] = {}
        for prefix in (SET_ASIDE, ""):
            for folder in self.folder.glob(f"{prefix}step_*"):
                if match := re.fullmatch(re.escape(prefix) + r"step_(\d{8,})", folder.name):
                    found[int(match[1])] = folder
        return found

    def _best(self) -> dict[str, Any]:
        path = self.folder / BEST
        if not path.exists():
            return {}
        best: dict[str, Any] = read_json(path)
        sound = isinstance(best, dict) and type(best.get("step")) is int and type(best.get("score")) in (int, float)
        if not sound or best["score"] != best["score"]:
            raise UserError(f"{path}: no step and score of the best checkpoint; remove it, and the next test writes it")
        return best

    def _name(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"

    def _write_kair(self, step: int, state: Mapping[str, Any]) -> None:
        """Writes KAIR's files of a step; the optimizer's is written last, so its presence means that all exist."""
        for key, name in KAIR_NAMES.items():
            if state.get(key) is not None:
                write_plain(self.models / f"{step}_{name}.pth", state[key])

    def _write_folder(self, step: int, portable: dict[str, Any]) -> Path:
        """Writes the checkpoint under a temporary name, flushes it to the disk, and renames it."""
        final = self._name(step)
        unfinished = self.folder / f"{UNFINISHED}{final.name}"
        unfinished.mkdir(parents=True)
        try:
            with _synced(unfinished / STATE, "wb") as file:
                torch.save(portable, file)
            size, digest = _fingerprint(unfinished / STATE)
            meta = {"format": FORMAT, "step": step, "torch": torch.__version__, "size": size, "sha256": digest}
            for name, text in ((META, json.dumps(meta, indent=1)), (COMPLETE, "")):
                with _synced(unfinished / name, "w") as file:
                    file.write(text)
            _sync_folder(unfinished)
            if final.exists():
                os.replace(final, self.folder / f"{SET_ASIDE}{final.name}")
            os.replace(unfinished, final)
            _sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(self.folder / f"{SET_ASIDE}{final.name}", ignore_errors=True)
        return final

    def _clean(self) -> None:
        """Removes unfinished files of a crashed save, and renames a folder that was set aside back."""
        for folder in self.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(folder)
        for folder in self.folder.glob(f"{SET_ASIDE}*"):
            final = folder.with_name(folder.name.removeprefix(SET_ASIDE))
            if final.exists():
                shutil.rmtree(folder)
            else:
                os.replace(folder, final)
        for file in [
            *self.folder.glob(".*.tmp"),
            *self.folder.glob("step_*/.*.tmp"),
            *self.models.glob(".*_*.pth.*.tmp"),
        ]:
            file.unlink()

    def _prune(self, newest: int) -> None:
        """Removes old checkpoints and their KAIR files. Steps after `newest`, if any, are damaged, and are not
        counted."""
        if self.keep is None:
            return
        steps = sorted(step for step in self._candidates() if step <= newest)
        for step in steps[: -self.keep]:
            folder = self._name(step)
            if step == self.best_step() or (folder / PINNED).exists():
                continue
            # Remove KAIR's files first: after a crash they would remain for ever without their checkpoint.
            for name in KAIR_NAMES.values():
                path = self.models / f"{step}_{name}.pth"
                path.unlink(missing_ok=True)
                digest_file(path).unlink(missing_ok=True)
            # Rename before removing, so that a crash leaves no partial checkpoint under its name.
            doomed = folder.with_name(f"{UNFINISHED}{folder.name}")
            os.replace(folder, doomed)
            shutil.rmtree(doomed)

    def _load_kair(self, damaged: list[DamagedFile]) -> tuple[int, dict[str, Any]] | None:
        """The newest KAIR network with the average and the optimizer of the same step."""
        found = {key: _kair_steps(self.models, name) for key, name in KAIR_NAMES.items()}
        for step in sorted(found["netG"], reverse=True):
            parts = {
                key: self.models / f"{step}_{KAIR_NAMES[key]}.pth" for key, steps in found.items() if step in steps
            }
            try:
                state = {key: load_plain(path) for key, path in parts.items()}
            except DamagedFile as error:
                damaged.append(error)
                logger.warning("%s. The files of the step before are taken.", error)
                continue
            for key in found.keys() - parts.keys():
                name = f"{step}_{KAIR_NAMES[key]}.pth"
                if found[key]:
                    steps = sorted(found[key])
                    logger.warning("%s: there is no %s, only of steps %s; it starts afresh.", self.models, name, steps)
                elif key == "optimizerG":
                    logger.warning("%s: there is no %s; the optimizer starts afresh.", self.models, name)
            return step, state
        return None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The state in a checkpoint's folder, after a check of its size and SHA-256.

    Raises:
        DamagedFile: incomplete, cut short or altered.
        UserError: written by a newer version of this code.
    """
    if not (folder / COMPLETE).exists():
        raise DamagedFile(f"{folder}: not complete (no file {COMPLETE})")
    try:
        meta = read_json(folder / META)
        version, expected = int(meta["format"]), (meta["size"], meta["sha256"])
        size, digest = _fingerprint(folder / STATE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{folder}: {META} or {STATE} is damaged or missing ({error})") from error
    if version > FORMAT:
        raise UserError(f"{folder}: written in format {version}, this code reads up to {FORMAT}; use the newer code")
    if (size, digest) != expected:
        raise DamagedFile(f"{folder / STATE}: damaged, {size} bytes where {expected[0]} were written, or other content")
    result: dict[str, Any] = load_plain(folder / STATE)
    return result


def load_plain(path: Path | str) -> Any:
    """Loads a file of `torch.save`, tensors on the CPU; only tensors and plain values are accepted.

    Raises:
        DamagedFile: cut short or altered.
        UserError: it is missing, or holds objects whose loading could run code.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path}: there is no such file; check the path, or put the checkpoint there")
    with open_regular(path):  # raises UserError for a folder, a pipe or an unreadable file
        pass
    _check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # in torch's message about a class or function that the file refers to
            raise DamagedFile(f"{path}: no readable checkpoint, damaged? Copy or download it again") from error
        raise UserError(
            f"{path}: holds more than tensors and plain values, and loading that could run foreign code; where you "
            f"trust it, save its weights again with torch.save(network.state_dict(), ...)"
        ) from error
    except Exception as error:  # unpickling raises exceptions of any type on damaged bytes
        raise DamagedFile(
            f"{path}: cut short or damaged ({type(error).__name__}). Copy or download it again"
        ) from error


def write_plain(path: Path | str, value: Any) -> None:
    """Writes a file for `load_plain`, completely or not at all, with its SHA-256 beside it."""
    # Remove the old check sum first, so that a crash leaves no new file with an old check sum.
    digest_file(path).unlink(missing_ok=True)
    with atomic_write(path, "wb") as file:
        torch.save(value, file)
    write_sha256(path, sha256_of(path))


def _check_archive(path: Path | str) -> None:
    """Verifies the SHA-256 beside a file and its CRC-32s, which `torch.load` does not check.

    Raises:
        DamagedFile: one of them differs.
    """
    try:
        check_sha256(path)
        if not zipfile.is_zipfile(path):  # torch's format before version 1.6, which has no check sums
            return
        with zipfile.ZipFile(path) as archive:
            # torch's reader leaves the tensor of an entry marked as a folder uninitialised.
            plain = all(
                entry.compress_type == zipfile.ZIP_STORED and not entry.external_attr & FOLDER_ATTRIBUTE
                for entry in archive.infolist()
            )
            bad = archive.testzip() if plain else "compressed files or folders, which torch.save never writes"
    except UserError as error:
        raise DamagedFile(str(error)) from error
    except Exception as error:  # zipfile raises exceptions of any type on damaged bytes
        raise DamagedFile(f"{path}: a damaged archive ({error}). Copy or download it again") from error
    if bad is not None:
        raise DamagedFile(f"{path}: its check sums do not hold ({bad}). Copy or download it again")


def _kair_steps(models: Path, name: str) -> set[int]:
    """Steps of the files `<step>_<name>.pth`."""
    matches = (re.fullmatch(rf"(\d+)_{name}\.pth", path.name) for path in models.glob(f"*_{name}.pth"))
    return {int(match[1]) for match in matches if match}


def _portable(value: Any, name: str, memo: dict[tuple[Any, ...], Tensor]) -> Any:
    """A state with its tensors on the CPU, of types that `weights_only=True` loads."""
    if isinstance(value, Tensor):
        # Two state_dicts of one network hold different tensors that share memory; copy and store them once.
        key = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if key not in memo:
            copy = value.detach().cpu()
            # torch.save writes the whole storage of a slice, so clone slices.
            owns_memory = copy.untyped_storage().nbytes() == copy.numel() * copy.element_size()
            memo[key] = copy if owns_memory else copy.clone()
        return memo[key]
    if isinstance(value, Mapping):
        for key_ in value:
            if not isinstance(key_, (str, int)):
                raise TypeError(f"{name}: the key {key_!r} is a {type(key_).__name__}; a state has str or int keys")
        return {key_: _portable(item, f"{name}[{key_!r}]", memo) for key_, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_portable(item, f"{name}[{index}]", memo) for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    # Compare exact types: numpy's float64 passes isinstance(value, float), but could not be loaded.
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; a state holds tensors, numbers, strings, lists and dicts")


@contextmanager
def _explained(step: int, folder: Path) -> Iterator[None]:
    """Turns an OSError, raised by Python or inside torch.save, into `NotSaved` with file, reason and remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space, or lower train.checkpoint_keep" if full else "check the folder"
        raise NotSaved(
            f"{cause.filename or folder}: the checkpoint of step {step} could not be written "
            f"({cause.strerror}; {remedy}); earlier ones are intact"
        ) from error


@contextmanager
def _synced(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A file that is flushed to the disk when the block ends."""
    with open(path, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:  # type: ignore[call-overload]
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, on systems that support it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _fingerprint(path: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    return path.stat().st_size, sha256_of(path)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        json.dump(value, file)
