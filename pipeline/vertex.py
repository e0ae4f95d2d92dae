"""Runs the pipeline on Vertex AI, and work of its tasks on several machines.

What is submitted is the pipeline of this machine, with an image and machines of
its own for every task. Nothing else imports Google's client.
"""

import contextlib
import datetime
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import google.auth.exceptions
import ml_collections
import yaml
from google.api_core import client_options, exceptions
from google.cloud import aiplatform_v1
from google.cloud.aiplatform.constants import base as constants
from google.protobuf import json_format

from att_darts_tf.engine import preemption
from att_darts_tf.errors import UsageError
from att_darts_tf.pipeline import pipeline
from att_darts_tf.space import registry

# Seconds between two looks at a job, and until a request is given up.
PATIENCE = 30.0
TIMEOUT = 60.0
# Seconds for which a service may not answer while a job is followed.
GRACE = 600.0
_POLICIES = {
    "slow": "PIPELINE_FAILURE_POLICY_FAIL_SLOW",
    "fast": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
}
_State = aiplatform_v1.PipelineState
_ENDED = (
    _State.PIPELINE_STATE_SUCCEEDED,
    _State.PIPELINE_STATE_FAILED,
    _State.PIPELINE_STATE_CANCELLED,
)
_CONSOLE = "https://console.cloud.google.com/vertex-ai/pipelines/locations"
_Job = aiplatform_v1.JobState
_JOB_ENDED = (
    _Job.JOB_STATE_SUCCEEDED,
    _Job.JOB_STATE_PARTIALLY_SUCCEEDED,
    _Job.JOB_STATE_FAILED,
    _Job.JOB_STATE_CANCELLED,
    _Job.JOB_STATE_EXPIRED,
)
_PASSING = (
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.RetryError,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
    google.auth.exceptions.TransportError,
)


def submit(
    settings: ml_collections.ConfigDict, compiled: str | os.PathLike
) -> Iterator[str]:
    """Submits a compiled pipeline and tells of its tasks until it ends.

    Args:
        settings: `config.vertex`.
        compiled: Path of the file.

    Yields:
        Lines to print, as things happen.
    """
    check(settings)
    client = _client(aiplatform_v1.PipelineServiceClient, settings)
    with open(compiled, encoding="utf-8") as file:
        specification = yaml.safe_load(file)
    begun = datetime.datetime.now(datetime.UTC)
    with _one_line(settings):
        job = client.create_pipeline_job(
            parent=f"projects/{settings.project}/locations/{settings.region}",
            pipeline_job=request(settings, specification),
            pipeline_job_id=f"{pipeline.NAME}-{begun:%Y%m%d%H%M%S}",
            timeout=TIMEOUT,
        )
    *_, number = job.name.rpartition("/")
    yield f"Submitted {job.name}"
    yield (
        f"Console: {_CONSOLE}/{settings.region}/runs/{number}?project="
        f"{settings.project}"
    )
    try:
        yield from _follow(client, job.name, settings)
    except KeyboardInterrupt:
        yield (
            "Following has ended, the job goes on. It stops by: curl -X POST "
            '-H "Authorization: Bearer $(gcloud auth print-access-token)" '
            f"https://{endpoint(settings.region)}/v1/{job.name}:cancel"
        )


