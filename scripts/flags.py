"""The flags of the scripts that `svrt` starts.

Nothing slow is imported here, so that `svrt doctor --help` answers at once.
"""

import argparse
from pathlib import Path
from typing import Any

from utils.options.flags import add_option_arguments, exposure_times, positive_float
from utils.utils_cli import program
from utils.utils_download import RELEASE

RAW = argparse.RawDescriptionHelpFormatter
BENCHMARK_LIST = Path(__file__).resolve().parents[1] / "data" / "meta_info" / "benchmark_restoration.json"
DEMO = Path("options/demo/quickstart.json")


def simulate_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.simulate_dataset`; what belongs to only one of videos and demo is None by default."""
    parser = argparse.ArgumentParser(
        prog=program("scripts.data_preparation.simulate_dataset"), description=description, formatter_class=RAW
    )
    add = parser.add_argument
    add("--root", type=Path, help="folder of the data set (default without --video: trainsets/demo)")
    add("--video", type=Path, nargs="+", metavar="PATH", help="video files, or folders of a video's frames")
    add("--n", type=int, default=7, help="sharp frames per blurred picture (default 7)")
    add("--stride", type=int, help="sharp frames from one blurred picture to the next (default n, as in GoPro)")
    add(
        "--light",
        choices=("srgb", "linear"),
        default="srgb",
        help="what is integrated and averaged: stored values, as in Spk-GoPro (default), or linear light",
    )
    add(
        "--threshold",
        type=float,
        default=2.0,
        help="light at which a spike pixel fires (default 2: rate = gray/2; at least 1, or bright pixels saturate)",
    )
    add("--spike_ratio", type=int, default=2, help="picture pixels per spike pixel and axis (default 2)")
    add(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the pictures (default: 128 160 for the demo, a video's own); videos cover it and are cut",
    )
    add(
        "--instants",
        type=int,
        default=0,
        metavar="N",
        help="also keep the sharp pictures of N instants of every exposure, from its beginning to its end",
    )
    add("--seed", type=int, default=0, help="of paths and sensor start (default 0)")
    add("--force", action="store_true", help="make it again even if it is there")
    add("--test_clips", type=int, help="demo: clips for testing (default 3); several videos: the last so many")
    add = parser.add_argument_group("with --video").add_argument
    add("--scale", type=float, help="resize the frames by this factor (default 1)")
    add("--upsample", type=int, help="sharp frames made of each frame by optical flow: slow motion (default 1)")
    add("--spike_fps", type=float, help="rate of the spike camera, from the video's frame rate; sets --upsample")
    add("--exposure_ms", type=float, help="exposure in milliseconds, from the video's frame rate; sets --n")
    add("--max_frames", type=int, help="read only so many frames of each video (default: all)")
    add("--split", choices=("train", "test"), help="all of it to one side")
    add(
        "--test_fraction",
        type=float,
        help="share of the videos, or of a single video's time, for testing (default 0.2, at least one)",
    )
    add = parser.add_argument_group("without --video").add_argument
    add("--train_clips", type=int, help="(default 12)")
    add("--train_frames", type=int, help="blurred pictures per training clip (default 12)")
    add("--test_frames", type=int, help="blurred pictures per test clip (default 8)")
    return parser


def scenes_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.generate_scenes`."""
    module = "scripts.data_preparation.generate_scenes"
    parser = argparse.ArgumentParser(prog=program(module), description=description, formatter_class=RAW)
    add = parser.add_argument
    add("--root", type=Path, default=Path("trainsets/scenes"), help="folder of the set [trainsets/scenes]")
    add("--clips", type=int, default=200, help="(default 200)")
    add("--frames", type=int, default=8, help="blurred pictures of each (default 8)")
    add("--size", type=int, default=128, help="side of the pictures, at most 192 (default 128)")
    add("--n", type=int, default=7, help="sharp frames per blurred picture (default 7)")
    add("--threshold", type=float, default=2.0, help="light at which a spike pixel fires (default 2)")
    add("--seed", type=int, default=0, help="(default 0)")
    return parser


def prepare_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.data_preparation.prepare`; it hands other flags on to the data set's own script."""
    parser = argparse.ArgumentParser(
        prog=program("scripts.data_preparation.prepare"),
        description=description,
        formatter_class=RAW,
        allow_abbrev=False,
    )
    parser.add_argument("--opt", type=Path, required=True, metavar="FILE", help="option file that names the folders")
    return parser


