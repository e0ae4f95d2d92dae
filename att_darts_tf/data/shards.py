"""Encoded images in files of bounded size, each image found by its place.

However many images there are, one of them is in memory at a time while they
are sorted and written, and one batch of them while they are read.
"""

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from att_darts_tf import storage
from att_darts_tf.data import records
from att_darts_tf.errors import UsageError

# Prefix of folders that are left behind where a process is killed.
SORTING = ".sorting-"
INDEX_FILE = "{}-index.npy"
# Of each image: its file, where its bytes are in it, their CRC-32, its class.
INDEX = np.dtype(
    [
        ("shard", "<i4"),
        ("offset", "<i8"),
        ("length", "<i4"),
        ("crc", "<u4"),
        ("label", "<i4"),
    ]
)
# About how long a file may be.
_SHARD_BYTES = 256 * 2**20
# Files that records are divided among to be sorted.
_BUCKETS = 64
# A record is framed by its length with a CRC, and by a CRC. Source:
# https://www.tensorflow.org/tutorials/load_data/tfrecord
_HEAD, _TAIL = 12, 4


class Entry(NamedTuple):
    """A record on its way into a shard."""

    digest: bytes
    start: int
    length: int
    crc: int
    label: int
    size: int


_ENTRY = struct.Struct("<32sIIIII")


