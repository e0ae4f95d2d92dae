"""A derived architecture as plain data, and its file.

The file is JSON in the format of the released code: `normal` and `reduce` are
flat lists of edges `[operation, input, attention]`, two a node. Where a node
has another number of edges, they are lists of nodes, each a list of edges.
Input 0 is c_{k-2}, input 1 is c_{k-1}, input `2 + i` is node `i`; the
attention `""` means that there is none.

The text of the released code's named tuple is read too:
`Genotype(normal=[(operation, input, attention), ...], ...)`.
"""

import ast
import contextlib
import dataclasses
import io
import json
import os
import re

from att_darts_tf import storage
from att_darts_tf.errors import UsageError
from att_darts_tf.space import registry, search_space

FORMAT = 1

LAYER_NAMES = (
    search_space.OPERATION_NAMES
    + search_space.EXTRA_OPERATION_NAMES
    + search_space.ATTENTION_NAMES
)

_FIELDS = (
    "format",
    "normal",
    "normal_concat",
    "reduce",
    "reduce_concat",
    "normal_bottleneck",
    "reduce_bottleneck",
)
# What collections of published cells say about a cell; no part of it.
_REMARKS = ("source", "parameters", "multiply_adds", "published")
_NAMED_TUPLE = re.compile(r"\s*(\w+\s*=\s*)?Genotype\s*\(")
# A named tuple may write the states of the output as a range.
_MOST_STATES = 100
# Of a text. The longest published one has 1,500.
_MOST_CHARACTERS = 2**16
_POSITIONS = ("operation", 'attention ("" is none)')


