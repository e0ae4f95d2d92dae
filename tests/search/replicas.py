"""A search on several devices beside the same one on a single device.

    python -m tests.search.replicas NUMBER [CASE ...]

prints for every case a line of JSON: the largest difference of any variable
after three steps, relative to the largest magnitude of its array, and whether
all replicas have the same architecture weights. TensorFlow keeps the first
group of devices for the whole process, so each number takes one of its own.
Where `TF_CONFIG` names processes, the replicas are theirs, whatever the number.
"""

import json
import sys

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from att_darts_tf.engine import cluster, devices, optimizers
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.search.trainer import Search
from att_darts_tf.space import blocks, search_space

# Of every kind of location: stages in turn, and attention on the output. Few
# candidates, since what they compute is tested elsewhere.
SPACE = search_space.SearchSpace(
    (("none", "max_pool_3x3", "sep_conv_3x3"), ("Identity", "BAM")),
    output=("Identity", "SE"),
)
# Not a multiple of the replicas: their parts differ in size.
BATCH = 7
STEPS = 3
FIRST, SECOND = {"order": "first"}, {"order": "second"}
EXACT = {"order": "second", "implicit": "exact"}
# Options of `Search.compile`, and whether functions run eagerly, which spares
# the trace of a graph that holds every layer as often as it is computed.
SYNCHRONIZED = {
    "first": (FIRST, True),
    "finite_difference": (SECOND, True),
    "exact": (EXACT, True),
    "first, traced": (FIRST, False),
    # Of several processes; of one, it takes a minute to trace.
    "exact, traced": (EXACT, False),
}
# Without: batch statistics are replaced by constants, the only other thing
# that a part of a batch computes differently.
CONSTANT = {
    "finite_difference, constant statistics": (SECOND, False),
    "microbatch, constant statistics": (
        {"order": "first", "microbatch": 2, "recompute": "all"},
        False,
    ),
}
CASES = SYNCHRONIZED | CONSTANT


def constant_statistics(inputs, scale, offset, *, epsilon=blocks.EPSILON):
    """Stands in for `blocks.batch_normalize`."""
    mean, variance = tf.zeros_like(scale), tf.ones_like(scale)
    outputs = blocks.normalize(
        inputs, scale, offset, mean, variance, epsilon=epsilon
    )
    return outputs, mean, variance


def batches(replicas):
    """Returns a dataset of the parts that replicas take of pairs of batches.

    Args:
        replicas: As `devices.replicas` returns it.
    """
    first, count, total = replicas

    def parts():
        for step in range(STEPS):
            halves = []
            for half in (0, 1):
                generator = np.random.default_rng((step, half))
                halves.append(
                    (
                        generator.normal(size=(BATCH, 8, 8, 3)),
                        generator.integers(0, 3, BATCH, "int32"),
                    )
                )
            for i in range(first, first + count):
                own = slice(i * BATCH // total, (i + 1) * BATCH // total)
                yield tuple(tuple(x[own] for x in half) for half in halves)

    half = (
        tf.TensorSpec((None, 8, 8, 3), tf.float64),
        tf.TensorSpec((None,), tf.int32),
    )
    return tf.data.Dataset.from_generator(parts, output_signature=(half, half))


def train(strategy, **options):
    """Returns the variables and copies of architecture weights, and losses."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        supernet = Supernet(3, "tiny", 4, 1, dtype="float64")
        supernet.build((None, 8, 8, 3))
        search = Search(supernet)
        search.compile(
            optimizers.SGD(0.1, momentum=0.9),
            optimizers.Adam(0.01),
            # So that clipping acts.
            clip_norm=0.1,
            **options,
        )
    step = devices.on_replicas(strategy, search.train_step)
    iterator = iter(batches(devices.replicas(strategy)))
    for _ in range(STEPS):
        logs, *_ = step(iterator)
    tf.config.run_functions_eagerly(False)
    figures = [float(value) for value in logs.values()]
    return (
        [*(v.numpy() for v in supernet.variables), np.array(figures)],
        devices.copies(strategy, supernet.architecture_variables),
    )


def compare(strategies, name):
    """Returns the outcome of a case; see above."""
    options, eagerly = CASES[name]
    results = []
    for strategy in strategies:
        several = strategy.num_replicas_in_sync > 1
        tf.config.run_functions_eagerly(eagerly)
        results.append(
            train(
                strategy,
                sync_batch_norm=several and name in SYNCHRONIZED,
                **options,
            )
        )
    (alone, _), (together, copies) = results
    return {
        "case": name,
        "difference": max(
            float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-12))
            for one, other in zip(alone, together, strict=True)
        ),
        "replicas": len(copies),
        "alike": all((copy == copies[0]).all() for copy in copies),
    }


def main(number, *names):
    search_space.SEARCH_SPACES["tiny"] = SPACE
    kind = "multi_worker" if cluster.is_given() else "mirrored"
    engine = {"strategy": kind, "replicas": int(number)}
    several = devices.strategy(ml_collections.ConfigDict({"engine": engine}))
    strategies = (tf.distribute.get_strategy(), several)
    original = blocks.batch_normalize
    for name in names or CASES:
        blocks.batch_normalize = (
            constant_statistics if name in CONSTANT else original
        )
        print(json.dumps(compare(strategies, name)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
