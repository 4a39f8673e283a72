"""`scripts.benchmark.align_rigs`: two rigs that are found, and the table about them."""

import re

from scripts.benchmark.align_rigs import main


def test_two_rigs_are_found(capsys):
    assert main(["--rigs", "2", "--seed", "128"]) == 0
    rows = dict(re.findall(r"(?m)^\| (\w+) \| [\d.]+ \| (.*) \|$", capsys.readouterr().out))
    assert set(rows) == {"offset", "period", "exposure", "homography", "threshold"}
    for name in ("offset", "exposure", "homography", "threshold"):
        told, within, of_all, _, wrong = rows[name].split(" | ")
        assert (told, within, of_all, wrong) == ("100%", "100%", "100%", "0"), name
