"""Examples as TFRecord files: the image, the label and the key."""

import hashlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.errors import UsageError

_FEATURES = {
    "image": tf.io.FixedLenFeature((), tf.string),
    "label": tf.io.FixedLenFeature((), tf.int64),
}
# Records parsed at once: fast, and a small part of a data set.
_BATCH = 1024


def encode(*, key: str, image: np.ndarray | bytes, label: int) -> bytes:
    """Returns a serialised `tf.train.Example`, the same bytes every time.

    Args:
        key: String.
        image: Pixels, or the bytes of an encoded image.
        label: Integer.
    """
    values = {
        "image": [memoryview(image).tobytes()],
        "key": [key.encode("utf-8", "surrogateescape")],
    }
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        for name, value in values.items()
    }
    features["label"] = tf.train.Feature(
        int64_list=tf.train.Int64List(value=[label])
    )
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # Map entries otherwise come in an order of their own.
    return example.SerializeToString(deterministic=True)


def write(path: storage.Path, records: Iterable[bytes]) -> str:
    """Writes a whole file or none.

    Returns:
        The SHA-256 of the file, in hexadecimal.
    """
    with storage.replacing(path) as partial:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in records:
                writer.write(record)
        with partial.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: storage.Path, sha256: str) -> None:
    """Raises `UsageError` unless the file is the one that was written."""
    try:
        with path.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"Expected a file of prepared images at {path}. Received: "
            f"{error.strerror}. {again(path)}"
        ) from error
    if received != sha256:
        raise UsageError(
            f"Expected SHA-256 {sha256[:16]}... of {path}. Received: "
            f"{received[:16]}...: it is damaged or incomplete. {again(path)}"
        )


def read(path: storage.Path, *, image_shape: tuple[int, int, int]):
    """Reads every record of a file, in order.

    Returns:
        The images, `uint8` of shape `(examples, height, width, channels)`, and
        the labels, `int32` of shape `(examples,)`.
    """

    def parse(serialized):
        example = tf.io.parse_example(serialized, _FEATURES)
        pixels = tf.io.decode_raw(example["image"], tf.uint8)
        return tf.reshape(pixels, (-1, *image_shape)), example["label"]

    images = [np.zeros((0, *image_shape), np.uint8)]
    labels = [np.zeros((0,), np.int64)]
    dataset = tf.data.TFRecordDataset(str(path)).batch(_BATCH).map(parse)
    try:
        for batch in dataset.as_numpy_iterator():
            images.append(batch[0])
            labels.append(batch[1])
    except tf.errors.OpError as error:
        raise UsageError(
            f"Expected records of {image_shape} images in {path}. Received: "
            f"{type(error).__name__}. {again(path)}"
        ) from error
    return np.concatenate(images), np.concatenate(labels).astype(np.int32)


def again(path: storage.Path) -> str:
    """Says how to mend a file of prepared images."""
    return f"Remove {path.parent} and prepare the images again"
