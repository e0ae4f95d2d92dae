"""The processes of several machines, told by the environment.

`TF_CONFIG` is how TensorFlow, Kubernetes' training operator and Vertex AI say
which processes work together and which of them this one is:

    {"cluster": {"worker": ["host-0:2222", "host-1:2222"]},
     "task": {"type": "worker", "index": 0}}

A first process may have the type `chief`. Nothing here imports TensorFlow.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import socket
import sys
import time

import ml_collections

from att_darts_tf.errors import UsageError

VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# Seconds that processes may be started apart.
PATIENCE = 600
_TYPES = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes that work together.

    Attributes:
        addresses: Tuple of strings, `host:port` of every process. The first
            one leads: it alone writes.
        index: Integer. Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def leads(self) -> bool:
        return self.index == 0

    def __str__(self) -> str:
        return (
            f"process {self.index + 1} of {len(self.addresses)} "
            f"({', '.join(self.addresses)})"
        )


def is_given() -> bool:
    """Returns whether the environment names processes at all."""
    return bool(os.environ.get(VARIABLE))


def of_environment() -> Cluster:
    """Returns what `TF_CONFIG` says, or raises `UsageError`."""
    if not is_given():
        raise _unfit("no such variable")
    text = os.environ[VARIABLE]
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unfit(f"no JSON: {error}") from error
    try:
        jobs, task = described["cluster"], described["task"]
        kind, index = task["type"], int(task["index"])
        others = [job for job in (*jobs, kind) if job not in _TYPES]
        addresses = [
            (job, i, address)
            for job in _TYPES
            for i, address in enumerate(jobs.get(job, ()))
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _unfit(f"another structure: {text}") from error
    if others:
        raise _unfit(f"processes of the type {others[0]!r}")
    own = [
        at
        for at, (job, i, _) in enumerate(addresses)
        if (job, i) == (kind, index)
    ]
    if not own:
        raise _unfit(f"no address of {kind} {index}, this process")
    if len(jobs.get("chief", ())) > 1:
        raise _unfit("more than one process of the type 'chief'")
    for *_, address in addresses:
        fits = re.fullmatch(r"\S+:(\d{1,5})", str(address))
        if fits is None or int(fits[1]) > 65535:
            raise _unfit(f"{address!r}, which is no host:port")
    return Cluster(tuple(address for *_, address in addresses), own[0])


def images_of(engine: ml_collections.ConfigDict, batch_size: int) -> int:
    """Returns how many images of a batch a process computes at most.

    Args:
        engine: The configuration's section.
        batch_size: Of the whole batch.
    """
    if engine.strategy != "multi_worker":
        return batch_size
    return -(-batch_size // len(of_environment().addresses))


def gather(processes: Cluster, patience: float = PATIENCE) -> None:
    """Waits until every process is there.

    TensorFlow waits too, but for an hour, in which nothing else runs and no
    signal is heard. Each process listens at its address until it has reached
    those of all others, who then listen there, or TensorFlow does for them.

    Args:
        processes: The processes.
        patience: Seconds until `UsageError` is raised.
    """
    ours = processes.addresses[processes.index]
    missing = [each for each in processes.addresses if each != ours]
    end = time.monotonic() + patience
    try:
        listener = socket.create_server(("", _port(ours)))
    except OSError as error:
        raise UsageError(
            f"Expected to listen at {ours}, as {VARIABLE} says of this "
            f"process. Received: {error.strerror}. Wait for an earlier run's "
            "end, or name another port"
        ) from error
    with listener:
        told = False
        while missing:
            missing = [each for each in missing if not _answers(each)]
            if missing and not told:
                told = True
                waits = f"{processes} waits for {', '.join(missing)}"
                print(waits, file=sys.stderr, flush=True)
            if missing and time.monotonic() > end:
                raise UsageError(
                    f"Expected every process within {patience:.0f} s. "
                    f"Received: no answer from {', '.join(missing)}. Start "
                    f"one at every address of {VARIABLE}, and let them reach "
                    "each other there"
                )
            time.sleep(0.2 if missing else 0)


def _answers(address):
    host, _, _ = address.rpartition(":")
    try:
        socket.create_connection((host, _port(address)), timeout=5).close()
    except OSError:
        return False
    return True


def _port(address):
    return int(address.rpartition(":")[2])


class Alone:
    """The team of a process without others; see `devices.team`.

    Attributes:
        leads: Boolean. Whether this process is the one that writes.
        size: Integer. How many processes there are.
    """

    leads = True
    size = 1

    def agree(self, text: str, what: str) -> None:
        """Raises `UsageError` where the leading process gives another text.

        Args:
            text: String, compared by its digest.
            what: String. What it tells, in the plural.
        """
        # As many bits as a float of 64 holds.
        own = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
        if self.from_leader(own) != own:
            raise UsageError(
                f"Expected the {what} of the first process. Received: others. "
                "Start every process with the same command, code and files"
            )

    def from_leader(self, number: int) -> int:
        """Returns the number that the leading process gives."""
        return number

    def wait(self) -> None:
        """Returns once every process is here."""
        self.from_leader(0)

    def sums(self, numbers: list[float]) -> list[float]:
        """Returns sums over all processes."""
        return numbers

    def telling_of_the_lost(self) -> contextlib.AbstractContextManager:
        """Raises `UsageError` where another process is gone."""
        return contextlib.nullcontext()


ALONE = Alone()


def _unfit(received: str) -> UsageError:
    return UsageError(
        f"Expected the environment variable {VARIABLE} to name the processes "
        f"that work together, as {EXAMPLE}. Received: {received}. Set it for "
        "every process, or give --config.engine.strategy=default"
    )
