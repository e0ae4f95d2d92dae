"""Images that are kept as files, from their source to batches."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from att_darts_tf.data import (
    augment,
    datasets,
    images,
    input_pipeline,
    parts,
    prepared,
    preprocess,
    run,
)
from att_darts_tf.errors import UsageError
from tests.data import toy
from tests.data.test_input_pipeline import assert_same, batches


def prepare(root, folder, **changes):
    config = toy.encoded_config(root, **changes)
    return run.run_prepare(config, output_dir=folder)


def refusal(root, folder, **changes):
    with pytest.raises(UsageError) as caught:
        prepare(root, folder, **changes)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert not (folder / "dataset.json").exists()
    return message


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Returns a folder of photographs, and their files by key."""
    root = tmp_path_factory.mktemp("photos")
    written = {}
    for split, count in (("train", 9), ("test", 6)):
        for path, content in toy.write_photos(
            root / split, count=count
        ).items():
            written[f"{split}/{path}"] = content
    return root, written


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_SHARD_BYTES", 40_000)
        prepare(photos[0], folder)
    return folder


@pytest.fixture
def data(folder):
    return prepared.load(folder)


@pytest.fixture
def preprocessing(photos, data):
    return preprocess.of(toy.encoded_config(photos[0]).data, data)


class TestPrepare:
    def test_files_are_kept_as_they_are_ranked_by_their_key(
        self, photos, data
    ):
        assert data.encoded and data.image_shape == (24, 20, 3)
        for name, count in (("train", 18), ("test", 12)):
            keys = sorted(
                (key for key in photos[1] if key.startswith(name)),
                key=datasets.digest_of,
            )
            split = data.split(name)
            assert len(split) == data.num_examples(name) == count
            assert split.files().numpy().tolist() == [
                photos[1][key] for key in keys
            ]
            assert split.labels.tolist() == ["/cat/" in key for key in keys]
        assert len(data.split("train").shards) > 1

    def test_halves_are_disjoint_and_equal(self, data):
        train, weights, architecture = (
            data.split(name).files().numpy().tolist()
            for name in ("train", "weights", "architecture")
        )
        assert weights + architecture == train
        assert len(weights) == len(architecture) == 9

    def test_statistics_are_those_of_all_pixels_of_training(
        self, photos, data
    ):
        pixels = np.concatenate(
            [
                images.decode(content, channels=3).numpy().reshape(-1, 3)
                for key, content in photos[1].items()
                if key.startswith("train")
            ]
        )
        np.testing.assert_allclose(data.mean, pixels.mean(0) / 255)
        np.testing.assert_allclose(data.std, pixels.std(0) / 255)

    def test_two_runs_write_the_same_bytes(
        self, photos, folder, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(parts, "_SHARD_BYTES", 40_000)
        monkeypatch.setattr(parts, "_THREADS", 1)
        prepare(photos[0], tmp_path / "again")
        assert toy.contents(tmp_path / "again") == toy.contents(folder)

    def test_what_is_done_is_returned_at_once(
        self, photos, folder, monkeypatch
    ):
        before = toy.contents(folder)
        monkeypatch.setattr(parts, "of", None)
        result = prepare(photos[0], folder, crop_area=(0.5, 1.0))
        assert result == json.loads(before["dataset.json"])
        assert toy.contents(folder) == before

    def test_pixels_instead_leave_no_file_behind(self, photos, tmp_path):
        prepare(photos[0], tmp_path)
        (tmp_path / f"{run.STAGING}left").mkdir()
        prepare(photos[0], tmp_path, augmentation="padded_crop")
        assert not prepared.load(tmp_path).encoded
        assert set(toy.contents(tmp_path)) == {
            "lineage.json",
            "dataset.json",
            "report.html",
            "test-00000-of-00001.tfrecord",
            "train-00000-of-00001.tfrecord",
        }

    @pytest.mark.parametrize("name", ["train-index.npy", "tfrecord"])
    def test_a_damaged_file_is_made_good(self, photos, tmp_path, name):
        prepare(photos[0], tmp_path)
        before = toy.contents(tmp_path)
        (path,) = (p for p in tmp_path.glob("train*") if str(p).endswith(name))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        prepare(photos[0], tmp_path)
        assert toy.contents(tmp_path) == before

    def test_the_embedded_sample_can_be_kept_as_files(self, tmp_path):
        result = prepare("sample", tmp_path, image_size=(32, 32))
        assert result["normalisation"] == "published"
        split = prepared.load(tmp_path).split("test").head(3)
        decoded = [tf.io.decode_png(file).numpy() for file in split.files()]
        assert {image.shape for image in decoded} == {(32, 32, 3)}


class TestRefusals:
    @pytest.mark.parametrize("kept", [0, 3, 200, -100])
    def test_a_file_that_cannot_be_decoded_is_named(self, tmp_path, kept):
        root = tmp_path / "photos"
        written = toy.write_photos(root)
        broken = root / "cat" / "00.jpg"
        broken.write_bytes(written["cat/00.jpg"][:kept])
        message = refusal(root, tmp_path / "data")
        assert str(root) in message and "cat/00.jpg" in message
        assert "decoded" in message
        (listed,) = (tmp_path / "data").iterdir()
        assert listed.name == "broken.txt"

    def test_what_is_neither_jpeg_nor_png_is_named(self, tmp_path):
        root = tmp_path / "photos"
        toy.write_photos(root)
        gif = toy.encode(toy.photo(size=(5, 5)), "GIF")
        (root / "cat" / "00.jpg").write_bytes(gif)
        assert "cat/00.jpg" in refusal(root, tmp_path / "data")

    def test_grey_and_colour_together_unless_it_is_said_which(self, tmp_path):
        toy.write_photos(tmp_path / "photos")
        message = refusal(tmp_path / "photos", tmp_path / "data", channels=0)
        assert "config.data.channels" in message and "01.jpeg" in message

    def test_too_few_images(self, tmp_path):
        toy.write_photos(tmp_path / "photos", count=2)
        message = refusal(
            tmp_path / "photos", tmp_path / "data", test_fraction=1e-9
        )
        assert "at least 1 images in the test split" in message

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        toy.write_photos(tmp_path / "photos")
        monkeypatch.setattr(np, "save", full)
        message = refusal(tmp_path / "photos", tmp_path / "data")
        assert "No space left" in message

    @pytest.mark.parametrize(
        "asked, made",
        [("padded_crop", "resized_crop"), ("resized_crop", "padded_crop")],
    )
    def test_images_of_the_other_kind(self, tmp_path, asked, made):
        toy.write_photos(tmp_path / "photos")
        prepare(tmp_path / "photos", tmp_path / "data", augmentation=made)
        data = prepared.load(tmp_path / "data")
        settings = toy.encoded_config("x", augmentation=asked).data
        with pytest.raises(UsageError, match=f"={asked}. Received.*{made}"):
            preprocess.of(settings, data)


class _Files(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Made, not downloaded; of images of any size, as files."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": (9, 2), "validation": (5, 2), "test": (3, -1)}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=["ant", "cat"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in self.SPLITS}

    def _generate_examples(self, split):
        count, classes = self.SPLITS[split]
        folder = self.data_path.parent / f"{split}-files"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            file = folder / f"{index}.jpg"
            file.write_bytes(jpeg_of(split, index))
            label = index % 2 if classes > 0 else -1
            yield index, {"image": str(file), "label": label}


class Imagenet2012(_Files, skip_registration=True):
    name = "imagenet2012"


def jpeg_of(split, index):
    size = (40 + index, 60 - index)
    return toy.encode(toy.photo(size=size, seed=index + len(split) * 100))


class TestTensorFlowDatasets:
    @pytest.fixture
    def mocked(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            tfds,
            "builder",
            lambda name, data_dir: Imagenet2012(data_dir=data_dir),
        )
        return {
            "root": "imagenet2012",
            "folder": tmp_path / "data",
            "data_dir": str(tmp_path / "datasets"),
        }

    def test_imagenet_is_kept_file_by_file_and_judged_on_its_validation(
        self, mocked
    ):
        result = prepare(**mocked)
        data = prepared.load(mocked["folder"])
        assert data.name == "imagenet2012" and data.encoded
        for name, split, count in (
            ("train", "train", 9),
            ("test", "validation", 5),
        ):
            received = data.split(name)
            assert set(received.files().numpy().tolist()) == {
                jpeg_of(split, index) for index in range(count)
            }
            assert sorted(received.labels) == sorted(
                index % 2 for index in range(count)
            )
        # As all published results on ImageNet.
        assert result["normalisation"] == "published"
        assert data.mean == (0.485, 0.456, 0.406)
        assert data.std == (0.229, 0.224, 0.225)

    @pytest.mark.parametrize(
        "changes",
        [
            {"channels": 1},
            {"augmentation": "padded_crop"},
            {"augmentation": "padded_crop", "image_size": (32, 32)},
        ],
    )
    def test_published_statistics_are_for_its_colour_files_only(
        self, mocked, changes
    ):
        result = prepare(**mocked, **changes)
        assert result["normalisation"] == "training images"
        assert result["splits"]["test"]["examples"] == 5


class TestBatches:
    def test_evaluation_keeps_the_order_and_fits_each_file(
        self, data, preprocessing
    ):
        split = data.split("test")
        received = batches(
            input_pipeline.evaluation_batches(
                split, preprocessing=preprocessing, batch_size=5
            )
        )
        assert [len(labels) for _, labels in received] == [5, 5, 2]
        inputs, labels = (np.concatenate(parts) for parts in zip(*received))
        np.testing.assert_array_equal(labels, split.labels)
        for file, result in zip(split.files(), inputs, strict=True):
            image = images.resize_and_crop(
                images.decode(file, channels=3),
                shorter_side=28,
                height=24,
                width=20,
            )
            expected = augment.normalise(image, mean=data.mean, std=data.std)
            np.testing.assert_allclose(result, expected, atol=1e-6)

    def test_training_augments_every_file_once_an_epoch(
        self, data, preprocessing
    ):
        split = data.split("train")
        dataset = input_pipeline.training_batches(
            split, preprocessing=preprocessing, batch_size=5, epoch=0, seed=0
        )
        assert dataset.cardinality() == 4
        assert dataset.element_spec == (
            tf.TensorSpec((None, 24, 20, 3), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        )
        received = batches(dataset)
        assert [len(labels) for _, labels in received] == [5, 5, 5, 3]
        labels = np.concatenate([labels for _, labels in received])
        assert sorted(labels) == sorted(split.labels)
        drawn = {image.tobytes() for part, _ in received for image in part}
        assert len(drawn) == 18

    def test_resuming_at_any_step_gives_the_rest_to_the_bit(
        self, data, preprocessing
    ):
        options = {
            "preprocessing": preprocessing,
            "batch_size": 4,
            "epoch": 3,
            "seed": 5,
        }
        for dataset_of, splits in (
            (input_pipeline.training_batches, ["train"]),
            (input_pipeline.paired_batches, ["weights", "architecture"]),
        ):
            parts = [data.split(name) for name in splits]
            whole = batches(dataset_of(*parts, **options))
            assert_same(batches(dataset_of(*parts, **options)), whole)
            for first_step in (1, len(whole) - 1):
                rest = dataset_of(*parts, first_step=first_step, **options)
                assert_same(batches(rest), whole[first_step:])

    def test_no_two_draws_of_one_file_are_the_same(
        self, photos, preprocessing
    ):
        file = photos[1]["train/cat/00.jpg"]
        drawn = {
            image.tobytes()
            for seed in range(3)
            for image in preprocessing.training(
                tf.constant([file] * 8), seed=tf.constant((seed, 1))
            ).numpy()
        }
        assert len(drawn) == 24

    def test_a_plain_window_is_a_resized_part_of_the_image(
        self, photos, preprocessing
    ):
        plain = dataclasses.replace(
            preprocessing,
            crop_area=(1.0, 1.0),
            flip=False,
            color_jitter=(0.0,) * 4,
        )
        # No window has all of the area: the middle of an allowed ratio.
        file = toy.encode(toy.photo(size=(30, 100)), "PNG")
        middle = images.decode(file, channels=3)[:, 30:70]
        expected = tf.image.resize(middle, (24, 20), antialias=True)
        expected = augment.normalise(
            expected, mean=plain.mean, std=plain.std
        )
        seed = tf.constant((0, 0))
        received = plain.augment(file, seed=seed)
        np.testing.assert_allclose(received, expected, atol=1e-5)
        mirrored = dataclasses.replace(plain, flip=True)
        flips = {
            bool(np.allclose(result, expected[:, ::-1], atol=1e-5))
            for result in mirrored.training(
                tf.constant([file] * 12), seed=seed
            ).numpy()
        }
        assert flips == {True, False}

    def test_the_smallest_files_are_enlarged(self, preprocessing):
        file = toy.encode(toy.photo(size=(1, 1)))
        for result in (
            preprocessing.augment(file, seed=tf.constant((0, 0))),
            preprocessing.fit(file),
        ):
            assert result.shape == (24, 20, 3)
            assert np.isfinite(result).all()
