"""Splits in parts that workers read, and in shards that workers write.

Between the two lie files: a worker that reads leaves records and their ranks
in the order in which it came upon them, and one that writes takes what belongs
to its shard from all of them. What passes through the pipeline are names and
numbers, so the memory of a worker does not grow with the images, and the bytes
of a shard depend on nothing but the images.
"""

import collections
import concurrent.futures
import contextlib
import functools
import json
import os
import pickle
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.data import datasets, records, shards
from att_darts_tf.errors import UsageError

# What a worker that reads leaves: the records, where each is, and a summary,
# which it writes last.
_RECORDS, _ENTRIES, SUMMARY = ".records", ".npy", ".json"
SUMMARIES, WRITTEN = "read.json", "written.json"
# A record on its way into a shard: its rank, and the rank's first bytes as a
# number to search by; where it is, and where the image is within it.
_ENTRY = np.dtype(
    [
        ("prefix", "<u8"),
        ("rank", "V32"),
        ("position", "<i8"),
        ("size", "<i4"),
        ("start", "<i4"),
        ("length", "<i4"),
        ("crc", "<u4"),
        ("label", "<i4"),
    ]
)
# About how long a shard may be.
_SHARD_BYTES = 256 * 2**20
# A record is framed by its length with a CRC, and by a CRC. Source:
# https://www.tensorflow.org/tutorials/load_data/tfrecord
_HEAD, _TAIL = 12, 4
# Images decoded at once by a worker.
_THREADS = os.cpu_count() or 1
# Broken images that a message names.
_NAMED = 3


class Part(NamedTuple):
    """A share of a split.

    Attributes:
        split: "train" or "test".
        number: Its place among those of the split.
        content: What `Source.read_part` takes.
    """

    split: str
    number: int
    content: Any


class Survey(NamedTuple):
    """What the images of both splits are like.

    Attributes:
        channels: Of all of them.
        examples: Number of images by split.
        histograms: Number of images by split and label.
        sums: Those of `statistics.channel_sums` of the images to train on, or
            `None` where they were not asked for.
        broken: Key and reason of each image that was left out, by split.
    """

    channels: int
    examples: dict[str, int]
    histograms: dict[str, list[int]]
    sums: np.ndarray | None
    broken: dict[str, list[tuple[str, str]]]


def of(source: datasets.Source) -> list[bytes]:
    """Returns all parts of a source, each as bytes for `read`."""
    return [
        # Names of files need not be text.
        pickle.dumps(Part(split, number, content))
        for split in ("train", "test")
        for number, content in enumerate(source.parts(split))
    ]


class Reader:
    """Reads a part, whoever has been given it.

    Args:
        source: Where to read.
        settings: `config.data`.
        staging: Path of the folder for what is left to the writers.
    """

    def __init__(
        self,
        source: datasets.Source,
        settings: ml_collections.ConfigDict,
        staging: storage.Path,
    ):
        self.read_part = source.read_part
        self.num_classes = len(source.class_names)
        self.sums = not (
            datasets.keeps_files(settings) and source.published is not None
        )
        self.settings = settings
        self.staging = staging

    def __call__(self, part: bytes) -> str:
        """Returns a summary as JSON, which may be a mistake of the user's.

        A part that a killed preparation has read already is not read again.
        """
        part = Part(*pickle.loads(part))
        place = self.staging / f"{part.split}-{part.number:05d}"
        done = place.with_name(place.name + SUMMARY)
        if done.exists():
            return done.read_text("utf-8")
        try:
            summary = json.dumps(self._read(part, place))
            with writing(self.staging), storage.replacing(done) as partial:
                partial.write_text(summary, "utf-8")
        except UsageError as error:
            return json.dumps({**_named(part), "mistake": str(error)})
        return summary

    def _read(self, part, place) -> dict[str, Any]:
        histogram = [0] * self.num_classes
        channels, broken, entries, sums, position = {}, [], [], 0, 0
        with (
            writing(self.staging),
            storage.replacing(place.with_name(place.name + _RECORDS)) as file,
            open(file, "wb") as stream,
        ):
            examine = functools.partial(
                datasets.examine,
                settings=self.settings,
                sums=self.sums and part.split == "train",
            )
            for example, seen in _in_parallel(
                examine, self.read_part(part.content)
            ):
                if isinstance(seen, datasets.Broken):
                    broken.append(list(seen))
                    continue
                _check_label(example, self.num_classes)
                channels.setdefault(str(seen.channels), example.key)
                histogram[example.label] += 1
                sums = sums + seen.sums if seen.sums is not None else None
                record, entry = self._encode(example, seen, position)
                stream.write(record)
                entries.append(entry)
                position += len(record)
        entries.sort(key=lambda entry: entry[1])
        with (
            writing(self.staging),
            storage.replacing(place.with_name(place.name + _ENTRIES)) as file,
            open(file, "wb") as stream,
        ):
            np.save(stream, np.array(entries, _ENTRY))
        return {
            **_named(part),
            "examples": len(entries),
            "bytes": position,
            "histogram": histogram,
            "channels": channels,
            "sums": sums.tolist() if isinstance(sums, np.ndarray) else None,
            "broken": broken,
        }

    def _encode(self, example, seen, position) -> tuple[bytes, tuple]:
        content = memoryview(seen.content).tobytes()
        record = records.encode(
            key=example.key, image=content, label=example.label
        )
        rank = datasets.rank_of(example, self.settings)
        entry = (
            int.from_bytes(rank[:8], "big"),
            rank,
            position,
            len(record),
            record.index(content),
            len(content),
            zlib.crc32(content),
            example.label,
        )
        return record, entry


