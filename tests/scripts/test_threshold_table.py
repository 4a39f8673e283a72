"""scripts/benchmark/threshold_table.py: kept spikes, dark scenes, tables, and the page's figures on real samples."""

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmark import threshold_table
from scripts.benchmark.reconstruction_table import Sample, by_method, load_samples
from scripts.benchmark.threshold_table import FREE, KEPT, low_light, main, table, thinned
from utils.evaluation.metrics import psnr
from utils.spike_loader import SpikeStream, write_spikes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spikes_networks.md"


def test_every_kth_spike_is_kept(tmp_path: Path) -> None:
    spikes = np.random.default_rng(0).integers(0, 2, (40, 8, 8), np.uint8)
    write_spikes(tmp_path / "a.dat", spikes)
    sample = Sample("a", SpikeStream(tmp_path / "a.dat", 8, 8), 20, 2.0, spikes[0])
    kept = thinned(sample, 3)
    assert isinstance(kept.stream, np.ndarray) and kept.threshold == 6.0
    np.testing.assert_array_equal(kept.stream.sum(0), spikes.sum(0) // 3)
    assert (spikes[kept.stream == 1] == 1).all()


def test_dark_scenes_have_the_rate_and_the_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_table, "SIZE", (32, 48))
    for sample in low_light(0.05):
        assert isinstance(sample.stream, np.ndarray) and abs(sample.stream.mean() - 0.05) < 0.01
        assert abs(sample.threshold * sample.stream.mean() * 255 / sample.sharp.mean() - 1) < 0.3


def test_a_table_names_the_best_method_and_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_table, "SIZE", (32, 48))
    samples = list(low_light(0.1))
    lines = table("mean rate", {"0.1": samples}, by_method(FREE["Gaussian 12"])).splitlines()
    assert lines[0] == "| mean rate | | chelsea | coffee | ihc | mean |" and len(lines) == 4
    best, by = (line.split("|")[3:-1] for line in lines[2:])
    for sample, cell, score in zip(samples, best, by, strict=False):
        value, name = re.fullmatch(r" (\d+\.\d\d) \((.*)\) ", cell).groups()  # type: ignore[union-attr]
        assert name in FREE and float(value) >= float(score)
        assert abs(psnr(by_method(FREE["Gaussian 12"])(sample), sample.sharp) - float(score)) < 0.01


def test_without_data_there_is_nothing_to_do() -> None:
    with pytest.raises(SystemExit):
        main([])


@pytest.mark.slow
def test_the_page_has_what_the_command_prints(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The streams that are at hand; the page has two more."""
    assert main(["--data", str(shared_data)]) == 0
    printed = capsys.readouterr().out.splitlines()
    names = printed[0].split("|")[3:-2]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("| spikes kept"))
    stated = lines[begin].split("|")
    assert len(names) == len(load_samples(shared_data)) and len(printed) == 2 + 2 * len(KEPT)
    for row, line in zip(printed[2:], lines[begin + 2 :], strict=False):
        for name, cell in zip(names, row.split("|")[3:], strict=False):
            value, shown = (float(text.split()[0]) for text in (cell, line.split("|")[stated.index(name)]))
            assert abs(value - shown) < 0.03, (name, row, line)
