"""The benchmark of attention back ends tells right from wrong."""

from unittest import mock

import pytest
from torch import Tensor

from models.layers.backends.sdpa import SdpaBackend, attend
from scripts.benchmark.bench_attention import main

SMALL = ["--size", "1x8x12", "--compare", "eager,sdpa", "--repeats", "1"]


@pytest.mark.parametrize(("half", "cases"), [("attention", 6), ("mlp", 3)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compares_back_ends(precision: str, half: str, cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--step", "--precision", precision, "--half", half]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 2 * cases
    assert not [line for line in lines if "WRONG" in line]


def test_says_which_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def unscaled(self: SdpaBackend, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        return attend(q, k, v, bias, 1.01 * scale)

    with mock.patch.object(SdpaBackend, "attend", unscaled):
        assert main(SMALL) == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [("sdpa" in line) == ("WRONG" in line) for line in lines] == [True] * 12


def test_a_back_end_that_wants_keys_first_gets_them_first() -> None:
    def transposing(self: SdpaBackend, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        return attend(q, k, v, None if bias is None else bias.mT, scale)

    with mock.patch.object(SdpaBackend, "attend", transposing):
        assert main(SMALL) == 1
        with mock.patch.object(SdpaBackend, "keys_first", True):
            assert main(SMALL) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "eager,fast"], "no compute back end is called 'fast'"),
        (["--compare", "triton"], "not for 'cpu'"),
        (["--size", "6x192"], "FRAMESxHEIGHTxWIDTH"),
        (["--tiles", "64x64"], "such as 64x64x4x2"),
        (["--tiles", "60x64x4x2"], "powers of two"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err
