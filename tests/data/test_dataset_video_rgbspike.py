"""Spikes beside frames: the right file and exposure, registered exactly, whatever the crop and geometry."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.augment import Augmentation
from data.dataset_video_rgbspike import VideoRecurrentTestDatasetRGBSpike, VideoRecurrentTrainDatasetRGBSpike
from data.dataset_video_train import Sample
from data.frame_io import Box
from data.sampler import GlobalBatchSampler, SampleIndex, init_worker
from data.spike.encoding import build_encoding
from data.spike.sync import ExposureWindow
from tests.data.trees import GoproTree, make_gopro_tree, write_dat

TFP = {"representation": "tfp", "bins": 4}
ENCODINGS: list[dict[str, Any]] = [
    {"spike": TFP},
    {"spike": {"representation": "voxel", "bins": 6}},
    {"spike": {"representation": "gaussian"}},
    {"spike": {"representation": "interval"}},
    {"spike": TFP, "hot_pixel_filter": 0.5, "spike_normalize": {"mean": 0.3, "std": 0.2}},
]


def train(tree: GoproTree, **options: Any) -> VideoRecurrentTrainDatasetRGBSpike:
    defaults: dict[str, Any] = {"spike": TFP, "num_frame": 3, "gt_size": 16, "seed": 5}
    return VideoRecurrentTrainDatasetRGBSpike(**{**tree.roots, **defaults, **options})


def whole(tree: GoproTree, **options: Any) -> VideoRecurrentTestDatasetRGBSpike:
    return VideoRecurrentTestDatasetRGBSpike(**{**tree.roots, "spike": TFP, **options})


def read_spikes(tree: GoproTree, clip: str, frame: str, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """(T, h, w) of one file, as an independent reader sees it."""
    packed = np.frombuffer((tree.spike / clip / "spike" / f"{frame}.dat").read_bytes(), np.uint8)
    height, width = size
    frames = packed.reshape(-1, -(-height * width // 8))
    bits = np.unpackbits(frames, axis=1, bitorder="little")[:, : height * width]
    return bits.reshape(-1, height, width)[:, ::-1]


def test_whole_clips_hold_the_encoded_spikes(tree: GoproTree) -> None:
    encoding = build_encoding(TFP, 2.0)
    sample = whole(tree, input_pack_mode="dual")[1]
    assert sample["L"].shape == (7, 3, 48, 64) and sample["L_spike"].dtype == torch.float32
    for k, frame in enumerate(tree.frames):
        expected = encoding(read_spikes(tree, tree.clips[1], frame), ExposureWindow(0, 24, 12))
        assert np.array_equal(sample["L_spike"][k].numpy(), expected)


def test_concatenated_spikes_are_the_bilinear_enlargement(tree: GoproTree) -> None:
    concat, dual = whole(tree)[0], whole(tree, input_pack_mode="dual")[0]
    assert concat["L"].shape == (7, 7, 48, 64)
    assert torch.equal(concat["L"][:, :3], dual["L"]) and torch.equal(concat["H"], dual["H"])
    expected = torch.nn.functional.interpolate(dual["L_spike"], scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(concat["L"][:, 3:], expected, atol=1e-6)


def test_spikes_register_with_the_frames(tree: GoproTree) -> None:
    """A wrong orientation or frame would lose the correlation with the sharp frames."""
    sample = whole(tree, spike={"representation": "count"})[0]
    gray, rate = sample["H"].mean(1), sample["L"][:, 3]
    for k in range(7):
        correlations = [np.corrcoef(rate[k].flatten(), gray[j].flatten())[0, 1] for j in range(7)]
        assert correlations[k] > 0.8 and np.argmax(correlations) == k
        assert np.corrcoef(rate[k].flip(0).flatten(), gray[k].flatten())[0, 1] < 0.5


@pytest.mark.parametrize("mode", ["concat", "dual"])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding["spike"]["representation"])
def test_a_crop_is_the_crop_of_the_whole(tree: GoproTree, mode: str, encoding: dict[str, Any]) -> None:
    """Bit for bit: dataset(crop) == crop(dataset(all)), at borders and inside."""
    data, full = train(tree, input_pack_mode=mode, **encoding), whole(tree, input_pack_mode=mode, **encoding)[0]
    frames = tree.frames[2:4]
    for top, left in ((0, 0), (32, 48), (6, 20), (0, 30), (32, 0)):
        window = Sample(data.clips[0], frames, frames[0], Box(top, left, 16, 16), Augmentation())
        sample = data.read(window)
        assert torch.equal(sample["L"], full["L"][2:4, :, top : top + 16, left : left + 16])
        if mode == "dual":
            rows, columns = slice(top // 2, top // 2 + 8), slice(left // 2, left // 2 + 8)
            assert torch.equal(sample["L_spike"], full["L_spike"][2:4, :, rows, columns])


@pytest.mark.parametrize("mode", ["concat", "dual"])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding["spike"]["representation"])
def test_augmented_samples_equal_samples_of_augmented_files(
    tree: GoproTree, tmp_path: Path, mode: str, encoding: dict[str, Any]
) -> None:
    """Bit for bit: flips, transposition and reversed time done in the files, or done by the data set."""
    data = train(tree, input_pack_mode=mode, **encoding)
    clip, frames, box = data.clips[0], tree.frames[1:4], Box(4, 10, 16, 16)
    single = [Augmentation(*(k == place for k in range(4))) for place in range(4)]
    for number, augmentation in enumerate([*single, Augmentation(True, True, True, True)]):
        order = frames[::-1] if augmentation.reverse else frames
        sample = data.read(Sample(clip, order, frames[0], box, augmentation))
        moved = write_augmented(tree, tmp_path / str(number), clip.name, order, box, augmentation)
        expected = whole(moved, input_pack_mode=mode, **encoding)[0]
        inner = (slice(None), slice(None), slice(4, 20), slice(4, 20))
        spike_inner = (slice(None), slice(None), slice(2, 10), slice(2, 10))
        assert torch.equal(sample["L"], expected["L"][inner]) and torch.equal(sample["H"], expected["H"][inner])
        if mode == "dual":
            assert torch.equal(sample["L_spike"], expected["L_spike"][spike_inner])


def write_augmented(
    tree: GoproTree, root: Path, clip: str, order: list[str], box: Box, augmentation: Augmentation
) -> GoproTree:
    """A tree of one clip that holds the box, and four pixels around it, already augmented."""
    wide = Box(box.top - 4, box.left - 4, box.height + 8, box.width + 8)
    moved = GoproTree(root / "gt", root / "lq", root / "spike", [clip], tree.frames[: len(order)], root / "meta")
    for folder in (moved.gt / clip, moved.lq / clip, moved.spike / clip / "spike"):
        folder.mkdir(parents=True)
    entries = []
    for name, source in zip(moved.frames, order, strict=True):
        for old, new in ((tree.gt, moved.gt), (tree.lq, moved.lq)):
            image = wide.of(cv2.imread(str(old / clip / f"{source}.png")))
            cv2.imwrite(str(new / clip / f"{name}.png"), augmentation.space(image, axes=(-3, -2)))
        half = wide.scaled(1, 2)
        spikes = np.stack([half.of(plane) for plane in read_spikes(tree, clip, source)])
        write_dat(moved.spike / clip / "spike" / f"{name}.dat", augmentation.time(augmentation.space(spikes)))
        exposure = ExposureWindow(0, 24, 12)
        exposure = exposure.reversed(24) if augmentation.reverse else exposure
        times = {"spike_begin": exposure.begin, "spike_end": exposure.end, "spike_center": exposure.center}
        entries.append({"rgb": name, **times})
    (moved.spike / clip / "sync.json").write_text(json.dumps({"seq_name": clip, "frames": entries}))
    (moved.spike / "config.yaml").write_text("spike_h: 12\nspike_w: 12\n")
    return moved


def test_crops_fall_on_whole_spike_pixels(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, size=(48, 60), spike_ratio=3)
    data = train(tree, gt_size=24)
    boxes = [data.draw(SampleIndex(epoch, 0)).box for epoch in range(200)]
    assert {box.top for box in boxes} == set(range(0, 25, 3)) and {box.left for box in boxes} == set(range(0, 37, 3))
    with pytest.raises(ValueError, match=r"gt_size: .* multiple of 3 blurred pixels, nearest: 15 or 18"):
        train(tree, gt_size=16)


def test_spikes_finer_than_super_resolution_input(tmp_path: Path) -> None:
    """Frames at half the spike resolution: concatenated spikes are averaged, the voxel branch's are not."""
    tree = make_gopro_tree(tmp_path, size=(48, 64), spike_ratio=1, frames=3)
    small = make_gopro_tree(tmp_path / "small", size=(24, 32), spike_ratio=1, frames=3, scale=4)
    roots = {**small.roots, "dataroot_spike": str(tree.spike)}
    dual = train(small, **roots, scale=4, gt_size=32, input_pack_mode="dual")[0]
    concat = train(small, **roots, scale=4, gt_size=32)[0]
    assert dual["L"].shape == (3, 3, 8, 8) and dual["H"].shape == (3, 3, 32, 32)
    assert dual["L_spike"].shape == (3, 4, 16, 16) and concat["L"].shape == (3, 7, 8, 8)
    assert torch.allclose(concat["L"][:, 3:], torch.nn.functional.avg_pool2d(dual["L_spike"], 2), atol=1e-6)


