"""The command line: help, refusals and what a work directory remembers."""

import contextlib
import dataclasses
import errno
import fcntl
import importlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

from att_darts_tf import __main__ as command_line
from att_darts_tf import settings
from att_darts_tf.configs import base
from att_darts_tf.engine import lineage, preemption, stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network.network import Network


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: str
    errors: str


def run(*arguments):
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        status = command_line.main([str(argument) for argument in arguments])
    return Outcome(status, output.getvalue(), errors.getvalue())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def searched(monkeypatch):
    """Replaces the search by a record of the configurations it was given."""
    calls = []

    def stage(command, folders):
        calls.append(command.config)
        return ["searched"]

    monkeypatch.setitem(
        command_line.STAGES,
        "search",
        dataclasses.replace(command_line.STAGES["search"], run=stage),
    )
    return calls


def assert_refused(outcome, *words):
    """Checks for one line on standard error, and status 2."""
    assert outcome.status == 2
    assert outcome.output == ""
    assert outcome.errors.count("\n") == 1, outcome.errors
    assert outcome.errors.startswith("att-darts: ")
    for word in words:
        assert word in outcome.errors


class TestHelp:
    def test_help_lists_stages_options_and_configurations(self):
        outcome = run("--help")
        assert outcome.status == 0
        for name in (*command_line.STAGES, *settings.shipped()):
            assert f"\n  {name}" in outcome.output
        assert "--workdir=" in outcome.output

    @pytest.mark.parametrize("stage", command_line.STAGES)
    def test_stage_lists_the_settings_that_it_heeds(self, stage):
        outcome = run(stage, "--help")
        assert outcome.status == 0
        sections = command_line.STAGES[stage].settings
        for name in settings.SETTINGS:
            heeded = name in sections or name.split(".")[0] in sections
            assert (f"--config.{name}=" in outcome.output) == heeded

    def test_shows_the_defaults_of_the_named_configuration(self):
        assert "--config.search.seeds=0,1,2,3\n" in run("search", "-h").output
        outcome = run("search", "--config=demo", "--help")
        assert "--config.search.seeds=0,1\n" in outcome.output

    def test_lines_fit_a_terminal(self):
        for arguments in [[], *([stage] for stage in command_line.STAGES)]:
            lines = run(*arguments, "--help").output.splitlines()
            assert max(map(len, lines)) <= 80, max(lines, key=len)

    @pytest.mark.parametrize("arguments", [[], ["search"]])
    def test_answers_within_a_second(self, arguments):
        command = [sys.executable, "-m", "att_darts_tf", *arguments, "--help"]
        seconds = []
        # A loaded machine may disturb one; the quickest of three counts.
        for _ in range(3):
            begun = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.monotonic() - begun)
        assert min(seconds) < 1.0

    def test_help_on_an_unknown_stage_is_refused(self):
        assert_refused(run("serch", "--help"), "'serch'", "'search'")


class TestDoctor:
    def test_shows_versions_devices_and_the_time_of_a_step(self):
        result = subprocess.run(
            [sys.executable, "-m", "att_darts_tf", "doctor"],
            check=True,
            capture_output=True,
            text=True,
        )
        for words in ("Python 3.", "tensorflow 2.", "GPU", " cores, "):
            assert words in result.stdout
        last = result.stdout.splitlines()[-1]
        seconds = re.search(r"([\d.]+) s for the .* ([\d.]+) s \(", last)
        first, step = map(float, seconds.groups())
        assert first > step > 0

    def test_takes_nothing_else(self):
        assert_refused(run("doctor", "--config=demo"), "'config'")
        assert_refused(run("doctor", "now"), "nothing after doctor", "now")


