"""What a network costs: weights, arithmetic, memory and time.

Nothing but the time depends on the machine. Multiply-adds are counted from
layers and the shapes that they were built for, not from TensorFlow's graph,
which convolves a dilated map in padded phases.
"""

import math
import statistics
import time

import keras
import tensorflow as tf

from att_darts_tf.network import network as network_module
from att_darts_tf.space import attentions, blocks, published

LATENCY_BATCHES = (1, 32)
# Runs of inference that are timed: the most, and the fewest, at which it ends
# once they have taken so many seconds.
RUNS, FEWEST_RUNS, SECONDS = 9, 3, 10.0
# What gives the same numbers another name or shape.
_ALIASES = ("Expand", "ExpandDims", "Identity", "IdentityN", "Reshape",
            "Squeeze", "StopGradient")
_NO_MAPS = ("Const", "Placeholder", "ReadVariableOp")


def count(network):
    """Returns the costs that do not depend on the machine, as plain data.

    Args:
        network: A built `Classifier`.

    Returns:
        `parameters` (without auxiliary head), `parameters_with_auxiliary`,
        `multiply_adds` and `activation_bytes`, of one image.

    Example:

    >>> network = network_module.Network.from_genotype(
    ...     "darts_v1",
    ...     image_shape=(8, 8, 3),
    ...     num_classes=10,
    ...     channels=4,
    ...     cells=1,
    ... )
    >>> count(network)["parameters"]
    902
    """
    return {
        "parameters": network.num_parameters(),
        "parameters_with_auxiliary": network.num_parameters(auxiliary=True),
        "multiply_adds": multiply_adds(network),
        "activation_bytes": activation_bytes(network),
    }


def multiply_adds(layer):
    """Returns the multiplications, each with its addition, of one image.

    Counted are convolutions and depthwise convolutions (padding as if it were
    pixels), dense layers, and the two products of maps in double attention, at
    inference: without auxiliary head. Left out are biases, normalisation,
    pooling, activations, gates and sums.

    Some published figures hold more. Those 597 million of PC-DARTS on ImageNet
    (Xu et al., 2020, https://arxiv.org/abs/1907.05737) are the 582 million
    counted here, 2 for each number that is normalised and 1 for each that a
    ReLU or a pool reads, as https://github.com/sovrasov/flops-counter.pytorch
    does. The 574 million of `darts_v2` (Liu et al., 2019, table 3) have not
    been reached from its released cell: 530 million are counted here, and 544.6
    in that way, as in https://github.com/quark0/darts/issues/46.

    Args:
        layer: A built network or layer of one.
    """
    # A layer of a user's may say it itself.
    own = _OWN.get(type(layer), getattr(type(layer), "multiply_adds", None))
    inner = [
        below
        # A network's layers; those of other layers have no public name.
        for below in layer._flatten_layers(include_self=False, recursive=False)
        if not isinstance(below, network_module.AuxiliaryHead)
    ]
    if own is None and not inner and layer.trainable_variables:
        raise ValueError(
            "Expected layers whose multiply-adds are known. Received: "
            f"{type(layer).__name__}. Give it a method `multiply_adds`"
        )
    return sum(map(multiply_adds, inner)) + (0 if own is None else own(layer))


def _convolution(layer):
    shape = layer.compute_output_shape(_input_shape(layer))
    return math.prod(shape[1:3]) * math.prod(layer.kernel.shape)


def _kernel(layer):
    return math.prod(layer.kernel.shape)


def _second_gate(layer):
    """Counts CBAM's gate once more: of averages, and of maxima."""
    return _kernel(layer.squeeze) + _kernel(layer.excite)


def _pixels(layer):
    """Counts what double attention does with each pixel beyond the first."""
    pixels = math.prod(_input_shape(layer)[1:3])
    dense = (
        layer.features,
        layer.gathering,
        layer.distribution,
        layer.output_projection,
    )
    # Gathering and distribution, one vector of `width` for each of `width`.
    products = 2 * pixels * layer.features.units**2
    return (pixels - 1) * sum(map(_kernel, dense)) + products


def _input_shape(layer):
    return layer.get_build_config()["input_shape"]


# What a layer multiplies by itself, beside the layers in it.
_OWN = {
    blocks.Convolution: _convolution,
    blocks.DepthwiseConvolution: _convolution,
    blocks.BatchNormalization: lambda layer: 0,
    keras.layers.Dense: _kernel,
    attentions.ConvolutionalBlockAttention: _second_gate,
    attentions.DoubleAttention: _pixels,
    # A depthwise convolution of the whole map.
    attentions.GatherExcite: _kernel,
}


