import keras
import numpy as np
import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.network.network import Network
from att_darts_tf.released import names
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.space import published, search_space
from tests.released.torch_files import random_state


def supernet(location, **options):
    made = Supernet(3, location, 2, 3, **options)
    made.build((None, 8, 8, 3))
    return made


def network(stem="small"):
    size = 8 if stem == "small" else 64
    return Network.from_genotype(
        "att_darts",
        image_shape=(size, size, 3),
        num_classes=4,
        channels=4,
        cells=3,
        auxiliary=True,
        stem=stem,
    )


def covered(places):
    """Returns how many numbers of each variable have a name."""
    parts = {
        (id(place.variable), place.start): np.prod(place.shape, dtype=int)
        for place in places.values()
    }
    total = {}
    for (variable, _), size in parts.items():
        total[variable] = total.get(variable, 0) + size
    return total


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_every_number_of_a_supernet_has_a_name(location):
    # Shapes are all that counts: no variable is given values.
    with keras.StatelessScope():
        batched, plain = supernet(location), supernet(location, batched=False)
    for model in (batched, plain):
        found = covered(names.of_supernet(model))
        assert found == {id(v): np.prod(v.shape) for v in model.weights}
    assert set(names.of_supernet(batched)) == set(names.of_supernet(plain))


@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_every_number_of_a_network_has_a_name(stem):
    model = network(stem)
    # Two counters of the training are no weights of theirs.
    own = {id(model.draw_seed), id(model.drop_probability)}
    expected = {
        id(v): np.prod(v.shape)
        for v in model.weights
        if id(v) not in own and not v.path.startswith(("loss", "accuracy"))
    }
    assert covered(names.of_network(model)) == expected


def test_kernels_are_turned_and_architecture_weights_are_not():
    model = supernet("no_attention")
    places = names.of_supernet(model)
    state = random_state(places)
    names.load(places, state)
    np.testing.assert_array_equal(
        model.architecture()["alphas_normal"], state["alphas_normal"]
    )
    convolution = state["stem.0.weight"]
    for o, i, y, x in ((0, 1, 2, 0), (5, 2, 0, 1)):
        assert model.stem.kernel[y, x, i, o] == convolution[o, i, y, x]
    dense = state["classifier.weight"]
    assert model.classifier.kernel[7, 2] == dense[2, 7]
    # Edge 2 (node 1, state 0) is the second of the edges that leave state 0.
    depthwise = state["cells.0.layers.2.first_layers.6.op.1.weight"]
    bundle = model.cells[0].bundles[0][0]
    variable, start, shape = bundle.slices(6, 1)["depthwise_0.kernel"]
    values = variable.numpy()[start:][: np.prod(shape)].reshape(shape)
    assert values[0, 2, 1] == depthwise[1, 0, 0, 2]


def test_all_that_does_not_fit_is_listed_at_once():
    model = network()
    places = names.of_network(model)
    state = random_state(places)
    before = [v.numpy() for v in model.weights]
    del state["stem.1.weight"]
    state["cells.9.preprocess0.op.1.weight"] = np.zeros((1, 1, 1, 1))
    state["classifier.weight"] = state["classifier.weight"].T
    state["classifier.num_batches_tracked"] = np.zeros(())
    with pytest.raises(UsageError) as caught:
        names.load(places, state)
    message = str(caught.value)
    assert "3 differences" in message
    assert "missing stem.1.weight" in message
    assert "surplus cells.9.preprocess0.op.1.weight" in message
    assert "classifier.weight has shape" in message
    assert all(
        np.array_equal(old, v.numpy())
        for old, v in zip(before, model.weights, strict=True)
    )


def test_pools_of_one_state_must_agree():
    model = supernet("no_attention")
    places = names.of_supernet(model)
    state = random_state(places)
    one = "cells.0.layers.0.first_layers.1.1.running_mean"
    other = "cells.0.layers.2.first_layers.1.1.running_mean"
    names.load(places, state)
    state[other] = state[other] + 1
    with pytest.raises(UsageError, match=f"{other} is not {one}"):
        names.load(places, state)


def test_an_operation_without_released_names_is_refused():
    cells = published.get("enas")
    model = Network.from_genotype(
        cells, image_shape=(8, 8, 3), num_classes=3, channels=4, cells=3
    )
    names.of_network(model)
    unknown = published.get("amoebanet_b")
    model = Network.from_genotype(
        unknown, image_shape=(8, 8, 3), num_classes=3, channels=4, cells=3
    )
    with pytest.raises(UsageError, match="has no name there"):
        names.of_network(model)
