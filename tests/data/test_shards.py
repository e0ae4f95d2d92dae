import hashlib
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import datasets, records, shards
from att_darts_tf.errors import UsageError

COUNT = 40


def image_of(number):
    """Returns bytes that stand for a file, of different lengths."""
    return bytes([number]) * (100 + 7 * number)


def ranked():
    keys = [f"key {number}" for number in range(COUNT)]
    return sorted(range(COUNT), key=lambda n: datasets.digest_of(keys[n]))


def fill(sorter, numbers=range(COUNT)):
    for number in numbers:
        key = f"key {number}"
        sorter.add(
            datasets.digest_of(key),
            key=key,
            contents=image_of(number),
            label=number % 3,
        )


def write(folder, *, numbers=range(COUNT)):
    """Returns what was written, the paths of the shards and the index."""
    folder.mkdir(exist_ok=True)
    with shards.Sorter(folder) as sorter:
        fill(sorter, numbers)
        written = shards.write(folder, "train", sorter)
    index = shards.read_index(
        folder / written["index"]["name"],
        written["index"]["sha256"],
        written["files"],
    )
    return written, [folder / f["name"] for f in written["files"]], index


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "_SHARD_BYTES", 3000)


@pytest.mark.usefixtures("small_shards")
def test_each_image_is_found_where_the_index_says(tmp_path):
    written, paths, index = write(tmp_path)
    assert len(paths) > 3
    assert shards.read_images(paths, index) == [image_of(n) for n in ranked()]
    assert index["label"].tolist() == [n % 3 for n in ranked()]
    some = [7, 0, 7, COUNT - 1]
    assert shards.read_images(paths, index[some]) == [
        image_of(ranked()[position]) for position in some
    ]
    assert sum(file["examples"] for file in written["files"]) == COUNT


@pytest.mark.usefixtures("small_shards")
def test_shards_are_tfrecord_files_of_bounded_size_in_order(tmp_path):
    _, paths, _ = write(tmp_path)
    total = len(paths)
    keys = []
    for number, path in enumerate(paths):
        assert path.name == f"train-{number:05d}-of-{total:05d}.tfrecord"
        # Images are of 100 to 373 bytes.
        assert path.stat().st_size < 3000 + 2 * 500
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            keys.append(feature["key"].bytes_list.value[0].decode())
            number = int(keys[-1].removeprefix("key "))
            assert feature["image"].bytes_list.value[0] == image_of(number)
            assert feature["label"].int64_list.value[0] == number % 3
    assert keys == [f"key {number}" for number in ranked()]


@pytest.mark.usefixtures("small_shards")
def test_the_order_of_reading_changes_no_byte(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    write(folders[0])
    write(folders[1], numbers=range(COUNT)[::-1])
    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in folders
    )
    assert first == second
    assert "train-index.npy" in first


def test_nothing_but_shards_and_index_is_left_behind(tmp_path):
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "train-00000-of-00001.tfrecord",
        "train-index.npy",
    }
    with pytest.raises(RuntimeError), shards.Sorter(tmp_path) as sorter:
        fill(sorter)
        raise RuntimeError("half way")
    assert not list(tmp_path.glob(".*"))


def test_memory_does_not_grow_with_the_images(tmp_path):
    size, count = 500_000, 60
    with shards.Sorter(tmp_path) as sorter:
        tracemalloc.start()
        for number in range(count):
            key = str(number)
            sorter.add(
                datasets.digest_of(key),
                key=key,
                contents=bytes([number]) * size,
                label=0,
            )
        written = shards.write(tmp_path, "train", sorter)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert written["files"][0]["examples"] == count
    # Copies of one image, of 60.
    assert peak < 6 * size


def test_two_images_of_one_key_are_a_defect_of_the_source(tmp_path):
    with shards.Sorter(tmp_path) as sorter:
        fill(sorter, [3, 4, 3])
        digest = hashlib.sha256(b"key 3").hexdigest()
        with pytest.raises(ValueError, match=f"two of SHA-256 {digest}"):
            shards.write(tmp_path, "train", sorter)


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_image_is_named_when_it_is_read(tmp_path):
    _, paths, index = write(tmp_path)
    content = bytearray(paths[1].read_bytes())
    position = int(np.argmax(index["shard"] == 1))
    content[index["offset"][position] + 5] ^= 1
    paths[1].write_bytes(content)
    assert shards.read_images(paths, index[:position])
    with pytest.raises(UsageError, match=f"{paths[1]}.*damaged"):
        shards.read_images(paths, index)


@pytest.mark.usefixtures("small_shards")
def test_what_is_missing_or_cut_off_is_named_before_it_is_read(tmp_path):
    written, paths, _ = write(tmp_path)

    def read():
        return shards.read_index(
            tmp_path / "train-index.npy",
            written["index"]["sha256"],
            written["files"],
        )

    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:-60])
    with pytest.raises(UsageError, match=f"{paths[2]}.*incomplete"):
        read()
    paths[2].unlink()
    with pytest.raises(UsageError, match=f"{paths[2]}.*No such file"):
        read()
    paths[2].write_bytes(content)
    index = tmp_path / "train-index.npy"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(UsageError, match="train-index.npy.*it is damaged"):
        read()


def test_an_index_of_other_shards_is_refused(tmp_path):
    written, _, _ = write(tmp_path)
    written["files"][0]["examples"] += 1
    with pytest.raises(UsageError, match="Expected 41 images.*Received: 40"):
        shards.read_index(
            tmp_path / "train-index.npy",
            written["index"]["sha256"],
            written["files"],
        )


def test_the_frame_of_a_record_is_that_of_tensorflow(tmp_path):
    records.write(tmp_path / "file", [b"x" * 10, b"y"])
    content = (tmp_path / "file").read_bytes()
    assert len(content) == 2 * 16 + 11
    assert content[12:22] == b"x" * 10 and content[38:39] == b"y"


@pytest.mark.parametrize(
    "array",
    [
        np.array([print] * COUNT, object),
        np.zeros(COUNT, np.int64),
        np.zeros((COUNT, 1), shards.INDEX),
        np.zeros(COUNT, [(name, "<i8") for name in shards.INDEX.names]),
        np.array([(-1, 0, 1, 0, 0)] * COUNT, shards.INDEX),
        np.array([(0, 0, -1, 0, 0)] * COUNT, shards.INDEX),
    ],
    ids=["pickled", "numbers", "two axes", "wide", "another shard", "length"],
)
def test_what_is_no_index_is_refused_unread(tmp_path, array):
    written, _, _ = write(tmp_path)
    path = tmp_path / "train-index.npy"
    np.save(path, array)
    refuse_index(path, written)


def test_an_index_that_claims_to_be_longer_than_its_file_is_refused(tmp_path):
    written, _, _ = write(tmp_path)
    path = tmp_path / "train-index.npy"
    content = path.read_bytes()
    claim = content.replace(b"(40,), }" + b" " * 10, b"(400000000000,), }")
    assert claim != content
    path.write_bytes(claim)
    refuse_index(path, written)


def refuse_index(path, written):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UsageError, match="train-index.npy. Received"):
        shards.read_index(path, digest, written["files"])
