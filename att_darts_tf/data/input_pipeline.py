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
# Of a process that computes whole batches.
ALONE = (0, 1, 1)


def steps_per_epoch(num_examples, batch_size, *, replicas=1):
    """Returns how many batches of training cover the examples once.

    Args:
        num_examples: Integer.
        batch_size: Integer. More than there are examples are refused; the last
            batch of an epoch may be smaller.
        replicas: Integer. Among how many a batch is divided; each must have
            an example of every batch.
    """
    if batch_size < 1 or num_examples < batch_size:
        raise UsageError(
            f"Expected at least one batch of {batch_size} images. Received: "
            f"{num_examples} images. Lower the batch_size or add images"
        )
    last = num_examples % batch_size or batch_size
    if last < replicas:
        raise UsageError(
            f"Expected an image of every batch for each of {replicas} "
            f"replicas. Received: batches of {batch_size} and {num_examples} "
            f"images, a last batch of {last}. Choose another batch_size"
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
    replicas=ALONE,
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
        replicas: Three integers: the first of the replicas that the batches
            are for, how many these are, and how many share a batch. Their
            parts of each batch come one after the other; put together they
            are the batch, to the bit.

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
        replicas=replicas,
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


def evaluation_batches(split, *, preprocessing, batch_size, replicas=ALONE):
    """Prepares every example as it is judged, in order.

    Args:
        split: `prepared.Split` or `prepared.EncodedSplit`.
        preprocessing: What `preprocess.of` returns for its images.
        batch_size: Integer. The last batch may be smaller.
        replicas: As in `training_batches`; a part may be empty here.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, as in `training_batches`.
    """

    def part(at, first, last, size):
        examples, labels = split.take(tf.range(at + first, at + last))
        return preprocessing.evaluation(examples), labels

    return _parts(
        part, len(split), batch_size=batch_size, first=0, replicas=replicas
    )


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
    >>> [(first, second)] = pairs
    >>> [sorted(labels.numpy().tolist()) for _, labels in (first, second)]
    [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
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
    replicas=ALONE,
):
    steps_per_epoch(len(split), batch_size, replicas=replicas[2])
    with tf.device("CPU"):
        epoch_seed = tf.random.fold_in(
            tf.constant((seed, stream), tf.int64), tf.constant(epoch, tf.int64)
        )
        order_seed, batch_seed = tf.unstack(tf.random.split(epoch_seed, num=2))
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), order_seed
        )

    def part(at, first, last, size):
        examples, labels = split.take(order[at + first : at + last])
        inputs = preprocessing.training(
            examples,
            seed=tf.random.fold_in(batch_seed, at // batch_size),
            rows=(first, last, size),
        )
        return inputs, labels

    return _parts(
        part,
        len(split),
        batch_size=batch_size,
        first=first_step,
        replicas=replicas,
    )


def _parts(function, num_examples, *, batch_size, first, replicas):
    """Maps what replicas take of each batch.

    Args:
        function: Maps where the batch begins among the examples, where the
            part begins and ends in the batch, and the size of the batch.
        num_examples: Integer.
        batch_size: Integer.
        first: Integer. Number of the first batch.
        replicas: As in `training_batches`.
    """
    begin, count, total = replicas

    def part(number):
        at = number // count * batch_size
        size = tf.minimum(num_examples - at, batch_size)
        replica = begin + number % count
        ends = (replica * size // total, (replica + 1) * size // total)
        return function(at, *ends, size)

    last = _ceil(num_examples, batch_size)
    dataset = tf.data.Dataset.range(first * count, last * count).map(
        part, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
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
