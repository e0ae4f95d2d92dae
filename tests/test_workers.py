"""Processes that work together, over gRPC on this machine."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import yaml

from att_darts_tf import __main__ as program
from att_darts_tf.configs import base
from att_darts_tf.engine import cluster
from att_darts_tf.errors import UsageError
from att_darts_tf.search import memory
from tests import workers

STAGES = "search,select,train,evaluate"
ONE_SEARCH = ("--config.search.seeds=3,", "--config.repeats=1")
TOGETHER = ("--config.engine.strategy=multi_worker",)
TWO_DEVICES = (
    "--config.engine.strategy=mirrored",
    "--config.engine.replicas=2",
)
HISTORIES = ("search/seed-3", "selection/candidate-0", "training/repeat-0")


def flags(root, *more):
    return (f"--workdir={root}", *ONE_SEARCH, *more)


def history(folder):
    epochs = json.loads((folder / "history.json").read_text())["epochs"]
    return [
        {name: each[name] for name in each if name != "seconds"}
        for each in epochs
    ]


def files_of(root):
    return {
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        # Their names hold the time.
        if file.is_file() and "tfevents" not in file.name
    }


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Work directories of two processes, and of one with two devices."""
    several = tmp_path_factory.mktemp("several")
    single = tmp_path_factory.mktemp("single")
    arguments = ("--config=" + str(workers.CONFIG), *flags(several))
    assert program.main(["prepare", *arguments, *TOGETHER]) == 0
    shutil.copytree(several / "data", single / "data")
    started = [
        *workers.start(STAGES, flags(several, *TOGETHER)),
        *workers.start(STAGES, flags(single, *TWO_DEVICES), processes=1),
    ]
    statuses, words = workers.finish(started)
    assert statuses == [0, 0, 0], words
    return several, single, words


@pytest.mark.long
class TestTwoWorkers:
    @pytest.mark.parametrize("folder", HISTORIES)
    def test_equal_two_replicas_of_one_process(self, roots, folder):
        several, single, _ = roots
        assert history(several / folder) == history(single / folder)

    def test_find_the_same_cells_and_judge_alike(self, roots):
        several, single, _ = roots
        for name in (
            "search/seed-3/architecture.json",
            "evaluation/result.json",
        ):
            found, expected = (
                json.loads((root / name).read_text())
                for root in (several, single)
            )
            losses = [each.pop("losses", [0]) for each in (found, expected)]
            assert found == expected
            assert losses[0] == pytest.approx(losses[1], rel=1e-6)

    def test_first_one_alone_writes(self, roots):
        several, single, _ = roots
        assert files_of(several) == files_of(single)
        for folder in HISTORIES:
            events = list((several / folder / "tensorboard").iterdir())
            assert len(events) == 1, events

    def test_first_one_alone_tells_of_the_work(self, roots):
        _, _, (first, second, _) = roots
        assert "Test accuracy: " in first
        assert "epoch 2/2" in first
        assert "process 2 of 2 (" in second
        assert "epoch" not in second

    def test_stopped_in_turn_end_with_the_same_figures(self, roots, tmp_path):
        several, *_ = roots
        shutil.copytree(several / "data", tmp_path / "data")
        arguments = flags(tmp_path, *TOGETHER)
        # The notice that one is given, all heed.
        started = workers.start("search", arguments, stop=("SIGTERM", 1))
        statuses, words = workers.finish(started)
        assert statuses == [143, 143], words
        folder = tmp_path / "search" / "seed-3"
        assert (folder / "checkpoints" / "ckpt-2.index").exists()
        assert not (folder / "history.json").exists()
        # A process that is gone is noticed, within a minute on a quiet machine.
        started = workers.start("search", arguments, stop=("SIGKILL", 2))
        statuses, words = workers.finish(started, timeout=200)
        assert statuses == [program.USAGE_STATUS, -9], words
        assert "Expected the other processes to answer process 1 of" in words[0]
        assert "Traceback" not in words[0]
        # The other one too.
        started = workers.start(
            "search", arguments, stop=("SIGKILL", 2), victim=0
        )
        statuses, words = workers.finish(started, timeout=200)
        assert statuses == [-9, program.USAGE_STATUS], words
        statuses, words = workers.finish(workers.start("search", arguments))
        assert statuses == [0, 0], words
        assert history(folder) == history(several / "search" / "seed-3")

    def test_of_other_settings_are_refused(self, roots, tmp_path):
        several, *_ = roots
        shutil.copytree(several / "data", tmp_path / "data")
        arguments = flags(tmp_path, *TOGETHER)
        started = workers.start(
            "search", arguments, more={0: ("--config.search.momentum=0.5",)}
        )
        statuses, words = workers.finish(started, timeout=200)
        assert statuses == [program.USAGE_STATUS] * 2
        assert "Expected the configuration, code and images" in words[1]
        # The mended command is welcome.
        assert not (tmp_path / "config.json").exists()
        assert not (tmp_path / "search/seed-3/identity.json").exists()


