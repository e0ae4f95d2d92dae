"""What is sent to Vertex AI, and what becomes of its answers.

Against the service's interface on this machine, through the client and its
encryption: requests are checked, not Vertex AI.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time

import google.auth
import google.cloud
import grpc
import ml_collections
import pytest
import yaml
from google.auth import credentials
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from att_darts_tf import __main__ as command_line
from att_darts_tf import pipeline, settings, stages
from att_darts_tf.engine import preemption, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import run as network_run
from att_darts_tf.pipeline import main, share, vertex
from att_darts_tf.space import published
from tests import workers
from tests.network import toy
from tests.pipeline import vertex_server

SETTINGS = {
    "project": "birds",
    "region": "europe-west4",
    "image": "europe-docker.pkg.dev/birds/images/att-darts:1",
    "root": "gs://bucket/pipeline",
    "service_account": "runner@birds.iam.gserviceaccount.com",
    "labels": "team=vision,cost=low",
    "search.accelerator": "NVIDIA_TESLA_T4",
    "search.accelerators": "2",
    "train.cpus": "16",
    "train.memory": "120",
}
DONE = ("SUCCEEDED", "", {"prepare": "SUCCEEDED"})


def run(*changes, workdir="gs://bucket/run", **given):
    """Runs the command; returns its status, output and errors."""
    flags = [f"--config.vertex.{name}={value}" for name, value in given.items()]
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        status = command_line.main(
            [
                *("pipeline", "--config=demo", f"--workdir={workdir}"),
                *("--runner=vertex", *flags, *changes),
            ]
        )
    return status, output.getvalue(), errors.getvalue()


def refused(outcome):
    """Returns the one line of a command that was refused."""
    status, _, errors = outcome
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith("att-darts: ")
    return errors


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The service, and where it is."""
    service = vertex_server.PipelineService()
    folder = tmp_path_factory.mktemp("server")
    patch = pytest.MonkeyPatch()
    jobs = vertex_server.JobService()
    with vertex_server.serving(folder, service, jobs) as (port, certificate):
        # Read once a process.
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(certificate))
        yield service, jobs, f"localhost:{port}"
    patch.undo()


@pytest.fixture
def service(server, monkeypatch):
    """The service as it is when nobody has asked for anything."""
    service, jobs, address = server
    service.__init__()
    jobs.__init__()
    service.answers = [DONE]
    monkeypatch.setattr(vertex, "endpoint", lambda region: address)
    monkeypatch.setattr(
        google.auth,
        "default",
        lambda scopes: (credentials.AnonymousCredentials(), None),
    )
    monkeypatch.setattr(vertex, "PATIENCE", 0.01)
    return service


@pytest.fixture
def sent(service):
    """The request of a whole job, and what the command printed."""
    status, output, errors = run(**SETTINGS)
    assert (status, errors) == (0, "")
    (request,) = service.created
    return request, output


