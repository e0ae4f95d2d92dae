"""Published cells for a reader: a list, drawings and the table of results.

Nothing here imports TensorFlow; what is counted was counted before, and a test
counts it again.
"""

import os
from collections.abc import Iterator

from att_darts_tf import storage
from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.space import drawings, published, search_space
from att_darts_tf.space.genotype import Genotype

_HEAD = (
    ("", "published", "", "", "counted", ""),
    ("cells", "error %", "million", "skeleton", "parameters", "multiply-adds"),
)
_NOTES = (
    "Published: test error on CIFAR-10 and parameters in the table of results "
    "of Nakai et al., 2020,",
    "https://doi.org/10.1109/IJCNN48605.2020.9207369, on the named skeleton; - "
    "is not in that table.",
    "Counted: here, without auxiliary head, for images of 32 x 32 in 10 "
    "classes, in the DARTS skeleton of",
    "20 cells and 36 channels; densenet_bc in its own (L = 190, k = 40). So "
    "compare only where skeletons agree.",
    "bayesnas_0.005 and snas_mild as released (2.51 million on its own "
    "skeleton, and 2.66) are smaller",
    "than the 3.4 and 2.9 million that were published.",
    "Hierarchical Evolution (3.75 %, 15.7 million) is missing: its cell was "
    "not released as data.",
)


def list_cells() -> Iterator[str]:
    """Yields a line for each: name, location of attention, source."""
    names = published.network_names()
    width = max(map(len, names))
    for name in names:
        where = "(no cells)"
        if name in published.names():
            where = location(published.get(name))
        yield f"{name:{width}}  {where:12}  {published.source(name)}"


def location(cells: Genotype) -> str:
    """Returns the location of attention, a key of `SEARCH_SPACES`.

    Args:
        cells: Published ones, in which an edge begins with an operation.
    """
    both = [getattr(cells, name) for name in search_space.CELL_NAMES]
    on_edges = any(
        len(edge.layers) > 1
        for cell in both
        for node in cell.nodes
        for edge in node
    )
    at_end = any(cell.bottleneck for cell in both)
    return {
        (False, False): "no_attention",
        (True, False): "after_every",
        (False, True): "end",
        (True, True): "after_every_and_end",
    }[on_edges, at_end]


def draw(name: str, folder: str | os.PathLike) -> Iterator[str]:
    """Draws both cells of a publication or of a file.

    Args:
        name: String, one of `published.names()` or the path of a genotype file
            or of a trained network, whose name without ending is NAME below.
        folder: Path of an existing or new folder, of `NAME-normal.svg` and
            `NAME-reduce.svg`.

    Yields:
        The cells as text, and the files.
    """
    if name in published.network_names():
        cells = published.get(name)
        title = f"{name}, {location(cells)}: {published.source(name)}"
    else:
        # Cells of several locations look alike: no file says which it was.
        cells, title = published.resolve(name), name
        name = storage.path(name).stem
    folder = storage.path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Expected a folder that can be made at {folder}. Received: "
            f"{error.strerror}. Give another with --output="
        ) from error
    yield title
    yield from cells.summary().splitlines()
    for kind in search_space.CELL_NAMES:
        file = folder / f"{name}-{kind}.svg"
        drawing = drawings.draw_cell(
            getattr(cells, kind), f"{name}, {kind} cell"
        )
        workdir.write_atomically(file, drawing)
        yield f"Drawing: {file}"


def table() -> Iterator[str]:
    """Yields the lines of the table of results, and what its figures are of."""
    rows = [*_HEAD, *map(_row, published.network_names())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        first, *rest = (
            cell.ljust(width) if j in (0, 3) else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest]).rstrip()
        if i + 1 == len(_HEAD):
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))
    yield ""
    yield from _NOTES


def _row(name):
    figures = published.figures(name)
    size = published.size_name(name)
    return (
        name,
        f"{figures['cifar10_test_error_percent']:.2f}" if figures else "-",
        f"{figures['cifar10_parameters_millions']:.1f}" if figures else "-",
        published.skeleton(name) if figures else "-",
        f"{published.parameters(name)[size]:,}",
        f"{published.multiply_adds(name)[size]:,}",
    )
