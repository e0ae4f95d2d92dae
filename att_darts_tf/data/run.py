"""The stage `prepare`: images of any source -> files that every stage reads.

Reading (`datasets`), encoding (`records`) and counting (`statistics`) know
nothing of each other; here they are joined.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from att_darts_tf import durations, memory, storage
from att_darts_tf.data import (
    datasets,
    images,
    prepared,
    records,
    shards,
    statistics,
)
from att_darts_tf.errors import UsageError

# What decides the prepared images; the rest of `config.data` is augmentation.
DECISIVE = (
    "name",
    "data_dir",
    "image_size",
    "channels",
    "test_fraction",
    "augmentation",
)
# Python with TensorFlow, and what a record holds beside its pixels, twice
# while it is put in order.
_PROGRAM_GB, _RECORD_BYTES = 0.65, 400
# Images between two lines of progress.
_PROGRESS = 10_000
# Files decoded at once.
_WORKERS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Collection:
    """A split on its way to its files: records in order, and what they hold.

    Attributes:
        image_shape: `(height, width, channels)` of what a network sees.
        records: Those of pixels, or of files where they are sorted.
        histogram: Number of images by label.
        sums: Those of `statistics.channel_sums`; not needed where mean and
            deviation are published.
    """

    image_shape: tuple[int, int, int]
    records: list[bytes] | shards.Sorter
    histogram: list[int]
    sums: np.ndarray | None


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
    folder = storage.path(output_dir)
    source = datasets.open_source(config.data)
    asked = {
        **{name: _plain(config.data[name]) for name in DECISIVE},
        "revision": source.revision,
    }
    finished = _finished(folder, asked)
    if finished is not None:
        return finished
    _begin(folder)
    source = _foretold(source, config.data)
    keep = _keep_files if datasets.keeps_files(config.data) else _keep_pixels
    splits, written = keep(folder, source, config.data)
    description = describe(source, asked, splits, written)
    with _writing(folder):
        _write_description(folder, description)
    return description


def collect(
    source: datasets.Source,
    split: str,
    *,
    least: int,
    image_shape: tuple[int, int, int] | None = None,
) -> Collection:
    """Reads, checks, encodes and counts the pixels of a split.

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
        _check_channels(key, image.shape[-1], image_shape[-1])
        _check_label(key, label, len(histogram))
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
    _check_count(source, split, len(by_digest), least)
    ordered = [record for _, record in sorted(by_digest.items())]
    return Collection(image_shape, ordered, histogram, sums)


def collect_files(
    source: datasets.Source,
    split: str,
    *,
    least: int,
    sorter: shards.Sorter,
    settings: ml_collections.ConfigDict,
    channels: int,
) -> Collection:
    """Reads, checks, sorts and counts the files of a split.

    Args:
        source: Where to read.
        split: "train" or "test".
        least: Fewer images than this are refused.
        sorter: Empty; takes the records.
        settings: `config.data`.
        channels: What the images must have; that of the first if 0.
    """
    histogram = [0] * len(source.class_names)
    count = split == "train" and source.published is None
    sums = 0 if count else None
    inspect = functools.partial(_inspect, settings=settings, count=count)
    for (key, contents, label), (received, more) in _in_parallel(
        inspect, source.read(split)
    ):
        channels = channels or received
        _check_channels(key, received, channels)
        _check_label(key, label, len(histogram))
        digest = datasets.digest_of(key)
        with _writing(sorter.folder):
            sorter.add(digest, key=key, contents=contents, label=label)
        histogram[label] += 1
        sums = sums + more if count else None
        if len(sorter) % _PROGRESS == 0:
            logging.info("Read %d %s images", len(sorter), split)
    _check_count(source, split, len(sorter), least)
    image_shape = (*settings.image_size, channels)
    return Collection(image_shape, sorter, histogram, sums)


