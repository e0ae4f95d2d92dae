"""Runs the pipeline on this machine."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator

import ml_collections
from kfp import local

from att_darts_tf import (
    branches,
    layout,
    settings,
    stages,
    storage,
    summary,
)
from att_darts_tf.engine import stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.layout import Layout
from att_darts_tf.pipeline import cache, console, pipeline, supervision

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
    runs = {
        branch: branch.config(config)
        for branch in (branches.MAIN, *branches.of(config))
    }
    refuse_replaced_text(runs.values(), folders)
    define = pipeline.define(runs, code=code_digests(config))
    with contextlib.ExitStack() as stack:
        for branch, own in runs.items():
            if branch == branches.MAIN:
                continue
            # Its folder is a work directory too, for any stage's command.
            claimed = layout.claim(
                str(folders.branch(branch.name).root),
                own,
                replace=stage_folder.replaces_stale(),
            )
            stack.enter_context(claimed)
        stack.enter_context(supervision.supervise(folders.pipeline))
        stack.enter_context(_logged(folders))
        cache.forget_changed(folders.pipeline)
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(folders.pipeline),
            workspace_root=str(folders.pipeline / "workspace"),
            enable_caching=True,
            cache_root=str(folders.pipeline / cache.FOLDER),
        )
        try:
            define(
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


def code_digests(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns digests of what each stage stands on, by the stage's name.

    Args:
        config: The resolved configuration, which may name the cells. The cache
            would not see that another file has their name.
    """
    digests = {
        name: workdir.code_fingerprint(*stage.code)
        for name, stage in stages.STAGES.items()
    }
    given = settings.given_cells(config)
    if given and storage.is_file(given):
        digests["train"] += f"-{workdir.digest(given)}"
    return digests


def refuse_replaced_text(
    configs: Iterable[ml_collections.ConfigDict], folders: Layout
) -> None:
    """Raises `UsageError` for an argument that the runner would garble."""
    if _REPLACED in str(folders.root):
        raise UsageError(
            f"Expected a --workdir without {_REPLACED!r} in its path: the "
            "local runner replaces it. Received: "
            f"{folders.root}. Choose another"
        )
    for each in configs:
        config = json.dumps(workdir.plain(each))
        if _REPLACED not in config:
            continue
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
