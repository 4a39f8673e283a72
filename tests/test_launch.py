"""launch_train.sh and the environment it chooses; one process, torchrun's two, and a platform's two train alike."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import main_train_vrt
from scripts.local_ranks import free_port
from tests.tiny import TinyRun, alone, close, differing, environment, interpreter

pytestmark = pytest.mark.slow

ROOT = Path(main_train_vrt.__file__).parent
DEFAULT = "options/vrt/006_train_vrt_videodeblurring_gopro_rgbspike.json"
# Notes what it is asked to run; a command that holds FAKE_FAILS ends with code 7, one for a module that lacks with 1.
FAKE_PYTHON = """#!/usr/bin/env bash
folder=$(dirname "$0")
echo "$*" >> "$folder/commands"
case "$*" in
    "-c "*) exit "${FAKE_TOO_OLD:-0}" ;;
    --version) echo "Python 3.9.1" ;;
    *"scripts/check_requirements.py"*) [ -e "$folder/complete" ] || exit 1 ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install"*) [ -z "${FAKE_OFFLINE:-}" ] || { echo "no network"; exit 1; }; touch "$folder/complete" ;;
    *"${FAKE_FAILS:-nothing at all}"*) exit 7 ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """An interpreter that runs nothing and has everything."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "complete").touch()
    path = folder / "python"
    path.write_text(FAKE_PYTHON)
    path.chmod(0o755)
    return path


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return interpreter(tmp_path)


def launch(python: Path, *arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    """Runs launch_train.sh, from another folder than its own."""
    script = Path(main_train_vrt.__file__).with_name("launch_train.sh")
    command = [str(script), *map(str, arguments)]
    env = environment(PYTHON=python, **variables)
    return subprocess.run(command, cwd=python.parent, env=env, capture_output=True, text=True, timeout=180)


def commands(python: Path) -> list[str]:
    """What the fake interpreter was asked to run, after its checks."""
    noted = python.parent / "commands"
    lines = noted.read_text().splitlines() if noted.exists() else []
    return [line for line in lines if not re.match(r"-c |\S*scripts/check_requirements\.py", line)]


def test_help_names_every_flag(fake: Path) -> None:
    result = launch(fake, "--help")
    assert result.returncode == 0
    for part in ("GPUS", "OPTION_FILE", "--demo", "--prepare-data", "--dry-run", "--set", "PYTHON", DEFAULT):
        assert part in result.stdout
    assert not (fake.parent / "commands").exists()


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["1", "--blur=blur"], ["--blur belongs to --prepare-data"]),
        (["--demonstrate"], ["Unknown flag '--demonstrate'", "--demo", "--prepare-data"]),
        (["1", "options/nothing.json"], ["options/nothing.json", "options/"]),
        (["2", "--demo"], ["The demo is one process"]),
        (["0"], ["GPUS must be 1 or more, not '0'"]),
    ],
)
def test_mistakes_of_the_command_line(fake: Path, arguments: list[str], parts: list[str]) -> None:
    result = launch(fake, *arguments)
    assert result.returncode == 2
    assert all(part in result.stderr for part in parts), result.stderr
    assert not (fake.parent / "commands").exists()


@pytest.mark.parametrize(
    "arguments, variables, expected",
    [
        ([], {}, [f"-u main_train_vrt.py --opt {DEFAULT}"]),
        (["1", "options/demo/quickstart.json"], {}, ["-u main_train_vrt.py --opt options/demo/quickstart.json"]),
        (
            ["2", "--", "--set", "a.b=c", "d=[1, 2]"],
            {},
            [
                "-m scripts.run_ranks --standalone --nproc_per_node=2 --shutdown-timeout=120 "
                f"main_train_vrt.py --opt {DEFAULT} --set a.b=c d=[1, 2]"
            ],
        ),
        (
            ["1"],
            {"TORCHRUN_ARGS": "--max-restarts 3"},
            [
                "-m scripts.run_ranks --standalone --nproc_per_node=1 --shutdown-timeout=120 --max-restarts 3 "
                f"main_train_vrt.py --opt {DEFAULT}"
            ],
        ),
        (
            ["1"],
            {"NNODES": 2, "RDZV_ENDPOINT": "node0:29400"},
            [
                "-m scripts.run_ranks --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=node0:29400 --rdzv-id=s-vrt "
                f"--nproc_per_node=1 --shutdown-timeout=120 main_train_vrt.py --opt {DEFAULT}"
            ],
        ),
        (["8"], {"RANK": 3, "WORLD_SIZE": 16}, [f"-u main_train_vrt.py --opt {DEFAULT}"]),
        (
            ["1", "--prepare-data", "--dry-run"],
            {},
            [
                f"-m scripts.data_preparation.prepare --opt {DEFAULT}",
                f"-m scripts.doctor --no-step --opt {DEFAULT}",
                f"-u main_train_vrt.py --opt {DEFAULT} --dry-run",
            ],
        ),
        (
            ["1", "--demo", "--", "--set", "train.total_iter=3"],
            {},
            ["-u -m scripts.demo --opt options/demo/quickstart.json --set train.total_iter=3"],
        ),
        (
            ["options/demo/quickstart_voxel.json", "--demo", "--dry-run"],
            {},
            ["-u -m scripts.demo --opt options/demo/quickstart_voxel.json --dry-run"],
        ),
    ],
    ids=[
        "default",
        "option file",
        "two ranks",
        "torchrun's flags",
        "two machines",
        "platform",
        "prepare",
        "demo",
        "demo, dry",
    ],
)
def test_what_is_run(fake: Path, arguments: list[str], variables: dict[str, object], expected: list[str]) -> None:
    result = launch(fake, *arguments, **variables)
    assert result.returncode == 0 and commands(fake) == expected
    # It says how the training can be watched, once: on rank 0, where one is started.
    starts = "--dry-run" not in arguments and "--demo" not in arguments and variables.get("RANK", 0) == 0
    watch = [line for line in result.stdout.splitlines() if line.startswith("To watch it: ./svrt inspect ")]
    assert len(watch) == starts
    assert all("--serve, then http://127.0.0.1:8008" in line for line in watch)


def test_a_training_of_other_options_is_watched_by_them(fake: Path) -> None:
    words = ["1", "options/demo/quickstart.json", "--", "--set", "task=my run", "train.total_iter=2"]
    assert (
        "inspect options/demo/quickstart.json --set task=my\\ run train.total_iter=2 --serve"
        in launch(fake, *words).stdout
    )


def test_several_machines_need_a_place_to_meet(fake: Path) -> None:
    result = launch(fake, "1", NNODES=2)
    assert result.returncode != 0 and "NNODES=2 needs RDZV_ENDPOINT=host:port" in result.stderr


SLURM = {"SLURM_JOB_ID": 20123, "SLURM_JOB_NUM_NODES": 2, "SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_GPUS_ON_NODE": 4}


@pytest.mark.parametrize("preempted", [True, False])
def test_a_slurm_job_goes_back_into_the_queue_where_it_was_told_to_stop(
    fake: Path, repository: Path, preempted: bool
) -> None:
    """With stand-ins for srun and scontrol; "inspect_run --preempted" is what tells."""
    for name, text in (("srun", 'shift; exec "$@"'), ("scontrol", '[ "$1" != show ] && echo "$*" >&2 || echo gpu1')):
        (fake.parent / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (fake.parent / name).chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    fails = {} if preempted else {"FAKE_FAILS": "inspect_run"}
    variables = environment(PYTHON=fake, PATH=path, SLURM_SUBMIT_DIR=repository, **SLURM, **fails)
    command = [str(repository / "scripts/cluster/slurm.sh"), DEFAULT, "--set", "train.total_iter=9"]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and ("requeue 20123" in result.stderr) == preempted
    assert commands(fake) == [
        "-m scripts.run_ranks --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=gpu1:20123 --rdzv-id=20123 "
        f"--nproc_per_node=4 --shutdown-timeout=120 --max-restarts 3 main_train_vrt.py --opt {DEFAULT} "
        "--set train.total_iter=9",
        f"-m scripts.inspect_run {DEFAULT} --preempted --set train.total_iter=9",
    ]


def test_two_nodes_are_started_alike_and_fail_together(fake: Path, repository: Path) -> None:
    command = [str(repository / "scripts/cluster/two_nodes.sh"), "localhost", "localhost", "2", DEFAULT]
    for fails, code, options in (({}, 0, ["--dry-run"]), ({"FAKE_FAILS": "run_ranks"}, 7, ["--", "--dry-run"])):
        variables = environment(PYTHON=fake, **fails)
        assert subprocess.run([*command, *options], env=variables, capture_output=True, timeout=60).returncode == code
    expected = (
        "-m scripts.run_ranks --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=localhost:29400 --rdzv-id=s-vrt "
        f"--nproc_per_node=2 --shutdown-timeout=120 --max-restarts 3 main_train_vrt.py --opt {DEFAULT} --dry-run"
    )
    assert commands(fake) == [expected] * 4


def test_a_failure_of_the_preparation_ends_it_with_its_code(fake: Path) -> None:
    assert launch(fake, "1", "--prepare-data", FAKE_FAILS="scripts.doctor").returncode == 7
    assert len(commands(fake)) == 2


def test_the_script_is_short_and_sound(repository: Path) -> None:
    scripts = [repository / "launch_train.sh", *sorted((repository / "scripts").rglob("*.sh"))]
    assert len(scripts[0].read_text().splitlines()) < 120
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert not re.search(r"cu1\d\d|/usr/local|/home|/root", script.read_text())
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", *scripts], cwd=repository, check=True)


# The environment


def use_python(fake: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Sources scripts/environment.sh in the fake interpreter's folder and says which interpreter it chose."""
    scripts = Path(main_train_vrt.__file__).parent / "scripts"
    use = f'source "{scripts}/environment.sh"; use_python requirement.txt "$PWD"'
    text = f'set -euo pipefail; {use}; echo "chosen $PYTHON"'
    variables = {"PYTHON": fake, **variables}
    return subprocess.run(
        ["bash", "-c", text], cwd=fake.parent, env=environment(**variables), capture_output=True, text=True, timeout=60
    )


