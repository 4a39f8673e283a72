"""Frames from folders and from LMDBs are the same frames."""

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.dataset_video_train import VideoRecurrentTrainDataset
from data.frame_io import Box, FolderFrames, Frames, LmdbFrames, _environments, open_frames
from data.sampler import GlobalBatchSampler, init_worker
from data.video_clips import read_meta_info
from tests.data.trees import GoproTree
from utils.user_error import UserError

LMDB = {"type": "lmdb"}


def pack(root: Path) -> Path:
    """Writes <root>.lmdb in KAIR's layout."""
    lmdb = pytest.importorskip("lmdb")
    target = root.with_name(f"{root.name}.lmdb")
    files = {str(file.relative_to(root).with_suffix("")): file for file in sorted(root.rglob("*.png"))}
    with lmdb.open(str(target), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, file in files.items():
            transaction.put(key.encode(), file.read_bytes())
    shapes = {key: cv2.imread(str(file)).shape for key, file in files.items()}
    lines = [f"{key}.png ({h},{w},{c}) 1\n" for key, (h, w, c) in shapes.items()]
    (target / "meta_info.txt").write_text("".join(lines))
    return target


def lmdb_roots(tree: GoproTree) -> dict[str, str]:
    return {"dataroot_gt": str(pack(tree.gt)), "dataroot_lq": str(pack(tree.lq))}


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((4, 6, 3), number, np.uint8))


def test_lmdb_reads_as_the_folder(tree: GoproTree) -> None:
    folder, packed = FolderFrames(tree.lq, "dataroot_lq"), open_frames("dataroot_lq", str(pack(tree.lq)), LMDB)
    assert packed.clips == folder.clips == {clip: tree.frames for clip in tree.clips}
    clip, box = tree.clips[1], Box(3, 5, 10, 20)
    assert packed.size(clip) == folder.size(clip) == (48, 64)
    expected = cv2.imread(str(tree.lq / clip / "000002.png"))[3:13, 5:25, ::-1]
    for frames in (packed, folder, pickle.loads(pickle.dumps(packed))):
        assert np.array_equal(frames.read(clip, "000002", box), expected)


def test_lmdb_works_in_workers_after_use_in_the_main_process(tree: GoproTree) -> None:
    options: dict[str, Any] = {"num_frame": 2, "gt_size": 16}
    packed = VideoRecurrentTrainDataset(**lmdb_roots(tree), io_backend=LMDB, **options)
    first = packed[0]
    sampler = GlobalBatchSampler(len(packed), 2, shuffle=False)
    loader = DataLoader(
        packed, batch_sampler=sampler, num_workers=1, worker_init_fn=init_worker, multiprocessing_context="fork"
    )
    batch = next(iter(loader))
    assert torch.equal(batch["L"][0], first["L"])
    unpacked = VideoRecurrentTrainDataset(**tree.rgb_roots, **options)
    assert torch.equal(batch["L"], torch.stack([unpacked[0]["L"], unpacked[1]["L"]]))


def read_in_child(frames: Frames) -> None:
    frames.read("train_clip_00", "000000")
    assert [process for process, _ in _environments.values()] == [os.getpid()]


def test_lmdb_is_opened_anew_after_a_fork(tree: GoproTree) -> None:
    _environments.clear()
    frames = open_frames("dataroot_lq", str(pack(tree.lq)))
    frames.read("train_clip_00", "000000")
    child = multiprocessing.get_context("fork").Process(target=read_in_child, args=(frames,))
    child.start()
    child.join()
    assert child.exitcode == 0


def test_a_path_ending_in_lmdb_needs_no_backend(tree: GoproTree) -> None:
    assert VideoRecurrentTrainDataset(**lmdb_roots(tree), num_frame=2, gt_size=16)[0]["key"] == "train_clip_00/000000"


def test_lmdb_faults_are_named(tree: GoproTree) -> None:
    packed = pack(tree.lq)
    meta = packed / "meta_info.txt"
    meta.write_text(meta.read_text() + "train_clip_01/000099.png (48,64,3) 1\n")
    frames = open_frames("dataroot_lq", str(packed))
    with pytest.raises(ValueError, match=r"train_GT_blurred\.lmdb\[train_clip_01/000099\]: the key"):
        frames.read("train_clip_01", "000099")
    meta.write_text("train_clip_01 7\n")
    with pytest.raises(ValueError, match=r"meta_info\.txt, line 1"):
        open_frames("dataroot_lq", str(packed))


