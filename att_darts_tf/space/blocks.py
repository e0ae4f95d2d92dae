"""What operations and attentions are made of, with PyTorch's conventions.

Padding is symmetric, kernels and biases start uniform in `1 / sqrt(fan_in)`,
and the moving variance is fed the unbiased batch variance. Keras differs in
all three, and each changes the numbers.
"""

import contextlib
import threading

import keras
import tensorflow as tf

# Of batch normalisation. Source: `torch.nn.BatchNorm2d`, whose momentum is the
# other share.
MOMENTUM = 0.9
EPSILON = 1e-5
# Options of its moving statistics, the mean of those of all replicas.
MOVING = {"trainable": False, "aggregation": "mean"}

# Replicas are threads, each with a context of its own.
_context = threading.local()

serializable = keras.saving.register_keras_serializable(package="att_darts_tf")


def fan_in_uniform(fan_in):
    """Returns PyTorch's initializer of kernels and biases.

    Source: https://pytorch.org/docs/stable/generated/torch.nn.Conv2d.html,
    "Variables".

    Args:
        fan_in: Integer. Kernel height x width x input channels / groups.
    """
    limit = fan_in_limit(fan_in)
    return keras.initializers.RandomUniform(-limit, limit)


def fan_in_limit(fan_in):
    """Returns the largest initial weight; see `fan_in_uniform`."""
    return fan_in**-0.5


def weights_by_name(layer):
    """Returns a layer's variables by their path below it, dots for slashes."""
    prefix = f"{layer.path}/"
    return {
        variable.path.removeprefix(prefix).replace("/", "."): variable
        for variable in layer.weights
    }


def bottleneck_width(channels, ratio=16):
    """Returns the hidden width of an attention's gate, at least one."""
    return max(channels // ratio, 1)


def pad(inputs, margin, *, value=0.0):
    """Surrounds maps of `(batch, height, width, channels)` with a margin."""
    spread = [[0, 0], [margin, margin], [margin, margin], [0, 0]]
    return tf.pad(inputs, spread, constant_values=value)


def at_rate(inputs, *, rate, convolve):
    """Convolves at a dilation rate by convolving each phase of the map.

    TensorFlow has no gradient of a dilated convolution in float64 on a CPU,
    and a wrong one of a dilated depthwise one in float32.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        rate: Integer. Distance of two taps in pixels.
        convolve: Maps maps to maps of the same size.
    """
    if rate == 1:
        return convolve(inputs)
    extra = [[0, -size % rate] for size in inputs.shape[1:3]]
    phases = tf.space_to_batch(inputs, [rate, rate], extra)
    return tf.batch_to_space(convolve(phases), [rate, rate], extra)


def symmetric_convolution(inputs, kernel, *, stride=1, rate=1, depthwise=False):
    """Convolves with `rate * (kernel_size - 1) // 2` zeros on each side.

    At stride 2 and rate 2 every tap falls on an even pixel, so the even
    pixels are convolved at rate 1: the same function. A kernel of one pixel
    reads the kept pixels alone: given to TensorFlow 2.21 with its stride, few
    channels crash the process on a CPU (measured: 4 to 8, float32).

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        kernel: Tensor of shape `(size, size, channels, filters)`, or
            `(size, size, channels, multiplier)` if `depthwise`.
        stride: Integer, 1 or 2.
        rate: Integer. A stride of 2 takes a rate of 1 or 2.
        depthwise: Boolean. Whether each channel has filters of its own.

    Returns:
        Tensor of shape
        `(batch, ceil(height / stride), ceil(width / stride), filters)`.
    """
    size = kernel.shape[0]
    if stride == 2 and rate == 2:
        inputs, stride, rate = even_pixels(inputs), 1, 1
    if stride == 2 and size == 1:
        inputs, stride = even_pixels(inputs), 1
    if stride > 1:
        padded = pad(inputs, size // 2)
        if depthwise:
            strides = [1, stride, stride, 1]
            return tf.nn.depthwise_conv2d(padded, kernel, strides, "VALID")
        return tf.nn.conv2d(padded, kernel, stride, "VALID")

    def convolve(maps):
        if not depthwise:
            return tf.nn.conv2d(maps, kernel, 1, "SAME")
        if size > 3 and maps.dtype == tf.float32:
            return _wide_depthwise(maps, kernel)
        return tf.nn.depthwise_conv2d(maps, kernel, [1] * 4, "SAME")

    return at_rate(inputs, rate=rate, convolve=convolve)


def even_pixels(inputs):
    """Returns every second row and column, from the first."""
    # Pools of one pixel: as a slice, the gradient takes ten times as long.
    return tf.nn.avg_pool2d(inputs, 1, 2, "VALID")


@tf.custom_gradient
def _wide_depthwise(inputs, kernel):
    """Convolves each channel with a kernel of 5 x 5 or more, keeping the size.

    oneDNN takes several times as long for the gradient of a kernel of more
    than three columns, or of more rows than the map has (measured: 9.4 ms
    instead of 2.9 ms for 5 x 5 on 16 x 32 x 32 x 64, on one core). So here it
    is put together from gradients of three columns.
    """
    options = {"strides": [1] * 4, "padding": "SAME"}
    size = kernel.shape[0]

    def gradient(upstream):
        # From the middle of the kernel to that of the outermost columns.
        most = size // 2 - 1
        below = [0, max(0, size - inputs.shape[1])]

        def padded(maps, left, right):
            return tf.pad(maps, [[0, 0], below, [left, right], [0, 0]])

        wide = padded(inputs, most, most)
        # By moving the gradient, not the taps: oneDNN pads evenly.
        columns = [
            tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=wide,
                filter_sizes=(size, 3, *kernel.shape[2:]),
                out_backprop=padded(upstream, most + shift, most - shift),
                **options,
            )
            for shift in range(-most, most + 1, 2)
        ]
        return (
            tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                **options,
            ),
            # Neighbours share a column.
            tf.concat([*[c[:, :2] for c in columns[:-1]], columns[-1]], 1),
        )

    outputs = tf.raw_ops.DepthwiseConv2dNative(
        input=inputs, filter=kernel, **options
    )
    return outputs, gradient


