import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.data import datasets, parts, prepared, run, statistics
from att_darts_tf.engine import lineage
from att_darts_tf.errors import UsageError
from tests.data import toy

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {
    "dataset.json",
    "lineage.json",
    "report.html",
    "stamp.txt",
    "test-00000-of-00001.tfrecord",
    "train-00000-of-00001.tfrecord",
}


def source_of(*examples, class_names=("a", "b")):
    """Returns a source of these examples in both splits."""
    return datasets.Source(
        "toy",
        class_names,
        "1",
        lambda split: [split],
        lambda part: iter(examples),
    )


def refusal(config, folder):
    with pytest.raises(UsageError) as caught:
        run.run_prepare(config, output_dir=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_sample_is_prepared_with_the_published_statistics(tmp_path):
    config = toy.config("sample", image_size=(32, 32))
    result = run.run_prepare(config, output_dir=tmp_path / "deep" / "data")
    data = prepared.load(tmp_path / "deep" / "data")
    assert data.image_shape == (32, 32, 3) and len(data.class_names) == 10
    # CIFAR-10, as the released code normalises.
    assert data.mean == (0.49139968, 0.48215827, 0.44653124)
    assert data.std == (0.24703233, 0.24348505, 0.26158768)
    assert result["normalisation"] == "published"
    train, test = data.split("train"), data.split("test")
    assert np.bincount(train.labels).tolist() == [150] * 10
    assert np.bincount(test.labels).tolist() == [50] * 10
    # Both halves of the demo's search see every class.
    for name in ("weights", "architecture"):
        assert np.bincount(data.split(name).labels).min() > 50


@pytest.mark.parametrize("changes", [{"channels": 1}, {"image_size": (16, 16)}])
def test_published_statistics_are_for_the_original_images_only(
    tmp_path, changes
):
    config = toy.config("sample", **{"image_size": (32, 32), **changes})
    result = run.run_prepare(config, output_dir=tmp_path)
    train = prepared.load(tmp_path).split("train").images / 255
    assert result["normalisation"] == "training images"
    np.testing.assert_allclose(result["mean"], train.mean((0, 1, 2)))
    np.testing.assert_allclose(result["std"], train.std((0, 1, 2)))


def test_time_and_memory_are_told(tmp_path, capsys):
    config = toy.config("sample", image_size=(32, 32))
    run.run_prepare(config, output_dir=tmp_path)
    memory, time_of, *_ = capsys.readouterr().out.splitlines()
    assert memory.startswith("prepare: takes about 0.8 GB of memory of")
    # A small data set is soon over, but tells it as well.
    assert re.fullmatch(
        r"prepare: takes about \d+ s, by \d+ of 16 parts", time_of
    )


def test_what_remains_is_told_while_images_are_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run, "_PATIENCE", 0.05)
    monkeypatch.setattr(datasets, "_IMAGES", 1)
    toy.write_folder(tmp_path / "images", count=40)
    read = parts.Reader._read

    def slowly(self, *arguments):
        time.sleep(0.1)
        return read(self, *arguments)

    monkeypatch.setattr(parts.Reader, "_read", slowly)
    run.run_prepare(
        toy.config(tmp_path / "images"), output_dir=tmp_path / "data"
    )
    told = capsys.readouterr().out
    assert re.search(
        r"prepare: takes about \d+ s, by \d+ of \d+ parts\n", told
    )


def test_a_folder_named_like_a_published_dataset_has_its_own_statistics(
    tmp_path,
):
    root = tmp_path / "cifar10"
    toy.write_folder(root, shape=(32, 32, 3))
    config = toy.config(root, image_size=(32, 32))
    result = run.run_prepare(config, output_dir=tmp_path / "data")
    assert result["normalisation"] == "training images"
    assert tuple(result["mean"]) != statistics.PUBLISHED["cifar10"].mean


