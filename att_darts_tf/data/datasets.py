"""Where images come from: the sample, folders, or TensorFlow Datasets.

Each source divides its splits into parts, which workers read beside each
other, and yields examples with a key: a stable name by which they are ordered
and divided, whatever the order of reading.
"""

import dataclasses
import difflib
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.data import images, statistics, tfrecords
from att_darts_tf.data.sample import sheets
from att_darts_tf.errors import UsageError

READABLE = (".jpeg", ".jpg", ".png")
# Leaving these out without a word would train on a part of the folder.
UNREADABLE = (".bmp", ".gif", ".tif", ".tiff", ".webp")


# Where labels are to be had to judge by, if that is not the split `test`.
_TEST_SPLITS = {"imagenet2012": "validation"}


# A split is read in at most so many parts, of at least so many images: few
# enough to be listed, many enough to keep the workers of a cluster busy. A
# small split is in some parts as well, which tell how fast it goes.
_PARTS, _IMAGES = 64, 2000
_SMALL_PARTS, _SMALL_IMAGES = 8, 20


class Example(NamedTuple):
    """One image, as a source has it.

    Attributes:
        key: Stable name, of this image alone.
        image: The bytes of a file, or pixels, `uint8` of shape `(height,
            width, channels)`.
        label: Its class.
        position: Its place in the order of the source.
    """

    key: str
    image: np.ndarray | bytes
    label: int
    position: int = 0


class Seen(NamedTuple):
    """What an image is like, and what is kept of it.

    Attributes:
        content: The bytes of the file, or pixels of the configured size.
        channels: Number of channels.
        sums: Those of `statistics.channel_sums`, if they were asked for.
    """

    content: np.ndarray | bytes
    channels: int
    sums: np.ndarray | None = None


class Broken(NamedTuple):
    """Why an image is left out."""

    key: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A labelled collection of images in a training and a test split.

    Attributes:
        name: Name without the place, so that a copy elsewhere has the same.
        class_names: Names by label.
        revision: Changes with the source's images, as far as their names
            and sizes, or its version, tell.
        stamp: Changes when one of its files is written, and in a copy. Other
            images of the same names and sizes show in it alone.
        parts: Maps "train" or "test" to shares of it, each of which a worker
            reads; what they are is the source's own business.
        read_part: Maps such a share to its examples, in any order. It goes to
            workers in other processes.
        published: Mean and deviation that published results were normalised
            by, for images in their original size and colours.
    """

    name: str
    class_names: tuple[str, ...]
    revision: str
    parts: Callable[[str], list[Any]]
    read_part: Callable[[Any], Iterator[Example]]
    stamp: str = ""
    published: statistics.Statistics | None = None

    def read(self, split: str) -> Iterator[Example]:
        """Yields all examples of a split, part by part."""
        for part in self.parts(split):
            yield from self.read_part(part)


def open_source(settings: ml_collections.ConfigDict) -> Source:
    """Finds what `config.data` names, without reading an image.

    Args:
        settings: `config.data`.
    """
    name = settings.name
    if name == "sample":
        return _open_sample(settings)
    if storage.is_dir(os.path.expanduser(name)):
        root = storage.path(name).expanduser()
        try:
            if tfrecords.has_records(root):
                return _open_records(root, settings)
            return _open_folder(root, settings)
        except OSError as error:
            raise UsageError(
                f"Expected a readable folder of images. Received: "
                f"{error.filename}: {error.strerror}. Mend or remove it"
            ) from error
    if storage.is_remote(name) or not re.fullmatch(r"\w[\w/:.,=+-]*", name):
        raise UsageError(
            f"Expected a folder of images at {name}. Received: no such "
            "folder. Set config.data.name to one with a sub-folder per class"
        )
    return _open_tensorflow_dataset(settings)


def digest_of(key: str) -> bytes:
    """Ranks an example by its key, evenly and in no meaningful order."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def rank_of(example: Example, settings: ml_collections.ConfigDict) -> bytes:
    """Returns 32 bytes, by which the prepared images are in order.

    The first half of that order trains the weights of a search, the second
    its architecture. Hashed, the halves are alike and do not change where
    images are read in another order. By the order of the source they are those
    of the released code.

    Args:
        example: As a source yields it.
        settings: `config.data`.
    """
    if settings.halves == "hashed":
        return digest_of(example.key)
    return example.position.to_bytes(8, "big").ljust(32, b"\0")


