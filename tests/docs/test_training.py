"""docs/training.md and docs/troubleshooting.md: commands run, options and messages that they name exist."""

import re
import shlex
from pathlib import Path

import pytest

import main_train_vrt
import scripts.benchmark.bench_train
import scripts.inspect_run
import scripts.stress_resume
from tests.docs.test_readme import commands
from tests.tiny import TinyRun, alone
from utils.options.parts import all_sections
from utils.utils_option import Registries

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = commands("docs/training.md")
SERVED = "python -m scripts.inspect_run experiments/demo_quickstart --serve"  # until Ctrl-C: test_inspect_server.py
IN_PROCESS = {
    "main_train_vrt.py": main_train_vrt.main,
    "scripts/benchmark/bench_train.py": scripts.benchmark.bench_train.main,
    "scripts.inspect_run": scripts.inspect_run.main,
    "scripts.stress_resume": scripts.stress_resume.main,
}
# Commands of these are run with stand-ins in tests/test_launch.py, and real ones in tests/docs/test_readme.py.
LAUNCHERS = (
    "./launch_train.sh",
    "scripts/cluster/two_nodes.sh",
    "sbatch scripts/cluster/slurm.sh",
    "tensorboard --logdir",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A trained run in the place of the demo's."""
    run = TinyRun.make(tmp_path_factory.mktemp("page"))
    assert run.train() == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python") and c != SERVED])
def test_command_runs(command: str, run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a tiny network, two steps and two kills."""
    text = command.replace("options/demo/quickstart.json", str(run.options)).replace(
        "train.total_iter=8", "train.total_iter=3"
    )
    text = text.replace("experiments/demo_quickstart", str(run.folder)).replace("--kills 20", "--kills 2")
    words = shlex.split(text.replace("python -m ", "").replace("python ", ""))
    words, alternative = (words[: words.index("||")], words[words.index("||") :]) if "||" in words else (words, [])
    if words[0] == "main_train_vrt.py":
        words += ["--set", "train.total_iter=9"]
    if words[0].endswith("bench_train.py"):
        words += ["--steps", "2"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with alone():
        code = IN_PROCESS[words[0]](words[1:])
    assert code == (3 if alternative else 0)
    if "--profile" in words:
        trace = (run.folder / "profile" / "trace_rank0.json").read_text()
        assert trace.count('"name": "ProfilerStep#') >= 5


def test_other_commands_are_those_that_other_tests_run() -> None:
    assert SERVED in COMMANDS
    others = [command for command in COMMANDS if not command.startswith("python")]
    assert len(others) == 7
    for command in others:
        started = command.partition("NNODES=2 RDZV_ENDPOINT=node0:29400 ")[2] or command
        assert started.startswith(LAUNCHERS), command
        for word in shlex.split(command):
            assert not word.endswith((".json", ".sh")) or (ROOT / word).exists(), word


@pytest.mark.parametrize("name", ["docs/training.md", "docs/troubleshooting.md"])
def test_options_that_are_named_exist(name: str) -> None:
    known: dict[str, set[str]] = {}
    for section, _, model in all_sections(Registries()):
        known.setdefault(section, set()).update(model.model_fields)
    page = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`(train(?!\.log)|val|path|logger|netG|datasets\.(?:train|test|\*))\.(\w+)", page)
    assert len(named) > 5
    for section, key in named:
        assert key in known[re.sub(r"^datasets\..*", "datasets.*", section)], f"{section}.{key}"


def test_messages_that_are_named_are_in_the_code() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("data", "models", "utils")
        for path in (ROOT / folder).rglob("*.py")
    )
    for message in (
        "skipped: loss or gradient",
        "steps in a row",
        "parameters are not the same on all",
        "can't be shared equally by",
        "The one before it is taken",
        "no checkpoint can be read",
        "checkpoint of another architecture",
        "the saved optimizer ",
        "has other groups",
        "could not be written",
    ):
        assert message in sources, message
