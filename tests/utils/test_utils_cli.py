"""How commands end: our messages for people's mistakes, tracebacks for faults of the code."""

import gc
import json
import pickle
import time
import traceback
from fractions import Fraction
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from data.video_clips import DataFaults
from utils.options.text import OptionError
from utils.utils_checkpoint import DamagedFile
from utils.utils_cli import TOLD, UserError, run_command, without_secrets


class Broken(Dataset[int]):
    """Raises the given error for every item."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        if self.error is None:
            return int(Fraction("no number"))
        try:
            raise KeyError("hidden")
        except KeyError as error:
            raise self.error from error


def mistake() -> None:
    raise UserError("options.json: a mistake")


def fault_of_ours() -> None:
    raise ValueError("a tensor of another shape")


def fault_below() -> None:
    Fraction("no number")


def read_with_workers(error: Exception | None) -> None:
    list(DataLoader(Broken(error), num_workers=1))


def test_done() -> None:
    assert run_command(lambda: None) == 0


def test_a_mistake_is_one_message(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert run_command(mistake) == 2
    assert capsys.readouterr() == ("", "Error: options.json: a mistake\n")
    monkeypatch.setenv("RANK", "3")
    assert run_command(mistake) == 2
    assert capsys.readouterr().err == "[rank 3] Error: options.json: a mistake\n"


@pytest.mark.parametrize("kind", [UserError, DamagedFile])
def test_a_mistake_that_a_loaders_worker_met(
    kind: type[UserError], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    message = "clip/000003.png: can't be read;\ncopy it again: ValueError helps nobody"
    assert run_command(lambda: read_with_workers(kind(message))) == 2
    assert capsys.readouterr().err == f"Error: {message}\n"
    # The worker ends at once, not when the garbage collector finds it.
    begin = time.monotonic()
    gc.collect()
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("fault", [fault_of_ours, fault_below, lambda: read_with_workers(None)])
def test_faults_of_the_code_pass(fault: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError) as raised:
        run_command(fault)  # type: ignore[arg-type]
    traceback.clear_frames(raised.tb)
    assert capsys.readouterr().err == ""


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: print(1 // 0))


@pytest.mark.parametrize(
    "error", [UserError("a"), OptionError("a.json", ["b", "c"]), DataFaults("clips", ["d"] * 12), DamagedFile("e")]
)
def test_mistakes_travel_between_ranks(error: UserError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert getattr(copy, "faults", None) == getattr(error, "faults", None)


def test_ctrl_c_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_command(interrupted, go_on="--resume goes on") == 130
    assert capsys.readouterr().err == "\nStopped by Ctrl-C; --resume goes on\n"


def test_a_command_is_shown_without_secrets() -> None:
    argv = ["--set", "logger.wandb=0123456789abcdef", "train.fix_keys=[spynet, deform]", "logger.wandb_mode=online"]
    assert without_secrets(argv) == ["--set", "logger.wandb=...", *argv[2:]]


def test_a_rank_that_lost_another_leaves_the_word_to_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A message that is printed isn't in torchrun's file of the failure, which is printed too."""

    def lost() -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:536] Connection closed by peer [127.0.0.1]:1234")

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_command(lost) == 1 and not (tmp_path / "error.json").exists()
    assert capsys.readouterr().err == "[rank 1] ends, since another rank has; that one says why\n"
    assert run_command(mistake) == 2
    assert json.loads((tmp_path / "error.json").read_text())["message"] == TOLD
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError):
        run_command(lost)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "a.png"), OSError(30, "Read-only", "root")])
def test_files_that_the_system_refuses(error: OSError, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise error

    assert run_command(refused) == 2
    assert capsys.readouterr().err == f"Error: {error.filename}: {error.strerror}; check the path and its permissions\n"


def test_ranks_tell_the_same_mistake_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in range(3):
        (tmp_path / "attempt_0" / str(rank)).mkdir(parents=True)
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / str(rank) / "error.json"))

        def mistake(told: str = "all the same" if rank < 2 else "another") -> None:
            raise UserError(told)

        assert run_command(mistake) == 2
    assert capsys.readouterr().err == "Error: all the same\n[rank 2] Error: another\n"
