import collections
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from att_darts_tf.data import datasets
from att_darts_tf.data.sample import draw, sheets
from att_darts_tf.errors import UsageError
from tests.data import toy


def read(settings, split):
    """Returns the examples of a split as they are kept."""
    read = []
    for example in datasets.open_source(settings).read(split):
        seen = datasets.examine(example, settings)
        assert isinstance(seen, datasets.Seen), seen
        read.append(example._replace(image=seen.content))
    return read


def refusal(settings, *splits):
    """Returns the message, which must be one line."""
    with pytest.raises(UsageError) as caught:
        for split in splits or ("train",):
            read(settings, split)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


class TestSample:
    def test_it_holds_as_many_images_of_every_class(self):
        settings = toy.config("sample", image_size=(32, 32)).data
        for split, count in (("train", 150), ("test", 50)):
            examples = read(settings, split)
            labels = collections.Counter(e.label for e in examples)
            assert labels == dict.fromkeys(range(10), count)
            assert len({e.key for e in examples}) == 10 * count
            assert len({e.image.tobytes() for e in examples}) == 10 * count
            assert examples[0].image.shape == (32, 32, 3)

    def test_no_test_image_is_a_training_image(self):
        train, test = (
            {image.tobytes() for image, _ in sheets.read(split)}
            for split in ("train", "test")
        )
        assert not train & test

    def test_its_pixels_have_the_statistics_of_the_whole(self):
        images = np.stack([image for image, _ in sheets.read("train")]) / 255
        # Of the 50,000 training images, Krizhevsky's data set.
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        np.testing.assert_allclose(images.mean((0, 1, 2)), mean, atol=0.02)
        np.testing.assert_allclose(images.std((0, 1, 2)), std, atol=0.02)

    def test_it_takes_less_than_six_megabytes(self):
        files = [path for path in sheets.FOLDER.iterdir() if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 6e6

    def test_its_page_names_the_classes_in_order_and_the_source(self):
        page = (sheets.FOLDER / "README.md").read_text("utf-8")
        for label, name in enumerate(sheets.CLASS_NAMES):
            assert f"| {label} | {name} |" in page
        assert "Krizhevsky" in page and "2009" in page

    def test_a_sheet_is_unpacked_to_what_was_packed(self):
        images = toy.images(6).reshape(2, 3, 8, 8, 3)
        sheet = sheets.pack(images)
        assert sheet.shape == (16, 24, 3)
        np.testing.assert_array_equal(sheet[8:16, 16:24], images[1, 2])
        np.testing.assert_array_equal(sheets.unpack(sheet, side=8), images)

    def test_drawing_does_not_depend_on_the_order_of_reading(self):
        examples = [
            datasets.Example(f"key {index}", image, index % 10)
            for index, image in enumerate(toy.images(50))
        ]
        drawn = draw.draw(examples, images_per_class=2)
        again = draw.draw(examples[::-1], images_per_class=2)
        np.testing.assert_array_equal(drawn, again)
        assert drawn.shape == (10, 2, 8, 8, 3)
        images = [example.image.tobytes() for example in examples]
        for label in range(10):
            for image in drawn[label]:
                assert images.index(image.tobytes()) % 10 == label

    def test_the_name_wins_over_a_folder_of_that_name(
        self, tmp_path, monkeypatch
    ):
        toy.write_folder(tmp_path / "sample")
        monkeypatch.chdir(tmp_path)
        source = datasets.open_source(toy.config("sample").data)
        assert source.class_names == sheets.CLASS_NAMES


class TestFolder:
    def test_train_and_test_folders_are_the_splits(self, tmp_path):
        train = toy.write_folder(tmp_path / "train", count=3)
        test = toy.write_folder(tmp_path / "test", count=2)
        toy.write_folder(tmp_path / "other")
        settings = toy.config(tmp_path).data
        source = datasets.open_source(settings)
        assert source.class_names == ("ant", "cat")
        for split, written in (("train", train), ("test", test)):
            examples = read(settings, split)
            assert {e.key for e in examples} == {
                f"{split}/{path}" for path in written
            }
            for key, image, label, _ in examples:
                path = key.removeprefix(f"{split}/")
                np.testing.assert_array_equal(image, written[path])
                assert source.class_names[label] == path.split("/")[0]

    def test_without_a_test_folder_a_fraction_is_held_out(self, tmp_path):
        written = toy.write_folder(tmp_path, count=60)
        settings = toy.config(tmp_path, test_fraction=0.25).data
        train, test = read(settings, "train"), read(settings, "test")
        keys = [example.key for example in train + test]
        assert sorted(keys) == sorted(written)
        # 120 draws with probability 1/4: 30, deviation 4.7.
        assert 15 < len(test) < 45

    def test_a_class_without_training_images_is_refused(self, tmp_path):
        toy.write_folder(tmp_path, count=2)
        settings = toy.config(tmp_path, test_fraction=1 - 1e-9).data
        with pytest.raises(UsageError, match="none of .*ant.*test_fraction"):
            datasets.open_source(settings)

    def test_an_image_stays_in_its_split_when_others_are_added(self, tmp_path):
        toy.write_folder(tmp_path, count=20)
        settings = toy.config(tmp_path).data
        before = {example.key for example in read(settings, "test")}
        toy.write_folder(tmp_path, classes=("bee",), count=20)
        after = {example.key for example in read(settings, "test")}
        assert {key for key in after if not key.startswith("bee")} == before

    def test_a_moved_folder_gives_the_same_source(self, tmp_path):
        toy.write_folder(tmp_path / "one" / "toys")
        source = datasets.open_source(toy.config(tmp_path / "one/toys").data)
        before = [e.key for e in source.read("train")]
        (tmp_path / "one").rename(tmp_path / "two")
        moved = datasets.open_source(toy.config(tmp_path / "two/toys").data)
        assert [e.key for e in moved.read("train")] == before
        assert moved.revision == source.revision
        assert moved.name == source.name == "toys"

    def test_its_revision_changes_with_its_images(self, tmp_path):
        toy.write_folder(tmp_path)
        settings = toy.config(tmp_path).data
        revisions = [datasets.open_source(settings).revision]
        toy.write_image(tmp_path / "cat" / "new.png", toy.images(1)[0])
        revisions.append(datasets.open_source(settings).revision)
        toy.write_image(tmp_path / "cat" / "new.png", toy.images(1)[0][:4])
        revisions.append(datasets.open_source(settings).revision)
        (tmp_path / "cat" / "new.png").unlink()
        revisions.append(datasets.open_source(settings).revision)
        assert revisions[3] == revisions[0]
        assert len(set(revisions)) == 3

    def test_jpeg_files_in_deeper_folders_and_any_case_are_read(self, tmp_path):
        for path in ("a/x.JPG", "a/deep/y.jpeg", "b/z.Png"):
            toy.write_image(tmp_path / path, toy.images(1)[0])
        (tmp_path / "b/z.Png").write_bytes(
            tf.io.encode_png(toy.images(1)[0]).numpy()
        )
        settings = toy.config(tmp_path, test_fraction=1e-9).data
        keys = [example.key for example in read(settings, "train")]
        assert keys == ["a/deep/y.jpeg", "a/x.JPG", "b/z.Png"]

    def test_hidden_and_other_files_are_left_out(self, tmp_path):
        toy.write_folder(tmp_path, count=2)
        for path in (".cache/x.png", "cat/._1.png", "cat/.thumbs/y.png"):
            toy.write_image(tmp_path / path, toy.images(1)[0])
        (tmp_path / "cat" / "notes.txt").write_text("not an image")
        (tmp_path / "top.png").write_bytes(b"")
        settings = toy.config(tmp_path, test_fraction=1e-9).data
        assert len(read(settings, "train")) == 4

    def test_images_of_mixed_sizes_get_the_configured_size(self, tmp_path):
        for index, shape in enumerate([(8, 8, 3), (31, 17, 3), (4, 40, 3)]):
            for name in ("a", "b"):
                toy.write_image(
                    tmp_path / name / f"{index}.png",
                    toy.images(1, shape=shape)[0],
                )
        settings = toy.config(tmp_path, image_size=(20, 33)).data
        examples = read(settings, "train") + read(settings, "test")
        assert len(examples) == 6
        assert {example.image.shape for example in examples} == {(20, 33, 3)}

    @pytest.mark.parametrize("channels", [1, 3])
    def test_grey_and_colour_files_get_the_configured_channels(
        self, tmp_path, channels
    ):
        toy.write_image(tmp_path / "a/1.png", toy.images(1)[0])
        toy.write_image(tmp_path / "b/1.png", toy.images(1)[0][..., :1])
        settings = toy.config(tmp_path, channels=channels).data
        examples = read(settings, "train") + read(settings, "test")
        assert {e.image.shape for e in examples} == {(8, 8, channels)}

    def test_grey_files_stay_grey(self, tmp_path):
        written = toy.write_folder(tmp_path, shape=(28, 28, 1), count=2)
        settings = toy.config(tmp_path, image_size=(28, 28)).data
        for key, image, *_ in read(settings, "train"):
            np.testing.assert_array_equal(image, written[key])

    def test_transparency_is_dropped(self, tmp_path):
        colour = toy.images(1)[0]
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            alpha = np.full((8, 8, 1), 9, np.uint8)
            both = np.concatenate([colour, alpha], -1)
            Image.fromarray(both).save(tmp_path / name / "1.png")
        settings = toy.config(tmp_path).data
        for example in read(settings, "train") + read(settings, "test"):
            np.testing.assert_array_equal(example.image, colour)

    @pytest.mark.parametrize("name", ["broken.jpg", "broken.png"])
    @pytest.mark.parametrize("kept", [0, 3, 60])
    def test_an_image_that_cannot_be_decoded_is_named(
        self, tmp_path, name, kept
    ):
        toy.write_folder(tmp_path, count=3)
        path = tmp_path / "cat" / name
        toy.write_image(path, toy.images(1)[0])
        path.write_bytes(path.read_bytes()[:kept])
        settings = toy.config(tmp_path).data
        source = datasets.open_source(settings)
        (broken,) = (
            seen
            for split in ("train", "test")
            for example in source.read(split)
            for seen in [datasets.examine(example, settings)]
            if isinstance(seen, datasets.Broken)
        )
        assert broken.key == f"cat/{name}" and "decoded" in broken.reason

    @pytest.mark.parametrize("kind", ["endless", "pipe"])
    def test_a_device_in_place_of_an_image_is_not_read(self, tmp_path, kind):
        toy.write_folder(tmp_path, count=3)
        path = tmp_path / "cat" / "picture.png"
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        message = refusal(toy.config(tmp_path).data, "train", "test")
        assert f"Received: {path}, a file of another kind" in message

    @pytest.mark.parametrize("other", ["val", "validation"])
    def test_splits_by_other_names_are_no_classes(self, tmp_path, other):
        for split in ("train", other):
            toy.write_folder(tmp_path / split)
        message = refusal(toy.config(tmp_path).data)
        assert f"Rename {other}/ to test/" in message

    def test_a_class_may_be_called_train(self, tmp_path):
        toy.write_folder(tmp_path)
        (tmp_path / "train").mkdir()
        source = next(tmp_path.rglob("*.png"))
        (tmp_path / "train" / "steam.png").write_bytes(source.read_bytes())
        source = datasets.open_source(toy.config(tmp_path).data)
        assert "train" in source.class_names

    def test_a_class_folder_without_images_is_named(self, tmp_path):
        toy.write_folder(tmp_path)
        (tmp_path / "empty").mkdir()
        message = refusal(toy.config(tmp_path).data)
        assert str(tmp_path / "empty") in message

    def test_a_test_class_folder_without_images_is_named(self, tmp_path):
        toy.write_folder(tmp_path / "train")
        toy.write_folder(tmp_path / "test", classes=("cat",))
        (tmp_path / "test" / "ant").mkdir()
        message = refusal(toy.config(tmp_path).data)
        assert str(tmp_path / "test" / "ant") in message

    def test_classes_that_only_one_split_has_are_named(self, tmp_path):
        toy.write_folder(tmp_path / "train")
        toy.write_folder(tmp_path / "test", classes=("cat", "ant", "dog"))
        assert "'dog'" in refusal(toy.config(tmp_path).data)

    @pytest.mark.parametrize("classes", [(), ("train",)])
    def test_fewer_than_two_classes_are_refused(self, tmp_path, classes):
        toy.write_folder(tmp_path, classes=classes)
        message = refusal(toy.config(tmp_path).data)
        assert f"Received: {list(classes)}" in message

    def test_images_in_a_form_that_cannot_be_read_are_not_left_out(
        self, tmp_path
    ):
        toy.write_folder(tmp_path)
        (tmp_path / "cat" / "x.webp").write_bytes(b"RIFF")
        assert "x.webp" in refusal(toy.config(tmp_path).data)

    def test_a_link_to_nowhere_is_named(self, tmp_path):
        toy.write_folder(tmp_path)
        (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        assert "gone.png: No such file" in refusal(toy.config(tmp_path).data)

    @pytest.mark.parametrize("name", ["/no/such/folder", "./no", "~/no such"])
    def test_a_missing_folder_is_named(self, name):
        assert name in refusal(toy.config(name).data)


class TestTensorFlowDatasets:
    def test_each_split_is_read_with_stable_keys(self, toy_datasets):
        settings = toy_datasets("toy_shapes")
        source = datasets.open_source(settings)
        assert source.class_names == ("circle", "square", "star")
        assert source.revision == "toy_shapes/1.0.0"
        train, test = read(settings, "train"), read(settings, "test")
        assert len(train) == 30 and len(test) == 12
        assert all("toy_shapes-train" in example.key for example in train)
        assert len({example.key for example in train + test}) == 42
        again = {e.key: e.image.tobytes() for e in read(settings, "train")}
        assert again == {e.key: e.image.tobytes() for e in train}

    def test_images_and_labels_are_those_of_the_dataset(self, toy_datasets):
        examples = read(toy_datasets("toy_shapes"), "train")
        expected = toy.images(30)
        received = {
            (example.image.tobytes(), example.label) for example in examples
        }
        assert received == {
            (image.tobytes(), index % 3) for index, image in enumerate(expected)
        }

    def test_without_a_test_split_a_fraction_is_held_out(self, toy_datasets):
        settings = toy_datasets("toy_grey", image_size=(28, 28))
        train, test = read(settings, "train"), read(settings, "test")
        assert len(train) + len(test) == 40
        assert 2 < len(test) < 20
        assert not {e.key for e in train} & {e.key for e in test}
        assert {e.image.shape for e in train + test} == {(28, 28, 1)}

    def test_other_sizes_and_channels_are_brought_to_the_configured(
        self, toy_datasets
    ):
        settings = toy_datasets("toy_grey", image_size=(20, 33), channels=3)
        shapes = {example.image.shape for example in read(settings, "test")}
        assert shapes == {(20, 33, 3)}

    def test_a_misspelt_name_is_answered_with_close_names(self):
        message = refusal(toy.config("cifar11").data)
        assert "'cifar11'" in message and "cifar10" in message

    def test_a_name_like_no_other_is_refused(self):
        assert "'qqqqqqqq'" in refusal(toy.config("qqqqqqqq").data)

    @pytest.mark.parametrize("name", ["nothing/of/it", "cifar10:9.9.9"])
    def test_an_unknown_variant_or_version_is_refused(self, name, tmp_path):
        settings = toy.config(name, data_dir=str(tmp_path)).data
        assert f"{name!r}" in refusal(settings)

    @pytest.mark.parametrize("name", ["toy_text", "toy_boxes"])
    def test_what_is_not_image_classification_is_refused(
        self, toy_datasets, name
    ):
        message = refusal(toy_datasets(name))
        assert "image classification" in message and name in message

    def test_a_dataset_without_a_train_split_is_refused(self, toy_datasets):
        assert "`train`" in refusal(toy_datasets("toy_unsplit"))

    def test_files_that_must_be_fetched_by_hand_are_named(self, toy_datasets):
        message = refusal(toy_datasets("toy_manual"))
        assert "Ask its author" in message and "data_dir" in message

    def test_a_damaged_file_of_the_dataset_is_refused(self, toy_datasets):
        settings = toy_datasets("toy_shapes")
        read(settings, "train")
        folder = toy_datasets.folder / "toy_shapes" / "1.0.0"
        (file,) = folder.glob("*train*")
        content = file.read_bytes()
        try:
            file.write_bytes(content[:-30])
            assert str(folder) in refusal(settings)
        finally:
            file.write_bytes(content)

    def test_a_missing_package_is_named_with_its_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        message = refusal(toy.config("cifar10").data)
        assert "att-darts-tf[tfds]" in message

    def test_it_is_not_imported_where_it_is_not_needed(
        self, monkeypatch, tmp_path
    ):
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        toy.write_folder(tmp_path)
        read(toy.config(tmp_path).data, "train")
        read(toy.config("sample").data, "test")
