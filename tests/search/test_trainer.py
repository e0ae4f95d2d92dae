import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import optimizers
from att_darts_tf.search import bilevel
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.search.trainer import Search
from att_darts_tf.space import search_space


@pytest.fixture(autouse=True)
def eagerly():
    """Runs functions step by step: nothing here takes many steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make(location, cells):
    keras.utils.set_random_seed(0)
    supernet = Supernet(3, location, 2, cells)
    supernet.build((None, 8, 8, 1))
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.Adam(0.01, beta_1=0.5),
    )
    return search


@pytest.fixture
def search():
    return make("no_attention", 3)


@pytest.fixture
def few(monkeypatch):
    """Returns the name of a search space that is traced in half the time."""
    names = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
    space = search_space.SearchSpace((names,))
    monkeypatch.setitem(search_space.SEARCH_SPACES, "few", space)
    return "few"


@pytest.fixture
def single(few):
    """Returns the search of one cell, a reduction cell, for exact orders."""
    return make(few, 1)


def batch(seed):
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(4, 8, 8, 1)).astype("float32")
    return tf.constant(images), tf.constant([0, 1, 2, 0])


def values(variables):
    return [variable.numpy() for variable in variables]


def changed(before, variables):
    return [
        not np.array_equal(old, variable.numpy())
        for old, variable in zip(before, variables, strict=True)
    ]


def test_an_architecture_step_moves_architecture_weights_alone(search):
    supernet = search.supernet
    weights = values(supernet.weight_variables)
    statistics = values(supernet.non_trainable_variables)
    architecture = values(supernet.architecture_variables)
    search.update_architecture(batch(1), batch(0))
    assert all(changed(architecture, supernet.architecture_variables))
    assert not any(changed(weights, supernet.weight_variables))
    assert not any(changed(statistics, supernet.non_trainable_variables))


def test_a_weight_step_moves_weights_and_statistics_alone(search):
    supernet = search.supernet
    weights = values(supernet.weight_variables)
    statistics = values(supernet.non_trainable_variables)
    architecture = values(supernet.architecture_variables)
    search.update_weights(batch(1))
    assert all(changed(weights, supernet.weight_variables))
    assert all(changed(statistics, supernet.non_trainable_variables))
    assert not any(changed(architecture, supernet.architecture_variables))


def test_a_step_moves_both(search):
    supernet = search.supernet
    weights = values(supernet.weight_variables)
    architecture = values(supernet.architecture_variables)
    search.train_step((batch(1), batch(0)))
    assert all(changed(weights, supernet.weight_variables))
    assert all(changed(architecture, supernet.architecture_variables))


def test_the_norm_that_is_clipped_is_that_of_the_weights_alone(search):
    supernet = search.supernet
    before = values(supernet.weight_variables)
    search.compile(
        optimizers.SGD(1.0),
        optimizers.Adam(0.01, beta_1=0.5),
        clip_norm=0.01,
        weight_decay=0.0,
    )
    search.update_weights(batch(1))
    moved = [
        old - new.numpy()
        for old, new in zip(before, supernet.weight_variables, strict=True)
    ]
    norm = np.sqrt(sum(np.sum(part.astype("float64") ** 2) for part in moved))
    np.testing.assert_allclose(norm, 0.01, rtol=1e-5)


@pytest.mark.parametrize("implicit", bilevel.IMPLICIT)
def test_the_second_order_changes_no_variable_and_uses_the_momentum(
    single, implicit
):
    def gradient():
        return single.architecture_gradient(batch(1), batch(0))[0][1].numpy()

    single.compile(
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.Adam(0.01),
        order="second",
        implicit=implicit,
    )
    variables = single.supernet.variables + single.optimizer.variables
    before = values(variables)
    without = gradient()
    assert not any(changed(before, variables))
    for velocity in single.optimizer.velocities:
        velocity.assign(0.1 * np.ones(velocity.shape))
    assert not np.allclose(gradient(), without, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"order": "third"}, "order='third'"),
        ({"order": "second", "implicit": "none"}, "implicit='none'"),
    ],
)
def test_an_unknown_order_is_refused(search, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        search.compile(optimizers.SGD(), optimizers.Adam(), **options)


def test_the_second_order_takes_the_optimizer_of_its_virtual_step(search):
    with pytest.raises(ValueError, match="Received: Adam"):
        search.compile(optimizers.Adam(), optimizers.Adam(), order="second")


def test_the_gradient_is_that_of_the_search_loss(search):
    images, labels = batch(2)
    supernet = search.supernet
    expected = []
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variable = supernet.architecture_variables[0]
    start = variable.numpy()
    for sign in (1.0, -1.0):
        moved = start.copy()
        moved[3, 4] += sign * 0.05
        variable.assign(moved)
        logits, _ = supernet.stateless_call(
            values(supernet.trainable_variables),
            values(supernet.non_trainable_variables),
            images,
            training=True,
        )
        expected.append(float(loss_of(labels, logits)))
    variable.assign(start)
    gradients, _, _ = search.architecture_gradient(None, (images, labels))
    difference = (expected[0] - expected[1]) / 0.1
    np.testing.assert_allclose(
        gradients[0][3, 4], difference, rtol=0.05, atol=1e-4
    )


def test_fit_reports_both_losses_and_builds_no_further_slots(search):
    pairs = tf.data.Dataset.from_tensors((batch(3), batch(4)))
    history = search.fit(pairs, epochs=1, verbose=0).history
    assert set(history) == {
        "loss",
        "accuracy",
        "search_loss",
        "search_accuracy",
    }
    supernet = search.supernet
    assert len(search.optimizer.velocities) == len(supernet.weight_variables)
    assert len(search.architecture_optimizer.means) == len(
        supernet.architecture_variables
    )


def test_a_search_survives_its_keras_file_with_both_optimizers(
    search, tmp_path
):
    search.compile(
        search.optimizer,
        search.architecture_optimizer,
        recompute="large",
        microbatch=3,
        jit=True,
    )
    search.save(tmp_path / "search.keras")
    loaded = keras.saving.load_model(tmp_path / "search.keras")
    for mine, theirs in (
        (search, loaded),
        (search.optimizer, loaded.optimizer),
        (search.architecture_optimizer, loaded.architecture_optimizer),
    ):
        assert len(mine.variables) == len(theirs.variables)
        for old, new in zip(mine.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(old.numpy(), new.numpy(), old.path)
    assert loaded.genotype() == search.genotype()
    assert (loaded.mode, loaded.microbatch) == (search.mode, 3)
    assert (search.mode.recompute, search.mode.jit) == ("large", True)


def test_a_plain_batch_is_refused_with_the_remedy(search):
    with pytest.raises(ValueError, match="split_in_halves"):
        search.train_step(batch(0))


def test_an_unbuilt_supernet_is_refused():
    with pytest.raises(ValueError, match="must be built"):
        Search(Supernet(3, "no_attention", 2, 3))


def test_both_second_orders_agree_where_no_kink_is_crossed(monkeypatch):
    keras.utils.set_random_seed(0)
    supernet = Supernet(3, "no_attention", 2, 3, dtype="float64")
    supernet.build((None, 8, 8, 1))
    search = Search(supernet)

    def gradient(implicit):
        search.compile(
            optimizers.SGD(0.1, momentum=0.9),
            optimizers.Adam(),
            order="second",
            implicit=implicit,
        )
        gradients, _, _ = search.architecture_gradient(batch(1), batch(0))
        return np.concatenate([g.numpy().ravel() for g in gradients])

    exact = gradient("exact")
    differences = []
    for radius in (1e-7, 1e-8, 1e-9):
        monkeypatch.setattr(bilevel, "_RADIUS", radius)
        found = gradient("finite_difference")
        differences.append(np.abs(found - exact).max() / np.abs(exact).max())
        if differences[-1] < 1e-7:
            break
    assert min(differences) < 1e-7, differences


@pytest.mark.parametrize(
    "options",
    [
        {"order": "first"},
        {"order": "first", "microbatch": 3, "recompute": "all"},
        {"order": "second"},
        {"order": "second", "implicit": "exact"},
    ],
)
def test_a_traced_step_equals_one_that_is_run_step_by_step(options, few):
    results = []
    for eagerly in (True, False):
        tf.config.run_functions_eagerly(eagerly)
        keras.utils.set_random_seed(0)
        # One cell is a reduction cell: nothing reads `alphas_normal`.
        supernet = Supernet(3, few, 2, 1, dtype="float64")
        supernet.build((None, 8, 8, 1))
        search = Search(supernet)
        search.compile(
            optimizers.SGD(0.1, momentum=0.9),
            optimizers.Adam(0.01),
            **options,
        )
        for seed in (0, 1):
            pairs = tf.data.Dataset.from_tensors((batch(seed), batch(2)))
            search.fit(pairs, verbose=0)
        results.append(values(supernet.variables))
    for expected, received in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)


def test_a_search_judges_as_keras_models_do(search):
    images, labels = batch(0)
    figures = search.evaluate(
        tf.data.Dataset.from_tensors((images, labels)),
        return_dict=True,
        verbose=0,
    )
    logits = search.supernet(images, training=False)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(
        figures["loss"], expected(labels, logits), rtol=1e-5
    )


@pytest.mark.parametrize(
    "options",
    [
        {"order": "first"},
        {"order": "second"},
        {"order": "first", "microbatch": 2},
    ],
)
def test_nothing_is_traced_again_after_the_first_step(options, few):
    tf.config.run_functions_eagerly(False)
    supernet = Supernet(3, few, 2, 1)
    supernet.build((None, 8, 8, 1))
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.1, momentum=0.9), optimizers.Adam(0.01), **options
    )
    images, labels = batch(0)
    # The last batch is smaller.
    half = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
    search.fit(tf.data.Dataset.zip(half, half), epochs=2, verbose=0)
    kinds = supernet.cells[0].traces._functions.values()
    passes = search.gradients._traced.values()
    assert {f.experimental_get_tracing_count() for f in kinds} == {1}
    assert {f.experimental_get_tracing_count() for f in passes} == {0, 1}


def part_of(batch, begin, end):
    return tuple(each[begin:end] for each in batch)


def test_parts_of_a_batch_give_their_average_and_move_statistics_in_turn(
    search,
):
    # Of 4 images, at most 3 at once: two parts of 2.
    images, labels = batch(1)
    supernet, parts = search.supernet, []
    before = values(supernet.non_trainable_variables)
    for begin in (0, 2):
        half = part_of((images, labels), begin, begin + 2)
        gradients, loss, (logits, moved) = search.weight_gradient(half)
        parts.append((gradients, loss, logits))
        for variable, value in zip(
            supernet.non_trainable_variables, moved, strict=True
        ):
            variable.assign(value)
    after = values(supernet.non_trainable_variables)
    for variable, value in zip(
        supernet.non_trainable_variables, before, strict=True
    ):
        variable.assign(value)
    search.compile(
        search.optimizer, search.architecture_optimizer, microbatch=3
    )
    gradients, loss, (logits, moved) = search.weight_gradient((images, labels))
    np.testing.assert_allclose(loss, (parts[0][1] + parts[1][1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(logits, tf.concat([p[2] for p in parts], 0))
    for value, first, second in zip(
        gradients, parts[0][0], parts[1][0], strict=True
    ):
        np.testing.assert_allclose(value, (first + second) / 2, atol=1e-6)
    for value, expected in zip(moved, after, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"order": "first"},
        *({"order": "second", "implicit": name} for name in bilevel.IMPLICIT),
    ],
)
def test_a_batch_in_one_part_is_the_whole_batch(single, options):
    def gradient(**more):
        single.compile(
            single.optimizer, single.architecture_optimizer, **options, **more
        )
        return single.architecture_gradient(batch(1), batch(0))[0]

    for received, expected in zip(
        gradient(microbatch=4), gradient(), strict=True
    ):
        np.testing.assert_array_equal(received, expected)


def calls_of(search, monkeypatch, **mode):
    """Returns what is asked of every mixed layer in a pass, in order."""
    asked = []

    def call(layer, inputs, weights, **options):
        asked.append(options)
        return layer(inputs, weights)

    cells = search.supernet.cells
    monkeypatch.setattr(cells[0].traces, "call", call)
    images, _ = batch(0)
    search.supernet(images, training=True, mode=search.mode._replace(**mode))
    return asked


@pytest.mark.parametrize(
    ("recompute", "cells"), [("none", 0), ("large", 4), ("all", 6)]
)
def test_the_cells_that_are_computed_again(recompute, cells, monkeypatch):
    supernet = Supernet(3, "no_attention", 2, 6)
    supernet.build((None, 8, 8, 1))
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.1), optimizers.Adam(0.01), recompute=recompute
    )
    asked = [each["recompute"] for each in calls_of(search, monkeypatch)]
    # A layer for each of five states in every cell.
    assert asked == [True] * 5 * cells + [False] * 5 * (6 - cells)


@pytest.mark.parametrize("constants", [(), *((s,) for s in bilevel.SOURCES)])
def test_layers_that_architecture_weights_do_not_reach(
    constants, search, monkeypatch
):
    calls = calls_of(search, monkeypatch, constants=constants)
    asked = [each["constant_inputs"] for each in calls]
    # Both inputs of the first cell are the stem, and one of the second.
    first, second, third = [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5
    reached = constants != (bilevel.WEIGHTS,)
    assert asked == ([0] * 15 if reached else first + second + third)


def test_no_part_of_a_batch_is_a_single_image(search):
    search.compile(
        search.optimizer, search.architecture_optimizer, microbatch=2
    )
    sizes = []

    def record(weights, architecture, batch, *others):
        sizes.append(int(tf.shape(batch[0])[0]))
        return [], [], tf.constant(0.0), (tf.zeros((sizes[-1], 3)), [])

    images, labels = batch(0)
    for size, parts in ((1, [1]), (2, [2]), (3, [3]), (4, [2, 2])):
        sizes.clear()
        search.gradients.evaluate(
            record, [], [], (images[:size], labels[:size], [], 1.0)
        )
        assert sizes == parts


@pytest.mark.parametrize("microbatch", [-1, 1])
def test_parts_of_one_image_are_refused(search, microbatch):
    with pytest.raises(ValueError, match="at least 2"):
        search.compile(
            search.optimizer,
            search.architecture_optimizer,
            microbatch=microbatch,
        )