def doctor_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.doctor`."""
    parser = argparse.ArgumentParser(prog=program("scripts.doctor"), description=description, formatter_class=RAW)
    add_option_arguments(parser)
    parser.add_argument("--fix-meta", action="store_true", help="rewrite the meta info files from the folders")
    parser.add_argument("--no-step", action="store_true", help="look only, without the dry step")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="the contact sheet")
    return parser


def inspect_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.inspect_run`."""
    parser = argparse.ArgumentParser(prog=program("scripts.inspect_run"), description=description, formatter_class=RAW)
    parser.add_argument("experiment", type=Path, help="the run's folder, or its option file")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options that override the file's")
    parser.add_argument("--output", type=Path, help="the picture (default: inspect.png in the run's folder)")
    parser.add_argument(
        "--preempted", action="store_true", help="say nothing; exit code 0 if the run was told to stop early, else 3"
    )
    parser.add_argument("--serve", action="store_true", help="show it as a page on this machine that refreshes itself")
    parser.add_argument("--port", type=int, default=8008, help="of --serve; 0: any that is free (default 8008)")
    return parser


def screenshot_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.screenshot`."""
    parser = argparse.ArgumentParser(prog=program("scripts.screenshot"), description=description, formatter_class=RAW)
    add = parser.add_argument
    add("page", help="an HTML file, or an address of this machine, http://127.0.0.1:PORT")
    add("output", type=Path, help="the picture, .png or .jpg")
    add("--width", type=int, default=1280, help="of the window in pixels (default 1280; below 600 it is a phone's)")
    add("--height", type=int, default=900, help="of the window in pixels (default 900)")
    add("--selector", default="html", metavar="CSS", help="what to take, whole (default: what the window shows)")
    add("--open", action="store_true", help="open the page's folded panels first")
    return parser


def restore_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.restore`."""
    parser = argparse.ArgumentParser(prog=program("scripts.restore"), description=description, formatter_class=RAW)
    add = parser.add_argument
    add("clip", type=Path, help="the blurred film: a video, or a folder of its frames")
    add("--spikes", type=Path, metavar="FILE", help="its spike stream (.dat), or a folder of streams per frame")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the film to write, .mp4")
    add("--side_by_side", type=Path, metavar="FILE", help="another one: input | spikes | restored")
    add(
        "--threshold",
        type=positive_float,
        help="of the spike camera: intensity = firing rate x threshold [the recipe's]",
    )
    add("--fps", type=positive_float, help="frames per second [the clip's, or 25]")
    add(
        "--times",
        type=exposure_times,
        metavar="B:E:STEP",
        help="slow motion: these instants of every exposure, 0 to 1, e.g. 0:1:1/16 or 0,1/4,1/2",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--task", help="a published model [with spikes guided, without VRT's for GoPro]")
    which.add_argument("--opt", type=Path, metavar="FILE", help="option file of an experiment of your own")
    add("--checkpoint", type=Path, metavar="PATH", help="weights of --opt [its experiment's newest]")
    add(
        "--download", nargs="?", const=RELEASE, metavar="URL", help="fetch the published weights where they are missing"
    )
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change options")
    return parser


def compare_branches_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.compare_branches`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt_concat", type=Path, default=Path("options/demo/quickstart.json"), metavar="FILE")
    parser.add_argument("--opt_voxel", type=Path, default=Path("options/demo/quickstart_voxel.json"), metavar="FILE")
    parser.add_argument("--steps", type=int, help="train.total_iter of all [the option files']")
    parser.add_argument("--seconds", type=float, metavar="S", help="processor time of each, instead of --steps")
    also = "a further network on the same clips; may be given again"
    parser.add_argument("--also", action="append", default=[], metavar="TITLE=FILE", help=also)
    parser.add_argument("--benchmark", action="store_true", help="run all on the frozen benchmark too")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=c", help="change options of all")
    parser.add_argument("--name", default="demo", help="of the section and the experiments [demo]")
    output = Path("results/comparison.md")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help=f"Markdown file [{output}]")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of scores [results]")
    parser.add_argument("--timed_steps", type=int, default=9, help="steps of each that are timed [9]")
    return parser


def demo_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.demo`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt", type=Path, default=DEMO, metavar="FILE", help=f"the larger network [{DEMO}]")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change its options")
    parser.add_argument("--dry-run", action="store_true", help="make the data, show what would be trained, and stop")
    return parser


def comparison_training_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.comparison_training`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--cost", type=Path, required=True, metavar="FILE", help="where memory and time are written")
    return parser


def convert_options_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.convert_options`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("template", type=Path, help="YAML or JSON file")
    parser.add_argument("options", type=Path, help="option file to write, JSON")
    return parser


def estimate_memory_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.estimate_memory`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("recipe", nargs="+", help="option files")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that share a step's clips (default: 1)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options that override the files'")
    return parser


def evaluate_reconstruction_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.evaluate_reconstruction`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help=".dat files, or folders of them")
    add("--threshold", type=float, required=True, help="of the camera: intensity = rate x threshold")
    add("--center", type=int, help="spike frame of the sharp picture (default: the stream's middle)")
    add("--spike_h", type=int, help="height of the spike picture (default: config.yaml's, or by the file's size)")
    add("--spike_w", type=int, help="its width")
    add("--top_down", action="store_true", help="rows are stored from top to bottom")
    add("--network", nargs=3, action="append", default=[], metavar=("NAME", "RECIPE", "CHECKPOINT"))
    add("--save", type=Path, help="folder for pictures: best training-free | networks | sharp")
    add("--json", type=Path, help="file for all numbers")
    return parser


def export_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.export`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--opt", type=Path, help="option file of the network")
    which.add_argument("--task", help="a published model, guided")
    parser.add_argument("--checkpoint", type=Path, help="a .pth file or experiment folder [the task's]")
    parser.add_argument("--set", nargs="+", default=[], metavar="a.b=c", help="change options")
    parser.add_argument("--ratio", type=int, default=2, help="ONNX: frame pixels per spike pixel and axis (default 2)")
    parser.add_argument("output", type=Path, help="file to write, .onnx or .pth")
    return parser