def test_workers_do_not_change_samples(tree: GoproTree) -> None:
    def batches(workers: int) -> list[dict[str, Any]]:
        data = train(tree, random_reverse=True)
        sampler = GlobalBatchSampler(len(data), 2, seed=5)
        loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, worker_init_fn=init_worker)
        iterator = iter(loader)
        return [next(iterator) for _ in range(4)]

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert alone["key"] == shared["key"] and torch.equal(alone["L"], shared["L"])


def test_one_file_for_the_whole_clip(tree: GoproTree, tmp_path: Path) -> None:
    expected = whole(tree)[0]["L"]
    for clip in tree.clips:
        folder = tree.spike / clip
        blocks = [folder / "spike" / f"{frame}.dat" for frame in tree.frames]
        content = b"".join(block.read_bytes() for block in blocks)
        for block in blocks:
            block.unlink()
        (folder / "spike" / "all.dat").write_bytes(content)
        entries = [
            {"rgb": frame, "spike_begin": 24 * k, "spike_end": 24 * (k + 1), "spike_center": 24 * k + 12}
            for k, frame in enumerate(tree.frames)
        ]
        (folder / "sync.json").write_text(json.dumps({"seq_name": clip, "frames": entries}))
    assert torch.equal(whole(tree)[0]["L"], expected)
    (tree.spike / tree.clips[0] / "spike" / "all.dat").rename(tree.spike / tree.clips[0] / f"{tree.clips[0]}.dat")
    assert torch.equal(whole(tree)[0]["L"], expected)
    (tree.spike / tree.clips[0] / "sync.json").unlink()
    with pytest.raises(ValueError, match=r"train_clip_00/sync\.json: no such file, .*make_sync\.py"):
        whole(tree)


