"""Every benchmark runs, small, and prints one line of JSON."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import growth

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
    "search_step": ["--channels=4", "--cells=1", "--location=no_attention"],
    "network_step": ["--channels=8", "--cells=5"],
    "inference": ["--channels=4", "--cells=3"],
    "input_pipeline": ["--batch=8"],
}


def test_every_benchmark_is_run_here():
    files = {file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py")}
    # What the last one runs is `search_step`.
    assert files - {"measure", "growth"} == set(SMALL)


def test_growth_shows_all_that_it_says_to_have_measured():
    measured = growth.read(ROOT / "docs/growth/steps.jsonl")
    lines = growth.table(measured).splitlines()[2:]
    points = sum(map(len, growth.VARIED.values()))
    assert len(lines) == points + len(growth.OTHERS)
    drawn = 0
    for axis in growth.draw(measured).axes:
        heights = [y for line in axis.lines for y in line.get_ydata()]
        heights += [bar.get_height() for bar in axis.patches]
        low, high = axis.get_ylim()
        assert low == 0 < min(heights) <= max(heights) <= high
        drawn += len(heights)
    # Three rows of them.
    assert drawn == 3 * points


def figures_of(name, *flags):
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--steps=2", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_input_pipeline_is_measured_on_files_of_real_size():
    figures = figures_of(
        "input_pipeline", "--augmentation=resized_crop", "--batch=8"
    )
    assert figures["image_shape"] == [224, 224, 3]
    assert figures["images_per_second"] > 0
    assert figures["images_per_second_of_a_core"] > 0


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_prints_its_figures(name):
    figures = figures_of(name, *SMALL[name])
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
