import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import input_pipeline, prepared, preprocess
from att_darts_tf.errors import UsageError
from tests.data import toy


def padded_crop(**changes):
    """Returns the preprocessing of a test, plain but for the changes."""
    options = {
        "image_shape": (8, 8, 3),
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "padding": 0,
        "flip": False,
        "cutout": 0,
    }
    return preprocess.PaddedCrop(**{**options, **changes})


PLAIN = padded_crop()
AUGMENTED = padded_crop(
    mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), padding=2, flip=True, cutout=4
)


def batches(dataset):
    return [
        tuple(part.numpy() for part in tf.nest.flatten(batch))
        for batch in dataset
    ]


def training(split, preprocessing=AUGMENTED, **changes):
    options = {"batch_size": 4, "epoch": 0, "seed": 0, **changes}
    return input_pipeline.training_batches(
        split, preprocessing=preprocessing, **options
    )


def assert_same(received, expected):
    assert len(received) == len(expected)
    for left, right in zip(received, expected):
        for left_part, right_part in zip(left, right, strict=True):
            np.testing.assert_array_equal(left_part, right_part)


def test_steps_are_rounded_up():
    received = [
        input_pipeline.steps_per_epoch(count, 4) for count in (4, 5, 8, 9)
    ]
    assert received == [1, 2, 2, 3]


@pytest.mark.parametrize("count, size", [(3, 4), (0, 1), (5, 0)])
def test_fewer_images_than_one_batch_are_refused(count, size):
    with pytest.raises(UsageError, match=f"{size} images.*{count} images"):
        input_pipeline.steps_per_epoch(count, size)


def test_training_refuses_fewer_images_than_one_batch():
    with pytest.raises(UsageError, match="batch of 4 images.*3 images"):
        training(toy.split(3))


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (20, 33, 3)])
def test_an_epoch_holds_every_image_once_beside_its_label(shape):
    split = toy.split(11, shape=shape)
    plain = padded_crop(
        image_shape=shape, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1]
    )
    received = batches(training(split, plain))
    assert [len(labels) for _, labels in received] == [4, 4, 3]
    images, labels = (np.concatenate(parts) for parts in zip(*received))
    assert sorted(labels) == list(range(11))
    np.testing.assert_allclose(images, split.images[labels] / 255, atol=1e-6)


def test_the_batch_axis_is_unknown_and_the_types_are_plain():
    for dataset in (
        training(toy.split(9)),
        input_pipeline.evaluation_batches(
            toy.split(9), preprocessing=PLAIN, batch_size=4
        ),
    ):
        assert dataset.element_spec == (
            tf.TensorSpec((None, 8, 8, 3), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        )


def test_the_length_of_an_epoch_is_known():
    assert training(toy.split(9)).cardinality() == 3
    assert training(toy.split(9), first_step=2).cardinality() == 1


def test_resuming_at_any_step_gives_the_rest_of_the_epoch_to_the_bit():
    split = toy.split(18)
    whole = batches(training(split, epoch=3, seed=5))
    for first_step in range(6):
        rest = batches(training(split, epoch=3, seed=5, first_step=first_step))
        assert_same(rest, whole[first_step:])


@pytest.mark.parametrize("total, processes", [(2, 1), (3, 1), (4, 2)])
def test_parts_of_replicas_put_together_are_the_batches(total, processes):
    # Batches of 7, the last one of 4: parts differ in size.
    images = toy.split(18)
    expected = batches(training(images, batch_size=7, first_step=1))
    count = total // processes
    parts = [
        batches(
            training(
                images,
                batch_size=7,
                first_step=1,
                replicas=(process * count, count, total),
            )
        )
        for process in range(processes)
    ]
    received = []
    for step in range(len(expected)):
        own = [
            part
            for of_process in parts
            for part in of_process[step * count : (step + 1) * count]
        ]
        received.append(tuple(map(np.concatenate, zip(*own))))
    assert_same(received, expected)


def test_a_replica_without_an_image_is_refused():
    # Two batches of 7 and one of 3.
    with pytest.raises(UsageError, match="4 replicas.*a last batch of 3"):
        training(toy.split(17), batch_size=7, replicas=(0, 4, 4))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    split = toy.split(64)
    orders = {
        tuple(np.concatenate([labels for _, labels in batches(dataset)]))
        for dataset in [
            training(split, epoch=epoch, seed=seed)
            for epoch in range(3)
            for seed in (0, 1, 2**40, -1)
        ]
    }
    assert len(orders) == 12


def test_no_two_draws_of_one_image_are_the_same():
    images = np.tile(toy.images(1, shape=(32, 32, 3)), (24, 1, 1, 1))
    split = prepared.Split(images, np.arange(24, dtype=np.int32))
    augmented = dataclasses.replace(
        AUGMENTED, image_shape=(32, 32, 3), padding=4
    )
    drawn = [
        image.tobytes()
        for epoch in range(3)
        for batch, _ in batches(training(split, augmented, epoch=epoch))
        for image in batch
    ]
    # 72 of 9 x 9 x 2 x 32 x 32 outcomes: one pair may meet by chance.
    assert len(set(drawn)) >= 71


def test_the_order_of_a_seed_is_the_one_that_older_checkpoints_know():
    received = batches(training(toy.split(12), PLAIN, seed=1, epoch=2))
    order = np.concatenate([labels for _, labels in received]).tolist()
    # Recorded from the first version: another order breaks every resume.
    assert order == [2, 7, 0, 4, 11, 6, 3, 5, 1, 10, 9, 8]


def test_pairs_are_the_two_halves_step_by_step():
    weights, architecture = toy.split(10), toy.split(10)
    options = {"batch_size": 4, "epoch": 1, "seed": 2}
    options["preprocessing"] = AUGMENTED
    dataset = input_pipeline.paired_batches(weights, architecture, **options)
    received = batches(dataset)
    alone = batches(input_pipeline.training_batches(weights, **options))
    assert_same([batch[:2] for batch in received], alone)
    orders = [
        np.concatenate([batch[part] for batch in received]).tolist()
        for part in (1, 3)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))


