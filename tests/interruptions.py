"""A run that is stopped at random moments ends as one in peace does.

    python -m tests.interruptions [FOLDER] [--config=demo] [--stops=20]

Runs the pipeline in FOLDER/peace and notes when each file appears. Draws
moments of that run, and stops a second one in FOLDER/stopped at each of them:
by SIGKILL to all of its processes and by SIGTERM to the first, in turn. The
same command goes on every time. Ends with status 1 unless both have the same
figures, to the bit.
"""

import argparse
import bisect
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from tests.pipeline.test_end_to_end import figures, signal_to

ROOT = pathlib.Path(__file__).parents[1]
# Kubernetes and others kill a process that long after SIGTERM.
GRACE = 30
# Before that a process may not have begun to watch for SIGTERM.
STARTED = 3
# Later moments might not come in a run that is faster than the first.
LAST = 0.95


class Run:
    """A pipeline and the files that it has had, by when they appeared.

    Args:
        folder: Path of the work directory.
        config: Name or path of the configuration.
    """

    def __init__(self, folder, config):
        self.folder = folder
        self.command = [
            *(sys.executable, "-m", "att_darts_tf", "pipeline"),
            *(f"--config={config}", f"--workdir={folder}"),
        ]
        self.seen = {}
        self.process = None
        self.begun = None

    def start(self):
        with open(self.folder.with_suffix(".log"), "a") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.begun = time.monotonic()

    def wait(self, file=None, seconds=float("inf")):
        """Waits for a file and for so long after; returns if it still runs."""
        since = None
        while self.process.poll() is None:
            self._look()
            if since is None and (file is None or file in self.seen):
                since = time.monotonic()
            if since is not None and time.monotonic() - since >= seconds:
                return True
            time.sleep(0.03)
        self._look()
        return False

    def _look(self):
        now = time.monotonic() - self.begun
        for file in self.folder.rglob("*"):
            name = file.relative_to(self.folder).as_posix()
            # Names with a time or a number of a process do not come again.
            unstable = ("pipeline/", "/tensorboard", "_temp", "/.")
            if not any(part in f"/{name}" for part in unstable):
                self.seen.setdefault(name, now)


def moments(seen, stops, draw):
    """Returns moments of a run: a file, and the seconds after it appeared."""
    files = sorted(seen, key=seen.get)
    times = [seen[file] for file in files]
    drawn = [draw.uniform(0, LAST * times[-1]) for _ in range(stops)]
    for moment in sorted(drawn):
        place = bisect.bisect(times, moment) - 1
        if place < 0:
            yield None, moment
        else:
            yield files[place], moment - times[place]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        prog="python -m tests.interruptions",
    )
    parser.add_argument(
        "folder",
        type=pathlib.Path,
        nargs="?",
        default=ROOT / "runs" / "interruptions",
    )
    parser.add_argument("--config", default="demo")
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    values = parser.parse_args(argv)
    shutil.rmtree(values.folder, ignore_errors=True)
    values.folder.mkdir(parents=True)
    peace = Run(values.folder.resolve() / "peace", values.config)
    peace.start()
    peace.wait()
    if peace.process.returncode:
        sys.exit(f"The run in peace failed; see {peace.folder}.log")
    print(f"in peace: {max(peace.seen.values()):.0f} s", flush=True)
    stopped = Run(values.folder.resolve() / "stopped", values.config)
    draw = random.Random(values.seed)
    longest = 0.0
    for i, (file, seconds) in enumerate(
        moments(peace.seen, values.stops, draw), 1
    ):
        number = (signal.SIGKILL, signal.SIGTERM)[i % 2]
        stopped.start()
        if not stopped.wait(file, seconds):
            sys.exit(f"Ended before stop {i}; see {stopped.folder}.log")
        begun = time.monotonic()
        started = begun - stopped.begun > STARTED
        status = signal_to(stopped.process, number, timeout=GRACE)
        took = time.monotonic() - begun
        print(
            f"{i}/{values.stops}  {number.name}  {seconds:.1f} s after "
            f"{file or 'the start'}: status {status} in {took:.1f} s",
            flush=True,
        )
        allowed = {-number}
        if number == signal.SIGTERM:
            allowed = {143} if started else {143, -number}
        if status not in allowed:
            sys.exit(f"Expected status {allowed}. Received: {status}")
        longest = max(longest, took)
    stopped.start()
    stopped.wait()
    if stopped.process.returncode:
        sys.exit(f"The stopped run failed; see {stopped.folder}.log")
    expected, received = figures(peace.folder), figures(stopped.folder)
    for file in sorted(expected | received):
        if expected.get(file) != received.get(file):
            sys.exit(f"Expected {file} as in peace. Received: another")
    print(
        f"{values.stops} stops; {len(expected)} records are the same to the "
        f"bit, the slowest end took {longest:.1f} s"
    )


if __name__ == "__main__":
    main()
