"""What SIGTERM does to a process that watches for it."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from att_darts_tf.engine import preemption

HEAD = """
import hashlib, os, signal, sys, time
from att_darts_tf.engine import preemption

def call_that_looks_at_no_signal():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def wait_for_notice():
    while not preemption.noticed():
        time.sleep(0.01)
"""


def start(body):
    """Starts a program, and returns it once it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end_of(process):
    """Returns the status and what was written to standard error."""
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_process_with_nothing_to_lose_ends_at_once_also_within_a_long_call():
    process = start("""
        with preemption.watching("bye\\n"):
            print("ready", flush=True)
            call_that_looks_at_no_signal()
    """)
    process.terminate()
    assert end_of(process) == (143, "bye\n")


def test_process_with_something_to_lose_ends_when_it_has_saved():
    process = start("""
        with preemption.watching("bye\\n"):
            preemption.postpone()
            print("ready", flush=True)
            wait_for_notice()
            time.sleep(0.5)
            print("saved", file=sys.stderr)
            preemption.allow()
            print("too late", file=sys.stderr)
    """)
    process.terminate()
    assert end_of(process) == (143, "saved\n")


def test_second_signal_ends_at_once():
    process = start("""
        with preemption.watching("bye\\n"):
            preemption.postpone()
            print("ready", flush=True)
            wait_for_notice()
            print("noticed", flush=True)
            call_that_looks_at_no_signal()
    """)
    process.terminate()
    assert process.stdout.readline() == "noticed\n"
    process.terminate()
    assert end_of(process) == (143, "bye\n")


def test_notice_of_a_supervisor_beside_the_signal_is_no_second_signal():
    process = start("""
        with preemption.watching("bye\\n"):
            preemption.postpone()
            preemption.notice()
            print("ready", flush=True)
            time.sleep(0.5)
            preemption.notice()
            print("saved", file=sys.stderr)
            preemption.allow()
    """)
    process.terminate()
    assert end_of(process) == (143, "saved\n")


def test_whoever_does_not_watch_is_left_alone():
    process = start("""
        preemption.postpone()
        preemption.allow()
        print("ready", flush=True)
        time.sleep(30)
    """)
    process.terminate()
    assert end_of(process) == (-signal.SIGTERM, "")


def test_watching_leaves_nothing_behind():
    handler = signal.getsignal(signal.SIGTERM)
    open_files = os.listdir("/proc/self/fd")
    with preemption.watching():
        preemption.postpone()
        os.kill(os.getpid(), signal.SIGTERM)
        while not preemption.noticed():
            time.sleep(0.01)
        with pytest.raises(preemption.Preempted) as caught:
            preemption.allow()
    assert caught.value.code == preemption.STATUS == 143
    assert not preemption.noticed()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == len(open_files)