def run_job(
    machines: ml_collections.ConfigDict, command: Sequence[str], *, title: str
) -> None:
    """Runs a command on several machines, and waits until it has ended.

    The same work on the same machines that runs already, since the task that
    started it was killed, is waited for; one that is being stopped is waited
    for too, and begun again. On SIGTERM the job is stopped, which saves.

    Args:
        machines: As `pipeline.define` tells a task.
        command: What each machine runs.
        title: String. What the work is, as a part of the job's name.
    """
    client = _client(aiplatform_v1.JobServiceClient, machines)
    work = [machines.to_json(sort_keys=True), *command]
    digest = hashlib.sha256("\0".join(work).encode()).hexdigest()
    name = f"{pipeline.NAME}-{title}-{digest[:16]}"
    parent = f"projects/{machines.project}/locations/{machines.region}"

    def ended(job):
        """Returns a job as it is when it has ended."""
        while job.state not in _JOB_ENDED:
            time.sleep(PATIENCE)
            job = _look(
                machines, client.get_custom_job, name=job.name, timeout=TIMEOUT
            )
        return job

    job = None

    def cancel():
        # One that is just being made is stopped below.
        if job is None:
            return
        try:
            client.cancel_custom_job(name=job.name, timeout=TIMEOUT)
        finally:
            preemption.end()

    preemption.postpone(cancel)
    try:
        found = _look(
            machines,
            client.list_custom_jobs,
            request=aiplatform_v1.ListCustomJobsRequest(
                parent=parent, filter=f'display_name="{name}"'
            ),
            timeout=TIMEOUT,
        )
        for each in found:
            if each.state == _Job.JOB_STATE_CANCELLING:
                ended(each)
            elif each.state not in _JOB_ENDED:
                job = each
        if job is None:
            if preemption.noticed():
                raise preemption.Preempted
            with _one_line(machines):
                job = client.create_custom_job(
                    parent=parent,
                    custom_job=custom_job(machines, command, name=name),
                    timeout=TIMEOUT,
                )
        print(f"{title}: {machines.machines} machines, {job.name}", flush=True)
        if preemption.noticed():
            cancel()
        job = ended(job)
    finally:
        preemption.allow()
    if job.state != _Job.JOB_STATE_SUCCEEDED:
        reason = " ".join(job.error.message.split()) or "no reason given"
        raise UsageError(
            f"Expected the job {job.name} to succeed. Received: "
            f"{job.state.name.removeprefix('JOB_STATE_').lower()}, {reason}. "
            "Look at its log in the console; the same command goes on from "
            "what is done"
        )


def custom_job(
    machines: ml_collections.ConfigDict, command: Sequence[str], *, name: str
) -> aiplatform_v1.CustomJob:
    """Returns a job of several machines that run the same.

    Args:
        machines: As `pipeline.define` tells a task.
        command: What each machine runs.
        name: String. The job's.
    """

    def pool(count):
        kind = {"machine_type": machines.machine_type}
        if machines.accelerators:
            kind |= {
                "accelerator_type": machines.accelerator,
                "accelerator_count": machines.accelerators,
            }
        return aiplatform_v1.WorkerPoolSpec(
            machine_spec=kind,
            replica_count=count,
            container_spec={
                "image_uri": machines.image,
                "command": list(command),
                "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
            },
        )

    return aiplatform_v1.CustomJob(
        display_name=name,
        job_spec=aiplatform_v1.CustomJobSpec(
            # The first pool is the chief, the second one its workers.
            worker_pool_specs=[pool(1), pool(machines.machines - 1)],
            service_account=machines.service_account,
            # All end where one is lost, and go on together.
            scheduling={"restart_job_on_worker_restart": True},
        ),
        labels=dict(label.split("=") for label in machines.labels),
    )


def request(
    settings: ml_collections.ConfigDict, specification: Mapping[str, Any]
) -> aiplatform_v1.PipelineJob:
    """Returns the job of a compiled pipeline.

    Args:
        settings: `config.vertex`.
        specification: The compiled pipeline, whose parameters have defaults.
    """
    job = aiplatform_v1.PipelineJob(
        display_name=pipeline.NAME,
        runtime_config=aiplatform_v1.PipelineJob.RuntimeConfig(
            gcs_output_directory=settings.root,
            failure_policy=_POLICIES[settings.failure_policy],
        ),
        service_account=settings.service_account,
        labels=dict(label.split("=") for label in settings.labels),
    )
    definitions = specification["root"]["inputDefinitions"]["parameters"]
    message = aiplatform_v1.PipelineJob.pb(job)
    json_format.ParseDict(specification, message.pipeline_spec)
    for name, definition in definitions.items():
        json_format.ParseDict(
            definition["defaultValue"],
            message.runtime_config.parameter_values[name],
        )
    return job


def endpoint(region: str) -> str:
    """Returns the address of the service in a region."""
    return f"{region}-aiplatform.googleapis.com"


