"""What every component does around the one function that it calls."""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping

import ml_collections
from kfp import dsl

from att_darts_tf import layout, settings, startup, storage, summary
from att_darts_tf.engine import preemption, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.pipeline import supervision

# What metadata of an output say of it.
CONTENT, SHA256 = "content", "sha256"


@contextlib.contextmanager
def begin(
    config: str, root: str, branch: str
) -> Iterator[tuple[ml_collections.ConfigDict, layout.Layout]]:
    """Gives a component its configuration and folders.

    It says what it took in the end. It ends on SIGTERM and with the process
    that started it, and hands a mistake of the user's to that process, which
    prints it as one line. After one, the tasks that the runner starts all the
    same end at once.

    Args:
        config: String. The settings that the component reads as JSON.
        root: String. Path of the work directory.
        branch: String. Folder in it of a run that it is compared with.
    """
    begun = time.monotonic()
    # Control-C reaches every process of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    whole = layout.of(root)
    folders = whole.branch(branch)
    with preemption.watching():
        if supervision.is_supervised():
            supervision.end_with_supervisor(whole.pipeline)
            if supervision.mistake(whole.pipeline) is not None:
                raise SystemExit(2)
        startup.load_tensorflow()
        try:
            with workdir.telling_of_a_full_disk():
                yield settings.from_plain(json.loads(config)), folders
            print(summary.used("the task", begun), flush=True)
        except UsageError as error:
            if not supervision.is_supervised():
                # On another machine; its log is all that there is.
                print(f"att-darts: {error}", file=sys.stderr)
                raise SystemExit(2) from None
            supervision.hand_over(error, whole.pipeline)
            raise SystemExit(2) from error


def as_tuned(
    config: ml_collections.ConfigDict, tuned: dsl.Artifact | None
) -> tuple[ml_collections.ConfigDict, list[storage.Path]]:
    """Returns a configuration with what a tuning found, and what was read.

    Args:
        config: The settings that the component reads.
        tuned: What the task `tune` gave; `None` where nothing is tuned.
    """
    if not tuned:
        return config, []
    folder = storage.path(tuned.uri)
    found = layout.read_tuned(folder / "result.json")["found"]
    return settings.with_values(config, found), [folder]


def publish(
    artifact: dsl.Artifact,
    path: os.PathLike,
    *,
    content: os.PathLike | None = None,
) -> None:
    """Points an output at a stable file or folder of the work directory.

    A run's own artifact folders are named by time, so nothing lives there.

    Args:
        artifact: The output.
        path: What the consumers of the artifact are given.
        content: The file or folder whose digest stands for it, in the keys of
            the cache too; the whole of it if not given.
    """
    artifact.uri = str(path)
    content = path if content is None else content
    artifact.metadata[CONTENT] = str(content)
    artifact.metadata[SHA256] = workdir.digest(content)


def log(
    metrics: dsl.Metrics, file: os.PathLike, values: Mapping[str, float]
) -> None:
    """Logs the figures of a stage.

    Args:
        metrics: The output for them. The local cache never hits on an output
            without a file, so it points at the one that they come from.
        file: Path of that file.
        values: Mapping of names to figures.
    """
    publish(metrics, file)
    for name, value in values.items():
        metrics.log_metric(name, value)


def write(path: os.PathLike, number: float) -> None:
    """Writes an output that is a number."""
    # Not made for it, unlike the folders of artifacts.
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(repr(number))
