"""Says what of a requirements file this Python lacks; needs nothing but the standard library.

    python scripts/check_requirements.py requirement.txt        exit code 0: nothing lacks, 1: it lists what does

Understands what our files use: one requirement a line, `>=` and `<` bounds, `-r FILE`, comments.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Any of these gives the same module: a user's opencv-python serves as well as the headless build.
SAME = {"opencv-python-headless": ["opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"]}


def requirements(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Names and bounds ((">=", "2.7"), ...) of the packages that a file asks for."""
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r"):
            yield from requirements(path.parent / line[2:].strip())
        elif line:
            name = re.split(r"[<>=!~ \[]", line, maxsplit=1)[0]
            yield name, re.findall(r"(>=|<)\s*([\d.]+)", line)


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.15.0+cpu" gives (2, 15, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


def installed_version(name: str) -> str | None:
    """Version of a package or of one that serves as well; None if there is none."""
    for candidate in [name, *SAME.get(name, [])]:
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return None


def missing(path: Path) -> list[str]:
    """What this Python lacks, a line each."""
    faults = []
    for name, bounds in requirements(path):
        found = installed_version(name)
        if found is None:
            faults.append(f"{name}: not installed")
            continue
        for operator, bound in bounds:
            if (numbers(found) >= numbers(bound)) != (operator == ">="):
                faults.append(f"{name}: {found} is installed, {operator}{bound} is needed")
    return faults


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--quiet", action="store_true", help="say nothing, only set the exit code")
    arguments = parser.parse_args()
    faults = missing(arguments.file)
    if faults and not arguments.quiet:
        print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
