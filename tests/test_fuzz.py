"""Damaged files of every kind that is read: refused in one message that names the file, or read as what was written.

600 inputs, the same in every run: bits flipped, ends cut off, blocks zeroed or overwritten, parts repeated or inserted.
No input may raise anything but a `UserError`, take longer than a few seconds, or be read as something else where the
format can tell (`checked`). To add a kind, write a function that makes a sound file and returns how it is read.
"""

import json
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import models.select_model  # noqa: F401  (both register parts of options)
from data.array_cache import ArrayCache
from data.frame_io import LmdbFrames
from data.picture_crop import Box, decode_box, encode_tiles
from data.picture_header import read_header
from data.spike.spikling_npz import dump_spike_numpy, load_spike_numpy
from data.spike.sync import ExposureWindow, SyncTable, write_sync
from data.spike.video_source import FrameSize, FrameSource
from data.video_clips import read_meta_info
from scripts.inspect_run import Log, troubles
from utils.numpy_files import map_npy
from utils.spike_loader import SpikeStream, find_geometry
from utils.spike_writer import write_spikes
from utils.user_error import UserError
from utils.utils_checkpoint import CheckpointFolder, load_plain
from utils.utils_file import open_regular, read_bytes, read_json
from utils.utils_image import imread_rgb
from utils.utils_option import load_options
from utils.utils_weights import check_optimizer_state, load_network_weights

INPUTS = 24  # of every kind
SECONDS = 10  # that one input may take
PICTURE = cv2.blur(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8), (3, 3))
SPIKES = np.random.default_rng(1).integers(0, 2, (24, 12, 16), dtype=np.uint8)
NETWORK = {"net_type": "vrt", "upscale": 1, "deformable_groups": 12}
OPTIONS = {"task": "t", "netG": NETWORK, "train": {"total_iter": 9, "G_optimizer_lr": 4e-4}}
KINDS: dict[str, Callable[[Path], "Kind"]] = {}


@dataclass
class Kind:
    """A sound file and how it is read.

    Attributes:
        file: is damaged.
        read: reads it, or what it is a part of.
        checked: the format has check sums, so that what is read has to be what was written.
        only_cut: no bit flips: the library that reads it is known to trust its content.
    """

    file: Path
    read: Callable[[], Any]
    checked: bool = False
    only_cut: bool = False


def kind(make: Callable[[Path], Kind]) -> Callable[[Path], Kind]:
    KINDS[make.__name__] = make
    return make


def picture(folder: Path, suffix: str, read: Callable[[Path], Any], checked: bool) -> Kind:
    path = folder / f"picture{suffix}"
    stored = cv2.imencode(suffix, PICTURE)[1].tobytes() if suffix != ".tif" else encode_tiles(PICTURE, 16)
    path.write_bytes(stored)
    return Kind(path, lambda: read(path), checked)


def crop_of(path: Path) -> np.ndarray:
    return decode_box(read_bytes(path), str(path), Box(5, 7, 20, 30))[0]


def header_of(path: Path) -> int:
    with open_regular(path) as file:
        return len(read_header(file).fault) * 0  # a fault is an answer


@kind
def png(folder: Path) -> Kind:
    return picture(folder, ".png", imread_rgb, True)


@kind
def png_crop(folder: Path) -> Kind:
    return picture(folder, ".png", crop_of, True)


@kind
def tiles(folder: Path) -> Kind:
    return picture(folder, ".tif", imread_rgb, True)


@kind
def tiles_crop(folder: Path) -> Kind:
    return picture(folder, ".tif", crop_of, True)


@kind
def jpeg(folder: Path) -> Kind:
    return picture(folder, ".jpg", imread_rgb, False)


@kind
def bmp(folder: Path) -> Kind:
    return picture(folder, ".bmp", imread_rgb, False)


@kind
def webp(folder: Path) -> Kind:
    return picture(folder, ".webp", imread_rgb, False)


@kind
def header(folder: Path) -> Kind:
    return picture(folder, ".png", header_of, False)


@kind
def spikling_pair(folder: Path) -> Kind:
    path = folder / "pair.npz"
    dump_spike_numpy(path, SPIKES, PICTURE[:12, :16, 0])
    return Kind(path, lambda: load_spike_numpy(path), True)


@kind
def npy(folder: Path) -> Kind:
    path = folder / "spikes.npy"
    np.save(path, SPIKES)
    return Kind(path, lambda: np.array(map_npy(path)))