def max_pool(inputs, *, size=3, stride=1):
    """Pools windows around a pixel; padding never wins.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        size: Integer. Odd side of the window.
        stride: Integer.
    """
    padding = "SAME"
    if stride > 1:
        inputs = pad(inputs, size // 2, value=inputs.dtype.min)
        padding = "VALID"

    @tf.custom_gradient
    def pool(inputs):
        pooled = tf.nn.max_pool2d(inputs, size, stride, padding)

        def gradient(upstream):
            # Pooled once more: oneDNN derives what the same graph has pooled,
            # ten times faster than TensorFlow's own kernel.
            return tf.raw_ops.MaxPoolGrad(
                orig_input=inputs,
                orig_output=tf.nn.max_pool2d(inputs, size, stride, padding),
                grad=upstream,
                ksize=[1, size, size, 1],
                strides=[1, stride, stride, 1],
                padding=padding,
            )

        return pooled, gradient

    return pool(inputs)


def largest(inputs, axis):
    """Returns the largest numbers along axes, which stay, of size one.

    The gradient is that of `tf.reduce_max`, in fewer passes over the maps.
    """

    @tf.custom_gradient
    def reduce(inputs):
        outputs = tf.reduce_max(inputs, axis, keepdims=True)

        def gradient(upstream):
            hits = tf.cast(tf.equal(inputs, outputs), inputs.dtype)
            # Those that are equally large share it.
            count = tf.reduce_sum(hits, axis, keepdims=True)
            return hits * (upstream / count)

        return outputs, gradient

    return reduce(inputs)


def average_pool(inputs, *, size=3, stride=1):
    """Averages the pixels of windows around a pixel, without the padding.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        size: Integer. Odd side of the window.
        stride: Integer.
    """
    if stride == 1:
        return tf.nn.avg_pool2d(inputs, size, 1, "SAME")
    margin = size // 2
    inside = tf.ones((1, *inputs.shape[1:3], 1), inputs.dtype)
    share = tf.nn.avg_pool2d(pad(inside, margin), size, stride, "VALID")
    padded = pad(inputs, margin)
    return tf.nn.avg_pool2d(padded, size, stride, "VALID") / share


@contextlib.contextmanager
def batch_of_all(total):
    """Takes batch statistics over all replicas within this context.

    Args:
        total: Maps a list of tensors to their sums over the replicas, and can
            be derived; or `None` for statistics of each replica's own.
    """
    before = getattr(_context, "total", None)
    _context.total = total
    try:
        yield
    finally:
        _context.total = before


def batch_normalize(inputs, scale, offset, *, epsilon=EPSILON):
    """Normalises each channel by the statistics of the batch.

    The batch is that of this replica, or of all in `batch_of_all`.

    Source: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167,
    algorithm 1.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        scale: Tensor of shape `(channels,)`.
        offset: Tensor of shape `(channels,)`.
        epsilon: Float, added to the variance.

    Returns:
        The normalised maps, the mean and the unbiased variance of each
        channel, both of shape `(channels,)`.
    """
    total = getattr(_context, "total", None)
    if total is None and inputs.dtype != tf.float64:
        # The operation's variance output is the unbiased one.
        return tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=epsilon, is_training=True
        )[:3]
    # `tf.nn.moments` stops a gradient that the second order needs.
    maps = tf.cast(inputs, scale.dtype)
    mean = tf.reduce_mean(maps, (0, 1, 2))
    count = tf.cast(tf.size(maps) / tf.size(mean), maps.dtype)
    if total is not None:
        own = count
        (count,) = total([own])
        (mean,) = total([mean * (own / count)])
    squares = tf.math.squared_difference(maps, mean)
    variance = tf.reduce_mean(squares, (0, 1, 2))
    if total is not None:
        (variance,) = total([variance * (own / count)])
    gain = scale * tf.math.rsqrt(variance + epsilon)
    outputs = maps * gain + (offset - mean * gain)
    unbiased = variance * count / tf.maximum(count - 1, 1)
    return tf.cast(outputs, inputs.dtype), mean, unbiased


