"""Runs the pipeline on this machine."""

import contextlib
import io
import json
import logging
import pkgutil
import sys
from collections.abc import Iterator

import ml_collections
from kfp import local

import att_darts_tf
from att_darts_tf import settings, storage, summary
from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.layout import Layout
from att_darts_tf.pipeline import console, pipeline, supervision

# The local runner puts the interpreter's path wherever an argument says so.
_REPLACED = "python3"


def run_pipeline(
    config: ml_collections.ConfigDict, folders: Layout
) -> list[str]:
    """Runs every stage in order; finished ones come from the cache.

    Args:
        config: The resolved configuration.
        folders: The work directory.

    Returns:
        The lines of the table of results.
    """
    text = json.dumps(workdir.plain(config), sort_keys=True)
    refuse_replaced_text(text, folders)
    code, given = code_digest(), settings.given_cells(config)
    if given and storage.path(given).exists():
        # The cache would not see that another file has its name.
        code = f"{code}-{workdir.digest(given)}"
    define = pipeline.define(code=code, search_cells=not given)
    with supervision.supervise(folders.pipeline), _logged(folders):
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(folders.pipeline),
            workspace_root=str(folders.pipeline / "workspace"),
            enable_caching=True,
        )
        try:
            define(
                config=text,
                workdir=str(folders.root),
                seeds=list(config.search.seeds),
                repeats=list(range(config.repeats)),
            )
        except RuntimeError as error:
            mistake = supervision.mistake(folders.pipeline)
            if mistake is None:
                raise
            raise mistake from error
    return summary.table(config, folders)


def code_digest() -> str:
    """Returns a digest of all of the library's sources.

    Each stage holds its own folder to the part that it stands on, so a task
    that runs again without need returns at once.
    """
    return workdir.code_fingerprint(
        *(module.name for module in pkgutil.iter_modules(att_darts_tf.__path__))
    )


def refuse_replaced_text(config: str, folders: Layout) -> None:
    """Raises `UsageError` for an argument that the runner would garble."""
    if _REPLACED in str(folders.root):
        raise UsageError(
            f"Expected a --workdir without {_REPLACED!r} in its path: the "
            "local runner replaces it. Received: "
            f"{folders.root}. Choose another"
        )
    if _REPLACED in config:
        raise UsageError(
            f"Expected a configuration without {_REPLACED!r} in any name or "
            "path: the local runner replaces it. Received: "
            f"{_around(config)}. Move or rename what it names"
        )


@contextlib.contextmanager
def _logged(folders: Layout) -> Iterator[None]:
    """Sends the runner's lines through a `Console` and into a log."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    path = folders.pipeline / "log.txt"
    with open(path, "ab", buffering=0, opener=workdir.open_itself) as file:
        log = io.TextIOWrapper(file, "utf-8", write_through=True)
        stream = console.Console(sys.stdout, log)
        # The runner says that it has hit its cache through the root logger,
        # which it sets up itself around everything else.
        handler = logging.StreamHandler(stream)
        handler.setFormatter(
            logging.Formatter(
                "%(asctime)s.%(msecs)03d - %(levelname)s - %(message)s",
                "%H:%M:%S",
            )
        )
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(stream):
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            stream.flush()


def _around(config: str) -> str:
    place = config.index(_REPLACED)
    first = config.rfind('"', 0, place)
    return config[first : config.find('"', place) + 1]
