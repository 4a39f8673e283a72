"""Results of another origin are moved aside; those of the same test again are replaced."""

from pathlib import Path

import pytest
from torch import nn

from utils.evaluation.origin import describe, start_results


def about(weight: float = 1.0, **changes: object) -> dict[str, str]:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, weight)
    identity = {"task": "tiny", "data": "clips", "tile": (0, 0, 0), **changes}
    return describe(Path("experiments/tiny"), network, "./svrt test --opt tiny.json", **identity)


def test_what_is_told() -> None:
    told = about()
    assert list(told) == ["task", "data", "tile", "checkpoint", "weights", "commit", "date", "command"]
    assert told["checkpoint"] == "experiments/tiny" and told["command"] == "./svrt test --opt tiny.json"
    assert told["weights"] != about(2.0)["weights"] and told["weights"] == about(1.0)["weights"]


@pytest.mark.parametrize("change", [{"weight": 2.0}, {"data": "others"}, {"tile": (6, 64, 64)}, {"task": "other"}])
def test_others_are_moved_aside(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tmp_path / "tiny"
    for number in (1, 2):  # within the same second
        start_results(folder, about())
        (folder / "metrics.json").write_text(str(number))
        start_results(folder, about(**change))  # type: ignore[arg-type]
        assert not (folder / "metrics.json").exists()
        start_results(folder, about(3.0))
    texts = [path.read_text() for path in tmp_path.glob("tiny_*/metrics.json")]
    assert sorted(texts) == ["1", "2"]


def test_the_same_test_again_stays(tmp_path: Path) -> None:
    start_results(tmp_path / "tiny", about())
    (tmp_path / "tiny" / "metrics.json").touch()
    start_results(tmp_path / "tiny", {**about(), "date": "later", "checkpoint": "a copy"})
    assert (tmp_path / "tiny" / "metrics.json").exists() and len(list(tmp_path.iterdir())) == 1


def test_results_that_nobody_described(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "index.html").touch()
    start_results(tmp_path / "tiny", about())
    assert len(list(tmp_path.glob("tiny_*/index.html"))) == 1
