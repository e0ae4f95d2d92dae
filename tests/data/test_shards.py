import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import (
    datasets,
    parts,
    records,
    run,
    shards,
    statistics,
)
from att_darts_tf.errors import UsageError
from tests.data import toy

COUNT = 40


def image_of(number):
    """Returns bytes that stand for a file, of different lengths."""
    return bytes([number]) * (100 + 7 * number)


def ranked():
    keys = [f"key {number}" for number in range(COUNT)]
    return sorted(range(COUNT), key=lambda n: datasets.digest_of(keys[n]))


def source_of(numbers, divided=3):
    """Returns a source of such images, in parts of their order here."""
    numbers = list(numbers)

    def read(part):
        for place in part:
            number = numbers[place]
            contents = image_of(number)
            yield datasets.Example(f"key {number}", contents, number % 3, place)

    return datasets.Source(
        "numbers",
        ("a", "b", "c"),
        "1",
        lambda split: [
            range(first, len(numbers), divided) for first in range(divided)
        ],
        read,
        published=statistics.PUBLISHED["cifar10"],
    )


def write(folder, *, numbers=range(COUNT), divided=3, order=1, halves="hashed"):
    """Returns what was written, the paths of the shards and the index.

    Parts and shards are worked through in an order of no meaning.
    """
    settings = toy.encoded_config("numbers", halves=halves).data
    staging = folder / "staging"
    staging.mkdir(parents=True)
    source = source_of(numbers, divided)
    reader = parts.Reader(source, settings, staging)
    summaries = [reader(part) for part in parts.of(source)[::order]]
    planner = parts.Planner(source.name, settings, staging)
    writer = parts.Writer(folder, staging)
    parts.Recorder(staging)(
        [writer(shard) for shard in list(planner(summaries))[::order]]
    )
    files = run._written(staging)
    indices = {
        split: run._write_index(folder, staging, split, files[split])
        for split in files
    }
    shutil.rmtree(staging)
    written = {"files": files["train"], "index": indices["train"]}
    index = shards.read_index(
        folder / written["index"]["name"],
        written["index"]["sha256"],
        written["files"],
    )
    return written, [folder / f["name"] for f in written["files"]], index


@pytest.fixture(autouse=True)
def contents_alone(monkeypatch):
    """The bytes stand for files, which nothing has to decode."""
    monkeypatch.setattr(
        datasets,
        "examine",
        lambda example, settings, sums: datasets.Seen(example.image, 3),
    )


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(parts, "_SHARD_BYTES", 3000)


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
@pytest.mark.parametrize(
    "other",
    [
        {"numbers": range(COUNT)[::-1]},
        {"order": -1},
        {"divided": 1},
        {"divided": 17},
    ],
)
def test_order_and_parts_of_reading_change_no_byte(tmp_path, other):
    folders = [tmp_path / "one", tmp_path / "two"]
    write(folders[0])
    write(folders[1], **other)
    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in folders
    )
    assert first == second
    assert "train-index.npy" in first and len(first) > 6


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("divided", [1, 3, 17])
def test_the_order_of_the_source_may_decide_instead(tmp_path, divided):
    numbers = [*range(20, COUNT), *range(20)]
    _, paths, index = write(
        tmp_path, numbers=numbers, divided=divided, halves="source_order"
    )
    assert shards.read_images(paths, index) == list(map(image_of, numbers))


def test_a_part_that_was_read_is_not_read_again(tmp_path):
    settings = toy.encoded_config("numbers").data
    source = source_of(range(COUNT))
    reader = parts.Reader(source, settings, tmp_path)
    first, second, *_ = parts.of(source)
    summary = reader(first)
    reader.read_part = None
    assert reader(first) == summary
    with pytest.raises(TypeError):
        reader(second)


def test_a_plan_of_what_is_refused_is_empty(tmp_path):
    settings = toy.encoded_config("numbers").data
    planner = parts.Planner("numbers", settings, tmp_path)
    mistaken = {"split": "train", "number": 0, "mistake": "Expected this."}
    assert not list(planner([json.dumps(mistaken)]))
    with pytest.raises(UsageError, match="Expected this."):
        parts.survey([mistaken], "numbers", settings)


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