class TestTools:
    @pytest.mark.parametrize("name", command_line.TOOLS)
    def test_help_shows_its_purpose(self, name):
        outcome = run(name, "--help")
        assert outcome.status == 0
        assert command_line.TOOLS[name].purpose in outcome.output
        assert f"\n  {name}" in run("--help").output
        assert max(map(len, outcome.output.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["cost"], ["one name", "nothing"]),
            (["cost", "att_darts", "darts_v2"], ["att_darts darts_v2"]),
            (["cost", "att_dart"], ["Did you mean 'att_darts'?"]),
            (["cost", "densenet"], ["Did you mean 'densenet_bc'?"]),
            (["cost", "none.json"], ["none.json"]),
            (["cost", "model.keras"], ["model.keras, a trained network"]),
            (["cost", "att_darts", "--chanels=3"], ["channels?"]),
            (["cost", "att_darts", "--channels=0"], ["--channels=0"]),
            (["cost", "att_darts", "--cells=few"], ["--cells=few"]),
            (["cost", "att_darts", "--image_size=7"], ["--image_size=7"]),
            (["cost", "att_darts", "--stem=big"], ["small|imagenet"]),
            (["cells", "darts_v3"], ["Did you mean 'darts_v2'?"]),
            (["cells", "darts_v1", "darts_v2"], ["darts_v1 darts_v2"]),
            (["cells", "densenet_bc"], ["without cells"]),
            (["cells", "--tabel"], ["table?"]),
            (["cells", "--table", "darts_v2"], ["--table alone"]),
            (["cells", "--output=x"], ["the name of a cell"]),
            (["cel"], ["'cells'"]),
        ],
    )
    def test_mistakes_are_refused(self, arguments, words):
        assert_refused(run(*arguments), *words)

    def test_cells_are_listed_drawn_and_compared(self, tmp_path):
        assert "att_darts" in run("cells").output
        assert "486,244,480" in run("cells", "--table").output
        outcome = run("cells", "att_darts", f"--output={tmp_path}")
        assert outcome.status == 0
        assert "sep_conv_3x3+DoubleAttention(0)" in outcome.output
        assert (tmp_path / "att_darts-normal.svg").exists()

    def test_cost_is_a_table(self):
        result = subprocess.run(
            [
                *(sys.executable, "-m", "att_darts_tf", "cost", "darts_v2"),
                *("--channels=4", "--cells=3", "--image_size=8"),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        head, *rows = result.stdout.splitlines()
        assert head.startswith("3 cells, 4 channels, stem small, images of 8 x")
        assert len(rows) == 6
        assert result.stderr == ""


class TestWithoutCells:
    def test_what_only_cells_have_is_refused_with_the_flags(self, folder):
        given = ["--config=cifar", f"--workdir={folder}"]
        cell = "--config.network.cell=densenet_bc"
        flags = (
            "--config.network.auxiliary_weight=0 --config.network.drop_path=0"
        )
        outcome = run("train", *given, cell)
        assert_refused(outcome, "auxiliary_weight", flags)
        outcome = run("train", *given, cell, flags.split()[0])
        assert_refused(outcome, "config.network.drop_path=0 beside", flags)
        # What remains is the order of stages.
        outcome = run("train", *given, cell, *flags.split())
        assert_refused(outcome, "dataset.json")


class TestMemory:
    def test_a_search_that_does_not_fit_is_refused_and_may_be_changed(
        self, folder, monkeypatch
    ):
        from att_darts_tf import memory

        given = ("--config=demo", f"--workdir={folder}")
        assert run("prepare", *given).status == 0
        monkeypatch.setattr(memory, "available", lambda: 0.5)
        # A machine with a GPU is not refused.
        monkeypatch.setattr(memory.glob, "glob", lambda pattern: [])
        assert_refused(run("search", *given), "0.5 GB")
        # Of another search, which has not begun either.
        other = run("search", *given, "--config.search.batch_size=4")
        assert_refused(other, "0.5 GB")


    def test_searches_of_a_pipeline_are_those_of_its_baselines_too(
        self, folder, monkeypatch
    ):
        from att_darts_tf import memory
        from att_darts_tf.pipeline import main

        monkeypatch.setattr(memory, "available", lambda: 0.5)
        monkeypatch.setattr(memory.glob, "glob", lambda pattern: [])
        monkeypatch.setattr(main, "run_pipeline", lambda *_: ["run"])
        given = ("pipeline", "--config=demo", f"--workdir={folder}")
        assert_refused(run(*given), "0.5 GB")
        given += ("--config.network.cell=att_darts",)
        baselines = "--config.pipeline.baselines="
        assert run(*given, f"{baselines}random").status == 0
        assert_refused(run(*given, f"{baselines}no_attention"), "0.5 GB")


class TestSettingsTable:
    def test_describes_every_field_and_no_other(self):
        names = {name for name, _ in settings.flatten(base.get_config())}
        assert set(settings.SETTINGS) == names

    @pytest.mark.parametrize("name", settings.shipped())
    def test_allows_what_is_shipped(self, name):
        settings.validate(settings.load(name))

    def test_allows_the_variants(self):
        config = settings.load("cifar:cifar100")
        settings.validate(config)
        assert config.data.name == "cifar100"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("data.name", ""),
            ("data.image_size", (32,)),
            ("data.image_size", (32, 0)),
            ("data.channels", 2),
            ("data.channels", True),
            ("data.test_fraction", 0.0),
            ("data.test_fraction", 1.0),
            ("data.padding", -1),
            ("data.augmentation", "crop"),
            ("data.crop_area", (0.5,)),
            ("data.crop_area", (0.0, 1.0)),
            ("data.crop_area", (0.5, 0.4)),
            ("data.crop_area", (0.5, 1.1)),
            ("data.color_jitter", (0.4, 0.4, 0.4)),
            ("data.color_jitter", (0.4, -0.1, 0.4, 0.2)),
            ("data.color_jitter", (0.4, 0.4, 0.4, 0.6)),
            ("data.evaluation_resize", 0),
            ("engine.checkpoint_steps", -1),
            ("engine.strategy", "parameter_server"),
            ("engine.replicas", -1),
            ("search.seeds", ()),
            ("search.seeds", (1, 1)),
            ("search.seeds", (-1,)),
            ("search.seeds", ("a",)),
            ("search.cells", 0),
            ("search.channels", 0),
            ("search.epochs", -3),
            ("search.epochs", 0),
            ("search.batch_size", 0),
            ("search.learning_rate", 0.0),
            ("search.learning_rate", float("nan")),
            ("search.learning_rate", float("inf")),
            ("search.final_learning_rate", -0.1),
            ("search.momentum", 1.0),
            ("search.weight_decay", -1e-3),
            ("search.clip_norm", 0.0),
            ("search.architecture_betas", (0.5,)),
            ("search.architecture_betas", (0.5, 1.0)),
            ("selection.batch_size", 0),
            ("network.drop_path", 1.0),
            ("network.auxiliary_weight", -0.4),
            ("network.cutout", -1),
            ("repeats", 0),
            ("export.name", ""),
            ("export.name", ".."),
            ("export.name", "a/b"),
            ("export.name", "a model"),
            ("export.name", "a\n"),
            ("export.name", "größe"),
            ("export.name", 101 * "a"),
            ("export.name", "classify.py"),
            ("export.version", 0),
            ("export.version", 2**63),
            ("export.version", True),
            ("export.litert", 1),
        ],
    )
    def test_refuses_what_cannot_work(self, name, value):
        config = base.get_config()
        with config.ignore_type():
            config.update_from_flattened_dict({name: value})
        with pytest.raises(UsageError, match=f"config.{name} must be"):
            settings.validate(config)

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"data.image_size": (224, 300)}, "at least the 300 pixels"),
            ({"selection.cutout": 16}, "config.selection.cutout=0 beside"),
            ({"network.cutout": 16}, "config.network.cutout=0 beside"),
        ],
    )
    def test_refuses_what_windows_of_files_would_leave_out(
        self, changes, expected
    ):
        config = base.get_config()
        config.data.augmentation = "resized_crop"
        config.selection.cutout = config.network.cutout = 0
        settings.validate(config)
        config.update_from_flattened_dict(changes)
        with pytest.raises(UsageError, match=expected):
            settings.validate(config)

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"engine.replicas": 2}, "strategy=mirrored beside"),
            ({"engine.sync_batch_norm": True}, "several devices beside"),
            (
                {
                    "engine.strategy": "mirrored",
                    "engine.jit": True,
                    "engine.deterministic": False,
                },
                "strategy=default beside",
            ),
            (
                {
                    "engine.strategy": "mirrored",
                    "engine.sync_batch_norm": True,
                    "search.microbatch": 8,
                },
                "search.microbatch=0 beside",
            ),
        ],
    )
    def test_refuses_what_devices_cannot_do_together(self, changes, expected):
        config = base.get_config()
        config.update_from_flattened_dict(changes)
        with pytest.raises(UsageError, match=expected):
            settings.validate(config)

    def test_plain_data_and_back_is_the_same_configuration(self):
        config = settings.resolve(base.get_config())
        restored = settings.from_plain(workdir.plain(config))
        assert dict(settings.flatten(restored)) == dict(
            settings.flatten(config)
        )


