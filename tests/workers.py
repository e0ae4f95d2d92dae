"""A process of several: runs stages one after the other, and may be stopped.

    python -m tests.workers STAGE,... SIGNAL SAVE [FLAG ...]

`SIGNAL` reaches the process itself when it is about to save for the `SAVE`th
time; 0 is never. Other processes are those of `TF_CONFIG`.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "pipeline" / "tiny.py"


def start(
    stages, flags, *, processes=2, stop=("SIGTERM", 0), victim=1, more=None
):
    """Starts processes that work together on stages of one run.

    Args:
        stages: String, names and commas.
        flags: Sequence of strings.
        processes: Integer; of one, there is no `TF_CONFIG`.
        stop: Name of a signal, and at which save.
        victim: Integer. Which process is stopped.
        more: Mapping of a process to further flags.

    Returns:
        A list of pairs of a `subprocess.Popen` and a file of what it says.
    """
    commands = []
    for i in range(processes):
        name, save = stop if i == victim else ("SIGTERM", 0)
        own = (more or {}).get(i, ())
        commands.append(
            ["-m", "tests.workers", stages, name, str(save), *flags, *own]
        )
    return start_python(commands)


def start_python(commands, *, stderr=subprocess.STDOUT):
    """Starts processes of Python that `TF_CONFIG` tells of each other.

    Args:
        commands: Sequence of arguments of each.
        stderr: As of `subprocess.Popen`.

    Returns:
        As `start`.
    """
    addresses, started = free_addresses(len(commands)), []
    for i, arguments in enumerate(commands):
        environment = dict(os.environ)
        if len(commands) > 1:
            task = {"type": "worker", "index": i}
            environment["TF_CONFIG"] = json.dumps(
                {"cluster": {"worker": addresses}, "task": task}
            )
        said = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=stderr,
        )
        started.append((process, said))
    return started


def free_addresses(count):
    """Returns as many addresses of this machine that nobody listens at."""
    holders = [socket.create_server(("", 0)) for _ in range(count)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in holders]
    for holder in holders:
        holder.close()
    return tuple(addresses)


def finish(started, *, timeout=400):
    """Returns the statuses and the words of processes that were started."""
    end = time.monotonic() + timeout
    statuses, words = [], []
    try:
        for process, said in started:
            statuses.append(process.wait(end - time.monotonic()))
            said.seek(0)
            words.append(said.read())
    finally:
        for process, said in started:
            process.kill()
            process.wait()
            said.close()
    return statuses, words


def main(stages, name, save, *flags):
    from att_darts_tf import __main__ as program
    from att_darts_tf import startup

    startup.load_tensorflow()
    from att_darts_tf.engine import training

    saves, whole = 0, training._State.save

    def counted(state):
        nonlocal saves
        saves += 1
        if saves == int(save):
            os.kill(os.getpid(), signal.Signals[name])
        whole(state)

    training._State.save = counted
    for stage in stages.split(","):
        status = program.main([stage, f"--config={CONFIG}", *flags])
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
