"""What a search chooses from, as tables.

Nothing here imports TensorFlow: the command line, genotypes and derivation
need the names only.
"""

import dataclasses
import math

from att_darts_tf.space import registry

NONE = "none"

# Column order of alpha. The operations are those of Liu et al., 2019,
# https://arxiv.org/abs/1806.09055, section 3.1.1.
OPERATION_NAMES = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

# Column order of beta and gamma. The attentions are those of Nakai et al.,
# 2020.
ATTENTION_NAMES = (
    "Identity",
    "SE",
    "BAM",
    "CBAM",
    "GE_theta-plus",
    "DoubleAttention",
)

# Never searched; cells of other publications need them.
EXTRA_OPERATION_NAMES = (
    "sep_conv_7x7",
    "conv_7x1_1x7",
    "conv_1x1",
    "conv_3x3",
    "max_pool_2x2",
    "dil_sep_conv_5x5",
)

# Column order where attentions compete with operations: `skip_connect` is the
# identity already.
EITHER_NAMES = OPERATION_NAMES + ATTENTION_NAMES[1:]

NUM_INPUTS = 2
NUM_NODES = 4
EDGES_PER_NODE = 2

CELL_NAMES = ("normal", "reduce")
# Cells whose mixed layers are computed again for their gradients instead of
# kept, for less memory and more time; "large" are those before the last
# reduction.
RECOMPUTE = ("none", "large", "all")
STAGE_PARAMETERS = ("alphas", "betas")
OUTPUT_PARAMETER = "gammas"


def first_edge(node):
    """Returns the row of a node's edge from state 0."""
    return node * (node + 2 * NUM_INPUTS - 1) // 2


def num_edges(nodes=NUM_NODES):
    """Returns the number of edges when each node reads every earlier state."""
    return first_edge(nodes)


def edge_index(node, source):
    """Returns the row of an edge in the architecture weights.

    Args:
        node: Integer, counted from 0.
        source: Integer, the state that the edge reads: 0 and 1 are the cell's
            inputs, `2 + i` is node `i`.

    Example:

    >>> [edge_index(0, 1), edge_index(1, 0), edge_index(1, 2)]
    [1, 2, 4]
    """
    if node < 0 or not 0 <= source < node + NUM_INPUTS:
        raise ValueError(
            f"Expected a node of at least 0 that reads a state in "
            f"[0, node + {NUM_INPUTS}). Received: node={node}, source={source}"
        )
    return first_edge(node) + source


def reduction_cells(num_cells):
    """Returns the indices of the two cells that halve the map.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 3.1.1.
    """
    return num_cells // 3, 2 * num_cells // 3


def recomputed_cells(recompute, num_cells):
    """Returns how many cells, from the first, gradients compute again.

    Args:
        recompute: String. One of `RECOMPUTE`.
        num_cells: Integer.
    """
    return {
        "none": 0,
        "large": max(reduction_cells(num_cells)),
        "all": num_cells,
    }[recompute]


def edges(nodes=NUM_NODES):
    """Returns `(node, source)` of every row, in order."""
    return tuple(
        (node, source)
        for node in range(nodes)
        for source in range(node + NUM_INPUTS)
    )


def selectable_columns(names):
    """Returns the columns that a derivation may choose: all but `none`."""
    return tuple(i for i, name in enumerate(names) if name != NONE)


def relative_weights(row):
    """Returns the softmax of one row of architecture weights.

    The sum is exact before it is rounded, so that rows with the same values
    in another order tie exactly.

    Args:
        row: Sequence of finite numbers, one for each candidate.
    """
    largest = max(row)
    exponentials = [math.exp(float(value) - float(largest)) for value in row]
    total = math.fsum(exponentials)
    return [value / total for value in exponentials]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The candidates of an edge and of a cell's output.

    Args:
        stages: Tuple of tuples of names. An edge applies one mixed layer for
            each, in turn.
        output: Tuple of names of the mixed layer on the cell's output; empty
            for none.

    Example:

    >>> space = SearchSpace((("skip_connect", "none"),), output=("SE",))
    >>> space.architecture_shapes()["alphas_normal"]
    (14, 2)
    >>> space.candidates("gammas_reduce")
    ('SE',)
    """

    stages: tuple[tuple[str, ...], ...]
    output: tuple[str, ...] = ()

    def architecture_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every architecture parameter by its name.

        Those of edges are `(num_edges, num_candidates)`, that of the output is
        `(num_candidates,)`.
        """
        shapes = {}
        for i, names in enumerate(self.stages):
            parameter = STAGE_PARAMETERS[i]
            for cell in CELL_NAMES:
                shapes[f"{parameter}_{cell}"] = (num_edges(), len(names))
        if self.output:
            for cell in CELL_NAMES:
                shapes[f"{OUTPUT_PARAMETER}_{cell}"] = (len(self.output),)
        return shapes

    def candidates(self, parameter: str) -> tuple[str, ...]:
        """Returns what the columns of an architecture parameter score.

        Args:
            parameter: String, a key of `architecture_shapes()`.
        """
        kind = parameter.rpartition("_")[0]
        if kind == OUTPUT_PARAMETER:
            return self.output
        return self.stages[STAGE_PARAMETERS.index(kind)]


# Where attention goes; that of Nakai et al., 2020, is "after_every".
SEARCH_SPACES = {
    "no_attention": SearchSpace((OPERATION_NAMES,)),
    "after_every": SearchSpace((OPERATION_NAMES, ATTENTION_NAMES)),
    "end": SearchSpace((OPERATION_NAMES,), output=ATTENTION_NAMES),
    "after_every_and_end": SearchSpace(
        (OPERATION_NAMES, ATTENTION_NAMES), output=ATTENTION_NAMES
    ),
    "mixed_with_operation": SearchSpace((EITHER_NAMES,)),
    "double_mixed": SearchSpace((EITHER_NAMES, EITHER_NAMES)),
}


def get(location):
    """Returns the search space of a location, or raises `UsageError`."""
    if not isinstance(location, str) or location not in SEARCH_SPACES:
        raise registry.unknown_name(
            "location of attention", tuple(SEARCH_SPACES), location
        )
    return SEARCH_SPACES[location]
