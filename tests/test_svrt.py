"""The command `svrt`: its verbs, the launcher beside it, and the installation that brings it."""

import subprocess
import sys
from pathlib import Path

import pytest

import svrt
from tests.tiny import environment


def run(*command: object, **variables: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment(**variables))


def test_without_a_verb_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert svrt.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {name} " in listed and verb.purpose in listed for name, verb in svrt.VERBS.items())
    assert svrt.main([]) == 2


@pytest.mark.parametrize("name", svrt.VERBS)
def test_help_imports_nothing_slow(name: str) -> None:
    """NumPy, OpenCV, PyTorch and pydantic take seconds."""
    source = """
import sys, svrt
try:
    code = svrt.main([sys.argv[1], "--help"])
except SystemExit as error:  # argparse's way
    code = error.code
slow = {"numpy", "cv2", "torch", "pydantic", "urllib.request"} & set(sys.modules)
assert code == 0 and not slow, slow
"""
    done = run(sys.executable, "-c", source, name, PYTHONPATH=Path(svrt.__file__).parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: svrt {name} ")


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert svrt.main(["deblur"]) == 2
    assert capsys.readouterr().err.startswith("Error: svrt has no verb 'deblur'; it has restore, test, train, ")


def test_a_package_that_lacks_is_told_in_a_line(repository: Path) -> None:
    """-S hides installed packages."""
    done = run(sys.executable, "-S", "-E", repository / "svrt.py", "inspect", "nowhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: the package numpy is not installed here; start by ")


def test_the_launcher_runs_verbs_and_python(repository: Path, tmp_path: Path) -> None:
    """From any folder; the interpreter counts as one that has everything."""
    (tmp_path / "svrt").symlink_to(repository / "svrt")
    assert run(tmp_path / "svrt", "spikes", "--help").stdout.startswith("usage: svrt spikes")
    done = run(repository / "svrt", "python", "-c", "import sys; print(sys.executable)")
    assert done.stdout.strip() == sys.executable
    assert run(repository / "svrt", "deblur").returncode == 2


def test_an_import_puts_nothing_into_the_way() -> None:
    """As after `pip install -e .`: the module alone is found, and `utils` is anybody's name."""
    source = """
import importlib.util, sys
specification = importlib.util.spec_from_file_location("svrt", sys.argv[1])
before = list(sys.path)
specification.loader.exec_module(importlib.util.module_from_spec(specification))
assert sys.path == before and not {"utils", "data", "models", "torch"} & set(sys.modules)
"""
    done = run(sys.executable, "-c", source, svrt.__file__)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("clashes", [False, True])
def test_loading_from_elsewhere(tmp_path: Path, clashes: bool) -> None:
    """A program in another folder, where `svrt` alone can be imported; one of its own packages may be called utils."""
    (tmp_path / "svrt.py").symlink_to(svrt.__file__)
    if clashes:
        (tmp_path / "utils").mkdir()
        (tmp_path / "utils" / "__init__.py").touch()
    source = "import svrt; print(type(svrt.load('guided')).__name__)"
    script = tmp_path / "program.py"  # whose folder is searched first
    script.write_text(source)
    done = run(sys.executable, script)
    if clashes:
        assert f"ImportError: svrt.load needs {svrt.ROOT / 'utils'}, but" in done.stderr
    else:
        assert done.stdout.strip() == "SpikeRestorer", done.stderr