def test_names_of_any_form_in_natural_order(tmp_path: Path) -> None:
    write_images(tmp_path / "b 2", "f10.png", "f2.png", "f1.JPG")
    write_images(tmp_path / "b 10" / "nested", "x.png")
    write_images(tmp_path / ".hidden", "x.png")
    (tmp_path / "b 2" / "notes.txt").write_text("")
    frames = FolderFrames(tmp_path, "dataroot_lq")
    assert list(frames.clips.items()) == [("b 2", ["f1", "f2", "f10"]), ("b 10/nested", ["x"])]
    assert frames.where("b 2", "f1") == str(tmp_path / "b 2" / "f1.JPG") and frames.single is None
    assert FolderFrames(tmp_path, "dataroot_lq", "png").clips["b 2"] == ["f2", "f10"]


def test_a_folder_of_frames_is_one_clip(tmp_path: Path) -> None:
    write_images(tmp_path / "clip", "0.png", "1.png")
    frames = FolderFrames(tmp_path / "clip", "dataroot_lq")
    assert frames.clips == {"clip": ["0", "1"]} and frames.single == "clip"
    assert frames.read("clip", "1").max() == 1
    assert FolderFrames(tmp_path / "clip", "dataroot_gt", single_name="other").read("other", "0").shape == (4, 6, 3)


def test_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "both" / "clip", "0.png")
    write_images(tmp_path / "both", "preview.png")
    with pytest.raises(ValueError, match="both images and folders of images"):
        FolderFrames(tmp_path / "both", "dataroot_lq")
    write_images(tmp_path / "twice", "0.png", "0.jpg")
    with pytest.raises(ValueError, match=r"0\.jpg and 0\.png are the same frame"):
        FolderFrames(tmp_path / "twice", "dataroot_lq")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no clip folders with \.png \.jpg.*--prepare-data"):
        FolderFrames(tmp_path / "empty", "dataroot_lq")


def test_boxes_scale_only_onto_whole_pixels() -> None:
    assert Box(2, 4, 6, 8).scaled(1, 2) == Box(1, 2, 3, 4) and Box(1, 2, 3, 4).scaled(3) == Box(3, 6, 9, 12)
    with pytest.raises(AssertionError):
        Box(1, 2, 4, 4).scaled(1, 2)


def test_a_cut_lmdb_is_refused_at_every_length(tree: GoproTree) -> None:
    """Reading beyond its end would kill the process."""
    root = Path(lmdb_roots(tree)["dataroot_lq"])
    content = (root / "data.mdb").read_bytes()
    copy = root.with_name("cut.lmdb")
    shutil.copytree(root, copy)
    frames = LmdbFrames(copy, "dataroot_lq")
    clip = next(iter(frames.clips))
    for keep in (0, 40, 100, 4096, 8192, len(content) // 2, len(content) - 4096, len(content) - 1):
        (copy / "data.mdb").write_bytes(content[:keep])
        with pytest.raises(UserError, match=r"data\.mdb: (no LMDB|cut short)"):
            LmdbFrames(copy, "dataroot_lq").read(clip, frames.clips[clip][0])


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../b", "."])
def test_names_that_lead_out_of_the_results(tree: GoproTree, tmp_path: Path, name: str) -> None:
    root = Path(lmdb_roots(tree)["dataroot_lq"])
    (root / "meta_info.txt").write_text(f"{name}/000000.png (24,32,3) 1\n")
    with pytest.raises(UserError, match=r"meta_info\.txt, line 1: the name .* leads out of the folder"):
        LmdbFrames(root, "dataroot_lq")
    listing = tmp_path / "meta.txt"
    listing.write_text(f"clip 3 (24,32,3) 0\n{name} 3 (24,32,3) 0\n")
    with pytest.raises(UserError, match=r"meta\.txt, line 2: the name .* leads out of the folder"):
        read_meta_info(str(listing), "06d")
    with pytest.raises(UserError, match=r"meta\.txt, line 1: the name .* leads out of the folder"):
        read_meta_info(str(listing), "../{}")


@pytest.mark.parametrize(
    "line", ["clip " + "9" * 5000 + " (1,1,3) 0", "clip 99999999 (1,1,3) 0", "clip 3 (1,1,3) " + "1" * 5000]
)
def test_counts_beyond_all_bounds(tmp_path: Path, line: str) -> None:
    (tmp_path / "meta.txt").write_text(line)
    with pytest.raises(UserError, match=r"meta\.txt, line 1"):
        read_meta_info(str(tmp_path / "meta.txt"), "06d")