def activation_bytes(network):
    """Returns how much a training step of one image keeps for its gradient.

    That is the bytes of all maps and vectors that layers make and that the
    gradient reads, each once, in a traced step before TensorFlow optimises it.
    The image, weights and statistics of the batch are not among them. The
    auxiliary head and drop path take part where the network has them.

    Args:
        network: A built `Classifier`.
    """
    forward = []

    def step(images):
        weights = [variable.value for variable in network.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = [
                tf.reduce_sum(logits)
                for logits in network.training_logits(images)
            ]
        forward.extend(outputs[0].graph.get_operations())
        gradients = tape.gradient(outputs, weights)
        return [gradient for gradient in gradients if gradient is not None]

    # On one image, since phases of dilated maps become images of a batch.
    image = tf.TensorSpec((1, *network.image_shape), network.compute_dtype)
    traced = tf.function(step, autograph=False).get_concrete_function(image)
    names = {operation.name for operation in forward}
    kept = {}
    for operation in traced.graph.get_operations():
        if operation.name in names:
            continue
        for tensor in operation.inputs:
            if tensor.op.name in names:
                original = _original(tensor)
                if original.op.type not in _NO_MAPS:
                    kept[original.name] = original
    return sum(
        tensor.shape.num_elements() * tensor.dtype.size
        for tensor in kept.values()
        # What has fewer axes is a shape or a statistic of the batch.
        if tensor.shape.rank is not None and tensor.shape.rank >= 2
    )


def _original(tensor):
    while tensor.op.type in _ALIASES:
        several = tensor.op.type == "IdentityN"
        tensor = tensor.op.inputs[tensor.value_index if several else 0]
    return tensor


def latencies(network):
    """Returns the time of inference for each of `LATENCY_BATCHES`.

    Args:
        network: A built `Classifier`.

    Returns:
        Iterator over pairs of the number of images in a batch and the sorted
        milliseconds of each run of a traced function, after a first one that
        is not among them.
    """
    pixels = tf.TensorSpec((None, *network.image_shape), network.compute_dtype)

    @tf.function(input_signature=[pixels], autograph=False)
    def infer(images):
        return network(images, training=False)

    return latencies_of(infer, pixels)


def latencies_of(infer, pixels):
    """Does the same for a function.

    Args:
        infer: Maps images to a tensor.
        pixels: `tf.TensorSpec` of images, the first axis aside.
    """
    for batch in LATENCY_BATCHES:
        images = tf.zeros((batch, *pixels.shape[1:]), pixels.dtype)
        infer(images).numpy()
        milliseconds = []
        while len(milliseconds) < RUNS and (
            len(milliseconds) < FEWEST_RUNS or sum(milliseconds) < 1e3 * SECONDS
        ):
            begun = time.perf_counter()
            infer(images).numpy()
            milliseconds.append(1e3 * (time.perf_counter() - begun))
        yield batch, sorted(milliseconds)


def examine(
    architecture, *, channels, cells, image_size, num_classes, stem
):
    """Yields lines: which network it is, and the table of its costs.

    Args:
        architecture: As in `network.create`, as are the sizes.
        image_size: Integer. Height and width of images, of three channels.
    """
    # As it is trained, where there is such a head.
    has_head = architecture != published.DENSENET
    network = network_module.create(
        architecture,
        image_shape=(image_size, image_size, 3),
        num_classes=num_classes,
        channels=channels,
        cells=cells,
        auxiliary=has_head,
        stem=stem,
    )
    layers = "cells" if has_head else "layers a block"
    yield (
        f"{cells} {layers}, {channels} channels, stem {stem}, images of "
        f"{image_size} x {image_size} x 3, {num_classes} classes"
    )
    yield from describe(network)


def describe(network):
    """Yields lines of a table of all costs, each as soon as it is known.

    Args:
        network: A built `Classifier`.
    """
    parameters = network.num_parameters()
    auxiliary = network.num_parameters(auxiliary=True)
    yield _line("Parameters", f"{parameters:,}", "trained weights")
    if auxiliary != parameters:
        yield _line("", f"{auxiliary:,}", "with the auxiliary head")
    yield _line(
        "Multiply-adds",
        f"{multiply_adds(network):,}",
        "of an image: convolutions, dense layers",
    )
    yield _line(
        "Activation memory",
        f"{activation_bytes(network) / 1e6:,.1f} MB",
        "of an image: what a training step keeps",
    )
    for batch, runs in latencies(network):
        yield _line(
            f"Latency, batch {batch}",
            f"{statistics.median(runs):,.1f} ms",
            f"median of {len(runs)}, from {runs[0]:,.1f} to {runs[-1]:,.1f}",
        )


def _line(name, figure, meaning):
    return f"{name:17}{figure:>14}  {meaning}"
