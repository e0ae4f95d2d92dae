"""Pairs the weights of a bundle with those of its plain layers."""

import numpy as np


def pairs(mixed, plain):
    """Yields each weight of a bundle with its plain counterpart.

    Args:
        mixed: Built `MixedBundle`.
        plain: Built `PlainMixedBundle` with the same arguments.

    Yields:
        Two `Slice`s, of `mixed` and of `plain`.
    """
    for column in range(len(mixed.names)):
        for edge in range(mixed.edges):
            mine = mixed.slices(column, edge)
            theirs = plain.slices(column, edge)
            assert mine.keys() == theirs.keys()
            for name in mine:
                yield mine[name], theirs[name]


def part(values, place):
    """Returns the numbers of a slice out of its variable's, flat."""
    size = int(np.prod(place.shape))
    return np.ravel(values)[place.start :][:size]


def copy(plain, mixed):
    """Gives a bundle the weights of plain layers."""
    values = {id(v): v.numpy() for v in mixed.variables}
    for mine, theirs in pairs(mixed, plain):
        part(values[id(mine.variable)], mine)[:] = part(
            theirs.variable.numpy(), theirs
        )
    for variable in mixed.variables:
        variable.assign(values[id(variable)])