def survey(
    summaries: list[dict[str, Any]],
    source_name: str,
    settings: ml_collections.ConfigDict,
) -> Survey:
    """Adds the summaries of all parts up, or raises `UsageError`.

    Args:
        summaries: Summaries of all parts, in order.
        source_name: String. Name of the data set.
        settings: `config.data`.
    """
    for summary in summaries:
        if "mistake" in summary:
            raise UsageError(summary["mistake"])
    by_split = {
        split: [each for each in summaries if each["split"] == split]
        for split in ("train", "test")
    }
    broken = {
        split: [tuple(each) for part in parts for each in part["broken"]]
        for split, parts in by_split.items()
    }
    examples = {
        split: sum(part["examples"] for part in parts)
        for split, parts in by_split.items()
    }
    _check_broken(broken, examples, settings)
    channels = _check_channels(by_split, settings.channels)
    for split, least in (("train", 2), ("test", 1)):
        if examples[split] < least:
            raise UsageError(
                f"Expected at least {least} images in the {split} split of "
                f"{source_name!r}. Received: {examples[split]}. Add images or "
                "change config.data.test_fraction"
            )
    sums = [
        np.array(part["sums"])
        for part in by_split["train"]
        if part["sums"] is not None
    ]
    return Survey(
        channels,
        examples,
        {
            split: np.sum(
                [part["histogram"] for part in parts], axis=0
            ).tolist()
            for split, parts in by_split.items()
        },
        sum(sums) if sums else None,
        broken,
    )


