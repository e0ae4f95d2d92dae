"""The attention modules an edge chooses from, one plain layer each.

`ATTENTIONS.create(name)` returns a layer that keeps the shape of maps of
`(batch, height, width, channels)`.
"""

import keras
import tensorflow as tf

from att_darts_tf.space import blocks
from att_darts_tf.space.registry import Registry

ATTENTIONS = Registry("attention")
# Share of the moving statistics that CBAM's normalisation keeps. Source: the
# authors' released code.
CBAM_MOMENTUM = 0.99


class Attention(keras.layers.Layer):
    """What all attentions share: the output has the shape of the input."""

    def compute_output_shape(self, input_shape):
        return input_shape


@ATTENTIONS.register("Identity")
@blocks.serializable
class NoAttention(Attention):
    """Leaves maps as they are.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def call(self, inputs):
        return inputs


@ATTENTIONS.register("SE")
@blocks.serializable
class SqueezeExcite(Attention):
    """Reweights channels by a gate computed from their global average.

    Source: Hu et al., 2018, https://arxiv.org/abs/1709.01507, section 3.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        width = blocks.bottleneck_width(channels)
        options = {"use_bias": False, "dtype": self.dtype_policy}
        self.squeeze = blocks.dense(width, channels, name="squeeze", **options)
        self.excite = blocks.dense(channels, width, name="excite", **options)

    def call(self, inputs):
        pooled = tf.reduce_mean(inputs, (1, 2))
        gate = self.excite(tf.nn.relu(self.squeeze(pooled)))
        return inputs * tf.sigmoid(gate)[:, None, None, :]


@ATTENTIONS.register("BAM")
@blocks.serializable
class BottleneckAttention(Attention):
    """Amplifies by the product of a channel gate and a spatial gate.

    Source: Park et al., 2018, https://arxiv.org/abs/1807.06514, section 3;
    the gates are multiplied, as in the authors' released code.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        width = blocks.bottleneck_width(channels)
        policy = self.dtype_policy
        hidden_shape = (*input_shape[:-1], width)

        def normalization(name, shape):
            layer = blocks.BatchNormalization(dtype=policy, name=name)
            layer.build(shape)
            return layer

        def convolution(name, filters, shape, kernel_size=1, rate=1):
            layer = blocks.Convolution(
                filters,
                kernel_size,
                rate=rate,
                use_bias=True,
                dtype=policy,
                name=name,
            )
            layer.build(shape)
            return layer

        self.channel_squeeze = blocks.dense(
            width, channels, dtype=policy, name="channel_squeeze"
        )
        self.channel_normalization = normalization(
            "channel_normalization", (None, width)
        )
        self.channel_excite = blocks.dense(
            channels, width, dtype=policy, name="channel_excite"
        )
        self.spatial_convolutions = [
            convolution("spatial_reduce", width, input_shape),
            convolution("spatial_0", width, hidden_shape, 3, rate=4),
            convolution("spatial_1", width, hidden_shape, 3, rate=4),
        ]
        self.spatial_normalizations = [
            normalization(f"spatial_normalization_{i}", hidden_shape)
            for i in range(3)
        ]
        self.spatial_excite = convolution("spatial_excite", 1, hidden_shape)

    def call(self, inputs, training=False):
        channel = self.channel_squeeze(tf.reduce_mean(inputs, (1, 2)))
        channel = self.channel_normalization(channel, training=training)
        channel = self.channel_excite(tf.nn.relu(channel))
        spatial = inputs
        for convolution, normalization in zip(
            self.spatial_convolutions, self.spatial_normalizations, strict=True
        ):
            spatial = convolution(spatial)
            spatial = tf.nn.relu(normalization(spatial, training=training))
        spatial = self.spatial_excite(spatial)
        gate = tf.sigmoid(channel[:, None, None, :] * spatial)
        return inputs * (1.0 + gate)


@ATTENTIONS.register("CBAM")
@blocks.serializable
class ConvolutionalBlockAttention(Attention):
    """Gates channels, then positions by a 7x7 convolution of what is left.

    Source: Woo et al., 2018, https://arxiv.org/abs/1807.06521, section 3; the
    normalisation's momentum is the authors' released code's.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        width = blocks.bottleneck_width(channels)
        policy = self.dtype_policy
        self.squeeze = blocks.dense(
            width, channels, dtype=policy, name="squeeze"
        )
        self.excite = blocks.dense(channels, width, dtype=policy, name="excite")
        self.convolution = blocks.Convolution(
            1, 7, dtype=policy, name="convolution"
        )
        self.normalization = blocks.BatchNormalization(
            momentum=CBAM_MOMENTUM, dtype=policy, name="normalization"
        )
        self.convolution.build((*input_shape[:-1], 2))
        self.normalization.build((*input_shape[:-1], 1))

    def call(self, inputs, training=False):
        average = tf.reduce_mean(inputs, (1, 2))
        largest = tf.reduce_max(inputs, (1, 2))
        gate = sum(
            self.excite(tf.nn.relu(self.squeeze(pooled)))
            for pooled in (average, largest)
        )
        gated = inputs * tf.sigmoid(gate)[:, None, None, :]
        summary = tf.concat(
            [
                tf.reduce_max(gated, -1, keepdims=True),
                tf.reduce_mean(gated, -1, keepdims=True),
            ],
            -1,
        )
        spatial = self.normalization(
            self.convolution(summary), training=training
        )
        return gated * tf.sigmoid(spatial)


