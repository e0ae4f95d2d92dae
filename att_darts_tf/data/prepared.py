"""Prepared images: what `run.run_prepare` writes and every stage reads."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.data import records, shards
from att_darts_tf.errors import UsageError

FORMAT = 1
DESCRIPTION = "dataset.json"
SPLITS = ("train", "weights", "architecture", "test")
# Of files beside the description.
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and labels in a fixed order.

    Attributes:
        images: `uint8` array, `(examples, height, width, channels)`.
        labels: `int32` array, `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and labels in host memory, shared by every epoch."""
        # Not in the graph of the first pipeline that asks for them.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.images), tf.constant(self.labels)

    def take(self, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns images and labels at the chosen positions."""
        images, labels = self.tensors
        return tf.gather(images, chosen), tf.gather(labels, chosen)

    def files(self) -> tf.Tensor:
        """Returns all images as files, a string tensor, `(examples,)`."""
        return tf.stack([tf.io.encode_png(image) for image in self.images])

    def head(self, count: int) -> "Split":
        """Returns the first examples."""
        return Split(self.images[:count], self.labels[:count])


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Encoded files and labels in a fixed order, read when they are taken.

    Attributes:
        shards: Paths of the files that they are in.
        index: Array of dtype `shards.INDEX`, `(examples,)`.
    """

    shards: tuple[storage.Path, ...]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """`int32` array, `(examples,)`."""
        return self.index["label"].astype(np.int32)

    @functools.cached_property
    def tensor(self) -> tf.Tensor:
        """Labels in host memory, shared by every epoch."""
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.labels)

    def take(self, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns files, a string tensor, and labels at chosen positions."""

        def read(positions):
            contents = shards.read_images(self.shards, self.index[positions])
            return np.array(contents, object)

        # The same every time, so batches may be read beside each other.
        contents = tf.numpy_function(
            read, [chosen], tf.string, stateful=False
        )
        contents = tf.ensure_shape(contents, chosen.shape)
        return contents, tf.gather(self.tensor, chosen)

    def files(self) -> tf.Tensor:
        """Returns all files, a string tensor, `(examples,)`."""
        return tf.constant(shards.read_images(self.shards, self.index))

    def head(self, count: int) -> "EncodedSplit":
        """Returns the first examples."""
        return EncodedSplit(self.shards, self.index[:count])


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedData:
    """What is known of prepared images, without reading one.

    Attributes:
        folder: Where they are.
        name: Name of the data set.
        image_shape: `(height, width, channels)`.
        class_names: Names by label.
        mean: Of each channel of the training images, on the scale where 255
            is 1.
        std: Standard deviation on that scale.
        digest: SHA-256 that changes with any image, label or name, but not
            with the place they were prepared from.
        encoded: Whether images are kept as their files, of any size, for
            windows of `image_shape`; otherwise as pixels of that shape.
    """

    folder: storage.Path
    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    encoded: bool
    _splits: dict[str, dict[str, Any]]

    def num_examples(self, name: str) -> int:
        """Returns how many images a split has."""
        first, last = self._range_of(name)
        return last - first

    def split(self, name: str) -> Split | EncodedSplit:
        """Reads a split.

        Args:
            name: String. "train" and "test" are those of the data set.
                "weights" and "architecture" are the two halves of "train",
                equal and disjoint; an odd last image is in neither.
        """
        first, last = self._range_of(name)
        split = self._splits["test" if name == "test" else "train"]
        if self.encoded:
            index = shards.read_index(
                self.folder / split["index"]["name"],
                split["index"]["sha256"],
                split["files"],
            )
            paths = [self.folder / file["name"] for file in split["files"]]
            return EncodedSplit(tuple(paths), index[first:last])
        parts = [self._read(file) for file in split["files"]]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
        # Copied, so that half of the images does not hold on to all of them.
        return Split(images[first:last].copy(), labels[first:last].copy())

    def _range_of(self, name) -> tuple[int, int]:
        if name not in SPLITS:
            raise ValueError(
                f"Expected a split of {SPLITS}. Received: {name!r}"
            )
        stored = "test" if name == "test" else "train"
        count = sum(file["examples"] for file in self._splits[stored]["files"])
        half = count // 2
        halves = {"weights": (0, half), "architecture": (half, 2 * half)}
        return halves.get(name, (0, count))

    def _read(self, file) -> tuple[np.ndarray, np.ndarray]:
        path = self.folder / file["name"]
        records.check(path, file["sha256"])
        images, labels = records.read(path, image_shape=self.image_shape)
        if len(labels) != file["examples"]:
            raise UsageError(
                f"Expected {file['examples']} images in {path}. Received: "
                f"{len(labels)}. Remove {self.folder} and prepare the images "
                "again"
            )
        return images, labels


def load(data_dir: str | os.PathLike) -> PreparedData:
    """Reads the description of prepared images.

    Args:
        data_dir: Folder that `run.run_prepare` wrote.
    """
    folder = storage.path(data_dir)
    description = read_description(folder)
    return PreparedData(
        folder=folder,
        name=description["name"],
        image_shape=tuple(description["image_shape"]),
        class_names=tuple(description["class_names"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        digest=digest_of(description),
        encoded=all("index" in s for s in description["splits"].values()),
        _splits=description["splits"],
    )


def read_description(folder: storage.Path) -> dict[str, Any]:
    """Returns the content of `dataset.json`, checked."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"Expected prepared images in {folder}. Received: {path}: "
            f"{error.strerror}. Run the stage `prepare` first"
        ) from error
    # Deeply nested text overflows Python's stack.
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"Expected JSON in {path}. Received: {error}. Remove {folder} and "
            "prepare the images again"
        ) from error
    received = None
    if isinstance(description, dict):
        received = description.get("format")
    if received != FORMAT:
        raise UsageError(
            f"Expected format {FORMAT} in {path}. Received: format "
            f"{received!r}. Remove {folder} and prepare the images again, or "
            "use the version that wrote it"
        )
    _check_fields(path, description)
    return description


