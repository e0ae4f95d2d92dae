"""The stage `prepare`: images of any source -> files that every stage reads.

Reading (`datasets`), encoding (`records`) and counting (`statistics`) know
nothing of each other; here they are joined.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from att_darts_tf.data import datasets, prepared, records, statistics
from att_darts_tf.errors import UsageError

# What decides the prepared images; the rest of `config.data` is augmentation.
DECISIVE = ("name", "data_dir", "image_size", "channels", "test_fraction")
# Images between two lines of progress.
_PROGRESS = 10_000


@dataclasses.dataclass(frozen=True)
class Collection:
    """A split on its way to its file: records in order, and what they hold."""

    image_shape: tuple[int, int, int]
    records: list[bytes]
    histogram: list[int]
    sums: np.ndarray


def run_prepare(
    config: ml_collections.ConfigDict, *, output_dir: str | os.PathLike
) -> dict[str, Any]:
    """Writes the images of `config.data` as records, and their description.

    Records are sorted by the digest of the example's key, so their bytes
    depend on nothing but the images. A folder that already holds what is asked
    for, undamaged, is left as it is.

    Args:
        config: `ConfigDict` with a section `data`.
        output_dir: Folder for the record files and `dataset.json`, which is
            written last. One process at a time may write there.

    Returns:
        The content of `dataset.json`.
    """
    folder = pathlib.Path(output_dir)
    source = datasets.open_source(config.data)
    asked = {
        **{name: _plain(config.data[name]) for name in DECISIVE},
        "revision": source.revision,
    }
    finished = _finished(folder, asked)
    if finished is not None:
        return finished
    _begin(folder)
    train = collect(source, "train", least=2)
    test = collect(source, "test", least=1, image_shape=train.image_shape)
    splits = {"train": train, "test": test}
    try:
        files = {
            name: _write_records(folder, name, split.records)
            for name, split in splits.items()
        }
        description = describe(source, asked, splits, files)
        _write_description(folder, description)
    except (OSError, tf.errors.OpError) as error:
        raise _unwritable(folder, error) from error
    return description


def collect(
    source: datasets.Source,
    split: str,
    *,
    least: int,
    image_shape: tuple[int, int, int] | None = None,
) -> Collection:
    """Reads, checks, encodes and counts the examples of a split.

    Args:
        source: Where to read.
        split: "train" or "test".
        least: Fewer images than this are refused.
        image_shape: What the images must have; that of the first if not given.
    """
    by_digest = {}
    histogram = [0] * len(source.class_names)
    sums = 0
    for key, image, label in source.read(split):
        image_shape = image_shape or image.shape
        _check_example(key, image, label, image_shape, len(histogram))
        record = records.encode(key=key, image=image, label=label)
        by_digest[datasets.digest_of(key)] = record
        histogram[label] += 1
        sums = sums + statistics.channel_sums(image)
        if len(by_digest) % _PROGRESS == 0:
            logging.info("Read %d %s images", len(by_digest), split)
    if len(by_digest) != sum(histogram):
        raise ValueError(
            f"Expected a key of its own for each image of {source.name!r}. "
            f"Received: {len(by_digest)} keys of {sum(histogram)} images"
        )
    if len(by_digest) < least:
        raise UsageError(
            f"Expected at least {least} images in the {split} split of "
            f"{source.name!r}. Received: {len(by_digest)}. Add images or "
            "change config.data.test_fraction"
        )
    ordered = [record for _, record in sorted(by_digest.items())]
    return Collection(image_shape, ordered, histogram, sums)


def describe(
    source: datasets.Source,
    asked: dict[str, Any],
    splits: dict[str, Collection],
    files: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Returns the content of `dataset.json`."""
    train = splits["train"]
    normalisation, origin = statistics.from_sums(train.sums), "training images"
    if source.published and train.image_shape == statistics.PUBLISHED_SHAPE:
        normalisation, origin = source.published, "published"
    return {
        "format": prepared.FORMAT,
        "name": source.name,
        "image_shape": list(train.image_shape),
        "class_names": list(source.class_names),
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
        "normalisation": origin,
        "splits": {
            name: {
                "examples": len(split.records),
                "examples_per_class": split.histogram,
                "files": files[name],
            }
            for name, split in splits.items()
        },
        "source": asked,
    }


def _finished(folder, asked) -> dict[str, Any] | None:
    if not os.path.exists(folder / prepared.DESCRIPTION):
        return None
    description = prepared.read_description(folder)
    if description["source"] != asked:
        return None
    try:
        prepared.check_files(folder, description)
    except UsageError as error:
        logging.warning("%s: doing so", error)
        return None
    return description


def _begin(folder) -> None:
    """Takes the description away: without it nothing is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / prepared.DESCRIPTION).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _check_example(key, image, label, image_shape, num_classes) -> None:
    if image.shape != image_shape:
        raise UsageError(
            f"Expected images of {image_shape[-1]} channels, as the first has. "
            f"Received: {key} with {image.shape[-1]}. Set "
            "config.data.channels to 1 or 3"
        )
    if not 0 <= label < num_classes:
        raise UsageError(
            f"Expected labels from 0 to {num_classes - 1}. Received: {label} "
            f"for {key}. Use a data set whose splits are labelled"
        )


def _write_records(folder, split, ordered) -> list[dict[str, Any]]:
    name = f"{split}-00000-of-00001.tfrecord"
    sha256 = records.write(folder / name, ordered)
    return [{"name": name, "examples": len(ordered), "sha256": sha256}]


def _write_description(folder, description) -> None:
    path = folder / prepared.DESCRIPTION
    partial = folder / f".{prepared.DESCRIPTION}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(description, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _unwritable(folder, error) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) else error.message
    return UsageError(
        f"Expected a folder that can be written: {folder}. Received: "
        f"{reason}. Choose another work directory"
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
