"""Where images come from: the sample, a folder, or TensorFlow Datasets.

Each source yields examples with a key: a stable name by which they are ordered
and divided, whatever the order of reading.
"""

import dataclasses
import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.data import images, statistics
from att_darts_tf.data.sample import sheets
from att_darts_tf.errors import UsageError

READABLE = (".jpeg", ".jpg", ".png")
# Leaving these out without a word would train on a part of the folder.
UNREADABLE = (".bmp", ".gif", ".tif", ".tiff", ".webp")


# Where labels are to be had to judge by, if that is not the split `test`.
_TEST_SPLITS = {"imagenet2012": "validation"}


class Example(NamedTuple):
    """One image: pixels, `uint8` of shape `(height, width, channels)`.

    With `config.data.augmentation` "resized_crop" it is the bytes of a file.
    """

    key: str
    image: np.ndarray | bytes
    label: int


@dataclasses.dataclass(frozen=True)
class Source:
    """A labelled collection of images in a training and a test split.

    Attributes:
        name: Name without the place, so that a copy elsewhere has the same.
        class_names: Names by label.
        revision: Changes when the source's images may have changed.
        read: Maps "train" or "test" to its examples, in any order: pixels of
            the configured size, or files as they are.
        count: Maps "train" or "test" to how many they are, about.
        published: Mean and deviation that published results were normalised
            by, for images in their original size and colours.
    """

    name: str
    class_names: tuple[str, ...]
    revision: str
    read: Callable[[str], Iterator[Example]]
    count: Callable[[str], int]
    published: statistics.Statistics | None = None


def open_source(settings: ml_collections.ConfigDict) -> Source:
    """Finds what `config.data` names, without reading an image.

    Args:
        settings: `config.data`.
    """
    name = settings.name
    if name == "sample":
        return _open_sample(settings)
    if storage.is_dir(os.path.expanduser(name)):
        return _open_folder(settings)
    if storage.is_remote(name) or not re.fullmatch(r"\w[\w/:.,=+-]*", name):
        raise UsageError(
            f"Expected a folder of images at {name}. Received: no such "
            "folder. Set config.data.name to one with a sub-folder per class"
        )
    return _open_tensorflow_dataset(settings)


def digest_of(key: str) -> bytes:
    """Ranks an example by its key, evenly and in no meaningful order."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_held_out(key: str, *, fraction: float) -> bool:
    """Assigns an example to the test split where a source has none."""
    return int.from_bytes(digest_of(key)[:8], "big") < fraction * 2**64


def keeps_files(settings: ml_collections.ConfigDict) -> bool:
    """Tells whether images are kept as files rather than as pixels."""
    return settings.augmentation == "resized_crop"


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
    def read(split):
        for index, (image, label) in enumerate(sheets.read(split)):
            if keeps_files(settings):
                image = tf.io.encode_png(image).numpy()
            else:
                image = _fit(image, settings)
            yield Example(f"{split}/{index}", image, label)

    return Source(
        "sample",
        sheets.CLASS_NAMES,
        sheets.revision(),
        read,
        lambda split: len(sheets.read(split)),
        published=_published("cifar10", settings),
    )


def _open_folder(settings) -> Source:
    root = storage.path(settings.name).expanduser()
    try:
        files = _divide_folder(root, settings.test_fraction)
        revision = _revision_of(root, files)
    except OSError as error:
        raise UsageError(
            f"Expected a readable folder of images. Received: "
            f"{error.filename}: {error.strerror}. Mend or remove it"
        ) from error

    def read(split):
        for label, paths in enumerate(files[split].values()):
            for path in paths:
                image = read_file(path, settings)
                yield Example(_key_of(path, root), image, label)

    def count(split):
        return sum(map(len, files[split].values()))

    class_names = tuple(files["train"])
    return Source(root.resolve().name, class_names, revision, read, count)


def _key_of(path, root) -> str:
    return path.relative_to(root).as_posix()


def read_file(
    path: storage.Path, settings: ml_collections.ConfigDict
) -> np.ndarray | bytes:
    """Reads an image as `Example` holds it.

    Args:
        path: Path of a JPEG or PNG file.
        settings: `config.data`.
    """
    try:
        # A link may lead to a device, which need not end.
        if path.exists() and not path.is_file():
            raise UsageError(
                f"Expected an image file. Received: {path}, a file of another "
                "kind. Remove it"
            )
        with path.open("rb") as file:
            contents = file.read(images.MOST_BYTES + 1)
        if keeps_files(settings):
            return contents
        image = images.decode(contents, channels=settings.channels)
    except OSError as error:
        raise UsageError(
            f"Expected a readable image. Received: {path}: {error.strerror}. "
            "Mend or remove it"
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise UsageError(
            f"Expected a JPEG or PNG image. Received: {path}, which "
            f"{images.reason(error)}. Replace or remove it"
        ) from error
    return _fit(image, settings)


def _divide_folder(root, test_fraction) -> dict[str, dict[str, list]]:
    """Returns the files of each class of each split."""
    if all((root / split).is_dir() for split in ("train", "test")):
        files = {
            split: _files_by_class(root / split) for split in ("train", "test")
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
    for name, paths in _files_by_class(root).items():
        divided = files["train"][name], files["test"][name] = [], []
        for path in paths:
            held_out = is_held_out(_key_of(path, root), fraction=test_fraction)
            divided[held_out].append(path)
        if not files["train"][name]:
            raise UsageError(
                f"Expected images of every class to train on. Received: none "
                f"of {root / name}, all of whose {len(paths)} became test "
                "images. Add some, lower config.data.test_fraction, or make "
                "train/ and test/"
            )
    return files


def _files_by_class(folder) -> dict[str, list]:
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
    return {name: _image_files(folder / name) for name in names}


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


def _revision_of(root, files) -> str:
    """Digests names and sizes: adding or replacing an image changes it."""
    digest = hashlib.sha256()
    for by_class in files.values():
        for path in (path for paths in by_class.values() for path in paths):
            entry = f"{_key_of(path, root)}\0{path.stat().st_size}\n"
            digest.update(entry.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


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
    class_names = _class_names_of(tfds, builder)

    def read(split):
        splits = _prepared_splits(tfds, builder)
        test = _TEST_SPLITS.get(builder.name, "test")
        has_test = test in splits
        dataset = builder.as_dataset(
            split=test if has_test and split == "test" else "train",
            shuffle_files=False,
            read_config=tfds.ReadConfig(add_tfds_id=True),
            decoders=(
                {"image": tfds.decode.SkipDecoding()}
                if keeps_files(settings)
                else None
            ),
        )
        for example in _iterate(tfds, dataset, builder):
            key = example["tfds_id"].decode()
            held_out = is_held_out(key, fraction=settings.test_fraction)
            if has_test or held_out == (split == "test"):
                image = example["image"]
                if not keeps_files(settings):
                    image = _fit(image, settings)
                yield Example(key, image, int(example["label"]))

    def count(split):
        splits = _prepared_splits(tfds, builder)
        test = _TEST_SPLITS.get(builder.name, "test")
        if test in splits:
            name = test if split == "test" else "train"
            return builder.info.splits[name].num_examples
        held_out = settings.test_fraction
        share = held_out if split == "test" else 1 - held_out
        return round(share * builder.info.splits["train"].num_examples)

    return Source(
        builder.name,
        class_names,
        builder.info.full_name,
        read,
        count,
        published=_published(builder.name, settings),
    )


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
