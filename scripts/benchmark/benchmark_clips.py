"""The restoration benchmark's clips: made, checked against the frozen list, and held against training frames.

The list, `data/meta_info/benchmark_restoration.json`, has the protocol and the SHA-256 of each clip: of its decoded
frames, spikes and exposures, since the same picture may be compressed to other bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.dataset_guided_synthetic import GuidedSyntheticDataset
from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike
from data.sampler import SampleIndex
from data.select_dataset import define_Dataset
from data.spike.simulation.benchmark_set import GeneratedScenes, Protocol
from data.spike.simulation.demo_set import DemoSet
from data.spike.simulation.gopro_layout import PICTURES, SPIKES, is_complete, write_dataset
from data.spike.simulation.simulate import Exposure
from scripts.benchmark.competitors import ClipFolder
from utils.perceptual_hash import SAME, distances, hashes_of, perceptual_hash
from utils.user_error import UserError
from utils.utils_file import atomic_write, read_json
from utils.utils_image import PICTURE_SUFFIXES, imread_rgb, tensor2uint
from utils.utils_option import load_options

PHOTOGRAPHS = DemoSet(n=7, stride=7, threshold=2.0, spike_ratio=2, light="srgb")
"""The demo's set, of which the test clips count: as `simulate_dataset` makes it when it is told nothing."""

GENERATED_SAMPLES = 64  # of an endless training set, that are held against the test clips


def frozen_clips(protocol: Protocol, root: Path) -> list[ClipFolder]:
    """The list's clips below `root`, simulated where they are missing: the photographs', then the scenes'.

    Raises:
        UserError: a folder there holds something else.
    """
    photographs = root / "photographs"
    exposure = Exposure(PHOTOGRAPHS.n, PHOTOGRAPHS.stride)
    if not is_complete(photographs, PHOTOGRAPHS.parameters()):
        tests = [clip for clip in PHOTOGRAPHS.clips() if clip.split == "test"]
        write_dataset(photographs, tests, exposure, PHOTOGRAPHS.parameters())
    folders = [_laid_out("photographs", photographs, PHOTOGRAPHS.threshold, {"clips": "the demo's photographs"})]
    scenes = GeneratedScenes(protocol)
    for condition in protocol.conditions():
        scenes.write(root / condition.name, condition)
        factors = {
            "exposure": f"exposure {condition.sharp_frames} sharp frames",
            "threshold": f"threshold {condition.threshold:g}",
            "light": f"{condition.light} light",
        }
        folders.append(_laid_out(condition.name, root / condition.name, condition.told, factors))
    return folders


def named_clips(words: Sequence[str]) -> ClipFolder:
    """Clips that the user names: NAME THRESHOLD ROOT in GoPro's layout, or NAME THRESHOLD BLURRED SHARP SPIKES.

    Raises:
        UserError: another number of words, or no number as threshold.
    """
    if len(words) not in (3, 5):
        raise UserError(f"--clips {' '.join(words)}: NAME THRESHOLD ROOT, or NAME THRESHOLD BLURRED SHARP SPIKES")
    name, threshold, *folders = words
    try:
        value = float(threshold)
    except ValueError as error:
        raise UserError(f"--clips {name}: the threshold is {threshold!r}; a number is needed") from error
    if len(folders) == 1:
        return _laid_out(name, Path(folders[0]), value, {"clips": name})
    blurred, sharp, spikes = map(Path, folders)
    return ClipFolder(name, blurred, sharp, spikes, value, {"clips": name})


def _laid_out(group: str, root: Path, threshold: float, factors: dict[str, str]) -> ClipFolder:
    """Clips below a root in GoPro's layout."""
    pictures = root / PICTURES
    return ClipFolder(
        group, pictures / "test_GT_blurred", pictures / "test_GT", root / SPIKES / "test", threshold, factors
    )


