"""How long a search step takes, from the start of the process.

    python -m benchmarks.search_step --channels=16 --cells=8 --batch=16

Prints one line of JSON. Time counts from the creation of the process; what is
timed is the class that `att-darts search` uses, on the embedded real images.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import resource
import statistics
import tempfile
import time


def seconds_since_start():
    """Returns the age of this process (Linux)."""
    fields = pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1]
    started = int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return uptime - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--location", default="after_every")
    parser.add_argument("--order", default="first")
    parser.add_argument("--implicit", default="finite_difference")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument(
        "--plain", action="store_true", help="every candidate a plain layer"
    )
    options = parser.parse_args()

    from att_darts_tf.startup import load_tensorflow

    load_tensorflow()
    import keras
    import tensorflow as tf

    from att_darts_tf.configs import base
    from att_darts_tf.data import input_pipeline, prepared
    from att_darts_tf.data.run import run_prepare
    from att_darts_tf.engine import devices, optimizers
    from att_darts_tf.search.supernet import Supernet
    from att_darts_tf.search.trainer import Search

    config = base.get_config()
    devices.set_determinism(config)
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        run_prepare(config, output_dir=folder)
        data = prepared.load(folder)
        halves = data.split("weights"), data.split("architecture")
    supernet = Supernet(
        len(data.class_names),
        options.location,
        options.channels,
        options.cells,
        batched=not options.plain,
    )
    supernet.build((None, *data.image_shape))
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.025, momentum=0.9),
        optimizers.Adam(3e-4, beta_1=0.5, beta_2=0.999),
        order=options.order,
        implicit=options.implicit,
    )
    built = seconds_since_start()
    batches = input_pipeline.paired_batches(
        *halves,
        batch_size=options.batch,
        epoch=0,
        seed=0,
        mean=data.mean,
        std=data.std,
        padding=config.data.padding,
        flip=config.data.flip,
        cutout=0,
    ).repeat()
    search.make_train_function()
    step = search.train_function
    iterator = iter(batches)
    seconds, losses = [], []
    for i in range(options.steps + 1):
        begun = time.perf_counter()
        logs = step(iterator)
        losses.append(float(logs["loss"]))
        seconds.append(time.perf_counter() - begun)
        if i == 0:
            first = seconds_since_start()
    median = statistics.median(seconds[1:])
    print(
        json.dumps(
            {
                "benchmark": "search_step",
                "location": options.location,
                "channels": options.channels,
                "cells": options.cells,
                "batch": options.batch,
                "plain": options.plain,
                "order": search.order,
                "implicit": search.implicit,
                "seconds_to_build": round(built, 2),
                "seconds_to_first_step": round(first, 2),
                "seconds_per_step": {
                    "median": round(median, 3),
                    "minimum": round(min(seconds[1:]), 3),
                    "maximum": round(max(seconds[1:]), 3),
                },
                "images_per_second": round(2 * options.batch / median, 1),
                "peak_memory_gb": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2
                ),
                "losses": losses,
                "dtype": keras.config.floatx(),
                "deterministic": config.engine.deterministic,
                "tensorflow": tf.__version__,
                "keras": importlib.metadata.version("keras"),
            }
        )
    )


if __name__ == "__main__":
    main()
