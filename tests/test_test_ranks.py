"""main_test_vrt.py on two ranks: clips are dealt out, one report of all; it equals that of one process."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local_ranks import free_port
from tests.tiny import TinyRun, environment

pytestmark = pytest.mark.slow


def test_two_ranks_make_the_report_of_one(tmp_path: Path, repository: Path) -> None:
    run = TinyRun.make(tmp_path)
    assert run.train("train.total_iter=1", "datasets.test=null") == 0
    assert run.test("--save_result") == 0
    one = run.metrics()
    place = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    flags = ["--opt", run.options, "--output", tmp_path / "two", "--save_result"]
    command = [sys.executable, "main_test_vrt.py", *map(str, flags)]
    ranks = [
        subprocess.Popen(
            command, cwd=repository, env=environment(RANK=rank, **place), stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    printed = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    clips = sorted(folder.name for folder in run.test_data.lq.iterdir())
    restored = [line for text in printed for line in text.splitlines() if line.startswith("restored test_clip")]
    assert sorted(restored) == [f"restored {clip}: 2 frames" for clip in clips]
    assert "report: " in printed[0] and "report: " not in printed[1]
    run = TinyRun(run.options, run.folder, tmp_path / "two", run.train_data, run.test_data)
    assert run.metrics() == one
    page = (tmp_path / "two" / "tiny" / "index.html").read_text()
    assert all(clip in page for clip in clips)
