"""Makes blurred frames, sharp frames and spikes from X4K1000FPS, as Spk-X4K1000FPS has them.

    python -m scripts.data_preparation.prepare_x4k1000fps --raw_root trainsets/X4K1000FPS --exposures 33 65

Each clip of RAW/{train,val}/<scene>/<clip>/*.png is interpolated to 4 times its frames (65 give 257), the spike clock.
A blurred frame is the mean of 33 or 65 of them, one every --step; the sharp frame is the middle one; the spikes are
those of integrating pixels at half the size, a file of 33 or 65 spike frames each. For an exposure of 33:

    OUT/X4K1000FPS_33/{train,test}_{GT,GT_blurred}/<clip>/000000.png, OUT/X4K1000FPS_33/meta_info_{train,test}.txt
    OUT/X4K1000FPS_33_spike_seq/{train,test}/<clip>/{spike/000000.dat, sync.json}, .../config.yaml

A clip is there whole or not at all; running it again goes on where it stopped.
"""

import argparse
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # started by path, not by -m
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.data_preparation.flags import prepare_x4k1000fps_parser
from utils.options.flags import answer_first

if __name__ == "__main__":  # --help and mistakes in flags are answered before the imports below, which take seconds
    answer_first(prepare_x4k1000fps_parser(__doc__ or ""))

import numpy as np

from data.frame_io import FolderFrames
from data.spike.simulation.interpolate import to_spike_clock
from data.spike.simulation.simulate import IntegrateAndFire, sensor_light, to_uint8
from data.spike.sync import ExposureWindow, write_sync
from data.spike.video_source import FrameSize, FrameSource
from data.video_clips import write_meta_info
from scripts.data_preparation.preparation import pictures
from utils.spike_loader import write_spikes
from utils.spike_writer import write_config
from utils.user_error import UserError
from utils.utils_cli import run_command
from utils.utils_file import list_folder
from utils.utils_image import imwrite_rgb

FACTOR = 4  # spike frames per raw frame
RAW_SPLITS = {"train": "train", "test": "val"}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 done, 2 a folder is missing or a clip too short."""
    arguments = prepare_x4k1000fps_parser(__doc__ or "").parse_args(argv)
    return run_command(lambda: prepare(arguments))


def prepare(arguments: argparse.Namespace) -> None:
    """All exposures of all splits."""
    wrong = [exposure for exposure in arguments.exposures if exposure < 3 or exposure % 2 == 0]
    if wrong or arguments.step < 1:
        raise UserError(
            f"--exposures {wrong or arguments.exposures}, --step {arguments.step}: odd from 3 on, and 1 or more"
        )
    raw = {split: raw_clips(arguments.raw_root / RAW_SPLITS[split]) for split in arguments.splits}
    lacking = [str(arguments.raw_root / RAW_SPLITS[split]) for split, clips in raw.items() if not clips]
    if lacking:
        raise UserError(f"{', '.join(lacking)}: no clips; unpack X4K1000FPS so that <split>/<scene>/<clip>/*.png exist")
    _check_room(raw, arguments)
    for exposure in arguments.exposures:
        root = arguments.out_root / f"X4K1000FPS_{exposure}"
        spikes = arguments.out_root / f"X4K1000FPS_{exposure}_spike_seq"
        for split, clips in raw.items():
            for number, (clip, folder) in enumerate(clips.items()):
                places = [root / f"{split}_GT" / clip, root / f"{split}_GT_blurred" / clip, spikes / split / clip]
                if arguments.force or not all(place.is_dir() for place in places):
                    make_clip(folder, places, exposure, number, arguments)
            frames = FolderFrames(root / f"{split}_GT", "--out_root")
            counts = write_meta_info(root / f"meta_info_{split}.txt", frames, clips)
            height, width = (side // arguments.spike_ratio for side in frames.size(next(iter(clips))))
            write_config(spikes / "config.yaml", height, width)
            print(f"exposure {exposure}, {split}: {len(counts)} clips, {sum(counts.values())} frames")


def raw_clips(root: Path) -> dict[str, Path]:
    """Folders of frames below a split, named by their path: <scene>_<clip>."""
    scenes = [scene for scene in list_folder(root) if scene.is_dir()] if root.is_dir() else []
    folders = [clip for scene in scenes for clip in list_folder(scene) if clip.is_dir() and pictures(clip)]
    return {"_".join(folder.relative_to(root).parts): folder for folder in folders}


def make_clip(folder: Path, places: list[Path], exposure: int, number: int, arguments: argparse.Namespace) -> None:
    """Writes a clip's sharp frames, blurred frames and spikes: into half-made folders, which then take their names.

    Args:
        places: the three folders.
        number: of the clip in its split, which seeds the pixels' charge at the start.
    """
    source = FrameSource(folder, FrameSize(multiple=arguments.spike_ratio))
    half_made = [place.with_name(f".{place.name}.tmp") for place in places]
    for path in (*half_made, *places):
        shutil.rmtree(path, ignore_errors=True)
    window, names = ExposureWindow(0, exposure, exposure // 2), []
    frames = to_spike_clock(source.frames(0, source.length), FACTOR)
    rng = np.random.default_rng(np.random.SeedSequence([exposure, number]))
    for index, (sharp, blurred, spikes) in enumerate(exposed(frames, exposure, rng, arguments)):
        names.append(f"{index:06d}")
        imwrite_rgb(half_made[0] / f"{names[-1]}.png", sharp)
        imwrite_rgb(half_made[1] / f"{names[-1]}.png", blurred)
        write_spikes(half_made[2] / "spike" / f"{names[-1]}.dat", spikes)
    if not names:
        raise UserError(f"{folder}: {source.length} frames are too few for an exposure of {exposure} spike frames")
    write_sync(half_made[2] / "sync.json", places[2].name, dict.fromkeys(names, window), 1000.0 * FACTOR)
    for path, place in zip(half_made, places, strict=True):
        path.rename(place)


def exposed(
    frames: Iterator[np.ndarray], exposure: int, rng: np.random.Generator, arguments: argparse.Namespace
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sharp frame, blurred frame (H,W,3) uint8, and spikes (exposure, h, w) of every exposure of a clip.

    Args:
        frames: on the spike clock.
        rng: of the pixels' charge before the first frame.
    """
    sensor: IntegrateAndFire | None = None
    recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=exposure)
    for tick, frame in enumerate(frames):
        light = sensor_light(frame, arguments.spike_ratio)
        sensor = sensor or IntegrateAndFire(light.shape, arguments.threshold, rng)
        recent.append((frame, sensor.step(light[None])[0]))
        if tick + 1 >= exposure and (tick + 1 - exposure) % arguments.step == 0:
            blurred = np.stack([seen for seen, _ in recent]).mean(axis=0) / 255
            yield recent[exposure // 2][0], to_uint8(blurred), np.stack([spikes for _, spikes in recent])


def _check_room(raw: dict[str, dict[str, Path]], arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: what will be made does not fit on the disk.
    """
    files = [folder / name for clips in raw.values() for folder in clips.values() for name in pictures(folder)]
    per_frame = sum(file.stat().st_size for file in files) * (2 * FACTOR / arguments.step + FACTOR / arguments.step)
    place = next(folder for folder in (arguments.out_root, *arguments.out_root.absolute().parents) if folder.exists())
    needed, free = len(arguments.exposures) * per_frame, shutil.disk_usage(place).free
    if needed > free:
        raise UserError(f"{place}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")


if __name__ == "__main__":
    sys.exit(main())
