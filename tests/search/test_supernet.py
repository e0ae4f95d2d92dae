import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.search.supernet import Supernet
from att_darts_tf.space import search_space
from tests.search import pairing

# Source: method.md's counts of the authors' supernets (16 channels, 8 cells).
PUBLISHED_COUNTS = {
    "no_attention": (1_930_618, 224),
    "after_every": (3_309_282, 392),
    "end": (2_633_090, 236),
    "after_every_and_end": (4_011_754, 404),
    "mixed_with_operation": (3_514_082, 364),
    "double_mixed": (6_682_954, 728),
}
LOCATIONS = tuple(search_space.SEARCH_SPACES)


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def tiny(location, shape=(None, 8, 8, 3), **options):
    supernet = Supernet(3, location, 2, 3, **options)
    supernet.build(shape)
    return supernet


@pytest.fixture
def eagerly():
    """Runs functions step by step: tracing a plain supernet takes minutes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_are_as_many_as_in_the_authors_supernet(location):
    supernet = Supernet(10, location, 16, 8)
    # Shapes are all that counts: no variable is given values.
    with keras.StatelessScope():
        supernet.build((None, 32, 32, 3))
    assert (
        count(supernet.weight_variables),
        count(supernet.architecture_variables),
    ) == PUBLISHED_COUNTS[location]


def test_the_batched_supernet_equals_the_sum_of_plain_layers(eagerly):
    location = "after_every_and_end"
    batched = tiny(location, dtype="float64")
    plain = tiny(location, dtype="float64", batched=False)
    for mine, theirs in zip(batched.cells, plain.cells, strict=True):
        for a, b in zip(mine.preprocessing, theirs.preprocessing, strict=True):
            a.set_weights(b.get_weights())
        for stages, others in zip(mine.bundles, theirs.bundles, strict=True):
            for a, b in zip(stages, others, strict=True):
                pairing.copy(b, a)
        if batched.space.output:
            pairing.copy(theirs.output_attention, mine.output_attention)
    for name in ("stem", "stem_normalization", "classifier"):
        getattr(batched, name).set_weights(getattr(plain, name).get_weights())
    draw = np.random.default_rng(0)
    for a, b in zip(
        batched.architecture_variables,
        plain.architecture_variables,
        strict=True,
    ):
        b.assign(draw.normal(size=b.shape))
        a.assign(b)
    images = tf.constant(draw.normal(size=(4, 8, 8, 3)))
    results = []
    for supernet in (batched, plain):
        values = [v.value for v in supernet.architecture_variables]
        with tf.GradientTape() as tape:
            logits = supernet(images, training=True)
            total = tf.reduce_sum(logits * [[1.0, -2.0, 0.5]])
        results.append([logits, *tape.gradient(total, values)])
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-9)


def test_the_two_lists_of_variables_are_disjoint_and_complete():
    supernet = tiny("after_every")
    weights = {id(v) for v in supernet.weight_variables}
    architecture = {id(v) for v in supernet.architecture_variables}
    assert not weights & architecture
    assert weights | architecture == {
        id(v) for v in supernet.trainable_variables
    }


def test_architecture_weights_begin_near_zero():
    supernet = tiny("double_mixed")
    values = np.concatenate(
        [values.ravel() for values in supernet.architecture().values()]
    )
    assert 0.5e-3 < values.std() < 2e-3


@pytest.mark.parametrize("shape", [(None, 28, 28, 1), (None, 9, 13, 5)])
def test_any_map_size_and_number_of_channels_works(shape, eagerly):
    supernet = tiny("after_every", shape)
    logits = supernet(np.ones((2, *shape[1:]), "float32"), training=True)
    assert logits.shape == (2, 3)


def test_a_supernet_survives_its_keras_file(tmp_path, eagerly):
    supernet = tiny("after_every_and_end")
    draw = np.random.default_rng(0)
    images = draw.normal(size=(2, 8, 8, 3)).astype("float32")
    expected = supernet(images)
    supernet.save(tmp_path / "supernet.keras")
    loaded = keras.saving.load_model(tmp_path / "supernet.keras")
    np.testing.assert_array_equal(loaded(images), expected)


def test_reduction_cells_lie_at_a_third_and_two_thirds():
    assert search_space.reduction_cells(8) == (2, 5)
    assert search_space.reduction_cells(20) == (6, 13)


def test_a_wrong_size_is_refused():
    with pytest.raises(ValueError, match="num_cells=0"):
        Supernet(num_cells=0)
