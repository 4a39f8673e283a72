"""Ranks of a training on this machine, forked from one warm process: starting one takes no time for imports.

    with LocalRanks(["--opt", "FILE"], world_size=2, folder=Path("logs")) as ranks:
        ranks.processes[1].kill()
        codes = ranks.wait(60)

For commands and tests that start and end trainings often; a training for its own sake starts by `launch_train.sh`.
"""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from utils.utils_signal import stop_with_parent

GRACE_SECONDS = 10.0


class LocalRanks:
    """Processes that run `main_train_vrt.py`, each as one rank; leaving the block ends those that are still there.

    Args:
        arguments: of `main_train_vrt.py`.
        world_size: number of ranks.
        folder: gets `rank<r>.txt`, what each rank printed; later runs append.
        setup: called with the rank in its process before it begins; a function of a module, or a partial of one.
        variables: of the environment, besides those that tell the rank its place.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        world_size: int,
        folder: Path,
        setup: Callable[[int], None] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["main_train_vrt", __name__])
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"rank{rank}.txt" for rank in range(world_size)]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        # The cores are shared out, where OMP_NUM_THREADS does not say otherwise.
        threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // world_size))
        self.processes = []
        for rank, output in enumerate(self.outputs):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), **meeting}
            chosen = {**place, **(variables or {})}
            self.processes.append(
                context.Process(target=_run_rank, args=(rank, list(arguments), chosen, threads, output, setup))
            )

    def __enter__(self) -> "LocalRanks":
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def wait(self, timeout: float) -> list[int | None]:
        """Exit codes when all have ended, minus the number for a signal; None for those that have not in time."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        return [process.exitcode for process in self.processes]

    def ended(self) -> bool:
        """Whether all have."""
        return None not in self.wait(0)

    def signal(self, number: int) -> None:
        """Sends a signal to all that have not ended."""
        for process in self.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    def end(self) -> None:
        """Ends what still runs, as torchrun does: first asked to, then killed."""
        for process in self.processes:
            process.terminate()
        self.wait(GRACE_SECONDS)
        for process in self.processes:
            process.kill()
            process.join()

    def text(self) -> str:
        """What the ranks printed, one after the other."""
        return "".join(output.read_text() for output in self.outputs if output.exists())


def free_port() -> int:
    """A port that nothing listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_rank(
    rank: int,
    arguments: list[str],
    variables: Mapping[str, str],
    threads: int,
    output: Path,
    setup: Callable[[int], None] | None,
) -> None:
    """The body of one process."""
    import main_train_vrt  # the server has imported it

    # A loader's workers start as in any process, not from a server of their own.
    multiprocessing.set_start_method(None, force=True)
    os.environ.update(variables)
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(threads)
    stop_with_parent()
    if setup is not None:
        setup(rank)
    sys.exit(main_train_vrt.main(arguments))
