"""python -m scripts.spikes: every verb on small streams, what it writes, and what it says of mistakes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.spike.reconstruction.reconstruct import charge, gaussian, k_interval, window
from data.spike.simulation.simulate import integrate_and_fire, to_uint8
from data.spike.spikling_npz import load_spike_numpy
from data.spike.sync import SyncTable
from models.network_spikling import SemiUNet, generate
from models.pretrained import load
from scripts.spikes.__main__ import main
from utils.spike_loader import SpikeStream, data_parameter_dict, find_threshold, write_spikes
from utils.utils_image import imread_rgb, imwrite_rgb

SIZE = (40, 48)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo.dat, 72 frames of moving photographs, config.yaml, sync.json and the pictures."""
    folder = tmp_path_factory.mktemp("simulated") / "demo"
    command = ["simulate", "photographs", str(folder / "demo.dat"), "--size", "40", "48", "--frames", "72"]
    assert main([*command, "--exposure", "17", "--gap", "7"]) == 0
    return folder


@pytest.fixture(scope="module")
def spikes(simulated: Path) -> np.ndarray:
    return SpikeStream(simulated / "demo.dat").get_spike_matrix()


def video_frames(path: Path) -> list[np.ndarray]:
    """Gray pictures of a video."""
    if path.suffix == ".gif":
        gif = Image.open(path)
        return [np.array(gif.convert("L")) for index in range(gif.n_frames) if gif.seek(index) is None]  # type: ignore[attr-defined]
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., 0])
    return frames


