"""The work of one task on several machines of Vertex AI.

A task of a pipeline is one machine. Where it is to have more, it starts a
custom job whose machines share the work, as `engine.devices` divides it, waits,
and reads the result that the first of them has written. What each one runs is

    python -m att_darts_tf.pipeline.share WORK

where Vertex AI tells the processes of each other by `TF_CONFIG`.
"""

import importlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from att_darts_tf import settings, startup, storage
from att_darts_tf.engine import preemption, workdir
from att_darts_tf.errors import UsageError

# Of a task's environment: which machines, as JSON.
VARIABLE = "ATT_DARTS_MACHINES"


def call(
    function: Callable[..., dict],
    config: ml_collections.ConfigDict,
    **arguments: Any,
) -> dict:
    """Returns what a stage's function returns, on whatever machines it is.

    Args:
        function: Of the library, which writes `result.json` in `output_dir`.
        config: The settings that it reads.
        **arguments: The others: paths, numbers, and lists of them.
    """
    machines = os.environ.get(VARIABLE)
    if not machines:
        return function(config, **arguments)
    from att_darts_tf.pipeline import vertex

    work = {
        "module": function.__module__,
        "function": function.__name__,
        "config": workdir.plain(config),
        "arguments": _plain(arguments),
    }
    vertex.run_job(
        ml_collections.ConfigDict(json.loads(machines)),
        ["python", "-m", __name__, json.dumps(work, sort_keys=True)],
        title=function.__name__.removeprefix("run_"),
    )
    return workdir.read_json(
        storage.path(arguments["output_dir"]) / "result.json",
        format=workdir.RESULT_FORMAT,
    )


def main(argv: Sequence[str]) -> int:
    """Does this machine's part of a work, and returns the exit status."""
    work = json.loads(argv[0])
    with preemption.watching():
        startup.load_tensorflow()
        module = importlib.import_module(work["module"])
        try:
            with workdir.telling_of_a_full_disk():
                getattr(module, work["function"])(
                    settings.from_plain(work["config"]), **work["arguments"]
                )
        except UsageError as error:
            # Its log is all that there is.
            print(f"att-darts: {error}", file=sys.stderr)
            return 2
    return 0


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (pathlib.PurePath, storage.RemotePath)):
        return str(value)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
