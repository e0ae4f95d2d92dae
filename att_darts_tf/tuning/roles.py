"""What a process does in a tuning, told by KerasTuner's variables.

The chief chooses values for the others, the workers try them:

    KERASTUNER_ORACLE_IP=10.0.0.1     where the chief listens
    KERASTUNER_ORACLE_PORT=8000
    KERASTUNER_TUNER_ID=chief         or another name for each worker

Nothing here imports TensorFlow or KerasTuner.
"""

import os

from att_darts_tf.errors import UsageError

ALONE, CHIEF, WORKER = "alone", "chief", "worker"
_IP, _PORT, _ID = (
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
    "KERASTUNER_TUNER_ID",
)


def of_environment() -> str:
    """Returns `ALONE`, `CHIEF` or `WORKER`, or raises `UsageError`."""
    # One that is empty counts for KerasTuner too.
    if _IP not in os.environ:
        return ALONE
    for name, example in (
        (_IP, "10.0.0.1"),
        (_PORT, "8000"),
        (_ID, "chief, or worker-0"),
    ):
        if not os.environ.get(name):
            raise UsageError(
                f"Expected the variables {_IP}, {_PORT} and {_ID}, or none of "
                f"them. Received: no {name}. Set it, as {example}"
            )
    port = os.environ[_PORT]
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(
            f"Expected {_PORT} from 1 to 65535. Received: {port!r}. Give the "
            "port that the chief listens on"
        )
    # What KerasTuner goes by.
    return CHIEF if "chief" in os.environ[_ID] else WORKER


def address() -> str:
    """Returns where the chief listens, `host:port`."""
    return f"{os.environ[_IP]}:{os.environ[_PORT]}"