class TestRefusals:
    """One line, status 2, before any work."""

    def test_no_stage(self):
        assert_refused(run(), "Expected one stage of", "nothing")

    def test_unknown_stage(self, folder):
        outcome = run("serch", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "'serch'", "Did you mean 'search'?")
        assert not folder.exists()

    def test_two_stages(self, folder):
        outcome = run("search", "train", "--config=demo", "--workdir=x")
        assert_refused(outcome, "'train'")

    def test_missing_flags(self, folder):
        assert_refused(run("search", "--workdir=x"), "--config=")
        assert_refused(run("search", "--config=demo"), "--workdir=")
        assert_refused(
            run("search", "--workdir=x", "--config.repeats=1"), "--config="
        )
        assert_refused(run("search", "--config=demo", "--workdir"), "--workdir")

    def test_unknown_flag(self):
        outcome = run("search", "--config=demo", "--workdri=x")
        assert_refused(outcome, "workdri", "workdir")

    def test_unknown_configuration(self):
        outcome = run("search", "--config=dmo", "--workdir=x")
        assert_refused(outcome, "'dmo'", "'demo'")

    def test_unknown_variant(self):
        outcome = run("search", "--config=cifar:cifar1000", "--workdir=x")
        assert_refused(outcome, "'cifar1000'", "cifar100")

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (None, ["no such file"]),
            ("def get_config(:", ["SyntaxError"]),
            ("import no_such_module", ["no_such_module"]),
            ("x = 1", ["get_config"]),
            ("def get_config(variant):\n    return {}", ["ConfigDict"]),
            (
                "from att_darts_tf.configs import base\n"
                "def get_config(variant):\n"
                "    config = base.get_config()\n"
                "    config.search.epoch = 3\n"
                "    return config\n",
                ["config.search.epoch.", "config.search.epochs"],
            ),
            (
                "from att_darts_tf.configs import base\n"
                "def get_config(variant):\n"
                "    config = base.get_config()\n"
                "    config.search.epochs = 'three'\n"
                "    return config\n",
                ["three"],
            ),
            (
                "from att_darts_tf.configs import base\n"
                "def get_config(variant):\n"
                "    config = base.get_config()\n"
                "    del config.search.epochs\n"
                "    return config\n",
                ["config.search.epochs"],
            ),
        ],
    )
    def test_file_that_gives_no_configuration(self, tmp_path, source, words):
        file = tmp_path / "mine.py"
        if source is not None:
            file.write_text(source)
        outcome = run("search", f"--config={file}", f"--workdir={tmp_path}/x")
        assert_refused(outcome, *words)

    @pytest.mark.parametrize(
        ("argument", "words"),
        [
            ("--config.search.epoch=3", ["Did you mean config.search.epochs?"]),
            ("--config.serch.epochs=3", ["Did you mean config.search.epochs?"]),
            ("--noconfig.data.flipp", ["config.data.flip?"]),
            ("--config.search=3", ["config.search", "its fields"]),
            ("--config.search.epochs=three", ["an integer", "'three'"]),
            ("--config.search.epochs=1.5", ["an integer", "'1.5'"]),
            ("--config.search.epochs=-3", ["at least 1", "-3"]),
            ("--config.search.momentum=fast", ["a number", "'fast'"]),
            ("--config.data.flip=maybe", ["true or false", "'maybe'"]),
            ("--config.search.seeds=a,b", ["integers"]),
            ("--config.search.seeds=1,1", ["different integers", "(1, 1)"]),
            ("--config.data.image_size=32", ["two integers", "(32,)"]),
            ("--config.search.batch_size=0", ["at least 1"]),
            ("--config.space.location=ends", ["after_every", "'ends'"]),
            ("--config.network.cell=DARTS_V3", ["'DARTS_V3'", "darts_v2"]),
            ("--config.network.cell=./none.json", ["none.json"]),
        ],
    )
    def test_setting(self, folder, argument, words):
        outcome = run(
            "search", "--config=demo", f"--workdir={folder}", argument
        )
        assert_refused(outcome, *words)
        assert not folder.exists()

    def test_malformed_genotype(self, tmp_path):
        file = tmp_path / "mine.json"
        file.write_text("{")
        outcome = run(
            "train",
            "--config=demo",
            f"--workdir={tmp_path}/x",
            f"--config.network.cell={file}",
        )
        assert_refused(outcome, "mine.json")

    def test_folder_that_cannot_be_made(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        outcome = run("prepare", "--config=demo", f"--workdir={file}/run")
        assert_refused(outcome, str(file))

    def test_folder_that_another_process_holds(self, folder):
        folder.mkdir()
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            outcome = run("prepare", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "another process")

    def test_folder_of_another_configuration(self, folder, searched):
        arguments = ["search", "--config=demo", f"--workdir={folder}"]
        assert run(*arguments).status == 0
        outcome = run(*arguments, "--config.data.padding=2")
        assert_refused(outcome, "config.data.padding=4", "2")
        # Of a search that has not begun, settings may still be changed.
        changed = "--config.search.momentum=0.5"
        assert run(*arguments, changed).status == 0
        (folder / "search").mkdir()
        assert_refused(run(*arguments), "config.search.momentum=0.5", "0.9")
        assert len(searched) == 2

    def test_folder_of_an_unknown_format(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text('{"format": 99}')
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "99", "config.json")

    @pytest.mark.parametrize(
        ("stage", "first"),
        [
            ("search", "prepare"),
            ("select", "prepare"),
            ("train", "prepare"),
            ("evaluate", "prepare"),
            ("export", "prepare"),
        ],
    )
    def test_stage_without_prepared_images(self, folder, stage, first):
        arguments = ["--config=demo", f"--workdir={folder}"]
        outcome = run(stage, *arguments)
        assert_refused(outcome, "dataset.json")
        assert f"att-darts {first} {' '.join(arguments)}" in outcome.errors

    @pytest.mark.parametrize(
        ("stage", "first"),
        [
            ("select", "search"),
            ("train", "select"),
            ("evaluate", "train"),
            ("export", "train"),
        ],
    )
    def test_stage_without_the_one_before(self, folder, stage, first):
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "dataset.json").touch()
        outcome = run(stage, "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, f"att-darts {first} --config=demo")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--workdir={}/python3.11/run"],
            ["--workdir={}/run", "--config.data.name={}/python3/images"],
        ],
    )
    def test_path_that_the_runner_would_garble(self, tmp_path, arguments):
        arguments = [argument.format(tmp_path) for argument in arguments]
        outcome = run("pipeline", "--config=demo", *arguments)
        assert_refused(outcome, "'python3'")

    def test_missing_extra(self, folder):
        with mock.patch.dict(sys.modules, {"kfp": None}):
            for name in list(sys.modules):
                if name.startswith("att_darts_tf.pipeline"):
                    sys.modules.pop(name)
            outcome = run("pipeline", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "att-darts-tf[pipeline]")


