"""Weights by the names of the authors' state dictionaries.

A name of theirs stands for a whole variable of a plain layer, or for the part
of one edge where a supernet keeps the weights of several edges together.

Source: state dictionaries of the released code, as its checkpoints hold them.
"""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from att_darts_tf.errors import UsageError
from att_darts_tf.network.network import Network
from att_darts_tf.search.cell import edges_from
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.space import attentions, blocks, search_space

# PyTorch counts the batches that a normalisation has seen; nothing reads it.
IGNORED = "num_batches_tracked"
_POOLS = ("max_pool_3x3", "avg_pool_3x3")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the weight of one of their names is kept.

    Args:
        variable: Keras variable.
        start: Integer. Where in the variable, flat, the weight begins.
        shape: Tuple of integers, the weight's; `None`: all of the variable.
        turned: Boolean. Whether their axes stand in another order.
    """

    variable: keras.Variable
    start: int = 0
    shape: tuple[int, ...] | None = None
    turned: bool = True

    def __post_init__(self):
        if self.shape is None:
            object.__setattr__(self, "shape", tuple(self.variable.shape))

    def part(self, value) -> np.ndarray:
        """Returns the weight's part of a value of the variable, flat."""
        return np.ravel(value)[self.start :][: int(np.prod(self.shape))]

    def ours(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of theirs with its axes in our order."""
        array = np.asarray(array)
        if not self.turned:
            return array
        # Kernels: (filters, channels / groups, height, width), or (out, in).
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

    def accepts(self, array: np.ndarray) -> bool:
        """Whether an array of theirs fits; sizes of one may be left out."""

        def sizes(shape):
            return [size for size in shape if size != 1]

        ours = self.ours(array).shape
        fits = sizes(self.shape) == sizes(ours)
        if np.ndim(array) == 2 or (np.ndim(array) == 4 and ours[:2] == (1, 1)):
            # Dense, or a convolution of one pixel: (channels, filters).
            return fits and tuple(self.shape[-2:]) == tuple(ours[-2:])
        return fits


def _normalization(ours="", theirs=""):
    return {
        f"{ours}scale": f"{theirs}weight",
        f"{ours}offset": f"{theirs}bias",
        f"{ours}moving_mean": f"{theirs}running_mean",
        f"{ours}moving_variance": f"{theirs}running_var",
    }


def _kernel(ours="", theirs=""):
    return {f"{ours}kernel": f"{theirs}weight", f"{ours}bias": f"{theirs}bias"}


def _separable(repeats):
    table = {}
    for i in range(repeats):
        place = 1 + 4 * i
        table |= _kernel(f"depthwise_{i}.", f"op.{place}.")
        table |= _kernel(f"pointwise_{i}.", f"op.{place + 1}.")
        table |= _normalization(f"normalization_{i}.", f"op.{place + 2}.")
    return table


_FACTORIZED_REDUCTION = {
    **_kernel("even.", "conv_1."),
    **_kernel("odd.", "conv_2."),
    **_normalization("normalization.", "bn."),
}
_RELU_CONVOLUTION_NORMALIZATION = {
    **_kernel("convolution.", "op.1."),
    **_normalization("normalization.", "op.2."),
}
# How a cell brings its inputs to its size.
_PREPROCESSING = {
    blocks.FactorizedReduction: _FACTORIZED_REDUCTION,
    blocks.ReluConvolutionNormalization: _RELU_CONVOLUTION_NORMALIZATION,
}
_STEMS = {
    "small": {
        **_kernel("convolution.", "stem.0."),
        **_normalization("normalization.", "stem.1."),
    },
    "imagenet": {
        **_kernel("convolution_0.", "stem0.0."),
        **_normalization("normalization_0.", "stem0.1."),
        **_kernel("convolution_1.", "stem0.3."),
        **_normalization("normalization_1.", "stem0.4."),
        **_kernel("convolution_2.", "stem1.1."),
        **_normalization("normalization_2.", "stem1.2."),
    },
}
_AUXILIARY_HEAD = {
    **_kernel("squeeze.", "features.2."),
    **_normalization("squeeze_normalization.", "features.3."),
    **_kernel("features.", "features.5."),
    **_normalization("features_normalization.", "features.6."),
    **_kernel("classifier.", "classifier."),
}
_BAM_CHANNEL = "_mask.channel_att.gate_c.gate_c_"
_BAM_SPATIAL = "_mask.spatial_att.gate_s.gate_s_"
_CBAM_SPATIAL = "_mask.SpatialAttention.spatial."

# What each operation and attention calls its weights, ours to theirs.
TABLES = {
    "skip_connect": _FACTORIZED_REDUCTION,
    "sep_conv_3x3": _separable(2),
    "sep_conv_5x5": _separable(2),
    "sep_conv_7x7": _separable(2),
    "dil_conv_3x3": _separable(1),
    "dil_conv_5x5": _separable(1),
    "conv_7x1_1x7": {
        **_kernel("row.", "1."),
        **_kernel("column.", "2."),
        **_normalization("normalization.", "3."),
    },
    "SE": {
        **_kernel("squeeze.", "_mask.excitation.0."),
        **_kernel("excite.", "_mask.excitation.2."),
    },
    "BAM": {
        **_kernel("channel_squeeze.", f"{_BAM_CHANNEL}fc_0."),
        **_normalization("channel_normalization.", f"{_BAM_CHANNEL}bn_1."),
        **_kernel("channel_excite.", f"{_BAM_CHANNEL}fc_final."),
        **_kernel("spatial_reduce.", f"{_BAM_SPATIAL}conv_reduce0."),
        **_normalization(
            "spatial_normalization_0.", f"{_BAM_SPATIAL}bn_reduce0."
        ),
        **_kernel("spatial_0.", f"{_BAM_SPATIAL}conv_di_0."),
        **_normalization("spatial_normalization_1.", f"{_BAM_SPATIAL}bn_di_0."),
        **_kernel("spatial_1.", f"{_BAM_SPATIAL}conv_di_1."),
        **_normalization("spatial_normalization_2.", f"{_BAM_SPATIAL}bn_di_1."),
        **_kernel("spatial_excite.", f"{_BAM_SPATIAL}conv_final."),
    },
    "CBAM": {
        **_kernel("squeeze.", "_mask.ChannelAttention.mlp.1."),
        **_kernel("excite.", "_mask.ChannelAttention.mlp.3."),
        **_kernel("convolution.", f"{_CBAM_SPATIAL}conv."),
        **_normalization("normalization.", f"{_CBAM_SPATIAL}bn."),
    },
    "GE_theta-plus": {
        "kernel": "_mask.downop.dwconv.weight",
        **_normalization("normalization.", "_mask.downop.bn."),
        **_kernel("squeeze.", "_mask.mlp.0."),
        **_kernel("excite.", "_mask.mlp.2."),
    },
    "DoubleAttention": {
        **_kernel("features.", "_mask.convA."),
        **_kernel("gathering.", "_mask.convB."),
        **_kernel("distribution.", "_mask.convV."),
        **_kernel("output_projection.", "_mask.convZ."),
    },
}


def of_layer(kind: str, layer: keras.layers.Layer) -> dict[str, Place]:
    """Returns the places of an operation's or attention's weights.

    Args:
        kind: String. Its registered name.
        layer: Built layer.
    """
    return _of_layer("", layer, TABLES.get(kind, {}))


def of_network(network: Network) -> dict[str, Place]:
    """Returns the places of a final network's weights by their names.

    Args:
        network: Built network.
    """
    named = _of_layer("", network.stem, _STEMS[network.stem_name])
    for i, cell in enumerate(network.cells):
        named |= _of_preprocessing(i, cell.preprocess)
        for k, edge in enumerate(cell.edges):
            named |= _of_edge(i, k, edge, reduction=cell.reduction)
        if cell.bottleneck is not None:
            table = TABLES.get(cell.cell.bottleneck, {})
            name = f"cells.{i}._bottleneck."
            named |= _of_layer(name, cell.bottleneck, table)
    if network.auxiliary_head is not None:
        head = network.auxiliary_head
        named |= _of_layer("auxiliary_head.", head, _AUXILIARY_HEAD)
    return named | _of_layer("classifier.", network.classifier, _kernel())


def of_supernet(supernet: Supernet) -> dict[str, Place]:
    """Returns the places of a supernet's weights by their names.

    The architecture weights are among them.

    Args:
        supernet: Built supernet, batched or plain.
    """
    named = {
        variable.name: Place(variable, turned=False)
        for variable in supernet.architecture_variables
    }
    named |= _of_layer("stem.0.", supernet.stem, _kernel())
    named |= _of_layer("stem.1.", supernet.stem_normalization, _normalization())
    for i, cell in enumerate(supernet.cells):
        named |= _of_preprocessing(i, cell.preprocessing)
        for state, stages in enumerate(cell.bundles):
            rows = edges_from(state)
            strided = cell.reduction and state < search_space.NUM_INPUTS
            for stage, bundle in zip(("first", "second"), stages, strict=False):
                named |= _of_bundle(
                    [f"cells.{i}.layers.{row}.{stage}_layers" for row in rows],
                    bundle,
                    strided=strided,
                )
        if cell.space.output:
            named |= _of_bundle(
                [f"cells.{i}.bottleneck_attns"],
                cell.output_attention,
                strided=False,
            )
    return named | _of_layer("classifier.", supernet.classifier, _kernel())


def of_model(model: Network | Supernet) -> dict[str, Place]:
    """Returns the places of all weights of a model by their names."""
    return (of_supernet if isinstance(model, Supernet) else of_network)(model)


def load(named: Mapping[str, Place], state: Mapping[str, np.ndarray]) -> None:
    """Sets weights to the authors' values, all of them or none.

    Args:
        named: Places by their names, as of a whole model.
        state: Mapping of their names to arrays in their layout. Raises
            `UsageError` with all names that are missing, surplus or of another
            shape.
    """
    state = {
        name: np.asarray(array)
        for name, array in state.items()
        if not name.endswith(IGNORED)
    }
    trouble = [f"missing {name}" for name in named if name not in state]
    trouble += [f"surplus {name}" for name in state if name not in named]
    trouble += [
        f"{name} has shape {state[name].shape}, which does not fit "
        f"{place.shape}"
        for name, place in named.items()
        if name in state and not place.accepts(state[name])
    ]
    values = {}
    if not trouble:
        for name, place in named.items():
            trouble += _fill(values, name, place, state[name])
    if trouble:
        raise UsageError(
            "Expected a state dictionary of this model. Received one with "
            f"{len(trouble)} differences: {'; '.join(trouble)}. Give the "
            "cells, the location and the image size it was made with"
        )
    for variable, value, _ in values.values():
        variable.assign(value)


def _fill(values, name, place, array):
    """Puts an array into its variable's value; returns what is wrong."""
    array = place.ours(array).ravel()
    _, value, filled = values.setdefault(
        id(place.variable),
        (place.variable, np.empty(place.variable.shape), {}),
    )
    part = place.part(value)
    # The pools of a state are equal on all its edges, and kept once.
    if place.start in filled and not np.allclose(part, array):
        return [
            f"{name} is not {filled[place.start]}, a pool of one state (a "
            "plain supernet keeps them apart)"
        ]
    filled[place.start] = name
    part[:] = array
    return []


def _of_preprocessing(i, layers):
    named = {}
    for k, layer in enumerate(layers):
        table = _PREPROCESSING[type(layer)]
        named |= _of_layer(f"cells.{i}.preprocess{k}.", layer, table)
    return named


def _of_edge(i, k, edge, *, reduction):
    steps = iter(edge.steps)
    named = {}
    for stage, kind in zip(("first", "second"), edge.layers, strict=False):
        name = f"cells.{i}._{stage}_layers.{k}."
        if stage == "first" and reduction and kind in attentions.ATTENTIONS:
            # A sequence; its skip has no weights where nothing is strided.
            if edge.stride > 1:
                skip = next(steps)
                named |= _of_layer(f"{name}0.", skip, _FACTORIZED_REDUCTION)
            name += "1."
        named |= _of_layer(name, next(steps), TABLES.get(kind, {}))
    return named


def _of_bundle(names, bundle, *, strided):
    """Returns the places of a mixed layer, given the name of each edge.

    Among operations of a strided edge an attention is a sequence, of which the
    skip has no weights where the layer itself has no stride.
    """
    sequence = strided and search_space.NONE in bundle.names
    named = {}
    for i in range(len(bundle.names)):
        for k, name in enumerate(names):
            below = f"{name}.{i}."
            named |= _of_candidate(below, bundle, i, k, sequence=sequence)
    return named


def _of_candidate(name, bundle, i, k, *, sequence):
    """Returns the places of candidate `i` on edge `k` of a mixed layer."""
    kind = bundle.names[i]
    table = TABLES.get(kind, {})
    if kind in _POOLS:
        table = _normalization("normalization.", "1.")
    elif sequence and kind in attentions.ATTENTIONS:
        table = {ours: f"1.{theirs}" for ours, theirs in table.items()}
    reduction = {
        f"reduction.{ours}": f"0.{theirs}"
        for ours, theirs in _FACTORIZED_REDUCTION.items()
    }
    weights = bundle.slices(i, k)
    return _named(name, weights, table | reduction, type(bundle).__name__)


def _of_layer(name, layer, table):
    """Returns the places of a layer that stands at a name of theirs."""
    weights = {
        ours: (variable,)
        for ours, variable in blocks.weights_by_name(layer).items()
    }
    return _named(name, weights, table, type(layer).__name__)


def _named(name, weights, table, kind):
    unknown = sorted(weights.keys() - table.keys())
    if unknown:
        raise UsageError(
            f"Expected a layer of the released code at {name or 'the top'}. "
            f"Received: {kind}, whose {', '.join(unknown)} has "
            "no name there. Take operations that the released code has"
        )
    return {
        f"{name}{table[ours]}": Place(*weight)
        for ours, weight in weights.items()
    }
