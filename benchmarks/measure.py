"""What all benchmarks share: the clock, the data and the line of JSON."""

import argparse
import atexit
import contextlib
import importlib.metadata
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time


def parser(description, **options):
    """Returns a parser of flags, each with a default that is no `None`.

    Args:
        description: String.
        **options: Defaults by name; `False` makes a switch.
    """
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, default in options.items():
        if default is False:
            made.add_argument(f"--{name}", action="store_true")
        else:
            made.add_argument(f"--{name}", type=type(default), default=default)
    return made


def seconds_since_start():
    """Returns the age of this process (Linux)."""
    fields = pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1]
    started = int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return uptime - started


def prepare(*, deterministic=True, **settings):
    """Loads TensorFlow as the stages do, and images.

    Args:
        deterministic: Boolean, `config.engine.deterministic`.
        **settings: Fields of `config.data`; by default the embedded real
            images.

    Returns:
        The base configuration, the prepared data and both halves by name.
    """
    from att_darts_tf.startup import load_tensorflow

    load_tensorflow()
    import keras

    from att_darts_tf.configs import base
    from att_darts_tf.data import prepared
    from att_darts_tf.data.run import run_prepare
    from att_darts_tf.engine import devices

    config = base.get_config()
    config.engine.deterministic = deterministic
    config.data.update(settings)
    devices.configure(config)
    keras.utils.set_random_seed(0)
    # Images may be read at any time.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    # Standard output is the line of figures alone.
    with contextlib.redirect_stdout(sys.stderr):
        run_prepare(config, output_dir=folder.name)
    data = prepared.load(folder.name)
    splits = {name: data.split(name) for name in ("weights", "architecture")}
    return config, data, splits


def batch_options(config, data, *, batch, cutout=0):
    """Returns the options of the pipeline's training batches."""
    from att_darts_tf.data import preprocess

    return {
        "batch_size": batch,
        "epoch": 0,
        "seed": 0,
        "preprocessing": preprocess.of(config.data, data, cutout=cutout),
    }


def training_steps(model, batches, *, count, images):
    """Takes training steps, each one call of a graph as in `fit`.

    Args:
        model: Compiled Keras model.
        batches: Endless `tf.data.Dataset`.
        count: Integer. Steps after the first.
        images: Integer. What a step takes.

    Returns:
        Figures by name, the time until now among them.
    """
    built = seconds_since_start()
    import tensorflow as tf

    @tf.function(autograph=False)
    def traced(iterator):
        return model.train_step(next(iterator))

    iterator = iter(batches)
    losses = []

    def step():
        losses.append(float(traced(iterator)["loss"]))

    step()
    first = seconds_since_start()
    seconds = timed(step, count=count)
    graph = traced.get_concrete_function(iterator).graph.as_graph_def()
    # What runs: on a CPU no optimizer changes a graph, see `devices`.
    nodes = len(graph.node) + sum(
        len(function.node_def) for function in graph.library.function
    )
    return {
        "seconds_to_build": round(built, 2),
        "seconds_to_first_step": round(first, 2),
        "seconds_per_step": seconds,
        "images_per_second": round(images / seconds["median"], 1),
        "graph_nodes": nodes,
        "losses": losses,
    }


def timed(function, *, count):
    """Returns median, mean, minimum and maximum of the seconds of calls."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)
    return {
        "median": round(statistics.median(seconds), 4),
        "mean": round(statistics.mean(seconds), 5),
        "minimum": round(min(seconds), 4),
        "maximum": round(max(seconds), 4),
    }


def report(benchmark, *, deterministic, **figures):
    """Prints one line of JSON."""
    import keras
    import tensorflow as tf

    print(
        json.dumps(
            {
                "benchmark": benchmark,
                **figures,
                "peak_memory_gb": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2
                ),
                "dtype": keras.config.floatx(),
                "deterministic": deterministic,
                "cores": len(os.sched_getaffinity(0)),
                "devices": sorted(
                    {d.device_type for d in tf.config.list_logical_devices()}
                ),
                "tensorflow": tf.__version__,
                "keras": importlib.metadata.version("keras"),
            }
        )
    )
