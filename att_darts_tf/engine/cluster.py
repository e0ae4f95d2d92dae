"""Which of several processes this one is, by the variable TF_CONFIG.

Read without TensorFlow, so that a mistake in it is told at once.
"""

import dataclasses
import json
import os

import ml_collections

from att_darts_tf.errors import UsageError

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# The first kind, where there is one, is the first of all workers.
_KINDS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the processes that train together.

    Args:
        index: Integer. Its number among them; the first is the chief, which
            alone writes files.
        count: Integer. How many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        return self.index == 0


def member(config: ml_collections.ConfigDict) -> Member:
    """Returns which process this is; the only one but for `multi_worker`."""
    if config.engine.strategy != "multi_worker":
        return Member()
    text = os.environ.get(VARIABLE, "")
    try:
        return _read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"Expected the environment variable {VARIABLE} to name every "
            f"worker and this one, as {_EXAMPLE}, beside config.engine."
            f"strategy=multi_worker. Received: {text or 'none'!r}. Set it on "
            "every machine"
        ) from error


def _read(description) -> Member:
    addresses = description["cluster"]
    if not set(addresses) <= set(_KINDS):
        raise ValueError(f"Expected tasks of {_KINDS}")
    tasks = [
        (kind, index)
        for kind in _KINDS
        for index, address in enumerate(addresses.get(kind, ()))
        if address.rpartition(":")[2].isdigit()
    ]
    if len(tasks) != sum(map(len, addresses.values())):
        raise ValueError("Expected addresses of the form HOST:PORT")
    task = description["task"]
    own = (task["type"], int(task["index"]))
    return Member(tasks.index(own), len(tasks))
