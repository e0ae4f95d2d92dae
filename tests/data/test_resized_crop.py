"""Held against torchvision's law in its own words, Pillow and colorsys."""

import collections
import colorsys
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from att_darts_tf.data import resized_crop
from tests.data import toy

DRAWS = 4000


def windows(size, *, area, draws=DRAWS):
    """Returns many windows, an array of shape `(draws, 4)`."""

    @tf.function
    def draw(seeds):
        return tf.map_fn(
            lambda seed: resized_crop.sample_window(
                tf.constant(size), seed=seed, area=area
            ),
            seeds,
            fn_output_signature=tf.int32,
        )

    seeds = np.stack([np.arange(draws), np.full(draws, 7)], 1)
    return draw(tf.constant(seeds)).numpy()


def law(generator, height, width, area):
    """`RandomResizedCrop.get_params` of torchvision, with NumPy's numbers."""
    least, most = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        pixels = height * width * generator.uniform(*area)
        ratio = math.exp(generator.uniform(least, most))
        w = round(math.sqrt(pixels * ratio))
        h = round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            i = generator.integers(0, height - h + 1)
            j = generator.integers(0, width - w + 1)
            return i, j, h, w
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        h, w = height, round(height * (4 / 3))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def assert_uniform(values, first, last):
    """Holds mean, deviation and quarters of the draws against theory."""
    shares = (np.asarray(values) - first) / (last - first)
    draws = len(shares)
    assert shares.min() > -0.01 and shares.max() < 1.01
    assert abs(shares.mean() - 0.5) < 5 * (1 / 12 / draws) ** 0.5
    counts, _ = np.histogram(shares, 4, (-0.01, 1.01))
    assert np.abs(counts / draws - 0.25).max() < 5 * (3 / 16 / draws) ** 0.5


def test_where_every_window_fits_share_ratio_and_corner_are_even():
    # Of sides up to sqrt(0.3 * 4 / 3) = 0.63 of an image's.
    top, left, height, width = windows((1000, 1000), area=(0.1, 0.3)).T
    assert_uniform(height * width / 1e6, 0.1, 0.3)
    assert_uniform(np.log(width / height), -math.log(4 / 3), math.log(4 / 3))
    assert_uniform(top / (1000 - height), 0, 1)
    assert_uniform(left / (1000 - width), 0, 1)


def test_every_corner_is_as_likely_as_any_other():
    # Of 9 pixels a ninth is one, at any ratio: sides of 0.87 to 1.15.
    drawn = windows((3, 3), area=(1 / 9, 1 / 9), draws=3600)
    assert (drawn[:, 2:] == 1).all()
    counts = collections.Counter(map(tuple, drawn[:, :2].tolist()))
    assert len(counts) == 9
    assert max(abs(count - 400) for count in counts.values()) < 5 * 20


@pytest.mark.parametrize("size", [(375, 500), (500, 240)])
def test_windows_of_a_photograph_follow_the_law(size):
    received = windows(size, area=(0.08, 1.0))
    generator = np.random.default_rng(0)
    expected = np.array(
        [law(generator, *size, (0.08, 1.0)) for _ in range(DRAWS)]
    )
    for ours, theirs in zip(received.T, expected.T):
        assert ours.min() >= 0
        # Kolmogorov and Smirnov's distance; 1.95 is exceeded by one in 1000.
        values = np.union1d(ours, theirs)
        shares = [
            np.searchsorted(np.sort(each), values, "right") / DRAWS
            for each in (ours, theirs)
        ]
        distance = np.abs(shares[0] - shares[1]).max()
        assert distance < 1.95 * (2 / DRAWS) ** 0.5
    assert (received[:, 0] + received[:, 2]).max() <= size[0]
    assert (received[:, 1] + received[:, 3]).max() <= size[1]


@pytest.mark.parametrize(
    "size, expected",
    [
        # Too wide, too high, and of an allowed ratio: by hand.
        ((10, 1000), (0, 493, 10, 13)),
        ((1000, 9), (494, 0, 12, 9)),
        ((97, 101), (0, 0, 97, 101)),
    ],
)
def test_where_no_window_fits_the_middle_is_taken(size, expected):
    for window in windows(size, area=(3.0, 3.0), draws=3):
        assert tuple(window) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (3, 400)])
def test_windows_of_the_smallest_images_are_inside(size):
    drawn = windows(size, area=(0.08, 1.0), draws=300)
    corners, shapes = drawn[:, :2], drawn[:, 2:]
    assert corners.min() >= 0 and shapes.min() >= 1
    assert (corners + shapes <= size).all()


