"""Every benchmark runs, small, and prints one line of JSON."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import growth, record

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
    "search_step": ["--channels=4", "--cells=1", "--location=no_attention"],
    "network_step": ["--channels=8", "--cells=5"],
    "inference": ["--channels=4", "--cells=3"],
    "input_pipeline": ["--batch=8"],
}


def test_every_benchmark_is_run_here():
    files = {file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py")}
    # What `growth` runs is `search_step`; `record` times nothing.
    assert files - {"measure", "growth", "record"} == set(SMALL)


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


def test_record_keeps_the_figures_and_the_curves_of_a_run(
    tmp_path, monkeypatch, capsys
):
    training = tmp_path / "run" / "training" / "repeat-0"
    training.mkdir(parents=True)
    table = "epoch,accuracy,loss,seconds\n0,0.25,2.0,30.0\n1,0.5,1.0,40.0\n"
    (training / "history.csv").write_text(table)
    evaluation = tmp_path / "run" / "evaluation"
    evaluation.mkdir()
    (evaluation / "result.json").write_text('{"mean": 0.4567}')
    folder = tmp_path / "kept"
    folder.mkdir()
    # Of another run, which must not be mistaken for this one's.
    (folder / "search.csv").write_text(table)
    arguments = [f"--workdir={tmp_path / 'run'}", f"--folder={folder}"]
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    record.main()
    assert capsys.readouterr().out.splitlines() == [
        "training: 2 epochs in 1 min 10 s",
        "test accuracy: 45.67 %",
    ]
    assert (folder / "training.csv").read_text() == table
    assert not (folder / "search.csv").exists()
    loss, accuracy = record.draw({"training": record.read(
        folder / "training.csv"
    )}).axes
    assert list(loss.lines[0].get_ydata()) == [2.0, 1.0]
    assert list(accuracy.lines[0].get_ydata()) == [25.0, 50.0]
