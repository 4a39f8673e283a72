"""S-VRT: video restoration from blurred frames and spikes.

    svrt VERB --help        (./svrt in the checkout, which makes the environment; `svrt` after `pip install -e .`)
    import svrt; sharp = svrt.load("guided")(frames, spikes)

Each verb starts the same code as the script that it names below.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
PACKAGES = ("data", "models", "scripts", "utils")


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        module: with `main(argv) -> exit code`.
        purpose: in a line.
        flags: "module:function" that makes the command's parser from a description and imports nothing slow, so that
            --help and mistakes are answered at once (`answer_first`); None where the module itself is quick to import.
    """

    module: str
    purpose: str
    flags: str | None = None


VERBS = {
    "restore": Verb("scripts.restore", "a sharp film from blurred frames and spikes", "scripts.flags:restore_parser"),
    "test": Verb("main_test_vrt", "restore clips, score them, write a report", "utils.options.flags:tester_parser"),
    "train": Verb("main_train_vrt", "train a network from an option file", "utils.options.flags:trainer_parser"),
    "simulate": Verb(
        "scripts.data_preparation.simulate_dataset",
        "a data set with spikes from any video",
        "scripts.flags:simulate_parser",
    ),
    "prepare": Verb(
        "scripts.data_preparation.prepare",
        "lay out GoPro and other sets as recipes expect",
        "scripts.flags:prepare_parser",
    ),
    "doctor": Verb("scripts.doctor", "look at everything that a run would use", "scripts.flags:doctor_parser"),
    "align": Verb(
        "scripts.align", "your own frames and spikes: clock, place, brightness", "scripts.flags:align_parser"
    ),
    "inspect": Verb(
        "scripts.inspect_run", "how a run is doing: curves, scores, troubles", "scripts.flags:inspect_parser"
    ),
    "gpu-check": Verb(
        "scripts.gpu_check", "check and measure a graphics card in minutes", "scripts.flags:gpu_check_parser"
    ),
    "spikes": Verb("scripts.spikes.__main__", "look at spike streams, render, simulate, convert, check them"),
}


def load(*arguments: Any, **keywords: Any) -> Any:
    """A restorer with weights that come with the code: `models.pretrained.load`, whose arguments these are.

    Puts the checkout at the end of `sys.path`: its packages `data`, `models` and `utils` are imported from there.

    Raises:
        ImportError: this program has other packages of these names.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    for name in PACKAGES:
        specification = importlib.util.find_spec(name)
        places = list(specification.submodule_search_locations or []) if specification else []
        if [str(ROOT / name)] != places:
            found = places or (specification.origin if specification else None)
            raise ImportError(f"svrt.load needs {ROOT / name}, but this program's {name!r} is {found}")
    return importlib.import_module("models.pretrained").load(*arguments, **keywords)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the verb's exit code, 2 for a mistake in what was asked for."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in VERBS:
        sys.stderr.write(f"Error: svrt has no verb {name!r}; it has {', '.join(VERBS)}\n")
        return 2
    verb = VERBS[name]
    sys.path.insert(0, str(ROOT))
    sys.argv[0] = f"svrt {name}"  # what argparse calls the program
    try:
        if verb.flags is not None:
            module, function = verb.flags.split(":")
            parser = getattr(importlib.import_module(module), function)(docstring(verb.module))
            importlib.import_module("utils.options.flags").answer_first(parser, rest)
        return importlib.import_module(verb.module).main(rest)
    except ModuleNotFoundError as error:
        line = importlib.import_module("utils.utils_cli").missing_package(error)
        if line is None:
            raise  # a fault of ours or of an installed package
        sys.stderr.write(line)
        return 2


def usage() -> str:
    """The verbs with their purposes."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"    {name:{width}}  {verb.purpose}" for name, verb in VERBS.items())
    return f"{__doc__}\n{verbs}\n\n    ./svrt python ...   the environment's Python itself"


def docstring(module: str) -> str:
    """A module's docstring, without importing it."""
    specification = importlib.util.find_spec(module)
    assert specification is not None and specification.origin is not None, module
    return ast.get_docstring(ast.parse(Path(specification.origin).read_text(encoding="utf-8"))) or ""


if __name__ == "__main__":
    sys.exit(main())
