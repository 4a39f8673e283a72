"""What the benchmarks on one spike stream share: their arguments, a stream if none is given, JSON if wanted."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from utils.spike_loader import SpikeStream
from utils.user_error import UserError


class Measured(NamedTuple):
    """A benchmark's rows, and the stream's name and (T, h, w)."""

    name: str
    shape: tuple[int, int, int]
    repeats: int
    rows: list[dict[str, Any]]


def run_benchmark(
    parser: argparse.ArgumentParser,
    measure: Callable[[SpikeStream, int], list[dict[str, Any]]],
    make_stream: Callable[[Path], tuple[int, int]],
) -> Measured | None:
    """Reads the command line and measures; None where JSON was wanted and printed.

    Args:
        parser: a `stream_parser`.
        measure: from a stream and a number of repeats to rows.
        make_stream: writes the default stream to a path and returns its (h, w).
    """
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, size = arguments.dat, (arguments.spike_h, arguments.spike_w)
        try:
            if path is None:
                path = Path(folder) / "synthetic.dat"
                size = make_stream(path)
            stream = SpikeStream(path, *size)
            measured = Measured(path.name, stream.shape, arguments.repeats, measure(stream, arguments.repeats))
        except UserError as fault:
            parser.error(str(fault))
    if not arguments.json:
        return measured
    print(json.dumps({"shape": measured.shape, "repeats": measured.repeats, "rows": measured.rows}, indent=1))
    return None
