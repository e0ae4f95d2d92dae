"""Every benchmark runs, small, and prints one line of JSON."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
    "search_step": ["--channels=4", "--cells=1", "--location=no_attention"],
    "network_step": ["--channels=8", "--cells=5"],
    "inference": ["--channels=4", "--cells=3"],
    "input_pipeline": ["--batch=8"],
}


def test_every_benchmark_is_run_here():
    files = {file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py")}
    assert files - {"measure"} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_figures(name):
    result = subprocess.run(
        [
            *(sys.executable, "-m", f"benchmarks.{name}", "--steps=2"),
            *SMALL[name],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["benchmark"] == name
    assert figures["images_per_second"] > 0
    assert figures["peak_memory_gb"] > 0
    assert figures["dtype"] == "float32"
    if name.endswith("_step"):
        seconds = figures["seconds_per_step"]
        assert seconds["minimum"] <= seconds["median"] <= seconds["maximum"]
        assert figures["seconds_to_first_step"] > seconds["median"]
        # The first step and those that are timed.
        assert len(figures["losses"]) == 3
        assert figures["graph_nodes"] > 1000