def test_simulate_replaces_an_earlier_run_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures left by a longer run, or by one that broke, would be taken for frames of the clip."""
    command = [
        "simulate",
        "photographs",
        str(tmp_path / "a.dat"),
        "--size",
        "16",
        "16",
        "--exposure",
        "5",
        "--gap",
        "3",
    ]

    def names() -> list[list[str]]:
        return [sorted(path.name for path in (tmp_path / side).iterdir()) for side in ("blur", "sharp")]

    assert main([*command, "--frames", "32"]) == 0 and names() == [[f"{n:06d}.png" for n in range(4)]] * 2
    assert main([*command, "--frames", "16"]) == 0 and names() == [["000000.png", "000001.png"]] * 2
    assert len(SyncTable.load(tmp_path / "sync.json")) == 2
    imwrite_rgb(tmp_path / "blur" / "mine.png", np.zeros((4, 4, 3), np.uint8))
    assert main([*command, "--frames", "8"]) == 2
    assert "mine.png: not a picture of" in capsys.readouterr().err
    assert names() == [["000000.png", "000001.png", "mine.png"], ["000000.png", "000001.png"]]
    (tmp_path / "blur" / "mine.png").unlink()
    assert main(["simulate", str(tmp_path / "sharp"), *command[2:]]) == 2
    assert "pictures are written there" in capsys.readouterr().err

    def broken(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.spikes.simulate.write_sync", broken)
    assert main([*command, "--frames", "16"]) == 130
    assert names() == [[], []] and not (tmp_path / "sync.json").exists()


def test_simulate_writes_stream_pictures_and_their_times(simulated: Path) -> None:
    stream = SpikeStream(simulated / "demo.dat")
    assert stream.shape == (72, *SIZE) and find_threshold(simulated) == 2.0
    sync = SyncTable.load(simulated / "sync.json", "demo")
    assert [len(window) for window in sync.windows.values()] == [17, 17, 17]
    for index, (name, exposure) in enumerate(sync.windows.items()):
        assert (exposure.begin, exposure.center) == (24 * index, 24 * index + 8)
        gray = cv2.cvtColor(imread_rgb(simulated / "blur" / f"{name}.png"), cv2.COLOR_RGB2GRAY)
        light = stream.get_block_spikes(exposure.begin, 17).sum(axis=0) * 2 / 17
        assert np.abs(light - gray / 255).max() < 2 / 17 + 2 / 255
        assert (simulated / "sharp" / f"{name}.png").is_file()


def test_simulate_from_a_video_with_a_preset(tmp_path: Path) -> None:
    for index in range(5):
        imwrite_rgb(tmp_path / "frames" / f"{index}.png", np.full((32, 34, 3), 51 * (index + 1), np.uint8))
    common = ["simulate", str(tmp_path / "frames")]
    out = tmp_path / "a" / "a.dat"
    assert main([*common, str(out), "--interpolate", "1", "--preset", "spcs", "--spike_ratio", "2"]) == 0
    spikes = SpikeStream(out).get_spike_matrix()
    assert spikes.shape == (5, 16, 17)  # 51 + 102 + 153 = 306, 50 + 204 = 254, 254 + 255 = 509
    assert spikes[:, 0, 0].tolist() == [0, 0, 1, 0, 1] and (spikes == spikes[:, :1, :1]).all()
    assert main([*common, str(tmp_path / "b" / "b.dat"), "--threshold", "4", "--start", "zero"]) == 0
    assert len(SpikeStream(tmp_path / "b" / "b.dat")) == 8 * 4 + 1 and find_threshold(tmp_path / "b") == 4
    noisy = ["--photons", "30", "--hot_pixels", "0.1", "--dead_pixels", "0.1", "--spurious", "0.01", "--seed", "5"]
    for name in ("c", "d"):
        assert main([*common, str(tmp_path / name / "n.dat"), "--interpolate", "1", *noisy]) == 0
    assert (tmp_path / "c" / "n.dat").read_bytes() == (tmp_path / "d" / "n.dat").read_bytes()


def test_info(simulated: Path, spikes: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(simulated / "demo.dat"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["frames"], content["height"], content["width"]) == (72, *SIZE)
    assert content["mean_rate"] == pytest.approx(spikes.mean(), abs=1e-5) and content["threshold"] == 2.0
    assert content["bit_order"] == "little" and content["dead"]["number"] == 0
    assert main(["info", str(simulated / "demo.dat"), "--begin", "3", "--end", "5"]) == 0
    printed = capsys.readouterr().out
    assert "72 frames of 40x48" in printed and "over 2 frames" in printed and "least significant first" in printed


def test_info_names_hot_pixels_as_displayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spikes = integrate_and_fire(np.full((60, 16, 24), 0.3), 2.0, np.random.default_rng(0))
    spikes[:, 2, 5], spikes[:, 9, 6] = 1, 0
    write_spikes(tmp_path / "a.dat", spikes)
    assert main(["info", str(tmp_path / "a.dat"), "--spike_h", "16", "--spike_w", "24", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["hot"] == {"number": 1, "pixels": [[2, 5, 1.0]]}
    assert content["dead"] == {"number": 1, "pixels": [[9, 6, 0.0]]}


def test_info_doubts_a_wrong_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """16 frames of 180x320 read as 15 of 192x320: the known size is named, and no hot pixel is invented."""
    scene = np.broadcast_to(np.linspace(0.1, 0.9, 320), (16, 180, 320))
    write_spikes(tmp_path / "a.dat", integrate_and_fire(scene, 2.0, np.random.default_rng(0)))
    assert main(["info", str(tmp_path / "a.dat"), "--spike_h", "192", "--spike_w", "320"]) == 0
    printed = capsys.readouterr().out
    assert "size: PROBABLY NOT 192x320" in printed and "--spike_h 180 --spike_w 320 fits" in printed
    assert "hot and dead pixels: cannot be told" in printed
    assert main(["info", str(tmp_path / "a.dat"), "--spike_h", "180", "--spike_w", "320"]) == 0
    assert "PROBABLY NOT" not in capsys.readouterr().out


def test_view(simulated: Path, spikes: np.ndarray, tmp_path: Path) -> None:
    picture = str(simulated / "sharp" / "000001.png")
    out = tmp_path / "sheet.png"
    command = ["view", str(simulated / "demo.dat"), "--frame", "32", "--out", str(out), "--length", "41"]
    assert main([*command, "--sigma", "6", "--picture", picture]) == 0
    sheet = imread_rgb(out)[..., 0]
    height, width = SIZE[0] + 24, SIZE[1] + 4
    assert sheet.shape == (2 * height, 4 * width - 4)

    def cell(row: int, column: int) -> np.ndarray:
        return sheet[row * height + 24 : (row + 1) * height, column * width : column * width + SIZE[1]]

    np.testing.assert_array_equal(cell(0, 0), 255 * spikes[32])
    np.testing.assert_array_equal(cell(0, 1), to_uint8(window(spikes, 32, 2.0)))
    np.testing.assert_array_equal(cell(1, 1), to_uint8(k_interval(spikes, 32, 2.0)))
    np.testing.assert_array_equal(cell(1, 2), to_uint8(gaussian(spikes, 32, 2.0)))
    np.testing.assert_array_equal(cell(0, 3), imread_rgb(picture)[..., 0])
    np.testing.assert_array_equal(cell(1, 3), to_uint8(charge(spikes, 32, 2.0, sigma=6.0)))


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".gif"])
@pytest.mark.parametrize("method", ["raw", "gaussian"])
def test_render(simulated: Path, spikes: np.ndarray, tmp_path: Path, suffix: str, method: str) -> None:
    out = tmp_path / f"new/video{suffix}"
    command = ["render", str(simulated / "demo.dat"), str(out), "--method", method, "--stride", "10", "--fps", "10"]
    width = [] if method == "raw" else ["--sigma", "6"]
    assert main([*command, "--begin", "5", "--end", "60", *width]) == 0
    frames = video_frames(out)
    times = range(5, 60, 10)
    assert len(frames) == len(times) and [path.name for path in out.parent.iterdir()] == [out.name]
    expected = 255 * spikes[times] if method == "raw" else to_uint8(gaussian(spikes, times, 2.0))
    lost = np.abs(np.stack(frames).astype(int) - expected).mean()
    assert lost < (45 if method == "raw" else 4)  # lossy, and single spikes are the worst picture for it


def test_reconstruct(simulated: Path, spikes: np.ndarray, tmp_path: Path) -> None:
    command = ["reconstruct", str(simulated / "demo.dat"), str(tmp_path), "--frame", "40", "7"]
    assert main([*command, "--method", "k_interval", "--order", "3", "--reach", "20"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000007.png", "000040.png"]
    picture = imread_rgb(tmp_path / "000040.png")[..., 0]
    np.testing.assert_array_equal(picture, to_uint8(k_interval(spikes, 40, 2.0, order=3, reach=20)))
    assert main([*command, "--threshold", "1", "--light", "linear", "--method", "window", "--length", "41"]) == 0
    brighter = imread_rgb(tmp_path / "000040.png")[..., 0]
    assert (brighter >= to_uint8(window(spikes, 40))).all() and brighter.mean() > window(spikes, 40).mean() * 255 + 50


def test_networks(simulated: Path, spikes: np.ndarray, tmp_path: Path, repository: Path) -> None:
    torch.manual_seed(0)
    network = SemiUNet()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    recipe = str(repository / "options/spikling/train_spikling.json")
    gen = ["--method", "gen", "--opt", recipe, "--checkpoint", str(tmp_path / "weights.pth")]
    assert main(["reconstruct", str(simulated / "demo.dat"), str(tmp_path), *gen, "--stride", "30"]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000016.png", "000046.png"]
    expected = generate(network.eval(), spikes, 30, 2.0)
    np.testing.assert_array_equal(imread_rgb(tmp_path / "000046.png")[..., 0], expected)
    assert main(["render", str(simulated / "demo.dat"), str(tmp_path / "a.gif"), *gen, "--stride", "20"]) == 0
    assert len(video_frames(tmp_path / "a.gif")) == 3


@pytest.mark.parametrize("method", ["network", "gen"])
def test_the_network_in_the_box_needs_no_words(
    simulated: Path, spikes: np.ndarray, tmp_path: Path, method: str
) -> None:
    """At the stream's ends as well."""
    command = ["reconstruct", str(simulated / "demo.dat"), str(tmp_path), "--method", method]
    assert main([*command, "--frame", "0", "40", "71"]) == 0
    expected = load("spike_refine")(spikes, threshold=2.0, instants=[0, 40, 71])
    for frame, picture in zip((0, 40, 71), expected, strict=True):
        np.testing.assert_array_equal(imread_rgb(tmp_path / f"{frame:06d}.png")[..., 0], picture)
    sharp = cv2.cvtColor(imread_rgb(simulated / "sharp" / "000001.png"), cv2.COLOR_RGB2GRAY)  # of frame 32
    (restored,) = load("spike_refine")(spikes, threshold=2.0, instants=[32])
    errors = [float(np.mean((p / 255.0 - sharp / 255.0) ** 2)) for p in (restored, 255 * gaussian(spikes, 32, 2.0))]
    assert errors[0] < errors[1]


