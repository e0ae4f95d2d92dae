import json
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import optimizers
from att_darts_tf.errors import UsageError
from att_darts_tf.network import network as network_module
from att_darts_tf.network.network import Network
from att_darts_tf.space import published, trained
from att_darts_tf.space.genotype import LAYER_NAMES, Cell, Edge, Genotype
from tests.network import toy


def tiny(genotype=toy.USEFUL, *, image_shape=(9, 9, 3), **options):
    options = {"num_classes": 4, "channels": 4, "cells": 3, **options}
    return Network.from_genotype(genotype, image_shape=image_shape, **options)


def batch(*shape, classes=4):
    generator = np.random.default_rng(0)
    images = generator.normal(size=shape).astype("float32")
    labels = generator.integers(0, classes, shape[0]).astype("int32")
    return tf.constant(images), tf.constant(labels)


def test_published_cells_have_their_number_of_parameters():
    network = Network.from_genotype(
        "att_darts", image_shape=(32, 32, 3), num_classes=10, auxiliary=True
    )
    assert network.num_parameters() == 3_231_343
    # 1x1 to 128, 2x2 to 768, both with scale and offset, and the classifier.
    head = 576 * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + 769 * 10
    assert network.num_parameters(auxiliary=True) == 3_231_343 + head


# Source: method.md's counts of the authors' networks.
@pytest.mark.parametrize(
    ("expected", "num_classes", "options"),
    [
        (3_283_273, 100, {"image_shape": (32, 32, 3)}),
        (
            4_641_666,
            1000,
            {
                "image_shape": (224, 224, 3),
                "channels": 48,
                "cells": 14,
                "stem": "imagenet",
            },
        ),
    ],
)
def test_other_published_networks_have_theirs(expected, num_classes, options):
    # Shapes are all that counts: no variable is given values.
    with keras.StatelessScope():
        network = Network.from_genotype(
            "att_darts", num_classes=num_classes, auxiliary=True, **options
        )
    assert network.num_parameters() == expected


def test_parameters_by_hand():
    edge = Edge(0, ("skip_connect",))
    cell = Cell(nodes=((edge,),), concat=(2,))
    network = tiny(Genotype(normal=cell, reduce=cell), image_shape=(8, 8, 1))
    stem = 9 * 1 * 12 + 2 * 12
    # Preprocessing of both inputs; cells 1 and 2 are reductions.
    first = 2 * (12 * 4 + 2 * 4)
    second = 12 * 8 + 4 * 8 + 2 * (2 * 8)
    third = 4 * 16 + 8 * 16 + 2 * (2 * 16)
    # A strided skip of 8 and of 16 channels, with scale and offset.
    skips = 8 * 8 + 2 * 8 + 16 * 16 + 2 * 16
    classifier = 16 * 4 + 4
    assert network.num_parameters() == (
        stem + first + second + third + skips + classifier
    )


@pytest.mark.parametrize(
    ("stem", "image_shape"),
    [("small", (13, 6, 1)), ("small", (32, 32, 4)), ("imagenet", (45, 33, 3))],
)
def test_images_of_any_shape_go_through(stem, image_shape):
    network = tiny(image_shape=image_shape, stem=stem, auxiliary=True)
    images, _ = batch(2, *image_shape)
    logits, auxiliary = network(images, training=True, auxiliary=True)
    assert logits.shape == auxiliary.shape == (2, 4)
    assert network(images).shape == (2, 4)
    assert network.compute_output_shape((2, *image_shape)) == (2, 4)


def every_layer():
    """Returns cells that hold every name, first or second on an edge."""
    first = tuple(
        Edge(i % 2, (name, "SE")) for i, name in enumerate(LAYER_NAMES)
    )
    second = tuple(
        Edge(i % 2, ("avg_pool_3x3", name))
        for i, name in enumerate(LAYER_NAMES)
    )
    cells = [
        Cell(nodes=(node,), concat=(2,), bottleneck="GE_theta-plus")
        for node in (second, first)
    ]
    return Genotype(*cells)


