"""What every component does around the one function that it calls."""

import contextlib
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Mapping

import ml_collections
from kfp import dsl

from att_darts_tf import layout, settings, startup, summary
from att_darts_tf.engine import preemption, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.pipeline import supervision


@contextlib.contextmanager
def begin(
    config: str, root: str
) -> Iterator[tuple[ml_collections.ConfigDict, layout.Layout]]:
    """Gives a component its configuration and folders.

    It says what it took in the end. It ends on SIGTERM and with the process
    that started it, and hands a mistake of the user's to that process, which
    prints it as one line. After one, the tasks that the runner starts all the
    same end at once.

    Args:
        config: String. The resolved configuration as JSON.
        root: String. Path of the work directory.
    """
    begun = time.monotonic()
    # Control-C reaches every process of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folders = layout.Layout(pathlib.Path(root))
    with preemption.watching():
        supervision.end_with_supervisor(folders.pipeline)
        if supervision.mistake(folders.pipeline) is not None:
            raise SystemExit(2)
        startup.load_tensorflow()
        try:
            with workdir.telling_of_a_full_disk():
                yield settings.from_plain(json.loads(config)), folders
            print(summary.used("the task", begun), flush=True)
        except UsageError as error:
            supervision.hand_over(error, folders.pipeline)
            raise SystemExit(2) from error


def publish(
    artifact: dsl.Artifact, path: os.PathLike, *, content: os.PathLike
) -> None:
    """Points an output at a stable file or folder of the work directory.

    A run's own artifact folders are named by time, so nothing lives there.

    Args:
        artifact: The output.
        path: What the consumers of the artifact are given.
        content: The file or folder whose digest stands for it, in the keys of
            the cache too.
    """
    artifact.path = str(path)
    artifact.metadata["sha256"] = workdir.digest(content)


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
    metrics.path = str(file)
    for name, value in values.items():
        metrics.log_metric(name, value)
