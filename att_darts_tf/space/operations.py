"""The operations an edge chooses from, one plain layer each.

Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 3.1; those
of published cells alone: their papers, see published.json.
"""

import keras
import tensorflow as tf

from att_darts_tf.space import blocks
from att_darts_tf.space.registry import Registry

# `OPERATIONS.create(name, channels=, stride=, affine=)` returns a layer that
# maps `(batch, height, width, channels)` to `(batch, ceil(height / stride),
# ceil(width / stride), channels)`.
OPERATIONS = Registry("operation")


@blocks.serializable
class Zero(keras.layers.Layer):
    """No edge at all: zeros.

    Args:
        stride: Integer.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`.
    """

    def __init__(self, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs):
        return tf.zeros_like(inputs[:, :: self.stride, :: self.stride])

    def compute_output_shape(self, input_shape):
        return blocks.strided_shape(input_shape, self.stride)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


@blocks.serializable
class Pooling(keras.layers.Layer):
    """Pools windows around each pixel.

    Args:
        kind: `"max"` or `"average"`; an average does not count the padding.
        size: Integer. Side of the window; an even one has no padding on top
            and left.
        stride: Integer.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`.
    """

    def __init__(self, kind, size=3, stride=1, **kwargs):
        super().__init__(**kwargs)
        if kind not in ("max", "average"):
            raise ValueError(
                f"`kind` must be 'max' or 'average'. Received: kind={kind!r}"
            )
        self.kind = kind
        self.size = size
        self.stride = stride

    def call(self, inputs):
        if self.size % 2 == 0:
            pool = (
                tf.nn.max_pool2d if self.kind == "max" else tf.nn.avg_pool2d
            )
            return pool(inputs, self.size, self.stride, "SAME")
        pool = blocks.max_pool if self.kind == "max" else blocks.average_pool
        return pool(inputs, size=self.size, stride=self.stride)

    def compute_output_shape(self, input_shape):
        return blocks.strided_shape(input_shape, self.stride)

    def get_config(self):
        return {
            **super().get_config(),
            "kind": self.kind,
            "size": self.size,
            "stride": self.stride,
        }


