"""Processes of a run: one supervisor, and tasks that end when it does.

The local runner starts a task as a child and forgets it when it is killed.
The supervisor therefore holds a lock on a file as long as it lives, in
whatever way it dies, and each task has a thread that waits for that lock.
"""

import contextlib
import fcntl
import os
import pathlib
import signal
import sys
import threading
import uuid
from collections.abc import Iterator

from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError

RUN_VARIABLE = "ATT_DARTS_RUN"
INTERRUPTED_STATUS = 130
_ALIVE = "alive.lock"
_MISTAKE = "mistake.txt"


@contextlib.contextmanager
def supervise(folder: pathlib.Path) -> Iterator[None]:
    """Makes this process the supervisor of the tasks of a run.

    Args:
        folder: Path of the pipeline's folder, which is made if absent. The
            caller holds the work directory for itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _ALIVE, "a", opener=workdir.open_itself) as alive:
        # Tasks of a killed run may be about to end; this waits for them.
        fcntl.flock(alive, fcntl.LOCK_EX)
        identifier = uuid.uuid4().hex
        alive.truncate(0)
        alive.write(identifier)
        alive.flush()
        (folder / _MISTAKE).unlink(missing_ok=True)
        os.environ[RUN_VARIABLE] = identifier
        # The runner's threads wait for their tasks, and would start the next
        # one, if an exception went through them.
        previous = signal.signal(signal.SIGINT, _leave)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
            del os.environ[RUN_VARIABLE]


def end_with_supervisor(folder: pathlib.Path) -> None:
    """Ends this process as soon as its supervisor has ended.

    Args:
        folder: Path of the pipeline's folder.
    """
    identifier = os.environ.get(RUN_VARIABLE)
    # A component that is called on its own has nobody to end with.
    if identifier is None:
        return
    # A task that starts while its supervisor dies may meet the next one.
    if (folder / _ALIVE).read_text() != identifier:
        os.kill(os.getpid(), signal.SIGKILL)

    def wait():
        with open(folder / _ALIVE) as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def hand_over(error: UsageError, folder: pathlib.Path) -> None:
    """Leaves a mistake of the user's for the supervisor."""
    # A name of a file need not be text.
    text = str(error).encode("utf-8", "backslashreplace")
    workdir.write_atomically(folder / _MISTAKE, text)


def mistake(folder: pathlib.Path) -> UsageError | None:
    """Returns what a task handed over in this run."""
    file = folder / _MISTAKE
    return UsageError(file.read_text("utf-8")) if file.exists() else None


def _leave(signum, frame):
    # Written to the descriptor: the handler may have interrupted a `print`.
    os.write(
        sys.stderr.fileno(),
        b"\natt-darts: interrupted; the same command goes on from the last "
        b"checkpoint\n",
    )
    os._exit(INTERRUPTED_STATUS)
