"""One process at a time in a folder.

On this machine the system's lock says so. Object stores have none: there each
process leaves a claim, a small file of its own that it renews. Whoever comes
writes its claim first and looks for others then, so of two that come at once
at least one sees the other. A claim that has not been renewed for `LEASE`
seconds is that of a process that was killed.
"""

import _thread
import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
import uuid

from att_darts_tf import storage
from att_darts_tf.errors import UsageError

LEASE = 90.0
RENEWAL = 20.0
LOCK = ".lock"


def hold(folder: storage.Path) -> contextlib.AbstractContextManager:
    """Holds a folder, which is made if absent, until what it returns is closed.

    Raises `UsageError` where the folder cannot be written, or where another
    process holds it.

    Args:
        folder: Path of the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if storage.is_remote(folder):
            return _Claim(folder)
        lock = open(folder / LOCK, "a")
    except OSError as error:
        raise UsageError(
            f"Expected a folder that can be written: {folder}. Received: "
            f"{error.strerror}. Choose another --workdir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(
            f"Expected {folder} for this process alone. Received: another "
            "process is working in it. Wait for it, or use another --workdir"
        ) from error
    # Closing the file gives the lock back, as the end of a process does.
    return lock


class _Claim(contextlib.AbstractContextManager):
    """Holds a remote folder, in a thread of its own that renews the claim.

    A process whose claim went, since it was stopped for longer than the lease
    or could not reach the file system, is interrupted: another may have begun.

    Args:
        folder: `storage.RemotePath` of an existing folder.
    """

    def __init__(self, folder: storage.RemotePath):
        self.folder = folder
        self.file = folder / f"{LOCK}-{uuid.uuid4().hex}"
        self._closed = threading.Event()
        try:
            self._renew()
            self._refuse_others()
        except BaseException:
            self.file.unlink(missing_ok=True)
            raise
        self._thread = threading.Thread(
            target=self._keep, name="claim", daemon=True
        )
        self._thread.start()

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closed.set()
        self._thread.join()
        self.file.unlink(missing_ok=True)

    def _renew(self):
        with storage.replacing(self.file) as file:
            file.write_text(
                f"{time.time()} process {os.getpid()} on {socket.gethostname()}"
            )

    def _refuse_others(self):
        for file in self.folder.iterdir():
            if file == self.file or not file.name.startswith(f"{LOCK}-"):
                continue
            try:
                renewed, owner = file.read_text().split(maxsplit=1)
            except FileNotFoundError:
                continue
            left = float(renewed) + LEASE - time.time()
            if left > 0:
                raise UsageError(
                    f"Expected {self.folder} for this process alone. Received: "
                    f"another process is working in it, {owner}. Wait for it, "
                    "or use another --workdir; if it was killed, wait "
                    f"{left:.0f} s"
                )
            file.unlink(missing_ok=True)

    def _keep(self):
        renewed = time.monotonic()
        while not self._closed.wait(RENEWAL):
            begun = time.monotonic()
            try:
                held = self.file.exists()
                if held:
                    self._renew()
            except OSError:
                # Tried again for as long as nobody else may begin.
                held, begun = True, renewed
            late = time.monotonic() - renewed > LEASE - RENEWAL
            renewed = begun
            if late or not held:
                print(
                    f"att-darts: the claim on {self.folder} was lost: it could "
                    "not be renewed in time",
                    file=sys.stderr,
                )
                _thread.interrupt_main()
                return