def test_convert_round_trips(simulated: Path, spikes: np.ndarray, tmp_path: Path) -> None:
    source = simulated / "demo.dat"
    assert main(["convert", str(source), str(tmp_path / "a.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), spikes)
    assert main(["convert", str(tmp_path / "a.npy"), str(tmp_path / "a.dat"), "--config", "--threshold", "2"]) == 0
    assert (tmp_path / "a.dat").read_bytes() == source.read_bytes() and find_threshold(tmp_path) == 2.0
    assert main(["convert", str(source), str(tmp_path / "b" / "b.dat"), "--config"]) == 0
    assert find_threshold(tmp_path / "b") == 2.0
    stream = SpikeStream(**data_parameter_dict(tmp_path / "a.dat", "raw"))
    assert stream.shape == spikes.shape
    picture = str(simulated / "sharp" / "000000.png")
    assert main(["convert", str(source), str(tmp_path / "a.npz"), "--end", "17", "--picture", picture]) == 0
    seq, tag = load_spike_numpy(tmp_path / "a.npz")
    np.testing.assert_array_equal(seq, spikes[:17])
    np.testing.assert_array_equal(tag, cv2.cvtColor(imread_rgb(picture), cv2.COLOR_RGB2GRAY))
    assert main(["convert", str(tmp_path / "a.npz"), str(tmp_path / "b.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), spikes[:17])


def test_raw_lines_of_the_large_camera_are_refused_with_the_command_that_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    spikes, raw = rng.integers(0, 2, (2, 1000, 1000), np.uint8), np.ones((2, 1000, 1024), np.uint8)
    raw[:, :, :500], raw[:, :, 512:1012] = spikes[:, :, :500], spikes[:, :, 500:]
    source, out = tmp_path / "raw.dat", tmp_path / "new" / "good.npy"
    source.write_bytes(np.packbits(raw, bitorder="little").tobytes())
    assert main(["info", str(source)]) == 2
    command = capsys.readouterr().err.split("scripts.spikes ")[1].split(".")[0]
    assert main([*command.replace("IN", str(source)).replace("OUT", str(out)).split(), "--top_down"]) == 0
    np.testing.assert_array_equal(np.load(out), spikes)


@pytest.mark.parametrize("columns", ["5", "b:7", "7:5", "40:49", "0:48"])
def test_columns_that_can_not_be_dropped(simulated: Path, tmp_path: Path, columns: str) -> None:
    command = ["convert", str(simulated / "demo.dat"), str(tmp_path / "a.dat"), "--drop_columns", columns]
    assert main(command) == 2 and not list(tmp_path.iterdir())


def test_a_picture_of_another_shape_is_told(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imwrite_rgb(tmp_path / "p.png", np.zeros((48, 90, 3), np.uint8))
    center = ["--center", "8"]
    assert main(["check", str(simulated / "demo.dat"), "--picture", str(tmp_path / "p.png"), *center]) == 2
    assert "the aspect ratio of 48x90 pixels differs from the spikes' 40x48" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.float32, np.int8, np.bool_])
def test_convert_takes_any_numbers_that_are_spikes_and_the_result_opens(
    spikes: np.ndarray, tmp_path: Path, kind: type
) -> None:
    np.save(tmp_path / "a.npy", spikes.astype(kind))
    assert main(["convert", str(tmp_path / "a.npy"), str(tmp_path / "b" / "a.dat")]) == 0
    np.testing.assert_array_equal(SpikeStream(tmp_path / "b" / "a.dat").get_spike_matrix(), spikes)
    assert main(["convert", str(tmp_path / "a.npy"), str(tmp_path / "c" / "a.dat"), "--no_config"]) == 0
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["a.dat"]


def test_inverted_bits_are_recognised_and_mended(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, inverted, again = simulated / "demo.dat", tmp_path / "i" / "demo.dat", tmp_path / "a" / "demo.dat"
    assert main(["convert", str(original), str(inverted), "--invert"]) == 0
    picture = ["--picture", str(simulated / "sharp" / "000001.png"), "--center", "32"]
    assert exit_code("check", str(inverted), *picture) == 1
    assert "INVERTED" in capsys.readouterr().out
    assert main(["convert", str(inverted), str(again), "--invert"]) == 0
    assert again.read_bytes() == original.read_bytes()
    assert exit_code("check", str(again), *picture) == 0


def test_brightness_is_chosen_where_nobody_states_it(
    spikes: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fourth spike: the picture is as bright as that of all spikes, since no config.yaml says otherwise."""
    kept = spikes * (np.cumsum(spikes, axis=0) % 4 == 1)
    np.save(tmp_path / "dark.npy", kept)
    np.save(tmp_path / "bright.npy", spikes)
    for name in ("dark", "bright"):
        command = ["reconstruct", str(tmp_path / f"{name}.npy"), str(tmp_path / name), "--frame", "36"]
        assert main([*command, "--method", "window", "--length", "61"]) == 0
    assert "chosen so that the brightest percent is shown at 0.9" in capsys.readouterr().out
    dark, bright = (imread_rgb(tmp_path / name / "000036.png").mean() for name in ("dark", "bright"))
    assert 0.9 < dark / bright < 1.1 and bright > 80
    command = ["reconstruct", str(tmp_path / "dark.npy"), str(tmp_path / "stated"), "--frame", "36"]
    assert main([*command, "--method", "window", "--length", "61", "--threshold", "2"]) == 0
    assert imread_rgb(tmp_path / "stated" / "000036.png").mean() < 0.4 * dark


def test_render_says_the_size_it_writes(spikes: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "odd.npy", spikes[:, :39, :47])
    assert main(["render", str(tmp_path / "odd.npy"), str(tmp_path / "a.mp4"), "--stride", "20"]) == 0
    assert video_frames(tmp_path / "a.mp4")[0].shape == (38, 46) and "of 38x46" in capsys.readouterr().out


def test_convert_turns(simulated: Path, spikes: np.ndarray, tmp_path: Path) -> None:
    source = str(simulated / "demo.dat")
    size = ["--spike_h", "40", "--spike_w", "48"]
    assert main(["convert", source, str(tmp_path / "flipped.dat"), "--upside_down"]) == 0
    assert main(["convert", source, str(tmp_path / "top_down.dat"), "--out_top_down"]) == 0
    np.testing.assert_array_equal(SpikeStream(tmp_path / "flipped.dat", *SIZE).get_spike_matrix(), spikes[:, ::-1])
    assert (tmp_path / "flipped.dat").read_bytes() == (tmp_path / "top_down.dat").read_bytes()
    back = ["convert", str(tmp_path / "top_down.dat"), str(tmp_path / "back.dat"), "--top_down", *size]
    assert main(back) == 0 and (tmp_path / "back.dat").read_bytes() == (simulated / "demo.dat").read_bytes()
    assert main(["convert", source, str(tmp_path / "big.dat"), "--reverse_bits"]) == 0
    assert main(["convert", str(tmp_path / "big.dat"), str(tmp_path / "c.dat"), "--reverse_bits", *size]) == 0
    assert (tmp_path / "big.dat").read_bytes() != (tmp_path / "c.dat").read_bytes()
    assert (tmp_path / "c.dat").read_bytes() == (simulated / "demo.dat").read_bytes()
    assert main(["convert", source, str(tmp_path / "m.npy"), "--mirror", "--begin", "3"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), spikes[3:, :, ::-1])
    np.save(tmp_path / "hwt.npy", spikes.transpose(1, 2, 0))
    assert main(["convert", str(tmp_path / "hwt.npy"), str(tmp_path / "d.dat"), "--axes", "hwt"]) == 0
    assert (tmp_path / "d.dat").read_bytes() == (simulated / "demo.dat").read_bytes()


def exit_code(*command: str) -> int:
    try:
        return main(list(command))
    except SystemExit as ended:
        return int(ended.code or 0)


def test_check(simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", str(simulated / "demo.dat"), "--picture", str(simulated / "sharp" / "000001.png")]
    assert exit_code(*command, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["oriented"] and content["assumed_center"] == 32 and abs(content["offset"]) <= 2
    assert exit_code(*command, "--center", "42") == 1
    printed = capsys.readouterr().out
    assert "assumed 42" in printed and "--center" in printed and "--clip NAME" in printed
    assert exit_code(*command, "--top_down") == 1
    printed = capsys.readouterr().out
    assert "WRONG as read" in printed and "flip up-down" in printed and "spike frame of" not in printed
    imwrite_rgb(tmp_path / "gray.png", np.full((40, 48), 100, np.uint8))
    assert (
        exit_code("check", str(simulated / "demo.dat"), "--picture", str(tmp_path / "gray.png"), "--center", "9") == 1
    )
    printed = capsys.readouterr().out
    assert "CANNOT BE TOLD" in printed and "--center or --clip" in printed and "frames 0 to 49" in printed


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0, 1])
def test_dark_and_bright_streams(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.full((3, 12, 16), value, np.uint8))
    assert main(["info", str(path)]) == 0
    assert main(["view", str(path), "--out", str(tmp_path / "a.png")]) == 0
    assert (
        main(["reconstruct", str(path), str(tmp_path), "--method", "interval", "--frame", "0", "--threshold", "1"]) == 0
    )
    assert (imread_rgb(tmp_path / "000000.png") == 255 * value).all()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("info none.dat", "no readable spike file"),
        ("info empty.dat", "empty (0 bytes)"),
        ("info {dat} --spike_h 41 --spike_w 48", "not a whole number"),
        ("info {dat} --begin 72", "it has frames [0, 72)"),
        ("info {dat} --threshold 0", "--threshold 0.0"),
        ("info {picture}", "no known geometry|Known geometries"),
        ("view {dat} --frame 72", "it has frames [0, 72)"),
        ("render {dat} a.webm", "written as .mp4, .gif, .avi"),
        ("render {dat} a.gif --end 100", "it has frames [0, 72)"),
        ("render {dat} a.gif --stride 0", "by 0"),
        ("render {dat} a.gif --fps 0", "0.0 pictures per second"),
        ("render {dat} a.gif --method raw --sigma 3", "--sigma has no effect with --method raw"),
        ("render {dat} a.gif --method window --order 3", "which has: --length"),
        ("render {dat} a.gif --method window --length 0", "at least 1"),
        ("render {dat} a.gif --method gen --opt a.json", "needs --checkpoint"),
        ("render {dat} a.gif --checkpoint a.pth", "are for --method network"),
        ("reconstruct {dat} out --frame 3 --stride 2", "no effect with --frame"),
        ("reconstruct {dat} out --frame 3 72", "no spike frame 72"),
        ("convert {dat} a.png", "written as .dat, .npy or .npz"),
        ("convert {dat} {dat}", "over itself"),
        ("convert {dat} a.npz", "needs --picture"),
        ("convert {dat} a.npy --config", "are for .dat files"),
        ("convert {dat} {folder}/b.dat --threshold 3", "describes other streams"),
        ("convert {dat} b.dat --config --no_config", "exclude each other"),
        ("convert halves.npy a.dat", "must be 0 or 1, found 0.5"),
        ("convert bytes.npy a.dat", "must be 0 or 1, found 255"),
        ("convert broken.npy a.dat", "cannot be read as a numpy file"),
        ("convert complex.npy a.dat", "spikes are zeros and ones"),
        ("convert halves.npy a.dat --top_down", "are for .dat files"),
        ("simulate none.mp4 a.dat", "no such video"),
        ("simulate broken.npy a.dat", "cannot be decoded as a video"),
        ("simulate photographs a.npy", "simulated into .dat"),
        ("simulate photographs a.dat --size 1 9 --spike_ratio 2", "at least one spike pixel"),
        ("simulate photographs a.dat --gap 3", "need --exposure"),
        ("simulate photographs a.dat --exposure 200", "fewer than an exposure"),
        ("simulate photographs a.dat --photons 0", "photons"),
        ("simulate photographs a.dat --interpolate 2", "no effect on photographs"),
        ("simulate photographs {folder}/other.dat --size 40 48 --threshold 3", "describes other streams"),
        ("check {dat} --picture none.png", "cannot be read"),
        ("check {dat} --picture {picture} --center 72", "frames 0 to 71"),
    ],
)
def test_mistakes_are_told_in_one_message(
    simulated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.npy").write_bytes(b"nothing")
    Path("empty.dat").touch()
    np.save("halves.npy", np.full((2, 3, 4), 0.5))
    np.save("complex.npy", np.zeros((2, 3, 4), complex))
    np.save("bytes.npy", np.full((2, 3, 4), 255, np.uint8))
    before = sorted(path for folder in (tmp_path, simulated) for path in folder.rglob("*"))
    picture = simulated / "sharp" / "000000.png"
    assert main(command.format(dat=simulated / "demo.dat", picture=picture, folder=simulated).split()) == 2
    printed = capsys.readouterr()
    assert any(part in printed.err for part in said.split("|")) and "Traceback" not in printed.err
    assert sorted(path for folder in (tmp_path, simulated) for path in folder.rglob("*")) == before