@pytest.mark.parametrize("shape", [(8, 8, 3), (28, 28, 1), (20, 33, 3)])
def test_a_folder_of_any_shape_goes_through_unchanged(tmp_path, shape):
    written = toy.write_folder(tmp_path / "images", count=20, shape=shape)
    config = toy.config(tmp_path / "images", image_size=shape[:2])
    result = run.run_prepare(config, output_dir=tmp_path / "data")
    data = prepared.load(tmp_path / "data")
    assert data.image_shape == shape
    received = set()
    for name in ("train", "test"):
        split = data.split(name)
        assert result["splits"][name]["examples"] == len(split)
        histogram = result["splits"][name]["examples_per_class"]
        assert histogram == np.bincount(split.labels, minlength=2).tolist()
        received |= {
            (image.tobytes(), data.class_names[label])
            for image, label in zip(split.images, split.labels)
        }
    assert received == {
        (image.tobytes(), path.split("/")[0]) for path, image in written.items()
    }


def test_statistics_come_from_training_images_only(tmp_path):
    root = tmp_path / "images"
    for index, value in enumerate((0, 255)):
        image = np.full((8, 8, 1), value, np.uint8)
        toy.write_image(root / "train" / f"class {index}" / "1.png", image)
        white = np.full((8, 8, 1), 255, np.uint8)
        toy.write_image(root / "test" / f"class {index}" / "1.png", white)
    result = run.run_prepare(toy.config(root), output_dir=tmp_path / "data")
    # By hand: half of the pixels 0, half of them 1.
    assert result["mean"] == [0.5] and result["std"] == [0.5]


def test_a_tensorflow_dataset_is_prepared(tmp_path, toy_datasets):
    config = toy.config()
    config.data = toy_datasets("toy_grey", image_size=(28, 28))
    result = run.run_prepare(config, output_dir=tmp_path)
    data = prepared.load(tmp_path)
    assert data.name == "toy_grey"
    assert data.class_names == ("circle", "square", "star")
    assert data.image_shape == (28, 28, 1)
    assert data.num_examples("train") + data.num_examples("test") == 40
    assert result["normalisation"] == "training images"


def test_two_runs_write_the_same_bytes(tmp_path):
    toy.write_folder(tmp_path / "images")
    config = toy.config(tmp_path / "images")
    for name in ("one", "two"):
        run.run_prepare(config, output_dir=tmp_path / name)
    first = toy.contents(tmp_path / "one")
    assert set(first) == FILES - {"stamp.txt"}
    assert first == toy.contents(tmp_path / "two")


def test_the_result_is_the_description(tmp_path):
    toy.write_folder(tmp_path / "images")
    config = toy.config(tmp_path / "images")
    result = run.run_prepare(config, output_dir=tmp_path / "data")
    text = (tmp_path / "data" / "dataset.json").read_text()
    assert json.loads(text) == result
    assert result["format"] == 1
    assert result["source"]["name"] == str(tmp_path / "images")


