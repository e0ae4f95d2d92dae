"""Tasks end with their supervisor, however it ends."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.pipeline import supervision

SUPERVISOR = """
    import pathlib, subprocess, sys, time
    from att_darts_tf.pipeline import supervision

    folder = pathlib.Path(sys.argv[1])
    with supervision.supervise(folder):
        task = subprocess.Popen([sys.executable, "-c", sys.argv[2], folder])
        task.wait()
"""
TASK = """
    import os, pathlib, sys, time
    from att_darts_tf.engine import preemption
    from att_darts_tf.pipeline import supervision

    folder = pathlib.Path(sys.argv[1])
    with preemption.watching():
        supervision.end_with_supervisor(folder)
        (folder / "task").write_text(str(os.getpid()))
        time.sleep(60)
"""
# As the command line and the runner do around their tasks.
WATCHING_SUPERVISOR = """
    import pathlib, subprocess, sys
    from att_darts_tf.engine import preemption
    from att_darts_tf.pipeline import supervision

    folder = pathlib.Path(sys.argv[1])
    with preemption.watching(), supervision.supervise(folder):
        for _ in range(2):
            task = [sys.executable, "-c", sys.argv[2], folder]
            command = ["sh", "-ec", '"$@"', "sh", *task]
            if subprocess.run(command, stdout=subprocess.PIPE).returncode:
                raise RuntimeError("the task failed")
"""
SAVING_TASK = """
    import os, pathlib, sys, time
    from att_darts_tf.engine import preemption
    from att_darts_tf.pipeline import supervision

    folder = pathlib.Path(sys.argv[1])
    with preemption.watching():
        preemption.postpone()
        supervision.end_with_supervisor(folder)
        (folder / "task").write_text(str(os.getpid()))
        while not preemption.noticed():
            time.sleep(0.01)
        time.sleep(float(os.environ.get("SECONDS_TO_SAVE", "0.5")))
        (folder / "saved").touch()
        preemption.allow()
"""


def start(folder, supervisor=SUPERVISOR, task=TASK, **environment):
    """Starts a supervisor with a task; returns both once they run."""
    (folder / "task").unlink(missing_ok=True)
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(supervisor),
            folder,
            textwrap.dedent(task),
        ],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until((folder / "task").exists)
    wait_until((folder / "task").read_text)
    return supervisor, int((folder / "task").read_text())


def wait_until(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError(condition)


def has_ended(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    # Whoever adopted it may leave it as a zombie.
    status = pathlib.Path("/proc", str(process), "stat")
    return status.exists() and status.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
)
def test_task_ends_with_its_supervisor(tmp_path, number):
    supervisor, task = start(tmp_path)
    os.kill(supervisor.pid, number)
    supervisor.wait(timeout=10)
    wait_until(lambda: has_ended(task))


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_task_saves_before_a_terminated_supervisor_ends(tmp_path, send):
    supervisor, task = start(tmp_path, WATCHING_SUPERVISOR, SAVING_TASK)
    send(supervisor.pid, signal.SIGTERM)
    _, errors = supervisor.communicate(timeout=20)
    assert (supervisor.returncode, errors) == (143, "")
    assert (tmp_path / "saved").exists()
    assert has_ended(task)


def test_second_sigterm_waits_for_no_task(tmp_path):
    supervisor, task = start(
        tmp_path, WATCHING_SUPERVISOR, SAVING_TASK, SECONDS_TO_SAVE="60"
    )
    for _ in range(2):
        supervisor.terminate()
        time.sleep(0.5)
    assert supervisor.wait(timeout=10) == 143
    wait_until(lambda: has_ended(task))
    assert not (tmp_path / "saved").exists()


def test_terminated_supervisor_waits_for_no_task_that_is_only_starting(
    tmp_path,
):
    head = """
    import os, pathlib, sys, time

    (pathlib.Path(sys.argv[1]) / "task").write_text(str(os.getpid()))
    time.sleep(2)
    (pathlib.Path(sys.argv[1]) / "started").touch()
    """
    supervisor, task = start(tmp_path, WATCHING_SUPERVISOR, head + SAVING_TASK)
    supervisor.terminate()
    assert supervisor.wait(timeout=10) == 143
    assert not (tmp_path / "started").exists()
    wait_until(lambda: has_ended(task))
    assert not (tmp_path / "saved").exists()


def test_interruption_is_told_in_one_line(tmp_path):
    supervisor, _ = start(tmp_path)
    os.killpg(supervisor.pid, signal.SIGINT)
    _, errors = supervisor.communicate(timeout=10)
    assert supervisor.returncode == 130
    assert "the same command goes on" in errors


def test_next_run_begins_at_once_after_a_kill(tmp_path):
    supervisor, task = start(tmp_path)
    supervisor.kill()
    with supervision.supervise(tmp_path):
        # Nothing of the last run is left to work beside this one.
        wait_until(lambda: has_ended(task))
    supervisor.wait(timeout=10)


def test_late_task_of_an_earlier_run_ends(tmp_path):
    with supervision.supervise(tmp_path):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(TASK), tmp_path],
            env={**os.environ, supervision.RUN_VARIABLE: "an earlier one"},
            timeout=30,
        )
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "task").exists()


def test_mistake_reaches_the_supervisor_and_not_the_next_run(tmp_path):
    with supervision.supervise(tmp_path):
        assert supervision.mistake(tmp_path) is None
        room = (tmp_path / "mistake.txt").stat()
        for message in ("Expected room", "Expected fun", "Größe" * 2000):
            supervision.hand_over(UsageError(message), tmp_path)
            received = str(supervision.mistake(tmp_path))
            assert received == message[: len(received)]
            assert len(received) >= min(len(message), 2900)
        # A full disk has room for what is there already.
        after = (tmp_path / "mistake.txt").stat()
        assert (room.st_ino, room.st_size) == (after.st_ino, after.st_size)
        supervision.hand_over(UsageError("a\udcff.png"), tmp_path)
        assert str(supervision.mistake(tmp_path)) == "a\\udcff.png"
    with supervision.supervise(tmp_path):
        assert supervision.mistake(tmp_path) is None


def test_a_link_in_place_of_the_lock_is_not_emptied(tmp_path):
    (tmp_path / "mine").write_text("text")
    (tmp_path / "alive.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match="symbolic link"):
        with supervision.supervise(tmp_path):
            pass
    assert (tmp_path / "mine").read_text() == "text"
