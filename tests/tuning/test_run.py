"""Trials that train, and what a tuning leaves to others."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from att_darts_tf import __main__ as main
from att_darts_tf import layout, memory, ranges, settings
from att_darts_tf.data import prepared
from att_darts_tf.engine import lineage, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import evaluate
from att_darts_tf.network import run as network_run
from att_darts_tf.tuning import run, show, trial
from tests.network import toy

RATE = "network.learning_rate=log(0.01,0.3)"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    toy.prepare(folder)
    toy.USEFUL.write(folder / "cells.json")
    return folder


def configured(images, *space, **changes):
    config = toy.config()
    config.data.name = str(images / "images")
    config.data.image_size = (toy.SIDE, toy.SIDE)
    config.network.cell = str(images / "cells.json")
    config.network.epochs = 2
    config.tune.space = space or (RATE,)
    config.tune.trials = 3
    config.update_from_flattened_dict(changes)
    settings.validate(config)
    return settings.resolve(config)


def trials_of(images, folder, config):
    genotype = config.network.cell or None
    return trial.Trials(
        config,
        images / "data",
        genotype,
        [images / "data"],
        settings.tuned_ranges(config),
        folder,
    )


class TestTrial:
    def test_trains_on_one_half_and_is_judged_on_the_other(
        self, images, tmp_path
    ):
        config = configured(images)
        trials = trials_of(images, tmp_path / "trials", config)
        result = trials.run(4, {"network.learning_rate": 0.2}, 2)
        data = prepared.load(images / "data")
        expected = network_run.run_candidate(
            settings.with_values(config, {"network.learning_rate": 0.2}),
            section="network",
            data=data,
            genotype=toy.USEFUL,
            reads=[],
            output_dir=tmp_path / "alone",
            stage="tune",
            label="alone",
        )
        assert result["accuracies"] == [expected["validation_accuracy"]]
        assert result["accuracy"] == expected["validation_accuracy"]
        assert result["images"] == len(data.split("architecture"))
        assert result["values"] == {"network.learning_rate": 0.2}
        assert (result["epochs"], result["infeasible"]) == (2, "")

    def test_changes_the_recipe_as_its_values_say(
        self, images, tmp_path, monkeypatch
    ):
        config = configured(
            images,
            RATE,
            "network.cutout=choice(0,2)",
            "data.flip=choice(true,false)",
        )
        trials = trials_of(images, tmp_path, config)
        seen = []

        def look(config, **_):
            seen.append(config)
            return {"validation_accuracy": 0.5, "seconds": 1.0}

        monkeypatch.setattr(network_run, "run_candidate", look)
        values = {
            "network.learning_rate": 0.02,
            "network.cutout": 2,
            "data.flip": False,
        }
        trials.run(0, values, 7)
        (config,) = seen
        flat = dict(settings.flatten(config))
        assert {name: flat[name] for name in values} == values
        assert config.network.epochs == 7
        assert config.network.momentum == trials.config.network.momentum

    def test_is_the_mean_of_its_repeats(self, images, tmp_path):
        config = configured(images, **{"tune.repeats": 2})
        trials = trials_of(images, tmp_path, config)
        result = trials.run(0, {"network.learning_rate": 0.1}, 1)
        assert len(result["accuracies"]) == 2
        assert result["accuracy"] == sum(result["accuracies"]) / 2
        weights = [
            workdir.read_json(
                tmp_path / f"0/repeat-{i}/result.json", format=1
            )["validation_loss"]
            for i in range(2)
        ]
        assert weights[0] != weights[1]

    def test_that_loses_its_loss_counts_as_failed(self, images, tmp_path):
        trials = trials_of(images, tmp_path, configured(images))
        result = trials.run(0, {"network.learning_rate": 1e30}, 2)
        assert result["accuracy"] == 0
        assert "finite" in result["infeasible"]
        # It is known, and not tried again.
        shutil.rmtree(tmp_path / "0/repeat-0")
        assert trials.run(0, {"network.learning_rate": 1e30}, 2) == result

    def test_that_no_memory_holds_counts_as_failed(self, images, tmp_path):
        trials = trials_of(images, tmp_path, configured(images))
        # Of 12 terabytes, which are asked for before anything is looked at.
        result = trials.run(0, {"network.channels": 10**6}, 1)
        assert "OOM" in result["infeasible"]

    def test_that_is_known_to_need_too_much_counts_as_failed(
        self, images, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(memory, "available", lambda: 0.01)
        trials = trials_of(images, tmp_path, configured(images))
        result = trials.run(0, {"network.learning_rate": 0.1}, 1)
        assert "0.0 GB of memory that are free" in result["infeasible"]

    def test_whose_network_knows_nothing_in_the_end_counts_as_failed(
        self, images, tmp_path, monkeypatch
    ):
        nothing = evaluate.Judgement(0.1, float("nan"), None)
        monkeypatch.setattr(evaluate, "judge", lambda *_, **__: nothing)
        trials = trials_of(images, tmp_path, configured(images))
        result = trials.run(0, {"network.learning_rate": 0.1}, 1)
        assert "images not trained on" in result["infeasible"]

    def test_of_values_that_do_not_go_together_counts_as_failed(
        self, images, tmp_path
    ):
        trials = trials_of(images, tmp_path, configured(images))
        result = trials.run(0, {"network.cells": 2}, 1)
        assert "config.network.cells must be" in result["infeasible"]

    def test_is_that_of_the_network_it_begins_with(self, images, tmp_path):
        config = settings.with_values(
            configured(images),
            {
                "network.cell": "",
                "network.pretrained": str(tmp_path / "model.keras"),
            },
        )
        found = []
        for content in (b"one", b"two"):
            (tmp_path / "model.keras").write_bytes(content)
            trials = trials_of(images, tmp_path, config)
            found.append(trials.identity(config)["inputs"])
        assert found[0] != found[1]

    def test_of_other_values_is_refused(self, images, tmp_path):
        trials = trials_of(images, tmp_path, configured(images))
        trials.run(0, {"network.learning_rate": 1e30}, 1)
        with pytest.raises(UsageError, match="learning_rate=1e"):
            trials.run(0, {"network.learning_rate": 0.1}, 1)

    @pytest.mark.long
    def test_of_a_search_judges_the_cells_that_it_finds(
        self, images, tmp_path
    ):
        config = configured(
            images,
            "search.architecture_learning_rate=log(0.001,0.1)",
            **{
                "tune.stage": "search",
                "network.cell": "",
                "space.location": "no_attention",
                "search.cells": 3,
                "search.channels": 4,
                "search.epochs": 1,
                "search.batch_size": 12,
                "selection.epochs": 1,
            },
        )
        trials = trials_of(images, tmp_path, config)
        values = {"search.architecture_learning_rate": 0.05}
        result = trials.run(0, values, 1)
        found = workdir.read_json(tmp_path / "0/search-0/result.json", format=1)
        judged = workdir.read_json(
            tmp_path / "0/repeat-0/identity.json", format=1
        )
        assert judged["genotype"] == found["genotype"]
        assert set(judged["config"]) == {"engine", "selection"}
        searched = workdir.read_json(
            tmp_path / "0/search-0/identity.json", format=1
        )["config"]["search"]
        assert searched["architecture_learning_rate"] == 0.05
        assert 0 <= result["accuracy"] <= 1


def tensorboard(folder):
    reader = event_accumulator.EventAccumulator(str(folder))
    reader.Reload()
    content = reader.PluginTagToContent("hparams")
    return reader, {
        tag: plugin_data_pb2.HParamsPluginData.FromString(each)
        for tag, each in content.items()
    }


def test_tensorboard_has_the_values_and_what_came_of_them(tmp_path):
    space = [
        ranges.Range("network.learning_rate", "log", (0.1, 1.0)),
        ranges.Range("network.cells", "linear", (3, 9)),
        ranges.Range("data.crop_area", "choice", ((0.1, 1.0), (0.2, 1.0))),
    ]
    trial.declare(tmp_path / "tensorboard", space)
    values = {
        "network.learning_rate": 0.5,
        "network.cells": 4,
        "data.crop_area": (0.1, 1.0),
    }
    place = tmp_path / "trials/7/tensorboard"
    # One that is stopped before its end tells of itself twice.
    for _ in range(2):
        trial.show(place, values, 0.25, epochs=3)
    _, (experiment,) = (
        part := tensorboard(tmp_path / "tensorboard"),
        tuple(part[1].values()),
    )
    assert [each.name for each in experiment.experiment.hparam_infos] == list(
        values
    )
    assert experiment.experiment.metric_infos[0].name.tag == trial.METRIC
    reader, found = tensorboard(place)
    (session,) = (
        each.session_start_info
        for each in found.values()
        if each.HasField("session_start_info")
    )
    told = {name: each for name, each in session.hparams.items()}
    assert told["network.learning_rate"].number_value == 0.5
    assert told["data.crop_area"].string_value == "(0.1, 1.0)"
    (point,) = reader.Tensors(trial.METRIC)
    assert point.step == 3
    assert point.tensor_proto.float_val[0] == 0.25


def result_of(*trials):
    return {
        "trials": [
            {
                "trial": i,
                "values": {"network.learning_rate": rate},
                "epochs": epochs,
                "accuracy": accuracy,
                "images": 24,
                "infeasible": "" if accuracy else "lost",
            }
            for i, (rate, epochs, accuracy) in enumerate(trials)
        ]
    }


def test_the_best_is_of_those_with_the_most_epochs():
    trials = result_of(
        (0.1, 1, 0.9), (0.2, 3, 0.5), (0.3, 3, 0.7), (0.4, 3, 0.7)
    )["trials"]
    assert run.choose(trials)["trial"] == 2
    assert run.choose(trials[:1])["trial"] == 0
    assert run.choose(result_of((0.1, 3, 0.0))["trials"]) is None


def test_configuration_says_what_is_found_and_what_was_given(
    images, tmp_path
):
    config = configured(
        images,
        RATE,
        "data.crop_area=choice((0.1,1.0),(0.2,1.0))",
        **{
            "data.augmentation": "resized_crop",
            "network.cutout": 0,
            "selection.cutout": 0,
        },
    )
    result = result_of((0.123456789, 2, 0.5), (0.2, 2, 0.4))
    found = {
        "network.learning_rate": 0.123456789,
        "data.crop_area": [0.2, 1.0],
    }
    result |= {"best": 0, "found": found}
    file = tmp_path / "config.py"
    file.write_text(show.as_source(config, result))
    loaded = settings.resolve(settings.load(str(file)))
    settings.validate(loaded)
    expected = settings.with_values(
        config,
        {
            **found,
            **{f"tune.{n}": v for n, v in settings.load("base").tune.items()},
        },
    )
    assert workdir.plain(loaded) == workdir.plain(expected)
    assert "50.00 % of 24 images" in file.read_text()


def test_picture_shows_every_kind_of_range():
    space = [
        ranges.Range("network.learning_rate", "log", (0.01, 1.0)),
        ranges.Range("network.cells", "linear", (3, 9)),
        ranges.Range("network.schedule", "choice", ("cosine", "exponential")),
        ranges.Range("data.crop_area", "choice", ((0.1, 1.0), (0.2, 1.0))),
    ]
    result = result_of((0.1, 1, 0.9), (0.2, 3, 0.5), (0.3, 3, 0.0))
    for each in result["trials"]:
        each["values"] |= {
            "network.cells": 4,
            "network.schedule": "cosine",
            "data.crop_area": [0.1, 1.0],
        }
    result["best"] = 1
    picture = show.draw(result, space)
    assert picture.startswith(b"\x89PNG")
    assert picture == show.draw(result, space)
    result["best"] = 0
    assert picture != show.draw(result, space)


def arguments(images, work, *more):
    config = importlib.util.find_spec("tests.tuning.tiny").origin
    return [
        *(sys.executable, "-m", "att_darts_tf", "tune"),
        f"--config={config}",
        f"--workdir={work}",
        f"--config.data.name={images / 'images'}",
        f"--config.network.cell={images / 'cells.json'}",
        *more,
    ]


def start(images, work, *more, **environment):
    return subprocess.Popen(
        arguments(images, work, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def start_as(name, port, images, work, *more):
    """Starts a chief or a worker, as its name says."""
    return start(
        images,
        work,
        *more,
        KERASTUNER_ORACLE_IP="127.0.0.1",
        KERASTUNER_ORACLE_PORT=str(port),
        KERASTUNER_TUNER_ID=name,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def figures(work):
    """Returns the result of a tuning, but for the times."""
    result = json.loads((work / "tuning/result.json").read_text())
    for each in result["trials"]:
        assert each.pop("seconds") > 0
    return result


def prepared_in(images, folder):
    shutil.copytree(images / "data", folder / "data")
    return folder


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    work = prepared_in(images, tmp_path_factory.mktemp("whole"))
    finish(start(images, work))
    return work


@pytest.mark.long
class TestTuning:
    def test_tries_as_often_as_is_asked_and_keeps_the_best(self, whole):
        result = figures(whole)
        assert [each["trial"] for each in result["trials"]] == [0, 1, 2]
        best = result["trials"][result["best"]]
        assert best["accuracy"] == max(
            each["accuracy"] for each in result["trials"]
        )
        assert result["found"] == best["values"]

    def test_its_record_tells_of_the_images(self, whole, images):
        record = lineage.load(whole / "tuning/lineage.json")
        assert record["stage"] == "tune"
        assert [each["stage"] for each in record["ancestors"].values()] == [
            "prepare"
        ]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_killed_it_goes_on_to_the_same_result(
        self, number, whole, images, tmp_path
    ):
        work = prepared_in(images, tmp_path)
        process = start(images, work)
        place = work / "tuning/trials/1/repeat-0/checkpoints"
        deadline = time.monotonic() + 240
        while not any(place.glob("ckpt-*.index")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == (
            143 if number == signal.SIGTERM else -number
        ), output
        assert not (work / "tuning/result.json").exists()
        # No trial is left that would go on beside the next process.
        output = finish(start(images, work))
        assert "trial 0 of" not in output
        assert figures(work) == figures(whole)

    def test_its_configuration_trains(self, whole, tmp_path, images):
        work = prepared_in(images, tmp_path)
        config = whole / "tuning/config.py"
        command = ["train", f"--config={config}", f"--workdir={work}"]
        assert main.main(command) == 0
        made = workdir.read_json(
            work / "training/repeat-0/identity.json", format=1
        )["config"]["network"]
        (found,) = figures(whole)["found"].values()
        assert made["learning_rate"] == found

    def test_its_run_trains_with_what_it_found(
        self, whole, tmp_path, images, capsys
    ):
        work = tmp_path / "copy"
        shutil.copytree(whole, work)
        command = arguments(images, work)[3:]
        train = ["train", *command[1:]]
        assert main.main(train) == 0
        folder = work / "training/repeat-0"
        made = workdir.read_json(folder / "identity.json", format=1)
        (found,) = figures(whole)["found"].values()
        assert made["config"]["network"]["learning_rate"] == found
        ancestors = lineage.load(folder / "lineage.json")["ancestors"].values()
        assert {each["stage"] for each in ancestors} == {"prepare", "tune"}
        # More trials make another recipe, perhaps; the training is not it.
        more = [*train, "--config.tune.trials=4"]
        assert main.main(more) == 2
        assert "Run first: the stage tune" in capsys.readouterr().err

    def test_without_a_tuning_its_run_does_not_train(
        self, images, tmp_path, capsys
    ):
        work = prepared_in(images, tmp_path)
        command = ["train", *arguments(images, work)[4:]]
        assert main.main(command) == 2
        assert "att-darts tune" in capsys.readouterr().err

    def test_fewer_trials_than_have_begun_are_refused(
        self, whole, images, tmp_path, capsys
    ):
        work = tmp_path / "copy"
        shutil.copytree(whole, work)
        command = [*arguments(images, work)[3:], "--config.tune.trials=2"]
        assert main.main(command) == 2
        assert "at least 3" in capsys.readouterr().err

    def test_chief_and_workers_share_the_trials(
        self, whole, images, tmp_path
    ):
        work, port = prepared_in(images, tmp_path), free_port()
        processes = {
            name: start_as(name, port, images, work)
            for name in ("chief", "worker-0", "worker-1")
        }
        told = {name: finish(each) for name, each in processes.items()}
        assert "best so far" not in told["chief"]
        # One may be so slow to begin that the other one tries all.
        tried = told["worker-0"] + told["worker-1"]
        assert tried.count("best so far") == 3
        assert figures(work) == figures(whole)
        # All again: there is nothing left, and nobody waits.
        for name in processes:
            finish(start_as(name, port, images, work))

    def test_chief_that_ended_after_the_last_trial_writes_the_result(
        self, whole, images, tmp_path
    ):
        work = tmp_path / "copy"
        shutil.copytree(whole, work)
        (work / "tuning/result.json").unlink()
        finish(start_as("chief", free_port(), images, work))
        assert figures(work) == figures(whole)

    def test_result_of_a_trial_that_is_gone_is_missed(
        self, whole, images, tmp_path, capsys
    ):
        work = tmp_path / "copy"
        shutil.copytree(whole, work)
        (work / "tuning/result.json").unlink()
        shutil.rmtree(work / "tuning/trials/1")
        assert main.main(arguments(images, work)[3:]) == 2
        assert "none of [1]" in capsys.readouterr().err

    def test_worker_with_another_command_is_refused(
        self, whole, images, tmp_path
    ):
        work, port = prepared_in(images, tmp_path), free_port()
        chief = start_as("chief", port, images, work)
        other = "--config.network.momentum=0.5"
        worker = start_as("worker-0", port, images, work, other)
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 2
        assert "momentum" in output and "same command" in output
        chief.terminate()
        chief.communicate(timeout=60)
        assert chief.returncode == 143
        # Alone, it does what the worker had begun.
        finish(start(images, work))
        assert figures(work) == figures(whole)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--config.tune.space="], "Expected settings to tune"),
        (["--config.engine.strategy=multi_worker"], "docs/tuning.md"),
        (["--config.network.cell="], "select"),
        (["--config.tune.method=grid"], "no grid"),
        (["--config.tune.method=hyperband", "--config.network.epochs=3",
          "--config.tune.space=network.cutout=choice(0,3)"], "a wider space"),
        (["--config.tune.method=hyperband", "--config.network.epochs=1"],
         "Expected several epochs"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    more, expected, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TF_CONFIG", json.dumps(
        {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
         "task": {"type": "worker", "index": 0}}
    ))
    work = prepared_in(images, tmp_path)
    command = [*arguments(images, work)[3:], *more]
    assert main.main(command) == 2
    assert expected in capsys.readouterr().err
    assert not (work / "tuning").exists()


def test_a_port_that_is_taken_is_told(images, tmp_path):
    work = prepared_in(images, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = start_as("chief", port, images, work)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "free port" in output.splitlines()[-1]


def test_tuned_values_are_those_of_this_tuning(images, tmp_path):
    config = configured(images)
    folders = layout.of(str(tmp_path))
    folders.tuning.mkdir(parents=True)
    record = {
        "tune": workdir.plain(config.tune),
        "found": {"network.learning_rate": 0.07},
    }
    workdir.write_json(folders.tuned, record, format=1)
    tuned = layout.as_tuned(config, folders)
    assert tuned.network.learning_rate == 0.07
    assert tuned.network.momentum == config.network.momentum
    other = settings.with_values(config, {"tune.seed": 9})
    with pytest.raises(UsageError, match="other settings"):
        layout.as_tuned(other, folders)