def test_an_interpreter_that_has_everything_is_used(fake: Path) -> None:
    result = use_python(fake)
    assert (result.returncode, result.stdout) == (0, f"chosen {fake}\n")
    assert commands(fake) == [] and not (fake.parent / ".venv").exists()


def test_python3_is_the_default(fake: Path) -> None:
    fake.rename(fake.with_name("python3"))
    result = use_python(fake, PYTHON="", PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert (result.returncode, result.stdout) == (0, "chosen python3\n")


def test_one_that_lacks_something_makes_an_environment_once(fake: Path) -> None:
    (fake.parent / "complete").unlink()
    result = use_python(fake)
    # The copy in .venv keeps its own list of what is installed.
    chosen = fake.parent / ".venv" / "bin" / "python"
    assert result.returncode == 0 and result.stdout.endswith(f"chosen {chosen}\n")
    assert commands(fake) == [f"-m venv {fake.parent}/.venv"]
    assert commands(chosen) == [f"-m pip install --disable-pip-version-check -r {fake.parent}/requirement.txt"]
    assert "Installing into" in result.stderr
    again = use_python(fake)
    assert (again.returncode, again.stdout) == (0, f"chosen {chosen}\n")
    assert len(commands(fake)) == len(commands(chosen)) == 1


def test_a_failed_installation_ends_it(fake: Path) -> None:
    (fake.parent / "complete").unlink()
    result = use_python(fake, FAKE_OFFLINE=1)
    assert result.returncode == 2 and "no network\nInstalling requirement.txt failed" in result.stderr
    assert "chosen" not in result.stdout


def test_an_old_or_missing_interpreter(fake: Path) -> None:
    result = use_python(fake, FAKE_TOO_OLD=1)
    assert result.returncode == 2 and "Python 3.9.1 is too old: Python 3.10" in result.stderr
    result = use_python(fake, PYTHON="no-such-python")
    assert result.returncode == 2 and "There is no 'no-such-python'" in result.stderr


# Real training

STEPS = (
    "train.total_iter=4",
    "train.G_scheduler_periods=4",
    "train.checkpoint_save=2",
    "train.checkpoint_test=2",
    "datasets.train.dataloader_batch_size=2",
    "netG.drop_path_rate=0",
    "train.fix_iter=2",
    'train.fix_keys=["spynet", "deform"]',
)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Four steps on global batches of two, in one process."""
    run = TinyRun.make(tmp_path_factory.mktemp("one"))
    assert run.train(*STEPS) == 0
    return run


def check_equal(run: TinyRun, other: TinyRun) -> None:
    """The same weights to rounding, and the same tests to the digits of the log."""
    assert close(run, other, 2, 4)
    lines, others = (
        [line.partition(" : ")[2] for line in r.log().splitlines() if "PSNR" in line][-3:] for r in (run, other)
    )
    number = r"\d+\.\d+"
    assert [re.sub(number, "", line) for line in lines] == [re.sub(number, "", line) for line in others]
    scores, other_scores = ([float(text) for text in re.findall(number, " ".join(text))] for text in (lines, others))
    assert other_scores == pytest.approx(scores, abs=0.02) and len(scores) == 12


def test_two_ranks_of_torchrun_equal_one_process(one_process: TinyRun, tmp_path: Path, real: Path) -> None:
    run = TinyRun.make(tmp_path)
    result = launch(real, 2, run.options, "--", "--set", *STEPS)
    assert result.returncode == 0, result.stderr
    assert "2 ranks on cpu" in run.log() and (run.folder / "train_rank1.log").exists()
    check_equal(one_process, run)
    best = [json.loads((r.folder / "checkpoints" / "best.json").read_text()) for r in (one_process, run)]
    assert best[0]["step"] == best[1]["step"] and best[0]["score"] == pytest.approx(best[1]["score"], abs=1e-3)


def test_two_ranks_of_a_platform_resume_a_run_of_one_process(
    one_process: TinyRun, tmp_path: Path, repository: Path
) -> None:
    """Started by hand; the ranks go on from the checkpoint of step 2."""
    run = TinyRun.make(tmp_path)
    assert run.train(*STEPS, "train.total_iter=2") == 0
    command = [sys.executable, "main_train_vrt.py", "--opt", str(run.options), "--set", *STEPS]
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [subprocess.Popen(command, cwd=repository, env=environment(RANK=rank, **shared)) for rank in (0, 1)]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    assert "Resumed from step 2" in run.log()
    check_equal(one_process, run)


def test_a_platforms_only_process_is_one_process(one_process: TinyRun, tmp_path: Path) -> None:
    run = TinyRun.make(tmp_path)
    with alone(), mock.patch.dict(os.environ, {"RANK": "0", "WORLD_SIZE": "1"}):
        assert main_train_vrt.main(["--opt", str(run.options), "--set", *STEPS]) == 0
    assert differing(one_process.weights(4), run.weights(4)) == []


def test_a_mistake_under_torchrun_has_its_code_and_message(tmp_path: Path, real: Path) -> None:
    run = TinyRun.make(tmp_path)
    result = launch(real, 2, run.options, "--", "--set", "datasets.train.dataloader_batch_size=3")
    assert result.returncode == 2
    assert result.stderr.count("3 samples per step can't be shared equally by 2 processes") == 1
    assert re.search(r"Rank \d failed first: its message is the error above, on standard error\n$", result.stderr)
    assert "Traceback" not in result.stderr and "error.json" not in result.stderr
    assert not run.folder.exists()


def plain_torchrun(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Two ranks by torchrun itself, whose summary prints what it knows of each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, *arguments]
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )


def test_a_mistake_of_all_ranks_is_told_once_by_plain_torchrun(tmp_path: Path) -> None:
    """Found after the ranks have met."""
    run = TinyRun.make(tmp_path)
    changes = ["--set", "datasets.train.dataloader_batch_size=3"]
    done = plain_torchrun(ROOT / "main_train_vrt.py", "--opt", run.options, *changes)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("3 samples per step can't be shared equally by 2 processes") == 1
    assert "exitcode  : 2" in done.stderr and done.stderr.count("Traceback") == 1  # torchrun's own


def test_a_mistake_of_one_rank_is_told_by_that_rank(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from utils.user_error import UserError\n"
        "from utils.utils_cli import run_command\n"
        "def work():\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise UserError('a.png: damaged')\n"
        "    time.sleep(120)  # ends by torchrun's SIGTERM\n"
        "sys.exit(run_command(work))\n"
    )
    done = plain_torchrun(script)
    assert "[rank 1] Error: a.png: damaged\n" in done.stderr
    assert (done.stdout + done.stderr).count("a.png: damaged") == 1


def test_a_mistake_of_one_process_has_its_code(tmp_path: Path, real: Path) -> None:
    run = TinyRun.make(tmp_path)
    result = launch(real, 1, run.options, "--", "--set", "train.total_itr=3")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ") and "did you mean 'total_iter'" in result.stderr
