"""Every command starts by its path (as the documents write it) and as a module, from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(path for path in (ROOT / "scripts").rglob("*.py") if '__name__ == "__main__":' in path.read_text())

# Runs each command's --help as Python would, in forks of one process that has the slow libraries loaded already.
RUNNER = """
import contextlib, importlib, io, json, os, runpy, sys, traceback
for library in ("cv2", "numpy", "pydantic", "torch", "torchvision", "yaml"):
    importlib.import_module(library)
root, *names = sys.argv[1:]
wrong = {}
for name in names:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        output, report = io.StringIO(), ""
        sys.argv = [name, "--help"]
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                if os.path.isabs(name):
                    sys.path[0] = os.path.dirname(name) if name.endswith(".py") else name
                    runpy.run_path(name, run_name="__main__")
                else:
                    sys.path[0] = root
                    runpy.run_module(name, run_name="__main__", alter_sys=True)
            report = "no help"
        except SystemExit as end:
            report = "" if end.code == 0 and "usage:" in output.getvalue() else f"{end.code}: {output.getvalue()}"
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is missing on this system")
def test_commands_start_by_path_and_as_modules(tmp_path: Path) -> None:
    # The other tests run the modules; of the quick ones both ways are compared here.
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS if path.parent != ROOT / "scripts"
    ]
    names = [*map(str, COMMANDS), str(ROOT / "scripts/spikes"), *(m for m in modules if "benchmark" not in m)]
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, str(ROOT), *names], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(COMMANDS) > 30
    assert json.loads(run.stdout.splitlines()[-1]) == {}
