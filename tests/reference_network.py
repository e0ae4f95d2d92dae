"""Weights of the authors' networks in ours, name by name.

The names are those of the state dictionaries of their released checkpoints.
"""

import keras
import numpy as np

from att_darts_tf.space import attentions, blocks, operations

_NORMALIZATION = {
    "weight": "scale",
    "bias": "offset",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_BAM_NORMALIZATIONS = ("reduce0", "di_0", "di_1")


def variables_by_name(network):
    """Returns every variable of a `Network` by its name at the authors'."""
    named = {}
    if network.stem_name == "small":
        named |= _convolution("stem.0", network.stem.convolution)
        named |= _normalization("stem.1", network.stem.normalization)
    else:
        places = (("stem0", 0), ("stem0", 3), ("stem1", 1))
        for (stem, place), convolution, normalization in zip(
            places, network.stem.convolutions, network.stem.normalizations
        ):
            named |= _convolution(f"{stem}.{place}", convolution)
            named |= _normalization(f"{stem}.{place + 1}", normalization)
    for i, cell in enumerate(network.cells):
        name = f"cells.{i}"
        for k, layer in enumerate(cell.preprocess):
            named |= _operation(f"{name}.preprocess{k}", layer)
        for k, edge in enumerate(cell.edges):
            named |= _edge(name, k, edge, reduction=cell.reduction)
        if cell.bottleneck is not None:
            named |= _attention(f"{name}._bottleneck", cell.bottleneck)
    head = network.auxiliary_head
    if head is not None:
        name = "auxiliary_head.features"
        named |= _convolution(f"{name}.2", head.squeeze)
        named |= _normalization(f"{name}.3", head.squeeze_normalization)
        named |= _convolution(f"{name}.5", head.features)
        if head.features_normalization is not None:
            named |= _normalization(f"{name}.6", head.features_normalization)
        named |= _dense("auxiliary_head.classifier", head.classifier)
    named |= _dense("classifier", network.classifier)
    return named


def to_ours(array, variable):
    """Returns an array of theirs in the layout of our variable."""
    array = np.asarray(array)
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
        if array.shape != variable.shape and variable.shape[-1] == 1:
            # Depthwise: (height, width, 1, channels).
            array = array.swapaxes(2, 3)
        return array.reshape(variable.shape)
    return array.T.reshape(variable.shape)


def load_state(network, state):
    """Sets every variable of a network to the authors' values.

    Args:
        network: Built `Network`.
        state: Mapping of their names to arrays in their layout. Every
            variable must be in it, and nothing else but batch counters.
    """
    named = variables_by_name(network)
    expected = {
        name for name in state if not name.endswith("num_batches_tracked")
    }
    if expected != named.keys():
        raise ValueError(
            "Expected the same names on both sides. Received only there: "
            f"{sorted(expected - named.keys())[:5]}, only here: "
            f"{sorted(named.keys() - expected)[:5]}"
        )
    for name, variable in named.items():
        variable.assign(to_ours(state[name], variable))


def _edge(cell, k, edge, *, reduction):
    named = {}
    first, *rest = edge.steps
    name = f"{cell}._first_layers.{k}"
    starts_with_attention = edge.layers[0] in attentions.ATTENTIONS
    if starts_with_attention and reduction:
        if edge.stride == 2:
            named |= _operation(f"{name}.0", first)
            first, *rest = rest
        name = f"{name}.1"
    named |= _step(name, first)
    for step in rest:
        named |= _step(f"{cell}._second_layers.{k}", step)
    return named


def _step(name, layer):
    if isinstance(layer, attentions.Attention):
        return _attention(name, layer)
    return _operation(name, layer)


def _operation(name, layer):
    if isinstance(layer, blocks.FactorizedReduction):
        return {
            **_convolution(f"{name}.conv_1", layer.even),
            **_convolution(f"{name}.conv_2", layer.odd),
            **_normalization(f"{name}.bn", layer.normalization),
        }
    if isinstance(layer, blocks.ReluConvolutionNormalization):
        return {
            **_convolution(f"{name}.op.1", layer.convolution),
            **_normalization(f"{name}.op.2", layer.normalization),
        }
    if isinstance(layer, operations.SeparableConvolution):
        named = {}
        for i in range(layer.repeats):
            place = 1 + 4 * i
            named |= _convolution(f"{name}.op.{place}", layer.depthwise[i])
            named |= _convolution(f"{name}.op.{place + 1}", layer.pointwise[i])
            named |= _normalization(
                f"{name}.op.{place + 2}", layer.normalization[i]
            )
        return named
    if isinstance(layer, operations.FactorizedConvolution):
        return {
            **_convolution(f"{name}.1", layer.row),
            **_convolution(f"{name}.2", layer.column),
            **_normalization(f"{name}.3", layer.normalization),
        }
    return _nothing(name, layer)


def _attention(name, layer):
    name = f"{name}._mask"
    if isinstance(layer, attentions.SqueezeExcite):
        return {
            **_dense(f"{name}.excitation.0", layer.squeeze),
            **_dense(f"{name}.excitation.2", layer.excite),
        }
    if isinstance(layer, attentions.BottleneckAttention):
        return _bam(name, layer)
    if isinstance(layer, attentions.ConvolutionalBlockAttention):
        spatial = f"{name}.SpatialAttention.spatial"
        return {
            **_dense(f"{name}.ChannelAttention.mlp.1", layer.squeeze),
            **_dense(f"{name}.ChannelAttention.mlp.3", layer.excite),
            **_convolution(f"{spatial}.conv", layer.convolution),
            **_normalization(f"{spatial}.bn", layer.normalization),
        }
    if isinstance(layer, attentions.GatherExcite):
        return {
            f"{name}.downop.dwconv.weight": layer.kernel,
            **_normalization(f"{name}.downop.bn", layer.normalization),
            **_dense(f"{name}.mlp.0", layer.squeeze),
            **_dense(f"{name}.mlp.2", layer.excite),
        }
    if isinstance(layer, attentions.DoubleAttention):
        return {
            **_dense(f"{name}.convA", layer.features),
            **_dense(f"{name}.convB", layer.gathering),
            **_dense(f"{name}.convV", layer.distribution),
            **_dense(f"{name}.convZ", layer.output_projection),
        }
    return _nothing(name, layer)


def _bam(name, layer):
    channel = f"{name}.channel_att.gate_c.gate_c"
    spatial = f"{name}.spatial_att.gate_s.gate_s"
    named = {
        **_dense(f"{channel}_fc_0", layer.channel_squeeze),
        **_normalization(f"{channel}_bn_1", layer.channel_normalization),
        **_dense(f"{channel}_fc_final", layer.channel_excite),
        **_convolution(f"{spatial}_conv_final", layer.spatial_excite),
    }
    for place, convolution, normalization in zip(
        _BAM_NORMALIZATIONS,
        layer.spatial_convolutions,
        layer.spatial_normalizations,
    ):
        named |= _convolution(f"{spatial}_conv_{place}", convolution)
        named |= _normalization(f"{spatial}_bn_{place}", normalization)
    return named


def _convolution(name, layer):
    named = {f"{name}.weight": layer.kernel}
    if getattr(layer, "use_bias", False):
        named[f"{name}.bias"] = layer.bias
    return named


def _dense(name, layer):
    return _convolution(name, layer)


def _normalization(name, layer):
    return {
        f"{name}.{theirs}": getattr(layer, ours)
        for theirs, ours in _NORMALIZATION.items()
        if layer.affine or theirs.startswith("running")
    }


def _nothing(name, layer):
    if layer.variables:
        raise ValueError(
            f"Expected a layer of the released code at {name}. Received: "
            f"{layer}, of which the names are not known"
        )
    return {}


def compare(network, fixture):
    """Returns the largest differences from a case of the authors' numbers.

    Args:
        network: `Network` in float64, which this function changes.
        fixture: Mapping of the names of one case, without its prefix, to
            arrays.

    Returns:
        A dictionary of differences, each relative to the largest magnitude of
        what is compared: of outputs, or of all gradients or statistics.
    """
    import tensorflow as tf

    from att_darts_tf.engine.losses import cross_entropy

    def part(prefix):
        return {
            name.removeprefix(prefix): array
            for name, array in fixture.items()
            if name.startswith(prefix)
        }

    load_state(network, part("state/"))
    named = variables_by_name(network)
    images = tf.constant(fixture["input"].transpose(0, 2, 3, 1), tf.float64)
    labels = tf.constant(fixture["labels"])
    found = {"logits_inference": network(images, training=False)}
    with tf.GradientTape() as tape:
        logits, auxiliary = network(images, training=True, auxiliary=True)
        loss = cross_entropy(labels, logits)
        loss += 0.4 * cross_entropy(labels, auxiliary)
    weights = network.trainable_variables
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    gradient_of = {id(w): g for w, g in zip(weights, gradients)}
    found |= {
        "logits_training": logits,
        "auxiliary_logits_training": auxiliary,
        "loss_training": loss,
        "gradient_global_norm": tf.linalg.global_norm(gradients),
    }
    differences = {
        name: _difference(value, fixture[name]) for name, value in found.items()
    }
    for kind, value_of in (
        ("gradient/", lambda variable: gradient_of[id(variable)]),
        ("after/", lambda variable: variable.value),
    ):
        expected = {
            name: to_ours(array, named[name])
            for name, array in part(kind).items()
        }
        scale = max(np.abs(array).max() for array in expected.values())
        differences[kind] = max(
            np.abs(value_of(named[name]) - array).max() / scale
            for name, array in expected.items()
        )
    differences["parameters"] = abs(
        network.num_parameters()
        - int(fixture["num_parameters_without_auxiliary"])
    )
    return differences


def _difference(found, expected):
    found = np.asarray(keras.ops.convert_to_numpy(found))
    return np.abs(found - expected).max() / np.abs(expected).max()
