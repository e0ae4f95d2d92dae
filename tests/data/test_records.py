import hashlib

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import records
from att_darts_tf.errors import UsageError
from tests.data import toy


def encoded(images):
    return [
        records.encode(key=f"key {index}", image=image, label=index)
        for index, image in enumerate(images)
    ]


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (20, 33, 3)])
def test_what_is_written_is_read_again_in_order(tmp_path, shape):
    images = toy.images(7, shape=shape)
    path = tmp_path / "images.tfrecord"
    records.write(path, encoded(images))
    read_images, read_labels = records.read(path, image_shape=shape)
    np.testing.assert_array_equal(read_images, images)
    assert read_images.dtype == np.uint8
    np.testing.assert_array_equal(read_labels, np.arange(7))
    assert read_labels.dtype == np.int32


def test_more_records_than_are_parsed_at_once_are_read(tmp_path):
    images = toy.images(2500, shape=(2, 2, 1))
    path = tmp_path / "images.tfrecord"
    records.write(path, encoded(images))
    read_images, _ = records.read(path, image_shape=(2, 2, 1))
    np.testing.assert_array_equal(read_images, images)


def test_a_record_is_an_example_with_image_label_and_key():
    image = toy.images(1)[0]
    example = tf.train.Example.FromString(
        records.encode(key="cat/\udcff.png", image=image, label=3)
    )
    feature = example.features.feature
    assert feature["image"].bytes_list.value[0] == image.tobytes()
    assert feature["label"].int64_list.value[0] == 3
    assert feature["key"].bytes_list.value[0] == b"cat/\xff.png"


def test_the_bytes_of_a_record_are_in_a_fixed_order():
    record = records.encode(key="k", image=np.zeros((1, 1, 1)), label=1)
    places = [record.index(name) for name in (b"image", b"key", b"label")]
    assert places == sorted(places)


def test_writing_gives_the_digest_and_leaves_nothing_else_behind(tmp_path):
    path = tmp_path / "images.tfrecord"
    digest = records.write(path, encoded(toy.images(3)))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]
    records.check(path, digest)


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "images.tfrecord"
    records.write(path, encoded(toy.images(3)))
    before = path.read_bytes()

    def failing():
        yield from encoded(toy.images(1))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        records.write(path, failing())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-20],
        lambda content: content[:50] + b"\x00" + content[51:],
        lambda content: content + content,
        lambda content: b"",
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "images.tfrecord"
    digest = records.write(path, encoded(toy.images(3)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=str(path)):
        records.check(path, digest)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="images.tfrecord.*No such file"):
        records.check(tmp_path / "images.tfrecord", "")


def test_records_of_another_size_are_refused(tmp_path):
    path = tmp_path / "images.tfrecord"
    records.write(path, encoded(toy.images(3)))
    with pytest.raises(UsageError, match="images.tfrecord.*InvalidArgument"):
        records.read(path, image_shape=(7, 8, 3))


def test_a_file_that_holds_no_records_is_refused(tmp_path):
    path = tmp_path / "images.tfrecord"
    path.write_bytes(b"not a record at all")
    with pytest.raises(UsageError, match="images.tfrecord.*DataLoss"):
        records.read(path, image_shape=(8, 8, 3))