def test_pairs_resume_at_any_step_to_the_bit():
    weights, architecture = toy.split(10), toy.split(10)
    options = {"batch_size": 4, "epoch": 1, "seed": 2}
    options["preprocessing"] = AUGMENTED
    whole = batches(
        input_pipeline.paired_batches(weights, architecture, **options)
    )
    rest = batches(
        input_pipeline.paired_batches(
            weights, architecture, first_step=1, **options
        )
    )
    assert_same(rest, whole[1:])


def test_pairs_of_unequal_halves_are_refused():
    with pytest.raises(ValueError, match="10 and 9 examples"):
        input_pipeline.paired_batches(
            toy.split(10),
            toy.split(9),
            preprocessing=AUGMENTED,
            batch_size=4,
            epoch=0,
            seed=0,
        )


@pytest.mark.parametrize("batch_size", [4, 100])
def test_evaluation_keeps_the_order_and_leaves_nothing_out(batch_size):
    split = toy.split(10)
    dataset = input_pipeline.evaluation_batches(
        split,
        preprocessing=padded_crop(mean=(0.5,) * 3, std=(0.25,) * 3),
        batch_size=batch_size,
    )
    images, labels = (np.concatenate(parts) for parts in zip(*batches(dataset)))
    np.testing.assert_array_equal(labels, split.labels)
    np.testing.assert_allclose(
        images, (split.images / 255 - 0.5) / 0.25, atol=1e-6
    )


def own_dataset(count, **changes):
    values = {
        "images": toy.images(count).astype(np.float32),
        "labels": np.arange(count),
        **changes,
    }
    return tf.data.Dataset.from_tensor_slices(tuple(values.values()))


def test_a_dataset_of_ones_own_becomes_two_disjoint_equal_halves():
    images = toy.images(11).astype(np.float32)
    pairs = input_pipeline.split_in_halves(own_dataset(11), batch_size=2)
    seen = []
    for _ in range(2):
        received = batches(pairs)
        assert [len(batch[1]) for batch in received] == [2, 2, 1]
        parts = [np.concatenate(part) for part in zip(*received)]
        for inputs, labels in (parts[:2], parts[2:]):
            np.testing.assert_array_equal(inputs, images[labels])
        seen.append([set(parts[1]), set(parts[3])])
    assert seen[0] == seen[1] == [{0, 2, 4, 6, 8}, {1, 3, 5, 7, 9}]


def test_the_halves_stay_apart_though_the_dataset_is_shuffled_each_time():
    dataset = own_dataset(32).shuffle(32, reshuffle_each_iteration=True)
    pairs = input_pipeline.split_in_halves(dataset, batch_size=4)
    epochs = []
    for _ in range(2):
        parts = [np.concatenate(part) for part in zip(*batches(pairs))]
        epochs.append((parts[1].tolist(), parts[3].tolist()))
    for half in (0, 1):
        assert set(epochs[0][half]) == set(epochs[1][half])
        assert epochs[0][half] != epochs[1][half]
    assert not set(epochs[0][0]) & set(epochs[0][1])


def test_a_dataset_that_cannot_be_halved_is_refused():
    for dataset, message in [
        (own_dataset(8).batch(2), "one example at a time"),
        (own_dataset(8).map(lambda image, label: image), "image, label"),
        (own_dataset(8).repeat(), "finite"),
        (own_dataset(8).take(0), "empty"),
        (own_dataset(7), "batch of 4 images.*3 images"),
    ]:
        with pytest.raises(UsageError, match=message):
            input_pipeline.split_in_halves(dataset, batch_size=4)
