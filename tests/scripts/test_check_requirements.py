"""What a Python lacks, told from a requirements file."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_requirements import missing, numbers, requirements

INSTALLED = {
    "torch": "2.9.1+cu128",
    "numpy": "1.26.4",
    "opencv-python": "4.10.0.84",
    "wandb": "0.9",
    "ruff": "0.12.0rc1",
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Packages that count as installed; a test may change them."""
    from importlib.metadata import PackageNotFoundError

    packages = dict(INSTALLED)

    def version(name: str) -> str:
        if name not in packages:
            raise PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr("scripts.check_requirements.version", version)
    return packages


def write(folder: Path, text: str) -> Path:
    path = folder / "requirement.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "line, expected",
    [
        ("torch>=2.7", []),
        ("torch", []),
        ("torch>=2.10", ["torch: 2.9.1+cu128 is installed, >=2.10 is needed"]),
        ("torch >= 2.7, < 2.9  # too new", ["torch: 2.9.1+cu128 is installed, <2.9 is needed"]),
        ("opencv-python-headless>=4.8,<5", []),
        ("opencv-python-headless>=4.11", ["opencv-python-headless: 4.10.0.84 is installed, >=4.11 is needed"]),
        ("wandb>=0.17", ["wandb: 0.9 is installed, >=0.17 is needed"]),
        ("ruff>=0.12", []),
        ("einops>=0.7", ["einops: not installed"]),
        ("# einops", []),
        ("", []),
    ],
)
def test_one_line(tmp_path: Path, installed: dict[str, str], line: str, expected: list[str]) -> None:
    assert missing(write(tmp_path, f"{line}\n")) == expected


def test_files_that_include_others(tmp_path: Path, installed: dict[str, str]) -> None:
    write(tmp_path, "torch>=2.7\neinops\n")
    dev = tmp_path / "dev.txt"
    dev.write_text("-r requirement.txt\npytest>=8\nnumpy>=2\n")
    assert missing(dev) == [
        "einops: not installed",
        "pytest: not installed",
        "numpy: 1.26.4 is installed, >=2 is needed",
    ]


def test_versions_compare_by_number() -> None:
    assert numbers("2.15.0+cpu") == (2, 15, 0) > numbers("2.9.1+cu128")
    assert numbers("0.12.0rc1") == (0, 12, 0)
    assert numbers("8") == (8,) < numbers("8.0.1")


def test_our_files_are_understood(repository: Path) -> None:
    names = [name for name, _ in requirements(repository / "requirement-dev.txt")]
    assert {"torch", "torchvision", "numpy", "opencv-python-headless", "pydantic", "pytest", "ruff", "mypy"} <= set(
        names
    )
    for name, bounds in requirements(repository / "requirement-dev.txt"):
        assert bounds or name.startswith("types-"), f"{name} has no lower bound"


def test_it_runs_without_anything_installed(repository: Path, tmp_path: Path) -> None:
    """-S hides installed packages: nothing but the standard library may be imported."""
    path = write(tmp_path, "no-such-package>=1\n")
    command = [sys.executable, "-S", "-I", str(repository / "scripts" / "check_requirements.py"), str(path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout, told.stderr) == (1, "no-such-package: not installed\n", "")
    quiet = subprocess.run([*command, "--quiet"], capture_output=True, text=True, timeout=60)
    assert (quiet.returncode, quiet.stdout) == (1, "")
    empty = write(tmp_path, "# nothing\n")
    assert subprocess.run([*command[:-1], str(empty)], timeout=60).returncode == 0
