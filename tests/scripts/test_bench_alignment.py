"""The benchmark of alignment tells right from wrong."""

from collections.abc import Iterator
from unittest import mock

import pytest
from torch import Tensor

from models.layers.backends.alignment import Aligned, aligned_chunks
from models.layers.backends.sdpa import SdpaBackend
from models.layers.vrt.alignment import DeformableAlignment
from scripts.benchmark import bench_alignment
from scripts.benchmark.bench_alignment import main

SMALL = ["--size", "2x3x4", "--compare", "eager,sdpa", "--repeats", "1"]


def test_compares_back_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--step"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].endswith("gradients") and len(lines) == 1 + 2 * len(bench_alignment.CASES)
    assert not [line for line in lines if "WRONG" in line]


def test_says_which_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def shifted(self: SdpaBackend, alignment: DeformableAlignment, x: Tensor, flows: Tensor) -> Iterator[Aligned]:
        return aligned_chunks(alignment, x, flows + 0.01)

    with mock.patch.object(SdpaBackend, "align_chunks", shifted):
        assert main(SMALL) == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [("sdpa" in line) == ("WRONG" in line) for line in lines] == [True] * len(lines)


def test_a_single_frame_has_nothing_to_align(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--size", "1x3x4"]) == 2
    assert "two frames at least, got 1" in capsys.readouterr().err
