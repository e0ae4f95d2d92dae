"""Runs the pipeline on this machine."""

import contextlib
import io
import json
import logging
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections
from kfp import compiler, local

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
    runs = runs_of(config)
    refuse_replaced_text(runs.values(), folders)
    for own in runs.values():
        settings.check_pretrained(own)
    define = pipeline.define(
        runs, code=code_digests(), given=cells_digest(config)
    )
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
            define(**parameters(config, folders))
        except RuntimeError as error:
            mistake = supervision.mistake(folders.pipeline)
            if mistake is None:
                raise
            raise mistake from error
    return summary.table(config, folders)


def compile_pipeline(
    config: ml_collections.ConfigDict,
    folders: Layout,
    file: str | os.PathLike,
    *,
    on_vertex: bool,
) -> None:
    """Writes the pipeline as a file that runners of Kubeflow pipelines take.

    Args:
        config: The resolved configuration.
        folders: The work directory, in which tasks keep their files.
        file: Path of the file.
        on_vertex: Boolean. Whether tasks are given image and machines of
            `config.vertex`.
    """
    if on_vertex:
        check_machines(config)
    define = pipeline.define(
        runs_of(config),
        code=code_digests(),
        given=cells_digest(config),
        vertex=config.vertex if on_vertex else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        # The compiler takes names that end so alone.
        compiled = pathlib.Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(
            define,
            str(compiled),
            pipeline_parameters=parameters(config, folders),
        )
        workdir.write_atomically(file, compiled.read_bytes())


def run_on_vertex(
    config: ml_collections.ConfigDict, folders: Layout
) -> Iterator[str]:
    """Submits the pipeline to Vertex AI and yields lines until it ends."""
    try:
        from att_darts_tf.pipeline import vertex
    except ImportError as error:
        # Other packages of Google's may be there without this one.
        if not (error.name or "").startswith("google"):
            raise
        raise UsageError(
            "Expected the package google-cloud-aiplatform for --runner=vertex. "
            "Received: it is not installed. Run: pip install "
            "'att-darts-tf[vertex]'"
        ) from error
    if stage_folder.replaces_stale():
        raise UsageError(
            "Expected --replace for stages on this machine. Received: it "
            "beside --runner=vertex, whose tasks refuse what is stale. Run "
            "the stages that are stale by --replace, or use another --workdir"
        )
    vertex.check(config.vertex)
    check_reach(config, folders)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "pipeline.yaml")
        compile_pipeline(config, folders, file, on_vertex=True)
        yield from vertex.submit(config.vertex, file)


def check_reach(config: ml_collections.ConfigDict, folders: Layout) -> None:
    """Raises `UsageError` for places that tasks elsewhere cannot reach."""
    if not storage.is_remote(folders.root):
        raise UsageError(
            "Expected a --workdir that tasks of Vertex AI can reach, as "
            f"gs://bucket/run. Received: {folders.root}. Choose another"
        )
    for run in runs_of(config).values():
        for name in ("name", "data_dir"):
            _check_remote(f"data.{name}", run.data[name])
        for name in ("cell", "pretrained"):
            _check_remote(f"network.{name}", run.network[name])


def check_machines(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for a strategy that does not go with the machines."""
    machines, strategy = config.vertex.machines, config.engine.strategy
    if (machines > 1) != (strategy == "multi_worker"):
        raise UsageError(
            "Expected config.vertex.machines of 2 or more beside config.engine."
            "strategy=multi_worker, and 1 beside another. Received: "
            f"{machines} and {strategy}. Give others"
        )
    if machines > 1 and config.tune.space:
        raise UsageError(
            "Expected one machine for each trial of config.tune.space. "
            f"Received: config.vertex.machines={machines}. Leave one out"
        )


def _check_remote(name, place) -> None:
    here = place and not storage.is_remote(place)
    if here and (os.path.isabs(place) or os.path.exists(place)):
        raise UsageError(
            f"Expected config.{name} that tasks of Vertex AI can reach, as "
            f"gs://bucket/name. Received: {place}. Copy it there"
        )


def runs_of(
    config: ml_collections.ConfigDict,
) -> dict[branches.Branch, ml_collections.ConfigDict]:
    """Returns the configurations of a run and of what is compared with it."""
    return {
        branch: branch.config(config)
        for branch in (branches.MAIN, *branches.of(config))
    }


def parameters(
    config: ml_collections.ConfigDict, folders: Layout
) -> dict[str, Any]:
    """Returns what the pipeline is called with."""
    return {
        "workdir": str(folders.root),
        "seeds": list(config.search.seeds),
        "repeats": list(range(config.repeats)),
    }


def code_digests() -> dict[str, str]:
    """Returns digests of what each stage stands on, by the stage's name."""
    return {
        name: workdir.code_fingerprint(*stage.code)
        for name, stage in stages.STAGES.items()
    }


def cells_digest(config: ml_collections.ConfigDict) -> str:
    """Returns the digest of the file of given cells, "" without one."""
    given = settings.given_cells(config)
    return workdir.digest(given) if given and storage.is_file(given) else ""


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
