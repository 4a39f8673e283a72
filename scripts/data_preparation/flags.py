"""The flags of the data preparations. Nothing slow is imported here, so that --help answers at once."""

import argparse
from pathlib import Path

from utils.options.flags import add_option_arguments, positive_int

RAW = argparse.RawDescriptionHelpFormatter

SPLITS = ("train", "test")
BLURS = ("blur", "blur_gamma")
"""GoPro's blurred frames: averaged as stored, or in linear light."""
RAW_ROOTS = {
    "DAVIS": ("trainsets/DAVIS",),
    "DVD": ("trainsets/DeepVideoDeblurring_Dataset/quantitative_datasets", "trainsets/DVD/quantitative_datasets"),
    "REDS": ("trainsets/REDS",),
    "Vimeo-90K": ("trainsets/vimeo90k",),
}
"""Where the raw data of a data set usually are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all preparations have."""
    parser.add_argument("--opt", type=Path, metavar="FILE", help="option file that names the folders to be made")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--link", action="store_true", help="symbolic links to the raw folders (the default)")
    how.add_argument("--copy", action="store_true", help="copies")
    parser.add_argument("--generate_lmdb", action="store_true", help="also an LMDB of every folder, in KAIR's layout")
    parser.add_argument("--tiles", action="store_true", help="also a *_tiles folder of fast-loading tiled TIFFs")
    parser.add_argument("--force", action="store_true", help="recreate what is there already")
    parser.add_argument("--workers", type=int, default=4, help="processes that encode tiles")


def layout_parser(description: str, name: str) -> argparse.ArgumentParser:
    """A data set that is laid out by its folders alone; its name is a key of `RAW_ROOTS`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument(
        "--raw_root", type=Path, help=f"folder with the raw data; default {' or '.join(RAW_ROOTS[name])}"
    )
    parser.add_argument("--out_root", type=Path, default=Path(), help="folder for trainsets/ and testsets/")
    add_arguments(parser)
    return parser


def make_sync_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.make_sync`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt", type=Path, metavar="FILE", help="option file that names the folders")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--frames", type=Path, metavar="DIR", help="frames, <clip>/<frame>; --check compares with them")
    parser.add_argument("--spikes", type=Path, metavar="DIR", help="spikes, <clip>/spike/<frame>.dat")
    parser.add_argument("--spikes_per_frame", type=float, help="one .dat per clip: spike frames from frame to frame")
    parser.add_argument("--exposure", type=positive_int, help="spike frames per exposure; default: SPIKES_PER_FRAME")
    parser.add_argument("--first", type=int, default=0, help="spike frame at which the first exposure begins")
    parser.add_argument("--log", type=Path, metavar="CSV", help="alignment log to convert")
    parser.add_argument("--spike_fps", type=float, help="spike frames per second, written into the file")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--check", action="store_true", help="measure the exposures' centres instead")
    parser.add_argument("--blurred", action="store_true", help="--check: the frames are, or take the, blurred ones")
    parser.add_argument("--samples", type=int, default=4, help="--check: frames per clip")
    parser.add_argument("--tolerance", type=int, default=3, help="--check: spike frames by which a clip may be off")
    return parser


def prepare_gopro_spike_dataset_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.prepare_gopro_spike_dataset`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--gopro_root", type=Path, help="folder with train/ and test/ of GOPRO_Large")
    parser.add_argument("--spike_root", type=Path, help="folder with train/ and test/ of the spike sequences")
    parser.add_argument(
        "--blur", choices=BLURS, help="which blurred frames to take; default: those taken before, else blur"
    )
    parser.add_argument(
        "--spike_h", type=positive_int, help="height of the spike picture, for config.yaml; default: half a frame"
    )
    parser.add_argument("--spike_w", type=positive_int, help="its width")
    add_arguments(parser)
    return parser


def prepare_x4k1000fps_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.prepare_x4k1000fps`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument(
        "--raw_root", type=Path, default=Path("trainsets/X4K1000FPS"), help="folder with train/ and val/"
    )
    parser.add_argument("--out_root", type=Path, default=Path("trainsets"))
    parser.add_argument("--exposures", type=int, nargs="+", default=[33], help="spike frames per exposure, odd")
    parser.add_argument("--step", type=int, default=15, help="spike frames from one blurred frame to the next")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--threshold", type=float, default=2.0, help="of the spike camera")
    parser.add_argument("--spike_ratio", type=int, default=2, help="frame pixels per spike pixel")
    parser.add_argument("--force", action="store_true", help="recreate what is there already")
    return parser


def spike_statistics_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.spike_statistics`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    add_option_arguments(parser)
    parser.add_argument("--frames", type=int, default=200, help="RGB frames whose spikes are looked at; 0: all")
    return parser