@pytest.mark.long
def test_workers_equal_one_device():
    """Of both kinds of gradient, in float64: noise would hide a mistake."""
    cases = ("first, traced", "exact, traced")
    started = workers.start_python(
        [["-m", "tests.search.replicas", "2", *cases]] * 2,
        stderr=subprocess.DEVNULL,
    )
    statuses, words = workers.finish(started)
    assert statuses == [0, 0], words
    for lines in words:
        outcomes = [json.loads(line) for line in lines.splitlines()]
        assert tuple(outcome["case"] for outcome in outcomes) == cases
        for outcome in outcomes:
            assert outcome["difference"] < 1e-9, outcome
            assert outcome["replicas"] == 2
            assert outcome["alike"], outcome


def describe(monkeypatch, **description):
    monkeypatch.setenv(cluster.VARIABLE, json.dumps(description))


class TestEnvironmentOfWorkers:
    def test_first_worker_leads(self, monkeypatch):
        monkeypatch.setenv(cluster.VARIABLE, cluster.EXAMPLE)
        processes = cluster.of_environment()
        assert processes.leads
        assert processes.addresses == ("host-0:2222", "host-1:2222")

    def test_chief_is_before_the_workers(self, monkeypatch):
        jobs = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
        for kind, index, expected in (
            ("chief", 0, 0),
            ("worker", 0, 1),
            ("worker", "1", 2),
        ):
            task = {"type": kind, "index": index}
            describe(monkeypatch, cluster=jobs, task=task)
            processes = cluster.of_environment()
            assert processes.addresses == ("a:1", "b:1", "c:1")
            assert processes.index == expected

    @pytest.mark.parametrize(
        ("text", "received"),
        [
            ("", "no such variable"),
            ("{", "no JSON"),
            ("[]", "another structure"),
            ("{}", "another structure"),
            ('{"cluster": {}, "task": 3}', "another structure"),
            (
                '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, '
                '"task": {"type": "worker", "index": 0}}',
                "processes of the type 'ps'",
            ),
            (
                '{"cluster": {"worker": ["a:1"]}, '
                '"task": {"type": "worker", "index": 1}}',
                "no address of worker 1",
            ),
            (
                '{"cluster": {"chief": ["a:1", "b:1"]}, '
                '"task": {"type": "chief", "index": 0}}',
                "more than one process of the type 'chief'",
            ),
            (
                '{"cluster": {"worker": ["host"]}, '
                '"task": {"type": "worker", "index": 0}}',
                "'host', which is no host:port",
            ),
            (
                '{"cluster": {"worker": ["host:65536"]}, '
                '"task": {"type": "worker", "index": 0}}',
                "'host:65536', which is no host:port",
            ),
            (
                '{"cluster": {"worker": [7]}, '
                '"task": {"type": "worker", "index": 0}}',
                "7, which is no host:port",
            ),
        ],
    )
    def test_that_names_no_workers_is_refused(
        self, monkeypatch, text, received
    ):
        monkeypatch.setenv(cluster.VARIABLE, text)
        with pytest.raises(UsageError) as raised:
            cluster.of_environment()
        assert f"Received: {received}" in str(raised.value)
        assert cluster.EXAMPLE in str(raised.value)


