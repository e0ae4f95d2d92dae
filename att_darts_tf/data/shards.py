"""Encoded images in files of bounded size, each image found by its place.

However many images there are, one batch of them is in memory at a time.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from att_darts_tf import storage
from att_darts_tf.data import records
from att_darts_tf.errors import UsageError

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