def normalize(inputs, scale, offset, mean, variance, *, epsilon=EPSILON):
    """Normalises each channel by given statistics; see `batch_normalize`."""
    gain = scale * tf.math.rsqrt(variance + epsilon)
    shift = offset - mean * gain
    return inputs * tf.cast(gain, inputs.dtype) + tf.cast(shift, inputs.dtype)


def moved(moving, batch, momentum):
    """Returns moving statistics after a batch.

    Args:
        moving: Variable of shape `(channels,)`.
        batch: Tensor of that shape, the statistics of the batch.
        momentum: Float or array of that shape, the share that is kept.
    """
    # Statistics of a batch are data, not a path for gradients.
    batch = tf.stop_gradient(batch)
    kept = tf.constant(momentum, batch.dtype)
    return moving * kept + batch * tf.constant(1.0 - momentum, batch.dtype)


def precise(compute_dtype):
    """Returns the type of what keeps full precision under a mixed policy."""
    return "float64" if compute_dtype == "float64" else "float32"


@serializable
class BatchNormalization(keras.layers.Layer):
    """Normalises channels as `torch.nn.BatchNorm2d` does.

    Keras feeds its moving variance the biased batch variance; PyTorch feeds
    the unbiased one, which at batch 4 and 1x1 maps is 4/3 of it.

    Source: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    Args:
        affine: Boolean. Whether channels have a trained scale and offset.
        momentum: Float. Share of the moving statistics that is kept.
        epsilon: Float, added to the variance.

    Input shape: `(batch, height, width, channels)` or `(batch, channels)`.
    Output shape: the same.
    """

    def __init__(
        self, affine=True, momentum=MOMENTUM, epsilon=EPSILON, **kwargs
    ):
        super().__init__(**kwargs)
        self.affine = affine
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        options = {
            "shape": (input_shape[-1],),
            # Statistics stay in full precision under a mixed policy.
            "dtype": precise(self.compute_dtype),
            "autocast": False,
        }
        if self.affine:
            self.scale = self.add_weight(
                name="scale", initializer="ones", **options
            )
            self.offset = self.add_weight(
                name="offset", initializer="zeros", **options
            )
        options |= MOVING
        self.moving_mean = self.add_weight(
            name="moving_mean", initializer="zeros", **options
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", initializer="ones", **options
        )

    def call(self, inputs, training=False):
        maps = inputs
        if inputs.shape.rank == 2:
            maps = tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        if self.affine:
            scale = tf.convert_to_tensor(self.scale)
            offset = tf.convert_to_tensor(self.offset)
        else:
            scale = tf.ones(self.moving_mean.shape, self.moving_mean.dtype)
            offset = tf.zeros_like(scale)
        if training:
            outputs, mean, variance = batch_normalize(
                maps, scale, offset, epsilon=self.epsilon
            )
            for moving, batch in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                moving.assign(moved(moving, batch, self.momentum))
        else:
            outputs = normalize(
                maps,
                scale,
                offset,
                tf.convert_to_tensor(self.moving_mean),
                tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
            )
        if inputs.shape.rank == 2:
            outputs = tf.reshape(outputs, (-1, inputs.shape[-1]))
        return outputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "affine": self.affine,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