class TestRuns:
    def test_settings_reach_the_stage(self, folder, searched):
        outcome = run(
            "search",
            "--config=demo",
            f"--workdir={folder}",
            "--config.search.epochs=3",
            "--config.search.seeds=7,8",
            "--noconfig.data.flip",
            "--config.data.data_dir",
            "records",
        )
        assert (outcome.status, outcome.errors) == (0, "")
        assert outcome.output.endswith("\nsearched\n")
        (config,) = searched
        assert config.search.epochs == 3
        assert config.search.seeds == (7, 8)
        assert config.data.flip is False
        assert config.data.data_dir == os.path.abspath("records")

    def test_configuration_may_be_a_file(self, tmp_path, searched):
        file = tmp_path / "mine.py"
        file.write_text(
            "from att_darts_tf.configs import base\n"
            "def get_config(variant=''):\n"
            "    config = base.get_config()\n"
            "    config.search.epochs = int(variant)\n"
            "    return config\n"
        )
        outcome = run(
            "search", f"--config={file}:5", f"--workdir={tmp_path}/run"
        )
        assert outcome.status == 0
        assert searched[0].search.epochs == 5

    def test_same_command_elsewhere_means_the_same_files(
        self, tmp_path, searched, monkeypatch
    ):
        (tmp_path / "photos").mkdir()
        monkeypatch.chdir(tmp_path)
        run(
            "search",
            "--config=demo",
            "--workdir=run",
            "--config.data.name=photos",
        )
        monkeypatch.chdir(tmp_path / "photos")
        outcome = run(
            "search",
            "--config=demo",
            "--workdir=../run",
            "--config.data.name=../photos",
        )
        assert outcome.status == 0
        assert searched[0].data.name == str(tmp_path / "photos")
        assert searched[0].data.name == searched[1].data.name

    def test_names_of_data_sets_stay_names(self, folder, searched):
        run(
            "search",
            "--config=demo",
            f"--workdir={folder}",
            "--config.data.name=imagenet_resized/32x32",
        )
        assert searched[0].data.name == "imagenet_resized/32x32"

    def test_mistake_of_the_first_command_leaves_no_configuration(
        self, folder, monkeypatch
    ):
        def refuse(command, folders):
            raise UsageError("Expected\nfun. Received: none")

        stage = dataclasses.replace(command_line.STAGES["search"], run=refuse)
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "Expected fun. Received: none")
        assert not (folder / "config.json").exists()

    def test_what_would_move_the_cursor_is_written_out(
        self, folder, monkeypatch
    ):
        def refuse(command, folders):
            raise UsageError("Received: \x1b[2J\x07\udcff \u202ecat.png")

        stage = dataclasses.replace(command_line.STAGES["search"], run=refuse)
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert_refused(
            outcome, r"Received: \x1b[2J\x07\udcff \u202ecat.png"
        )

    def test_interruption_is_one_line(self, folder, monkeypatch):
        stage = dataclasses.replace(
            command_line.STAGES["search"],
            run=mock.Mock(side_effect=KeyboardInterrupt),
        )
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert outcome.status == 130
        assert outcome.errors.count("\n") == 1

    def test_full_disk_is_one_line(self, folder, monkeypatch):
        full = OSError(errno.ENOSPC, "No space left on device", "some/file")
        stage = dataclasses.replace(
            command_line.STAGES["search"], run=mock.Mock(side_effect=full)
        )
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert_refused(outcome, "No space left on device: some/file", "room")

    def test_end_by_sigterm_is_one_line(self, folder, monkeypatch):
        def train(command, folders):
            preemption.postpone()
            os.kill(os.getpid(), signal.SIGTERM)
            while not preemption.noticed():
                time.sleep(0.01)
            preemption.allow()

        stage = dataclasses.replace(command_line.STAGES["search"], run=train)
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        assert outcome.status == 143
        assert "143 ended by SIGTERM" in run("--help").output
        assert outcome.errors == (
            "att-darts: ended by SIGTERM; the same command goes on where it "
            "stopped\n"
        )
        # The folder keeps its configuration.
        assert (folder / "config.json").exists()

    def test_defect_keeps_its_traceback(self, folder, monkeypatch):
        stage = dataclasses.replace(
            command_line.STAGES["search"],
            run=mock.Mock(side_effect=KeyError("defect")),
        )
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        with pytest.raises(KeyError, match="defect"):
            run("search", "--config=demo", f"--workdir={folder}")