def test_every_operation_and_attention_trains_and_survives_a_file(tmp_path):
    keras.utils.set_random_seed(0)
    network = tiny(every_layer(), image_shape=(8, 8, 3), drop_path=0.25)
    network.set_progress(1.0)
    network.compile(optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    images, labels = batch(3, 8, 8, 3)
    old = {v.path: v.numpy() for v in network.trainable_variables}
    figures = network.train_step((images, labels))
    assert np.isfinite(figures["loss"])
    for cell in network.cells:
        for edge in cell.edges:
            changed = [
                np.any(variable.numpy() != old[variable.path])
                for variable in edge.trainable_variables
            ]
            assert any(changed) or "none" in edge.layers or not changed
    assert all(np.isfinite(v).all() for v in network.get_weights())
    network_module.save(network, tmp_path / "model.keras")
    loaded = network_module.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(network(images), loaded(images))


def test_network_from_a_file_trains_on_as_the_original_would(tmp_path):
    network = tiny(auxiliary=True, drop_path=0.3)
    network.set_progress(1.0)
    network.compile(
        optimizers.SGD(0.05, momentum=0.9),
        clip_norm=2.0,
        weight_decay=0.01,
        auxiliary_weight=0.25,
    )
    data = tf.data.Dataset.from_tensors(batch(6, 9, 9, 3))
    network.fit(data, verbose=0)
    network_module.save(network, tmp_path / "model.keras")
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    loaded = network_module.load(tmp_path / "model.keras")
    assert loaded.get_config() == network.get_config()
    assert loaded.get_compile_config() == network.get_compile_config()
    for model in (network, loaded):
        model.fit(data, verbose=0)
    for one, other in zip(
        [*network.variables, *network.optimizer.variables],
        [*loaded.variables, *loaded.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(one.value, other.value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_step_clips_decays_smooths_and_weighs_the_auxiliary_loss(smoothing):
    network = tiny(auxiliary=True)
    network.compile(
        optimizers.SGD(0.5, momentum=0.9),
        clip_norm=0.1,
        weight_decay=0.25,
        auxiliary_weight=0.4,
        label_smoothing=smoothing,
        run_eagerly=True,
    )
    images, labels = batch(5, 9, 9, 3)
    weights = network.trainable_variables
    with tf.GradientTape() as tape:
        outputs = network(images, training=True, auxiliary=True)
        losses = [
            keras.losses.categorical_crossentropy(
                tf.one_hot(labels, logits.shape[-1]),
                logits,
                from_logits=True,
                label_smoothing=smoothing,
            )
            for logits in outputs
        ]
        loss = tf.reduce_mean(losses[0] + 0.4 * losses[1])
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert norm > 0.1
    expected = [
        weight - 0.5 * (gradient * 0.1 / (norm + 1e-6) + 0.25 * weight)
        for weight, gradient in zip(
            [weight.numpy() for weight in weights], gradients
        )
    ]
    figures = network.train_step((images, labels))
    np.testing.assert_allclose(figures["loss"], loss, rtol=1e-6)
    for weight, value in zip(weights, expected):
        np.testing.assert_allclose(weight.value, value, rtol=1e-4, atol=1e-6)


def test_evaluation_does_not_smooth_labels():
    network = tiny()
    network.compile(optimizers.SGD(0.5), label_smoothing=0.5, run_eagerly=True)
    images, labels = batch(5, 9, 9, 3)
    expected = keras.losses.sparse_categorical_crossentropy(
        labels, network(images), from_logits=True
    )
    figures = network.test_step((images, labels))
    np.testing.assert_allclose(
        figures["loss"], tf.reduce_mean(expected), rtol=1e-6
    )


def test_evaluation_leaves_the_auxiliary_head_and_drop_path_out():
    network = tiny(auxiliary=True, drop_path=0.5)
    network.set_progress(1.0)
    network.compile(optimizers.SGD(0.1))
    images, labels = batch(5, 9, 9, 3)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    figures = network.evaluate(data, return_dict=True, verbose=0)
    logits = network(images)
    loss = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    np.testing.assert_allclose(figures["loss"], np.mean(loss), rtol=1e-5)
    hits = np.argmax(logits, -1) == labels.numpy()
    np.testing.assert_allclose(figures["accuracy"], hits.mean(), rtol=1e-6)


def test_drop_path_of_probability_zero_changes_nothing():
    images, _ = batch(5, 9, 9, 3)
    dropping, plain = tiny(drop_path=0.5), tiny()
    plain.set_weights(dropping.get_weights())
    np.testing.assert_array_equal(
        dropping(images, training=True), plain(images, training=True)
    )


def test_drop_path_draws_anew_each_step_and_keeps_the_mean():
    network = tiny(drop_path=0.5)
    network.set_progress(0.4)
    edges = sum(cell.num_droppable for cell in network.cells)
    first, second = (np.array(network._draw_keep(2000)) for _ in range(2))
    assert first.shape == (2000, edges)
    assert set(np.unique(first)) == {0.0, np.float32(1.25)}
    assert np.mean(first != second) > 0.2
    np.testing.assert_allclose(first.mean(0), np.ones(edges), atol=0.06)
    correlations = np.corrcoef(first, rowvar=False) - np.eye(edges)
    assert np.abs(correlations).max() < 0.1


def test_drop_path_is_drawn_from_the_seed(tmp_path):
    draws = []
    for seed in (4, 4, 5):
        keras.utils.set_random_seed(seed)
        network = tiny(drop_path=0.5)
        network.set_progress(1.0)
        draws.append(np.array(network._draw_keep(50)))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (4, 3), (16, 9), (1, 1)])
def test_adaptive_pooling_averages_what_each_pixel_covers(shape):
    images, _ = batch(2, *shape, 3)
    expected = np.zeros((2, 8, 8, 3))
    for i in range(8):
        for k in range(8):
            rows = slice(i * shape[0] // 8, -(-(i + 1) * shape[0] // 8))
            columns = slice(k * shape[1] // 8, -(-(k + 1) * shape[1] // 8))
            expected[:, i, k] = images.numpy()[:, rows, columns].mean((1, 2))
    pooled = network_module.adaptive_average_pool(images, size=8)
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_mixed_precision_reaches_every_layer_but_the_logits():
    network = tiny(dtype="mixed_bfloat16", auxiliary=True, drop_path=0.5)
    network.compile(optimizers.SGD(0.1), run_eagerly=True)
    images, labels = batch(2, 9, 9, 3)
    assert network(images).dtype == tf.float32
    assert {v.dtype for v in network.trainable_variables} == {"float32"}
    policies = {layer.compute_dtype for layer in network.cells[0].edges}
    assert policies == {"bfloat16"}
    assert np.isfinite(network.train_step((images, labels))["loss"])


def test_published_names_and_files_are_read(tmp_path):
    published.get("darts_v2").write(tmp_path / "cells.json")
    by_name = tiny("darts_v2")
    by_file = tiny(tmp_path / "cells.json")
    assert by_name.genotype == by_file.genotype == published.get("darts_v2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, "`cells` must be an integer of at least 1"),
        ({"channels": 0}, "`channels` must be an integer of at least 1"),
        ({"num_classes": 2.0}, "`num_classes` must be an integer"),
        ({"drop_path": 1.0}, r"`drop_path` must lie in \[0, 1\)"),
        ({"stem": "big"}, r"`stem` must be one of \['imagenet', 'small'\]"),
    ],
)
def test_argument_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_frozen_network_has_no_other_classifier_and_drops_no_path():
    for options in ({"auxiliary": True}, {"drop_path": 0.1}):
        with pytest.raises(ValueError, match="`frozen` trains the last"):
            tiny(frozen=True, **options)


def body_of(network):
    return [
        variable.numpy()
        for layer in (network.stem, *network.cells)
        for variable in layer.variables
    ]


@pytest.mark.parametrize("frozen", [False, True])
def test_fine_tuning_begins_with_the_weights_and_a_new_head(tmp_path, frozen):
    images, labels = batch(8, 9, 9, 3)
    trained = tiny(auxiliary=True)
    trained.compile(optimizers.SGD(0.1), run_eagerly=True)
    trained.train_step((images, labels))
    tuned = tiny(num_classes=6, frozen=frozen)
    tuned.compile(optimizers.SGD(0.1), run_eagerly=True)
    head = tuned.classifier.kernel.numpy()
    tuned.take_weights(trained)
    before = body_of(trained)
    for mine, theirs in zip(body_of(tuned), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(tuned.classifier.kernel.numpy(), head)
    tuned.train_step((images, labels))
    changed = [
        not np.array_equal(mine, theirs)
        for mine, theirs in zip(body_of(tuned), before, strict=True)
    ]
    assert not any(changed) if frozen else np.mean(changed) > 0.9
    assert not np.array_equal(tuned.classifier.kernel.numpy(), head)
    assert tuned.num_parameters() == tiny(num_classes=6).num_parameters()
    network_module.save(tuned, tmp_path / "tuned.keras")
    loaded = network_module.load(tmp_path / "tuned.keras")
    np.testing.assert_allclose(loaded(images), tuned(images), rtol=1e-5)
    loaded.run_eagerly = True
    loaded.train_step((images, labels))
    tuned.train_step((images, labels))
    np.testing.assert_allclose(
        loaded.classifier.kernel, tuned.classifier.kernel, rtol=1e-5
    )


def test_weights_for_images_of_another_kind_are_refused():
    with pytest.raises(UsageError, match=r"for images of \(9, 9, 1\)"):
        tiny().take_weights(tiny(image_shape=(9, 9, 1)))


def test_network_must_be_built_before_it_is_compiled():
    network = Network(toy.USEFUL, 4, channels=4, cells=3)
    with pytest.raises(ValueError, match="network.create"):
        network.compile(optimizers.SGD(0.1))


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_file_that_is_no_network_is_refused(tmp_path, content):
    file = tmp_path / "model.keras"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match="Expected a trained network") as error:
        network_module.load(file)
    assert "\n" not in str(error.value)


def test_model_of_another_kind_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(UsageError, match="Received: a 'Sequential'"):
        network_module.load(tmp_path / "model.keras")


def archive(path, description, *, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("config.json", description)
        file.writestr("model.weights.h5", b"")


@pytest.mark.parametrize(
    "place", ["model", "optimizer", "list"], ids=lambda place: place
)
def test_no_class_but_those_of_this_project_is_made(tmp_path, place):
    made = []

    @keras.saving.register_keras_serializable(package="elsewhere")
    class Hostile(keras.Model):
        def __init__(self, **kwargs):
            made.append(kwargs)

    hostile = {
        "module": None,
        "class_name": "Hostile",
        "config": {},
        "registered_name": "elsewhere>Hostile",
    }
    own = {
        "class_name": "Network",
        "registered_name": "att_darts_tf>Network",
        "config": {"genotype": toy.USEFUL.to_json(), "dtype": [hostile]},
    }
    description = {
        "model": hostile,
        "optimizer": {
            **own,
            "config": {},
            "compile_config": {"optimizer": hostile},
        },
        "list": own,
    }[place]
    archive(tmp_path / "model.keras", json.dumps(description))
    with pytest.raises(UsageError, match="Received: a 'Hostile'"):
        network_module.load(tmp_path / "model.keras")
    assert not made


@pytest.mark.parametrize(
    ("description", "method", "message"),
    [
        ("[" * 10**5, zipfile.ZIP_STORED, "RecursionError"),
        ("[]", zipfile.ZIP_STORED, "no JSON object"),
        ("{}", zipfile.ZIP_STORED, "without cells"),
        ('{"config": {"genotype": 1}}', zipfile.ZIP_STORED, "without cells"),
        ("{}", zipfile.ZIP_LZMA, "an unknown compression"),
    ],
)
def test_description_of_another_kind_is_refused(
    tmp_path, description, method, message
):
    file = tmp_path / "model.keras"
    archive(file, description, method=method)
    with pytest.raises(UsageError, match=message) as caught:
        trained.describe(file)
    assert "\n" not in str(caught.value)


def test_description_that_expands_takes_no_memory(tmp_path):
    file = tmp_path / "model.keras"
    archive(file, " " * 2**25, method=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 2**16
    tracemalloc.start()
    with pytest.raises(UsageError, match="over 1048576 bytes"):
        trained.describe(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_network_is_not_written_in_part(tmp_path, monkeypatch):
    def fail(network, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    network = tiny()
    monkeypatch.setattr(Network, "save", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        network_module.save(network, tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())