def check_files(folder: storage.Path, description: dict[str, Any]) -> None:
    """Raises `UsageError` for a file that is missing or damaged."""
    for split in description["splits"].values():
        index = [split["index"]] if "index" in split else []
        for file in split["files"] + index:
            records.check(folder / file["name"], file["sha256"])


def _check_fields(path, description) -> None:
    shape = description.get("image_shape")
    channels = shape[-1] if isinstance(shape, list) and shape else 0
    rules = {
        "name": lambda value: isinstance(value, str),
        "image_shape": lambda value: (
            _is_list(value, int, length=3) and min(value) > 0
        ),
        "class_names": lambda value: _is_list(value, str),
        "mean": lambda value: (
            _is_list(value, float, length=channels)
            and all(map(math.isfinite, value))
        ),
        "std": lambda value: (
            _is_list(value, float, length=channels)
            and all(0 < deviation < math.inf for deviation in value)
        ),
        "splits": _are_splits,
        "source": lambda value: isinstance(value, dict),
    }
    for field, allows in rules.items():
        if not allows(description.get(field)):
            raise UsageError(
                f"Expected the field `{field}` of {path} as it was written. "
                f"Received: {str(description.get(field))[:100]}. Remove "
                f"{path.parent} and prepare the images again"
            )


def _is_list(value, kind, *, length=None) -> bool:
    return (
        isinstance(value, list)
        and all(type(item) is kind for item in value)
        and length in (None, len(value))
    )


def _are_splits(value) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), dict)
        and _is_list(value[name].get("files"), dict)
        and value[name]["files"]
        and all(
            _is_file(file)
            and type(file.get("examples")) is int
            and file["examples"] > 0
            for file in value[name]["files"]
        )
        and ("index" not in value[name] or _is_file(value[name]["index"]))
        for name in ("train", "test")
    )


def _is_file(value) -> bool:
    # No other name stays inside of the folder.
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and _FILE_NAME.fullmatch(value["name"]) is not None
        and isinstance(value.get("sha256"), str)
    )


def digest_of(description: dict[str, Any]) -> str:
    """Returns the digest of the images that `dataset.json` describes."""
    content = {
        name: value for name, value in description.items() if name != "source"
    }
    return hashlib.sha256(
        json.dumps(content, sort_keys=True).encode()
    ).hexdigest()
