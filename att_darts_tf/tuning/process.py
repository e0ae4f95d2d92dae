"""A function in a process of its own.

TensorFlow keeps what it has traced as long as its process lives: 0.2 GB of each
network of a trial, and more of a supernet. It also keeps a GPU's memory, so the
process that starts others does not use it.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import connection
from typing import Any

from att_darts_tf import startup
from att_darts_tf.engine import preemption
from att_darts_tf.errors import UsageError


def call(module: str, function: str, *args: Any) -> Any:
    """Returns what a function returns in a new process, or raises the same.

    On SIGTERM this process passes it on, waits until the other one has saved,
    and ends like it.

    Args:
        module: String. Where the function is; the new process imports it.
        function: String. Its name.
        *args: Its arguments. They and the result are sent, other than `None`.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_answer, args=(theirs, module, function, args)
    )
    process.start()
    theirs.close()

    def pass_on():
        process.terminate()
        process.join()
        preemption.end()

    preemption.postpone(pass_on)
    try:
        answer = ours.recv()
    except EOFError:
        answer = None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
        ours.close()
        preemption.allow()
    if isinstance(answer, UsageError):
        raise answer
    if answer is not None:
        return answer
    if process.exitcode == preemption.STATUS:
        raise preemption.Preempted
    if process.exitcode == -signal.SIGKILL:
        raise UsageError(
            "Expected a trial's process to end by itself. Received: SIGKILL, "
            "by which systems end one that takes too much memory. Free some; "
            "the same command goes on where it stopped"
        )
    raise RuntimeError(
        f"A trial's process ended with status {process.exitcode}, see above"
    )


def _answer(pipe, module, function, args):
    # Control-C reaches every process of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent():
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with preemption.watching():
        startup.load_tensorflow()
        try:
            found = getattr(importlib.import_module(module), function)
            pipe.send(found(*args))
        except UsageError as error:
            pipe.send(error)
