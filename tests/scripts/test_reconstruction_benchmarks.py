"""scripts/benchmark/bench_reconstruct.py and reconstruction_table.py: rows, checks, and the real samples' figures."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.spike.simulation.simulate import integrate_and_fire
from scripts.benchmark import bench_reconstruct, reconstruction_table
from scripts.benchmark.reconstruction_table import METHODS, by_method, load_samples, measure, table
from utils.spike_loader import SpikeStream, write_spikes
from utils.utils_image import imwrite_rgb


def small_stream(path: Path, length: int = 30) -> SpikeStream:
    light = np.broadcast_to(np.linspace(0.2, 1, 8 * 16).reshape(8, 16), (length, 8, 16))
    write_spikes(path, integrate_and_fire(light, 2.0, np.random.default_rng(0)))
    return SpikeStream(path, 8, 16)


def test_benchmark_has_a_row_per_method(tmp_path: Path) -> None:
    rows = bench_reconstruct.measure(small_stream(tmp_path / "a.dat"), repeats=1)
    assert [row["method"] for row in rows] == [
        "window",
        "interval",
        "k_interval",
        "gaussian",
        "charge",
        "plasticity",
        "single",
        "loop",
    ]
    assert all(row["ms"] > 0 for row in rows) and rows[-1]["ratio"] == 1


def test_benchmark_notices_pictures_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = small_stream(tmp_path / "a.dat")
    right = bench_reconstruct.interval_by_loop
    monkeypatch.setattr(bench_reconstruct, "interval_by_loop", lambda spikes, t: right(spikes, t + 1))
    with pytest.raises(AssertionError, match="disagree"):
        bench_reconstruct.measure(stream, repeats=1)


def run(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    main()


def test_benchmark_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small_stream(tmp_path / "a.dat")
    command = [monkeypatch, bench_reconstruct.main, "--dat", str(tmp_path / "a.dat")]
    size = ["--spike_h", "8", "--spike_w", "16", "--repeats", "1"]
    run(*command, *size)
    printed = capsys.readouterr().out
    assert "a.dat: 30 frames of 8x16" in printed and ">= 50 x" in printed
    run(*command, *size, "--json")
    assert json.loads(capsys.readouterr().out)["shape"] == [30, 8, 16]
    with pytest.raises(SystemExit, match="2"):
        run(*command)
    assert "Give spike_h and spike_w" in capsys.readouterr().err


@pytest.mark.slow
def test_benchmarks_start_as_files(repository: Path) -> None:
    for name in ("bench_reconstruct", "reconstruction_table"):
        command = [sys.executable, f"scripts/benchmark/{name}.py", "--help"]
        subprocess.run(command, cwd=repository, check=True, capture_output=True)


def test_samples_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither gopro_spike_sample"):
        load_samples(tmp_path)


def test_table_of_a_known_stream(tmp_path: Path) -> None:
    (tmp_path / "reds_base").mkdir()
    write_spikes(tmp_path / "reds_base" / "still.dat", np.ones((20, 250, 400), np.uint8))
    imwrite_rgb(tmp_path / "reds_base" / "still.png", np.full((250, 400), 245, np.uint8))
    samples = load_samples(tmp_path)
    rows = measure(samples, {"window 21": by_method(METHODS["window 21"])})
    assert rows[0]["psnr"]["still"] == pytest.approx(20 * np.log10(255 / 10))  # 1 / 0.6, clipped to 1: white
    assert table(rows, samples).splitlines()[-1].startswith("| window 21 | 28.13 / ")


def test_real_samples(shared_data: Path) -> None:
    samples = load_samples(shared_data)
    names = ("window 41", "interval", "2-interval", "Gaussian 6")
    rows = {row["method"]: row["psnr"] for row in measure(samples, {n: by_method(METHODS[n]) for n in names})}
    least = {"window 41": 27.95, "interval": 24.3, "2-interval": 32.0, "Gaussian 6": 34.4}
    for name, figure in least.items():
        assert rows[name]["000226"] >= figure, name
    reds = [name for name in rows["2-interval"] if name != "000226"]
    assert len(reds) == 3
    assert np.mean([rows["Gaussian 6"][name] for name in reds]) > 30.7
    assert np.mean([rows["2-interval"][name] for name in reds]) > 28.9


def test_table_command(shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, reconstruction_table.main, "--data", str(shared_data), "--json")
    assert [row["method"] for row in json.loads(capsys.readouterr().out)] == list(METHODS)
