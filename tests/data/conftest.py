import pytest
import tensorflow_datasets as tfds

from tests.data import toy


class _Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset that is made, not downloaded."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 30, "test": 12}
    SHAPE = (8, 8, 3)
    CLASS_NAMES = ("circle", "square", "star")

    def _features(self):
        return {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(names=self.CLASS_NAMES),
        }

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self._features()),
        )

    def _split_generators(self, dl_manager):
        return {
            name: self._generate_examples(count)
            for name, count in self.SPLITS.items()
        }

    def _generate_examples(self, count):
        for index, image in enumerate(toy.images(count, shape=self.SHAPE)):
            label = self.CLASS_NAMES[index % len(self.CLASS_NAMES)]
            yield index, {"image": image, "label": label}


class ToyShapes(_Toy):
    pass


class ToyNumbered(_Toy):
    """Whose images carry their numbers, as CIFAR's do."""

    def _features(self):
        return {**super()._features(), "id": tfds.features.Text()}

    def _generate_examples(self, count):
        for index, example in super()._generate_examples(count):
            yield f"train_{index:05d}", {**example, "id": f"train_{index:05d}"}


class ToyGrey(_Toy):
    SPLITS = {"train": 40}
    SHAPE = (28, 28, 1)


class ToyUnsplit(_Toy):
    SPLITS = {"validation": 4}


class ToyManual(_Toy):
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask its author\nfor the files."

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(len(dl_manager.manual_dir))}


class ToyText(_Toy):
    def _features(self):
        return {**super()._features(), "image": tfds.features.Text()}


class ToyBoxes(_Toy):
    def _features(self):
        return {**super()._features(), "label": tfds.features.BBoxFeature()}


@pytest.fixture(scope="session")
def toy_datasets(tmp_path_factory):
    """Maps a name of the above, in snake case, to settings that read it."""
    folder = tmp_path_factory.mktemp("datasets")

    def settings(name, **changes):
        return toy.config(name, data_dir=str(folder), **changes).data

    settings.folder = folder
    return settings