class Sorter(contextlib.AbstractContextManager):
    """Sorts records by the digest of their key, on disk.

    Its files go with the context that it is entered for.

    Args:
        folder: Path of an existing folder with room for all records; of a
            remote one, they are sorted in a temporary folder here.
    """

    def __init__(self, folder: storage.Path):
        self.folder = folder
        self._examples = 0
        self.bytes = 0
        self._exits = contextlib.ExitStack()
        place = self._exits.enter_context(
            storage.temporary_folder(folder, prefix=SORTING)
        )
        self._buckets = [
            self._exits.enter_context(
                open(os.path.join(place, str(number)), "w+b")
            )
            for number in range(_BUCKETS)
        ]

    def __exit__(self, *exception):
        # On a full disk, closing a file fails to write it as well.
        with contextlib.suppress(OSError):
            self._exits.__exit__(*exception)

    def __len__(self) -> int:
        return self._examples

    def add(self, digest: bytes, *, key: str, contents: bytes, label: int):
        """Keeps the record of an encoded image."""
        record = records.encode(key=key, image=contents, label=label)
        entry = Entry(
            digest=digest,
            start=record.index(contents),
            length=len(contents),
            crc=zlib.crc32(contents),
            label=label,
            size=len(record),
        )
        bucket = self._buckets[digest[0] * _BUCKETS // 256]
        bucket.write(_ENTRY.pack(*entry))
        bucket.write(record)
        self._examples += 1
        self.bytes += len(record)

    def __iter__(self) -> Iterator[tuple[Entry, bytes]]:
        """Yields entries and records in the order of their digests."""
        for bucket in self._buckets:
            previous = None
            for entry, position in sorted(_entries_of(bucket)):
                if entry.digest == previous:
                    raise ValueError(
                        "Expected a key of its own for each image. Received: "
                        f"two of SHA-256 {previous.hex()}"
                    )
                previous = entry.digest
                bucket.seek(position)
                yield entry, bucket.read(entry.size)
            # What is in a shard now need not fill the disk twice.
            bucket.truncate(0)


def _entries_of(bucket) -> Iterator[tuple[Entry, int]]:
    bucket.seek(0)
    while head := bucket.read(_ENTRY.size):
        entry = Entry(*_ENTRY.unpack(head))
        yield entry, bucket.tell()
        bucket.seek(entry.size, os.SEEK_CUR)


def write(
    folder: storage.Path, split: str, sorter: Sorter
) -> dict[str, Any]:
    """Writes sorted records as shards, and the index of their images.

    Args:
        folder: Path of an existing folder.
        split: String. What the names of the files begin with.
        sorter: `Sorter` with at least one record.

    Returns:
        The `files` and the `index` of a split, as in `dataset.json`.
    """
    examples = len(sorter)
    shards = min(examples, -(-sorter.bytes // _SHARD_BYTES))
    index = np.zeros(examples, INDEX)
    ordered = iter(sorter)
    files = []
    for shard in range(shards):
        first, last = (
            -(-number * examples // shards) for number in (shard, shard + 1)
        )
        name = f"{split}-{shard:05d}-of-{shards:05d}.tfrecord"
        placed = _placed(
            zip(range(first, last), ordered), shard=shard, index=index
        )
        sha256 = records.write(folder / name, placed)
        files.append(
            {"name": name, "examples": last - first, "sha256": sha256}
        )
    name = INDEX_FILE.format(split)
    return {
        "files": files,
        "index": {"name": name, "sha256": _write_index(folder / name, index)},
    }


def _placed(
    ranked: Iterable[tuple[int, tuple[Entry, bytes]]],
    *,
    shard: int,
    index: np.ndarray,
) -> Iterator[bytes]:
    """Yields the records of a shard, noting the place of each image."""
    position = 0
    for rank, (entry, record) in ranked:
        offset = position + _HEAD + entry.start
        index[rank] = (shard, offset, entry.length, entry.crc, entry.label)
        position += _HEAD + entry.size + _TAIL
        yield record


def _write_index(path, index) -> str:
    with storage.replacing(path) as partial:
        with partial.open("w+b") as file:
            np.save(file, index)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_index(
    path: storage.Path, sha256: str, files: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Reads the index of a split, and checks that its shards are whole.

    The shards are not read: that is each image's turn, see `read_images`.

    Args:
        path: Path of the index, beside the shards.
        sha256: String. Its SHA-256, in hexadecimal.
        files: The `files` of the split, as in `dataset.json`.

    Returns:
        An array of dtype `INDEX`, `(examples,)`.
    """
    records.check(path, sha256)
    expected = [file["examples"] for file in files]
    try:
        # Mapped first: the head of a file may claim any size.
        with storage.local(path) as file:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
            if mapped.dtype != INDEX or mapped.ndim != 1:
                raise ValueError(f"{mapped.dtype} of {mapped.ndim} axes")
            index = np.array(mapped)
        counts = np.bincount(index["shard"], minlength=len(files)).tolist()
    # What is no such file makes numpy raise nearly anything.
    except Exception as error:
        raise UsageError(
            f"Expected an index of images in {path}. Received: "
            f"{type(error).__name__}. {records.again(path)}"
        ) from error
    if counts != expected or index["length"].min() < 0:
        raise UsageError(
            f"Expected {sum(expected)} images in {path}. Received: "
            f"{sum(counts)}, or others. {records.again(path)}"
        )
    ends = np.cumsum(expected) - 1
    for file, last in zip(files, index[ends]):
        shard = path.with_name(file["name"])
        least = int(last["offset"]) + int(last["length"])
        try:
            received = shard.stat().st_size
        except OSError as error:
            raise UsageError(
                f"Expected a file of prepared images at {shard}. Received: "
                f"{error.strerror}. {records.again(shard)}"
            ) from error
        if received < least:
            raise UsageError(
                f"Expected at least {least} bytes in {shard}. Received: "
                f"{received}: it is incomplete. {records.again(shard)}"
            )
    return index


def read_images(
    files: Sequence[storage.Path], index: np.ndarray
) -> list[bytes]:
    """Reads encoded images.

    Args:
        files: Paths of all shards.
        index: Array of dtype `INDEX`, `(images,)`.

    Returns:
        The bytes of each image.
    """
    contents = []
    for shard, offset, length, crc, _ in index.tolist():
        try:
            with files[shard].open("rb", buffering=0) as file:
                file.seek(offset)
                read = file.read(length)
        except OSError as error:
            raise UsageError(
                f"Expected a readable file of images at {files[shard]}. "
                f"Received: {error.strerror}. {records.again(files[shard])}"
            ) from error
        if zlib.crc32(read) != crc:
            raise UsageError(
                f"Expected CRC-32 {crc:08x} of {length} bytes at {offset} of "
                f"{files[shard]}. Received: {zlib.crc32(read):08x}: it is "
                f"damaged. {records.again(files[shard])}"
            )
        contents.append(read)
    return contents