def pillow(name, image, factor):
    enhanced = getattr(ImageEnhance, name)(Image.fromarray(image))
    return np.asarray(enhanced.enhance(factor)).astype(float)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
@pytest.mark.parametrize(
    "name, adjust",
    [
        ("Brightness", resized_crop.adjust_brightness),
        ("Contrast", resized_crop.adjust_contrast),
        ("Color", resized_crop.adjust_saturation),
    ],
)
def test_a_change_is_pillow_s(name, adjust, factor):
    image = toy.photo(size=(30, 40), seed=1)
    received = adjust(tf.cast(image, tf.float32), factor).numpy()
    expected = pillow(name, image, factor)
    # Pillow rounds the grey that it blends with, and the result.
    tolerance = 1 + 0.5 * abs(1 - factor)
    assert np.abs(received - expected).max() <= tolerance
    assert received.min() >= 0 and received.max() <= 255


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.35])
def test_a_turned_hue_is_colorsys_s(turn):
    image = toy.photo(size=(9, 11), seed=2)
    received = resized_crop.adjust_hue(tf.cast(image, tf.float32), turn)
    for pixel, turned in zip(
        image.reshape(-1, 3), received.numpy().reshape(-1, 3)
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(turned / 255, expected, atol=1e-4)


def jittered(image, strengths, *, draws):
    @tf.function
    def draw(seeds):
        return tf.map_fn(
            lambda seed: resized_crop.color_jitter(
                image, seed=seed, strengths=strengths
            ),
            seeds,
            fn_output_signature=tf.float32,
        )

    return draw(tf.constant([(i, 3) for i in range(draws)])).numpy()


def test_the_four_changes_come_in_every_order(monkeypatch):
    monkeypatch.setattr(
        resized_crop, "_between", lambda bounds, share: bounds[1]
    )
    image = tf.cast(toy.photo(size=(5, 6), seed=3), tf.float32)
    steps = [
        lambda image: resized_crop.adjust_brightness(image, 1.3),
        lambda image: resized_crop.adjust_contrast(image, 1.4),
        lambda image: resized_crop.adjust_saturation(image, 1.6),
        lambda image: resized_crop.adjust_hue(image, 0.2),
    ]
    outcomes = {}
    for order in itertools.permutations(range(4)):
        expected = image
        for number in order:
            expected = steps[number](expected)
        outcomes[order] = expected.numpy()
    counts = collections.Counter()
    for received in jittered(image, (0.3, 0.4, 0.6, 0.2), draws=2400):
        (order,) = [
            order
            for order, expected in outcomes.items()
            if np.abs(expected - received).max() < 1e-3
        ]
        counts[order] += 1
    # 100 of each expected.
    assert len(counts) == 24
    assert max(abs(count - 100) for count in counts.values()) < 50


@pytest.mark.parametrize(
    "strengths, first, last",
    [((0.4, 0, 0, 0), 0.6, 1.4), ((1.5, 0, 0, 0), 0.0, 2.5)],
)
def test_a_factor_is_even_around_one_and_never_negative(strengths, first, last):
    image = tf.fill((1, 1, 3), 100.0)
    factors = jittered(image, strengths, draws=2000)[:, 0, 0, 0] / 100
    assert_uniform(factors, first, last)


def test_the_hue_turns_evenly_either_way():
    image = tf.constant([[[255.0, 0.0, 0.0]]])
    hues = [
        colorsys.rgb_to_hsv(*colour[0, 0] / 255)[0]
        for colour in jittered(image, (0, 0, 0, 0.2), draws=2000)
    ]
    assert_uniform((np.array(hues) + 0.5) % 1 - 0.5, -0.2, 0.2)


def test_grey_images_change_in_brightness_and_contrast_only():
    image = tf.cast(toy.photo(size=(5, 6))[..., :1], tf.float32)
    for received in jittered(image, (0, 0, 0.9, 0.5), draws=3):
        np.testing.assert_array_equal(received, image)
    changed = jittered(image, (0.4, 0.4, 0.4, 0.2), draws=3)
    assert all(np.abs(each - image).max() > 1 for each in changed)


def test_without_strength_nothing_changes():
    image = tf.cast(toy.photo(size=(5, 6)), tf.float32)
    seed = tf.constant((1, 2))
    assert image is resized_crop.color_jitter(
        image, seed=seed, strengths=(0, 0, 0, 0)
    )
