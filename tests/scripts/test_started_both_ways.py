"""Every command starts by its path (as the documents write it) and as a module, from any folder; --help at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.spikes.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path for path in (ROOT / "scripts").rglob("*.py") if '__name__ == "__main__":' in path.read_text())
TORCHRUN = ROOT / "scripts/run_ranks.py"  # --help is torchrun's own

# Runs each command's --help as Python would, in forks, and reports what it imported that takes seconds.
RUNNER = """
import contextlib, io, json, os, runpy, sys, traceback
slow = {"pydantic", "skimage", "tensorboard", "torch", "torchvision", "wandb"}
root, *names = sys.argv[1:]
wrong = {}
for name in names:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        output = io.StringIO()
        module, *words = name.split()
        sys.argv = [module, *words, "--help"]
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                if os.path.isabs(module):
                    sys.path[0] = os.path.dirname(module) if module.endswith(".py") else module
                    runpy.run_path(module, run_name="__main__")
                else:
                    sys.path[0] = root
                    runpy.run_module(module, run_name="__main__", alter_sys=True)
            report = "no help"
        except SystemExit as end:
            report = "" if end.code == 0 and "usage:" in output.getvalue() else f"{end.code}: {output.getvalue()}"
            report = report or ", ".join(slow & sys.modules.keys())
        except BaseException:
            report = traceback.format_exc()
        os.write(writing, report[-4000:].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        wrong |= {name: report} if (report := pipe.read()) else {}
    os.wait()
print(json.dumps(wrong))
"""


def test_a_missing_package_is_told_in_a_line(tmp_path: Path) -> None:
    """-S hides installed packages; without flags a command may first say which it needs."""
    options = ["--opt", str(ROOT / "options/demo/quickstart.json")]
    entries = [[str(ROOT / f"main_{name}_vrt.py"), *options] for name in ("train", "test")]
    spikes = [[str(ROOT / "scripts/spikes"), "info", "a.dat"], ["-m", "scripts.spikes", "info", "a.dat"]]
    paths = [[str(path)] for path in COMMANDS]
    modules = [["-m", ".".join(path.relative_to(ROOT).with_suffix("").parts)] for path in COMMANDS[::8]]
    said = set()
    for words in [*entries, *spikes, *paths, *modules]:
        run = subprocess.run(
            [sys.executable, "-S", *words],
            cwd=ROOT if words[0] == "-m" else tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert run.returncode in (0, 2) and "Traceback" not in run.stderr, (words, run.stderr)
        if "is not installed here" in run.stderr:
            assert len(run.stderr.splitlines()) == 1, (words, run.stderr)
            said.add(words[-1])
    assert len(said) > 10 and options[1] in said and "a.dat" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing on this system")
def test_help_by_path_and_as_modules_imports_nothing_slow(tmp_path: Path) -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS if path != TORCHRUN]
    paths = [
        str(path) for path in (*COMMANDS, ROOT / "main_train_vrt.py", ROOT / "main_test_vrt.py") if path != TORCHRUN
    ]
    names = [*paths, str(ROOT / "scripts/spikes"), *modules, *(f"scripts.spikes {verb}" for verb in VERBS)]
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, str(ROOT), *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(COMMANDS) > 30
    assert json.loads(run.stdout.splitlines()[-1]) == {}
