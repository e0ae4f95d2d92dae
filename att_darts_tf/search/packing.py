"""Many small weights in one variable.

The candidates of a mixed layer have a hundred weights and normalisations. As
variables of their own they are most of what a supernet takes to build, to
trace and to update; here they are one vector, and their statistics two.
"""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from att_darts_tf.space import blocks


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight of several edges that begins uniform in `center +- limit`.

    Args:
        edges: Integer.
        shape: Tuple of integers, of one edge.
        limit: Float.
        center: Float.
        precise: Boolean. Whether it keeps full precision under a mixed policy.
    """

    edges: int
    shape: tuple[int, ...]
    limit: float
    center: float = 0.0
    precise: bool = False

    @property
    def size(self):
        """How many numbers it is."""
        return self.edges * int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class Normalization:
    """A batch normalisation; see `blocks.BatchNormalization`.

    Args:
        edges: Integer.
        channels: Integer, of one edge.
        affine: Boolean. Whether channels have a trained scale and offset.
        momentum: Float. Share of the moving statistics that is kept.
    """

    edges: int
    channels: int
    affine: bool = False
    momentum: float = blocks.MOMENTUM

    @property
    def size(self):
        """The channels of all edges."""
        return self.edges * self.channels


class Slice(NamedTuple):
    """Where a weight lies within a variable, flat.

    Args:
        variable: Keras variable.
        start: Integer.
        shape: Tuple of integers.
    """

    variable: keras.Variable
    start: int
    shape: tuple[int, ...]


class Packing:
    """Lays out weights and normalisations, and reads them back by name.

    Args:
        parts: Objects by name, with dictionaries `weights` of `Weight`s and
            `normalizations` of `Normalization`s. Each is named
            `{part}.{name}` here.
    """

    def __init__(self, parts):
        self.weights, self.normalizations = {}, {}
        for part, each in parts.items():
            for name, weight in each.weights.items():
                self.weights[f"{part}.{name}"] = weight
            for name, normalization in each.normalizations.items():
                self.normalizations[f"{part}.{name}"] = normalization
        for name, each in self.normalizations.items():
            if each.affine:
                for trained, start in (("scale", 1.0), ("offset", 0.0)):
                    self.weights[f"{name}.{trained}"] = Weight(
                        each.edges, (each.channels,), 0.0, start, precise=True
                    )

    def add_to(self, layer):
        """Adds the variables to a layer that is being built."""
        self.dtype = layer.compute_dtype
        self.vector = self.mean = self.variance = None
        if self.weights:
            self.vector = layer.add_weight(
                name="weights",
                shape=(sum(each.size for each in self.weights.values()),),
                initializer=_Uniform(list(self.weights.values())),
                autocast=False,
            )
        if self.normalizations:
            options = {
                "shape": (sum(n.size for n in self.normalizations.values()),),
                # Statistics stay in full precision under a mixed policy.
                "dtype": blocks.precise(self.dtype),
                "autocast": False,
                **blocks.MOVING,
            }
            self.mean = layer.add_weight(
                name="moving_mean", initializer="zeros", **options
            )
            self.variance = layer.add_weight(
                name="moving_variance", initializer="ones", **options
            )

    def slices(self, part, edge):
        """Returns the `Slice`s of one edge by their names in a part."""
        found = {}

        def find(variable, all_of, shape_of, suffix=""):
            start = 0
            for name, each in all_of.items():
                own, _, rest = name.partition(".")
                if own == part:
                    shape = shape_of(each)
                    # One edge stands for all where they share the numbers.
                    offset = edge % each.edges * int(np.prod(shape))
                    found[rest + suffix] = Slice(
                        variable, start + offset, shape
                    )
                start += each.size

        find(self.vector, self.weights, lambda each: each.shape)
        for variable, suffix in (
            (self.mean, ".moving_mean"),
            (self.variance, ".moving_variance"),
        ):
            find(
                variable,
                self.normalizations,
                lambda each: (each.channels,),
                suffix,
            )
        return found

    def read(self, training):
        """Returns the `Values` of one call of the layer."""
        return Values(self, training)


class Values:
    """The weights that a `Packing` holds, for one call of its layer.

    Args:
        packing: `Packing`.
        training: Boolean. Whether statistics are those of the batch; they are
            kept for `move_statistics`.
    """

    def __init__(self, packing, training):
        self.packing = packing
        self.training = training
        self.batch = {}
        weights = packing.weights
        self.weights = {}
        if weights:
            parts = tf.split(
                tf.convert_to_tensor(packing.vector),
                [each.size for each in weights.values()],
            )
            for (name, each), part in zip(weights.items(), parts, strict=True):
                if not each.precise:
                    part = tf.cast(part, packing.dtype)
                self.weights[name] = part
        self.moving = {}
        if packing.normalizations and not training:
            sizes = [n.size for n in packing.normalizations.values()]
            self.moving = dict(
                zip(
                    packing.normalizations,
                    zip(
                        tf.split(tf.convert_to_tensor(packing.mean), sizes),
                        tf.split(tf.convert_to_tensor(packing.variance), sizes),
                        strict=True,
                    ),
                    strict=True,
                )
            )

    def of(self, part):
        """Returns the `PartValues` of one of the parts."""
        return PartValues(self, part)

    def normalize(self, name, maps, scale=None):
        """Normalises maps of `(batch, height, width, channels)`.

        Args:
            name: String. Which normalisation.
            maps: Tensor, or vectors of shape `(batch, channels)`.
            scale: Tensor of as many numbers, a factor of the outputs.
        """
        shape = maps.shape
        if shape.rank == 2:
            maps = tf.reshape(maps, (-1, 1, 1, shape[-1]))
        normalization = self.packing.normalizations[name]
        dtype = blocks.precise(self.packing.dtype)
        if scale is not None:
            scale = tf.cast(tf.reshape(scale, (-1,)), dtype)
        if normalization.affine:
            own_scale = self.weights[f"{name}.scale"]
            offset = self.weights[f"{name}.offset"]
            if scale is None:
                scale = own_scale
            else:
                scale, offset = scale * own_scale, scale * offset
        else:
            if scale is None:
                scale = tf.ones((normalization.size,), dtype)
            offset = tf.zeros((normalization.size,), dtype)
        if self.training:
            outputs, *self.batch[name] = blocks.batch_normalize(
                maps, scale, offset
            )
        else:
            outputs = blocks.normalize(maps, scale, offset, *self.moving[name])
        return (
            tf.reshape(outputs, (-1, shape[-1])) if shape.rank == 2 else outputs
        )

    def move_statistics(self):
        """Moves the statistics by those of the batch."""
        if not self.batch:
            return
        packing = self.packing
        kept = np.concatenate(
            [
                np.full(n.size, n.momentum)
                for n in packing.normalizations.values()
            ]
        )
        for i, moving in enumerate((packing.mean, packing.variance)):
            batch = tf.concat(
                [self.batch[name][i] for name in packing.normalizations], 0
            )
            moving.assign(blocks.moved(moving, batch, kept))


class PartValues:
    """The `Values` of one part, by the names that it knows.

    Args:
        values: `Values`.
        part: String.
    """

    def __init__(self, values, part):
        self.values = values
        self.part = part

    def flat(self, name):
        """Returns the numbers of a weight, and its shape with all edges."""
        name = f"{self.part}.{name}"
        weight = self.values.packing.weights[name]
        return self.values.weights[name], (weight.edges, *weight.shape)

    def shaped(self, name):
        """Returns a weight in its shape, edges first."""
        return tf.reshape(*self.flat(name))

    def normalize(self, name, maps, scale=None):
        """See `Values.normalize`."""
        return self.values.normalize(f"{self.part}.{name}", maps, scale)


class _Uniform(keras.initializers.Initializer):
    """Draws each weight of a vector from its own range."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, shape, dtype=None):
        sizes = [each.size for each in self.weights]
        limits = np.repeat([each.limit for each in self.weights], sizes)
        centers = np.repeat([each.center for each in self.weights], sizes)
        draws = keras.random.uniform(shape, -1.0, 1.0, dtype=dtype)
        return centers + limits * draws
