"""What runs a preparation: one pipeline in Apache Beam, here or on Dataflow.

Nothing else imports Beam, so images that are prepared do without it.
"""

import argparse
import contextlib
import difflib
import functools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

import apache_beam as beam
import ml_collections
from apache_beam.options import pipeline_options
from apache_beam.utils import interactive_utils

from att_darts_tf import storage
from att_darts_tf.errors import UsageError

# What the section `beam` of a configuration decides itself.
_DECIDED = ("runner", "direct_running_mode", "direct_num_workers")
# A worker may have several threads.
_TYING = threading.Lock()
# What Dataflow cannot do without.
_NEEDED = ("project", "region", "temp_location")


def runner(
    settings: ml_collections.ConfigDict, folder: storage.Path
) -> Callable[..., None]:
    """Returns `run` with the options of a configuration.

    Args:
        settings: `config.beam`.
        folder: Path of the prepared images, where workers write.
    """
    return functools.partial(run, options=options_of(settings, folder))


def run(
    jobs: Iterable[bytes],
    *,
    read: Callable[[bytes], str],
    plan: Callable[[list[str]], Iterable[str]],
    write: Callable[[str], str],
    record: Callable[[list[str]], None],
    options: pipeline_options.PipelineOptions,
) -> None:
    """Runs the pipeline to its end.

    Args:
        jobs: What is to be read, part by part.
        read: Called with each of them, by any worker.
        plan: Called with all that `read` has returned; yields what is to be
            written, shard by shard.
        write: Called with each of them, by any worker.
        record: Called with all that `write` has returned.
        options: As `options_of` returns them.
    """
    # Of a pipeline on one machine it tells how it is divided.
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    with (
        _leash(options) as address,
        # In a notebook Beam wants pandas and more, to show what is in between.
        mock.patch.object(interactive_utils, "is_in_ipython", lambda: False),
    ):
        tied = functools.partial(functools.partial, _tied, address)
        with beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | "Parts" >> beam.Create(list(jobs))
                | "SpreadParts" >> beam.Reshuffle()
                | "Read" >> beam.Map(tied(read))
                | "AllRead" >> beam.combiners.ToList()
                | "Plan" >> beam.FlatMap(tied(plan))
                | "SpreadShards" >> beam.Reshuffle()
                | "Write" >> beam.Map(tied(write))
                | "AllWritten" >> beam.combiners.ToList()
                | "Record" >> beam.Map(tied(record))
            )


@contextlib.contextmanager
def _leash(
    options: pipeline_options.PipelineOptions,
) -> Iterator[str | None]:
    """Gives the name of a socket that is there as long as this process.

    Beam starts workers as children and forgets them when it is killed.
    """
    mode = options.view_as(pipeline_options.DirectOptions).direct_running_mode
    if mode != "multi_processing":
        yield None
        return
    # A name that begins with a zero byte is no file.
    address = f"\0att-darts-{uuid.uuid4().hex}"
    # Each of them would call the lack of a GPU an error.
    greetings = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen()
            threading.Thread(
                target=_accept, args=(server,), name="leash", daemon=True
            ).start()
            try:
                yield address
            finally:
                # What waits for workers is woken; closing alone is not heard.
                server.shutdown(socket.SHUT_RDWR)
    finally:
        del os.environ["TF_CPP_MIN_LOG_LEVEL"]
        if greetings is not None:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = greetings


def _accept(server) -> None:
    """Holds the other end of each worker's leash until the server goes."""
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(server.accept()[0])


def _tied(address, function, argument):
    """Calls a function, in a worker that ends with who started it."""
    if address is not None:
        with _TYING:
            _tie(address)
    return function(argument)


@functools.cache
def _tie(address):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)

    def wait():
        # Nothing is ever sent: it returns when the other end is closed.
        with contextlib.suppress(OSError):
            connection.recv(1)
        os._exit(1)

    threading.Thread(target=wait, name="leash", daemon=True).start()


def options_of(
    settings: ml_collections.ConfigDict, folder: storage.Path
) -> pipeline_options.PipelineOptions:
    """Returns the options of a pipeline, or raises `UsageError`.

    Beam only warns of a flag that it does not know.

    Args:
        settings: `config.beam`.
        folder: Path of the prepared images.
    """
    given = list(settings.options)
    known = _parser()
    try:
        _, unknown = known.parse_known_args(given)
    except argparse.ArgumentError as error:
        raise UsageError(
            "Expected options of Apache Beam in config.beam.options. "
            f"Received: {error}. Give another value"
        ) from error
    names = [flag.lstrip("-").partition("=")[0] for flag in given]
    if unknown:
        name = unknown[0].lstrip("-").partition("=")[0]
        every = [
            flag.lstrip("-")
            for action in known._actions
            for flag in action.option_strings
        ]
        close = difflib.get_close_matches(name, every, n=1)
        hint = f"Did you mean --{close[0]}?" if close else "Leave it out"
        raise UsageError(
            "Expected options of Apache Beam in config.beam.options. "
            f"Received: {unknown[0]!r}. {hint}"
        )
    for name in _DECIDED:
        if name in names:
            raise UsageError(
                f"Expected config.beam.options without --{name}, which "
                "config.beam.runner, .mode and .workers decide. Received: it. "
                "Leave it out"
            )
    if settings.runner == "DataflowRunner":
        _check_dataflow(given, names, folder)
        return pipeline_options.PipelineOptions(
            [*given, "--runner=DataflowRunner"]
        )
    return pipeline_options.PipelineOptions(
        [
            # A worker in a process of its own would tell of every step.
            "--default_sdk_harness_log_level=ERROR",
            *given,
            "--runner=DirectRunner",
            f"--direct_running_mode={settings.mode}",
            f"--direct_num_workers={settings.workers}",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    """Returns a parser of all options that Beam and its runners have."""
    parser = pipeline_options._BeamArgumentParser(
        allow_abbrev=False, exit_on_error=False, add_help=False
    )
    for options in pipeline_options.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser


def _check_dataflow(given, names, folder) -> None:
    files = [flag.partition("=") for flag in given]
    for name, _, place in files:
        if name == "--setup_file" and not storage.is_file(place):
            raise UsageError(
                "Expected the file that --setup_file in config.beam.options "
                f"names. Received: {place}, which does not exist. Name "
                "another"
            )
    for name in _NEEDED:
        if name not in names:
            raise UsageError(
                f"Expected --{name} in config.beam.options beside config.beam."
                f"runner=DataflowRunner. Received: {names or 'none'}. Add it"
            )
    if not {"setup_file", "sdk_container_image"} & set(names):
        raise UsageError(
            "Expected --setup_file=./setup.py in config.beam.options, or an "
            "image with --sdk_container_image, by which the workers of "
            f"Dataflow have this code. Received: {names}. Add one"
        )
    if not storage.is_remote(folder):
        raise UsageError(
            "Expected a --workdir that workers of Dataflow can write to, as "
            f"gs://bucket/run. Received: {folder}. Choose another"
        )
    try:
        from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "Expected Beam's own requirements for Dataflow. Received: no "
            f"module {error.name!r}. Run: pip install 'apache-beam[gcp]'"
        ) from error