@dataclasses.dataclass(frozen=True)
class Edge:
    """One input of a node: its layers, applied in turn to a state.

    Args:
        source: Integer. The state that is read.
        layers: Tuple of one or two names, first the operation and then the
            attention. In the location `double_mixed` each is either.

    Example:

    >>> print(Edge(0, ("sep_conv_3x3", "CBAM")))
    sep_conv_3x3+CBAM(0)
    """

    source: int
    layers: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "layers", _as_tuple(self.layers, "`layers`"))
        if not _is_integer(self.source) or self.source < 0:
            raise UsageError(
                "The input of an edge must be the number of a state, an "
                "integer of at least 0. "
                f"Received: {registry.shorten(self.source)}"
            )
        if not 1 <= len(self.layers) <= len(_POSITIONS):
            raise UsageError(
                "An edge must have an operation and at most one attention. "
                f"Received: {registry.shorten(self.layers)}"
            )
        for position, name in zip(_POSITIONS, self.layers):
            if not isinstance(name, str) or name not in LAYER_NAMES:
                raise registry.unknown_name(position, LAYER_NAMES, name)

    def __str__(self):
        return f"{'+'.join(self.layers)}({self.source})"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A graph of nodes, each the sum of its edges.

    Args:
        nodes: Tuple of nodes, each a tuple of `Edge`. Node `i` is state
            `2 + i`, and reads earlier states.
        concat: Tuple of integers. The states whose concatenation, in this
            order, is the cell's output.
        bottleneck: String. The attention on the output; empty for none.
    """

    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...]
    bottleneck: str = ""

    def __post_init__(self):
        nodes = tuple(
            _as_tuple(node, "Each of the `nodes`")
            for node in _as_tuple(self.nodes, "`nodes`")
        )
        object.__setattr__(self, "nodes", nodes)
        concat = _as_tuple(self.concat, "`concat`")
        object.__setattr__(self, "concat", concat)
        self._check_nodes()
        self._check_concat()
        if self.bottleneck != "" and (
            not isinstance(self.bottleneck, str)
            or self.bottleneck not in search_space.ATTENTION_NAMES
        ):
            raise registry.unknown_name(
                'attention on the output ("" is none)',
                search_space.ATTENTION_NAMES,
                self.bottleneck,
            )

    @property
    def num_states(self) -> int:
        return search_space.NUM_INPUTS + len(self.nodes)

    def __str__(self):
        nodes = "; ".join(
            f"{search_space.NUM_INPUTS + i} = {' '.join(map(str, node))}"
            for i, node in enumerate(self.nodes)
        )
        output = f"concat {' '.join(map(str, self.concat))}"
        if self.bottleneck:
            output = f"{output}, {self.bottleneck}"
        return f"{nodes}; {output}"

    def _check_nodes(self):
        if not self.nodes:
            raise UsageError("A cell must have at least one node. Received: ()")
        for i, node in enumerate(self.nodes):
            if not node:
                raise UsageError(
                    f"node {i}: a node must have at least one edge. "
                    "Received: ()"
                )
            for j, edge in enumerate(node):
                if not isinstance(edge, Edge):
                    raise UsageError(
                        f"node {i}, edge {j}: expected an `Edge`. "
                        f"Received: {registry.shorten(edge)}"
                    )
                end = i + search_space.NUM_INPUTS
                if edge.source >= end:
                    raise UsageError(
                        f"node {i}, edge {j}: edges of node {i} must read a "
                        f"state in [0, {end}): an input of the cell or an "
                        "earlier node. "
                        f"Received: {registry.shorten(edge.source)}"
                    )

    def _check_concat(self):
        if not self.concat:
            raise UsageError(
                "concat: the output must have at least one state. Received: ()"
            )
        for state in self.concat:
            if not _is_integer(state) or not 0 <= state < self.num_states:
                raise UsageError(
                    "concat: the output must consist of states in "
                    f"[0, {self.num_states}). "
                    f"Received: {registry.shorten(state)}"
                )
            if self.concat.count(state) > 1:
                raise UsageError(
                    "concat: the output must hold each state once. "
                    f"Received {state} more than once; remove one"
                )


@dataclasses.dataclass(frozen=True)
class Genotype:
    """The two cells of a network.

    Example:

    >>> edges = Edge(0, ("sep_conv_3x3", "CBAM")), Edge(1, ("skip_connect",))
    >>> cell = Cell(nodes=[edges], concat=[2])
    >>> genotype = Genotype(normal=cell, reduce=cell)
    >>> print(genotype.summary())
    normal: 2 = sep_conv_3x3+CBAM(0) skip_connect(1); concat 2
    reduce: 2 = sep_conv_3x3+CBAM(0) skip_connect(1); concat 2
    >>> genotype.write("cells.json")
    >>> Genotype.read("cells.json") == genotype
    True
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self):
        for name in search_space.CELL_NAMES:
            cell = getattr(self, name)
            if not isinstance(cell, Cell):
                raise UsageError(
                    f"{name}: expected a `Cell`. "
                    f"Received: {registry.shorten(cell)}"
                )

    @classmethod
    def from_json(cls, text: str, *, source: str = "genotype") -> "Genotype":
        """Reads a genotype from text.

        Args:
            text: String. This format, that of the released code (which has no
                `format`), an entry of a collection of published cells, or the
                named tuple that the released code prints:
                `Genotype(normal=[('skip_connect', 0, 'SE'), ...], ...)`.
            source: String. What error messages call the text, such as the
                name of its file.

        Returns:
            A `Genotype`. Any other text raises a `UsageError` that says
            where it is wrong.
        """
        with _inside(source):
            if len(text) > _MOST_CHARACTERS:
                raise UsageError(
                    f"Expected a genotype, at most {_MOST_CHARACTERS} "
                    "characters. Received: more. Name another file"
                )
            if _NAMED_TUPLE.match(text):
                fields = _parse_named_tuple(text)
            else:
                fields = _parse(text)
            _check_fields(fields)
            cells = {}
            for name in search_space.CELL_NAMES:
                with _inside(f"`{name}`"):
                    nodes = _nodes_from_json(fields[name])
                concat = fields[f"{name}_concat"]
                if not isinstance(concat, list):
                    raise UsageError(
                        f"`{name}_concat`: expected a list of states, such "
                        f"as [2, 3, 4, 5]. Received: {registry.shorten(concat)}"
                    )
                with _inside(f"`{name}`"):
                    cells[name] = Cell(
                        nodes,
                        tuple(concat),
                        _or_none(fields.get(f"{name}_bottleneck")),
                    )
            return cls(**cells)

    def to_json(self) -> str:
        """Returns the text of a genotype file."""
        flat = all(
            len(node) == search_space.EDGES_PER_NODE
            for name in search_space.CELL_NAMES
            for node in getattr(self, name).nodes
        )
        fields = {"format": FORMAT}
        for name in search_space.CELL_NAMES:
            cell = getattr(self, name)
            nodes = [
                [_edge_to_json(edge) for edge in node] for node in cell.nodes
            ]
            fields[name] = sum(nodes, []) if flat else nodes
            fields[f"{name}_concat"] = list(cell.concat)
        for name in search_space.CELL_NAMES:
            fields[f"{name}_bottleneck"] = getattr(self, name).bottleneck
        # One edge or node a line.
        lines = []
        for key, value in fields.items():
            if key in search_space.CELL_NAMES:
                items = ",\n    ".join(json.dumps(item) for item in value)
                written = f"[\n    {items}\n  ]"
            else:
                written = json.dumps(value)
            lines.append(f'  "{key}": {written}')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Genotype":
        """Reads a genotype file."""
        try:
            # Editors of some systems start a file with a byte order mark.
            with storage.path(path).open("rb") as file:
                text = io.TextIOWrapper(file, encoding="utf-8-sig").read(
                    # One more than is read: a file may be without an end.
                    _MOST_CHARACTERS + 1
                )
        except OSError as error:
            raise UsageError(
                f"{path}: expected a genotype file that can be read. "
                f"Received: {error.strerror or error}. Check its name and "
                "permissions"
            ) from error
        except ValueError as error:
            raise UsageError(
                f"{registry.shorten(os.fspath(path))}: expected a genotype "
                f"file in UTF-8. Received: {error}"
            ) from error
        return cls.from_json(text, source=os.fspath(path))

    def write(self, path: str | os.PathLike) -> None:
        """Writes a genotype file, whole or not at all."""
        try:
            with storage.replacing(path) as file:
                file.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{path}: expected a file that can be written. "
                f"Received: {error.strerror or error}. Choose another folder "
                "or make room"
            ) from error

    def summary(self) -> str:
        """Returns a line for each cell, for logs.

        `2 = sep_conv_3x3+CBAM(0) skip_connect(1)` says that state 2, the first
        node, sums these two edges from the states 0 and 1.
        """
        return f"normal: {self.normal}\nreduce: {self.reduce}"