class TestRequest:
    def test_is_of_the_project_and_region(self, sent, service):
        request, _ = sent
        assert request.parent == "projects/birds/locations/europe-west4"
        assert request.pipeline_job_id.startswith("att-darts-")
        assert "projects/birds" in service.metadata["x-goog-request-params"]

    def test_says_who_runs_it_and_where(self, sent):
        job = sent[0].pipeline_job
        assert job.service_account == SETTINGS["service_account"]
        assert job.labels == {"team": "vision", "cost": "low"}
        runtime = job.runtime_config
        assert runtime.gcs_output_directory == "gs://bucket/pipeline"
        assert runtime.failure_policy.name.endswith("FAIL_FAST")

    def test_holds_the_parameters(self, sent):
        message = aiplatform_v1.PipelineJob.pb(sent[0].pipeline_job)
        values = {
            name: json_format.MessageToDict(value)
            for name, value in message.runtime_config.parameter_values.items()
        }
        assert values == {
            "workdir": "gs://bucket/run",
            "seeds": [0, 1],
            "repeats": [0, 1],
        }

    def test_holds_the_compiled_pipeline(self, sent, tmp_path):
        config = settings.load("demo").unlock()
        config.vertex.image = SETTINGS["image"]
        config.vertex.search.accelerator = "NVIDIA_TESLA_T4"
        config.vertex.search.accelerators = 2
        config.vertex.train.update(cpus=16, memory=120)
        file = tmp_path / "pipeline.yaml"
        folders = main.layout.of("gs://bucket/run")
        main.compile_pipeline(
            settings.resolve(config), folders, file, on_vertex=True
        )
        message = aiplatform_v1.PipelineJob.pb(sent[0].pipeline_job)
        received = json_format.MessageToDict(message.pipeline_spec)
        assert received == json.loads(
            json.dumps(yaml.safe_load(file.read_text()))
        )

    def test_gives_every_task_its_image_and_machine(self, sent):
        message = aiplatform_v1.PipelineJob.pb(sent[0].pipeline_job)
        specification = json_format.MessageToDict(message.pipeline_spec)
        machines = {
            name.removeprefix("exec-"): executor["container"]
            for name, executor in (
                specification["deploymentSpec"]["executors"].items()
            )
        }
        assert set(machines) == {
            *("prepare", "search", "select", "train", "evaluate"),
            *("export", "report"),
        }
        for name, container in machines.items():
            assert container["image"] == SETTINGS["image"]
            resources = container["resources"]
            expected = {"train": (16, 120), "export": (4, 16),
                        "report": (2, 8)}.get(name, (8, 32))
            received = resources["cpuLimit"], resources["memoryLimit"]
            assert received == expected
            accelerator = resources.get("accelerator", {})
            assert accelerator.get("resourceType", "") == (
                "NVIDIA_TESLA_T4" if name == "search" else ""
            )
        count = machines["search"]["resources"]["accelerator"]["resourceCount"]
        assert int(count) == 2


    def test_leaves_it_to_the_folders_to_know_what_is_done(self, sent):
        message = aiplatform_v1.PipelineJob.pb(sent[0].pipeline_job)
        specification = json_format.MessageToDict(message.pipeline_spec)
        assert "enableCache" not in json.dumps(specification)


class TestFollowing:
    def test_tells_of_the_job_and_of_each_change(self, service):
        service.answers = [
            ("RUNNING", "", {"prepare": "RUNNING"}),
            ("RUNNING", "", {"prepare": "RUNNING"}),
            ("RUNNING", "", {"prepare": "SUCCEEDED", "search": "PENDING"}),
            ("SUCCEEDED", "", {"prepare": "SUCCEEDED", "search": "SUCCEEDED"}),
        ]
        status, output, _ = run(**SETTINGS)
        assert status == 0
        lines = output.splitlines()
        name = service.created[0].pipeline_job_id
        whole = f"projects/birds/locations/europe-west4/pipelineJobs/{name}"
        assert lines[0] == f"Submitted {whole}"
        assert f"europe-west4/runs/{name}?project=birds" in lines[1]
        assert lines[2:6] == [
            "prepare: running",
            "prepare: succeeded",
            "search: pending",
            "search: succeeded",
        ]
        assert lines[6] == f"The job has succeeded: {whole}"

    @pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
    def test_of_a_job_that_did_not_succeed_ends_with_one_line(
        self, service, state
    ):
        service.answers = [(state, "task search\nhas failed", {})]
        line = refused(run(**SETTINGS))
        assert f"{state.lower()}, task search has failed" in line

    def test_outlives_a_service_that_does_not_answer_for_a_while(
        self, service, monkeypatch
    ):
        service.answers = [("RUNNING", "", {}), DONE]
        meet, times = service._meet, iter([0, 1, 1, 0, 1])

        def sometimes(context):
            if next(times, 0):
                context.abort(grpc.StatusCode.UNAVAILABLE, "later")
            meet(context)

        monkeypatch.setattr(service, "_meet", sometimes)
        monkeypatch.setattr(vertex, "TIMEOUT", 0.5)
        status, output, errors = run(**SETTINGS)
        assert (status, errors) == (0, "")
        assert "has succeeded" in output
        monkeypatch.setattr(vertex, "GRACE", 0)
        service.answers = [DONE]
        times = iter([0, *[1] * 1000])
        assert "later" in refused(run(**SETTINGS))

    def test_may_be_left(self, service, monkeypatch):
        def leave(seconds):
            raise KeyboardInterrupt

        service.answers = [("RUNNING", "", {})]
        monkeypatch.setattr(vertex.time, "sleep", leave)
        status, output, _ = run(**SETTINGS)
        assert status == 0
        assert "the job goes on" in output
        assert f"{service.created[0].pipeline_job_id}:cancel" in output