class TestTexts:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("imagenet", ("imagenet",)),
            ("cifar:cifar100,imagenet", ("cifar:cifar100", "imagenet")),
            ("/a/b.py,", ("/a/b.py",)),
            ("('imagenet',)", ("imagenet",)),
            ("a=(1,2),b", ("a=(1,2)", "b")),
            ("", ()),
        ],
    )
    def test_need_no_quotes(self, folder, searched, value, expected):
        command = ("search", "--config=demo", f"--workdir={folder}")
        assert run(*command, f"--config.pipeline.targets={value}").status == 0
        assert searched[-1].pipeline.targets == expected

    def test_are_all_settings_of_several_texts(self):
        config = settings.load("base")
        of_none = {
            name
            for name, value in settings.flatten(config)
            if value == ()
        }
        assert of_none == settings.TEXTS


class TestReplace:
    @pytest.fixture
    def begun(self, folder, searched):
        """A work directory in which a search has begun."""
        command = ("search", "--config=demo", f"--workdir={folder}")
        assert run(*command).status == 0
        (folder / "search").mkdir()
        return command

    def test_lets_any_setting_change(self, begun, searched, folder):
        changed = (*begun, "--config.search.epochs=7")
        assert_refused(run(*changed), "config.search.epochs=2", "--replace")
        assert run(*changed, "--replace").status == 0
        assert searched[-1].search.epochs == 7
        # It is the work directory's from now on.
        assert run(*changed).status == 0
        assert_refused(run(*begun), "config.search.epochs=7")

    def test_mistake_leaves_the_settings_as_they_were(
        self, begun, folder, monkeypatch
    ):
        stage = dataclasses.replace(
            command_line.STAGES["search"],
            run=mock.Mock(side_effect=UsageError("Expected room")),
        )
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        before = (folder / "config.json").read_text()
        mistaken = (*begun, "--config.search.epochs=7", "--replace")
        assert_refused(run(*mistaken), "Expected room")
        assert (folder / "config.json").read_text() == before

    def test_reaches_the_stages_and_ends_with_the_command(
        self, folder, monkeypatch
    ):
        seen = []
        stage = dataclasses.replace(
            command_line.STAGES["search"],
            run=lambda *_: seen.append(stage_folder.replaces_stale()) or [],
        )
        monkeypatch.setitem(command_line.STAGES, "search", stage)
        command = ("search", "--config=demo", f"--workdir={folder}")
        for options in (("--replace",), ()):
            assert run(*command, *options).status == 0
        assert seen == [True, False]