class Planner:
    """Divides what was read into shards, where nothing is wrong with it.

    Args:
        source_name: String. Name of the data set.
        settings: `config.data`.
        staging: Path of the folder with what the readers left.
    """

    def __init__(
        self,
        source_name: str,
        settings: ml_collections.ConfigDict,
        staging: storage.Path,
    ):
        self.source_name = source_name
        self.settings = settings
        self.staging = staging
        self.shard_bytes = _SHARD_BYTES

    def __call__(self, summaries: list[str]) -> Iterator[str]:
        """Yields the shards to write, each as JSON.

        Args:
            summaries: What the readers returned, in any order.
        """
        summaries = sorted(
            map(json.loads, summaries),
            key=lambda each: (each["split"] != "train", each["number"]),
        )
        with storage.replacing(self.staging / SUMMARIES) as partial:
            partial.write_text(json.dumps(summaries), "utf-8")
        with contextlib.suppress(UsageError):
            # What it raises is raised once more where it is reported.
            survey(summaries, self.source_name, self.settings)
            for split in ("train", "test"):
                yield from self._divide(
                    split,
                    [each for each in summaries if each["split"] == split],
                )

    def _divide(self, split, parts) -> Iterator[str]:
        examples = sum(part["examples"] for part in parts)
        total = sum(part["bytes"] for part in parts)
        count = min(examples, -(-total // self.shard_bytes))
        prefixes = np.sort(
            np.concatenate(
                [
                    read_entries(self.staging, split, part["number"])[
                        "prefix"
                    ].copy()
                    for part in parts
                ]
            )
        )
        firsts = [
            int(prefixes[-(-number * examples // count)])
            for number in range(1, count)
        ]
        for number, (first, last) in enumerate(
            zip([0, *firsts], [*firsts, 2**64])
        ):
            yield json.dumps(
                {
                    "split": split,
                    "number": number,
                    "count": count,
                    "first": first,
                    "last": last,
                    "parts": [part["number"] for part in parts],
                }
            )


class Writer:
    """Writes a shard, whoever has been given it.

    Args:
        folder: Path of the folder of the prepared images.
        staging: Path of the folder with what the readers left.
    """

    def __init__(self, folder: storage.Path, staging: storage.Path):
        self.folder = folder
        self.staging = staging

    def __call__(self, shard: str) -> str:
        """Returns the entry of `files` as JSON, or a mistake of the user's."""
        shard = json.loads(shard)
        split, number = shard["split"], shard["number"]
        name = f"{split}-{number:05d}-of-{shard['count']:05d}.tfrecord"
        ordered = self._entries(shard)
        index = np.zeros(len(ordered), shards.INDEX)
        try:
            with writing(self.folder):
                sha256 = records.write(
                    self.folder / name, self._placed(split, ordered, index)
                )
                index["shard"] = number
                place = index_of(self.staging, split, number)
                with (
                    storage.replacing(place) as partial,
                    open(partial, "wb") as stream,
                ):
                    np.save(stream, index)
        except UsageError as error:
            return json.dumps({**shard, "mistake": str(error)})
        written = {"name": name, "examples": len(ordered), "sha256": sha256}
        return json.dumps({"split": split, "number": number, "file": written})

    def _entries(self, shard) -> list[tuple[int, np.void]]:
        """Returns the parts and entries of a shard in the order of ranks."""
        found = []
        for part in shard["parts"]:
            entries = read_entries(self.staging, shard["split"], part)
            first, last = (
                # A limit past the last number is no number of this type.
                len(entries)
                if limit == 2**64
                else np.searchsorted(entries["prefix"], np.uint64(limit))
                for limit in (shard["first"], shard["last"])
            )
            # An entry would keep the whole array that it is a part of.
            found += [(part, entry) for entry in entries[first:last].copy()]
        found.sort(key=lambda each: each[1]["rank"].tobytes())
        for (_, entry), (_, other) in zip(found, found[1:]):
            if entry["rank"] == other["rank"]:
                raise ValueError(
                    "Expected a key of its own for each image. Received: two "
                    f"of rank {entry['rank'].tobytes().hex()}"
                )
        return found

    def _placed(self, split, ordered, index) -> Iterator[bytes]:
        """Yields the records of a shard, noting the place of each image."""
        position = 0
        for rank, (part, entry) in enumerate(ordered):
            offset = position + _HEAD + entry["start"]
            index[rank] = (
                0,
                offset,
                entry["length"],
                entry["crc"],
                entry["label"],
            )
            position += _HEAD + int(entry["size"]) + _TAIL
            # Not kept open: there may be more parts than files may be.
            path = self.staging / f"{split}-{part:05d}{_RECORDS}"
            with path.open("rb", buffering=0) as file:
                file.seek(int(entry["position"]))
                record = file.read(int(entry["size"]))
            yield record


class Recorder:
    """Writes down which shards there are, as the last step of all.

    Args:
        staging: Path of the folder with what the readers left.
    """

    def __init__(self, staging: storage.Path):
        self.staging = staging

    def __call__(self, written: list[str]) -> None:
        """Takes what the writers returned, in any order."""
        files = sorted(
            map(json.loads, written),
            key=lambda each: (each["split"] != "train", each["number"]),
        )
        with storage.replacing(self.staging / WRITTEN) as partial:
            partial.write_text(json.dumps(files), "utf-8")


def read_entries(
    staging: storage.Path, split: str, number: int
) -> np.ndarray:
    """Returns the entries of a part, an array sorted by rank."""
    path = staging / f"{split}-{number:05d}{_ENTRIES}"
    with storage.local(path) as file:
        return np.load(file, allow_pickle=False)


def index_of(staging: storage.Path, split: str, number: int) -> storage.Path:
    """Returns the path of the index of a shard."""
    return staging / f"{split}-shard-{number:05d}.npy"


@contextlib.contextmanager
def writing(folder: storage.Path) -> Iterator[None]:
    """Raises `UsageError` where a folder cannot be written."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise UsageError(
            f"Expected a folder that can be written: {folder}. Received: "
            f"{reason}. Choose another work directory"
        ) from error


def _named(part) -> dict[str, Any]:
    return {"split": part.split, "number": part.number}


def _in_parallel(
    function: Callable[[Any], Any], items: Iterator[Any]
) -> Iterator[tuple[Any, Any]]:
    """Yields items and their results in order, with a few ahead."""
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        ahead = collections.deque()
        for item in items:
            ahead.append((item, pool.submit(function, item)))
            if len(ahead) > 2 * _THREADS:
                done, result = ahead.popleft()
                yield done, result.result()
        for done, result in ahead:
            yield done, result.result()


def _check_broken(broken, examples, settings) -> None:
    named = [each for split in broken.values() for each in split]
    images = sum(examples.values()) + len(named)
    if len(named) <= settings.broken_fraction * images:
        return
    first = "; ".join(
        f"{key[:100]}, which {reason}" for key, reason in named[:_NAMED]
    )
    more = len(named) - _NAMED
    raise UsageError(
        f"Expected JPEG or PNG images in {settings.name}. Received: "
        f"{len(named)} of {images} that are not: {first}"
        f"{f'; and {more} more' if more > 0 else ''}. Replace or remove them, "
        "or leave some out with config.data.broken_fraction"
    )


def _check_channels(by_split, expected) -> int:
    for part in (*by_split["train"], *by_split["test"]):
        for received, key in part["channels"].items():
            expected = expected or int(received)
            if int(received) != expected:
                raise UsageError(
                    f"Expected images of {expected} channels, as the first "
                    f"has. Received: {key} with {received}. Set "
                    "config.data.channels to 1 or 3"
                )
    return expected


def _check_label(example, num_classes) -> None:
    if not 0 <= example.label < num_classes:
        raise UsageError(
            f"Expected labels from 0 to {num_classes - 1}. Received: "
            f"{example.label} for {example.key}. Use a data set whose splits "
            "are labelled"
        )