def describe(
    source: datasets.Source,
    asked: dict[str, Any],
    splits: dict[str, Collection],
    written: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns the content of `dataset.json`.

    Args:
        source: Where the images are from.
        asked: The settings that decide them.
        splits: What they are, by split.
        written: The `files`, and of encoded images the `index`, by split.
    """
    train = splits["train"]
    if train.sums is None or (
        source.published and train.image_shape == statistics.PUBLISHED_SHAPE
    ):
        normalisation, origin = source.published, "published"
    else:
        normalisation = statistics.from_sums(train.sums)
        origin = "training images"
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
                **written[name],
            }
            for name, split in splits.items()
        },
        "source": asked,
    }


def _foretold(source, settings) -> datasets.Source:
    """Says how much a preparation takes; returns the source to read from."""
    images_left = source.count("train") + source.count("test")
    needed = _PROGRAM_GB
    if not datasets.keeps_files(settings):
        numbers = math.prod(settings.image_size) * (settings.channels or 3)
        needed += images_left * (numbers + _RECORD_BYTES) / 1e9
    told = memory.compare(
        needed,
        what="a preparation",
        remedy=lambda free: "lower config.data.image_size, or keep files with "
        "config.data.augmentation=resized_crop",
    )
    print(f"prepare: {told}", flush=True)
    forecast = durations.Forecast(
        "prepare", steps=images_left, unit="images"
    )

    def read(split):
        for example in source.read(split):
            yield example
            forecast.step()

    return dataclasses.replace(source, read=read)


def _keep_pixels(folder, source, settings):
    """Returns the collections of both splits, and what was written of them."""
    train = collect(source, "train", least=2)
    test = collect(source, "test", least=1, image_shape=train.image_shape)
    splits = {"train": train, "test": test}
    with _writing(folder):
        written = {
            name: {"files": _write_records(folder, name, split.records)}
            for name, split in splits.items()
        }
    return splits, written


def _keep_files(folder, source, settings):
    """Does the same for encoded images."""
    splits, channels = {}, settings.channels
    with contextlib.ExitStack() as stack:
        for name, least in (("train", 2), ("test", 1)):
            with _writing(folder):
                sorter = stack.enter_context(shards.Sorter(folder))
            splits[name] = collect_files(
                source,
                name,
                least=least,
                sorter=sorter,
                settings=settings,
                channels=channels,
            )
            channels = splits[name].image_shape[-1]
        with _writing(folder):
            written = {
                name: shards.write(folder, name, split.records)
                for name, split in splits.items()
            }
    return splits, written


def _inspect(example, *, settings, count):
    """Decodes a file; returns its channels and, if asked for, its sums."""
    key, contents, _ = example
    try:
        image = images.decode(contents, channels=settings.channels).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UsageError(
            f"Expected JPEG or PNG images in {settings.name}. Received: {key}, "
            f"which {images.reason(error)}. Replace or remove it"
        ) from error
    return image.shape[-1], statistics.channel_sums(image) if count else None


def _in_parallel(function, items):
    """Yields items and their results in order, with a few ahead."""
    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
        ahead = collections.deque()
        for item in items:
            ahead.append((item, pool.submit(function, item)))
            if len(ahead) > 2 * _WORKERS:
                done, result = ahead.popleft()
                yield done, result.result()
        for done, result in ahead:
            yield done, result.result()


def _finished(folder, asked) -> dict[str, Any] | None:
    if not (folder / prepared.DESCRIPTION).exists():
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
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / prepared.DESCRIPTION).unlink(missing_ok=True)
        # Of another number of files, some would stay.
        for split in ("train", "test"):
            for file in folder.glob(f"{split}-?????-of-?????.tfrecord"):
                file.unlink()
            (folder / shards.INDEX_FILE.format(split)).unlink(missing_ok=True)
        for left_over in folder.glob(f"{storage.PARTIAL}*"):
            storage.remove(left_over)
        for left_over in folder.glob(f"{shards.SORTING}*"):
            shutil.rmtree(left_over)


def _check_channels(key, received, expected) -> None:
    if received != expected:
        raise UsageError(
            f"Expected images of {expected} channels, as the first has. "
            f"Received: {key} with {received}. Set config.data.channels to 1 "
            "or 3"
        )


def _check_label(key, label, num_classes) -> None:
    if not 0 <= label < num_classes:
        raise UsageError(
            f"Expected labels from 0 to {num_classes - 1}. Received: {label} "
            f"for {key}. Use a data set whose splits are labelled"
        )


def _check_count(source, split, received, least) -> None:
    if received < least:
        raise UsageError(
            f"Expected at least {least} images in the {split} split of "
            f"{source.name!r}. Received: {received}. Add images or change "
            "config.data.test_fraction"
        )


def _write_records(folder, split, ordered) -> list[dict[str, Any]]:
    name = f"{split}-00000-of-00001.tfrecord"
    sha256 = records.write(folder / name, ordered)
    return [{"name": name, "examples": len(ordered), "sha256": sha256}]


def _write_description(folder, description) -> None:
    with storage.replacing(folder / prepared.DESCRIPTION) as partial:
        partial.write_text(json.dumps(description, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def _writing(folder) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise UsageError(
            f"Expected a folder that can be written: {folder}. Received: "
            f"{reason}. Choose another work directory"
        ) from error


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