def read_list(path: Path) -> tuple[Protocol, dict[str, Any]]:
    """The protocol of a list, and the whole file.

    Raises:
        UserError: no such file, or not such a list.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("protocol"), dict):
        raise UserError(f'{path}: not a list of clips; it needs "protocol" and "clips"')
    return Protocol.of(tree["protocol"]), tree


def digests(folders: Sequence[ClipFolder]) -> dict[str, str]:
    """SHA-256 of all clips, by group and clip."""
    found = {}
    for folder in folders:
        clips = folder.reference()
        for index, clip in enumerate(clips.clips):
            found[f"{folder.group}/{clip.name}"] = _digest(clips, index)
    return found


def _digest(clips: VideoRecurrentTestDatasetRGBSpike, index: int) -> str:
    clip, digest = clips.clips[index], hashlib.sha256()
    for frames in (
        clips.pairs.read_lq(clip.name, list(clip.frames)),
        clips.pairs.read_gt(clip.name, list(clip.frames)),
    ):
        digest.update(repr((frames.shape, str(frames.dtype))).encode())
        digest.update(np.ascontiguousarray(frames).tobytes())
    for block in clips.spikes.content(clip.name, clip.frames):
        digest.update(block)
    return digest.hexdigest()


def check_frozen(path: Path, tree: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: clips are not those of the list, so that numbers of elsewhere can't be set beside.
    """
    listed = tree.get("clips", {})
    other = [name for name, digest in found.items() if listed.get(name) != digest]
    if other:
        raise UserError(
            f"{len(other)} of {len(found)} clips are not those of {path} ({other[0]}); it was made with "
            f"{tree.get('versions')}, here are {versions()}: install those, or --freeze a list of your own"
        )


def freeze(path: Path, protocol: Mapping[str, Any], found: Mapping[str, str]) -> None:
    """Writes a list."""
    with atomic_write(path) as file:
        json.dump({"protocol": protocol, "versions": versions(), "clips": found}, file, indent=1)
        file.write("\n")


def versions() -> dict[str, str]:
    """Of what draws and warps the scenes."""
    return {"numpy": np.__version__, "opencv": cv2.__version__}


def audit(folders: Sequence[ClipFolder], trained_on: Path) -> dict[str, str | int]:
    """Holds all sharp test frames against training frames.

    Args:
        trained_on: a folder of clips of sharp frames, or an option file whose training set is meant; of an endless
            one its first samples are taken.

    Raises:
        UserError: a training frame shows what a test frame shows.
    """
    names, tests = [], []
    for folder in folders:
        clips = folder.reference()
        for clip in clips.clips:
            tests.append(hashes_of(clips.pairs.read_gt(clip.name, list(clip.frames))))
            names += [f"{folder.group}/{clip.name}/{frame}" for frame in clip.frames]
    trained, training = [], []
    for name, picture in _training_frames(trained_on):  # one picture at a time is in memory
        trained.append(name)
        training.append(perceptual_hash(picture))
    if not training:
        raise UserError(f"--audit {trained_on}: no training frames are there")
    found = distances(np.concatenate(tests), np.stack(training))
    nearest = found.min(1)
    shared = np.flatnonzero(nearest <= SAME)
    if len(shared):
        pairs = "; ".join(f"{names[number]} and {trained[found[number].argmin()]}" for number in shared[:3])
        raise UserError(f"--audit {trained_on}: {len(shared)} test frames show what training frames show: {pairs}")
    return {"training": str(trained_on), "frames": len(training), "least distance in bits": int(nearest.min())}


def _training_frames(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures (H,W,3) uint8 RGB of what a network was trained on."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in PICTURE_SUFFIXES:
                yield str(file), imread_rgb(file)
        return
    opt = load_options(path)
    if opt.datasets.train is None:
        raise UserError(f"--audit {path}: it has no datasets.train; name the option file of the training")
    dataset = define_Dataset(opt.datasets.train, seed=opt.train.manual_seed, scale=opt.scale, n_channels=opt.n_channels)
    if isinstance(dataset, GuidedSyntheticDataset):
        for number in range(GENERATED_SAMPLES):
            sample = dataset[SampleIndex(0, number)]
            yield sample["key"], tensor2uint(sample["H"][0])
        return
    yield from _training_frames(Path(opt.datasets.train.arguments()["dataroot_gt"]))