@serializable
class Convolution(keras.layers.Layer):
    """Convolves with symmetric padding and PyTorch's initial weights.

    Args:
        filters: Integer. Output channels.
        kernel_size: Integer or pair `(height, width)` of odd integers.
        stride: Integer or pair `(vertical, horizontal)`.
        rate: Integer. Dilation, with a square kernel.
        use_bias: Boolean.
        padding: `"symmetric"`, or `"valid"` for none.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    filters)` with symmetric padding.
    """

    def __init__(
        self,
        filters,
        kernel_size=1,
        stride=1,
        rate=1,
        use_bias=False,
        padding="symmetric",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in ("symmetric", "valid"):
            raise ValueError(
                "`padding` must be 'symmetric' or 'valid'. "
                f"Received: padding={padding!r}"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.rate = rate
        self.use_bias = use_bias
        self.padding = padding

    def build(self, input_shape):
        height, width = _pair(self.kernel_size)
        channels = input_shape[-1]
        initializer = fan_in_uniform(height * width * channels)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(height, width, channels, self.filters),
            initializer=initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=initializer
            )

    def call(self, inputs):
        kernel = tf.convert_to_tensor(self.kernel)
        if self.padding == "valid":
            outputs = tf.nn.conv2d(inputs, kernel, _pair(self.stride), "VALID")
        elif isinstance(self.kernel_size, int):
            outputs = symmetric_convolution(
                inputs, kernel, stride=self.stride, rate=self.rate
            )
        else:
            margins = [[side // 2, side // 2] for side in self.kernel_size]
            outputs = tf.nn.conv2d(
                inputs, kernel, _pair(self.stride), [[0, 0], *margins, [0, 0]]
            )
        if self.use_bias:
            outputs += tf.convert_to_tensor(self.bias)
        return outputs

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        if self.padding == "valid":
            sizes = [
                size if size is None else size - kernel + 1
                for size, kernel in zip(
                    sizes, _pair(self.kernel_size), strict=True
                )
            ]
        return (
            batch,
            *(
                size if size is None else -(-size // stride)
                for size, stride in zip(sizes, _pair(self.stride), strict=True)
            ),
            self.filters,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "rate": self.rate,
            "use_bias": self.use_bias,
            "padding": self.padding,
        }


@serializable
class DepthwiseConvolution(keras.layers.Layer):
    """Convolves each channel with one filter, with symmetric padding.

    Args:
        kernel_size: Odd integer.
        stride: Integer, 1 or 2.
        rate: Integer. A stride of 2 takes a rate of 1 or 2.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`.
    """

    def __init__(self, kernel_size, stride=1, rate=1, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.stride = stride
        self.rate = rate

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], 1),
            initializer=fan_in_uniform(self.kernel_size**2),
        )

    def call(self, inputs):
        return symmetric_convolution(
            inputs,
            tf.convert_to_tensor(self.kernel),
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
        )

    def compute_output_shape(self, input_shape):
        return strided_shape(input_shape, self.stride)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "rate": self.rate,
        }


def dense(units, fan_in, *, use_bias=True, dtype=None, name=None):
    """Returns a built Keras `Dense` layer with PyTorch's initial weights."""
    initializer = fan_in_uniform(fan_in)
    layer = keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=initializer,
        bias_initializer=initializer,
        dtype=dtype,
        name=name,
    )
    layer.build((None, fan_in))
    return layer