def check(settings: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for settings that no job can be submitted with."""
    for name in ("project", "region", "image", "root"):
        if not settings[name]:
            raise UsageError(
                f"Expected config.vertex.{name} beside --runner=vertex. "
                f"Received: none. Give --config.vertex.{name}="
            )
    regions = tuple(sorted(constants.SUPPORTED_REGIONS))
    if settings.region not in regions:
        raise registry.unknown_name(
            "region of Vertex AI", regions, settings.region
        )
    if not re.fullmatch(r"gs://[^/]+.*", settings.root):
        raise UsageError(
            "Expected config.vertex.root in a bucket, as gs://bucket/pipeline. "
            f"Received: {settings.root}. Give another"
        )


def _follow(client, name, settings) -> Iterator[str]:
    """Yields a line for each task that changes, until the job has ended."""
    seen = {}
    while True:
        job = _look(
            settings, client.get_pipeline_job, name=name, timeout=TIMEOUT
        )
        for task in job.job_detail.task_details:
            state = task.state.name.lower()
            # Loops are tasks of Vertex too, without a name of ours.
            if seen.get(task.task_id) != state and task.execution:
                yield f"{task.task_name}: {state}"
            seen[task.task_id] = state
        if job.state in _ENDED:
            break
        time.sleep(PATIENCE)
    if job.state != _State.PIPELINE_STATE_SUCCEEDED:
        reason = " ".join(job.error.message.split()) or "no reason given"
        raise UsageError(
            f"Expected the job {name} to succeed. Received: "
            f"{job.state.name.removeprefix('PIPELINE_STATE_').lower()}, "
            f"{reason}. Look at its tasks in the console; the same command "
            "goes on from what is done"
        )
    yield f"The job has succeeded: {name}"


def _client(kind, settings):
    """Returns a client of a service in a region.

    Args:
        kind: Its class.
        settings: What has the `region`.
    """
    return kind(
        client_options=client_options.ClientOptions(
            api_endpoint=endpoint(settings.region)
        ),
        credentials=_credentials(),
    )


def _credentials():
    """Returns those of the environment, or raises `UsageError`."""
    try:
        return google.auth.default(
            scopes=["https://www.googleapis.com/auth/cloud-platform"]
        )[0]
    except google.auth.exceptions.DefaultCredentialsError as error:
        raise UsageError(
            "Expected credentials of Google Cloud. Received: none. Run: gcloud "
            "auth application-default login"
        ) from error


def _first(remedies, error):
    return next(
        remedy for kind, remedy in remedies.items() if isinstance(error, kind)
    )


def _look(settings, call, **arguments):
    """Returns an answer, for which a service is asked again for a while."""
    begun = time.monotonic()
    while True:
        try:
            with _one_line(settings):
                return call(**arguments)
        except UsageError as error:
            passing = isinstance(error.__cause__, _PASSING)
            if not passing or time.monotonic() - begun > GRACE:
                raise
        time.sleep(PATIENCE)


@contextlib.contextmanager
def _one_line(settings) -> Iterator[None]:
    """Raises what the service refuses as `UsageError`."""
    remedies = {
        exceptions.PermissionDenied: "Let the account have the role Vertex AI "
        "User in it, and use the service account",
        exceptions.Unauthenticated: "Run: gcloud auth application-default "
        "login",
        exceptions.NotFound: "Name another project, or enable "
        "aiplatform.googleapis.com in it",
        exceptions.InvalidArgument: "Mend the setting that it names",
        exceptions.ResourceExhausted: "Ask for quota, or wait",
        exceptions.DeadlineExceeded: "Try again",
        exceptions.ServiceUnavailable: "Look at the connection, and try again",
        exceptions.InternalServerError: "Try again",
        exceptions.Unknown: "Try again",
        # Retried for as long as the time-out allows.
        exceptions.RetryError: "Look at the connection, and try again",
        google.auth.exceptions.TransportError: "Look at the connection, and "
        "try again",
    }
    try:
        yield
    except tuple(remedies) as error:
        text = " ".join(str(getattr(error, "message", error)).split())
        raise UsageError(
            f"Expected Vertex AI to take the job in config.vertex.project="
            f"{settings.project}, region {settings.region}. Received: "
            f"{type(error).__name__}: {text}. {_first(remedies, error)}"
        ) from error
