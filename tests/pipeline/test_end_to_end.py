"""A whole run: interrupted anywhere, it ends as if it had not been."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

CONFIG = pathlib.Path(__file__).with_name("tiny.py")
PROGRAM = [sys.executable, "-m", "att_darts_tf"]
STAGES = ("prepare", "search", "select", "train", "evaluate")
PATIENCE = 600


def command(stage, folder, *settings):
    return [
        *(*PROGRAM, stage, f"--config={CONFIG}", f"--workdir={folder}"),
        *settings,
    ]


def run(stage, folder, *settings):
    result = subprocess.run(
        command(stage, folder, *settings),
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
    return name in (
        *("seconds", "genotype_file", "result", "ended", "resumed"),
        *("reads", "ancestors", "files"),
    ) or name.startswith("model_")


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


def executed(output):
    """Returns the tasks that ran, without their numbers, in order."""
    # Without a console of ours, names are coloured.
    plain = re.sub(r"\x1b\[\d+m", "", output)
    found = re.findall(r"Executing task '([a-z]+)[-\d]*'", plain)
    return sorted(found)


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
        # The images are looked at, and so is what the page shows.
        assert again.count("cache hit") == 7
        assert executed(again) == ["prepare", "report"]
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
            "selection/candidate-0",
            "selection/candidate-1",
            "training/repeat-0",
            "training/repeat-1",
            "evaluation",
            "export",
            "export/att_darts/1/assets.extra",
            "report",
        }
        for place, record in records.items():
            assert record["made_from"]["code"], place
            assert record["made_from"]["config"], place
            assert record["packages"]["tensorflow"], place
            assert record["seconds"] > 0, place
            assert record["machine"]["device"], place
        assert records["training/repeat-1"]["resumed"]
        assert not records["training/repeat-0"]["resumed"]

    def test_model_that_was_copied_tells_what_it_was_made_from(
        self, interrupted, tmp_path
    ):
        folder, _ = interrupted
        copy = shutil.copytree(
            folder / "export/att_darts/1", tmp_path / "served"
        )
        result = subprocess.run(
            [*PROGRAM, "lineage", copy], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        stages = re.findall(r"^\w+$", result.stdout, re.M)
        assert stages[0] == "export"
        assert sorted(stages[1:]) == [
            *("evaluate", "prepare", "search", "search", "select"),
            *("train", "train"),
        ]
        seeds = re.findall(r"^  seed +(\d+)$", result.stdout, re.M)
        assert sorted(seeds) == ["0", "1", "3", "5"]
        images = json.loads((folder / "training/repeat-0/identity.json")
                            .read_text())["data"]["digest"]
        # Of every stage but the report.
        assert result.stdout.count(f"  images      {images}") == 8
        assert "network.epochs=2" in result.stdout


OTHER = pathlib.Path(__file__).with_name("other.py")
BRANCHES = ("--config.pipeline.baselines=random",
            f"--config.pipeline.targets={OTHER}")


@pytest.fixture(scope="module")
def compared(by_stages):
    """The run by stages, whose pipeline then adds a baseline and a target."""
    folder, _ = by_stages
    before = {
        file: file.stat().st_mtime_ns
        for stage in ("search", "selection", "training", "evaluation")
        for file in (folder / stage).rglob("*.json")
    }
    return folder, before, run("pipeline", folder, *BRANCHES)


# What runs a compiled file here: nothing of the library but what tasks import.
RUNNER = """
import sys
from kfp import components, local

local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
components.load_component_from_file(sys.argv[1])()
"""


@pytest.mark.long
class TestBranches:
    def test_leave_what_the_run_has_done(self, compared):
        _, before, _ = compared
        for file, changed in before.items():
            assert file.stat().st_mtime_ns == changed, file

    def test_are_runs_of_their_own(self, compared):
        folder, _, output = compared
        random, other = folder / "baselines/random", folder / "targets/other"
        chosen = json.loads((folder / "selection/genotype.json").read_text())
        for place, cells in ((random, None), (other, chosen)):
            for repeat in range(2):
                identity = json.loads(
                    (place / f"training/repeat-{repeat}/identity.json")
                    .read_text()
                )
                assert (identity["genotype"] == cells) == (place == other)
        drawn = {
            (random / f"search/seed-{seed}/genotype.json").read_text()
            for seed in (3, 5)
        }
        assert len(drawn) == 2
        shape = json.loads((other / "data/dataset.json").read_text())
        assert shape["image_shape"] == [9, 9, 3]
        assert not (random / "data").exists()
        assert "Cells drawn at random" in table(output)
        assert str(OTHER) in table(output)

    def test_are_compared_in_the_report(self, compared):
        folder, _, _ = compared
        page = (folder / "report/report.html").read_text()
        assert "With other cells" in page
        assert "The same cells on other images" in page

    def test_take_commands_of_single_stages(self, compared):
        folder, _, _ = compared
        output = run("evaluate", folder / "targets/other",
                     f"--config={OTHER}")
        assert "Test accuracy" in output

    def test_compiled_file_runs_elsewhere(self, compared, tmp_path):
        folder, _, _ = compared
        file = tmp_path / "pipeline.yaml"
        output = run("pipeline", folder, f"--compile_to={file}")
        assert output == f"Compiled: {file}\n"
        results = {
            name: (folder / name / "result.json").read_text()
            for name in ("search/seed-3", "training/repeat-1", "evaluation")
        }
        (folder / "report/report.html").unlink()
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, file, tmp_path / "root"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        assert executed(done.stdout) == [
            *("evaluate", "export", "prepare", "report"),
            *("search", "search", "select", "train", "train"),
        ]
        # The folders know what has been done, whoever asks.
        for name, text in results.items():
            assert (folder / name / "result.json").read_text() == text
        assert (folder / "report/report.html").exists()

    def test_what_is_stale_is_done_again_and_nothing_else(self, compared):
        folder, _, _ = compared
        settings = (
            "--config.network.momentum=0.5",
            "--config.export.least_accuracy=0.99",
        )
        refused = subprocess.run(
            command("pipeline", folder, *settings),
            capture_output=True,
            text=True,
        )
        assert refused.returncode == 2
        assert "--replace" in refused.stderr
        output = run("pipeline", folder, *settings, "--replace")
        assert executed(output) == [
            *("evaluate", "prepare", "report", "train", "train")
        ]
        assert "none, for less than 99.00 %" in table(output)
        assert (folder / "training/repeat-0/replaced-1/model.keras").exists()
        # Back: what the cache says of the first run is no longer so.
        settings = ("--config.export.least_accuracy=0.01",)
        output = run("pipeline", folder, *settings, "--replace")
        assert executed(output) == [
            *("evaluate", "export", "prepare", "report", "train", "train")
        ]
        identity = json.loads(
            (folder / "training/repeat-0/identity.json").read_text()
        )
        assert identity["config"]["network"]["momentum"] == 0.9
        assert str(folder / "export/att_darts/1") in table(output)