@serializable
class FactorizedReduction(keras.layers.Layer):
    """Halves the map without losing pixels: two interleaved samplings.

    The second sampling of an odd size ends in zeros.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055; the released
    code's `FactorizedReduce`.

    Args:
        filters: Integer. Output channels; an odd one goes to the second half.
        affine: Boolean. Whether the normalisation has scale and offset.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / 2), ceil(width / 2), filters)`.
    """

    def __init__(self, filters, affine=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.affine = affine

    def build(self, input_shape):
        policy = self.dtype_policy
        half = self.filters // 2
        self.even = Convolution(half, dtype=policy, name="even")
        self.odd = Convolution(self.filters - half, dtype=policy, name="odd")
        self.normalization = BatchNormalization(
            self.affine, dtype=policy, name="normalization"
        )
        sampled = strided_shape(input_shape, 2)
        self.even.build(sampled)
        self.odd.build(sampled)
        self.normalization.build((*sampled[:-1], self.filters))

    def call(self, inputs, training=False):
        inputs = tf.nn.relu(inputs)
        even, odd = interleaved(inputs)
        maps = tf.concat([self.even(even), self.odd(odd)], -1)
        return self.normalization(maps, training=training)

    def compute_output_shape(self, input_shape):
        return (*strided_shape(input_shape, 2)[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "affine": self.affine,
        }


def interleaved(inputs):
    """Returns the pixels of even rows and columns, and those of odd ones.

    Where a last odd row or column is missing it is zero.
    """
    odd = [[0, size % 2] for size in inputs.shape[1:3]]
    if any(after for _, after in odd):
        inputs = tf.pad(inputs, [[0, 0], *odd, [0, 0]])
    even, _, _, odd = tf.split(tf.nn.space_to_depth(inputs, 2), 4, -1)
    return even, odd


@serializable
class ReluConvolutionNormalization(keras.layers.Layer):
    """ReLU, convolution, batch normalisation: brings a state to its channels.

    Args:
        filters: Integer. Output channels.
        kernel_size: Odd integer.
        stride: Integer.
        affine: Boolean. Whether the normalisation has scale and offset.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    filters)`.
    """

    def __init__(self, filters, kernel_size=1, stride=1, affine=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.affine = affine

    def build(self, input_shape):
        policy = self.dtype_policy
        self.convolution = Convolution(
            self.filters,
            self.kernel_size,
            self.stride,
            dtype=policy,
            name="convolution",
        )
        self.normalization = BatchNormalization(
            self.affine, dtype=policy, name="normalization"
        )
        self.convolution.build(input_shape)
        self.normalization.build(
            self.convolution.compute_output_shape(input_shape)
        )

    def call(self, inputs, training=False):
        maps = self.convolution(tf.nn.relu(inputs))
        return self.normalization(maps, training=training)

    def compute_output_shape(self, input_shape):
        return (*strided_shape(input_shape, self.stride)[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "affine": self.affine,
        }


def strided_shape(shape, stride):
    """Returns the shape of maps of which every `stride`-th pixel is kept."""
    batch, *sizes, channels = shape
    sizes = (size if size is None else -(-size // stride) for size in sizes)
    return (batch, *sizes, channels)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)
