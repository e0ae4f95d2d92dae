"""How much memory a network takes, told before its first step.

The figures are of TensorFlow 2.21 on a CPU. `cost.activation_bytes` counts what
is kept exactly, but traces the network for it, for a quarter of the time to the
first step.
"""

import math

from att_darts_tf import memory
from att_darts_tf.network.cell import Edge
from att_darts_tf.space.attentions import ATTENTIONS

# Python and TensorFlow; then, for each layer and each attention, what building
# it and the graphs of a training step or of inference add.
_PROGRAM_GB = 0.6
_LAYER_GB, _ATTENTION_GB = 0.0011, 0.005
_INFERENCE = 0.4
# Copies of all weights: themselves, their momentum and two of the gradient.
_COPIES = 4
# Maps that an attention keeps beside what the layers in it read.
_OF_ATTENTION = 2.0
# Maps as large as the largest that an inference has at once, and batches of
# images that are ready before they are needed.
_AT_ONCE, _READY = 4, 4


def estimate(network, batch_size):
    """Returns about how much memory a training's process takes, in GB.

    Measured settings lie within 30 % (tests/network/test_memory.py).

    Args:
        network: A built `Classifier`.
        batch_size: Integer. Images in a step.
    """
    weights = sum(math.prod(v.shape) for v in network.trainable_variables)
    kept = batch_size * numbers_kept(network) * _bytes(network)
    kept += _images(network, batch_size)
    return _program(network) + (kept + 4 * _COPIES * weights) / 1e9


def estimate_inference(network, batch_size, *, graphs=1):
    """Does the same for a process that judges or exports a network.

    Args:
        network: As in `estimate`, as is `batch_size`.
        graphs: Integer. How many graphs of the network it holds.
    """
    largest = max(map(_read, network._flatten_layers()))
    maps = _AT_ONCE * batch_size * largest * _bytes(network)
    weights = sum(math.prod(v.shape) for v in network.variables)
    return _program(network, share=graphs * _INFERENCE) + (
        maps + _images(network, batch_size) + 8 * weights
    ) / 1e9


def numbers_kept(layer):
    """Returns about how many numbers of an image a training step keeps.

    They are the maps that layers read, within 15 % of
    `cost.activation_bytes`.

    Args:
        layer: A built network or layer of one.
    """
    return sum(map(_kept, layer._flatten_layers()))


def check(network, batch_size):
    """Returns a line that tells the memory of a training beside what is free.

    Args:
        network: As in `estimate`, as is `batch_size`.

    Raises:
        UsageError: If it is more than is free, with what to lower.
    """
    return memory.compare(
        estimate(network, batch_size) + _left_over(),
        what="a training",
        remedy=lambda free: (
            "lower batch_size, channels or cells of config.network (of "
            "config.selection in the stage select)"
        ),
    )


def check_inference(network, batch_size, *, graphs=1):
    """Does the same for what `estimate_inference` is of."""
    return memory.compare(
        estimate_inference(network, batch_size, graphs=graphs)
        + _left_over(),
        what="a network",
        remedy=lambda free: (
            "end other programs or take a machine with more memory"
        ),
    )


def _left_over():
    """Returns what an earlier network of this process has left, in GB."""
    return max(memory.resident() - _PROGRAM_GB - 0.1, 0.0)


def _program(network, *, share=1.0):
    layers = list(network._flatten_layers(include_self=False))
    attentions = sum(
        _num_attentions(layer) for layer in layers if isinstance(layer, Edge)
    )
    graph = _LAYER_GB * len(layers) + _ATTENTION_GB * attentions
    return _PROGRAM_GB + share * graph


def _images(network, batch_size):
    return 4 * _READY * batch_size * math.prod(network.image_shape)


def _bytes(network):
    return 2 if network.compute_dtype.endswith("16") else 4


def _num_attentions(edge):
    return sum(name in ATTENTIONS for name in edge.layers)


def _kept(layer):
    if isinstance(layer, Edge):
        maps = math.prod(layer.compute_output_shape(_shape(layer))[1:])
        return _OF_ATTENTION * _num_attentions(layer) * maps
    return _read(layer)


def _read(layer):
    """Returns the numbers of an image that a layer without others reads."""
    shape = _shape(layer)
    if any(layer._flatten_layers(include_self=False, recursive=False)):
        return 0
    return math.prod(shape[1:]) if shape else 0


def _shape(layer):
    return (layer.get_build_config() or {}).get("input_shape")
