"""Processes of a run: one supervisor, and tasks that end when it does.

The local runner starts a task as a child and forgets it when it is killed.
The supervisor therefore holds a lock on a file as long as it lives, in
whatever way it dies, and each task has a thread that waits for that lock. It
holds another until it gets SIGTERM, of which the tasks learn in the same way.
They save and end, by which they give back a lock that it waits for then.
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

from att_darts_tf.engine import preemption, workdir
from att_darts_tf.errors import UsageError

RUN_VARIABLE = "ATT_DARTS_RUN"
INTERRUPTED_STATUS = 130
_ALIVE = "alive.lock"
_NO_NOTICE = "no-notice.lock"
_TASKS = "tasks.lock"
_MISTAKE = "mistake.txt"
_MISTAKE_BYTES = 4096


@contextlib.contextmanager
def supervise(folder: pathlib.Path) -> Iterator[None]:
    """Makes this process the supervisor of the tasks of a run.

    Args:
        folder: Path of the pipeline's folder, which is made if absent. The
            caller holds the work directory for itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        open(folder / _ALIVE, "a", opener=workdir.open_itself) as alive,
        open(folder / _NO_NOTICE, "a", opener=workdir.open_itself) as no_notice,
    ):
        # Tasks of a killed run may be about to end; this waits for them.
        fcntl.flock(alive, fcntl.LOCK_EX)
        fcntl.flock(no_notice, fcntl.LOCK_EX)
        identifier = uuid.uuid4().hex
        alive.truncate(0)
        alive.write(identifier)
        alive.flush()
        # Blanks keep room for a mistake, such as a disk that fills up.
        (folder / _MISTAKE).write_text(" " * _MISTAKE_BYTES)
        os.environ[RUN_VARIABLE] = identifier
        # The runner's threads wait for their tasks, and would start the next
        # one, if an exception went through them.
        previous = signal.signal(signal.SIGINT, _leave)

        def pass_on():
            fcntl.flock(no_notice, fcntl.LOCK_UN)
            # One that is only starting cannot hear yet, and is not waited for.
            with open(folder / _TASKS, "a") as tasks:
                fcntl.flock(tasks, fcntl.LOCK_EX)
                preemption.end()

        preemption.postpone(pass_on)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
            del os.environ[RUN_VARIABLE]
            # The end of its tasks is not what went wrong.
            preemption.allow()


def is_supervised() -> bool:
    """Returns whether a supervisor of this machine has started this process.

    A component that is called on its own, or on another machine, has nobody to
    end with.
    """
    return RUN_VARIABLE in os.environ


def end_with_supervisor(folder: pathlib.Path) -> None:
    """Ends this process as soon as its supervisor has ended.

    It passes on the supervisor's notice too, so this process is watching.

    Args:
        folder: Path of the pipeline's folder.
    """
    identifier = os.environ[RUN_VARIABLE]
    # A task that starts while its supervisor dies may meet the next one.
    if (folder / _ALIVE).read_text() != identifier:
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(name, act):
        with open(folder / name) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            act()

    for name, act in (
        (_ALIVE, lambda: os.kill(os.getpid(), signal.SIGKILL)),
        (_NO_NOTICE, preemption.notice),
    ):
        threading.Thread(
            target=wait, args=(name, act), name=name, daemon=True
        ).start()
    # Held as long as this process lives.
    fcntl.flock(os.open(folder / _TASKS, os.O_CREAT), fcntl.LOCK_SH)


def hand_over(error: UsageError, folder: pathlib.Path) -> None:
    """Leaves a mistake of the user's for the supervisor."""
    # A name of a file need not be text.
    message = str(error).encode("utf-8", "backslashreplace")
    message = message[:_MISTAKE_BYTES].ljust(_MISTAKE_BYTES)
    # Over the blanks: a new file would have no room on a full disk.
    file = workdir.open_itself(folder / _MISTAKE, os.O_WRONLY | os.O_CREAT)
    with open(file, "wb", buffering=0) as stream:
        stream.write(message)


def mistake(folder: pathlib.Path) -> UsageError | None:
    """Returns what a task handed over in this run."""
    file = folder / _MISTAKE
    if not file.exists():
        return None
    message = file.read_text("utf-8", errors="ignore").strip()
    return UsageError(message) if message else None


def _leave(signum, frame):
    # Written to the descriptor: the handler may have interrupted a `print`.
    os.write(
        sys.stderr.fileno(),
        b"\natt-darts: interrupted; the same command goes on from the last "
        b"checkpoint\n",
    )
    os._exit(INTERRUPTED_STATUS)
