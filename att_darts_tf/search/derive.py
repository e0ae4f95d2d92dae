"""From architecture weights to a genotype. Needs no model: NumPy only."""

import numpy as np

from att_darts_tf.errors import InfeasibleError, UsageError
from att_darts_tf.space import genotype, search_space


def derive(architecture, location):
    """Returns the genotype that architecture weights stand for.

    A node keeps the two edges whose strongest operation has the largest
    relative weight, the stronger one first; an edge keeps its strongest
    candidate of each stage, and the output its strongest attention. `none` is
    never chosen, and ties go to the lower index.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.4;
    the attentions as in Nakai et al., 2020.

    Args:
        architecture: Dictionary of arrays by parameter name, as in
            `SearchSpace.architecture_shapes()`: `(num_edges, num_candidates)`
            for `alphas_*` and `betas_*`, `(num_candidates,)` for `gammas_*`.
            Before the softmax.
        location: String, a key of `SEARCH_SPACES`.

    Returns:
        A `Genotype`.

    Example:

    >>> shapes = search_space.get("no_attention").architecture_shapes()
    >>> architecture = {name: np.zeros(shapes[name]) for name in shapes}
    >>> names = search_space.OPERATION_NAMES
    >>> architecture["alphas_normal"][:, names.index("dil_conv_3x3")] = 1.0
    >>> print(derive(architecture, "no_attention").normal.nodes[0][0])
    dil_conv_3x3(0)
    """
    space = search_space.get(location)
    architecture = checked(architecture, location)
    cells = {}
    for cell in search_space.CELL_NAMES:
        stages = [
            architecture[f"{parameter}_{cell}"]
            for parameter in search_space.STAGE_PARAMETERS[: len(space.stages)]
        ]
        bottleneck = ""
        if space.output:
            row = architecture[f"{search_space.OUTPUT_PARAMETER}_{cell}"]
            bottleneck = _strongest(row, space.output)[0]
        cells[cell] = _cell(stages, space.stages, bottleneck)
    return genotype.Genotype(**cells)


def checked(architecture, location):
    """Returns architecture weights as float64 arrays of the right shapes.

    Raises a `UsageError` for arrays that are missing, of another location,
    or hold numbers that are not finite.
    """
    shapes = search_space.get(location).architecture_shapes()
    if set(architecture) != set(shapes):
        raise UsageError(
            f"Expected the architecture weights {', '.join(shapes)} of the "
            f"location {location!r}. Received: {', '.join(architecture)}. "
            "Use the location of the search that wrote them"
        )
    arrays = {}
    for name, shape in shapes.items():
        try:
            array = np.asarray(architecture[name], dtype="float64")
        except (OverflowError, TypeError, ValueError) as error:
            raise UsageError(
                f"Expected numbers as `{name}`. Received: {error}"
            ) from error
        if array.shape != shape:
            raise UsageError(
                f"Expected `{name}` of shape {shape} for the location "
                f"{location!r}. Received: shape {array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise InfeasibleError(
                f"Expected finite numbers as `{name}`. Received: "
                f"{np.sum(~np.isfinite(array))} that are not, so the search "
                "has diverged; lower its learning rates"
            )
        arrays[name] = array
    return arrays


def _cell(stages, names, bottleneck):
    nodes = []
    for node in range(search_space.NUM_NODES):
        edges = []
        weights = []
        for source in range(node + search_space.NUM_INPUTS):
            index = search_space.edge_index(node, source)
            chosen = [
                _strongest(rows[index], candidates)
                for rows, candidates in zip(stages, names)
            ]
            edges.append(genotype.Edge(source, tuple(n for n, _ in chosen)))
            weights.append(chosen[0][1])
        order = np.argsort(-np.asarray(weights), kind="stable")
        kept = order[: search_space.EDGES_PER_NODE]
        nodes.append(tuple(edges[i] for i in kept))
    concat = tuple(
        range(search_space.NUM_INPUTS, search_space.NUM_INPUTS + len(nodes))
    )
    return genotype.Cell(tuple(nodes), concat, bottleneck)


def _strongest(row, names):
    """Returns the strongest candidate but `none`, and its relative weight."""
    weights = search_space.relative_weights(row)
    columns = search_space.selectable_columns(names)
    # `max` returns the first of equal ones.
    best = max(columns, key=lambda column: row[column])
    return names[best], weights[best]