@kind
def cached_array(folder: Path) -> Kind:
    def read() -> np.ndarray:
        return np.array(ArrayCache(folder).read("x", "key", lambda: SPIKES))

    read()
    return Kind(next(folder.glob("x-*.npz")), read, True)


@kind
def weights(folder: Path) -> Kind:
    path = folder / "net.pth"
    torch.save(torch.nn.Linear(7, 5).state_dict(), path)
    return Kind(path, lambda: load_network_weights(path), True)


@kind
def optimizer(folder: Path) -> Kind:
    path, net = folder / "optimizer.pth", torch.nn.Linear(7, 5)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 7)).sum().backward()
    adam.step()
    torch.save(adam.state_dict(), path)

    def read() -> Any:
        state = load_plain(path)
        check_optimizer_state(state, adam, path)
        return state["state"]

    return Kind(path, read, True)


def checkpoint(folder: Path, name: str) -> Kind:
    """An experiment of one checkpoint; without a sound one it is refused."""
    checkpoints = CheckpointFolder(folder)
    checkpoints.save(7, {"netG": {"weight": torch.arange(600.0)}})
    for kair in (folder / "models").iterdir():
        kair.unlink()
    return Kind(folder / "checkpoints" / "step_00000007" / name, lambda: checkpoints.load_newest(), True)


@kind
def state(folder: Path) -> Kind:
    return checkpoint(folder, "state.pth")


@kind
def state_description(folder: Path) -> Kind:
    return checkpoint(folder, "meta.json")


@kind
def best(folder: Path) -> Kind:
    checkpoints = CheckpointFolder(folder)
    checkpoints.save(7, {"netG": {"weight": torch.ones(2)}})
    checkpoints.record_score(7, 30.5)
    return Kind(folder / "checkpoints" / "best.json", lambda: type(checkpoints.best_step()))


@kind
def lmdb(folder: Path) -> Kind:
    library = pytest.importorskip("lmdb")
    root = folder / "x.lmdb"
    stored = cv2.imencode(".png", PICTURE)[1].tobytes()
    with library.open(str(root), map_size=2**22) as environment, environment.begin(write=True) as transaction:
        for number in range(8):
            transaction.put(f"clip/{number:06d}".encode(), stored)
    lines = [f"clip/{number:06d}.png (48,80,3) 1\n" for number in range(8)]
    (root / "meta_info.txt").write_text("".join(lines))
    numbers = iter(range(10**6))

    def read() -> np.ndarray:
        # A process opens a path once; every input is another path.
        link = folder / f"{next(numbers)}.lmdb"
        link.mkdir()
        (link / "data.mdb").write_bytes(read_bytes(root / "data.mdb"))
        (link / "meta_info.txt").write_bytes((root / "meta_info.txt").read_bytes())
        return LmdbFrames(link, "dataroot_lq").read("clip", "000007")

    return Kind(root / "data.mdb", read, True, only_cut=True)


def video(folder: Path, name: str, code: str) -> Kind:
    path = folder / name
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (80, 48))
    for number in range(6):
        writer.write(np.roll(PICTURE, 8 * number, axis=1))
    writer.release()
    if not path.exists():
        pytest.skip(f"this OpenCV writes no {code} video")
    return Kind(path, lambda: FrameSource(path, FrameSize()).length, True, only_cut=True)


@kind
def avi(folder: Path) -> Kind:
    return video(folder, "v.avi", "MJPG")


@kind
def mp4(folder: Path) -> Kind:
    return video(folder, "v.mp4", "mp4v")


@kind
def mkv(folder: Path) -> Kind:
    return video(folder, "v.mkv", "FFV1")


@kind
def sync_json(folder: Path) -> Kind:
    path = folder / "sync.json"
    write_sync(path, "clip", {f"{number:06d}": ExposureWindow(number, number + 9, number + 4) for number in range(9)})
    return Kind(path, lambda: len(SyncTable.load(path)) * 0)


@kind
def alignment_log(folder: Path) -> Kind:
    path = folder / "log.csv"
    rows = [f"{number},{number * 9},{number * 9 + 8},0,clip\n" for number in range(9)]
    path.write_text("frame_idx,t0,t1,event_count,seq\n" + "".join(rows))
    return Kind(path, lambda: len(SyncTable.load(path)) * 0)


@kind
def meta_info(folder: Path) -> Kind:
    path = folder / "meta.txt"
    path.write_text("".join(f"clip_{number} 9 (48,80,3) 1\n" for number in range(9)))
    return Kind(path, lambda: len(read_meta_info(str(path), "06d")) * 0)


