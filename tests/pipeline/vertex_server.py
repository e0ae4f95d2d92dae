"""As much of two services of Vertex AI as is used, on this machine.

It keeps what it is sent and answers as a test says. It is not Vertex AI:
whether that would run the job, it cannot tell.
"""

import contextlib
import datetime
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.cloud import aiplatform_v1
from google.protobuf import empty_pb2

PACKAGE = "google.cloud.aiplatform.v1"


class PipelineService:
    """What a job is, from request to request.

    Attributes:
        created: The requests that make jobs.
        metadata: The headers of the last request.
        answers: What is told of a job, one answer a look; the last one stays.
        refusal: Status and text by which everything is refused, or `None`.
    """

    def __init__(self):
        self.created, self.metadata = [], {}
        self.answers = []
        self.refusal = None

    def create(self, request, context):
        self._meet(context)
        self.created.append(request)
        job = aiplatform_v1.PipelineJob(request.pipeline_job)
        job.name = f"{request.parent}/pipelineJobs/{request.pipeline_job_id}"
        return job

    def get(self, request, context):
        self._meet(context)
        job = aiplatform_v1.PipelineJob(name=request.name)
        state, error, tasks = self.answers[0]
        if len(self.answers) > 1:
            self.answers.pop(0)
        job.state = aiplatform_v1.PipelineState[f"PIPELINE_STATE_{state}"]
        job.error.message = error
        for number, (name, of_task) in enumerate(tasks.items()):
            detail = aiplatform_v1.PipelineTaskDetail(
                task_id=number, task_name=name, state=of_task
            )
            detail.execution.name = "execution"
            job.job_detail.task_details.append(detail)
        return job

    def methods(self):
        """Returns the methods with their types by name."""
        job = aiplatform_v1.PipelineJob
        return {
            "CreatePipelineJob": (
                self.create,
                aiplatform_v1.CreatePipelineJobRequest,
                job,
            ),
            "GetPipelineJob": (
                self.get,
                aiplatform_v1.GetPipelineJobRequest,
                job,
            ),
        }

    def _meet(self, context):
        self.metadata = dict(context.invocation_metadata())
        if self.refusal is not None:
            context.abort(*self.refusal)


class JobService:
    """Custom jobs, whose machines are processes of this one.

    Attributes:
        jobs: The jobs by name, as they were asked for.
        start: Called with the command of each machine; returns processes.
        cancelled: The names of those that were stopped.
    """

    def __init__(self):
        self.jobs, self.processes, self.cancelled = {}, {}, []
        self.start = lambda commands: []

    def create(self, request, context):
        job = aiplatform_v1.CustomJob(request.custom_job)
        job.name = f"{request.parent}/customJobs/{len(self.jobs)}"
        job.state = aiplatform_v1.JobState.JOB_STATE_PENDING
        commands = [
            list(pool.container_spec.command)
            for pool in job.job_spec.worker_pool_specs
            for _ in range(pool.replica_count)
        ]
        self.processes[job.name] = self.start(commands)
        self.jobs[job.name] = job
        return job

    def get(self, request, context):
        job, state = self.jobs[request.name], aiplatform_v1.JobState
        ended = [process.poll() for process in self.processes[job.name]]
        if request.name in self.cancelled:
            job.state = state.JOB_STATE_CANCELLED
        elif any(ended):
            job.state = state.JOB_STATE_FAILED
            job.error.message = f"machines ended with {ended}"
        elif None in ended:
            job.state = state.JOB_STATE_RUNNING
        else:
            job.state = state.JOB_STATE_SUCCEEDED
        return job

    def list(self, request, context):
        found = [
            job
            for job in self.jobs.values()
            if request.filter == f'display_name="{job.display_name}"'
        ]
        return aiplatform_v1.ListCustomJobsResponse(custom_jobs=found)

    def cancel(self, request, context):
        self.cancelled.append(request.name)
        for process in self.processes[request.name]:
            process.terminate()
        return empty_pb2.Empty()

    def methods(self):
        """Returns the methods with their types by name."""
        job = aiplatform_v1.CustomJob
        return {
            "CreateCustomJob": (
                self.create,
                aiplatform_v1.CreateCustomJobRequest,
                job,
            ),
            "GetCustomJob": (self.get, aiplatform_v1.GetCustomJobRequest, job),
            "ListCustomJobs": (
                self.list,
                aiplatform_v1.ListCustomJobsRequest,
                aiplatform_v1.ListCustomJobsResponse,
            ),
            "CancelCustomJob": (
                self.cancel,
                aiplatform_v1.CancelCustomJobRequest,
                empty_pb2.Empty,
            ),
        }


@contextlib.contextmanager
def serving(folder, *services):
    """Yields the port of a server, and the file of its certificate.

    Args:
        folder: Path of a folder for the certificate.
        *services: `PipelineService`, `JobService`.
    """
    key, certificate = _certificate()
    file = folder / "certificate.pem"
    file.write_bytes(certificate)

    def handler(method, request, answer):
        return grpc.unary_unary_rpc_method_handler(
            method,
            request_deserializer=request.deserialize,
            response_serializer=getattr(
                answer, "serialize", empty_pb2.Empty.SerializeToString
            ),
        )

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                f"{PACKAGE}.{type(service).__name__}",
                {
                    name: handler(*types)
                    for name, types in service.methods().items()
                },
            )
            for service in services
        ]
    )
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        yield port, file
    finally:
        server.stop(None)


def _certificate():
    """Returns a key and a certificate of this machine that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")]
    )
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), False
        )
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