def test_without_sync_the_gopro_rule_holds(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, sync=False, spikes_per_frame=24, clips=1)
    (clip,) = tree.clips
    for root in (tree.gt, tree.lq, tree.spike):
        (root / clip).rename(root / "GOPR0001_03_00")
    sample = whole(tree, input_pack_mode="dual")[0]
    block = read_spikes(tree, "GOPR0001_03_00", "000002")
    # Three averaged frames, 8 spike frames apart: the exposure is [0, 17), its centre 8.
    expected = build_encoding(TFP, 2.0)(block, ExposureWindow(0, 17, 8))
    assert np.array_equal(sample["L_spike"][2].numpy(), expected)


def test_real_spikes_register_with_their_frame(shared_data: Path, tmp_path: Path) -> None:
    """A GoPro frame and its 88 spike frames: details coincide, at the exposure that the clip's name implies."""
    sample = shared_data / "gopro_spike_sample"
    clip, roots = "GOPR0884_11_00", {}
    for name, source in (("gt", "000226.png"), ("lq", "000226.png"), ("spike", "000226.dat")):
        folder = tmp_path / name / clip / ("spike" if name == "spike" else "")
        folder.mkdir(parents=True)
        (folder / source).symlink_to(sample / source)
        roots[f"dataroot_{name}"] = str(tmp_path / name)
    data = VideoRecurrentTestDatasetRGBSpike(**roots, spike_h=360, spike_w=640, spike={"representation": "gaussian"})
    frame = data[0]["L"][0].numpy()
    assert frame.shape == (4, 720, 1280)
    gray = np.tensordot(np.float32([0.299, 0.587, 0.114]), frame[:3], 1)
    errors = {
        (y, x): float(np.mean((gray - np.roll(frame[3], (y, x), (0, 1)))[4:-4, 4:-4] ** 2))
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    assert errors[0, 0] < 10**-2.9  # 29 dB; a mirrored picture has 9.5


def test_a_single_clip_by_its_folders(tree: GoproTree) -> None:
    expected = whole(tree)[1]
    clip = tree.clips[1]
    folders = {"dataroot_lq": str(tree.lq / clip), "dataroot_gt": str(tree.gt / clip)}
    for spike in (tree.spike / clip, tree.spike):
        sample = whole(tree, **folders, dataroot_spike=str(spike))[0]
        assert torch.equal(sample["L"], expected["L"]) and torch.equal(sample["H"], expected["H"])
    assert "H" not in whole(tree, dataroot_gt=None)[0]


def test_geometry_from_options_or_size(tree: GoproTree) -> None:
    expected = whole(tree)[0]["L"]
    config = tree.spike.parent / "config.yaml"
    config.unlink()
    assert torch.equal(whole(tree, spike_h=24, spike_w=32)[0]["L"], expected)
    assert not torch.equal(whole(tree, spike_h=24, spike_w=32, spike_flipud=False)[0]["L"], expected)
    with pytest.raises(ValueError, match=r"000000\.dat"):
        whole(tree)


def truncate(tree: GoproTree) -> dict[str, Any]:
    path = tree.spike / tree.clips[1] / "spike" / "000003.dat"
    path.write_bytes(path.read_bytes()[:-5])
    return {}


def unlink(tree: GoproTree, *names: str) -> dict[str, Any]:
    for name in names:
        (tree.spike / tree.clips[1] / "spike" / f"{name}.dat").unlink()
    return {}


def shorten_stream(tree: GoproTree) -> dict[str, Any]:
    path = tree.spike / tree.clips[0] / "spike" / "000002.dat"
    path.write_bytes(path.read_bytes()[: 20 * 96])
    return {}


def drop_from_sync(tree: GoproTree) -> dict[str, Any]:
    path = tree.spike / tree.clips[0] / "sync.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "frames": content["frames"][:-1]}))
    return {}


@pytest.mark.parametrize("make", [train, whole])
@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (truncate, ["train_clip_01/spike/000003.dat"]),
        (lambda tree: unlink(tree, "000003"), ["train_clip_01/spike/000003.dat: no such spike file;"]),
        (lambda tree: unlink(tree, "000003", "000005"), ["000003.dat: no such spike file (and 1 more of this clip)"]),
        (shorten_stream, ["000002.dat: ", "lies outside the stream"]),
        (drop_from_sync, ["train_clip_00/sync.json", "'000006'"]),
        (lambda _: {"spike_h": 25, "spike_w": 33}, ["train_clip_00/spike/000000.dat"]),
        (lambda _: {"spike_h": 16, "spike_w": 48}, ["48x64 are 3 times as high and 1.33333 times as wide", "spike_h"]),
        (lambda _: {"dataroot_spike": "/nowhere"}, ["dataroot_spike: /nowhere", "--prepare-data", "--demo"]),
        (lambda _: {"spike": {"representation": "tfb"}}, ["'tfb'", "'tfp'"]),
        (lambda _: {"input_pack_mode": "stack"}, ["input_pack_mode: choices", "concat, dual"]),
    ],
)
def test_unusable_spikes_are_refused_at_once(tree: GoproTree, make: Any, change: Any, messages: list[str]) -> None:
    options = change(tree)
    with pytest.raises(ValueError) as error:
        make(tree, **options)
    for message in messages:
        assert message in str(error.value)


