import hashlib
import json

import numpy as np
import pytest

from att_darts_tf.data import prepared, run
from att_darts_tf.errors import UsageError
from tests.data import toy


def keys_of(name):
    """Returns 9 + 8 training keys or 2 + 2 test keys of two classes."""
    counts = {"train": (9, 8), "test": (2, 2)}[name]
    return [
        f"{name}/{kind}/{index:02d}.png"
        for kind, count in zip(("ant", "bee"), counts)
        for index in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    """Prepares 17 training images and 4 test images."""
    images = tmp_path / "images"
    keys = keys_of("train") + keys_of("test")
    for key, image in zip(keys, toy.images(21)):
        toy.write_image(images / key, image)
    run.run_prepare(toy.config(images), output_dir=tmp_path / "data")
    return tmp_path / "data"


def change(folder, **fields):
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    content.update(fields)
    path.write_text(json.dumps(content))


def refusal(action):
    with pytest.raises(UsageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def identities(split):
    return [image.tobytes() for image in split.images]


def test_the_description_is_read_without_an_image(folder):
    (folder / "train-00000-of-00001.tfrecord").unlink()
    data = prepared.load(str(folder))
    assert data.name == "images"
    assert data.class_names == ("ant", "bee")
    assert data.image_shape == (8, 8, 3)
    counts = [data.num_examples(name) for name in prepared.SPLITS]
    assert counts == [17, 8, 8, 4]


def test_the_halves_are_disjoint_and_equal_and_cover_all_but_an_odd_one(folder):
    data = prepared.load(folder)
    train, weights, architecture = (
        data.split(name) for name in ("train", "weights", "architecture")
    )
    assert [len(s) for s in (train, weights, architecture)] == [17, 8, 8]
    assert (
        identities(weights) + identities(architecture)
        == (identities(train)[:16])
    )
    assert len(set(identities(train))) == 17
    np.testing.assert_array_equal(
        np.concatenate([weights.labels, architecture.labels]),
        train.labels[:16],
    )


def test_images_are_ranked_by_the_digest_of_their_key(folder):
    images = dict(zip(keys_of("train"), toy.images(17)))
    ranked = sorted(
        images, key=lambda key: hashlib.sha256(key.encode()).hexdigest()
    )
    train = prepared.load(folder).split("train")
    assert identities(train) == [images[key].tobytes() for key in ranked]
    assert train.labels.tolist() == ["/bee/" in key for key in ranked]


def test_the_test_split_is_read(folder):
    test = prepared.load(folder).split("test")
    assert test.images.shape == (4, 8, 8, 3)
    assert test.images.dtype == np.uint8 and test.labels.dtype == np.int32
    assert sorted(test.labels) == [0, 0, 1, 1]


def test_a_split_holds_its_images_once_for_every_epoch(folder):
    split = prepared.load(folder).split("train")
    images, labels = split.tensors
    assert split.tensors[0] is images
    assert "CPU" in images.device
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_several_files_are_read_as_one(folder):
    content = json.loads((folder / "dataset.json").read_text())
    content["splits"]["train"]["files"] += content["splits"]["test"]["files"]
    change(folder, splits=content["splits"])
    data = prepared.load(folder)
    assert data.num_examples("train") == 21
    train, test = data.split("train"), data.split("test")
    assert identities(train)[17:] == identities(test)


def test_an_unknown_split_is_a_defect_of_the_caller(folder):
    with pytest.raises(ValueError, match="'validation'"):
        prepared.load(folder).split("validation")


def test_a_folder_without_prepared_images_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        message = refusal(lambda folder=folder: prepared.load(folder))
        assert str(folder) in message and "prepare" in message


@pytest.mark.parametrize("name", ["train", "weights", "architecture", "test"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]),
    ],
)
def test_a_missing_or_damaged_file_is_named(folder, name, damage):
    stored = "test" if name == "test" else "train"
    path = folder / f"{stored}-00000-of-00001.tfrecord"
    damage(path)
    data = prepared.load(folder)
    assert str(path) in refusal(lambda: data.split(name))


def test_another_count_than_was_written_is_refused(folder):
    content = json.loads((folder / "dataset.json").read_text())
    content["splits"]["test"]["files"][0]["examples"] = 5
    change(folder, splits=content["splits"])
    message = refusal(lambda: prepared.load(folder).split("test"))
    assert "Expected 5 images" in message and "Received: 4" in message


def test_an_unknown_format_is_refused_naming_both(folder):
    change(folder, format=2)
    message = refusal(lambda: prepared.load(folder))
    assert "format 1" in message and "format 2" in message


@pytest.mark.parametrize(
    "text", ["", "{", "\udcff", "[]", "null", "[" * 100_000]
)
def test_a_description_that_is_not_one_is_named(folder, text):
    path = folder / "dataset.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert str(path) in refusal(lambda: prepared.load(folder))


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", None),
        ("image_shape", None),
        ("image_shape", [8, 8]),
        ("image_shape", ["8", "8", "3"]),
        ("image_shape", [8, -8, 3]),
        ("image_shape", 3),
        ("class_names", "ant"),
        ("class_names", [1, 2]),
        ("mean", [0.5]),
        ("mean", [0.5, float("nan"), 0.5]),
        ("std", [0.5, None, 0.5]),
        ("std", [0.5, float("inf"), 0.5]),
        ("std", [0.5, 0.0, 0.5]),
        ("splits", {"train": {"files": []}}),
        ("splits", {"train": {}, "test": {}}),
        ("source", None),
    ],
)
def test_a_malformed_field_is_named(folder, field, value):
    change(folder, **{field: value})
    message = refusal(lambda: prepared.load(folder))
    assert f"`{field}`" in message and str(folder) in message


def test_the_digest_follows_the_content_and_not_the_place(folder, tmp_path):
    digest = prepared.load(folder).digest
    assert len(digest) == 64
    moved = tmp_path / "other" / "images"
    moved.parent.mkdir()
    (tmp_path / "images").rename(moved)
    run.run_prepare(toy.config(moved), output_dir=tmp_path / "again")
    assert prepared.load(tmp_path / "again").digest == digest
    toy.write_image(moved / "test" / "ant" / "9.png", toy.images(1, seed=9)[0])
    run.run_prepare(toy.config(moved), output_dir=tmp_path / "more")
    assert prepared.load(tmp_path / "more").digest != digest


@pytest.mark.parametrize(
    "name",
    ["../file", "{other}", "a/../../file", "..", ".", "", "a\0b", "~", "a\n"],
)
def test_a_name_that_leaves_the_folder_is_refused(folder, tmp_path, name):
    content = json.loads((folder / "dataset.json").read_text())
    file = content["splits"]["test"]["files"][0]
    # The very file that it should be, in another folder.
    (tmp_path / "file").write_bytes((folder / file["name"]).read_bytes())
    file["name"] = name.format(other=tmp_path / "file")
    change(folder, splits=content["splits"])
    message = refusal(lambda: prepared.load(folder))
    assert "`splits`" in message
