"""Every setting is read: another value makes another run.

`training.fit` is replaced by a look at what it is given; what the model does
with its arguments is tested where the model is.
"""

import hashlib
import importlib
import itertools

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

from att_darts_tf import __main__ as main
from att_darts_tf import layout, serving, settings, summary
from att_darts_tf.data import prepared, preprocess
from att_darts_tf.data import run as data_run
from att_darts_tf.engine import callbacks, devices, training
from att_darts_tf.errors import UsageError
from att_darts_tf.network import run as network_run
from att_darts_tf.network.network import Network, save
from att_darts_tf.search import run as search_run
from tests.network import toy

# Another valid value of each setting, and the part of a run that shows it.
OTHER = {
    "data.name": ("sample", "data"),
    "data.image_size": ((11, 10), "data"),
    "data.channels": (1, "data"),
    "data.test_fraction": (0.7, "data"),
    "data.halves": ("source_order", "data"),
    "data.padding": (3, "network"),
    "data.flip": (False, "network"),
    "data.augmentation": ("resized_crop", "data"),
    "data.crop_area": ((0.5, 0.6), "files"),
    "data.color_jitter": ((0.4, 0.4, 0.4, 0.0), "files"),
    "data.evaluation_resize": (14, "files"),
    "space.location": ("end", "search"),
    "engine.deterministic": (False, "devices"),
    "engine.precision": ("mixed_bfloat16", "network"),
    "engine.jit": (True, "network"),
    "engine.sync_batch_norm": (True, "network"),
    "engine.checkpoint_steps": (7, "network"),
    "repeats": (2, "stages"),
    "network.cell": ("att_darts", "stages"),
    "network.pretrained": ("trained.keras", "stages"),
    "network.frozen": (True, "network"),
    "export.name": ("stripes", "export"),
    "export.version": (2, "export"),
    "export.litert": (True, "export"),
    "search.seeds": ((1,), "stages"),
    "search.architecture_learning_rate": (0.5, "search"),
    "search.architecture_betas": ((0.1, 0.2), "search"),
    "search.architecture_weight_decay": (0.5, "search"),
    "search.order": ("second", "search"),
    "search.implicit": ("exact", "search"),
    "search.recompute": ("all", "search"),
    "search.microbatch": (2, "search"),
}
for _section in ("search", "selection", "network"):
    OTHER |= {
        f"{_section}.{name}": (value, _section)
        for name, value in {
            "cells": 4,
            "channels": 6,
            "epochs": 5,
            "batch_size": 9,
            "learning_rate": 0.3,
            "final_learning_rate": 0.01,
            "momentum": 0.5,
            "weight_decay": 0.5,
            "clip_norm": 2.0,
        }.items()
    }
for _section in ("selection", "network"):
    OTHER |= {
        f"{_section}.{name}": (value, _section)
        for name, value in {
            "stem": "imagenet",
            "schedule": "exponential",
            "decay": 0.5,
            "label_smoothing": 0.1,
            "auxiliary_weight": 0.3,
            "drop_path": 0.1,
            "cutout": 2,
        }.items()
    }
_WITHOUT_CUTOUT = {
    "selection.cutout": 0,
    "network.cutout": 0,
    "data.evaluation_resize": 12,
}
# Beside these alone the other value is allowed, or read.
BESIDE = {
    "selection.decay": {"selection.schedule": "exponential"},
    "network.decay": {"network.schedule": "exponential"},
    "data.augmentation": _WITHOUT_CUTOUT,
    **dict.fromkeys(
        ("data.crop_area", "data.color_jitter", "data.evaluation_resize"),
        {**_WITHOUT_CUTOUT, "data.augmentation": "resized_crop"},
    ),
    "search.implicit": {"search.order": "second"},
    "engine.jit": {"engine.deterministic": False},
    "engine.sync_batch_norm": {"engine.strategy": "mirrored"},
    "network.frozen": {
        "network.pretrained": "trained.keras",
        "network.drop_path": 0.0,
        "network.auxiliary_weight": 0.0,
    },
}
# What takes a process of its own, see tests/engine/test_devices.py; what
# TensorFlow Datasets alone reads, see tests/data/test_datasets.py; what changes
# no image, see tests/data/test_beam.py and test_run.py; what the report
# reads, see tests/test_report.py; what refuses an export, see
# tests/test_serving.py; which tasks there are, see
# tests/pipeline/test_pipeline.py; where they run, see
# tests/pipeline/test_vertex.py; and what a tuning tries, see tests/tuning.
ELSEWHERE = {
    "beam.runner",
    "beam.mode",
    "beam.workers",
    "beam.options",
    "data.broken_fraction",
    "engine.strategy",
    "engine.replicas",
    "data.data_dir",
    "export.least_accuracy",
    "hourly_price",
    "pipeline.baselines",
    "pipeline.retries",
    "pipeline.targets",
    *(
        name
        for name in settings.SETTINGS
        if name.startswith(("tune.", "vertex."))
    ),
}


