"""What is sent to Vertex AI, and what becomes of its answers.

Against the service's interface on this machine, through the client and its
encryption: requests are checked, not Vertex AI.
"""

import contextlib
import io
import json
import sys

import google.auth
import google.cloud
import grpc
import pytest
import yaml
from google.auth import credentials
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from att_darts_tf import __main__ as command_line
from att_darts_tf import pipeline, settings
from att_darts_tf.pipeline import main, vertex
from att_darts_tf.space import published
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
    with vertex_server.serving(service, folder) as (port, certificate):
        # Read once a process.
        patch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(certificate))
        yield service, f"localhost:{port}"
    patch.undo()


@pytest.fixture
def service(server, monkeypatch):
    """The service as it is when nobody has asked for anything."""
    service, address = server
    service.__init__()
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
        monkeypatch.setattr(
            service,
            "_meet",
            lambda context: vertex_server.futures.thread.threading.Event().wait(
                1.0
            ),
        )
        assert "Try again" in refused(run(**SETTINGS))

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
        line = refused(
            run("--config.engine.strategy=multi_worker", **SETTINGS)
        )
        assert "custom jobs" in line
        assert not service.created

    @pytest.mark.parametrize("label", ["Team=vision", "team", "team=a=b"])
    def test_of_labels_that_google_does_not_take(self, service, label):
        line = refused(run(**{**SETTINGS, "labels": label}))
        assert "config.vertex.labels must be" in line

    def test_of_an_accelerator_without_a_number(self, service):
        line = refused(run(**{**SETTINGS, "search.accelerators": 0}))
        assert "config.vertex.search.accelerator and" in line
