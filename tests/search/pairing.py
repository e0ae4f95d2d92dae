"""Pairs the weights of a bundle with those of its plain layers."""

import numpy as np

from att_darts_tf.space import blocks


def pairs(mixed, plain):
    """Yields each variable of a bundle with its plain counterparts.

    Args:
        mixed: Built `MixedBundle`.
        plain: Built `PlainMixedBundle` with the same arguments.

    Yields:
        A variable of `mixed` and the list of those of `plain`, one an edge.
    """
    for i in range(len(mixed.names)):
        column = [row[i] for row in plain.candidates]
        layer = mixed.operations.get(str(i)) or mixed.attentions.get(str(i))
        if layer is None:
            continue
        yield from _pairs(layer, [each.core for each in column])
        if column[0].normalization is not None:
            yield from _pairs(
                layer.normalized, [each.normalization for each in column]
            )
        if str(i) in mixed.reductions:
            yield from _pairs(
                mixed.reductions[str(i)], [each.reduction for each in column]
            )


def stacked(values, variable):
    """Returns the values of all edges in the layout of a bundle's variable."""
    values = np.stack(values)
    # The normalisation of a pool that all edges share is one.
    if values.size != np.prod(variable.shape):
        values = values[0]
    return values.reshape(variable.shape)


def copy(plain, mixed):
    """Gives a bundle the weights of plain layers."""
    for variable, parts in pairs(mixed, plain):
        variable.assign(stacked([part.numpy() for part in parts], variable))


def _pairs(layer, parts):
    mine = blocks.weights_by_name(layer)
    theirs = [blocks.weights_by_name(part) for part in parts]
    for name in theirs[0]:
        yield mine[name], [each[name] for each in theirs]