class TestRefusal:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (grpc.StatusCode.PERMISSION_DENIED, "the role Vertex AI User"),
            (grpc.StatusCode.UNAUTHENTICATED, "application-default login"),
            (grpc.StatusCode.NOT_FOUND, "Name another project"),
            (grpc.StatusCode.INVALID_ARGUMENT, "Mend the setting"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"),
        ],
    )
    def test_by_the_service_is_one_line(self, service, code, words):
        service.refusal = (code, "because\nof this")
        line = refused(run(**SETTINGS))
        assert "because of this" in line
        assert words in line

    def test_of_a_service_that_does_not_answer_is_one_line(
        self, service, monkeypatch
    ):
        monkeypatch.setattr(vertex, "TIMEOUT", 1.0)
        # Nobody listens there.
        monkeypatch.setattr(vertex, "endpoint", lambda region: "localhost:1")
        assert "Look at the connection" in refused(run(**SETTINGS))

    def test_of_a_service_that_takes_too_long_is_one_line(
        self, service, monkeypatch
    ):
        monkeypatch.setattr(vertex, "TIMEOUT", 0.3)
        answered = threading.Event()
        monkeypatch.setattr(
            service, "_meet", lambda context: answered.wait(30)
        )
        assert "Try again" in refused(run(**SETTINGS))
        answered.set()
        # Else the next test would meet it.
        while not service.created:
            time.sleep(0.01)

    @pytest.mark.parametrize("name", ["project", "region", "image", "root"])
    def test_of_what_is_missing_comes_before_the_request(self, service, name):
        given = {**SETTINGS, name: ""}
        assert f"config.vertex.{name} beside" in refused(run(**given))
        assert not service.created

    def test_of_an_unknown_region_names_a_close_one(self, service):
        line = refused(run(**{**SETTINGS, "region": "europe-west44"}))
        assert "Did you mean 'europe-west4'?" in line

    def test_of_a_root_outside_of_buckets(self, service):
        line = refused(run(**{**SETTINGS, "root": "/tmp/pipeline"}))
        assert "gs://bucket/pipeline" in line

    def test_of_replacing_what_is_stale(self, service):
        assert "beside --runner=vertex" in refused(run("--replace", **SETTINGS))
        assert not service.created

    def test_without_the_package_names_the_extra(self, service, monkeypatch):
        monkeypatch.delitem(sys.modules, vertex.__name__)
        monkeypatch.delattr(pipeline, "vertex")
        monkeypatch.delattr(google.cloud, "aiplatform_v1")
        monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
        line = refused(run(**SETTINGS))
        assert "pip install 'att-darts-tf[vertex]'" in line

    def test_without_credentials_names_the_command(self, service, monkeypatch):
        def default(scopes):
            raise google.auth.exceptions.DefaultCredentialsError("none")

        monkeypatch.setattr(google.auth, "default", default)
        assert "gcloud auth" in refused(run(**SETTINGS))

    def test_of_places_that_tasks_do_not_reach(self, service, tmp_path):
        assert "gs://bucket/run" in refused(
            run(workdir=tmp_path / "run", **SETTINGS)
        )
        cells = tmp_path / "cells.json"
        published.get("att_darts").write(cells)
        for name, place in (
            ("data.name", tmp_path),
            ("data.data_dir", tmp_path),
            ("network.cell", cells),
        ):
            line = refused(run(f"--config.{name}={place}", **SETTINGS))
            assert f"config.{name} that tasks" in line
        assert not service.created

    @pytest.mark.parametrize(
        ("strategy", "machines"),
        [("multi_worker", 1), ("default", 2), ("mirrored", 2)],
    )
    def test_of_machines_that_do_not_go_with_the_strategy(
        self, service, strategy, machines
    ):
        flag = f"--config.engine.strategy={strategy}"
        line = refused(run(flag, **SETTINGS, machines=machines))
        assert f"{machines} and {strategy}" in line
        assert not service.created

    def test_of_trials_on_several_machines(self, service):
        line = refused(
            run(
                "--config.engine.strategy=multi_worker",
                "--config.tune.space=network.momentum=linear(0.5,0.9)",
                **SETTINGS,
                machines=2,
            )
        )
        assert "one machine for each trial" in line

    @pytest.mark.parametrize("label", ["Team=vision", "team", "team=a=b"])
    def test_of_labels_that_google_does_not_take(self, service, label):
        line = refused(run(**{**SETTINGS, "labels": label}))
        assert "config.vertex.labels must be" in line

    def test_of_an_accelerator_without_a_number(self, service):
        line = refused(run(**{**SETTINGS, "search.accelerators": 0}))
        assert "config.vertex.search.accelerator and" in line


