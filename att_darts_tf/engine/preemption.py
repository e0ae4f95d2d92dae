"""SIGTERM: the notice that a process gets before its machine is taken away.

Whoever asks for it, by `watching`, ends with a status that says so: at once,
or after the next save where something would be lost. A second SIGTERM ends at
once in any case, and so does one that nobody watches for.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

# As a shell reports a process that SIGTERM has ended.
STATUS = 128 + signal.SIGTERM

_watch = None


class Preempted(SystemExit):
    """Ends a process that was given notice and has saved."""

    def __init__(self):
        super().__init__(STATUS)


class _Watch:
    """What a process knows of its end.

    Args:
        farewell: String. What it says when it ends at once.
    """

    def __init__(self, farewell):
        self.farewell = farewell.encode()
        self.lock = threading.Lock()
        self.noticed = False
        self.answer = None

    def listen(self, pipe):
        """Reads the numbers of signals until the pipe is closed."""
        patient = True
        while number := os.read(pipe, 1):
            if number[0] == signal.SIGTERM:
                self.notice(patient)
                patient = False

    def notice(self, patient):
        with self.lock:
            self.noticed = True
            if patient and self.answer is not None:
                threading.Thread(target=self.answer, daemon=True).start()
            else:
                self.end()

    def end(self):
        os.write(2, self.farewell)
        os._exit(STATUS)


@contextlib.contextmanager
def watching(farewell: str = "") -> Iterator[None]:
    """Ends this process on SIGTERM as this module's head says.

    A thread does, since the main one may be within TensorFlow for a minute,
    where Python's handlers wait. Belongs into the main thread of a program.

    Args:
        farewell: String. Lines for standard error, if it ends at once.
    """
    global _watch
    ours, signals = os.pipe()
    os.set_blocking(signals, False)
    outer, _watch = _watch, _Watch(farewell)
    # Without a handler, no number would be written to the pipe.
    handler = signal.signal(signal.SIGTERM, lambda number, frame: None)
    before = signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
    listener = threading.Thread(
        target=_watch.listen, args=(ours,), name="preemption", daemon=True
    )
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, handler)
        os.close(signals)
        listener.join()
        os.close(ours)
        _watch = outer


def listen_again() -> None:
    """Takes SIGTERM back from a library that has taken it, while watching."""
    if _watch is not None:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def notice() -> None:
    """Gives this process, which is watching, the notice of a SIGTERM."""
    _watch.notice(patient=True)


def end() -> None:
    """Ends this process, which is watching, whatever it is doing."""
    _watch.end()


def noticed() -> bool:
    """Returns whether this process is to save and end."""
    return _watch is not None and _watch.noticed


def postpone(answer: Callable[[], None] = lambda: None) -> None:
    """Says that something would be lost, until `allow` is called.

    Args:
        answer: Called when notice is given, in a thread of its own.
    """
    if _watch is not None:
        _watch.answer = answer


def allow() -> None:
    """Says that nothing would be lost; raises `Preempted` after a notice."""
    if _watch is not None:
        with _watch.lock:
            _watch.answer = None
            if _watch.noticed:
                raise Preempted
