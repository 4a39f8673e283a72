"""What is answered before a command's slow imports."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import environment
from utils.options.flags import answer_first, trainer_parser

ENDS_WITHOUT_TORCH = """
import runpy, sys
script, *sys.argv[1:] = sys.argv[1:]
sys.path[0] = script.rpartition("/")[0]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert "torch" not in sys.modules
    raise
"""


@pytest.mark.parametrize(
    ("script", "flags", "told"),
    [
        ("main_train_vrt.py", ["--opt", "missing.json"], "missing.json"),
        ("main_train_vrt.py", ["--opt", "broken.json"], "broken.json"),
        ("main_train_vrt.py", ["--opt", "empty.json", "--set", "nonsense"], "nonsense"),
        ("main_test_vrt.py", ["--opt", "broken.json"], "broken.json"),
        ("main_test_vrt.py", [], "one of the arguments --opt --task is required"),
    ],
)
def test_mistakes_do_not_wait_for_torch(
    script: str, flags: list[str], told: str, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "broken.json").write_text('{"task": ')
    (tmp_path / "empty.json").write_text("{}")
    command = [sys.executable, "-c", ENDS_WITHOUT_TORCH, str(repository / script), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment())
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_right_goes_on_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Flags of KAIR's are warned about once, by `main`; other flags may be meant for the command that is called."""
    (tmp_path / "options.json").write_text("{}")
    answer_first(trainer_parser(""), ["--opt", str(tmp_path / "options.json"), "--launcher", "slurm", "--copy"])
    answer_first(argparse.ArgumentParser(), [])
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert not logging.root.manager.disable
