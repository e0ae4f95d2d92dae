"""Candidates of all edges that leave one state, computed together.

These edges see the same input, so ReLU, pools and an unstrided skip are
computed once, their convolutions are one convolution, and their
normalisations one normalisation. It is exact algebra: a bundle equals the
plain layers of its edges, weight by weight.

Maps of a bundle have shape `(batch, height, width, edges * channels)`, one
edge after the other. Every weight is that of the plain layer of the same name
with the edges on a leading axis (flattened into it for normalisations).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from att_darts_tf.search.packing import Normalization, Weight
from att_darts_tf.space import attentions, blocks

# Up to here one convolution is faster than a product for each (measured on one
# core: 5.5 ms and 10.9 ms at 16 channels, 4.0 and 2.7 at 64).
MOST_CHANNELS_SPREAD_AT_ONCE = 32


def by_edge(maps, edges):
    """Splits `(batch, height, width, edges * channels)` into 5 axes."""
    height, width, joint = maps.shape[1:]
    return tf.reshape(maps, (-1, height, width, edges, joint // edges))


def joined(maps):
    """Joins the last two axes of maps that are split by edge."""
    height, width, edges, channels = maps.shape[1:]
    return tf.reshape(maps, (-1, height, width, edges * channels))


def block_diagonal(kernel, shape):
    """Returns one kernel that keeps the edges apart.

    Args:
        kernel: Tensor with the numbers of `shape`, in its order.
        shape: `(edges, size, size, channels, filters)`, or
            `(edges, channels, filters)`.

    Returns:
        Tensor of shape `(size, size, edges * channels, edges * filters)`, or
        `(edges * channels, edges * filters)`.
    """
    edges, *sizes, channels, filters = shape
    if sizes and sizes != [1, 1]:
        kernel = tf.transpose(tf.reshape(kernel, shape), (1, 2, 0, 3, 4))
    rows = tf.reshape(kernel, (*sizes, edges * channels, 1, filters))
    own = np.repeat(np.eye(edges), channels, axis=0)[:, :, None]
    return tf.reshape(
        rows * tf.constant(own, rows.dtype),
        (*sizes, edges * channels, edges * filters),
    )


@functools.cache
def convolves_groups():
    """Whether the device convolves groups of channels, and derives it.

    oneDNN does on a CPU, in float32; TensorFlow's own kernels have no
    gradient. Found out by trying once.
    """
    shape = (2, 1, 1, 3, 3)
    kernel = np.linspace(-1, 1, 18, dtype="float32")
    maps = np.linspace(-1, 1, 24, dtype="float32").reshape(1, 2, 2, 6)

    @tf.function(autograph=False)
    def attempt(maps, kernel):
        options = {"strides": [1] * 4, "padding": "VALID"}
        outputs = tf.raw_ops.Conv2D(input=maps, filter=kernel, **options)
        return (
            outputs,
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=maps.shape,
                filter=kernel,
                out_backprop=outputs,
                **options,
            ),
            tf.raw_ops.Conv2DBackpropFilter(
                input=maps,
                filter_sizes=kernel.shape,
                out_backprop=outputs,
                **options,
            ),
        )

    with tf.init_scope():
        whole = attempt(tf.constant(maps), block_diagonal(kernel, shape))
        try:
            groups = attempt(tf.constant(maps), _grouped(kernel, shape))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
        # Of the gradient by the whole kernel, what lies on its blocks.
        blocks_ = tf.reshape(whole[2], (2, 3, 2, 3))
        blocks_ = tf.stack([blocks_[0, :, 0], blocks_[1, :, 1]])
        expected = (*whole[:2], _grouped(blocks_, shape))
        return all(
            np.allclose(*pair, rtol=1e-4, atol=1e-5)
            for pair in zip(groups, expected, strict=True)
        )


def pointwise(maps, kernel, shape):
    """Convolves the maps of each edge with kernels of one pixel.

    Args:
        maps: Tensor of shape `(batch, height, width, edges * channels)`.
        kernel: Tensor with the numbers of `shape`, in its order.
        shape: `(edges, 1, 1, channels, filters)`.

    Returns:
        Tensor of shape `(batch, height, width, edges * filters)`.
    """
    arranged = block_diagonal
    if maps.dtype == tf.float32 and convolves_groups():
        arranged = _grouped
    return tf.nn.conv2d(maps, arranged(kernel, shape), 1, "VALID")


def _grouped(kernel, shape):
    edges, _, _, channels, filters = shape
    kernel = tf.transpose(
        tf.reshape(kernel, (edges, channels, filters)), (1, 0, 2)
    )
    return tf.reshape(kernel, (1, 1, channels, edges * filters))


def products(pairs):
    """Sums products of what positions and what channels have, edge by edge.

    Products of matrices with zeros between the edges are faster than ones
    that broadcast, and so are their gradients.

    Args:
        pairs: List of pairs of tensors. The first has shape `(batch, height,
            width, edges)`, or 1 instead of the edges for what all of them
            share; the second `(batch, edges * channels)`.

    Returns:
        Tensor of shape `(batch, height, width, edges * channels)`.
    """
    positions = tf.concat([each for each, _ in pairs], -1)
    height, width, count = positions.shape[1:]
    rows = []
    for each, vectors in pairs:
        edges, joint = each.shape[-1], vectors.shape[-1]
        own = np.repeat(np.eye(edges), joint // edges, axis=1)
        rows.append(
            tf.expand_dims(vectors, 1) * tf.constant(own, vectors.dtype)
        )
    outputs = tf.matmul(
        tf.reshape(positions, (-1, height * width, count)),
        tf.concat(rows, 1),
    )
    return tf.reshape(outputs, (-1, height, width, outputs.shape[-1]))


def at_every_position(vectors):
    """Shapes `(batch, edges * channels)` to broadcast over positions."""
    return tf.reshape(vectors, (-1, 1, 1, vectors.shape[-1]))


class Attended(NamedTuple):
    """What an attention of all edges makes of their maps.

    They are multiplied by the sum of `vectors`, the products of `pairs`, and
    `masks`; then `addends` are added.

    Args:
        vectors: Sequence of tensors of shape `(batch, edges * channels)`, the
            batch being 1 for what all images share.
        pairs: Sequence of pairs as in `products`.
        masks: Sequence of tensors of the shape of the maps.
        addends: The same.
    """

    vectors: Sequence = ()
    pairs: Sequence = ()
    masks: Sequence = ()
    addends: Sequence = ()


def attend(maps, attended):
    """Returns the sum of what attentions make of maps.

    Args:
        maps: Tensor of shape `(batch, height, width, edges * channels)`.
        attended: Sequence of `Attended`.
    """
    vectors, pairs, masks, addends = (
        [item for each in attended for item in getattr(each, field)]
        for field in Attended._fields
    )
    # Vectors first: a sum with a mask is a sum of whole maps.
    if vectors:
        vector = sum(vectors[1:], vectors[0])
        if pairs and vector.shape[0] != 1:
            shape = (tf.shape(maps)[0], *maps.shape[1:3], 1)
            pairs.append((tf.ones(shape, maps.dtype), vector))
        else:
            masks.append(at_every_position(vector))
    if pairs:
        masks.append(products(pairs))
    if masks:
        addends.append(maps * sum(masks[1:], masks[0]))
    return sum(addends[1:], addends[0])


@dataclasses.dataclass(frozen=True)
class Edges:
    """The edges that a bundle is computed on.

    Args:
        edges: Integer, how many.
        height: Integer. Of the input.
        width: Integer.
        channels: Integer. Of one edge.
        stride: Integer. Only the state itself is strided.
        shared: Boolean. Whether the input is the state, of `channels`, that
            all edges read, instead of maps of each edge.
    """

    edges: int
    height: int
    width: int
    channels: int
    stride: int = 1
    shared: bool = False

    @property
    def joint(self):
        """The channels of all edges."""
        return self.edges * self.channels

    @property
    def output_size(self):
        """Height and width of the output."""
        return blocks.strided_shape(
            (None, self.height, self.width, None), self.stride
        )[1:3]


class Bundle:
    """One candidate on all edges that leave a state.

    A function of maps and of the values of its weights, which `MixedBundle`
    keeps with those of the other candidates.

    Args:
        place: `Edges`.
    """

    def __init__(self, place):
        self.place = place
        self.weights = {}
        self.normalizations = {}
        self.declare(place.channels)

    def declare(self, channels):
        """Declares weights and normalisations."""

    def weight(self, name, shape, fan_in):
        """Declares the weight of every edge, `shape` being the plain layer's.

        Source: `blocks.fan_in_uniform` for its initial values.
        """
        self.weights[name] = Weight(
            self.place.edges, shape, blocks.fan_in_limit(fan_in)
        )

    def affine(self, name, shape, fan_in):
        """Declares a kernel and a bias of every edge."""
        self.weight(f"{name}.kernel", shape, fan_in)
        self.weight(f"{name}.bias", shape[-1:], fan_in)

    @property
    def is_single(self):
        """See `PoolingBundle`."""
        return False

    def normalization(self, name, channels, **options):
        """Declares a normalisation of every edge."""
        self.normalizations[name] = Normalization(
            self.place.edges, channels, **options
        )


class PoolingBundle(Bundle):
    """Pooling and its normalisation: the same on every edge of a state.

    Args:
        pool: Function of maps and a stride.
    """

    def __init__(self, pool, place):
        self.pool = pool
        super().__init__(place)

    def declare(self, channels):
        edges = 1 if self.place.shared else self.place.edges
        self.normalizations["normalization"] = Normalization(edges, channels)

    def __call__(self, values, inputs, weights):
        """Returns the pooled maps of all edges, weighted.

        Args:
            values: `packing.PartValues` of this candidate.
            inputs: Tensor, the state or the maps of the edges.
            weights: Tensor of shape `(edges, channels)`, the same number for
                all channels of an edge.
        """
        pooled = self.pool(inputs, stride=self.place.stride)
        return values.normalize("normalization", pooled, weights)

    @property
    def is_single(self):
        """Whether all edges share the maps, but for their weights."""
        return self.place.shared

    def single(self, values, inputs):
        """Returns the maps that all edges share, not weighted."""
        pooled = self.pool(inputs, stride=self.place.stride)
        return values.normalize("normalization", pooled)


class SkipBundle(Bundle):
    """The identity, or the factorized reduction of a stride."""

    def declare(self, channels):
        if self.place.stride == 1:
            return
        half = channels // 2
        self.weight("even.kernel", (channels, half), channels)
        self.weight("odd.kernel", (channels, channels - half), channels)
        self.normalization("normalization", channels)

    def __call__(self, values, inputs, weights):
        """See `PoolingBundle`."""
        if self.place.stride == 1:
            return inputs * tf.reshape(weights, (-1,))
        return values.normalize(
            "normalization", self.reduced(values, inputs), weights
        )

    @property
    def is_single(self):
        """See `PoolingBundle`."""
        return self.place.shared and self.place.stride == 1

    def single(self, values, inputs):
        """See `PoolingBundle`."""
        return inputs

    def reduced(self, values, inputs):
        """Halves the state for each edge, without the normalisation."""
        inputs = tf.nn.relu(inputs)
        edges, channels = self.place.edges, self.place.channels

        def sample(maps, name):
            kernel = tf.transpose(values.shaped(name), (1, 0, 2))
            kernel = tf.reshape(kernel, (1, 1, channels, -1))
            return by_edge(tf.nn.conv2d(maps, kernel, 1, "VALID"), edges)

        even, odd = blocks.interleaved(inputs)
        return joined(
            tf.concat(
                [sample(even, "even.kernel"), sample(odd, "odd.kernel")], -1
            )
        )


def spread(singles, weights):
    """Returns for each edge the weighted sum of maps that all edges share.

    Args:
        singles: List of tensors of shape `(batch, height, width, channels)`.
        weights: List of as many tensors of shape `(edges, channels)`.

    Returns:
        Tensor of shape `(batch, height, width, edges * channels)`.
    """
    edges, channels = weights[0].shape
    if channels > MOST_CHANNELS_SPREAD_AT_ONCE:
        terms = [
            joined(by_edge(maps, 1) * weight)
            for maps, weight in zip(singles, weights, strict=True)
        ]
        return tf.add_n(terms)
    # As one convolution, whose kernel holds the weights on diagonals.
    kernel = (
        tf.reshape(tf.stack(weights), (len(singles), 1, edges, channels))
        * tf.eye(channels, dtype=weights[0].dtype)[:, None]
    )
    return tf.nn.conv2d(
        tf.concat(singles, -1),
        tf.reshape(kernel, (1, 1, -1, edges * channels)),
        1,
        "VALID",
    )


class SeparableBundle(Bundle):
    """Separable and dilated convolutions of all edges as one convolution.

    Args:
        kernel_size: Odd integer.
        place: `Edges`.
        rate: Integer. Dilation.
        repeats: Integer. How often the pair of convolutions is applied.
    """

    def __init__(self, kernel_size, place, rate=1, repeats=1):
        self.kernel_size = kernel_size
        self.rate = rate
        self.repeats = repeats
        super().__init__(place)

    def declare(self, channels):
        size = self.kernel_size
        for i in range(self.repeats):
            self.weight(
                f"depthwise_{i}.kernel", (size, size, channels), size**2
            )
            self.weight(
                f"pointwise_{i}.kernel", (1, 1, channels, channels), channels
            )
            self.normalization(f"normalization_{i}", channels)

    def __call__(self, values, inputs, weights):
        """See `PoolingBundle`; `inputs`, of each edge, have passed a ReLU."""
        maps = inputs
        last = self.repeats - 1
        for i in range(self.repeats):
            if i > 0:
                maps = tf.nn.relu(maps)
            maps = self.convolve(values, maps, i)
            maps = values.normalize(
                f"normalization_{i}",
                maps,
                weights if i == last else None,
            )
        return maps

    def convolve(self, values, maps, i):
        """Applies the depthwise and the pointwise kernels of a repeat."""
        kernel = tf.transpose(
            values.shaped(f"depthwise_{i}.kernel"), (1, 2, 0, 3)
        )
        maps = blocks.symmetric_convolution(
            maps,
            tf.reshape(kernel, (*kernel.shape[:2], self.place.joint, 1)),
            stride=self.place.stride if i == 0 else 1,
            rate=self.rate,
            depthwise=True,
        )
        return pointwise(maps, *values.flat(f"pointwise_{i}.kernel"))


class AttentionBundle(Bundle):
    """An attention on all edges.

    Calling one takes its `values`, the `maps`, their global `average` of shape
    `(batch, edges * channels)` and the `weights` of shape `(edges, channels)`,
    the same for all channels of an edge. It returns `Attended`, the weights
    among its factors.
    """

    def dense(self, values, name, inputs):
        """Applies a dense kernel, and bias, to the vectors of each edge.

        Args:
            values: `packing.PartValues` of this candidate.
            name: String.
            inputs: Tensor of shape `(batch, edges * channels)`.
        """
        kernel = block_diagonal(*values.flat(f"{name}.kernel"))
        outputs = tf.matmul(inputs, kernel)
        return self._biased(values, name, outputs)

    def convolve(self, values, name, maps, rate=1):
        """Convolves the maps of each edge with kernels of few filters."""
        kernel = block_diagonal(*values.flat(f"{name}.kernel"))
        outputs = blocks.symmetric_convolution(maps, kernel, rate=rate)
        return self._biased(values, name, outputs)

    def _biased(self, values, name, outputs):
        if f"{name}.bias" not in self.weights:
            return outputs
        return tf.nn.bias_add(outputs, values.flat(f"{name}.bias")[0])


class IdentityBundle(AttentionBundle):
    """No attention on any edge."""

    def __call__(self, values, maps, average, weights):
        return Attended([tf.reshape(weights, (1, -1))])


class SqueezeExciteBundle(AttentionBundle):
    """Squeeze-and-excitation of all edges."""

    def declare(self, channels):
        width = blocks.bottleneck_width(channels)
        self.weight("squeeze.kernel", (channels, width), channels)
        self.weight("excite.kernel", (width, channels), width)

    def __call__(self, values, maps, average, weights):
        hidden = tf.nn.relu(self.dense(values, "squeeze", average))
        gate = tf.sigmoid(self.dense(values, "excite", hidden))
        return Attended([gate * tf.reshape(weights, (1, -1))])


class BottleneckAttentionBundle(AttentionBundle):
    """BAM of all edges."""

    def declare(self, channels):
        width = blocks.bottleneck_width(channels)
        self.affine("channel_squeeze", (channels, width), channels)
        self.normalization("channel_normalization", width, affine=True)
        self.affine("channel_excite", (width, channels), width)
        self.affine("spatial_reduce", (1, 1, channels, width), channels)
        self.affine("spatial_0", (3, 3, width, width), 9 * width)
        self.affine("spatial_1", (3, 3, width, width), 9 * width)
        for i in range(3):
            self.normalization(f"spatial_normalization_{i}", width, affine=True)
        self.affine("spatial_excite", (1, 1, width, 1), width)

    def __call__(self, values, maps, average, weights):
        channel = self.dense(values, "channel_squeeze", average)
        channel = values.normalize("channel_normalization", channel)
        channel = tf.nn.relu(channel)
        channel = self.dense(values, "channel_excite", channel)
        spatial = maps
        for i, name in enumerate(("spatial_reduce", "spatial_0", "spatial_1")):
            spatial = self.convolve(
                values, name, spatial, rate=1 if i == 0 else 4
            )
            spatial = tf.nn.relu(
                values.normalize(f"spatial_normalization_{i}", spatial)
            )
        spatial = self.convolve(values, "spatial_excite", spatial)
        weights = tf.reshape(weights, (1, -1))
        gate = tf.sigmoid(products([(spatial, channel)]))
        return Attended([weights], masks=[gate * at_every_position(weights)])


class ConvolutionalBlockAttentionBundle(AttentionBundle):
    """CBAM of all edges."""

    def declare(self, channels):
        width = blocks.bottleneck_width(channels)
        self.affine("squeeze", (channels, width), channels)
        self.affine("excite", (width, channels), width)
        self.weight("convolution.kernel", (7, 7, 2, 1), 7 * 7 * 2)
        self.normalization(
            "normalization",
            1,
            affine=True,
            momentum=attentions.CBAM_MOMENTUM,
        )

    def __call__(self, values, maps, average, weights):
        edges = self.place.edges
        largest = blocks.largest(maps, (1, 2))
        largest = tf.reshape(largest, (-1, edges * self.place.channels))
        gate = sum(
            self.dense(
                values,
                "excite",
                tf.nn.relu(self.dense(values, "squeeze", pooled)),
            )
            for pooled in (average, largest)
        )
        gate = tf.sigmoid(gate)
        gated = by_edge(maps * at_every_position(gate), edges)
        summary = tf.concat(
            [
                blocks.largest(gated, -1),
                tf.reduce_mean(gated, -1, keepdims=True),
            ],
            -2,
        )
        # Few channels: each by itself, then their sum, is the fastest way.
        height, width = maps.shape[1:3]
        kernel = tf.transpose(
            values.shaped("convolution.kernel"), (1, 2, 3, 0, 4)
        )
        spatial = blocks.symmetric_convolution(
            tf.reshape(summary, (-1, height, width, 2 * edges)),
            tf.reshape(kernel, (7, 7, 2 * edges, 1)),
            depthwise=True,
        )
        spatial = tf.add_n(tf.split(spatial, 2, -1))
        spatial = tf.sigmoid(values.normalize("normalization", spatial))
        gate *= tf.reshape(weights, (1, -1))
        return Attended(pairs=[(spatial, gate)])


class GatherExciteBundle(AttentionBundle):
    """Gather-excite of all edges."""

    def declare(self, channels):
        height, width = self.place.output_size
        hidden = blocks.bottleneck_width(channels)
        self.weight("kernel", (height, width, channels), height * width)
        self.normalization("normalization", channels, affine=True)
        self.weight("squeeze.kernel", (channels, hidden), channels)
        self.weight("excite.kernel", (hidden, channels), hidden)

    def __call__(self, values, maps, average, weights):
        kernel = tf.transpose(values.shaped("kernel"), (1, 2, 0, 3))
        kernel = tf.reshape(kernel, maps.shape[1:])
        gathered = tf.reduce_sum(maps * kernel, (1, 2))
        gathered = values.normalize("normalization", gathered)
        hidden = tf.nn.relu(self.dense(values, "squeeze", gathered))
        gate = tf.sigmoid(self.dense(values, "excite", hidden))
        return Attended([gate * tf.reshape(weights, (1, -1))])


class DoubleAttentionBundle(AttentionBundle):
    """Double attention of all edges; what it adds to the maps.

    The output projection is applied to the gathered features, which are few,
    before they are distributed to the positions.
    """

    INNER = ("features", "gathering", "distribution")

    def declare(self, channels):
        width = attentions.bottleneck_channels(channels)
        for name in self.INNER:
            self.affine(name, (1, 1, channels, width), channels)
        self.affine("output_projection", (width, channels), width)

    def __call__(self, values, maps, average, weights):
        # Edges stay apart within the channels of all: products of whole
        # matrices, with zeros between the edges, take no turning of axes.
        edges, channels = self.place.edges, self.place.channels
        height, width = maps.shape[1:3]
        kernel, bias = (
            tf.concat(
                [values.shaped(f"{name}.{part}") for name in self.INNER], -1
            )
            for part in ("kernel", "bias")
        )
        inner = pointwise(maps, kernel, kernel.shape)
        inner = tf.nn.bias_add(inner, tf.reshape(bias, (-1,)))
        count, joint = height * width, inner.shape[-1] // 3
        inner = tf.reshape(inner, (-1, count, edges, 3, joint // edges))
        inner = tf.reshape(
            tf.transpose(inner, (3, 0, 1, 2, 4)), (3, -1, count, joint)
        )
        features, gathering, distribution = tf.unstack(inner)
        # The softmax over positions, divided by its sum where that is small.
        gathering -= tf.stop_gradient(
            tf.reduce_max(gathering, 1, keepdims=True)
        )
        gathering = tf.exp(gathering)
        descriptors = tf.matmul(gathering, features, transpose_a=True)
        descriptors /= tf.expand_dims(tf.reduce_sum(gathering, 1), -1)
        own = np.kron(np.eye(edges), np.ones((joint // edges,) * 2))
        own = tf.constant(own, descriptors.dtype)
        # Written out, since the kernel is slow on rows of few numbers.
        split = (-1, count, edges, joint // edges)
        distribution = tf.reshape(distribution, split)
        distribution -= tf.stop_gradient(
            tf.reduce_max(distribution, -1, keepdims=True)
        )
        distribution = tf.exp(tf.reshape(distribution, (-1, joint)))
        distribution /= tf.matmul(distribution, own)
        distribution = tf.reshape(distribution, (-1, count, joint))
        descriptors *= own
        projection = block_diagonal(
            *values.flat("output_projection.kernel")
        ) * tf.reshape(weights, (-1,))
        spread = tf.matmul(
            distribution,
            tf.reshape(
                tf.matmul(tf.reshape(descriptors, (-1, joint)), projection),
                (-1, joint, edges * channels),
            ),
        )
        bias = values.shaped("output_projection.bias") * weights
        spread = tf.nn.bias_add(spread, tf.reshape(bias, (-1,)))
        addend = tf.reshape(spread, (-1, height, width, edges * channels))
        return Attended([tf.reshape(weights, (1, -1))], addends=[addend])


# Candidates without an entry here are computed as plain layers, edge by edge.
OPERATION_BUNDLES = {
    "max_pool_3x3": lambda place: PoolingBundle(blocks.max_pool, place),
    "avg_pool_3x3": lambda place: PoolingBundle(blocks.average_pool, place),
    "skip_connect": SkipBundle,
    "sep_conv_3x3": lambda place: SeparableBundle(3, place, repeats=2),
    "sep_conv_5x5": lambda place: SeparableBundle(5, place, repeats=2),
    "dil_conv_3x3": lambda place: SeparableBundle(3, place, rate=2),
    "dil_conv_5x5": lambda place: SeparableBundle(5, place, rate=2),
}

ATTENTION_BUNDLES = {
    "Identity": IdentityBundle,
    "SE": SqueezeExciteBundle,
    "BAM": BottleneckAttentionBundle,
    "CBAM": ConvolutionalBlockAttentionBundle,
    "GE_theta-plus": GatherExciteBundle,
    "DoubleAttention": DoubleAttentionBundle,
}
