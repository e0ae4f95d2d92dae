"""How much memory a search takes, told before it is built.

Nothing here imports TensorFlow. The figures are of TensorFlow 2.21 on a CPU;
`python -m benchmarks.growth` measures them again.
"""

import collections
from typing import NamedTuple

import ml_collections

from att_darts_tf import memory
from att_darts_tf.engine import cluster
from att_darts_tf.space import search_space

# Maps of an edge that a candidate keeps for its gradient, counted in the
# traced functions of `mixed.MixedBundle` without those that are copies in name
# only; all share `_SHARED`.
_KEPT = {
    "sep_conv_3x3": 6.0,
    "sep_conv_5x5": 7.0,
    "dil_conv_3x3": 3.0,
    "dil_conv_5x5": 3.0,
    "BAM": 2.6,
    "CBAM": 4.5,
    "DoubleAttention": 1.3,
}
_OTHER = 0.5
_SHARED = 2.0
# An attention of a strided edge stands behind a reduction of its own.
_REDUCTION = 3.0
# Maps of the largest layer, while its gradient is computed once more.
_AGAIN = {"first": 2.0, "finite_difference": 2.0, "exact": 12.0}
# Python and TensorFlow; then, for each kind of layer that is traced, what a
# candidate adds, an operation or an attention; and how much more of that.
_PROGRAM_GB = 0.65
_GRAPH_GB = (0.0076, 0.019)
_GRAPHS = {"first": 1.0, "finite_difference": 1.05, "exact": 2.1}
_NUMBER_GB = {"float32": 4e-9, "mixed_bfloat16": 2e-9}


def estimate(config: ml_collections.ConfigDict) -> float:
    """Returns about how much memory a search's process takes, in GB.

    Measured settings lie within 30 % (tests/search/test_memory.py).

    Args:
        config: The configuration.
    """
    recipe = config.search
    images = cluster.images_of(config.engine, recipe.batch_size)
    if recipe.microbatch:
        count = max(1, min(-(-images // recipe.microbatch), images // 2))
        images = -(-images // count)
    order = recipe.implicit if recipe.order == "second" else "first"
    recompute = "all" if order == "exact" else recipe.recompute
    layers = list(_layers(config))
    num_again = search_space.recomputed_cells(recompute, recipe.cells)
    again = [layer for layer in layers if layer.cell < num_again]
    kept = [layer for layer in layers if layer.cell >= num_again]
    numbers = sum(layer.kept() for layer in kept)
    # Inputs and outputs, and the layer whose gradient is being computed.
    numbers += sum(_SHARED * layer.numbers for layer in again)
    numbers += _AGAIN[order] * max((layer.kept() for layer in again), default=0)
    graph = sum(
        _GRAPH_GB[name in search_space.ATTENTION_NAMES]
        for kind in {layer.kind for layer in layers}
        for name in kind.names
    )
    return (
        _PROGRAM_GB
        + _GRAPHS[order] * graph
        + images * numbers * _NUMBER_GB[config.engine.precision]
    )


def check(config: ml_collections.ConfigDict) -> str:
    """Returns a line that tells the memory of a search beside what is free.

    Args:
        config: The configuration.

    Raises:
        UsageError: If it is more than is free, with what to lower.
    """
    return memory.compare(
        estimate(config),
        what="a search",
        remedy=lambda free: " or ".join(_remedies(config, free)),
    )


def _remedies(config, free):
    """Yields what makes a search fit, as told in the imperative."""
    part = max(2, config.search.batch_size // 4)
    for changes in (
        {"recompute": "all"},
        {"microbatch": part},
        {"recompute": "all", "microbatch": part},
    ):
        other = config.copy_and_resolve_references().unlock()
        other.search.update(changes)
        if estimate(other) <= free:
            given = [f"--config.search.{k}={v}" for k, v in changes.items()]
            yield f"give {' '.join(given)} ({estimate(other):.1f} GB)"
    yield (
        "lower config.search.batch_size, config.search.channels or "
        "config.search.cells"
    )


class _Kind(NamedTuple):
    """What, of mixed layers, is traced once."""

    names: tuple[str, ...]
    stage: int
    edges: int
    numbers: int
    strided: bool


class _Layer(NamedTuple):
    """The mixed layers of the edges that leave a state.

    Args:
        cell: Integer.
        kind: `_Kind`. Its numbers are those of the maps of an image, of all
            edges.
    """

    cell: int
    kind: _Kind

    @property
    def numbers(self):
        return self.kind.numbers

    def kept(self):
        """Returns the numbers of an image that are kept for the gradient."""
        maps = _SHARED
        for name in self.kind.names:
            maps += _KEPT.get(name, _OTHER)
            if self.kind.strided and name in search_space.ATTENTION_NAMES:
                maps += _REDUCTION
        return maps * self.numbers


def _layers(config):
    """Yields every `_Layer` of a supernet."""
    space = search_space.get(config.space.location)
    recipe, channels = config.search, config.search.channels
    height, width = config.data.image_size
    sources = collections.Counter(s for _, s in search_space.edges())
    reductions = search_space.reduction_cells(recipe.cells)
    for cell in range(recipe.cells):
        if cell in reductions:
            channels *= 2
            height, width = -(-height // 2), -(-width // 2)
        numbers = channels * height * width
        for state, edges in sources.items():
            halves = cell in reductions and state < search_space.NUM_INPUTS
            for i, names in enumerate(space.stages):
                kind = _Kind(names, i, edges, edges * numbers, halves and not i)
                yield _Layer(cell, kind)
        if space.output:
            joint = search_space.NUM_NODES * numbers
            yield _Layer(cell, _Kind(space.output, -1, 1, joint, False))
