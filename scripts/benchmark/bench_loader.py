"""How fast training samples are loaded, against loading as KAIR does, in the same run.

    python scripts/benchmark/bench_loader.py                        on pictures and spikes that it makes itself
    python scripts/benchmark/bench_loader.py --gt DIR --lq DIR --spike DIR

A sample is 6 frames of 720p, blurred and sharp, a crop of 192x192, and (in all ways but KAIR's) the spikes of the crop.
KAIR's way: all 12 PNGs are decoded whole and cast to float32, then cropped, flipped and made tensors. The ways load the
same samples in turn, in one process and from the page cache; the medians of the time on the processor are printed, and
the ratio to KAIR's way. Tiles are made by make_tiles.py's encoder into a temporary folder. The parts of a sample are
shares, measured in further runs.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmark.flags import bench_loader_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(bench_loader_parser(__doc__ or ""))

import cv2
import numpy as np
import torch

from data.dataset_video_rgbspike import VideoRecurrentTrainDatasetRGBSpike
from data.dataset_video_train import Sample, VideoRecurrentTrainDataset
from data.frame_io import FolderFrames
from data.sampler import SampleIndex
from data.spike.encoding import SpikeEncoding
from data.spike.simulation.motion import TRAIN_PHOTOGRAPHS, load_photograph
from data.video_clips import FramePairs
from scripts.data_preparation.make_tiles import tile_frames
from utils.spike_loader import SpikeStream, write_spikes

CONCAT: dict[str, Any] = {"spike": {"representation": "tfp", "bins": 4}, "input_pack_mode": "concat"}
VOXEL: dict[str, Any] = {"spike": {"representation": "voxel", "bins": 32}, "input_pack_mode": "dual"}
SPIKES = 88  # spike frames per RGB frame
NOISE = 1.3  # of the pictures made here, in 8-bit steps: gives PNGs of GoPro's size, 1.2 MB
TARGETS = {"PNG": 1.5, "tiles": 5.0}  # times KAIR's samples per second


def make_data(root: Path, size: tuple[int, int], frames: int) -> dict[str, str]:
    """A clip of noisy photographs with random spikes at half the size; the folders by option."""
    rng = np.random.default_rng(0)
    height, width = size
    folders = {side: root / side for side in ("gt", "lq", "spike")}
    for folder in folders.values():
        (folder / "clip").mkdir(parents=True)
    (folders["spike"] / "clip/spike").mkdir()
    (folders["spike"] / "config.yaml").write_text(f"spike_h: {height // 2}\nspike_w: {width // 2}\n")
    photograph = cv2.resize(
        load_photograph(TRAIN_PHOTOGRAPHS[0]), (width, height), interpolation=cv2.INTER_CUBIC
    ).astype(np.float32)
    for k in range(frames):
        moved = np.roll(photograph, (3 * k, 7 * k), (0, 1))
        for side, picture in (("gt", moved), ("lq", cv2.blur(moved, (9, 1)))):
            noisy = picture + rng.normal(0, NOISE, picture.shape)
            cv2.imwrite(str(folders[side] / f"clip/{k:06d}.png"), noisy.round().clip(0, 255).astype(np.uint8))
        spikes = rng.random((SPIKES, height // 2, width // 2), np.float32) < 0.2
        write_spikes(folders["spike"] / f"clip/spike/{k:06d}.dat", spikes)
    return {f"dataroot_{side}": str(folder) for side, folder in folders.items()}


def load_as_kair(data: VideoRecurrentTrainDataset, sample: Sample) -> dict[str, torch.Tensor]:
    """The sample's frames by the steps of KAIR's data set: decode whole, cast, crop, flip, to tensors."""
    sides = {}
    for key, root in (("L", data.dataroot_lq), ("H", data.dataroot_gt)):
        frames = []
        for name in sample.frames:
            content = (Path(root) / sample.clip.name / f"{name}.png").read_bytes()
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert decoded is not None
            frames.append(decoded.astype(np.float32) / 255.0)
        cropped = [sample.augmentation.space(sample.box.of(frame), (0, 1)) for frame in frames]
        colours = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_BGR2RGB) for frame in cropped]
        sides[key] = torch.stack([torch.from_numpy(frame.transpose(2, 0, 1).copy()).float() for frame in colours])
    return sides


def ways(
    roots: dict[str, Any], tiles: dict[str, Any], gt_size: int, cache: str
) -> dict[str, Callable[[SampleIndex], Any]]:
    """Ways to load a sample, by name; encoded spikes are cached in the folder `cache`."""
    shared: dict[str, Any] = {"num_frame": 6, "gt_size": gt_size}
    rgb = {key: root for key, root in roots.items() if key != "dataroot_spike"}
    plain = VideoRecurrentTrainDataset(**rgb, **shared)
    found: dict[str, Callable[[SampleIndex], Any]] = {
        "KAIR": lambda index: load_as_kair(plain, plain.draw(index)),
        "PNG, RGB only": plain.__getitem__,
    }
    for files, folders, suffix in (("PNG", roots, "png"), ("tiles", {**roots, **tiles}, "tif")):
        for name, encoding in (("concat", CONCAT), ("voxel", VOXEL)):
            data = VideoRecurrentTrainDatasetRGBSpike(**folders, **shared, **encoding, filename_ext=suffix)
            found[f"{files}, {name}"] = data.__getitem__
    cached = VideoRecurrentTrainDatasetRGBSpike(**folders, **shared, **VOXEL, filename_ext=suffix, spike_cache=cache)
    for clip in cached.clips:
        cached.spikes.read(clip.name, list(clip.frames))
    return {**found, "tiles, voxel, spike_cache": cached.__getitem__}


def measure(loaders: dict[str, Callable[[SampleIndex], Any]], samples: list[SampleIndex]) -> list[dict[str, Any]]:
    """Loads all samples in every way, in turn; a row per way."""
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    parts: dict[str, dict[str, list[float]]] = {name: {} for name in loaders}
    reference = loaders["KAIR"](samples[0])
    for name, load in loaders.items():  # also warms the page cache
        sample = load(samples[0])
        # The crops of ways with and without spikes may differ: spikes bind them to even pixels.
        if name == "PNG, RGB only" and not all(torch.equal(sample[key], reference[key]) for key in reference):
            raise AssertionError("the two ways do not load the same sample")
    for sample in samples:
        for name, load in loaders.items():
            begin = time.process_time()
            load(sample)
            seconds[name].append(time.process_time() - begin)
    for sample in samples:
        for name, load in loaders.items():
            with timed_parts() as spent:
                begin = time.process_time()
                load(sample)
                total = time.process_time() - begin
            for part, value in spent.items():
                parts[name].setdefault(part, []).append(value / total)
    usual = statistics.median(seconds["KAIR"])
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        row = {"way": name, "ms": 1e3 * median, "samples_per_second": 1 / median, "ratio": usual / median}
        rows.append({**row, **{part: statistics.median(shares) for part, shares in parts[name].items()}})
    return rows


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Seconds spent in the parts of a sample while the block runs; the representation without decoding its spikes."""
    spent = {"pictures": 0.0, "spikes": 0.0, "representation": 0.0}

    def timer(owner: Any, method: str, part: str) -> Any:
        original = getattr(owner, method)

        def run(*arguments: Any, **named: Any) -> Any:
            begin = time.process_time()
            result = original(*arguments, **named)
            spent[part] += time.process_time() - begin
            return result

        return mock.patch.object(owner, method, run)

    with (
        timer(FramePairs, "read_lq", "pictures"),
        timer(FramePairs, "read_gt", "pictures"),
        timer(SpikeStream, "crop", "spikes"),
        timer(SpikeEncoding, "encode_crop", "representation"),
    ):
        yield spent
    spent["representation"] -= spent["spikes"]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| way | samples/s | over KAIR | pictures | spikes | representation | rest |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [row[part] for part in ("pictures", "spikes", "representation")]
        cells = ["", "", "", ""] if row["way"] == "KAIR" else [f"{s:.0%}" for s in (*shares, max(0, 1 - sum(shares)))]
        lines.append(f"| {row['way']} | {row['samples_per_second']:.1f} | {row['ratio']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = bench_loader_parser(__doc__ or "")
    arguments = parser.parse_args()
    if len({arguments.gt is None, arguments.lq is None, arguments.spike is None}) > 1:
        parser.error("name all of --gt, --lq and --spike, or none")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.gt is None:
            height, width = arguments.size
            roots = make_data(Path(folder, "data"), (height, width), 8)
        else:
            roots = {f"dataroot_{side}": str(getattr(arguments, side)) for side in ("gt", "lq", "spike")}
        tiles = {}
        for side in ("gt", "lq"):
            source, target = Path(roots[f"dataroot_{side}"]), Path(folder, f"{side}_tiles")
            tile_frames(FolderFrames(source, side), target, workers=1)
            tiles[f"dataroot_{side}"] = str(target)
        loaders = ways(roots, tiles, arguments.gt_size, str(Path(folder, "cache")))
        rows = measure(loaders, [SampleIndex(epoch, 0) for epoch in range(arguments.samples)])
        sizes = {"PNG": _mean_size(roots["dataroot_lq"]), "tiles": _mean_size(tiles["dataroot_lq"])}
    if arguments.json:
        print(json.dumps({"rows": rows, "bytes": sizes}, indent=1))
        return
    print(table(rows))
    print(f"bytes per frame: PNG {sizes['PNG']:,.0f}, tiles {sizes['tiles']:,.0f}")
    for kind, goal in TARGETS.items():
        least = min(row["ratio"] for row in rows if row["way"].startswith(kind))
        print(f"{kind}: {least:.1f} times KAIR's way at least, goal {goal}: {'met' if least >= goal else 'MISSED'}")
    share = max(row["spikes"] + row["representation"] for row in rows if row["way"].startswith("PNG,"))
    verdict = "met" if share < 0.05 else "MISSED"
    print(f"spikes and representation: {share:.1%} of a sample of PNGs at most, goal 5 %: {verdict}")


def _mean_size(root: str) -> float:
    return statistics.mean(path.stat().st_size for path in Path(root).rglob("*.*") if path.is_file())


if __name__ == "__main__":
    main()
