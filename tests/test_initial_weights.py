"""Initial weights follow PyTorch: uniform in +-1 / sqrt(fan_in).

`fan_in` is kernel height x width x input channels / groups, counted here from
the shapes that PyTorch keeps, which the authors' names go with.
"""

import collections

import keras
import numpy as np
import pytest

from att_darts_tf.network.network import Network
from att_darts_tf.released import names
from att_darts_tf.search.supernet import Supernet


def supernet(batched):
    made = Supernet(10, "after_every", 16, 3, batched=batched)
    made.build((None, 16, 16, 3))
    return names.of_supernet(made)


def network(stem):
    size = 64 if stem == "imagenet" else 32
    return names.of_network(
        Network.from_genotype(
            "att_darts",
            image_shape=(size, size, 3),
            num_classes=10,
            channels=16,
            cells=3,
            auxiliary=True,
            stem=stem,
        )
    )


def fan_in(place):
    # Ours end in the filters, those of depthwise kernels in the channels (and
    # a plain one in a multiplier of one).
    kernel = place.shape
    if "depthwise" in place.variable.path and kernel[-1] == 1:
        kernel = kernel[:-1]
    return int(np.prod(kernel[:-1]))


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (supernet, True),
        (supernet, False),
        (network, "small"),
        (network, "imagenet"),
    ],
)
def test_range_and_variance_are_those_of_pytorch(make, option):
    keras.utils.set_random_seed(0)
    places = make(option)
    kinds = collections.defaultdict(list)
    for name, place in places.items():
        stem, _, last = name.rpartition(".")
        kernel = places.get(f"{stem}.weight")
        normalizes = f"{stem}.running_mean" in places
        if last not in ("weight", "bias") or normalizes:
            continue
        values = place.part(place.variable.numpy())
        kind = ".".join(stem.split(".")[-2:]) + f".{last}"
        kinds[kind].append(values * np.sqrt(fan_in(kernel)))
    assert len(kinds) > 10
    for kind, parts in kinds.items():
        values = np.concatenate(parts)
        assert np.abs(values).max() <= 1 + 1e-6, kind
        # Four deviations of the mean of squares of a uniform variable.
        spread = 4 * np.sqrt(4 / 45 / values.size)
        assert abs(np.mean(values**2) - 1 / 3) < spread, (kind, values.size)
        assert abs(values.mean()) < 4 * np.sqrt(1 / 3 / values.size), kind


def test_normalisations_begin_as_the_identity():
    places = network("small")
    for name, place in places.items():
        values = place.variable.numpy()
        if f"{name.rpartition('.')[0]}.running_mean" in places:
            one = name.endswith(("running_var", "weight"))
            assert np.all(values == (1 if one else 0)), name
