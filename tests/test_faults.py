"""Images that are damaged or vanish while a run is using them."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import types

import keras
import pytest
import tensorflow as tf

from att_darts_tf import serving
from att_darts_tf.data import input_pipeline, parts, prepared, preprocess
from att_darts_tf.data import run as data_run
from att_darts_tf.engine import optimizers, training
from att_darts_tf.errors import UsageError
from att_darts_tf.network import evaluate, network
from att_darts_tf.network import run as network_run
from att_darts_tf.search import run as search_run
from tests.data import toy as photos
from tests.network import toy

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    return toy.prepare(tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def encoded_config(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 8), ("test", 3)):
        photos.write_photos(root / split, count=count)
    config = toy.config()
    config.data = photos.encoded_config(root, color_jitter=(0.0,) * 4).data
    config.engine.checkpoint_steps = 1
    config.search.batch_size = 5
    config.search.epochs = 1
    config.network.update(epochs=1, cutout=0, auxiliary_weight=0.0)
    return config


@pytest.fixture(scope="module")
def encoded(encoded_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded")
    data_run.run_prepare(encoded_config, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def model(pixels, tmp_path_factory):
    """A folder as a training leaves it, with a network that learned nothing."""
    folder = tmp_path_factory.mktemp("model")
    untrained = network.Network.from_genotype(
        toy.USEFUL,
        image_shape=prepared.load(pixels).image_shape,
        num_classes=2,
        channels=4,
        cells=3,
    )
    network.save(untrained, folder / "model.keras")
    toy.USEFUL.write(folder / "genotype.json")
    return folder


def search(config, data_dir, model, output_dir):
    return search_run.run_search(
        config, data_dir=data_dir, output_dir=output_dir, seed=0
    )


def select(config, data_dir, model, output_dir):
    return network_run.run_selection(
        config,
        data_dir=data_dir,
        genotypes=[model / "genotype.json"] * 2,
        output_dir=output_dir,
    )


def train(config, data_dir, model, output_dir):
    return network_run.run_training(
        config,
        data_dir=data_dir,
        genotype=model / "genotype.json",
        output_dir=output_dir,
        seed=1,
    )


def judge(config, data_dir, model, output_dir):
    return evaluate.run_evaluation(
        config, data_dir=data_dir, models=[model], output_dir=output_dir
    )


def export(config, data_dir, model, output_dir):
    return serving.run_export(
        config, data_dir=data_dir, model=model, output_dir=output_dir
    )


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("stage", [search, select, train, judge, export])
def test_no_stage_reads_a_damaged_shard(
    pixels, model, tmp_path, stage, damage
):
    data_dir = shutil.copytree(pixels, tmp_path / "data")
    for shard in data_dir.glob("*.tfrecord"):
        damage(shard)
    with pytest.raises(UsageError) as caught:
        stage(toy.config(), data_dir, model, tmp_path / "out")
    message = str(caught.value)
    assert "is damaged or incomplete" in message
    assert "prepare the images again" in message
    assert "\n" not in message
    for name in ("result.json", "checkpoints", "saved_model.pb"):
        assert not list((tmp_path / "out").rglob(name))


class Pairs(keras.Model):
    """Stands for a search: its weight depends on every pair of batches."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(name="weight", initializer="ones")
        self.supernet = types.SimpleNamespace(
            architecture_variables=[self.weight]
        )
        self.loss_tracker = keras.metrics.Mean("loss")
        self.built = True
        self.compile(optimizer=optimizers.SGD(0.1), jit_compile=False)
        self.optimizer.build([self.weight])

    def train_step(self, batches):
        loss = sum(tf.reduce_mean(images) for images, _ in batches)
        self.weight.assign(0.9 * self.weight + loss)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


def fit_pairs(config, data_dir, folder, callbacks=()):
    """Trains for 2 epochs of 4 steps, and returns the weight at the end."""
    data = prepared.load(data_dir)
    halves = [data.split(name) for name in ("weights", "architecture")]
    pairs = Pairs()
    folder.mkdir(exist_ok=True)
    training.fit(
        pairs,
        strategy=tf.distribute.get_strategy(),
        dataset_for=lambda epoch, first_step: input_pipeline.paired_batches(
            *halves,
            preprocessing=preprocess.of(config.data, data),
            batch_size=len(halves[0]) // 4,
            epoch=epoch,
            first_step=first_step,
            seed=0,
        ),
        epochs=2,
        steps_per_epoch=4,
        folder=folder,
        checkpoint_steps=1,
        callbacks=callbacks,
    )
    return float(pairs.weight)


