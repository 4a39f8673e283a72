"""Where a process stands, and what ranks say to each other: alone, as two gloo processes, under torchrun."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils import utils_dist
from utils.utils_dist import (
    Dist,
    Launch,
    all_gather_object,
    all_reduce_sum,
    any_rank,
    broadcast_object,
    check_same_weights,
    close_dist,
    first_host,
    init_dist,
    read_launch,
)

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**variables: object) -> dict[str, str]:
    """This process's environment without a launcher's variables, and with the given ones."""
    kept = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    return {**kept, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in variables.items()}}


def check_two_ranks(folder: Path) -> None:
    """What dist_worker.py must have written on two ranks."""
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [item["dist"] for item in found] == [[0, 2, 0, "cpu", True], [1, 2, 1, "cpu", False]]
    for item in found:
        assert item["sum"] == [3.0, 2e-17, 2.0**53]
        assert item["sum_dtype"] == "torch.float64"
        assert item["any"] == [False, True, True, True]
        assert item["main"] == ["rank 0", "error: rank 0 failed"]
        assert item["broadcast"] == {"from": 0}
        assert item["gather"] == ["ab", "abab"]
        assert item["same"] == ""  # buffers may differ
        assert "1 of 4 parameters" in item["different"] and ": 0.weight." in item["different"]


def test_two_processes_started_by_a_platform(tmp_path: Path, repository: Path) -> None:
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, "-m", "tests.utils.dist_worker", str(tmp_path)]
    ranks = [
        subprocess.Popen(command, cwd=repository, env=environment(RANK=rank, LOCAL_RANK=rank, **shared))
        for rank in (0, 1)
    ]
    try:
        assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    check_two_ranks(tmp_path)


@pytest.mark.slow
def test_torchrun_restarts_a_dead_worker(tmp_path: Path, repository: Path) -> None:
    """Without TORCH_DISABLE_SHARE_RDZV_TCP_STORE restarted workers hang, unless attempts have keys of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    command += ["-m", "tests.utils.dist_worker", str(tmp_path), "crash"]
    variables = {key: v for key, v in environment().items() if key != "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"}
    subprocess.run(command, cwd=repository, env=variables, timeout=120, check=True)
    check_two_ranks(tmp_path)


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    dist = init_dist("cpu")
    assert dist == Dist(0, 1, 0, torch.device("cpu")) and dist.is_main
    assert all_reduce_sum([0.5, 2], dist).tolist() == [0.5, 2.0]
    assert not any_rank(False, dist) and any_rank(True, dist)
    assert broadcast_object("x", dist) == "x"
    assert all_gather_object("x", dist) == ["x"]
    check_same_weights(torch.nn.Linear(2, 2), dist)
    close_dist()


def test_sums_do_not_share_memory_with_their_input() -> None:
    values = torch.ones(3, dtype=torch.float64)
    all_reduce_sum(values, Dist(0, 1, 0, torch.device("cpu"))).zero_()
    assert values.tolist() == [1, 1, 1]


def test_the_environment_is_read() -> None:
    meeting = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert read_launch({}) is None
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5"}) is None  # batch script, no srun
    assert read_launch({"RANK": "0", "WORLD_SIZE": "1"}) == Launch(0, 1, 0, "env://", "platform")
    platform = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", **meeting}
    assert read_launch(platform) == Launch(9, 16, 1, "env://", "platform")
    assert read_launch({**platform, "TORCHELASTIC_RUN_ID": "x"}) == Launch(9, 16, 1, "env://", "torchrun")
    srun = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "20123"}
    srun["SLURM_STEP_NODELIST"] = "gpu[07-08]"
    assert read_launch(srun) == Launch(3, 4, 1, "tcp://gpu07:20123", "SLURM")
    assert read_launch({**srun, **meeting}) == Launch(3, 4, 1, "tcp://node0:29500", "SLURM")


@pytest.mark.parametrize(
    "nodelist, host",
    [("a1", "a1"), ("a1,b2", "a1"), ("gpu[07-09,12],x", "gpu07"), ("n[3,5]-ib", "n3-ib"), ("c-1-[2]", "c-1-2")],
)
def test_first_host_of_a_slurm_list(nodelist: str, host: str) -> None:
    assert first_host(nodelist) == host


@pytest.mark.parametrize(
    "environ, message",
    [
        ({"RANK": "0"}, "lacks WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x"}, "lacks MASTER_PORT"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "rank 2 of 2"),
        ({"RANK": "zero", "WORLD_SIZE": "1"}, "RANK='zero'"),
    ],
)
def test_a_contradictory_environment_is_explained(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_launch(environ)


def test_every_process_gets_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(local_rank: int, gpus: int, launcher: str, device: str | None = None) -> str:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return str(utils_dist._choose_device(Launch(local_rank, 8, local_rank, "env://", launcher), device))

    assert chosen(3, 8, "torchrun") == "cuda:3"
    assert chosen(3, 1, "SLURM") == "cuda:0"  # srun shows each task its own GPU alone
    assert chosen(3, 0, "torchrun") == "cpu"
    assert chosen(3, 8, "torchrun", "cpu") == "cpu"
    with pytest.raises(ValueError, match="there are 2; start at most 2"):
        chosen(2, 2, "torchrun")
    with pytest.raises(ValueError, match="there are 1"):
        chosen(1, 1, "torchrun")
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
        chosen(0, 1, "torchrun", "cuda:0")