def test_faults_of_frames_and_spikes_come_together(tree: GoproTree) -> None:
    unlink(tree, "000003")
    (tree.gt / tree.clips[0] / "000001.png").unlink()
    with pytest.raises(ValueError, match=r"(?s)1 frames not in dataroot_gt.*000003\.dat: no such spike file"):
        train(tree)


def test_fractional_ratios_only_unresampled(tmp_path: Path) -> None:
    tree = make_gopro_tree(tmp_path, size=(48, 60), spike_ratio=3)
    frames = make_gopro_tree(tmp_path / "frames", size=(40, 50))
    roots = {**frames.rgb_roots, "dataroot_spike": str(tree.spike)}
    assert train(tree, **roots, gt_size=20, input_pack_mode="dual")[0]["L_spike"].shape == (3, 4, 8, 8)
    with pytest.raises(ValueError, match=r'2\.5 times .* "concat" needs a whole factor'):
        train(tree, **roots, gt_size=20)


def test_a_sync_json_that_leads_nowhere_is_named(tree: GoproTree) -> None:
    """It would give the frames another exposure, without a word."""
    path = tree.spike / tree.clips[0] / "sync.json"
    path.unlink(missing_ok=True)
    path.symlink_to("moved/sync.json")
    with pytest.raises(ValueError, match=r"sync\.json: a link to moved/sync.json, which does not exist"):
        VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike=TFP)


def test_hidden_files_are_no_streams_and_links_that_lead_nowhere_are_named(tree: GoproTree) -> None:
    folder = tree.spike / tree.clips[0] / "spike"
    (folder / "._whole.dat").write_bytes(b"resource fork")
    (tree.lq / tree.clips[0] / "._000000.png").write_bytes(b"resource fork")
    assert len(VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike=TFP)) == len(tree.clips)
    (tree.lq / "moved_clip").symlink_to("/nowhere/clip")
    with pytest.raises(ValueError, match=r"moved_clip: a link to /nowhere/clip, which does not exist"):
        VideoRecurrentTestDatasetRGBSpike(**tree.roots, spike=TFP)
