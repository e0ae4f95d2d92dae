"""Candidates of all edges that leave one state, computed together.

These edges see the same input, so ReLU, pools and an unstrided skip are
computed once, their convolutions are one convolution, and their
normalisations one normalisation. It is exact algebra: a bundle equals the
plain layers of its edges, weight by weight.

Maps of a bundle have shape `(batch, height, width, edges * channels)`, one
edge after the other. Every weight is that of the plain layer of the same name
with the edges on a leading axis (flattened into it for normalisations), so
`blocks.weights_by_name` pairs the two.
"""

import keras
import tensorflow as tf

from att_darts_tf.space import blocks


def by_edge(maps, edges):
    """Splits `(batch, height, width, edges * channels)` into 5 axes."""
    height, width, joint = maps.shape[1:]
    return tf.reshape(maps, (-1, height, width, edges, joint // edges))


def joined(maps):
    """Joins the last two axes of maps that are split by edge."""
    height, width, edges, channels = maps.shape[1:]
    return tf.reshape(maps, (-1, height, width, edges * channels))


def repeated(weights, channels):
    """Repeats one number an edge for each of its channels, in turn."""
    edges = weights.shape[0]
    tiled = tf.broadcast_to(weights[:, None], (edges, channels))
    return tf.reshape(tiled, (edges * channels,))


def block_diagonal(kernels, *, channel_major=False):
    """Returns one kernel that keeps the edges apart.

    Args:
        kernels: Tensor of shape `(edges, size, size, channels, filters)`.
        channel_major: Boolean. Whether the input lists edges within each
            channel, as a depthwise convolution leaves them.

    Returns:
        Tensor of shape
        `(size, size, edges * channels, edges * filters)`.
    """
    edges, size, _, channels, filters = kernels.shape
    order = "hwcefd" if channel_major else "hwecfd"
    blocks_ = tf.einsum(
        f"ehwcd,ef->{order}", kernels, tf.eye(edges, dtype=kernels.dtype)
    )
    return tf.reshape(
        blocks_, (size, size, edges * channels, edges * filters)
    )


class Bundle(keras.layers.Layer):
    """One candidate on all edges that leave a state.

    Args:
        edges: Integer.
        stride: Integer. Only the state itself is strided.
        shared: Boolean. Whether the input is the state,
            `(batch, height, width, channels)`, that all edges read, instead of
            maps of each edge.

    Input shape: of the state or of the bundle.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    edges * channels)`.
    """

    def __init__(self, edges, stride=1, shared=False, **kwargs):
        super().__init__(**kwargs)
        self.edges = edges
        self.stride = stride
        self.shared = shared

    def channels_of(self, input_shape):
        """Returns the channels of one edge."""
        return input_shape[-1] // (1 if self.shared else self.edges)

    def edge_weight(self, name, shape, fan_in):
        """Adds the weight of every edge, `shape` being the plain layer's."""
        return self.add_weight(
            name=name,
            shape=(self.edges, *shape),
            initializer=blocks.fan_in_uniform(fan_in),
        )

    def normalization(self, name, shape, **options):
        """Returns a built normalisation of the maps of all edges."""
        layer = blocks.BatchNormalization(
            dtype=self.dtype_policy, name=name, **options
        )
        layer.build(shape)
        return layer

    def output_shape_of(self, input_shape):
        """Returns the shape of the maps of all edges."""
        shape = blocks.strided_shape(input_shape, self.stride)
        return (*shape[:-1], self.edges * self.channels_of(input_shape))


class PoolingBundle(Bundle):
    """Pooling and its normalisation: the same on every edge of a state."""

    def __init__(self, kind, edges, stride=1, shared=False, **kwargs):
        super().__init__(edges, stride, shared, **kwargs)
        self.pool = {"max": blocks.max_pool, "average": blocks.average_pool}[
            kind
        ]

    def build(self, input_shape):
        shape = blocks.strided_shape(input_shape, self.stride)
        self.normalized = self.normalization(
            "normalization", shape, affine=False
        )

    def call(self, inputs, weights, training=False):
        pooled = self.pool(inputs, stride=self.stride)
        if self.shared:
            pooled = self.normalized(pooled, training=training)
            return joined(pooled[:, :, :, None, :] * weights[:, None])
        scale = repeated(weights, inputs.shape[-1] // self.edges)
        return self.normalized(pooled, training=training, scale=scale)


class SkipBundle(Bundle):
    """The identity, or the factorized reduction of a stride."""

    def build(self, input_shape):
        if self.stride == 1:
            return
        channels = self.channels_of(input_shape)
        half = channels // 2
        self.even = self.edge_weight("even.kernel", (channels, half), channels)
        self.odd = self.edge_weight(
            "odd.kernel", (channels, channels - half), channels
        )
        self.normalized = self.normalization(
            "normalization", self.output_shape_of(input_shape), affine=False
        )

    def call(self, inputs, weights, training=False):
        if self.stride == 1:
            maps = inputs if self.shared else by_edge(inputs, self.edges)
            if self.shared:
                maps = maps[:, :, :, None, :]
            return joined(maps * weights[:, None])
        maps = self.reduced(inputs)
        scale = repeated(weights, maps.shape[-1] // self.edges)
        return self.normalized(maps, training=training, scale=scale)

    def reduced(self, inputs):
        """Halves the state for each edge, without the normalisation."""
        inputs = tf.nn.relu(inputs)

        def sample(maps, kernels):
            kernels = tf.convert_to_tensor(kernels)
            edges, channels, half = kernels.shape
            kernel = tf.reshape(
                tf.transpose(kernels, (1, 0, 2)),
                (1, 1, channels, edges * half),
            )
            return by_edge(
                blocks.symmetric_convolution(maps, kernel, stride=2), edges
            )

        even = sample(inputs, self.even)
        odd = sample(blocks.shifted(inputs), self.odd)
        return joined(tf.concat([even, odd], -1))


class SeparableBundle(Bundle):
    """Separable and dilated convolutions of all edges as one convolution."""

    def __init__(
        self,
        kernel_size,
        edges,
        stride=1,
        shared=False,
        rate=1,
        repeats=1,
        **kwargs,
    ):
        super().__init__(edges, stride, shared, **kwargs)
        self.kernel_size = kernel_size
        self.rate = rate
        self.repeats = repeats

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        shape = self.output_shape_of(input_shape)
        size = self.kernel_size
        self.depthwise, self.pointwise, self.normalized = [], [], []
        for i in range(self.repeats):
            self.depthwise.append(
                self.edge_weight(
                    f"depthwise_{i}.kernel", (size, size, channels), size**2
                )
            )
            self.pointwise.append(
                self.edge_weight(
                    f"pointwise_{i}.kernel", (channels, channels), channels
                )
            )
            self.normalized.append(
                self.normalization(f"normalization_{i}", shape, affine=False)
            )

    def call(self, inputs, weights, training=False):
        """`inputs` have passed the first ReLU."""
        maps = self.convolve(inputs, 0, self.shared, self.stride)
        for i in range(1, self.repeats):
            maps = self.normalized[i - 1](maps, training=training)
            maps = self.convolve(tf.nn.relu(maps), i, False, 1)
        scale = repeated(weights, maps.shape[-1] // self.edges)
        return self.normalized[-1](maps, training=training, scale=scale)

    def convolve(self, inputs, index, shared, stride):
        """Applies the depthwise and the pointwise kernels of a repeat."""
        depthwise = tf.convert_to_tensor(self.depthwise[index])
        pointwise = tf.convert_to_tensor(self.pointwise[index])
        edges, size, _, channels = depthwise.shape
        if shared and size == 3 and channels <= 16:
            # Nothing stands between the two kernels: their product is one
            # dense kernel, at few channels the fastest way.
            kernel = tf.einsum("ehwc,ecd->hwced", depthwise, pointwise)
            kernel = tf.reshape(kernel, (size, size, channels, -1))
            return blocks.symmetric_convolution(
                inputs, kernel, stride=stride, rate=self.rate
            )
        if shared:
            kernel = tf.transpose(depthwise, (1, 2, 3, 0))
        else:
            kernel = tf.transpose(depthwise, (1, 2, 0, 3))
            kernel = tf.reshape(kernel, (size, size, edges * channels, 1))
        maps = blocks.symmetric_convolution(
            inputs, kernel, stride=stride, rate=self.rate, depthwise=True
        )
        kernel = block_diagonal(
            pointwise[:, None, None], channel_major=shared
        )
        return tf.nn.conv2d(maps, kernel, 1, "VALID")


class SqueezeExciteBundle(Bundle):
    """The gates of squeeze-and-excitation of all edges."""

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        width = blocks.bottleneck_width(channels)
        self.squeeze = self.edge_weight(
            "squeeze.kernel", (channels, width), channels
        )
        self.excite = self.edge_weight(
            "excite.kernel", (width, channels), width
        )

    def call(self, maps, average, weights, training=False):
        hidden = tf.nn.relu(edge_dense(average, self.squeeze))
        gate = tf.sigmoid(edge_dense(hidden, self.excite))
        return (gate * weights[:, None])[:, None, None], None


class BottleneckAttentionBundle(Bundle):
    """The gates of BAM of all edges."""

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        width = blocks.bottleneck_width(channels)
        joint = self.edges * width
        vector, hidden = (None, joint), (*input_shape[:-1], joint)
        self.channel_squeeze = self.affine(
            "channel_squeeze", (channels, width), channels
        )
        self.channel_normalization = self.normalization(
            "channel_normalization", vector
        )
        self.channel_excite = self.affine(
            "channel_excite", (width, channels), width
        )
        self.spatial = [
            self.affine("spatial_reduce", (1, 1, channels, width), channels),
            self.affine("spatial_0", (3, 3, width, width), 9 * width),
            self.affine("spatial_1", (3, 3, width, width), 9 * width),
        ]
        self.spatial_normalizations = [
            self.normalization(f"spatial_normalization_{i}", hidden)
            for i in range(3)
        ]
        self.spatial_excite = self.affine(
            "spatial_excite", (1, 1, width, 1), width
        )

    def affine(self, name, shape, fan_in):
        """Adds a kernel and a bias of every edge."""
        return (
            self.edge_weight(f"{name}.kernel", shape, fan_in),
            self.edge_weight(f"{name}.bias", shape[-1:], fan_in),
        )

    def call(self, maps, average, weights, training=False):
        channel = edge_dense(average, *self.channel_squeeze)
        edges, width = channel.shape[1:]
        channel = self.channel_normalization(
            tf.reshape(channel, (-1, edges * width)), training=training
        )
        channel = tf.reshape(tf.nn.relu(channel), (-1, edges, width))
        channel = edge_dense(channel, *self.channel_excite)
        spatial = maps
        for i, (convolution, normalization) in enumerate(
            zip(self.spatial, self.spatial_normalizations, strict=True)
        ):
            spatial = edge_convolution(
                spatial, *convolution, rate=1 if i == 0 else 4
            )
            spatial = tf.nn.relu(normalization(spatial, training=training))
        spatial = edge_convolution(spatial, *self.spatial_excite)
        gate = tf.sigmoid(channel[:, None, None] * spatial[..., None])
        return (1.0 + gate) * weights[:, None], None


class ConvolutionalBlockAttentionBundle(Bundle):
    """The gates of CBAM of all edges."""

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        width = blocks.bottleneck_width(channels)
        self.squeeze = (
            self.edge_weight("squeeze.kernel", (channels, width), channels),
            self.edge_weight("squeeze.bias", (width,), channels),
        )
        self.excite = (
            self.edge_weight("excite.kernel", (width, channels), width),
            self.edge_weight("excite.bias", (channels,), width),
        )
        self.kernel = self.edge_weight(
            "convolution.kernel", (7, 7, 2, 1), 7 * 7 * 2
        )
        self.normalized = self.normalization(
            "normalization", (*input_shape[:-1], self.edges), momentum=0.99
        )

    def call(self, maps, average, weights, training=False):
        split = by_edge(maps, self.edges)
        largest = tf.reduce_max(split, (1, 2))
        gate = sum(
            edge_dense(
                tf.nn.relu(edge_dense(pooled, *self.squeeze)), *self.excite
            )
            for pooled in (average, largest)
        )
        gate = tf.sigmoid(gate)[:, None, None]
        gated = split * gate
        summary = tf.stack(
            [tf.reduce_max(gated, -1), tf.reduce_mean(gated, -1)], -1
        )
        spatial = edge_convolution(joined(summary), self.kernel)
        spatial = self.normalized(spatial, training=training)
        spatial = tf.sigmoid(spatial)[..., None]
        return spatial * (gate * weights[:, None]), None


class GatherExciteBundle(Bundle):
    """The gates of gather-excite of all edges."""

    def build(self, input_shape):
        _, height, width, joint = input_shape
        channels = self.channels_of(input_shape)
        hidden = blocks.bottleneck_width(channels)
        self.kernel = self.edge_weight(
            "kernel", (height, width, channels), height * width
        )
        self.normalized = self.normalization("normalization", (None, joint))
        self.squeeze = self.edge_weight(
            "squeeze.kernel", (channels, hidden), channels
        )
        self.excite = self.edge_weight(
            "excite.kernel", (hidden, channels), hidden
        )

    def call(self, maps, average, weights, training=False):
        kernel = tf.transpose(tf.convert_to_tensor(self.kernel), (1, 2, 0, 3))
        kernel = tf.reshape(kernel, maps.shape[1:])
        gathered = tf.reduce_sum(maps * kernel, (1, 2))
        gathered = self.normalized(gathered, training=training)
        gathered = tf.reshape(gathered, (-1, *average.shape[1:]))
        hidden = tf.nn.relu(edge_dense(gathered, self.squeeze))
        gate = tf.sigmoid(edge_dense(hidden, self.excite))
        return (gate * weights[:, None])[:, None, None], None


class DoubleAttentionBundle(Bundle):
    """Double attention of all edges; what it adds to the maps.

    The output projection is applied to the gathered features, which are few,
    before they are distributed to the positions.
    """

    def build(self, input_shape):
        channels = self.channels_of(input_shape)
        width = max(channels // 4, 1)
        self.inner = [
            (
                self.edge_weight(f"{name}.kernel", (channels, width), channels),
                self.edge_weight(f"{name}.bias", (width,), channels),
            )
            for name in ("features", "gathering", "distribution")
        ]
        self.projection = self.edge_weight(
            "output_projection.kernel", (width, channels), width
        )
        self.bias = self.edge_weight(
            "output_projection.bias", (channels,), width
        )

    def call(self, maps, average, weights, training=False):
        height, width = maps.shape[1:3]
        inner = edge_convolution(
            maps,
            tf.concat(
                [tf.convert_to_tensor(kernel) for kernel, _ in self.inner], -1
            )[:, None, None],
            tf.concat(
                [tf.convert_to_tensor(bias) for _, bias in self.inner], -1
            ),
        )
        joint = inner.shape[-1]
        pixels = tf.reshape(
            inner, (-1, height * width, self.edges, joint // self.edges)
        )
        features, gathering, distribution = tf.split(pixels, 3, -1)
        gathering = tf.nn.softmax(gathering, axis=1)
        distribution = tf.nn.softmax(distribution, axis=-1)
        descriptors = tf.einsum("bnea,bnek->beka", features, gathering)
        projected = tf.einsum(
            "beka,eac->bekc",
            descriptors,
            tf.convert_to_tensor(self.projection) * weights[:, None, None],
        )
        spread = tf.einsum("bnek,bekc->bnec", distribution, projected)
        spread += tf.convert_to_tensor(self.bias) * weights[:, None]
        addend = tf.reshape(
            spread, (-1, height, width, self.edges, spread.shape[-1])
        )
        return weights[:, None], addend


class IdentityBundle(Bundle):
    """No attention on any edge."""

    def call(self, maps, average, weights, training=False):
        return weights[:, None], None


def edge_dense(inputs, kernels, biases=None):
    """Applies a dense kernel to the vectors of each edge.

    Args:
        inputs: Tensor of shape `(batch, edges, channels)`.
        kernels: Variable of shape `(edges, channels, units)`.
        biases: Variable of shape `(edges, units)`.
    """
    outputs = tf.einsum("bec,ecd->bed", inputs, tf.convert_to_tensor(kernels))
    return outputs if biases is None else outputs + biases


def edge_convolution(maps, kernels, biases=None, *, rate=1):
    """Convolves the maps of each edge with kernels of few filters.

    Args:
        maps: Tensor of shape `(batch, height, width, edges * channels)`.
        kernels: Variable of shape `(edges, size, size, channels, filters)`.
        biases: Variable of shape `(edges, filters)`.
        rate: Integer. Dilation.

    Returns:
        Tensor of shape `(batch, height, width, edges * filters)`.
    """
    kernel = block_diagonal(tf.convert_to_tensor(kernels))
    outputs = blocks.symmetric_convolution(maps, kernel, rate=rate)
    if biases is None:
        return outputs
    return outputs + tf.reshape(tf.convert_to_tensor(biases), (-1,))


# Candidates without an entry here are computed as plain layers, edge by edge.
OPERATION_BUNDLES = {
    "max_pool_3x3": lambda **kwargs: PoolingBundle("max", **kwargs),
    "avg_pool_3x3": lambda **kwargs: PoolingBundle("average", **kwargs),
    "skip_connect": SkipBundle,
    "sep_conv_3x3": lambda **kwargs: SeparableBundle(3, repeats=2, **kwargs),
    "sep_conv_5x5": lambda **kwargs: SeparableBundle(5, repeats=2, **kwargs),
    "dil_conv_3x3": lambda **kwargs: SeparableBundle(3, rate=2, **kwargs),
    "dil_conv_5x5": lambda **kwargs: SeparableBundle(5, rate=2, **kwargs),
}

ATTENTION_BUNDLES = {
    "Identity": IdentityBundle,
    "SE": SqueezeExciteBundle,
    "BAM": BottleneckAttentionBundle,
    "CBAM": ConvolutionalBlockAttentionBundle,
    "GE_theta-plus": GatherExciteBundle,
    "DoubleAttention": DoubleAttentionBundle,
}