def test_search_on_encoded_images_tells_of_a_damaged_one(
    encoded, encoded_config, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(search_run, "make_search", lambda *a, **k: Pairs())
    data_dir = shutil.copytree(encoded, tmp_path / "data")
    (shard,) = data_dir.glob("train-*.tfrecord")
    flip(shard)
    with pytest.raises(UsageError, match=f"{shard}.*damaged.*prepare") as found:
        search(encoded_config, data_dir, model, tmp_path / "out")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("stage", [judge, export])
def test_judging_and_exporting_tell_of_a_damaged_encoded_image(
    encoded, encoded_config, tmp_path, stage
):
    data_dir = shutil.copytree(encoded, tmp_path / "data")
    untrained = network.Network.from_genotype(
        toy.USEFUL,
        image_shape=prepared.load(encoded).image_shape,
        num_classes=2,
        channels=4,
        cells=3,
    )
    network.save(untrained, tmp_path / "model.keras")
    for shard in data_dir.glob("*.tfrecord"):
        # The head of its first record is no image: what follows is.
        content = shard.read_bytes()
        shard.write_bytes(content[:100] + bytes(200) + content[300:])
    with pytest.raises(UsageError, match="damaged.*prepare") as found:
        stage(encoded_config, data_dir, tmp_path, tmp_path / "out")
    assert "\n" not in str(found.value)
    for name in ("result.json", "model"):
        assert not list((tmp_path / "out").rglob(name))


def test_images_that_vanish_while_they_are_prepared_leave_nothing_done(
    tmp_path, monkeypatch
):
    photos.write_folder(tmp_path / "images")
    config = photos.config(tmp_path / "images")
    of = parts.of

    def lose(source):
        divided = of(source)
        (tmp_path / "images").rename(tmp_path / "away")
        return divided

    with monkeypatch.context() as patch:
        patch.setattr(parts, "of", lose)
        with pytest.raises(UsageError, match=r"\.png: No such file.*Mend"):
            data_run.run_prepare(config, output_dir=tmp_path / "data")
    assert not (tmp_path / "data" / "dataset.json").exists()
    (tmp_path / "away").rename(tmp_path / "images")
    data_run.run_prepare(config, output_dir=tmp_path / "data")


class Remove(keras.callbacks.Callback):
    """Removes a folder after the first step."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_batch_end(self, batch, logs=None):
        shutil.rmtree(self.folder, ignore_errors=True)


def test_training_that_has_read_its_pixels_needs_the_folder_no_more(
    pixels, model, tmp_path
):
    expected = fit_pairs(toy.config(), pixels, tmp_path / "expected")
    data_dir = shutil.copytree(pixels, tmp_path / "data")
    received = fit_pairs(
        toy.config(), data_dir, tmp_path / "out", [Remove(data_dir)]
    )
    assert received == expected
    with pytest.raises(UsageError, match="Run the stage `prepare` first"):
        judge(toy.config(), data_dir, model, tmp_path / "judged")


def test_shard_that_vanishes_ends_a_training_that_goes_on_when_it_is_back(
    encoded, encoded_config, tmp_path, monkeypatch
):
    expected = fit_pairs(encoded_config, encoded, tmp_path / "expected")
    data_dir = shutil.copytree(encoded, tmp_path / "data")
    (shard,) = data_dir.glob("train-*.tfrecord")
    read, batches = prepared.shards.read_images, []

    def read_and_lose(files, index):
        batches.append(len(index))
        # A step reads two; in the second epoch.
        if len(batches) == 11:
            shard.rename(tmp_path / "away")
        return read(files, index)

    with monkeypatch.context() as patch:
        patch.setattr(prepared.shards, "read_images", read_and_lose)
        with pytest.raises(UsageError, match=f"{shard}.*No such file"):
            fit_pairs(encoded_config, data_dir, tmp_path / "out")
    assert list((tmp_path / "out" / "checkpoints").glob("ckpt-*.index"))
    (tmp_path / "away").rename(shard)
    received = fit_pairs(encoded_config, data_dir, tmp_path / "out")
    assert received == expected


@contextlib.contextmanager
def full_disk(size):
    """Lets no file of this process become longer than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_leaves_no_part_of_a_model(pixels, model, tmp_path):
    trained = network.load(model / "model.keras")
    place = tmp_path / "model.keras"
    with full_disk(3000), pytest.raises(UsageError) as found:
        network.save(trained, place)
    assert str(found.value).startswith(f"Expected to write {place}. Received:")
    assert not list(tmp_path.iterdir())
    out = tmp_path / "out"
    with full_disk(3000), pytest.raises(UsageError) as found:
        export(toy.config(), pixels, model, out)
    assert str(found.value).startswith(f"Expected to write {out}/att_darts/1. ")
    assert "\n" not in str(found.value)
    written = {path.name for path in out.iterdir()}
    assert not {"att_darts", "result.json"} & written
    export(toy.config(), pixels, model, out)
    assert (out / "att_darts" / "1" / "saved_model.pb").exists()


def test_every_test_that_the_page_on_reliability_names_is_there():
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = set()
    for row in page.splitlines():
        if row.startswith("| ") and row.count(" | ") == 2:
            named |= set(re.findall(r"`([a-z]+_[a-z_]+)`", row.split(" | ")[2]))
    sources = [file.read_text("utf-8") for file in ROOT.glob("tests/**/*.py")]
    missing = {
        name
        for name in named
        if not any(f"def test_{name}(" in source for source in sources)
    }
    assert len(named) > 30
    assert not missing