@ATTENTIONS.register("GE_theta-plus")
@blocks.serializable
class GatherExcite(Attention):
    """Gates channels by a learned gathering of the whole map.

    Source: Hu et al., 2018, https://arxiv.org/abs/1810.12348, section 3
    (GE-theta-plus with global extent). The gathering kernel has the map's
    size, so the layer is bound to it.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def build(self, input_shape):
        _, height, width, channels = input_shape
        policy = self.dtype_policy
        hidden = blocks.bottleneck_width(channels)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(height, width, channels),
            initializer=blocks.fan_in_uniform(height * width),
        )
        self.normalization = blocks.BatchNormalization(
            dtype=policy, name="normalization"
        )
        self.normalization.build((None, channels))
        options = {"use_bias": False, "dtype": policy}
        self.squeeze = blocks.dense(hidden, channels, name="squeeze", **options)
        self.excite = blocks.dense(channels, hidden, name="excite", **options)

    def call(self, inputs, training=False):
        kernel = tf.convert_to_tensor(self.kernel)
        gathered = tf.reduce_sum(inputs * kernel, (1, 2))
        gathered = self.normalization(gathered, training=training)
        gate = self.excite(tf.nn.relu(self.squeeze(gathered)))
        return inputs * tf.sigmoid(gate)[:, None, None, :]


@ATTENTIONS.register("DoubleAttention")
@blocks.serializable
class DoubleAttention(Attention):
    """Gathers features of all positions and distributes them to each.

    Source: Chen et al., 2018, https://arxiv.org/abs/1810.11579, equations 1
    to 6.

    Input shape: `(batch, height, width, channels)`.
    Output shape: the same.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        width = bottleneck_channels(channels)
        self.features, self.gathering, self.distribution = (
            blocks.dense(width, channels, dtype=self.dtype_policy, name=name)
            for name in ("features", "gathering", "distribution")
        )
        self.output_projection = blocks.dense(
            channels, width, dtype=self.dtype_policy, name="output_projection"
        )

    def call(self, inputs):
        batch, height, width, channels = _shape(inputs)
        pixels = tf.reshape(inputs, (batch, height * width, channels))
        features = self.features(pixels)
        gathering = tf.nn.softmax(self.gathering(pixels), axis=1)
        distribution = tf.nn.softmax(self.distribution(pixels), axis=2)
        descriptors = tf.matmul(features, gathering, transpose_a=True)
        spread = tf.matmul(distribution, descriptors, transpose_b=True)
        outputs = pixels + self.output_projection(spread)
        return tf.reshape(outputs, (batch, height, width, channels))


def bottleneck_channels(channels):
    """Returns the inner channels of double attention, at least one."""
    return max(channels // 4, 1)


def _shape(tensor):
    dynamic = tf.shape(tensor)
    return [
        dynamic[i] if size is None else size
        for i, size in enumerate(tensor.shape)
    ]
