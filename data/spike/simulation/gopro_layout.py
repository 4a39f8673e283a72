"""Writes simulated clips in the folder layout of the GoPro spike set, completely or not at all.

    <root>/GOPRO_Large/{train,test}_GT/<clip>/000000.png              sharp
    <root>/GOPRO_Large/{train,test}_GT_blurred/<clip>/000000.png      blurred
    <root>/GOPRO_Large/{train,test}_GT_instants/<clip>/000000_0024.png  sharp at spike frame 24, in sets with instants
    <root>/GOPRO_Large_spike_seq/config.yaml                          size of the spike frames; in each clip's folder if
                                                                      clips differ in size
    <root>/GOPRO_Large_spike_seq/{train,test}/<clip>/spike/000000.dat  8 n spike frames of this picture
    <root>/GOPRO_Large_spike_seq/{train,test}/<clip>/sync.json        exposure and centre in them
    <root>/meta_info_{train,test}.txt                                 `<clip> <pictures> (<h>,<w>,3) 0`
    <root>/simulation.json                                            parameters and clips; written last

The second field of a clip's name is n, the sharp frames per exposure (`demo00_07_00`).
All is written in a folder beside <root>, which is renamed at the end, so that <root> is never incomplete.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.spike.simulation.simulate import ExposedFrame, Exposure, instant_centers
from data.spike.sync import ExposureWindow, sub_frame_name, write_sync
from utils.spike_loader import write_spikes
from utils.user_error import UserError
from utils.utils_file import read_json
from utils.utils_image import imwrite_rgb
from utils.utils_progress import progress

# Names in the layout above; those of splits, pictures and spikes are the GoPro spike set's.
SPLITS = ("train", "test")
PICTURES = "GOPRO_Large"
SPIKES = "GOPRO_Large_spike_seq"
INSTANTS = "GT_instants"
MANIFEST = "simulation.json"
RECIPE = "train.json"  # options of a training with the set, written by simulate_dataset for sets made from videos
# All that a set may contain: a folder with other entries is not replaced.
OWN_ENTRIES = {PICTURES, SPIKES, MANIFEST, RECIPE, *(f"meta_info_{split}.txt" for split in SPLITS)}


@dataclass(frozen=True)
class SimulatedClip:
    """A clip to simulate.

    Attributes:
        split: "train" or "test".
        name: the clip's folder, `<name>_<n>_<part>`.
        length: number of pictures that `exposed` yields.
        exposed: starts the simulation from the beginning.
    """

    split: str
    name: str
    length: int
    exposed: Callable[[], Iterator[ExposedFrame]]


def is_complete(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether `root` is the complete data set with `parameters`; False if it is empty or doesn't exist.

    Raises:
        UserError: `root` contains other files, a set with other parameters, or a set with files missing.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    manifest = root / MANIFEST
    if not manifest.is_file():
        raise UserError(
            f"{root} is no simulated data set ({MANIFEST} is missing) and isn't replaced: "
            "choose another folder with --root"
        )
    try:
        recorded = read_json(manifest)
        before, clips = dict(recorded["parameters"]), dict(recorded["clips"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest} cannot be read ({error}): make the data set again with --force") from None
    requested = json.loads(json.dumps(parameters))
    differing = [
        f"{key} {before.get(key)} -> {requested.get(key)}"
        for key in sorted({*before, *requested})
        if before.get(key) != requested.get(key)
    ]
    if differing:
        raise UserError(
            f"{root} was made with other parameters ({'; '.join(differing)}): "
            "replace it with --force, or choose another folder with --root"
        )
    exposure = Exposure(before["n"], before["stride"])
    centers = instant_centers(exposure, before.get("instants", 0))
    for clip, length in clips.items():
        missing = [path for path in _files(root, clip, length, centers) if not path.is_file()]
        if missing:
            raise UserError(
                f"{missing[0]} is missing ({len(missing)} files of {clip}): make the data set again with --force"
            )
    return True


def _files(root: Path, clip: str, length: int, centers: Sequence[int]) -> Iterator[Path]:
    """The files of the clip `split/name`, with sharp pictures at the spike frames `centers`."""
    split, name = clip.split("/")
    for index in range(length):
        yield root / PICTURES / f"{split}_GT" / name / f"{index:06d}.png"
        yield root / PICTURES / f"{split}_GT_blurred" / name / f"{index:06d}.png"
        yield root / SPIKES / split / name / "spike" / f"{index:06d}.dat"
        for center in centers:
            yield root / PICTURES / f"{split}_{INSTANTS}" / name / f"{sub_frame_name(f'{index:06d}', center)}.png"
    yield root / SPIKES / split / name / "sync.json"


def write_dataset(root: Path, clips: Sequence[SimulatedClip], exposure: Exposure, parameters: dict[str, Any]) -> None:
    """Simulates `clips` and writes the data set to `root`, replacing an earlier simulated one.

    Args:
        root: folder of the data set; its parent is created if missing.
        clips: at least one; simulated one after another, with one picture in memory at a time.
        exposure: the exposure of `clips`.
        parameters: JSON values, stored in `simulation.json` for `is_complete`.

    Raises:
        UserError: `root` contains files that are not part of a simulated data set.
    """
    if root.exists():
        foreign = sorted({entry.name for entry in root.iterdir()} - OWN_ENTRIES) if root.is_dir() else [root.name]
        if foreign:
            raise UserError(
                f"{root} contains other files ({', '.join(foreign[:3])}) and isn't replaced: "
                "choose another folder with --root"
            )
    root.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
    try:
        unfinished = workshop / "made"
        _write_all(unfinished, clips, exposure, parameters)
        if root.exists():
            os.rename(root, workshop / "replaced")
        os.rename(unfinished, root)
    finally:
        shutil.rmtree(workshop)


def _write_all(root: Path, clips: Sequence[SimulatedClip], exposure: Exposure, parameters: dict[str, Any]) -> None:
    spike_sizes: dict[Path, tuple[int, ...]] = {}
    meta: dict[str, list[str]] = {split: [] for split in SPLITS}
    window = ExposureWindow(begin=0, end=exposure.end, center=exposure.center)
    with progress(sum(clip.length for clip in clips), "simulating", "picture") as bar:
        for clip in clips:
            bar.set_description(f"simulating {clip.split}/{clip.name}")
            written, size, folder = 0, (0, 0), root / SPIKES / clip.split / clip.name
            for frame in clip.exposed():
                size, spike_sizes[folder] = frame.sharp.shape[:2], frame.spikes.shape[1:]
                _write_frame(root, clip, written, frame)
                written += 1
                bar.update()
            assert written == clip.length, f"{clip.name}: {written} of {clip.length} pictures"
            meta[clip.split].append(f"{clip.name} {clip.length} ({size[0]},{size[1]},3) 0\n")
            frames = {f"{index:06d}": window for index in range(clip.length)}
            write_sync(folder / "sync.json", clip.name, frames, parameters.get("spike_fps"))
    _write_geometry(root / SPIKES, spike_sizes)
    for split, lines in meta.items():
        (root / f"meta_info_{split}.txt").write_text("".join(lines), encoding="utf-8")
    manifest = {"parameters": parameters, "clips": {f"{clip.split}/{clip.name}": clip.length for clip in clips}}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _write_geometry(folder: Path, sizes: dict[Path, tuple[int, ...]]) -> None:
    """config.yaml of the whole set, or of each clip if sizes differ; readers use the one nearest to the clip."""
    places = sizes if len(set(sizes.values())) > 1 else {folder: next(iter(sizes.values()))}
    for place, (height, width) in places.items():
        config = {"spike_h": height, "spike_w": width, "is_labeled": False, "labeled_data_type": [0]}
        (place / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _write_frame(root: Path, clip: SimulatedClip, index: int, frame: ExposedFrame) -> None:
    for folder, picture in ((f"{clip.split}_GT", frame.sharp), (f"{clip.split}_GT_blurred", frame.blurred)):
        imwrite_rgb(root / PICTURES / folder / clip.name / f"{index:06d}.png", picture)
    for center, picture in frame.instants.items():
        name = f"{sub_frame_name(f'{index:06d}', center)}.png"
        imwrite_rgb(root / PICTURES / f"{clip.split}_{INSTANTS}" / clip.name / name, picture)
    write_spikes(root / SPIKES / clip.split / clip.name / "spike" / f"{index:06d}.dat", frame.spikes)
