"""TFRecord files of other programs as a source."""

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import prepared, run
from att_darts_tf.errors import UsageError
from tests.data import toy

NAMES = {
    "tfds": ("image", "label"),
    "imagenet": ("image/encoded", "image/class/label"),
}


def example(image, label, names):
    contents = tf.io.encode_png(image).numpy()
    feature = {
        names[0]: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[contents])
        ),
        names[1]: tf.train.Feature(
            int64_list=tf.train.Int64List(value=[label])
        ),
    }
    return tf.train.Example(
        features=tf.train.Features(feature=feature)
    ).SerializeToString()


def write(root, splits, *, kind="tfds"):
    """Writes files, and returns the images of each by its name."""
    root.mkdir(exist_ok=True)
    (root / "labels.txt").write_text("ant\nbee\ncat\n")
    written = {}
    for seed, (name, count) in enumerate(splits.items()):
        written[name] = toy.images(count, seed=seed)
        with tf.io.TFRecordWriter(str(root / name)) as writer:
            for index, image in enumerate(written[name]):
                writer.write(example(image, index % 3, NAMES[kind]))
    return written


def prepare(root, folder, **changes):
    return run.run_prepare(toy.config(root, **changes), output_dir=folder)


def refusal(root, folder):
    with pytest.raises(UsageError) as caught:
        prepare(root, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tfrecord", "train-1.tfrecord", "test.tfrecord"),
        (
            "train-00000-of-00002",
            "train-00001-of-00002",
            "validation-00000-of-00001",
        ),
    ],
)
def test_every_image_arrives_with_its_label(tmp_path, kind, names):
    counts = dict(zip(names, (7, 9, 5)))
    written = write(tmp_path / "records", counts, kind=kind)
    result = prepare(tmp_path / "records", tmp_path / "data")
    data = prepared.load(tmp_path / "data")
    assert data.class_names == ("ant", "bee", "cat")
    assert data.name == "records"
    for split, files in (("train", names[:2]), ("test", names[2:])):
        received = data.split(split)
        assert {
            (image.tobytes(), label)
            for image, label in zip(received.images, received.labels)
        } == {
            (image.tobytes(), index % 3)
            for name in files
            for index, image in enumerate(written[name])
        }
    assert result["normalisation"] == "training images"


def test_the_order_of_files_and_records_may_decide_the_halves(tmp_path):
    written = write(
        tmp_path / "records",
        {"train-0.tfrecord": 6, "train-1.tfrecord": 6, "test.tfrecord": 1},
    )
    prepare(tmp_path / "records", tmp_path / "data", halves="source_order")
    data = prepared.load(tmp_path / "data")
    for half, name in (
        ("weights", "train-0.tfrecord"),
        ("architecture", "train-1.tfrecord"),
    ):
        np.testing.assert_array_equal(data.split(half).images, written[name])


def test_without_files_to_judge_by_a_share_is_held_out(tmp_path):
    write(tmp_path / "records", {"train.tfrecord": 80})
    result = prepare(tmp_path / "records", tmp_path / "data")
    counts = [
        result["splits"][split]["examples"] for split in ("train", "test")
    ]
    # 80 draws with probability 1/4: 20, deviation 3.9.
    assert sum(counts) == 80 and 8 < counts[1] < 32


def test_a_broken_image_is_named_by_its_file_and_place(tmp_path):
    root = tmp_path / "records"
    write(root, {"train.tfrecord": 20})
    with tf.io.TFRecordWriter(str(root / "test.tfrecord")) as writer:
        writer.write(example(toy.images(1)[0], 0, NAMES["tfds"]))
        broken = tf.train.Example.FromString(
            example(toy.images(1)[0], 0, NAMES["tfds"])
        )
        broken.features.feature["image"].bytes_list.value[0] = b"broken"
        writer.write(broken.SerializeToString())
    message = refusal(root, tmp_path / "data")
    assert "test.tfrecord/1, which cannot be decoded" in message


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "DataLoss"),
        (lambda path: _rewrite(path, b"\xff" * 9), "no tf.train.Example"),
        (
            lambda path: _rewrite(
                path, tf.train.Example().SerializeToString()
            ),
            "Received: none in record 0",
        ),
        (
            lambda path: _rewrite(
                path,
                example(toy.images(1)[0], 0, ("image", "class")),
            ),
            "'class', 'image' in record 0",
        ),
        (
            lambda path: _rewrite(
                path, example(toy.images(1)[0], 3, NAMES["tfds"])
            ),
            "labels from 0 to 2. Received: 3",
        ),
        (lambda path: (path.parent / "labels.txt").unlink(), "labels.txt"),
        (
            lambda path: (path.parent / "labels.txt").write_text("a\n"),
            "Received: 1",
        ),
        (
            lambda path: path.rename(path.with_name("test-2.tfrecord")),
            "begin with train",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, spoil, expected):
    root = tmp_path / "records"
    write(root, {"train.tfrecord": 20, "test.tfrecord": 3})
    spoil(root / "train.tfrecord")
    message = refusal(root, tmp_path / "data")
    assert expected in message and str(root) in message or "labels" in message


def _rewrite(path, record):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)


def test_other_files_prepare_anew(tmp_path):
    write(tmp_path / "records", {"train.tfrecord": 9, "test.tfrecord": 3})
    first = prepare(tmp_path / "records", tmp_path / "data")
    write(tmp_path / "records", {"train.tfrecord": 10, "test.tfrecord": 3})
    assert prepare(tmp_path / "records", tmp_path / "data") != first
