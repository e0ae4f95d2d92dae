"""Images that lie in TFRecord files already, as other programs write them.

A folder has `train*` and, if there is a test split, `test*` or `validation*`
files whose names hold `tfrecord`, or end as `-00012-of-01024`, and a
`labels.txt` with the name of each class in a line. Examples hold an encoded
image and its label by the names of TensorFlow Datasets or of TensorFlow's
scripts for ImageNet. Source:
https://github.com/tensorflow/models/blob/master/research/slim/datasets/build_imagenet_data.py
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf.message import DecodeError

from att_darts_tf import storage
from att_darts_tf.errors import UsageError

LABELS = "labels.txt"
_IMAGES = ("image", "image/encoded")
_LABELS = ("label", "image/class/label")
_FILE = re.compile(
    r"(?P<split>train|test|validation).*(tfrecords?.*|-\d{5}-of-\d{5})"
)


@dataclasses.dataclass(frozen=True)
class Collection:
    """The TFRecord files of a folder.

    Attributes:
        class_names: Names by label.
        revision: Changes with the names and sizes of the files.
        stamp: Changes when a file is written.
        train: Names of the files to train on.
        test: Those to judge by; none if a share of the others is.
    """

    class_names: tuple[str, ...]
    revision: str
    stamp: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    def files(self, split: str) -> list[tuple[int, str, bool]]:
        """Returns number, name and whether other splits have a share of it."""
        chosen = self.test if split == "test" and self.test else self.train
        return [
            (number, name, not self.test)
            for number, name in enumerate(chosen)
        ]


def has_records(root: storage.Path) -> bool:
    """Tells whether a folder holds TFRecord files rather than images."""
    return any(
        _FILE.fullmatch(path.name) for path in root.iterdir() if path.is_file()
    )


def open_folder(root: storage.Path) -> Collection:
    """Finds the files of a folder, without reading a record.

    Args:
        root: Path of the folder.
    """
    files = {"train": [], "test": [], "validation": []}
    for path in sorted(root.iterdir(), key=lambda path: path.name):
        found = _FILE.fullmatch(path.name)
        if found:
            files[found["split"]].append(path.name)
    if not files["train"]:
        raise UsageError(
            f"Expected TFRecord files to train on in {root}, whose names begin "
            "with train. Received: none. Rename them"
        )
    class_names = _class_names(root)
    revision, stamp = storage.revision_and_stamp(
        root, [LABELS, *itertools.chain(*files.values())]
    )
    return Collection(
        class_names,
        revision,
        stamp,
        tuple(files["train"]),
        tuple(files["test"] or files["validation"]),
    )


def _class_names(root) -> tuple[str, ...]:
    path = root / LABELS
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Expected the names of the classes beside the TFRecord files, one "
            f"in a line of {path}. Received: {_reason(error)}. Write that file"
        ) from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) < 2:
        raise UsageError(
            f"Expected two classes at least, one in a line of {path}. "
            f"Received: {len(names)}. Complete it"
        )
    return names


def _reason(error) -> str:
    return getattr(error, "strerror", None) or str(error)


def read(path: storage.Path) -> Iterator[tuple[bytes, int]]:
    """Yields the encoded image and the label of each record of a file.

    Args:
        path: Path of a TFRecord file.
    """
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    try:
        for index, record in enumerate(records):
            feature = tf.train.Example.FromString(record).features.feature
            image = _first(_IMAGES, feature, path, index).bytes_list.value
            label = _first(_LABELS, feature, path, index).int64_list.value
            if len(image) != 1 or len(label) != 1:
                raise UsageError(
                    "Expected one encoded image and one label in each record. "
                    f"Received: {len(image)} and {len(label)} in record "
                    f"{index} of {path}. Write the file anew"
                )
            yield image[0], label[0]
    except tf.errors.OpError as error:
        raise _damaged(path, type(error).__name__) from error
    # What a record holds that is no message.
    except DecodeError as error:
        raise _damaged(path, "a record that is no tf.train.Example") from error


def _damaged(path, received) -> UsageError:
    return UsageError(
        f"Expected whole records of tf.train.Example in {path}. Received: "
        f"{received}. Write the file anew"
    )


def _first(names, feature, path, index):
    for name in names:
        if name in feature:
            return feature[name]
    raise UsageError(
        f"Expected a feature {' or '.join(map(repr, names))} in each record. "
        f"Received: {', '.join(map(repr, sorted(feature))) or 'none'} in "
        f"record {index} of {path}. Write the file anew"
    )
