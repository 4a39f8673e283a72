"""The rules of the rooms in docs/architecture.md, read off the imports of all files: who imports whom, no circles."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "models", "utils", "scripts")
FORBIDDEN = {"data": {"models", "scripts"}, "models": {"data", "scripts"}, "utils": {"data", "models", "scripts"}}
FORBIDDEN["scripts"] = set()
CONNECTS = {"models/pretrained.py": {"data"}}
"""A function of arrays with shipped weights connects options, encoding and network, as the entry scripts do."""


def sources() -> list[Path]:
    """The Python files of the rooms and of the checkout's root, relative to it."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return sorted(path.relative_to(ROOT) for path in paths)


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, within functions too; `from a import b` is a.b."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_who_imports_whom() -> None:
    wrong = []
    for path in sources():  # those of the checkout's root import all rooms but scripts
        forbidden = FORBIDDEN.get(path.parts[0], {"scripts"}) - CONNECTS.get(path.as_posix(), set())
        wrong += [f"{path} imports {name}" for name in imported(path) if name.partition(".")[0] in forbidden]
    assert not wrong


def test_every_exception_is_needed() -> None:
    for name, rooms in CONNECTS.items():
        assert rooms <= {imported_name.partition(".")[0] for imported_name in imported(Path(name))}


def test_no_circles() -> None:
    """Imports for types and within functions count."""
    files = {path.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path for path in sources()}

    def file_of(name: str) -> str | None:
        return next((part for part in (name, name.rpartition(".")[0]) if part in files), None)

    graph = {module: {file_of(name) for name in imported(path)} - {None, module} for module, path in files.items()}
    assert sum(map(len, graph.values())) > len(files)
    tuple(TopologicalSorter(graph).static_order())  # CycleError names a circle
