"""Batches of prepared images, as `tf.data.Dataset`.

What a training batch holds is a function of seed, epoch and step alone. To
resume at a step there is no iterator to restore: begin at that step.
"""

import numpy as np
import tensorflow as tf

from att_darts_tf.errors import UsageError

# Two halves that are trained on together draw from different streams.
_WEIGHTS, _ARCHITECTURE = 0, 1
# Examples taken at once from a dataset of the user's.
_READ_BATCH = 256


def steps_per_epoch(num_examples, batch_size):
    """Returns how many batches of training cover the examples once.

    Args:
        num_examples: Integer.
        batch_size: Integer. More than there are examples are refused; the last
            batch of an epoch may be smaller.
    """
    if batch_size < 1 or num_examples < batch_size:
        raise UsageError(
            f"Expected at least one batch of {batch_size} images. Received: "
            f"{num_examples} images. Lower the batch_size or add images"
        )
    return _ceil(num_examples, batch_size)


def training_batches(
    split,
    *,
    preprocessing,
    batch_size,
    epoch,
    seed,
    first_step=0,
):
    """Shuffles and augments one epoch.

    Args:
        split: `prepared.Split` or `prepared.EncodedSplit`.
        preprocessing: What `preprocess.of` returns for its images.
        batch_size: Integer. The last batch is smaller where it does not divide
            the examples: each is seen once.
        epoch: Integer. Each epoch has its own order and its own augmentation.
        seed: Integer.
        first_step: Integer. Batches left out at the beginning; the rest is the
            same, to the bit, as without leaving them out.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, `float32` of shape `(batch,
        height, width, channels)` and `int32` of shape `(batch,)`.
    """
    return _training_batches(
        split,
        stream=_WEIGHTS,
        preprocessing=preprocessing,
        batch_size=batch_size,
        epoch=epoch,
        seed=seed,
        first_step=first_step,
    )


def paired_batches(weights, architecture, **options):
    """Zips one epoch of both halves of the training images.

    Args:
        weights: `prepared.Split` or `prepared.EncodedSplit`.
        architecture: One of that kind, with as many examples.
        **options: Those of `training_batches`. The first half comes out as it
            would there; the second draws from a random stream of its own.

    Returns:
        A `tf.data.Dataset` of pairs `((images, labels), (images, labels))`.
    """
    if len(weights) != len(architecture):
        raise ValueError(
            "Expected halves of one size, so that an epoch covers both. "
            f"Received: {len(weights)} and {len(architecture)} examples"
        )
    return tf.data.Dataset.zip(
        _training_batches(weights, stream=_WEIGHTS, **options),
        _training_batches(architecture, stream=_ARCHITECTURE, **options),
    )


def evaluation_batches(split, *, preprocessing, batch_size):
    """Prepares every example as it is judged, in order.

    Args:
        split: `prepared.Split` or `prepared.EncodedSplit`.
        preprocessing: What `preprocess.of` returns for its images.
        batch_size: Integer. The last batch may be smaller.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, as in `training_batches`.
    """

    def batch(step):
        at = step * batch_size
        chosen = tf.range(at, tf.minimum(at + batch_size, len(split)))
        examples, labels = split.take(chosen)
        return preprocessing.evaluation(examples), labels

    return _mapped(0, _ceil(len(split), batch_size), batch)


def split_in_halves(dataset, *, batch_size, seed=0):
    """Divides a dataset of your own into the two halves of a search.

    The examples at even positions become the first half, those at odd
    positions the second; an odd last one is in neither. They are read once and
    kept in memory, so no shuffling of yours can move an example to the other
    half. Each half is shuffled anew every epoch. Augment by mapping over the
    result, not before: what is mapped before is drawn only once.

    Args:
        dataset: Finite `tf.data.Dataset` of `(image, label)`, not batched.
        batch_size: Integer. Examples of each half in a step; the last batch
            may be smaller.
        seed: Integer. Of the order.

    Returns:
        A `tf.data.Dataset` of pairs `((images, labels), (images, labels))`, as
        `Search.fit` takes it.

    Example:

    >>> images = tf.random.normal((10, 32, 32, 3))
    >>> labels = tf.range(10)
    >>> dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    >>> pairs = split_in_halves(dataset, batch_size=5)
    """
    _check_unbatched(dataset)
    images, labels = _materialise(dataset)
    size = len(labels) // 2
    steps_per_epoch(size, batch_size)
    halves = []
    for start in (0, 1):
        with tf.device("CPU"):
            half = tf.data.Dataset.from_tensor_slices(
                (images[start : 2 * size : 2], labels[start : 2 * size : 2])
            )
        halves.append(half.shuffle(size, seed=seed + start).batch(batch_size))
    return tf.data.Dataset.zip(*halves).prefetch(tf.data.AUTOTUNE)


def _training_batches(
    split,
    *,
    stream,
    preprocessing,
    batch_size,
    epoch,
    seed,
    first_step=0,
):
    steps = steps_per_epoch(len(split), batch_size)
    with tf.device("CPU"):
        epoch_seed = tf.random.fold_in(
            tf.constant((seed, stream), tf.int64), tf.constant(epoch, tf.int64)
        )
        order_seed, batch_seed = tf.unstack(tf.random.split(epoch_seed, num=2))
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), order_seed
        )

    def batch(step):
        at = step * batch_size
        examples, labels = split.take(order[at : at + batch_size])
        inputs = preprocessing.training(
            examples, seed=tf.random.fold_in(batch_seed, step)
        )
        return inputs, labels

    return _mapped(first_step, steps, batch)


def _mapped(first, last, batch):
    dataset = tf.data.Dataset.range(first, last).map(
        batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def _ceil(numerator, denominator):
    return -(-numerator // denominator)


def _check_unbatched(dataset):
    spec = dataset.element_spec
    ranks = (
        [part.shape.rank for part in spec]
        if isinstance(spec, tuple)
        and all(isinstance(part, tf.TensorSpec) for part in spec)
        else None
    )
    if ranks != [3, 0]:
        raise UsageError(
            "Expected a dataset of (image, label), one example at a time: "
            "shapes (height, width, channels) and (). Received: "
            f"{spec}. Undo its batching with dataset.unbatch()"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            "Expected a finite dataset. Received: one that repeats without "
            "end. Leave out dataset.repeat()"
        )


def _materialise(dataset):
    batches = list(dataset.batch(_READ_BATCH).as_numpy_iterator())
    if not batches:
        raise UsageError(
            "Expected a dataset with examples. Received: an empty one"
        )
    return tuple(np.concatenate(arrays) for arrays in zip(*batches))
