"""`check`: a stream against the picture it belongs to: flip, order of bits, spike frame of the picture.

    check 000226.dat --picture 000226.png --clip GOPR0884_11_00

Exit code 1: the stream is read in another orientation than the picture's, or the picture lies at another spike frame
than assumed.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data.spike.sync import SyncTable, default_window
from scripts.spikes.sources import Source, add_source_arguments, open_source
from utils.spike_loader import SpikeStream
from utils.user_error import UserError
from utils.utils_image import imread_rgb

CLEAR = 0.3  # edge correlation above which no other reading is looked for: right ones have 0.35 and more
CERTAIN = 0.1  # edge correlation below which nothing can be said
COARSE = 4  # spike frames between those at which orientations are compared
TOLERANCE = 2  # spike frames that the picture may lie off: the correlation's maximum is flat in slow scenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add = parser.add_argument
    add("--picture", type=Path, required=True, help="sharp picture, of any whole multiple of the stream's size")
    add("--center", type=int, help="spike frame it is assumed at (default: from sync.json or the clip's name)")
    add("--clip", help="clip's name (default: folder above the stream's, <clip>/spike/<frame>.dat)")
    add("--reach", type=int, default=40, help="spike frames searched on either side (default 40)")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    stream = source.stream
    if not isinstance(stream, SpikeStream):
        raise UserError(f"{source.path}: only .dat files have an orientation to check")
    # Here, so that --help does not wait for torch.
    from data.spike.registration import gray_of_stream

    gray = gray_of_stream(args.picture, imread_rgb(args.picture), stream)
    center = assumed_center(source, args) if args.center is None else args.center
    if not 0 <= center < len(stream) or args.reach < 0:
        raise UserError(f"--center {center}, --reach {args.reach}: the stream has frames 0 to {len(stream) - 1}")
    content = compare(source, stream, gray, center, args.reach)
    print(json.dumps(content, indent=1) if args.json else text(content))
    if not content["right"]:
        sys.exit(1)


def assumed_center(source: Source, args: argparse.Namespace) -> int:
    """From the sync.json in the folder of the stream or above, else by the rule for the clip's name."""
    folder = source.path.resolve().parent
    clip = args.clip or (folder.parent.name if folder.name == "spike" else folder.name)
    for place in (folder, folder.parent):
        if (place / "sync.json").is_file():
            return SyncTable.load(place / "sync.json").window(args.picture.name).center
    return default_window(clip, len(source)).center


def compare(source: Source, stream: SpikeStream, gray: np.ndarray, center: int, reach: int) -> dict[str, Any]:
    """Orientations around the assumed spike frame, and the best spike frame if the stream is read in the best one."""
    # As above.
    from data.spike.registration import center_scores, orientation_scores

    times = range(max(0, center - reach), min(len(stream), center + reach + 1))
    coarse = times[:: max(1, min(COARSE, len(times) // 2))]
    rows = orientation_scores(stream, gray, coarse)
    inverted = False
    if rows[0].edge_correlation < CLEAR:
        best_inverted = orientation_scores(stream, gray, coarse, inverted=True)[0].edge_correlation
        inverted = best_inverted > max(CERTAIN, 2 * rows[0].edge_correlation)
    read = "up-down" if stream.flipud else "none"
    certain = rows[0].edge_correlation >= CERTAIN
    oriented = certain and not inverted and rows[0].bit_order == "little" and rows[0].flip == read
    content = {
        "file": str(source.path),
        "read_as": {"bit_order": "little", "flip": read},
        "orientations": [asdict(row) for row in rows],
        "certain": certain,
        "inverted": inverted,
        "oriented": oriented,
        "assumed_center": center,
        "searched": [times.start, times.stop - 1],
        "right": False,
    }
    if not oriented:
        return content
    scores = center_scores(stream, gray, times)
    best = times[int(np.argmax(scores))]
    return content | {
        "best_center": best,
        "offset": best - center,
        "edge_correlation_at_best": float(scores.max()),
        "right": abs(best - center) <= TOLERANCE,
    }


def text(content: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{'bits':8}{'flip':12}{'correlation':>12}{'edges':>8}"]
    for row in content["orientations"]:
        lines.append(f"{row['bit_order']:8}{row['flip']:12}{row['correlation']:12.3f}{row['edge_correlation']:8.3f}")
    best, read = content["orientations"][0], content["read_as"]
    if content["inverted"]:
        lines.append(
            "bits: INVERTED, the picture agrees with ones read as zeros; python -m scripts.spikes convert --invert, "
            "then check the result"
        )
    elif not content["certain"]:
        first, last = content["searched"]
        lines.append(
            "orientation: CANNOT BE TOLD, no way to read the stream agrees with the picture in spike frames "
            f"{first} to {last}; look elsewhere by --center or --clip (name of the clip), or further by --reach; "
            "python -m scripts.spikes info FILE doubts a wrong size"
        )
    elif content["oriented"]:
        lines.append(f"orientation: right as read (bits little, flip {read['flip']})")
    else:
        lines.append(
            f"orientation: WRONG as read (bits little, flip {read['flip']}); the picture agrees with bits "
            f"{best['bit_order']}, flip {best['flip']}: see --top_down, and python -m scripts.spikes convert --help"
        )
    if "best_center" in content:
        lines.append(
            f"spike frame of the picture: {content['best_center']} (edges {content['edge_correlation_at_best']:.3f}), "
            f"assumed {content['assumed_center']}, offset {content['offset']:+d}"
        )
        if not content["right"]:
            lines.append(
                f"if the picture belongs there: --center {content['best_center']}; --clip NAME assumes the spike frame "
                "of that clip's exposures; in training a sync.json says it (docs/spike_format.md)"
            )
    return "\n".join(lines)
