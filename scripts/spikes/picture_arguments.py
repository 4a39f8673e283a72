"""Arguments of the commands that make pictures, apart from what makes them: `--help` does not import torch."""

import argparse
from pathlib import Path

from data.spike.reconstruction import DEFAULT_METHOD, METHOD_NAMES

NETWORK = ("network", "gen")
"""Methods that mean a network; the second is spikling's name."""

PARAMETERS = {"length": int, "reach": int, "order": int, "sigma": float}
WIDTHS = {"charge": "sigma", "gaussian": "sigma", "window": "length"}
"""The parameter of a method that is its averaging time, chosen from the stream unless it is given."""
HELP = {
    "length": "window: frames (default: chosen from the stream's noise and motion)",
    "reach": "interval, k_interval: frames looked at on either side; charge: longest interval (default 256, 64, 512)",
    "order": "k_interval: k (default 2)",
    "sigma": "gaussian, charge: frames (default: chosen from the stream's noise and motion)",
}


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Which moments, by which method, in what light."""
    add = parser.add_argument
    methods = (*METHOD_NAMES, "raw", *NETWORK)
    add("--method", choices=methods, default=DEFAULT_METHOD, help=f"(default {DEFAULT_METHOD})")
    for name, kind in PARAMETERS.items():
        add(f"--{name}", type=kind, help=HELP[name])
    add("--opt", type=Path, help="network: its recipe (default options/spikling/train_spike_refine.json)")
    add("--checkpoint", type=Path, help="network: its weights (default: those that come with the code)")
    add_light_argument(parser)
    add("--begin", type=int, default=0, help="first spike frame (default 0)")
    add("--end", type=int, help="spike frame after the last one (default: all)")
    add("--stride", type=int, default=1, help="spike frames per picture (default 1)")


def add_light_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--light",
        choices=("srgb", "linear"),
        default="srgb",
        help="what the pixels added up: stored values, shown as they are (default), or linear light, which gets the "
        "sRGB curve",
    )