@contextlib.contextmanager
def _inside(place):
    """Puts a place in front of the messages of what happens inside."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _is_integer(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _as_tuple(values, what):
    if not isinstance(values, tuple | list):
        raise UsageError(
            f"{what} must be a tuple. Received: {registry.shorten(values)}"
        )
    return tuple(values)


def _parse(text):
    def unique(pairs):
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise UsageError(
                "Expected each field once. Received the fields "
                f"{registry.shorten([key for key, _ in pairs])}; remove one "
                "of the two with the same name"
            )
        return fields

    try:
        fields = json.loads(text, object_pairs_hook=unique)
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "Expected a genotype as JSON. Received text that is none: "
            f"{error}. Correct it there, or write it again with "
            "`Genotype.write`"
        ) from error
    if not isinstance(fields, dict):
        raise UsageError(
            "Expected a JSON object with the fields "
            f"{', '.join(_FIELDS)}. Received: {registry.shorten(fields)}"
        )
    return fields


def _parse_named_tuple(text):
    """Reads `NAME = Genotype(...)`, without running it."""
    try:
        tree = ast.parse(text.strip(), mode="exec")
        (statement,) = tree.body
        call = statement.value
        fields = {
            str(keyword.arg): _plain(ast.literal_eval(_listed(keyword.value)))
            for keyword in call.keywords
        }
        if call.args or len(fields) < len(call.keywords):
            raise ValueError("each field must be named, once")
        return fields
    except (
        ValueError,
        SyntaxError,
        AttributeError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UsageError(
            "Expected `Genotype(normal=[...], normal_concat=..., reduce=[...], "
            "reduce_concat=...)` with literal values. Received text that is "
            f"none: {' '.join(str(error).split())}. Copy the whole line"
        ) from error


def _listed(node):
    """Returns `range(2, 6)` as the list that it stands for."""
    if not isinstance(node, ast.Call):
        return node
    first, last = (argument.value for argument in node.args)
    if node.func.id != "range" or not 0 <= first <= last <= _MOST_STATES:
        raise ValueError("only range(FIRST, LAST) is read")
    states = [ast.Constant(state) for state in range(first, last)]
    return ast.List(states, ast.Load())


def _plain(value):
    """Returns what JSON would hold; an edge may leave out its attention."""
    if not isinstance(value, list | tuple):
        return "" if value is None else value
    items = [_plain(item) for item in value]
    is_edge = len(items) == 2 and isinstance(items[0], str)
    return [*items, ""] if is_edge else items


def _check_fields(fields):
    found = fields.get("format", FORMAT)
    if not _is_integer(found) or found != FORMAT:
        raise UsageError(
            f"Expected a genotype of format {FORMAT}, the only one that this "
            f"version reads. Received: format {registry.shorten(found)}. Use "
            "the version that wrote it"
        )
    for name in fields:
        if name not in _FIELDS + _REMARKS:
            raise registry.unknown_name("field", _FIELDS, name)
    for cell in search_space.CELL_NAMES:
        for name in (cell, f"{cell}_concat"):
            if name not in fields:
                raise UsageError(
                    f"Expected the field `{name}`. Received the fields "
                    f"{', '.join(fields) or '(none)'}; add it"
                )


def _nodes_from_json(items):
    if not isinstance(items, list):
        raise UsageError(
            "expected a list of edges [operation, input, attention]. "
            f"Received: {registry.shorten(items)}"
        )
    nested = any(
        isinstance(item, list) and item and isinstance(item[0], list)
        for item in items
    )
    if not nested:
        size = search_space.EDGES_PER_NODE
        if len(items) % size:
            raise UsageError(
                f"a flat list must hold {size} edges a node. Received: "
                f"{len(items)} edges. Write a list of nodes, each a list of "
                "edges, for any other number"
            )
        items = [items[i : i + size] for i in range(0, len(items), size)]
    nodes = []
    for i, item in enumerate(items):
        if not isinstance(item, list):
            raise UsageError(
                f"node {i}: expected a list of edges [operation, input, "
                f"attention]. Received: {registry.shorten(item)}"
            )
        node = []
        for j, edge in enumerate(item):
            with _inside(f"node {i}, edge {j}"):
                node.append(_edge_from_json(edge))
        nodes.append(tuple(node))
    return tuple(nodes)


def _edge_from_json(item):
    if not isinstance(item, list) or len(item) != 3:
        raise UsageError(
            "expected [operation, input, attention], with the attention "
            f'"" for none. Received: {registry.shorten(item)}'
        )
    operation, source, attention = item
    attention = _or_none(attention)
    layers = (operation,) if attention == "" else (operation, attention)
    return Edge(source, layers)


def _or_none(attention):
    # The released code's Python writes no attention as `None`, too.
    return "" if attention is None else attention


def _edge_to_json(edge):
    operation, *attention = edge.layers
    return [operation, edge.source, attention[0] if attention else ""]