@kind
def config_yaml(folder: Path) -> Kind:
    path = folder / "config.yaml"
    path.write_text("spike_h: 12\nspike_w: 16\nis_labeled: false\nlabeled_data_type: [0]\nspike_threshold: 2.0\n")
    return Kind(path, lambda: find_geometry(folder) and 0)


@kind
def dat(folder: Path) -> Kind:
    path = folder / "spikes.dat"
    write_spikes(path, SPIKES)
    return Kind(path, lambda: SpikeStream(path, 12, 16).get_spike_matrix())


@kind
def run_json(folder: Path) -> Kind:
    path = folder / "run.json"
    path.write_text(json.dumps({"made_with": {"val": {"tile": [1, 2, 3]}}, "frames": {"clip": ["000000"]}}))
    return Kind(path, lambda: read_json(path) and 0)


def options(folder: Path, name: str, text: str) -> Kind:
    """What a damaged option file says may be other options; its faults are found, or it is complete."""
    path = folder / name
    path.write_text(text)
    return Kind(path, lambda: load_options(path) and 0)


@kind
def option_json(folder: Path) -> Kind:
    return options(folder, "options.json", json.dumps(OPTIONS, indent=1))


@kind
def option_yaml(folder: Path) -> Kind:
    return options(folder, "options.yml", yaml.safe_dump(OPTIONS))


@kind
def option_base(folder: Path) -> Kind:
    base = options(folder, "base.json", json.dumps(OPTIONS)).file
    path = folder / "options.json"
    path.write_text('{"base": "base.json", "task": "other"}')
    return Kind(base, lambda: load_options(path) and 0)


@kind
def lmdb_list(folder: Path) -> Kind:
    root = folder / "x.lmdb"
    root.mkdir()
    (root / "data.mdb").touch()
    path = root / "meta_info.txt"
    path.write_text("".join(f"clip/{number:06d}.png (48,80,3) 1\n" for number in range(8)))
    return Kind(path, lambda: len(LmdbFrames(root, "dataroot_lq").clips) * 0)


@kind
def skipped_steps(folder: Path) -> Kind:
    path = folder / "bad_steps.jsonl"
    entry = {"step": 3, "in_a_row": 1, "grad_norm": "nan", "ranks": [{"rank": 0, "loss": "nan", "keys": ["clip/0"]}]}
    path.write_text(f"{json.dumps(entry)}\n" * 5)
    return Kind(path, lambda: len(list(troubles(Log(), folder))) * 0)


def damages(content: bytes, only_cut: bool, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """What happens to files, `INPUTS` times."""
    for number in range(INPUTS):
        place, length = rng.randrange(len(content)), rng.randrange(1, 1 + min(64, len(content)))
        changed = bytearray(content)
        how = "cut" if only_cut else rng.choice(["flip", "flip", "flip", "cut", "zero", "noise", "repeat", "insert"])
        if how == "flip":
            changed[place] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del changed[place if number else 0 :]
        elif how == "zero":
            changed[place : place + length] = bytes(len(changed[place : place + length]))
        elif how == "noise":
            changed[place : place + length] = rng.randbytes(len(changed[place : place + length]))
        elif how == "repeat":
            changed[place:place] = changed[place : place + length]
        else:
            changed[place:place] = rng.choice([b"\xff\xfe", b"\x00", b"\xef\xbb\xbf", b"[" * 3000, b"9" * 5000])
        if changed != content:
            yield f"{how} at {place} of {len(content)}, {length} long", bytes(changed)


@contextmanager
def limited(what: str) -> Iterator[None]:
    """Ends what takes too long."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: object) -> None:
        raise AssertionError(f"{what}: more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays and tensors in them included."""
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    sound = KINDS[name](tmp_path)
    expected, content = sound.read(), sound.file.read_bytes()
    for how, damaged in damages(content, sound.only_cut, random.Random(name)):
        sound.file.write_bytes(damaged)
        what = f"{name}: {how}"
        with limited(what):
            try:
                found = sound.read()
            except UserError as error:
                assert str(tmp_path) in str(error), f"{what}: names no file: {error}"
            except Exception as error:
                raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
            else:
                assert not sound.checked or same(found, expected), f"{what}: read as something else"
        sound.file.write_bytes(content)
    assert same(sound.read(), expected)


def test_as_many_as_the_document_says() -> None:
    assert len(KINDS) * INPUTS >= 600
