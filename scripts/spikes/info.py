"""`info`: geometry, firing rates, order of bits, hot and dead pixels of a stream."""

import argparse
import json
from typing import Any

from data.spike.stream_report import StreamReport, stream_report
from scripts.spikes.sources import Source, add_source_arguments, frame_range, open_source
from utils.spike_loader import SpikeStream, fitting_geometries

LISTED = 10
TRIED = 128  # frames of another geometry that are looked at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--begin", type=int, default=0, help="first frame to look at (default 0)")
    parser.add_argument("--end", type=int, help="frame after the last one (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    source = open_source(args)
    frames = frame_range(source, args.begin, args.end)
    report = stream_report(source.blocks(frames.start, frames.stop, "reading", as_stored=True))
    content = summary(source, report)
    print(json.dumps(content, indent=1) if args.json else text(content))


def summary(source: Source, report: StreamReport) -> dict[str, Any]:
    """What is printed, as numbers."""
    length, height, width = source.shape
    flipped = isinstance(source.stream, SpikeStream) and source.stream.flipud

    def pixels(found: Any) -> dict[str, Any]:
        places = [[int(height - 1 - row if flipped else row), int(column)] for row, column in found]
        rates = [round(float(report.rate[row, column]), 4) for row, column in found]
        ranked = sorted(zip(places, rates, strict=True), key=lambda pair: (-pair[1], pair[0]))
        return {"number": len(found), "pixels": [[*place, rate] for place, rate in ranked[:LISTED]]}

    along, down, reordered = (round(value, 5) for value in report.roughness)
    return {
        "file": str(source.path),
        "bytes": source.path.stat().st_size,
        "frames": length,
        "height": height,
        "width": width,
        "rows_stored": "bottom-up" if flipped else "top-down",
        "frames_looked_at": report.frames,
        "mean_rate": round(report.mean_rate, 5),
        "lowest_rate": round(report.lowest_rate, 5),
        "highest_rate": round(report.highest_rate, 5),
        "consecutive": round(report.consecutive, 5),
        "threshold": source.threshold,
        "threshold_stated": source.stated_threshold is not None,
        "brightness": source.brightness,
        "mean_intensity": round(report.mean_rate * source.threshold, 5),
        "roughness_along_rows": along,
        "roughness_down_columns": down,
        "roughness_along_rows_other_bit_order": None if reordered != reordered else reordered,
        "bit_order": report.bit_order,
        "geometry_in_doubt": report.geometry_in_doubt,
        "geometry_suggested": other_geometry(source) if report.geometry_in_doubt else None,
        "width_in_doubt": report.width_in_doubt,
        "charge_sigma": None if report.geometry_in_doubt else picture_width(source),
        "hot": pixels(report.hot),
        "dead": pixels(report.dead),
    }


def picture_width(source: Source) -> float:
    """Width of the Gaussian of pictures for which no method is given, in frames."""
    # Here, so that --help does not wait for OpenCV.
    from data.spike.reconstruction.automatic import automatic_sigma, charge_sigma

    return charge_sigma(automatic_sigma(source.block, len(source)))


def other_geometry(source: Source) -> list[int] | None:
    """Height and width of the known geometry of which the file is whole frames of regular spikes; None without one."""
    size = source.path.stat().st_size
    irregularities = {}
    for geometry in fitting_geometries(size) if isinstance(source.stream, SpikeStream) else ():
        stream = SpikeStream(source.path, *geometry)
        report = stream_report([stream.get_block_spikes(0, min(TRIED, len(stream)), flipud=False)])
        if not (report.geometry_in_doubt or report.width_in_doubt):
            irregularities[geometry] = report.irregularity
    if not irregularities:
        return None
    return list(min(irregularities.items(), key=lambda item: item[1])[0])


def text(content: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{content['file']}: {content['frames']} frames of {content['height']}x{content['width']}, "
        f"{content['bytes']} bytes, rows read as stored {content['rows_stored']}",
        f"firing rate: mean {content['mean_rate']}, lowest {content['lowest_rate']}, highest "
        f"{content['highest_rate']} (over {content['frames_looked_at']} frames); "
        f"mean intensity {content['mean_intensity']}",
        content["brightness"],
        f"spikes followed by one in the next frame: {100 * content['consecutive']:.2f} %",
        f"roughness: {content['roughness_along_rows']} along rows "
        f"({content['roughness_along_rows_other_bit_order']} with the other order of bits), "
        f"{content['roughness_down_columns']} down columns",
        {
            "little": "order of bits: least significant first, as read",
            "big": "order of bits: PROBABLY MOST SIGNIFICANT FIRST; python -m scripts.spikes convert --reverse_bits",
            "unknown": "order of bits: cannot be told",
        }[content["bit_order"]],
    ]
    if content["geometry_in_doubt"]:
        remedy = "check --spike_h, --spike_w"
        if content["geometry_suggested"]:
            height, width = content["geometry_suggested"]
            remedy = f"--spike_h {height} --spike_w {width} fits the file, and its spikes are regular"
        lines.append(
            f"size: PROBABLY NOT {content['height']}x{content['width']}, spikes follow one another like those of "
            f"unrelated pixels; {remedy}"
        )
    elif content["width_in_doubt"]:
        lines.append("width: PROBABLY WRONG, rows do not continue one another; check --spike_h, --spike_w")
    if content["geometry_in_doubt"]:
        return "\n".join([*lines, "hot and dead pixels: cannot be told before the size is right"])
    lines.append(
        f"pictures without --method: charge, by a Gaussian of {content['charge_sigma']:g} frames, chosen from the "
        "stream's noise and motion"
    )
    for kind in ("hot", "dead"):
        found = content[kind]
        listed = ", ".join(f"({row}, {column}) {rate}" for row, column, rate in found["pixels"])
        more = " ..." if found["number"] > len(found["pixels"]) else ""
        lines.append(f"{kind} pixels: {found['number']}{': (row, column) rate ' + listed + more if listed else ''}")
    lines.append("upside down or not shows only a picture: python -m scripts.spikes check --picture FILE")
    return "\n".join(lines)