@blocks.serializable
class SeparableConvolution(keras.layers.Layer):
    """ReLU, depthwise, pointwise, batch normalisation, `repeats` times.

    The `sep_conv` operations repeat it, the `dil_conv` ones dilate it.

    Source: Chollet, 2017, https://arxiv.org/abs/1610.02357; Liu et al., 2019,
    appendix A.1.

    Args:
        filters: Integer. Output channels.
        kernel_size: Odd integer.
        stride: Integer, of the first repeat.
        rate: Integer. Dilation of the depthwise kernel.
        repeats: Integer.
        affine: Boolean. Whether the normalisations have scale and offset.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    filters)`.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        stride=1,
        rate=1,
        repeats=1,
        affine=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.rate = rate
        self.repeats = repeats
        self.affine = affine

    def build(self, input_shape):
        policy = self.dtype_policy
        self.depthwise, self.pointwise, self.normalization = [], [], []
        shape = input_shape
        for i in range(self.repeats):
            depthwise = blocks.DepthwiseConvolution(
                self.kernel_size,
                self.stride if i == 0 else 1,
                self.rate,
                dtype=policy,
                name=f"depthwise_{i}",
            )
            depthwise.build(shape)
            shape = depthwise.compute_output_shape(shape)
            pointwise = blocks.Convolution(
                shape[-1] if i + 1 < self.repeats else self.filters,
                dtype=policy,
                name=f"pointwise_{i}",
            )
            pointwise.build(shape)
            shape = pointwise.compute_output_shape(shape)
            normalization = blocks.BatchNormalization(
                self.affine, dtype=policy, name=f"normalization_{i}"
            )
            normalization.build(shape)
            self.depthwise.append(depthwise)
            self.pointwise.append(pointwise)
            self.normalization.append(normalization)

    def call(self, inputs, training=False):
        maps = inputs
        for depthwise, pointwise, normalization in zip(
            self.depthwise, self.pointwise, self.normalization, strict=True
        ):
            maps = pointwise(depthwise(tf.nn.relu(maps)))
            maps = normalization(maps, training=training)
        return maps

    def compute_output_shape(self, input_shape):
        shape = blocks.strided_shape(input_shape, self.stride)
        return (*shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "rate": self.rate,
            "repeats": self.repeats,
            "affine": self.affine,
        }


@blocks.serializable
class FactorizedConvolution(keras.layers.Layer):
    """ReLU, a row and a column convolution, batch normalisation.

    Source: Real et al., 2019, https://arxiv.org/abs/1802.01548 (`1x7 then
    7x1 convolution`).

    Args:
        filters: Integer. Output channels.
        kernel_size: Odd integer. Length of both kernels.
        stride: Integer, split over the two convolutions.
        affine: Boolean. Whether the normalisation has scale and offset.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    filters)`.
    """

    def __init__(
        self, filters, kernel_size=7, stride=1, affine=True, **kwargs
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.affine = affine

    def build(self, input_shape):
        policy = self.dtype_policy
        size, stride = self.kernel_size, self.stride
        self.row = blocks.Convolution(
            self.filters, (1, size), (1, stride), dtype=policy, name="row"
        )
        self.column = blocks.Convolution(
            self.filters, (size, 1), (stride, 1), dtype=policy, name="column"
        )
        self.normalization = blocks.BatchNormalization(
            self.affine, dtype=policy, name="normalization"
        )
        self.row.build(input_shape)
        self.column.build(self.row.compute_output_shape(input_shape))
        self.normalization.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=False):
        maps = self.column(self.row(tf.nn.relu(inputs)))
        return self.normalization(maps, training=training)

    def compute_output_shape(self, input_shape):
        shape = blocks.strided_shape(input_shape, self.stride)
        return (*shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "affine": self.affine,
        }


@OPERATIONS.register("none")
def _none(channels, stride=1, affine=True, **kwargs):
    return Zero(stride, **kwargs)


@OPERATIONS.register("max_pool_3x3")
def _max_pool_3x3(channels, stride=1, affine=True, **kwargs):
    return Pooling("max", 3, stride, **kwargs)


@OPERATIONS.register("avg_pool_3x3")
def _avg_pool_3x3(channels, stride=1, affine=True, **kwargs):
    return Pooling("average", 3, stride, **kwargs)


@OPERATIONS.register("skip_connect")
def skip(channels, stride=1, affine=True, **kwargs):
    """Returns the identity, or the factorized reduction of a stride."""
    if stride == 1:
        return keras.layers.Identity(**kwargs)
    return blocks.FactorizedReduction(channels, affine, **kwargs)


def _register_separable(name, kernel_size, rate, repeats):
    @OPERATIONS.register(name)
    def create(channels, stride=1, affine=True, **kwargs):
        return SeparableConvolution(
            channels, kernel_size, stride, rate, repeats, affine, **kwargs
        )


for _name, _kernel_size, _rate, _repeats in (
    ("sep_conv_3x3", 3, 1, 2),
    ("sep_conv_5x5", 5, 1, 2),
    ("dil_conv_3x3", 3, 2, 1),
    ("dil_conv_5x5", 5, 2, 1),
    ("sep_conv_7x7", 7, 1, 2),
    ("dil_sep_conv_5x5", 5, 2, 2),
):
    _register_separable(_name, _kernel_size, _rate, _repeats)


@OPERATIONS.register("conv_7x1_1x7")
def _conv_7x1_1x7(channels, stride=1, affine=True, **kwargs):
    return FactorizedConvolution(channels, 7, stride, affine, **kwargs)


@OPERATIONS.register("conv_1x1")
def _conv_1x1(channels, stride=1, affine=True, **kwargs):
    return blocks.ReluConvolutionNormalization(
        channels, 1, stride, affine, **kwargs
    )


@OPERATIONS.register("conv_3x3")
def _conv_3x3(channels, stride=1, affine=True, **kwargs):
    return blocks.ReluConvolutionNormalization(
        channels, 3, stride, affine, **kwargs
    )


@OPERATIONS.register("max_pool_2x2")
def _max_pool_2x2(channels, stride=1, affine=True, **kwargs):
    return Pooling("max", 2, stride, **kwargs)