def executors(request):
    """Returns the containers of a job's tasks by their names."""
    message = aiplatform_v1.PipelineJob.pb(request.pipeline_job)
    specification = json_format.MessageToDict(message.pipeline_spec)
    return {
        name.removeprefix("exec-"): executor["container"]
        for name, executor in (
            specification["deploymentSpec"]["executors"].items()
        )
    }


MACHINES = {
    "project": "birds",
    "region": "europe-west4",
    "image": SETTINGS["image"],
    "service_account": SETTINGS["service_account"],
    "machines": 2,
    "machine_type": "n1-standard-16",
    "labels": ["team=vision", "cost=low"],
    "accelerator": "NVIDIA_TESLA_T4",
    "accelerators": 2,
}


class TestMachines:
    @pytest.fixture
    def jobs(self, server, service, monkeypatch):
        _, jobs, _ = server
        monkeypatch.setenv(share.VARIABLE, json.dumps(MACHINES))
        yield jobs
        for process in sum(jobs.processes.values(), []):
            process.kill()
            process.communicate()

    def test_are_told_to_the_tasks_that_share_and_to_no_others(self, service):
        status, _, errors = run(
            "--config.engine.strategy=multi_worker",
            **SETTINGS,
            machines=2,
            machine_type="n1-standard-16",
        )
        assert (status, errors) == (0, "")
        told = {}
        for name, container in executors(service.created[0]).items():
            environment = {
                each["name"]: each["value"] for each in container["env"]
            }
            if share.VARIABLE in environment:
                told[name] = json.loads(environment[share.VARIABLE])
                # It waits, the machines work.
                assert container["resources"]["cpuLimit"] == 2
                assert "accelerator" not in container["resources"]
        assert set(told) == set(stages.TOGETHER)
        assert told["search"] == MACHINES
        assert told["train"] == {
            **MACHINES, "accelerator": "", "accelerators": 0
        }

    def test_are_a_chief_and_its_workers(self):
        machines = ml_collections.ConfigDict({**MACHINES, "machines": 4})
        job = vertex.custom_job(machines, ["python", "x.py"], name="birds")
        chief, workers = job.job_spec.worker_pool_specs
        assert (chief.replica_count, workers.replica_count) == (1, 3)
        for pool in (chief, workers):
            kind = pool.machine_spec
            assert kind.machine_type == "n1-standard-16"
            assert kind.accelerator_type.name == "NVIDIA_TESLA_T4"
            assert kind.accelerator_count == 2
            assert pool.container_spec.image_uri == SETTINGS["image"]
            assert list(pool.container_spec.command) == ["python", "x.py"]
        assert job.job_spec.service_account == SETTINGS["service_account"]
        assert job.job_spec.scheduling.restart_job_on_worker_restart
        assert job.labels == {"team": "vision", "cost": "low"}
        without = ml_collections.ConfigDict(
            {**MACHINES, "accelerator": "", "accelerators": 0}
        )
        pool, _ = vertex.custom_job(
            without, [], name="birds"
        ).job_spec.worker_pool_specs
        assert pool.machine_spec.accelerator_count == 0

    @pytest.mark.long
    def test_share_a_training_as_processes_that_are_started_by_hand(
        self, jobs, images, tmp_path
    ):
        config = toy.config()
        config.engine.strategy = "multi_worker"
        arguments = {
            "data_dir": images / "data",
            "genotype": images / "cells.json",
            "output_dir": tmp_path / "shared",
            "seed": 1,
        }
        jobs.start = started_together
        result = share.call(network_run.run_training, config, **arguments)
        (job,) = jobs.jobs.values()
        assert job.display_name.startswith("att-darts-training-")
        # The same work again finds it done.
        again = share.call(network_run.run_training, config, **arguments)
        assert again == result
        # By hand, without Vertex AI.
        by_hand = {**arguments, "output_dir": str(tmp_path / "by-hand")}
        work = {
            "module": network_run.__name__,
            "function": "run_training",
            "config": workdir.plain(config),
            "arguments": {name: each if name == "seed" else str(each)
                          for name, each in by_hand.items()},
        }
        processes = started_together(
            [["python", "-m", share.__name__, json.dumps(work)]] * 2
        )
        assert [each.wait(300) for each in processes] == [0, 0]
        expected = workdir.read_json(
            tmp_path / "by-hand/result.json", format=1
        )
        for name in ("train_loss", "train_accuracy", "parameters"):
            assert result[name] == expected[name]
        identity = workdir.read_json(
            tmp_path / "shared/identity.json", format=1
        )
        assert identity["processes"] == 2

    def test_that_work_already_are_waited_for(self, jobs):
        jobs.start = lambda commands: [
            subprocess.Popen([sys.executable, "-c", "import time; "
                              "time.sleep(0.3)"])
        ]
        machines = ml_collections.ConfigDict(MACHINES)
        client = vertex._client(aiplatform_v1.JobServiceClient, machines)
        command = ["python", "-c", "work"]
        vertex.run_job(machines, command, title="search")
        (first,) = jobs.jobs.values()
        # Another of its name, which runs.
        client.create_custom_job(
            parent="projects/birds/locations/europe-west4",
            custom_job=vertex.custom_job(
                machines, command, name=first.display_name
            ),
        )
        vertex.run_job(machines, command, title="search")
        assert len(jobs.jobs) == 2
        # One that has ended is not waited for.
        vertex.run_job(machines, command, title="search")
        assert len(jobs.jobs) == 3
        # Nor one of other machines.
        client.create_custom_job(
            parent="projects/birds/locations/europe-west4",
            custom_job=vertex.custom_job(
                machines, command, name=first.display_name
            ),
        )
        more = ml_collections.ConfigDict({**MACHINES, "machines": 3})
        vertex.run_job(more, command, title="search")
        assert len(jobs.jobs) == 5

    def test_that_are_being_stopped_are_begun_again(self, jobs, monkeypatch):
        jobs.start = lambda commands: [
            subprocess.Popen([sys.executable, "-c", ""])
        ]
        machines = ml_collections.ConfigDict(MACHINES)
        vertex.run_job(machines, ["python"], title="search")
        (first,) = jobs.jobs.values()
        first.state = aiplatform_v1.JobState.JOB_STATE_CANCELLING
        jobs.cancelled.append(first.name)
        vertex.run_job(machines, ["python"], title="search")
        assert len(jobs.jobs) == 2

    def test_that_fail_are_one_line(self, jobs):
        jobs.start = lambda commands: [
            subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        ]
        with pytest.raises(UsageError, match=r"failed, machines ended.*\[3\]"):
            vertex.run_job(
                ml_collections.ConfigDict(MACHINES), ["python"], title="search"
            )

    def test_are_stopped_with_their_task(self, jobs, monkeypatch):
        jobs.start = lambda commands: [
            subprocess.Popen([sys.executable, "-c", "import time; "
                              "time.sleep(60)"])
        ]
        ended = threading.Event()

        def end():
            ended.set()

        def notice_and_wait(seconds):
            preemption.notice()
            assert ended.wait(30)
            raise KeyboardInterrupt

        monkeypatch.setattr(preemption, "end", end)
        monkeypatch.setattr(vertex.time, "sleep", notice_and_wait)
        with preemption.watching(), pytest.raises(
            (KeyboardInterrupt, preemption.Preempted)
        ):
            vertex.run_job(
                ml_collections.ConfigDict(MACHINES), ["python"], title="search"
            )
        assert jobs.cancelled == list(jobs.jobs)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    toy.prepare(folder)
    toy.USEFUL.write(folder / "cells.json")
    return folder


def started_together(commands):
    """Starts the machines of a job, with what Vertex AI tells them.

    Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training
    """
    addresses = workers.free_addresses(len(commands))
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    processes = []
    for i, (_, *arguments) in enumerate(commands):
        task = {"type": "worker" if i else "chief", "index": max(0, i - 1)}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(
                {"cluster": cluster, "task": task, "environment": "cloud"}
            ),
        }
        # Of the task, not of its machines.
        environment.pop(share.VARIABLE, None)
        processes.append(
            subprocess.Popen([sys.executable, *arguments], env=environment)
        )
    return processes
