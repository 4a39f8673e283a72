"""The flags of the benchmarks. Nothing slow is imported here, so that --help answers at once."""

import argparse
from pathlib import Path

from utils.options.flags import positive_int

RAW = argparse.RawDescriptionHelpFormatter

HALVES = ("attention", "mlp", "core")
"""Parts of a block that `bench_attention` can measure: its halves, and what attention is without linear layers."""
PRECISIONS = ("fp32", "tf32", "bf16")


def bench_attention_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_attention`."""
    parser = bench_alignment_parser(description)
    parser.add_argument("--half", choices=HALVES, default="attention", help="of a block; core: the attention alone")
    return parser


def bench_alignment_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_alignment`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--compare", default="eager,sdpa,triton", help="back ends, with commas between")
    parser.add_argument("--tiles", help="tiles of the Triton kernels to try, with commas between")
    parser.add_argument("--size", default="6x192x192", help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--step", action="store_true", help="forward and backward pass instead of the forward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--repeats", type=int, default=10)
    return parser


def stream_parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """The benchmarks on one spike stream; `repeats` is the default of --repeats."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--dat", type=Path, help="spike file (default: a stream made for the run)")
    parser.add_argument("--spike_h", type=int, help="default: from config.yaml or the file's size")
    parser.add_argument("--spike_w", type=int)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


def bench_spikes_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_spikes`."""
    return stream_parser(description, repeats=15)


def bench_reconstruct_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_reconstruct`."""
    return stream_parser(description, repeats=5)


def bench_loader_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_loader`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--gt", type=Path, help="sharp PNGs, <clip>/<frame>.png")
    parser.add_argument("--lq", type=Path, help="blurred PNGs")
    parser.add_argument("--spike", type=Path, help="spikes, <clip>/spike/<frame>.dat")
    parser.add_argument(
        "--size", type=int, nargs=2, default=[720, 1280], metavar=("H", "W"), help="of pictures made here"
    )
    parser.add_argument("--gt_size", type=int, default=192)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def bench_metrics_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_metrics`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt", type=Path, default=Path("options/demo/quickstart.json"), help="whose network restores")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(128, 160), metavar=("H", "W"), help="of the frames [128 160]"
    )
    parser.add_argument("--frames", type=int, default=8, help="of the clip [8]")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed [3]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def bench_tiling_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_tiling`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt", type=Path, default=Path("options/demo/quickstart.json"), metavar="FILE")
    parser.add_argument("--checkpoint", type=Path, help="a .pth file or an experiment's folder [random weights]")
    return parser


def bench_train_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_train`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("recipe", help="option file")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options that override the file's")
    parser.add_argument("--synthetic", action="store_true", help="random numbers for data; also no SpyNet checkpoint")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def bench_vrt_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.bench_vrt`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--recipe", default="006", help="006, voxel or option files, with commas between")
    parser.add_argument(
        "--compare",
        default="eager,sdpa",
        help="values of netG.compute_backend, with commas between; VALUE+graphs: by CUDA graphs",
    )
    parser.add_argument("--size", default="6x64x64", help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--step", action="store_true", help="training step instead of the forward pass")
    parser.add_argument("--checkpoint", action="store_true", help="recompute as the recipe says")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile the blocks of a training step")
    parser.add_argument(
        "--malloc", choices=("stock", "tuned"), default="stock", help="glibc's, or keeping large blocks"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count_only", action="store_true", help="only count; any size, no memory")
    parser.add_argument("--profile", metavar="PREFIX", help="write the top operators to PREFIX_VARIANT.txt")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options that override the recipe's")
    parser.add_argument("--json", action="store_true")
    return parser


def guided_ablation_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.guided_ablation`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="files, or folders of frames")
    parser.add_argument("--seconds", type=float, default=840, help="processor time of each training (default 840)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of all variants")
    return parser


def generator_sheet_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.generator_sheet`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("out", type=Path, metavar="PNG", help="the sheet")
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="files, or folders of frames")
    parser.add_argument("--samples", type=int, default=8, help="generated ones (default 8)")
    parser.add_argument("--side", type=int, default=160, help="of the pictures in pixels (default 160)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the generator")
    return parser


def guided_table_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.guided_table`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="files, or folders of frames")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--opt", type=Path, help="option file of a guided network")
    which.add_argument("--task", default="guided", help="a network whose weights come with the code (default guided)")
    parser.add_argument("--checkpoint", type=Path, help="a .pth file or experiment folder [the task's]")
    parser.add_argument("--scale", type=float, default=0.5, help="of the videos (default 0.5)")
    parser.add_argument(
        "--rows", nargs="+", choices=("blurs", "sensors", "speed"), default=["blurs", "sensors", "speed"]
    )
    return parser


def reconstruction_table_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.reconstruction_table`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--data", type=Path, required=True, help="folder of the samples")
    parser.add_argument(
        "--network",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "RECIPE", "CHECKPOINT"),
        help="a further row by a network; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


def triton_resources_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.triton_resources`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--capability", type=int, default=90, help="compute capability times ten")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--precision", choices=("highest", "high"), default="highest", help="of float32 products")
    return parser


def align_rigs_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.align_rigs`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--rigs", type=positive_int, default=200, help="number of rigs (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first rig (default 0)")
    parser.add_argument("--each", action="store_true", help="a line for each rig")
    return parser


def trust_table_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.trust_table`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="files, or folders of frames")
    parser.add_argument("--scale", type=float, default=0.375, help="of the videos (default 0.375)")
    return parser


def threshold_table_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark.threshold_table`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--data", type=Path, help="folder of the samples")
    parser.add_argument("--low_light", action="store_true", help="simulated low light")
    parser.add_argument("--network", nargs=2, type=Path, default=(None, None), metavar=("RECIPE", "CHECKPOINT"))
    return parser
