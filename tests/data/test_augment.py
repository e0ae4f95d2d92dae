"""Every result is held against a search over all that NumPy could give."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import augment
from tests.data import toy

SHAPES = [(8, 8, 3), (28, 28, 1), (20, 33, 3)]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def crops(image, padding):
    """Yields (corner, crop) for every crop there is."""
    height, width, _ = image.shape
    canvas = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)))
    for y, x in itertools.product(range(2 * padding + 1), repeat=2):
        yield (y, x), canvas[y : y + height, x : x + width]


def normalised(image):
    channels = image.shape[-1]
    return (image / 255 - MEAN[:channels]) / STD[:channels]


def box(height, width, y, x, length):
    """Returns where cutout erases around `(y, x)`, in the usual words."""
    y1, y2 = np.clip([y - length // 2, y + length // 2], 0, height)
    x1, x2 = np.clip([x - length // 2, x + length // 2], 0, width)
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def found(candidates, image):
    """Returns the one name among the candidates that gives the image."""
    names = [n for n, c in candidates if np.array_equal(c, image)]
    assert len(names) == 1
    return names[0]


def within_five_deviations(counts, outcomes, draws):
    expected = draws / outcomes
    assert len(counts) == outcomes
    assert max(abs(c - expected) for c in counts.values()) < 5 * expected**0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_is_a_window_of_the_image_in_a_frame_of_zeros(shape):
    images = toy.images(6, shape=shape)
    results = augment.random_crop(images, seed=(1, 2), padding=4)
    assert results.dtype == tf.uint8 and results.shape == images.shape
    corners = {
        found(crops(image, 4), result)
        for image, result in zip(images, results.numpy())
    }
    assert len(corners) > 1


def test_every_corner_of_a_crop_is_as_likely_as_any_other():
    image = toy.images(1, shape=(4, 5, 1))[0]
    images = np.tile(image, (3600, 1, 1, 1))
    results = augment.random_crop(images, seed=(3, 4), padding=1).numpy()
    names = {crop.tobytes(): corner for corner, crop in crops(image, 1)}
    counts = collections.Counter(names[r.tobytes()] for r in results)
    within_five_deviations(counts, 9, 3600)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_of_the_images_are_mirrored_left_to_right(shape):
    image = toy.images(1, shape=shape)[0]
    images = np.tile(image, (400, 1, 1, 1))
    results = augment.random_flip(images, seed=(5, 6)).numpy()
    candidates = [(False, image), (True, image[:, ::-1])]
    counts = collections.Counter(found(candidates, r) for r in results)
    within_five_deviations(counts, 2, 400)


@pytest.mark.parametrize("shape", SHAPES)
def test_normalising_centres_and_scales_each_channel(shape):
    images = toy.images(3, shape=shape)
    channels = shape[-1]
    results = augment.normalise(
        images, mean=MEAN[:channels], std=STD[:channels]
    )
    assert results.dtype == tf.float32
    np.testing.assert_allclose(results, normalised(images), atol=1e-6)
    # By hand: (255 / 255 - 0.5) / 0.2 = 2.5.
    white = augment.normalise(
        np.full((1, 1, 1, 1), 255, np.uint8), mean=MEAN[:1], std=STD[:1]
    )
    assert white.numpy().item() == pytest.approx(2.5)


@pytest.mark.parametrize("length", [2, 4, 5])
@pytest.mark.parametrize("height, width", [(5, 6), (6, 6)])
def test_cutout_erases_a_box_around_any_pixel_and_clips_it(
    height, width, length
):
    draws = 6000
    images = np.ones((draws, height, width, 2), np.float32)
    results = augment.random_cutout(images, seed=(7, 8), length=length).numpy()
    np.testing.assert_array_equal(results[..., 0], results[..., 1])
    names = {
        box(height, width, y, x, length).tobytes(): (y, x)
        for y in range(height)
        for x in range(width)
    }
    counts = collections.Counter(
        names[(result[..., 0] == 0).tobytes()] for result in results
    )
    within_five_deviations(counts, height * width, draws)


def test_a_cutout_twice_as_large_as_the_image_erases_all_of_it():
    images = np.ones((50, 4, 4, 1), np.float32)
    results = augment.random_cutout(images, seed=(0, 0), length=8).numpy()
    assert not results.any()


@pytest.mark.parametrize("flip", [False, True])
def test_the_whole_is_crop_then_flip_then_normalise_then_cutout(flip):
    height, width, padding, length = 5, 6, 1, 4
    images = toy.images(8, shape=(height, width, 3))
    results = augment.augment(
        images,
        seed=(9, 10),
        mean=MEAN,
        std=STD,
        padding=padding,
        flip=flip,
        cutout=length,
    ).numpy()
    flips = set()
    for image, result in zip(images, results):
        candidates = []
        for (corner, crop), mirrored in itertools.product(
            crops(image, padding), (False, True)
        ):
            expected = normalised(crop[:, ::-1] if mirrored else crop)
            for y, x in itertools.product(range(height), range(width)):
                erased = np.where(
                    box(height, width, y, x, length)[..., None], 0, expected
                )
                candidates.append(((corner, mirrored, y, x), erased))
        # Neighbouring pixel values are over 0.01 apart.
        (name,) = [
            name
            for name, candidate in candidates
            if np.abs(candidate - result).max() < 1e-5
        ]
        flips.add(name[1])
    assert flips == ({False, True} if flip else {False})


def test_padding_is_black_and_not_grey():
    images = np.full((40, 4, 4, 3), 255, np.uint8)
    results = augment.augment(
        images,
        seed=(1, 1),
        mean=MEAN,
        std=STD,
        padding=2,
        flip=False,
        cutout=0,
    ).numpy()
    white, black = normalised(np.array([[[255] * 3], [[0] * 3]], np.uint8))
    is_white = np.isclose(results, white).all(-1)
    is_black = np.isclose(results, black).all(-1)
    assert is_white.any() and is_black.any() and (is_white | is_black).all()


def test_without_crop_flip_and_cutout_only_normalisation_is_left():
    images = toy.images(5)
    results = augment.augment(
        images, seed=(1, 2), mean=MEAN, std=STD, padding=0, flip=0, cutout=0
    )
    np.testing.assert_allclose(results, normalised(images), atol=1e-6)


def test_the_seed_decides_every_step_by_itself():
    images = np.tile(toy.images(1, shape=(9, 9, 3)), (64, 1, 1, 1))
    floats = normalised(images)
    steps = [
        lambda seed: augment.random_crop(images, seed=seed, padding=2),
        lambda seed: augment.random_flip(images, seed=seed),
        lambda seed: augment.random_cutout(floats, seed=seed, length=4),
        lambda seed: augment.augment(
            images,
            seed=seed,
            mean=MEAN,
            std=STD,
            padding=2,
            flip=True,
            cutout=4,
        ),
    ]
    for step in steps:
        first = step((1, 2)).numpy()
        np.testing.assert_array_equal(first, step((1, 2)).numpy())
        assert not np.array_equal(first, step((2, 2)).numpy())
        assert not np.array_equal(first, step((1, 3)).numpy())


def test_a_traced_call_gives_the_same_bits_for_any_batch_size():
    @tf.function(
        input_signature=[tf.TensorSpec((None, 7, 6, 3), tf.uint8)],
        autograph=False,
    )
    def traced(images):
        results = augment.augment(
            images,
            seed=(1, 2),
            mean=MEAN,
            std=STD,
            padding=2,
            flip=True,
            cutout=4,
        )
        assert results.shape.as_list() == [None, 7, 6, 3]
        return results

    for count in (1, 5):
        images = toy.images(count, shape=(7, 6, 3))
        eager = augment.augment(
            tf.constant(images),
            seed=(1, 2),
            mean=MEAN,
            std=STD,
            padding=2,
            flip=True,
            cutout=4,
        )
        np.testing.assert_array_equal(traced(images), eager)
