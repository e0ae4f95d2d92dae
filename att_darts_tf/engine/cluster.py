"""The processes of several machines, told by the environment.

`TF_CONFIG` is how TensorFlow, Kubernetes' training operator and Vertex AI say
which processes work together and which of them this one is:

    {"cluster": {"worker": ["host-0:2222", "host-1:2222"]},
     "task": {"type": "worker", "index": 0}}

A first process may have the type `chief`. Nothing here imports TensorFlow.
"""

import contextlib
import dataclasses
import json
import os

from att_darts_tf.errors import UsageError

VARIABLE = "TF_CONFIG"
EXAMPLE = (
    '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
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
        if others:
            raise _unfit(f"processes of the type {others[0]!r}")
        addresses = [
            (job, i, address)
            for job in _TYPES
            for i, address in enumerate(jobs.get(job, ()))
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _unfit(f"another structure: {text}") from error
    own = [
        at
        for at, (job, i, _) in enumerate(addresses)
        if (job, i) == (kind, index)
    ]
    if not own:
        raise _unfit(f"no address of {kind} {index}, this process")
    if len(jobs.get("chief", ())) > 1:
        raise _unfit("more than one process of the type 'chief'")
    return Cluster(tuple(address for *_, address in addresses), own[0])


class Alone:
    """The team of a process without others; see `devices.team`.

    Attributes:
        leads: Boolean. Whether this process is the one that writes.
        together: Boolean. Whether there are others.
    """

    leads = True
    together = False

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
