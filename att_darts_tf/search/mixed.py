"""Mixed layers: the sum of an edge's candidates weighted by a softmax.

Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, equation 2.
"""

import keras
import tensorflow as tf

from att_darts_tf.search import relaxations
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
        options = {"edges": self.edges, "dtype": self.dtype_policy}
        strided = blocks.strided_shape(input_shape, self.stride)
        channels = input_shape[-1] // (1 if self.shared else self.edges)
        joint = (*strided[:-1], self.edges * channels)
        # Column of each, so that a name decides which weight it takes.
        self.operations, self.attentions, self.reductions = {}, {}, {}
        for i, name in enumerate(self.names):
            if name == search_space.NONE:
                continue
            place = {"stride": self.stride, "shared": self.shared, **options}
            if name in relaxations.ATTENTION_BUNDLES:
                layer = relaxations.ATTENTION_BUNDLES[name](
                    name=f"candidate_{i}", **options
                )
                layer.build(joint)
                self.attentions[str(i)] = layer
                if self.stride > 1:
                    layer = relaxations.SkipBundle(
                        name=f"reduction_{i}", **place
                    )
                    layer.build(input_shape)
                    self.reductions[str(i)] = layer
                continue
            if name in relaxations.OPERATION_BUNDLES:
                layer = relaxations.OPERATION_BUNDLES[name](
                    name=f"candidate_{i}", **place
                )
            else:
                layer = PlainMixedBundle(
                    (name,), name=f"candidate_{i}", **place
                )
            layer.build(input_shape)
            self.operations[str(i)] = layer

    def call(self, inputs, weights, training=False):
        columns = tf.unstack(weights, axis=1)
        total = []
        activated = tf.nn.relu(inputs) if self.operations else None
        for i, layer in self.operations.items():
            weight = columns[int(i)]
            maps = inputs
            if isinstance(layer, relaxations.SeparableBundle):
                maps = activated
            elif isinstance(layer, PlainMixedBundle):
                weight = weight[:, None]
            total.append(layer(maps, weight, training=training))
        if self.reductions:
            for i, reduction in self.reductions.items():
                whole = tf.ones_like(columns[0])
                maps = reduction(inputs, whole, training=training)
                total.append(self.attend(maps, columns, [i], training))
        elif self.attentions:
            maps = inputs
            if self.shared:
                maps = tf.tile(inputs, (1, 1, 1, self.edges))
            total.append(
                self.attend(maps, columns, self.attentions, training)
            )
        return total[0] if len(total) == 1 else tf.add_n(total)

    def attend(self, maps, columns, indices, training):
        """Returns the weighted sum of attentions of the same maps.

        All but double attention multiply the maps by a mask, so the masks are
        summed first.
        """
        split = relaxations.by_edge(maps, self.edges)
        average = tf.reduce_mean(split, (1, 2))
        masks, addends = [], []
        for i in indices:
            mask, addend = self.attentions[i](
                maps, average, columns[int(i)], training=training
            )
            masks.append(mask)
            if addend is not None:
                addends.append(addend)
        # The small ones first: a sum with a whole map is a whole map.
        masks.sort(key=lambda mask: (mask.shape.rank, mask.shape[1] or 0))
        maps = split * sum(masks[1:], masks[0])
        return relaxations.joined(sum(addends, maps))

    def signature(self):
        """Returns what, with the input's shape, determines the function."""
        return self.names, self.edges, self.stride, self.shared