class Seen(Exception):
    """Leaves a stage with what it was about to train."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    toy.prepare(folder)
    # Without a test split of its own, so that `test_fraction` matters.
    (folder / "images" / "test").rename(folder / "left-out")
    for path in (folder / "images" / "train").iterdir():
        path.rename(folder / "images" / path.name)
    (folder / "images" / "train").rmdir()
    toy.USEFUL.write(folder / "cells.json")
    network = Network.from_genotype(
        toy.USEFUL,
        image_shape=(toy.SIDE, toy.SIDE, 3),
        num_classes=5,
        channels=4,
        cells=3,
    )
    network.save(folder / "trained.keras")
    return folder


def configured(root):
    config = toy.config().unlock()
    config.data.name = str(root / "images")
    config.data.image_size = (toy.SIDE, toy.SIDE)
    config.search.update(
        cells=3, channels=4, epochs=3, batch_size=8, seeds=(0,)
    )
    # So that the other value of a setting beside it shows.
    config.search.recompute = "none"
    config.network.cutout = config.selection.cutout = 4
    config.network.final_learning_rate = 0.02
    config.selection.final_learning_rate = 0.02
    config.engine.deterministic = True
    return config


def look(model, *, dataset_for, epochs, steps_per_epoch, callbacks, **options):
    """Stands in for `training.fit`."""
    built = {**getattr(model, "supernet", model).get_config(), "name": None}
    (rates,) = (
        [callback.rate(epoch) for epoch in range(epochs)]
        for callback in callbacks
        if isinstance(callback, RATE)
    )
    digest = hashlib.sha256()
    for tensor in tf.nest.flatten(next(iter(dataset_for(0, 0)))):
        digest.update(tensor.numpy().tobytes())
    raise Seen(
        built,
        model.get_compile_config(),
        rates,
        digest.hexdigest(),
        epochs,
        steps_per_epoch,
        options["checkpoint_steps"],
    )


RATE = callbacks.RateSchedule


def of_data(config, root, tmp_path, monkeypatch):
    described = data_run.run_prepare(config, output_dir=tmp_path)
    return {key: described[key] for key in described if key != "source"}


def of_files(config, root, tmp_path, monkeypatch):
    folder = root / "files"
    data_run.run_prepare(config, output_dir=folder)
    data = prepared.load(folder)
    preprocessing = preprocess.of(config.data, data)
    files = data.split("train").head(2).files()
    return [
        preprocessing.training(files, seed=(0, 0)).numpy().tobytes(),
        preprocessing.evaluation(files).numpy().tobytes(),
    ]


def _seen(monkeypatch, run, *arguments, **options):
    monkeypatch.setattr(training, "fit", look)
    monkeypatch.setattr(devices, "configure", lambda config: None)
    # Another test of this process may have asked for it, which refuses XLA.
    monkeypatch.setattr(
        framework_config, "is_op_determinism_enabled", lambda: False
    )
    with pytest.raises(Seen) as caught:
        run(*arguments, **options)
    return caught.value.args


def of_network(config, root, tmp_path, monkeypatch):
    return _seen(
        monkeypatch,
        network_run.run_training,
        config,
        data_dir=root / "data",
        genotype=root / "cells.json",
        output_dir=tmp_path,
        seed=0,
    )


def of_selection(config, root, tmp_path, monkeypatch):
    return _seen(
        monkeypatch,
        network_run.run_selection,
        config,
        data_dir=root / "data",
        genotypes=[root / "cells.json"],
        output_dir=tmp_path,
    )


def of_search(config, root, tmp_path, monkeypatch):
    return _seen(
        monkeypatch,
        search_run.run_search,
        config,
        data_dir=root / "data",
        output_dir=tmp_path,
        seed=0,
    )


def of_devices(config, root, tmp_path, monkeypatch):
    calls = []
    experimental = tf.config.experimental
    monkeypatch.setattr(
        experimental, "enable_op_determinism", lambda: calls.append("on")
    )
    monkeypatch.setattr(
        tf.config.optimizer, "set_experimental_options", calls.append
    )
    devices.configure(config)
    return calls


def of_stages(config, root, tmp_path, monkeypatch):
    calls = []

    def record(config, *, output_dir, seed, genotype="", **options):
        folder = output_dir.relative_to(tmp_path)
        calls.append((folder, seed, str(genotype).removeprefix(str(tmp_path))))

    folders = layout.Layout(tmp_path)
    monkeypatch.setattr(network_run, "run_training", record)
    monkeypatch.setattr(search_run, "run_search", record)
    monkeypatch.setattr(summary, "search", lambda *a: [])
    monkeypatch.setattr(summary, "train", lambda *a: [])
    for file in (folders.dataset, folders.selection / "result.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    command = main.Command("train", config, str(tmp_path), ())
    main.STAGES["search"].run(command, folders)
    main.STAGES["train"].run(command, folders)
    return calls


def of_export(config, root, tmp_path, monkeypatch):
    if not (root / "exportable").exists():
        toy.prepare(root / "exportable")
        network = Network.from_genotype(
            toy.USEFUL,
            image_shape=(toy.SIDE, toy.SIDE, 3),
            num_classes=2,
            channels=4,
            cells=3,
        )
        save(network, root / "exportable" / "model.keras")
    monkeypatch.setattr(devices, "configure", lambda config: None)
    serving.run_export(
        config,
        data_dir=root / "exportable" / "data",
        model=root / "exportable",
        output_dir=tmp_path,
    )
    return sorted(
        file.relative_to(tmp_path).as_posix()
        for file in tmp_path.rglob("*")
        if file.is_file()
    )


PARTS = {
    "data": of_data,
    "files": of_files,
    "network": of_network,
    "selection": of_selection,
    "search": of_search,
    "devices": of_devices,
    "export": of_export,
    "stages": of_stages,
}


@pytest.fixture(scope="module")
def unchanged():
    """Keeps what a part of a run makes of the settings as they are."""
    return {}


def test_every_setting_is_listed():
    assert set(OTHER) | ELSEWHERE == set(settings.SETTINGS)


@pytest.mark.parametrize("name", list(OTHER))
def test_another_value_makes_another_run(
    name, root, tmp_path, monkeypatch, unchanged
):
    value, part = OTHER[name]
    numbers = itertools.count()

    def run(config):
        settings.validate(config)
        folder = tmp_path / str(next(numbers))
        with monkeypatch.context() as patched:
            return repr(PARTS[part](config, root, folder, patched))

    monkeypatch.chdir(root)
    config = configured(root)
    config.update_from_flattened_dict(BESIDE.get(name, {}))
    section, _, field = name.rpartition(".")
    target = config[section] if section else config
    assert target[field] != value
    key = name if name in BESIDE else part
    if key not in unchanged:
        unchanged[key] = run(config)
        assert run(config) == unchanged[key]
    target[field] = value
    assert run(config) != unchanged[key]


CIFAR = {
    "stem": "small",
    "cells": 20,
    "channels": 36,
    "epochs": 600,
    "batch_size": 96,
    "schedule": "cosine",
    "learning_rate": 0.025,
    "final_learning_rate": 0.0,
    "decay": 0.97,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip_norm": 5.0,
    "label_smoothing": 0.0,
    "auxiliary_weight": 0.4,
    "drop_path": 0.2,
    "cutout": 16,
}
IMAGENET = {
    **CIFAR,
    "stem": "imagenet",
    "cells": 14,
    "channels": 48,
    "epochs": 250,
    "batch_size": 128,
    "schedule": "exponential",
    "learning_rate": 0.1,
    "weight_decay": 3e-5,
    "label_smoothing": 0.1,
    "drop_path": 0.0,
    "cutout": 0,
}
RELEASED = {
    **IMAGENET,
    "schedule": "cosine",
    "label_smoothing": 0.0,
}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cifar", CIFAR),
        ("cifar:cifar100", CIFAR),
        ("imagenet", IMAGENET),
        ("imagenet:released", RELEASED),
    ],
)
def test_recipes_are_those_published(name, expected):
    config = settings.load(name)
    settings.validate(config)
    recipe = {**config.network}
    assert {key: recipe.pop(key) for key in expected} == expected
    cell = "" if name.startswith("cifar") else "att_darts"
    assert recipe == {"cell": cell, "pretrained": "", "frozen": False}


def test_search_and_selection_are_those_published():
    config = settings.load("cifar")
    assert {**config.search} == {
        "seeds": (0, 1, 2, 3),
        "cells": 8,
        "channels": 16,
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 0.025,
        "final_learning_rate": 0.001,
        "momentum": 0.9,
        "weight_decay": 3e-4,
        "clip_norm": 5.0,
        "architecture_learning_rate": 3e-4,
        "architecture_betas": (0.5, 0.999),
        "architecture_weight_decay": 1e-3,
        "order": "second",
        "implicit": "finite_difference",
        "recompute": "large",
        "microbatch": 0,
    }
    assert {**config.selection} == {**CIFAR, "epochs": 100}
    assert config.space.location == "after_every"


@pytest.mark.parametrize("name", ["cifar", "demo", "imagenet"])
def test_every_variant_is_valid_and_another_is_refused(name):
    module = importlib.import_module(f"{settings.SHIPPED}.{name}")
    for variant in getattr(module, "VARIANTS", ("",)):
        settings.validate(settings.load(f"{name}:{variant}"))
    with pytest.raises(UsageError, match="Unknown variant"):
        settings.load(f"{name}:other")
