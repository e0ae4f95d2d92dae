"""A whole run: interrupted anywhere, it ends as if it had not been."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

CONFIG = pathlib.Path(__file__).with_name("tiny.py")
PROGRAM = [sys.executable, "-m", "att_darts_tf"]
STAGES = ("prepare", "search", "select", "train", "evaluate")
PATIENCE = 600


def command(stage, folder):
    return [*PROGRAM, stage, f"--config={CONFIG}", f"--workdir={folder}"]


def run(stage, folder):
    result = subprocess.run(
        command(stage, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def stop_once_there_is(file, folder, number):
    """Sends a signal when a file has appeared; returns the exit status."""
    assert not file.exists()
    with open(folder.with_suffix(".log"), "a") as log:
        process = subprocess.Popen(
            command("pipeline", folder),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    begun = time.monotonic()
    while not file.exists():
        assert process.poll() is None, folder.with_suffix(".log").read_text()
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.02)
    return signal_to(process, number, timeout=120)


def signal_to(process, number, *, timeout):
    """Sends a signal to a pipeline in a session of its own; returns its status.

    SIGKILL goes to all of its processes, another to the first.
    """
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.wait(timeout=timeout)


def figures(folder):
    """Returns a folder's records without what time has to do with."""

    def timeless(value):
        if isinstance(value, dict):
            return {
                name: timeless(item)
                for name, item in value.items()
                if not has_to_do_with_time_or_place(name)
            }
        if isinstance(value, list):
            return [timeless(item) for item in value]
        return value

    return {
        file.relative_to(folder).as_posix(): timeless(
            json.loads(file.read_text())
        )
        for stage in ("data", "search", "selection", "training", "evaluation")
        for file in sorted((folder / stage).rglob("*.json"))
    }


def has_to_do_with_time_or_place(name):
    # Digests are of files that say when they were written: results tell the
    # seconds, and a `.keras` file its date.
    return name in ("seconds", "genotype_file", "result") or name.startswith(
        "model_"
    )


def table(output):
    """Returns what a run prints when it is done."""
    return output[output.index("\n----") :]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A pipeline that was stopped in a search, a selection and a training."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    for stage, number, status in (
        ("search/seed-3", signal.SIGKILL, -signal.SIGKILL),
        ("selection/candidate-1", signal.SIGTERM, 143),
        ("training/repeat-1", signal.SIGKILL, -signal.SIGKILL),
    ):
        record = folder / stage / "checkpoints" / "checkpoint"
        assert stop_once_there_is(record, folder, number) == status
        # Between two steps of the first epoch.
        assert not (folder / stage / "genotype.json").exists()
        assert not (folder / stage / "result.json").exists()
    return folder, run("pipeline", folder)


@pytest.fixture(scope="module")
def by_stages(tmp_path_factory):
    """The same run, stage by stage and in peace; and what each printed."""
    folder = tmp_path_factory.mktemp("runs") / "by-stages"
    return folder, {stage: run(stage, folder) for stage in STAGES}


@pytest.mark.slow
class TestRun:
    def test_ends_with_the_figures_of_an_uninterrupted_one(
        self, interrupted, by_stages
    ):
        folder, _ = interrupted
        expected = figures(by_stages[0])
        assert figures(folder) == expected
        assert "search/seed-5/genotype.json" in expected
        assert "evaluation/result.json" in expected

    def test_stages_say_what_they_take_before_and_after(
        self, interrupted, by_stages
    ):
        _, of_pipeline = interrupted
        _, outputs = by_stages
        memory = r"takes about \d+\.\d GB of memory of \d+\.\d GB free"
        time_of = r"takes about \d+ (?:s|min)"
        labels = {
            "prepare": ("prepare",),
            "search": ("search, seed 3", "search, seed 5"),
            "select": (
                "selection, candidate 1 of 2",
                "selection, candidate 2 of 2",
            ),
            "train": ("training, seed 0", "training, seed 1"),
            "evaluate": ("evaluation",),
        }
        for stage, output in outputs.items():
            for label in labels[stage]:
                assert re.search(f"^{label}: {memory}$", output, re.M), output
                assert re.search(f"^{label}: {time_of}", output, re.M), output
            assert re.search(f"^{stage} took .* GB of memory$", output, re.M)
        assert re.search(f"export: {memory}\n +export: {time_of}", of_pipeline)
        # Of each task that ended, those that were killed aside.
        assert of_pipeline.count("the task took") >= 5

    def test_same_command_again_is_quick_and_does_nothing(self, interrupted):
        folder, first = interrupted
        before = {
            file: file.stat().st_mtime_ns
            for file in folder.rglob("*")
            if file.is_file() and "pipeline" not in file.parts
        }
        begun = time.monotonic()
        again = run("pipeline", folder)
        assert time.monotonic() - begun < 30
        assert again.count("cache hit") == 8
        assert again.count("Executing task") == 1
        assert table(again) == table(first)
        for file, changed in before.items():
            assert file.stat().st_mtime_ns == changed, file

    def test_prints_the_candidates_and_what_became_of_them(self, interrupted):
        folder, output = interrupted
        selection = json.loads((folder / "selection/result.json").read_text())
        for candidate in selection["candidates"]:
            assert f"Candidate, seed {candidate['seed']} " in output
        assert selection["reason"] in output
        assert "500 images, 2 trainings" in output
        for place in ("export/att_darts/1", "report/report.html"):
            assert str(folder / place) in output
            assert (folder / place).exists()

    def test_prints_a_command_that_classifies_an_image(self, interrupted):
        folder, output = interrupted
        line = output.splitlines()[-1]
        image = folder / "report" / "normal.png"
        result = subprocess.run(
            shlex.split(line.replace("IMAGE", str(image))),
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{image}: ")
        assert result.stdout.endswith(" %\n")

    def test_every_stage_says_what_it_was_made_from(self, interrupted):
        folder, _ = interrupted
        records = {
            file.parent.relative_to(folder).as_posix(): json.loads(
                file.read_text()
            )
            for file in folder.rglob("lineage.json")
        }
        assert set(records) == {
            "data",
            "search/seed-3",
            "search/seed-5",
            "selection",
            "training/repeat-0",
            "training/repeat-1",
            "evaluation",
            "export",
            "report",
        }
        for place, record in records.items():
            assert record["made_from"]["code"], place
            assert record["made_from"]["config"], place
            assert record["packages"]["tensorflow"], place