class TestAgain:
    @pytest.fixture(autouse=True)
    def prepare(self, tmp_path, monkeypatch):
        self.images, self.folder = tmp_path / "images", tmp_path / "data"
        toy.write_folder(self.images)
        self.config = toy.config(self.images)
        self.result = run.run_prepare(self.config, output_dir=self.folder)
        self.collected = []
        of = parts.of

        def recorded(source):
            self.collected.append(source.name)
            return of(source)

        monkeypatch.setattr(parts, "of", recorded)

    def again(self):
        return run.run_prepare(self.config, output_dir=self.folder)

    def test_what_is_done_is_returned_at_once(self):
        assert self.again() == self.result
        assert not self.collected

    def test_augmentation_does_not_count(self):
        self.config.data.padding = 0
        self.config.data.flip = False
        assert self.again() == self.result
        assert not self.collected

    @pytest.mark.parametrize(
        "changes",
        [
            {"image_size": (9, 8)},
            {"channels": 1},
            {"test_fraction": 0.5},
            {"halves": "source_order"},
        ],
    )
    def test_other_settings_prepare_anew(self, changes):
        self.config.data.update(changes)
        result = self.again()
        assert self.collected == ["images"]
        assert result != self.result

    def test_another_image_in_the_folder_prepares_anew(self):
        toy.write_image(self.images / "cat" / "new.png", toy.images(1)[0])
        result = self.again()
        assert self.collected
        assert result["splits"] != self.result["splits"]

    def test_another_image_of_the_same_name_and_size_prepares_anew(self):
        file = self.images / "cat" / "00.png"
        # Without compression the size is that of the pixels.
        one, other = (
            toy.encode(image, "PNG", compress_level=0)
            for image in toy.images(2)
        )
        assert len(one) == len(other)
        file.write_bytes(one)
        first = self.again()
        self.collected.clear()
        file.write_bytes(other)
        second = self.again()
        assert self.collected
        assert second["source"] == first["source"]
        assert prepared.digest_of(second) != prepared.digest_of(first)

    def test_other_code_prepares_anew_and_is_recorded(self, monkeypatch):
        before = lineage.load(self.folder / "lineage.json")
        assert self.again() == self.result
        assert lineage.load(self.folder / "lineage.json") == before
        monkeypatch.setattr(
            run.workdir, "code_fingerprint", lambda *packages: "f" * 64
        )
        assert self.again() == self.result
        assert self.collected
        after = lineage.load(self.folder / "lineage.json")
        assert after["made_from"]["code"] == "f" * 64
        assert after["result"] == before["result"]

    def test_a_copy_prepares_anew_and_gives_the_same(self):
        before = toy.contents(self.folder)
        for file in self.images.rglob("*.png"):
            later = file.stat().st_mtime_ns + 10**9
            os.utime(file, ns=(later, later))
        assert self.again() == self.result
        assert self.collected
        assert toy.contents(self.folder) == before

    @pytest.mark.parametrize(
        "name", sorted(name for name in FILES if name.endswith(".tfrecord"))
    )
    @pytest.mark.parametrize("missing", [False, True])
    def test_a_missing_or_damaged_file_is_made_good(self, name, missing):
        before = toy.contents(self.folder)
        path = self.folder / name
        path.unlink() if missing else path.write_bytes(b"damaged")
        assert self.again() == self.result
        assert toy.contents(self.folder) == before

    def test_what_is_refused_before_reading_leaves_it_alone(self):
        before = toy.contents(self.folder)
        self.config.data.channels = 1
        self.config.beam.update(mode="multi_processing", workers=100_000)
        assert "lower config.beam.workers" in refusal(self.config, self.folder)
        assert toy.contents(self.folder) == before

    def test_an_unknown_format_is_not_written_over(self):
        path = self.folder / "dataset.json"
        path.write_text(json.dumps({**self.result, "format": 7}))
        before = toy.contents(self.folder)
        message = refusal(self.config, self.folder)
        assert "format 1" in message and "format 7" in message
        assert toy.contents(self.folder) == before

    def test_a_failed_run_leaves_nothing_that_looks_done(self):
        (self.images / "cat" / "broken.png").write_bytes(b"broken")
        assert "broken.png" in refusal(self.config, self.folder)
        assert not (self.folder / "dataset.json").exists()
        (self.images / "cat" / "broken.png").unlink()
        assert self.again() == self.result


