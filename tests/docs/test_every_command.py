"""Every command of the READMEs and of docs/ is run by a test: that of its page, or one that is named here.

`python -m tests.docs.test_every_command` lists them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "README_zh-CN.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    "model_zoo/svrt/README.md",
]
COMMAND = r"(?:[A-Z_]+=\S+ )*(?:\./|python |torchrun |scripts/|sbatch |tensorboard )"
CHINESE = "tests/docs/test_chinese_pages.py::test_code_agrees"

PAGE_TESTS = {
    "README.md": "tests/docs/test_readme.py::test_command_runs",
    "docs/benchmark.md": "tests/docs/test_benchmark.py::test_example_and_commands",
    "docs/commands.md": "tests/docs/test_cheat_sheets.py::test_commands_are_run_by_the_tests_of_other_pages",
    "docs/data.md": "tests/data/test_data_document.py::test_commands_run",
    "docs/evaluation.md": "tests/docs/test_evaluation.py::test_commands",
    "docs/kernels.md": "tests/docs/test_kernels.py::test_commands_for_a_gpu",
    "docs/spikes_networks.md": "tests/docs/test_spikes_networks.py::test_commands_and_python_run",
    "docs/training.md": "tests/docs/test_training.py::test_command_runs",
}
"""Tests that run the blocks of a page."""

TESTS = {
    "tests/test_main_test_instants.py": {
        r"\./svrt test --task guided.* --adapt": "test_adapting_says_before_and_after",
        r"\./svrt test --task guided.* --trust": "test_trust_needs_no_sharp_frames",
        r"\./svrt test --task guided.* --times": "test_pictures_video_and_scores",
    },
    "tests/test_main_test_spikes.py": {
        r"\./svrt test --task spike_refine.* --folder_gt": "test_scores_against_sharp_frames",
        r"\./svrt test --task spike_refine.* --folder_lq": "test_tiles_with_the_frames_film",
        r"\./svrt test --task spike_refine": "test_pictures_of_a_stream_are_those_of_the_spikes_command",
    },
    "tests/scripts/test_restore.py": {
        r"\./svrt restore .* --times": "test_slow_motion",
        r"\./svrt restore ": "test_a_film_keeps_its_rate",
    },
    "tests/scripts/test_align.py": {
        r"\./svrt align ": "test_what_it_finds_is_true_and_what_it_writes_is_read",
    },
    "tests/scripts/test_align_rigs.py": {
        r"python -m scripts\.benchmark\.align_rigs": "test_two_rigs_are_found",
    },
    "tests/docs/test_testing.py": {
        r"python main_test_vrt\.py --opt options/demo": "test_commands_of_testing",
        r"python -m scripts\.benchmark\.bench_tiling": "test_tables_of_tiling",
    },
    "tests/test_main_test_inputs.py": {
        r"python main_test_vrt\.py --task guided": "test_the_light_network_restores_at_once_and_says_what_it_assumed",
    },
    "tests/docs/test_spikes.py": {
        r"python -m scripts\.spikes ": "test_commands_make_the_figures",
        r"python scripts/benchmark/\w*reconstruct": "test_benchmarks_of_the_page_are_those_tested",
    },
    "tests/scripts/test_export.py": {
        r"python -m scripts\.export .*guided\.onnx": "test_onnx_computes_the_same_at_other_sizes",
        r"python -m scripts\.export ": "test_weights_in_half_precision_load_again",
    },
    "tests/scripts/test_guided_tables.py": {
        r"python main_train_vrt\.py --opt options/svrt/train_guided_s": "test_the_ablation_trains_every_variant",
        r"python -m scripts\.benchmark\.guided_table": "test_a_row_of_the_table",
        r"python -m scripts\.benchmark\.trust_table": "test_trust_is_measured",
    },
    "tests/docs/test_spikes_networks.py": {
        r"python main_train_vrt\.py --opt options/spikling": "test_commands_and_python_run",
    },
    "tests/test_main_train.py": {
        r"python main_train_vrt\.py .*--dry-run": "test_a_dry_run_without_data_tells_memory_and_what_is_missing",
    },
    "tests/utils/test_utils_option_recipes.py": {
        r"python main_train_vrt\.py --opt options/vrt/": "test_recipes_load_and_are_read_back_equal",
    },
    "tests/scripts/test_convert_options.py": {
        r"python -m scripts\.convert_options": "test_the_option_file_is_json",
    },
    "tests/scripts/test_estimate_memory.py": {
        r"python -m scripts\.estimate_memory": "test_the_options_page_states_what_its_commands_print",
    },
    "tests/scripts/test_bench_vrt.py": {
        r"python scripts/benchmark/bench_vrt\.py": "test_commands_of_the_document",
    },
    "tests/scripts/test_gpu_check.py": {
        r"python -m scripts\.gpu_check": "test_every_step_runs",
    },
    "tests/scripts/test_compare_branches.py": {
        r"python -m scripts\.compare_branches": "test_tables_say_what_the_tester_measures",
    },
    "tests/scripts/test_benchmark_restoration.py": {
        r"python -m scripts\.benchmark_restoration .*--audit": "test_audit_finds_a_test_frame_in_a_training_set",
        r"python -m scripts\.benchmark_restoration .*--opt": "test_networks_of_option_files",
    },
    "tests/scripts/test_simulate_dataset.py": {
        r"python -m scripts\.data_preparation\.simulate_dataset +#": "test_the_layout_is_that_of_the_gopro_set",
        r"python .*simulate_dataset --video": "test_the_command_makes_spikes_of_a_real_video",
    },
}
"""Tests that run commands of other places, with small data, by file and by the beginning of the command."""


def commands(page: str) -> Iterator[tuple[str, bool]]:
    """The commands of a page, and whether each is in a fenced block."""
    text = re.sub(r" *\\\n *", " ", (ROOT / page).read_text(encoding="utf-8"))
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for line in filter(None, map(str.strip, block.splitlines())):
            if not line.startswith("#"):
                yield line, True
    for line in re.findall(rf"(?m)^    ({COMMAND}.*)$", re.sub(r"(?ms)^```.*?^```$", "", text)):
        yield line, False


def runner(page: str, command: str, fenced: bool) -> str | None:
    """The test that runs a command; None if there is none."""
    if page.endswith("_zh-CN.md"):
        return CHINESE  # the same commands as the English page
    if fenced and page in PAGE_TESTS:
        return PAGE_TESTS[page]
    for file, tests in TESTS.items():
        for beginning, name in tests.items():
            if re.match(beginning, command):
                return f"{file}::{name}"
    return None


def every_command() -> list[tuple[str, str, str | None]]:
    """Page, command and test."""
    return [(page, command, runner(page, command, fenced)) for page in PAGES for command, fenced in commands(page)]


def test_every_command_is_run_by_a_test() -> None:
    listed = every_command()
    assert [(page, command) for page, command, test in listed if test is None] == []
    assert len(listed) > 150


def test_the_tests_exist_and_are_needed() -> None:
    used = {test for _, _, test in every_command()}
    others = [f"{file}::{name}" for file, tests in TESTS.items() for name in tests.values()]
    for test in [CHINESE, *PAGE_TESTS.values(), *others]:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), test
        assert test == CHINESE or test in used, test


if __name__ == "__main__":
    for page, command, test in every_command():
        print(f"{page}: {command}\n    {test}")