def test_script_of_the_page_names_the_workers_of_a_job(monkeypatch):
    page = (workers.ROOT / "docs" / "several-machines.md").read_text("utf-8")
    *_, job = yaml.safe_load_all(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script, _, _ = container["command"][-1].partition("exec ")
    environment = {each["name"]: each["value"] for each in container["env"]}
    for index in range(2):
        answer = subprocess.run(
            ["bash", "-ec", f"{script}\nprintf %s \"$TF_CONFIG\""],
            env={**environment, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            check=True,
            text=True,
        )
        monkeypatch.setenv(cluster.VARIABLE, answer.stdout)
        processes = cluster.of_environment()
        assert processes.index == index
        assert processes.addresses == tuple(
            f"search-{i}.search:2222" for i in range(2)
        )


def test_worker_needs_the_memory_of_its_part(monkeypatch):
    config = base.get_config()
    config.search.batch_size = 8
    config.engine.strategy = "multi_worker"
    monkeypatch.setenv(cluster.VARIABLE, cluster.EXAMPLE)
    of_part = memory.estimate(config)
    config.engine.strategy = "default"
    assert of_part < memory.estimate(config)
    config.search.batch_size = 4
    assert of_part == memory.estimate(config)


class TestGatheringOfWorkers:
    def test_waits_for_all(self):
        addresses = workers.free_addresses(3)
        threads = [
            threading.Thread(
                target=cluster.gather, args=(cluster.Cluster(addresses, i), 60)
            )
            for i in range(3)
        ]
        for thread in threads[:2]:
            thread.start()
        threads[0].join(0.5)
        assert threads[0].is_alive()
        # What TensorFlow does once it has gathered.
        host, port = "", int(addresses[2].rpartition(":")[2])
        with socket.create_server((host, port)):
            for thread in threads[:2]:
                thread.join(60)
                assert not thread.is_alive()

    def test_names_a_worker_that_does_not_come(self, capsys):
        addresses = workers.free_addresses(2)
        with pytest.raises(UsageError, match=f"no answer from {addresses[1]}"):
            cluster.gather(cluster.Cluster(addresses, 0), patience=0.5)
        assert f"waits for {addresses[1]}" in capsys.readouterr().err

    def test_address_that_another_process_has(self):
        with socket.create_server(("", 0)) as taken:
            address = f"localhost:{taken.getsockname()[1]}"
            processes = cluster.Cluster((address, "localhost:1"), 0)
            with pytest.raises(UsageError, match=f"listen at {address}"):
                cluster.gather(processes)


class TestWorkersOfTheCommandLine:
    def test_later_worker_prepares_nothing(
        self, monkeypatch, tmp_path, capsys
    ):
        task = {"type": "worker", "index": 1}
        jobs = {"worker": ["a:1", "b:1"]}
        describe(monkeypatch, cluster=jobs, task=task)
        root = tmp_path / "run"
        arguments = ("--config=" + str(workers.CONFIG), *flags(root, *TOGETHER))
        assert program.main(["prepare", *arguments]) == 2
        assert "one process for the stage prepare" in capsys.readouterr().err
        assert not root.exists()

    @pytest.mark.parametrize(
        ("stage", "expected"),
        [
            ("search", "the environment variable TF_CONFIG"),
            ("pipeline", "Expected one process for the stage pipeline"),
        ],
    )
    def test_workers_that_are_not_named(
        self, monkeypatch, tmp_path, capsys, stage, expected
    ):
        monkeypatch.delenv(cluster.VARIABLE, raising=False)
        arguments = ("--config=" + str(workers.CONFIG), *flags(tmp_path))
        assert program.main([stage, *arguments, *TOGETHER]) == 2
        assert expected in capsys.readouterr().err


def test_device_that_is_no_tpu_is_refused():
    """In a process of its own: it changes what TensorFlow sees."""
    script = (
        "import ml_collections\n"
        "from att_darts_tf.engine import devices\n"
        "engine = {'strategy': 'tpu', 'replicas': 0}\n"
        "devices.strategy(ml_collections.ConfigDict({'engine': engine}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=workers.ROOT,
        capture_output=True,
        text=True,
    )
    *_, last = result.stderr.splitlines()
    assert last.startswith("att_darts_tf.errors.UsageError: Expected a TPU,")
    assert last.endswith("choose another config.engine.strategy")