def stress_resume_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.stress_resume`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RAW)
    parser.add_argument("--opt", required=True, help="option file")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options that override the file's")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the ranks")
    parser.add_argument("--folder", type=Path, help="where to train (default: a temporary folder)")
    return parser


def align_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.align`."""
    parser = argparse.ArgumentParser(prog=program("scripts.align"), description=description, formatter_class=RAW)
    add = parser.add_argument
    add("frames", type=Path, help="the blurred clip: a video, or a folder of its frames")
    add("spikes", type=Path, help="its spike stream, one .dat")
    add("--out", type=Path, metavar="FOLDER", help="where to write (default: the stream's folder)")
    add("--spike_h", type=int, help="height of the spike picture (default: config.yaml, or the file's size)")
    add("--spike_w", type=int, help="its width")
    add("--top_down", action="store_true", help="rows are stored top-down (otherwise the homography turns them)")
    add("--head_columns", type=int, default=0, help="columns recorded after the picture's last one (default 0)")
    add("--spikes_per_frame", type=float, help="spike frames per RGB frame, if known (default: found)")
    add("--spike_fps", type=float, help="spike frames per second; with the video's frame rate it says the same")
    add(
        "--reach",
        type=float,
        default=3.6,
        metavar="FRAMES",
        help="RGB frames by which either recording may begin first (default 3.6)",
    )
    add("--force", action="store_true", help="replace what an earlier alignment wrote")
    return parser


def gpu_check_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.gpu_check`."""
    parser = argparse.ArgumentParser(prog=program("scripts.gpu_check"), description=description, formatter_class=RAW)
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="of the whole check, at most (default 8)")
    add("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="for figures and logs (default gpu_check)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="(default cuda)")
    add("--tiny", action="store_true", help="the smallest sizes, to try the steps themselves")
    add("--docs", type=Path, metavar="FILE", help="page whose tables are replaced (default, on a GPU, performance.md)")
    return parser


class Named(argparse.Action):
    """Collects competitors in their order as [kind, words, name]; --name names the one before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found = list(namespace.competitors)
        if self.dest == "name":
            if not found:
                parser.error("--name comes after the competitor that it names")
            found[-1][2] = values
        else:
            found.append([self.dest, values, None])
        namespace.competitors = found


def benchmark_parser(description: str) -> argparse.ArgumentParser:
    """`scripts.benchmark_restoration`; `competitors` has those named as [kind, words, name]."""
    module = "scripts.benchmark_restoration"
    parser = argparse.ArgumentParser(prog=program(module), description=description, formatter_class=RAW)
    parser.set_defaults(competitors=())
    add = parser.add_argument
    add("--shipped", action=Named, metavar="TASK", help="a network whose weights come with the code")
    add(
        "--opt", action=Named, nargs="+", metavar="FILE", help="option file, and a checkpoint [its experiment's newest]"
    )
    add("--module", action=Named, metavar="MODULE:CALLABLE", help="what returns a torch.nn.Module")
    add("--pictures", action=Named, type=Path, metavar="FOLDER", help="PNG files <group>/<clip>/<frame>.png")
    add("--name", action=Named, help="of the competitor before it [its task, file or folder]")
    add("--clips", action="append", nargs="+", default=[], metavar="WORD", help="NAME THRESHOLD ROOT, or BLURRED ...")
    add("--only_clips", action="store_true", help="leave the frozen clips out")
    add("--audit", action="append", type=Path, default=[], metavar="PATH", help="training frames, or an option file")
    add("--list", type=Path, default=BENCHMARK_LIST, help="protocol and SHA-256 of the clips [data/meta_info/...]")
    add("--freeze", type=Path, metavar="FILE", help="write such a list, of the clips as they are made here, and stop")
    add("--root", type=Path, default=Path("testsets/benchmark"), help="where the clips are [testsets/benchmark]")
    add("--json", type=Path, default=Path("results/benchmark/restoration.json"), help="[results/benchmark/...]")
    add("--section", default="benchmark", metavar="NAME", help="section of --output with the tables [benchmark]")
    add("--output", type=Path, default=Path("results/benchmark/restoration.md"), help="[results/benchmark/...]")
    add("--device", help="where to compute [a GPU where there is one]")
    add("--cvvdp", action="store_true", help="measure ColorVideoVDP (pip install cvvdp)")
    add("--lpips", type=Path, metavar="FOLDER", help="measure LPIPS with the files there (docs/evaluation.md)")
    return parser
