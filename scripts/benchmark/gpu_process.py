"""The process of a step of `scripts/gpu_check.py`; quick to import, so that the command itself starts at once."""

from multiprocessing.connection import Connection

from scripts.benchmark.gpu_rows import Setting


def serve(name: str, setting: Setting, connection: Connection) -> None:
    """Body of a step's process."""
    from scripts.benchmark import gpu_steps  # slow, and imported already in the process that this one is forked from

    gpu_steps.serve(name, setting, connection)