def is_held_out(key: str, *, fraction: float) -> bool:
    """Assigns an example to the test split where a source has none."""
    return int.from_bytes(digest_of(key)[:8], "big") < fraction * 2**64


def keeps_files(settings: ml_collections.ConfigDict) -> bool:
    """Tells whether images are kept as files rather than as pixels."""
    return settings.augmentation == "resized_crop"


def examine(
    example: Example, settings: ml_collections.ConfigDict, *, sums: bool = False
) -> Seen | Broken:
    """Decodes an image, and brings it to the configured size and channels.

    Args:
        example: As a source yields it.
        settings: `config.data`.
        sums: Boolean. Whether to sum its pixels.
    """
    image = example.image
    if isinstance(image, bytes):
        try:
            image = images.decode(image, channels=settings.channels).numpy()
        except tf.errors.InvalidArgumentError as error:
            return Broken(example.key, images.reason(error))
    if keeps_files(settings):
        content = example.image
        if not isinstance(content, bytes):
            content = tf.io.encode_png(content).numpy()
    else:
        image = content = _fit(image, settings)
    return Seen(
        content,
        image.shape[-1],
        statistics.channel_sums(image) if sums else None,
    )


def ranges(count: int) -> list[tuple[int, int]]:
    """Divides a split of so many images into parts, all of them alike."""
    small = min(_SMALL_PARTS, count // _SMALL_IMAGES)
    parts = max(1, min(_PARTS, max(small, count // _IMAGES)))
    ends = [number * count // parts for number in range(parts + 1)]
    return list(zip(ends[:-1], ends[1:]))


def _published(name, settings) -> statistics.Statistics | None:
    if keeps_files(settings):
        grey = settings.channels == 1
        return None if grey else statistics.PUBLISHED_OF_FILES.get(name)
    return statistics.PUBLISHED.get(name)


def _fit(image, settings) -> np.ndarray:
    height, width = settings.image_size
    image = images.convert(image, channels=settings.channels)
    return images.resize(image, height=height, width=width).numpy()


def _open_sample(settings) -> Source:
    return Source(
        "sample",
        sheets.CLASS_NAMES,
        sheets.revision(),
        lambda split: [
            (split, *part) for part in ranges(len(sheets.read(split)))
        ],
        _read_sample,
        published=_published("cifar10", settings),
    )


def _read_sample(part) -> Iterator[Example]:
    split, first, last = part
    images = sheets.read(split)[first:last]
    for index, (image, label) in enumerate(images, first):
        yield Example(f"{split}/{index}", image, label, index)


def _open_folder(root, settings) -> Source:
    files = _divide_folder(root, settings.test_fraction)
    keys = [
        key
        for by_class in files.values()
        for of_class in by_class.values()
        for key in of_class
    ]
    revision, stamp = storage.revision_and_stamp(root, keys)

    def parts(split):
        named = [
            (key, label)
            for label, keys in enumerate(files[split].values())
            for key in keys
        ]
        return [
            (first, named[first:last]) for first, last in ranges(len(named))
        ]

    return Source(
        root.resolve().name,
        tuple(files["train"]),
        revision,
        parts,
        functools.partial(_read_files, root),
        stamp,
    )


def _open_records(root, settings) -> Source:
    collection = tfrecords.open_folder(root)
    return Source(
        root.resolve().name,
        collection.class_names,
        collection.revision,
        lambda split: [
            (split, *file) for file in collection.files(split)
        ],
        functools.partial(_read_records, root, settings.test_fraction),
        collection.stamp,
    )


def _read_records(root, fraction, part) -> Iterator[Example]:
    split, number, name, divided = part
    read = tfrecords.read(root / name)
    for index, (contents, label) in enumerate(read):
        key = f"{name}/{index}"
        if divided:
            held_out = is_held_out(key, fraction=fraction)
            if held_out != (split == "test"):
                continue
        yield Example(key, contents, label, (number << 32) + index)


def _key_of(path, root) -> str:
    return path.relative_to(root).as_posix()


def _read_files(root, part) -> Iterator[Example]:
    first, named = part
    for index, (key, label) in enumerate(named):
        yield Example(key, read_file(root / key), label, first + index)


def read_file(path: storage.Path) -> bytes:
    """Reads an image file, or as much of it as is needed to refuse it.

    Args:
        path: Path of a JPEG or PNG file.
    """
    try:
        # A link may lead to a device, which need not end.
        if path.exists() and not path.is_file():
            raise UsageError(
                f"Expected an image file. Received: {path}, a file of another "
                "kind. Remove it"
            )
        with path.open("rb") as file:
            return file.read(images.MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"Expected a readable image. Received: {path}: {error.strerror}. "
            "Mend or remove it"
        ) from error


def _divide_folder(root, test_fraction) -> dict[str, dict[str, list[str]]]:
    """Returns the keys of the files of each class of each split."""
    if all((root / split).is_dir() for split in ("train", "test")):
        files = {
            split: _files_by_class(root / split, root)
            for split in ("train", "test")
        }
        differing = set(files["train"]) ^ set(files["test"])
        if differing:
            raise UsageError(
                f"Expected the same class folders in {root / 'train'} and "
                f"{root / 'test'}. Received: {min(differing)!r} in only one. "
                "Add or remove it"
            )
        return files
    # As classes these two would be learnt without a word.
    for other in ("val", "validation"):
        if all((root / split).is_dir() for split in ("train", other)):
            raise UsageError(
                f"Expected train/ and test/, or classes alone, in {root}. "
                f"Received: train/ and {other}/. Rename {other}/ to test/"
            )
    files = {"train": {}, "test": {}}
    for name, keys in _files_by_class(root, root).items():
        divided = files["train"][name], files["test"][name] = [], []
        for key in keys:
            divided[is_held_out(key, fraction=test_fraction)].append(key)
        if not files["train"][name]:
            raise UsageError(
                f"Expected images of every class to train on. Received: none "
                f"of {root / name}, all of whose {len(keys)} became test "
                "images. Add some, lower config.data.test_fraction, or make "
                "train/ and test/"
            )
    return files


def _files_by_class(folder, root) -> dict[str, list[str]]:
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and _is_shown(path)
    )
    if len(names) < 2:
        raise UsageError(
            f"Expected a folder per class, two at least, in {folder} (or in "
            f"its train/ and test/). Received: {names}. Sort the images into "
            "folders named after their classes"
        )
    # Names alone: of a million files, paths would take half a gigabyte.
    return {
        name: [_key_of(path, root) for path in _image_files(folder / name)]
        for name in names
    }


def _image_files(folder) -> list:
    def refuse(error):
        raise error

    files = []
    for parent, folders, names in storage.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (storage.path(parent) / name for name in names):
            if not _is_shown(path):
                continue
            if path.suffix.lower() in UNREADABLE:
                raise UsageError(
                    f"Expected JPEG or PNG images. Received: {path}. Convert "
                    "or remove it"
                )
            if path.suffix.lower() in READABLE:
                files.append(path)
    if not files:
        raise UsageError(
            f"Expected JPEG or PNG images in the class folder {folder}. "
            "Received: none. Add some or remove the folder"
        )
    return sorted(files)


def _is_shown(path) -> bool:
    return not path.name.startswith(".")


def _import_tensorflow_datasets(name) -> Any:
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Expected the packages that read {name!r} from TensorFlow "
            f"Datasets. Received: no module {error.name!r}. Run: pip install "
            "'att-darts-tf[tfds]'"
        ) from error
    return tensorflow_datasets


def _open_tensorflow_dataset(settings) -> Source:
    name = settings.name
    tfds = _import_tensorflow_datasets(name)
    try:
        builder = tfds.builder(name, data_dir=settings.data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UsageError(_unknown_dataset(tfds, name)) from error
    except (ValueError, AssertionError, ImportError, OSError) as error:
        # A name, variant or version that it cannot parse or does not have.
        raise UsageError(
            "Expected a dataset, variant and version of TensorFlow Datasets. "
            f"Received: {name!r}: {_one_line(error)}. Change config.data.name"
        ) from error

    def divide(split):
        """Returns the split to read, its size, and whether to divide it."""
        splits = _prepared_splits(tfds, builder)
        test = _TEST_SPLITS.get(builder.name, "test")
        there = test if split == "test" and test in splits else "train"
        images = builder.info.splits[there].num_examples
        return there, images, test not in splits

    def parts(split):
        there, images, divided = divide(split)
        return [
            (split, f"{there}[{first}:{last}]", first, divided)
            for first, last in ranges(images)
        ]

    return Source(
        builder.name,
        _class_names_of(tfds, builder),
        builder.info.full_name,
        parts,
        functools.partial(
            _read_tensorflow_dataset,
            name,
            settings.data_dir,
            settings.test_fraction,
        ),
        published=_published(builder.name, settings),
    )


def _read_tensorflow_dataset(
    name, data_dir, fraction, part
) -> Iterator[Example]:
    split, there, first, divided = part
    tfds = _import_tensorflow_datasets(name)
    builder = tfds.builder(name, data_dir=data_dir)
    dataset = builder.as_dataset(
        split=there,
        shuffle_files=False,
        read_config=tfds.ReadConfig(add_tfds_id=True),
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    for index, example in enumerate(_iterate(tfds, dataset, builder)):
        key = example["tfds_id"].decode()
        held_out = is_held_out(key, fraction=fraction)
        if not divided or held_out == (split == "test"):
            yield Example(
                key,
                example["image"],
                int(example["label"]),
                _number_of(example, first + index),
            )


def _number_of(example, place) -> int:
    """Returns an image's number in its author's order.

    The files of TensorFlow Datasets are shuffled. CIFAR's images carry their
    number in the files of Krizhevsky, which is the order in which the released
    code halves them.
    """
    number = example.get("id")
    found = isinstance(number, bytes) and re.fullmatch(
        rb"(?:train|test)_(\d{1,9})", number
    )
    return int(found[1]) if found else place


def _unknown_dataset(tfds, name) -> str:
    known = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "See its catalog"
    return (
        'Expected config.data.name to be "sample", a folder of images or a '
        f"name of TensorFlow Datasets. Received: {name!r}. {hint}"
    )


def _class_names_of(tfds, builder) -> tuple[str, ...]:
    features = builder.info.features
    if (
        isinstance(features, tfds.features.FeaturesDict)
        and {"image", "label"} <= set(features.keys())
        and isinstance(features["image"], tfds.features.Image)
        and features["image"].np_dtype == np.uint8
        and isinstance(features["label"], tfds.features.ClassLabel)
        and features["label"].num_classes
    ):
        return tuple(features["label"].names)
    raise UsageError(
        "Expected a dataset for image classification: `image` (8 bits) and "
        f"`label` (a class). Received: {builder.name!r} with "
        f"{_one_line(features)}. Change config.data.name"
    )


def _prepared_splits(tfds, builder) -> set[str]:
    try:
        builder.download_and_prepare()
    except (
        OSError,
        # How it says that files must be fetched by hand.
        AssertionError,
        tfds.download.DownloadError,
    ) as error:
        raise UsageError(
            f"Expected to find or download {builder.name!r} in "
            f"{builder.data_dir}. Received: {_one_line(error)}. Set "
            "config.data.data_dir to where it is prepared"
        ) from error
    splits = set(builder.info.splits)
    if "train" not in splits:
        raise UsageError(
            f"Expected {builder.name!r} to have a split `train`. Received: "
            f"{sorted(splits)}. Change config.data.name"
        )
    return splits


def _iterate(tfds, dataset, builder) -> Iterator[dict]:
    try:
        yield from tfds.as_numpy(dataset)
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise UsageError(
            f"Expected whole records of {builder.name!r} in "
            f"{builder.data_dir}. Received: {_one_line(error)}. Remove that "
            "folder and prepare it again"
        ) from error


def _one_line(error) -> str:
    text = " ".join(str(error).split()).rstrip(". ")
    return text if len(text) <= 400 else f"{text[:400]}..."
