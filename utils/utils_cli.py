"""Runs a command and turns errors into messages and exit codes: a user's mistake gives one message and code 2, a full
disk one message and code 1, a fault of the code its traceback.
"""

import errno
import hashlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from utils.user_error import UserError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "models", "scripts", "utils")  # of this project
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, quota exceeded, file larger than allowed
# Messages of gloo and NCCL on a rank whose peer has ended; torch has no exception type for it.
LOST_RANK = re.compile(r"Connection (closed|reset) by peer|Broken pipe|ncclRemoteError|NCCL communicator was aborted")
# What torchrun is told of a failure whose message is printed; its summary would repeat a message for every rank.
TOLD = "its message is the error above, on standard error"
# Beginning of the text that PyTorch puts before an error raised in a loader's worker.
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


def missing_package(error: ModuleNotFoundError) -> str | None:
    """A line that names the package that is not installed; None for a fault of ours or of an installed package."""
    package = (error.name or "").partition(".")[0]
    if package in PACKAGES or package in sys.modules:
        return None
    return (
        f"Error: the package {package} is not installed here; start by {ROOT / 'svrt'}, which installs what "
        f"{ROOT / 'requirement.txt'} lists, or pip install -r that file\n"
    )


def tell_missing_packages() -> None:
    """Has this program end with `missing_package`'s line and exit code 2 in place of a traceback.

    To be called where a script is started, before it imports what is installed.
    """

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        line = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        if line is None:
            sys.__excepthook__(kind, error, trace)
            return
        sys.stderr.write(line)
        raise SystemExit(2)

    sys.excepthook = tell


def program(module: str) -> str:
    """Name of a module's command in its usage line: `svrt VERB` if started by that, else `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("svrt ") else f"python -m {module}"


def may_be_secret(name: str, value: str) -> bool:
    """Whether a value may be an account's key, by its name and length; such values are neither shown nor stored."""
    # Keys of accounts are longer than the legitimate values of such options.
    return len(value) > 12 and re.search(r"wandb|api_?key|token|secret|password", name, re.IGNORECASE) is not None


def without_secrets(argv: Sequence[str]) -> list[str]:
    """A command's arguments with the values of KEY=VALUE that may be secret replaced by "..."."""
    pairs = [argument.partition("=") for argument in argv]
    return [f"{name}=..." if may_be_secret(name, value) else name + equals + value for name, equals, value in pairs]


def run_command(command: Callable[[], None], go_on: str = "") -> int:
    """Runs a command.

    For a `UserError`, and for an `OSError` about a file (missing, no permission, disk full), only the message is
    printed. Every other exception except Ctrl-C is raised with its traceback.

    Args:
        go_on: what the user can do after Ctrl-C or after freeing disk space, for the message.

    Returns:
        Exit code: 0 done, 1 disk full or another rank ended, 2 a user's mistake, 130 Ctrl-C, 141 output pipe closed.
    """
    try:
        command()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader, such as `head`, has ended. Python's flush of standard output at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, which Windows lacks
    except (UserError, OSError) as error:
        message = user_message(error, go_on)
        if message is None:
            raise
        rank = os.environ.get("RANK", "0")
        if _is_first_to_tell(message):
            sys.stderr.write(f"{'' if rank == '0' else f'[rank {rank}] '}Error: {message}\n")
        _note_failure(TOLD)
        # The traceback keeps loaders alive; if the garbage collector removes them, each worker takes 5 s to end.
        traceback.clear_frames(error.__traceback__)
        return 1 if isinstance(error, OSError) and error.errno in DISK_FULL else 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\nStopped by Ctrl-C{'; ' * bool(go_on)}{go_on}\n")
        return 128 + signal.SIGINT
    except RuntimeError as error:
        if os.environ.get("WORLD_SIZE", "1") == "1" or not LOST_RANK.search(str(error)):
            _note_failure(f"{type(error).__name__}: {error}")
            raise
        sys.stderr.write(f"[rank {os.environ.get('RANK')}] ends, since another rank has; that one says why\n")
        return 1
    except Exception as error:
        _note_failure(f"{type(error).__name__}: {error}")
        raise


def _is_first_to_tell(message: str) -> bool:
    """Whether no other rank of this machine has printed this message; all ranks find the same faults of options."""
    own = os.environ.get("TORCHELASTIC_ERROR_FILE")  # torchrun's <folder of this attempt>/<rank>/error.json
    if not own:
        return True
    try:
        (Path(own).parents[1] / f"told_{hashlib.sha256(message.encode()).hexdigest()[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # print the message twice rather than never
        return True
    return True


def _note_failure(message: str) -> None:
    """Writes the message for torchrun, which prints those of all ranks, or that of the first (`scripts.run_ranks`)."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"message": message, "timestamp": int(time.time())}, file)


def user_message(error: UserError | OSError, go_on: str = "") -> str | None:
    """The message for an error that the user can remedy; None for a bug. `go_on` as in `run_command`."""
    if isinstance(error, UserError):
        return _message(error)
    name = "" if error.filename is None else f"{error.filename}: "
    if error.errno in DISK_FULL:
        return f"{name}{error.strerror}; free some space, then {go_on or 'start the same command again'}"
    return f"{name}{error.strerror}; check the path and its permissions" if name else None


def _message(error: UserError) -> str:
    """The message of a user's mistake, without the traceback that PyTorch adds to an error of a loader's worker."""
    text = str(error)
    if IN_WORKER.match(text):
        # PyTorch raises the worker's type of error again; its text is the worker's whole traceback.
        text = re.split(rf"^(?:\w+\.)*{type(error).__name__}: ", text, flags=re.MULTILINE)[-1].rstrip()
    return text