def test_after_a_kill_in_the_middle_of_writing_a_run_starts_afresh(tmp_path):
    toy.write_folder(tmp_path / "images")
    script = """
import os, signal, sys
from att_darts_tf.data import records, run
from tests.data import toy

write = records.write

def killed(path, ordered):
    def half(ordered):
        yield next(ordered)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, half(ordered) if "test" in path.name else ordered)

records.write = killed
run.run_prepare(toy.config(sys.argv[1]), output_dir=sys.argv[2])
"""
    command = [sys.executable, "-c", script]
    command += [str(tmp_path / "images"), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = set(os.listdir(tmp_path / "data"))
    assert "train-00000-of-00001.tfrecord" in left
    assert any(name.startswith(run.STAGING) for name in left)
    assert not left & {"dataset.json", "test-00000-of-00001.tfrecord"}
    config = toy.config(tmp_path / "images")
    run.run_prepare(config, output_dir=tmp_path / "data")
    run.run_prepare(config, output_dir=tmp_path / "clean")
    assert toy.contents(tmp_path / "data") == toy.contents(tmp_path / "clean")


class TestRefusals:
    def test_fewer_than_two_training_images(self, tmp_path, monkeypatch):
        source = source_of(datasets.Example("key", toy.images(1)[0], 0))
        monkeypatch.setattr(datasets, "open_source", lambda _: source)
        message = refusal(toy.config(), tmp_path / "data")
        assert "at least 2 images in the train split" in message
        assert "Received: 1" in message

    def test_an_empty_test_split(self, tmp_path):
        toy.write_folder(tmp_path / "images")
        config = toy.config(tmp_path / "images", test_fraction=1e-9)
        message = refusal(config, tmp_path / "data")
        assert "at least 1 images in the test split" in message

    def test_grey_and_colour_together_unless_it_is_said_which(self, tmp_path):
        root = tmp_path / "images"
        toy.write_folder(root, count=4)
        toy.write_image(root / "cat" / "z.png", toy.images(1)[0][..., :1])
        message = refusal(
            toy.config(root, test_fraction=1e-9), tmp_path / "data"
        )
        assert "cat/z.png" in message and "config.data.channels" in message

    def test_grey_training_images_and_colour_test_images(self, tmp_path):
        root = tmp_path / "images"
        toy.write_folder(root / "train", shape=(8, 8, 1))
        toy.write_folder(root / "test")
        message = refusal(toy.config(root), tmp_path / "data")
        assert "test/ant/00.png" in message

    def test_a_label_that_is_no_class(self, tmp_path, monkeypatch):
        source = source_of(datasets.Example("key", toy.images(1)[0], -1))
        monkeypatch.setattr(datasets, "open_source", lambda _: source)
        message = refusal(toy.config(), tmp_path)
        assert "from 0 to 1" in message and "Received: -1" in message

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_a_folder_that_cannot_be_made(self, tmp_path, place):
        (tmp_path / "file").write_text("in the way")
        message = refusal(toy.config("sample"), tmp_path / place)
        assert str(tmp_path / place) in message

    @pytest.mark.parametrize(
        "name", ["test-00000-of-00001.tfrecord", "dataset.json"]
    )
    def test_a_file_that_cannot_be_written(self, tmp_path, monkeypatch, name):
        toy.write_folder(tmp_path / "images")
        folder = tmp_path / "data"
        replace = os.replace

        def full(source, target):
            if target.name == name:
                raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", full)
        message = refusal(toy.config(tmp_path / "images"), folder)
        assert f"can be written: {folder}. Received: No space" in message
        assert not list(folder.glob(".partial-*"))
        assert not (folder / name).exists()


def test_two_images_of_one_key_are_a_defect_of_the_source(
    tmp_path, monkeypatch
):
    example = datasets.Example("key", toy.images(1)[0], 0)
    source = source_of(example, example)
    monkeypatch.setattr(datasets, "open_source", lambda _: source)
    digest = hashlib.sha256(b"key").hexdigest()
    with pytest.raises(Exception, match=f"two of rank {digest}"):
        run.run_prepare(toy.config(), output_dir=tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_records_hold_the_key_they_are_ranked_by(tmp_path):
    toy.write_folder(tmp_path / "images")
    config = toy.config(tmp_path / "images")
    run.run_prepare(config, output_dir=tmp_path / "data")
    assert len(keys_of(tmp_path / "data")) > 2
    digests = list(map(datasets.digest_of, keys_of(tmp_path / "data")))
    assert digests == sorted(digests)


def keys_of(folder):
    """Returns the keys of the training images, in order."""
    file = folder / "train-00000-of-00001.tfrecord"
    return [
        tf.train.Example.FromString(record)
        .features.feature["key"]
        .bytes_list.value[0]
        .decode()
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]


class TestHalves:
    def test_of_a_folder_the_order_of_its_names_decides(self, tmp_path):
        written = toy.write_folder(tmp_path / "images", count=20)
        config = toy.config(
            tmp_path / "images", halves="source_order"
        )
        run.run_prepare(config, output_dir=tmp_path / "data")
        keys = keys_of(tmp_path / "data")
        assert keys == sorted(keys) and set(keys) < set(written)
        data = prepared.load(tmp_path / "data")
        half = len(keys) // 2
        for name, expected in (
            ("weights", keys[:half]),
            ("architecture", keys[half : 2 * half]),
        ):
            received = data.split(name).images
            assert [image.tobytes() for image in received] == [
                written[key].tobytes() for key in expected
            ]

    def test_of_cifar_the_numbers_of_its_author_decide(
        self, tmp_path, toy_datasets
    ):
        config = toy.config()
        config.data = toy_datasets("toy_numbered", halves="source_order")
        run.run_prepare(config, output_dir=tmp_path)
        received = prepared.load(tmp_path).split("train").images
        # The order in which they were generated, which its files do not keep.
        np.testing.assert_array_equal(received, toy.images(30))
        shuffled = keys_of(tmp_path)
        assert shuffled != sorted(shuffled)


class TestBroken:
    @pytest.fixture
    def images(self, tmp_path):
        toy.write_folder(tmp_path / "images" / "train", count=20)
        toy.write_folder(tmp_path / "images" / "test", count=20)
        for name in ("train/ant/a.png", "train/cat/b.png", "test/cat/c.jpg"):
            (tmp_path / "images" / name).write_bytes(b"broken")
        (tmp_path / "images/train/cat/d.png").write_bytes(b"")
        return tmp_path / "images"

    def test_more_than_the_share_are_refused_and_listed(self, tmp_path, images):
        # 4 of 84: 4.8 %.
        config = toy.config(images, broken_fraction=0.047)
        message = refusal(config, tmp_path / "data")
        assert "4 of 84 that are not: train/ant/a.png, which" in message
        assert "and 1 more" in message and "broken_fraction" in message
        listed = (tmp_path / "data" / "broken.txt").read_text().splitlines()
        assert [line.split("\t")[0] for line in listed] == [
            "train/ant/a.png",
            "train/cat/b.png",
            "train/cat/d.png",
            "test/cat/c.jpg",
        ]

    def test_fewer_are_left_out_and_named(self, tmp_path, images):
        config = toy.config(images, broken_fraction=0.048)
        folder = tmp_path / "data"
        result = run.run_prepare(config, output_dir=folder)
        assert result["splits"]["train"]["examples"] == 40
        assert set(result["splits"]["train"]["broken"]) == {
            "train/ant/a.png",
            "train/cat/b.png",
            "train/cat/d.png",
        }
        page = (folder / "report.html").read_text("utf-8")
        assert "test/cat/c.jpg" in page and "cannot be decoded" in page
        assert not (folder / "broken.txt").exists()
        for name in ("train/ant/a.png", "train/cat/b.png", "train/cat/d.png"):
            (images / name).unlink()
        (images / "test/cat/c.jpg").unlink()
        without = run.run_prepare(config, output_dir=folder)
        for split in ("train", "test"):
            files = result["splits"][split]["files"]
            assert files == without["splits"][split]["files"]


class TestPage:
    def test_a_name_that_is_no_text_ends_nothing(self, tmp_path):
        root = tmp_path / "images"
        name = os.fsdecode(b"caf\xe9")
        toy.write_folder(root, classes=("ant", name), count=12)
        result = run.run_prepare(toy.config(root), output_dir=tmp_path / "d")
        assert name in result["class_names"]
        assert "caf?" in (tmp_path / "d" / "report.html").read_text("utf-8")

    def test_it_counts_and_shows_the_images_of_each_class(self, tmp_path):
        root = tmp_path / "images"
        toy.write_folder(root / "train", classes=("<cat>", "ant"), count=12)
        toy.write_folder(root / "test", classes=("<cat>", "ant"), count=2)
        run.run_prepare(toy.config(root), output_dir=tmp_path / "data")
        page = (tmp_path / "data" / "report.html").read_text("utf-8")
        assert "24 training images and 4 test images" in page
        assert "&lt;cat&gt;" in page and "<cat>" not in page
        (encoded,) = re.findall(r"base64,([^\"]+)", page)
        grid = tf.io.decode_png(base64.b64decode(encoded)).numpy()
        # Two classes, ten images each, of 8 x 8 pixels.
        assert grid.shape == (16, 80, 3)
        written = {
            image.tobytes(): path
            for path, image in toy.write_folder(
                tmp_path / "again", classes=("<cat>", "ant"), count=12
            ).items()
        }
        shown = [
            written[grid[row : row + 8, column : column + 8].tobytes()]
            for row in (0, 8)
            for column in range(0, 80, 8)
        ]
        assert len(set(shown)) == 20
        assert all(path.startswith("<cat>/") for path in shown[:10])
        assert all(path.startswith("ant/") for path in shown[10:])