class TestLineage:
    @pytest.fixture
    def training(self, tmp_path):
        search = tmp_path / "search"
        for name, folder, reads in (
            ("search", search, ()),
            ("train", tmp_path / "training", (search,)),
        ):
            with stage_folder.StageFolder(
                folder,
                stage=name,
                identity={"seed": 3, "config": {name: {"epochs": 5}}},
                reads=reads,
            ) as held:
                held.finish({})
        return tmp_path / "training"

    def test_tells_of_a_result_and_of_all_before_it(self, training):
        outcome = run("lineage", str(training / "result.json"))
        assert outcome.status == 0
        lines = outcome.output.splitlines()
        digest = workdir.digest(training / "result.json")
        assert lines[:2] == ["train", f"  result.json {digest}"]
        assert "  settings    train.epochs=5" in lines
        assert "search" in lines
        assert "  settings    search.epochs=5" in lines
        assert lines.count("  seed        3") == 2
        assert max(map(len, lines)) <= 79

    def test_prints_the_record_itself(self, training):
        outcome = run("lineage", str(training), "--json")
        record = lineage.load(training / "lineage.json")
        assert json.loads(outcome.output) == record

    def test_leaves_the_cursor_of_the_terminal_where_it_is(self, training):
        file = training / "lineage.json"
        record = json.loads(file.read_text())
        record["machine"]["device"] = record["stage"] = "\x1b[2Jgone\n"
        file.write_text(json.dumps(record))
        output = run("lineage", str(training)).output
        assert "\x1b" not in output
        assert "\\x1b[2Jgone" in output

    def test_says_that_a_result_has_changed(self, training):
        (training / "result.json").write_text("{}")
        lines = run("lineage", str(training)).output.splitlines()
        assert lines[0].startswith("Changed since: result.json")

    def test_of_nothing_is_refused(self, training):
        assert_refused(run("lineage"), "one name", "--help")
        assert_refused(
            run("lineage", str(training / "nothing")), "does not exist"
        )
        assert_refused(
            run("lineage", str(training.parent)), f"Name one of {training}"[:20]
        )


