"""Mixed layers: the sum of an edge's candidates weighted by a softmax.

Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, equation 2.
"""

import keras
import tensorflow as tf

from att_darts_tf.search import relaxations
from att_darts_tf.search.packing import Packing, Slice
from att_darts_tf.space import attentions, blocks, operations, search_space


@blocks.serializable
class Candidate(keras.layers.Layer):
    """One operation or attention as a search computes it on one edge.

    Pools are followed by a normalisation, and an attention of a strided edge
    stands behind the strided skip; nothing has a scale and offset but the
    normalisations inside attentions.

    Args:
        kind: String. Name of an operation or an attention.
        stride: Integer.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`.
    """

    def __init__(self, kind, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.stride = stride

    def build(self, input_shape):
        policy = self.dtype_policy
        channels = input_shape[-1]
        shape = blocks.strided_shape(input_shape, self.stride)
        self.reduction = self.normalization = None
        if self.kind in operations.OPERATIONS:
            self.core = operations.OPERATIONS.create(
                self.kind,
                channels=channels,
                stride=self.stride,
                affine=False,
                dtype=policy,
                name="core",
            )
            self.core.build(input_shape)
        else:
            self.core = attentions.ATTENTIONS.create(
                self.kind, dtype=policy, name="core"
            )
            self.core.build(shape)
            if self.stride > 1:
                self.reduction = blocks.FactorizedReduction(
                    channels, affine=False, dtype=policy, name="reduction"
                )
                self.reduction.build(input_shape)
        if isinstance(self.core, operations.Pooling):
            self.normalization = blocks.BatchNormalization(
                affine=False, dtype=policy, name="normalization"
            )
            self.normalization.build(shape)

    def call(self, inputs, training=False):
        maps = inputs
        for layer in (self.reduction, self.core, self.normalization):
            if layer is not None:
                maps = layer(maps, training=training)
        return maps

    def compute_output_shape(self, input_shape):
        return blocks.strided_shape(input_shape, self.stride)

    def slices(self):
        """Returns a `packing.Slice` of every weight by name."""
        return {
            f"{prefix}{name}": Slice(variable, 0, tuple(variable.shape))
            for prefix, layer in (
                ("", self.core),
                ("reduction.", self.reduction),
                ("normalization.", self.normalization),
            )
            if layer is not None
            for name, variable in blocks.weights_by_name(layer).items()
        }

    def get_config(self):
        return {
            **super().get_config(),
            "kind": self.kind,
            "stride": self.stride,
        }


class PlainMixedBundle(keras.layers.Layer):
    """The mixed layers of all edges that leave a state, written out.

    What `MixedBundle` computes, as a plain layer for every candidate of every
    edge: slow, and the measure of whether the fast way is right.

    Args: as `MixedBundle`.
    """

    def __init__(self, names, edges, stride=1, shared=False, **kwargs):
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.edges = edges
        self.stride = stride
        self.shared = shared

    def build(self, input_shape):
        channels = input_shape[-1] // (1 if self.shared else self.edges)
        self.candidates = [
            [
                Candidate(
                    name,
                    self.stride,
                    dtype=self.dtype_policy,
                    name=f"edge_{edge}_candidate_{i}",
                )
                for i, name in enumerate(self.names)
            ]
            for edge in range(self.edges)
        ]
        for row in self.candidates:
            for candidate in row:
                candidate.build((*input_shape[:-1], channels))

    def call(self, inputs, weights, training=False):
        if self.shared:
            parts = [inputs] * self.edges
        else:
            parts = tf.split(inputs, self.edges, -1)
        return tf.concat(
            [
                sum(
                    weights[edge, i] * candidate(part, training=training)
                    for i, candidate in enumerate(self.candidates[edge])
                )
                for edge, part in enumerate(parts)
            ],
            -1,
        )

    def signature(self):
        """Returns what, with the input's shape, determines the function."""
        return self.names, self.edges, self.stride, self.shared

    def slices(self, column, edge):
        """Returns a `packing.Slice` of every weight of one candidate by name.

        Args:
            column: Integer. Which candidate.
            edge: Integer.
        """
        return self.candidates[edge][column].slices()


class MixedBundle(keras.layers.Layer):
    """The mixed layers of all edges that leave a state, computed together.

    Args:
        names: Tuple of names of operations and attentions: the candidates, in
            the order of the columns.
        edges: Integer.
        stride: Integer, 1 or 2.
        shared: Boolean. Whether the input is the state itself, which all edges
            read, instead of maps of each edge.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)` if shared,
            else `(batch, height, width, edges * channels)`.
        weights: Tensor of shape `(edges, candidates)`, rows of softmaxes.
        training: Boolean.

    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    edges * channels)`.
    """

    def __init__(self, names, edges, stride=1, shared=False, **kwargs):
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.edges = edges
        self.stride = stride
        self.shared = shared

    def build(self, input_shape):
        _, height, width, channels = input_shape
        self.channels = channels // (1 if self.shared else self.edges)
        place = relaxations.Edges(
            self.edges,
            height,
            width,
            self.channels,
            self.stride,
            self.shared,
        )
        # By column, so that a name decides which weight it takes.
        self.operations, self.attentions, self.reductions = {}, {}, {}
        # Of names that are registered and have no batched form here.
        self.plain = {}
        for i, name in enumerate(self.names):
            if name in relaxations.ATTENTION_BUNDLES:
                make = relaxations.ATTENTION_BUNDLES[name]
                self.attentions[i] = make(place)
                if self.stride > 1:
                    self.reductions[i] = relaxations.SkipBundle(place)
            elif name in relaxations.OPERATION_BUNDLES:
                make = relaxations.OPERATION_BUNDLES[name]
                self.operations[i] = make(place)
            elif name != search_space.NONE:
                layer = PlainMixedBundle(
                    (name,),
                    self.edges,
                    self.stride,
                    self.shared,
                    dtype=self.dtype_policy,
                    name=f"candidate_{i}",
                )
                layer.build(input_shape)
                self.plain[str(i)] = layer
        self.packing = Packing(
            {
                f"{kind}_{i}": bundle
                for kind, bundles in (
                    ("candidate", self.operations | self.attentions),
                    ("reduction", self.reductions),
                )
                for i, bundle in bundles.items()
            }
        )
        self.packing.add_to(self)

    def call(self, inputs, weights, training=False):
        values = self.packing.read(training)
        columns = self.columns(weights)
        total, singles = [], {}
        activated = None
        for i, bundle in self.operations.items():
            if bundle.is_single:
                singles[i] = bundle.single(values.of(f"candidate_{i}"), inputs)
                continue
            maps = inputs
            if isinstance(bundle, relaxations.SeparableBundle):
                if activated is None:
                    activated = self.each_edge(tf.nn.relu(inputs))
                maps = activated
            total.append(bundle(values.of(f"candidate_{i}"), maps, columns[i]))
        if singles:
            chosen = [columns[i] for i in singles]
            total.append(relaxations.spread(list(singles.values()), chosen))
        for i, layer in self.plain.items():
            weight = weights[:, int(i) : int(i) + 1]
            total.append(layer(inputs, weight, training=training))
        if self.reductions:
            for i, reduction in self.reductions.items():
                maps = reduction(
                    values.of(f"reduction_{i}"),
                    inputs,
                    tf.ones_like(columns[i]),
                )
                total.append(self.attend(values, maps, columns, [i]))
        elif self.attentions:
            maps = self.each_edge(inputs)
            total.append(self.attend(values, maps, columns, self.attentions))
        values.move_statistics()
        return total[0] if len(total) == 1 else tf.add_n(total)

    def columns(self, weights):
        """Returns a candidate's weights for every channel of every edge."""
        columns = tf.reshape(
            tf.transpose(weights), (len(self.names), self.edges, 1)
        )
        return tf.unstack(tf.tile(columns, (1, 1, self.channels)))

    def each_edge(self, inputs):
        """Repeats the state for each edge, if that is what the inputs are."""
        return tf.tile(inputs, (1, 1, 1, self.edges if self.shared else 1))

    def attend(self, values, maps, columns, indices):
        """Returns the weighted sum of attentions of the same maps.

        Most multiply the maps by a mask, so the masks are summed first.
        """
        average = tf.reduce_mean(maps, (1, 2))
        return relaxations.attend(
            maps,
            [
                self.attentions[i](
                    values.of(f"candidate_{i}"), maps, average, columns[i]
                )
                for i in indices
            ],
        )

    def signature(self):
        """Returns what, with the input's shape, determines the function."""
        return self.names, self.edges, self.stride, self.shared

    def slices(self, column, edge):
        """See `PlainMixedBundle.slices`, whose names these are."""
        if str(column) in self.plain:
            return self.plain[str(column)].slices(0, edge)
        reduction = self.packing.slices(f"reduction_{column}", edge)
        return self.packing.slices(f"candidate_{column}", edge) | {
            f"reduction.{name}": each for name, each in reduction.items()
        }
