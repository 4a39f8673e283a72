"""A film from a blurred one: by the weights that come with the code, with one spike stream for the clip."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data.spike.sync import ExposureWindow, evenly_shared, write_sync
from scripts.restore import main
from tests.tiny import alone, run_test
from utils.spike_loader import write_spikes
from utils.utils_image import imwrite_rgb
from utils.utils_video import VideoWriter


def clip(folder: Path, frames: int = 3) -> Path:
    """Blurred frames of 32x48 in folder/blur, and their spikes of 16x24 in folder/clip.dat."""
    random = np.random.default_rng(0)
    for index in range(frames):
        imwrite_rgb(folder / "blur" / f"{index:06d}.png", random.integers(0, 255, (32, 48, 3), dtype=np.uint8))
    write_spikes(folder / "clip.dat", random.integers(0, 2, (20 * frames, 16, 24), dtype=np.uint8))
    (folder / "config.yaml").write_text("spike_h: 16\nspike_w: 24\n")
    return folder


def restore(*words: object) -> int:
    with alone():
        return main([str(word) for word in words])


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_folder_and_a_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, both = clip(tmp_path), tmp_path / "out" / "sharp.mp4", tmp_path / "out" / "both.mp4"
    words = [folder / "blur", "--spikes", folder / "clip.dat", "--fps", 10]
    assert restore(*words, "-o", out, "--side_by_side", both) == 0
    # Without a sync.json the frames share the stream, which is told.
    assert "blur/000000: exposed during spike frames 0 to 19, restored at 10" in capsys.readouterr().out
    films = frames_of(out), frames_of(both)
    assert [[frame.shape[1] for frame in film] for film in films[:1]] == [[48] * 3]
    assert len(films[1]) == 3 and films[1][0].shape[1] > 3 * 48
    # With one beside the stream that decides.
    windows = {f"{index:06d}": ExposureWindow(index, index + 9, index + 4) for index in range(3)}
    write_sync(folder / "sync.json", "any", windows)
    assert restore(*words, "-o", tmp_path / "again.mp4") == 0
    assert "exposed during spike frames 0 to 8, restored at 4" in capsys.readouterr().out
    assert any((a != b).any() for a, b in zip(films[0], frames_of(tmp_path / "again.mp4"), strict=True))


def test_slow_motion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = clip(tmp_path, frames=2), tmp_path / "slow.mp4"
    words = [folder / "blur", "--spikes", folder / "clip.dat", "-o", out, "--times", "0:1:1/2"]
    assert restore(*words) == 0
    assert len(frames_of(out)) == 2 * 3
    with pytest.raises(SystemExit):
        restore(*words[:-1], "2:3")
    assert "begin:end:step such as 0:1:1/16" in capsys.readouterr().err


def test_a_film_keeps_its_rate(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    with VideoWriter(tmp_path / "walk.mp4", fps=12) as video:
        for index in range(3):
            video.write(np.full((32, 48, 3), 50 * index, np.uint8))
    assert restore(tmp_path / "walk.mp4", "--spikes", folder / "clip.dat", "-o", tmp_path / "sharp.mp4") == 0
    with av.open(str(tmp_path / "sharp.mp4")) as container:
        assert container.streams.video[0].average_rate == 12
    assert len(frames_of(tmp_path / "sharp.mp4")) == 3


def film_with_sound(path: Path, codec: str) -> None:
    """Three frames at 12 frames/s, and a tone of 440 Hz of the same 0.25 s."""
    rate, seconds = 48000, 0.25
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=12)
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        audio: Any = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 50 * index, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        sound = av.AudioFrame.from_ndarray((32767 * tone)[None].astype(np.int16), format="s16", layout="mono")
        sound.sample_rate = rate
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode())


def loudest_frequency(path: Path) -> tuple[float, float]:
    """Of the first sound track in Hz, and how long it is in seconds."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        samples = np.concatenate([frame.to_ndarray()[0].ravel() for frame in container.decode(audio=0)]).astype(float)
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum[1:]) + 1) * rate / len(samples), len(samples) / rate


@pytest.mark.parametrize(("name", "codec"), [("walk.mp4", "aac"), ("walk.mov", "pcm_s16le")])
def test_a_film_keeps_its_sound(tmp_path: Path, name: str, codec: str) -> None:
    """AAC is copied; PCM, which an .mp4 does not hold, becomes AAC. Both by `svrt restore` and by --save_video."""
    folder = clip(tmp_path)
    film_with_sound(tmp_path / name, codec)
    assert restore(tmp_path / name, "--spikes", folder / "clip.dat", "-o", tmp_path / "sharp.mp4") == 0
    flags = ["--folder_lq", tmp_path / name, "--folder_spike", folder / "clip.dat", "--output", tmp_path / "results"]
    assert run_test("--task", "guided", *flags, "--save_video") == 0
    for film in (tmp_path / "sharp.mp4", tmp_path / "results" / "guided" / "walk_restored.mp4"):
        frequency, seconds = loudest_frequency(film)
        assert abs(frequency - 440) < 8 and 0.2 < seconds < 0.35
        assert len(frames_of(film)) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{clip}/blur", "--spikes", "{clip}/clip.dat", "-o", "sharp.avi"], "sharp.avi: films are written as .mp4"),
        (["{clip}/blur", "--spikes", "{clip}/no.dat", "-o", "{clip}/a.mp4"], "no.dat"),
        (["{clip}/blur", "--spikes", "{clip}/clip.dat", "-o", "{clip}/a.mp4", "--task", "none"], "Choices: "),
    ],
)
def test_mistakes(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path)
    assert restore(*(word.format(clip=tmp_path) for word in words)) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "a.mp4").exists()


def test_frames_share_a_stream_evenly() -> None:
    windows = evenly_shared(["a", "b", "c"], 10)
    assert [(w.begin, w.end, w.center) for w in windows.values()] == [(0, 3, 1), (3, 6, 4), (6, 10, 8)]
    with pytest.raises(ValueError, match="2 spike frames are too few for 3 frames"):
        evenly_shared(["a", "b", "c"], 2)