class TestPrepare:
    """The one stage that is quick enough to run whole."""

    def test_runs_in_any_folder_and_again(self, tmp_path):
        program = pathlib.Path(sys.executable).with_name("att-darts")
        command = [program, "prepare", "--config=demo", "--workdir=run"]
        for _ in range(2):
            result = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True
            )
            assert result.returncode == 0, result.stderr
            assert "training and" in result.stdout
            assert result.stderr == ""
        record = lineage.load(tmp_path / "run" / "data" / "lineage.json")
        assert record["stage"] == "prepare"
        assert record["packages"]["tensorflow"]
        assert record["made_from"]["data"]
        assert 0 < record["seconds"] < 100

    def test_unknown_data_set_is_one_line(self, folder):
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "att_darts_tf",
                "prepare",
                "--config=demo",
                f"--workdir={folder}",
                "--config.data.name=cifar11",
            ],
            capture_output=True,
            text=True,
        )
        assert_refused(
            Outcome(result.returncode, result.stdout, result.stderr),
            "'cifar11'",
            "cifar10",
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the file of a network of 3 cells and 4 channels."""
    network = Network.from_genotype(
        "darts_v2",
        image_shape=(8, 8, 3),
        num_classes=2,
        channels=4,
        cells=3,
    )
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    network.save(path)
    return path


class TestStage:
    def test_ends_with_the_time_and_the_memory_that_it_took(
        self, folder, searched
    ):
        outcome = run("search", "--config=demo", f"--workdir={folder}")
        lines = outcome.output.splitlines()
        assert lines[1:] == ["searched"]
        time_and_memory = r"search took \d+ s and at most \d+\.\d GB of memory"
        assert re.fullmatch(time_and_memory, lines[0])


class TestWorkDirectory:
    @pytest.fixture
    def prepared(self, folder, monkeypatch):
        """Replaces stages by ones that make their folders."""

        def stage(name, *made):
            def run_stage(command, folders):
                for each in made:
                    (folders.root / each).mkdir(parents=True)
                return [name]

            monkeypatch.setitem(
                command_line.STAGES,
                name,
                dataclasses.replace(command_line.STAGES[name], run=run_stage),
            )

        stage("prepare", "data")
        stage("train", "training/repeat-0")
        stage("evaluate")
        outcome = run("prepare", "--config=demo", f"--workdir={folder}")
        assert outcome.status == 0

    def test_settings_of_a_stage_to_come_may_change(self, folder, prepared):
        given = ("--config=demo", f"--workdir={folder}")
        cell = "--config.network.cell=att_darts"
        assert run("train", *given, cell).status == 0
        assert_refused(
            run("evaluate", *given), "config.network.cell='att_darts'"
        )
        assert run("evaluate", *given, cell).status == 0

    def test_a_price_may_come_last(self, folder, prepared):
        given = ("--config=demo", f"--workdir={folder}")
        run("train", *given)
        assert run("evaluate", *given, "--config.hourly_price=2").status == 0

    def test_export_shows_an_evaluation_if_there_is_one(
        self, folder, prepared, monkeypatch
    ):
        from att_darts_tf import serving

        given = ("export", "--config=demo", f"--workdir={folder}")
        calls = []

        def record(config, *, output_dir, evaluation, **options):
            calls.append(evaluation)
            for name in ("identity.json", "result.json"):
                output_dir.mkdir(exist_ok=True)
                workdir.write_json(output_dir / name, {}, format=1)

        monkeypatch.setattr(serving, "run_export", record)
        for finished in (
            folder / "data" / "dataset.json",
            folder / "training" / "repeat-0" / "result.json",
        ):
            finished.parent.mkdir(parents=True, exist_ok=True)
            finished.touch()
        assert run(*given).status == 0
        (folder / "evaluation").mkdir()
        assert run(*given).status == 0
        (folder / "evaluation" / "result.json").touch()
        outcome = run(*given)
        assert outcome.status == 0
        assert calls == [None, None, folder / "evaluation"]
        assert f"SavedModel: {folder}/export/att_darts/1\n" in outcome.output
        assert "LiteRT" not in outcome.output
        # Its files have been named.
        named = "--config.export.version=2"
        assert_refused(run(*given, named), "config.export.version=1", "2")
        shutil.rmtree(folder / "export")
        outcome = run(*given, named, "--config.export.litert=true")
        assert f"SavedModel: {folder}/export/att_darts/2\n" in outcome.output
        assert f"LiteRT model: {folder}/export/att_darts.tfl" in outcome.output

    def test_settings_of_a_stage_that_has_run_may_not(self, folder, prepared):
        assert_refused(
            run(
                "train",
                "--config=demo",
                f"--workdir={folder}",
                "--config.data.padding=2",
            ),
            "config.data.padding=4",
        )


def test_imagenet_is_prepared_trained_and_judged_as_its_docstring_says(
    folder, monkeypatch
):
    stages = []
    for name in ("prepare", "train", "evaluate"):

        def stage(command, folders, name=name):
            stages.append((name, settings.given_cells(command.config)))
            (folders.root / name).mkdir()
            return []

        monkeypatch.setitem(
            command_line.STAGES,
            name,
            dataclasses.replace(command_line.STAGES[name], run=stage),
        )
    page = importlib.import_module(f"{settings.SHIPPED}.imagenet").__doc__
    command = r"att-darts (\w+) (--config=imagenet) --workdir"
    commands = re.findall(command, page)
    for name, config in commands:
        assert run(name, config, f"--workdir={folder}").status == 0
    assert stages == [
        (name, "att_darts") for name in ("prepare", "train", "evaluate")
    ]


def test_a_pipeline_of_given_cells_needs_no_memory_of_a_search(
    folder, monkeypatch
):
    from att_darts_tf import memory
    from att_darts_tf.pipeline import main as pipeline

    monkeypatch.setattr(memory, "available", lambda: 0.1)
    monkeypatch.setattr(pipeline, "run_pipeline", lambda *_: ["run"])
    given = ("pipeline", "--config=demo", f"--workdir={folder}")
    assert_refused(run(*given), "GB")
    assert run(*given, "--config.network.cell=att_darts").status == 0


class TestFineTuning:
    FITTING = ("--config.network.cells=3", "--config.network.channels=4")

    def refused(self, folder, *settings):
        return run("train", "--config=demo", f"--workdir={folder}", *settings)

    def test_a_file_that_is_not_there(self, folder):
        assert_refused(
            self.refused(folder, "--config.network.pretrained=no.keras"),
            "no.keras",
            "No such file",
        )

    def test_a_file_that_is_no_network(self, folder, tmp_path):
        file = tmp_path / "text.keras"
        file.write_text("none")
        assert_refused(
            self.refused(folder, f"--config.network.pretrained={file}"),
            "Expected a trained network of cells",
        )

    def test_another_skeleton(self, folder, trained):
        assert_refused(
            self.refused(folder, f"--config.network.pretrained={trained}"),
            "--config.network.cells=3",
        )

    def test_cells_beside_it(self, folder, trained):
        assert_refused(
            self.refused(
                folder,
                *self.FITTING,
                f"--config.network.pretrained={trained}",
                "--config.network.cell=att_darts",
            ),
            "Leave one out",
        )

    def test_nothing_to_freeze(self, folder):
        assert_refused(
            self.refused(folder, "--config.network.frozen=true"),
            "config.network.pretrained",
        )

    def test_a_frozen_network_with_another_classifier(self, folder, trained):
        assert_refused(
            self.refused(
                folder,
                *self.FITTING,
                f"--config.network.pretrained={trained}",
                "--config.network.frozen=true",
            ),
            "--config.network.auxiliary_weight=0",
        )

    def test_no_search_is_needed(self, folder, trained):
        outcome = self.refused(
            folder, *self.FITTING, f"--config.network.pretrained={trained}"
        )
        assert_refused(outcome, "Run first: att-darts prepare")
