"""Pictures of cells and of architecture weights.

A cell is laid out once, as boxes, lines and texts, and written as SVG text or,
through matplotlib, as PNG. Every state has a horizontal band of its own: what
leaves it runs to the right in that band, and changes bands only in the free
gaps between columns, so that no line crosses a box.
"""

import dataclasses
import functools
import io
import itertools
import re
from xml.sax import saxutils

from att_darts_tf.space import search_space

FONT = "DejaVu Sans"
_FONTS = f"{FONT}, Verdana, Helvetica, Arial, sans-serif"
_INK = "#1f2937"
_PAPER = "#ffffff"

# Sizes are in pixels of the SVG.
_MARGIN = 24
_TITLE_SIZE = 16
_TITLE_HEIGHT = 34
_TEXT_SIZE = 12
_LINE_HEIGHT = 18
# Widest average of the font's letters, in ems.
_LETTER = 0.66
_LABEL_GAP = 8
_BAND_GAP = 16
_STATE_HEIGHT = 36
_STATE_WIDTH = 54
_CORNER = 7
_GAP = 84
_FAN = 44
_BAR_WIDTH = 24
_BAR_HEIGHT = 92
_ARROW = 7

# Larger cells keep the order of their states: trying all would take seconds.
_MOST_SORTED = 7

# (fill, edge and text) by the kind of a layer; the first prefix that fits.
_KINDS = (
    ("none", ("#ffffff", "#94a3b8")),
    ("skip_", ("#f1f5f9", "#475569")),
    ("max_pool", ("#ffedd5", "#9a3412")),
    ("avg_pool", ("#fef3c7", "#92400e")),
    ("sep_conv", ("#dbeafe", "#1e40af")),
    ("dil_", ("#ccfbf1", "#115e59")),
    ("conv_", ("#e0e7ff", "#3730a3")),
    ("", ("#ede9fe", "#5b21b6")),
)
# What leaves a state has one colour; later states start again at the third.
_STATE_COLOURS = (
    "#64748b",
    "#111827",
    "#2563eb",
    "#ea580c",
    "#16a34a",
    "#c026d3",
    "#a16207",
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A line of text around its middle, or from its left end."""

    x: float
    y: float
    words: str
    size: float = _TEXT_SIZE
    colour: str = _INK
    subscript: str = ""
    bold: bool = False
    from_left: bool = False
    upright: bool = False


@dataclasses.dataclass(frozen=True)
class Box:
    """A rounded rectangle; `top` is above `top + height`."""

    left: float
    top: float
    width: float
    height: float
    fill: str
    edge: str
    dashed: bool = False

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


@dataclasses.dataclass(frozen=True)
class Line:
    """Runs from `start` straight to the right, bends, and points at `end`."""

    start: tuple[float, float]
    bend: float
    end: tuple[float, float]
    colour: str

    def controls(self) -> tuple[tuple[float, float], ...]:
        """Returns where it bends, two control points, and the arrow's base."""
        base = self.end[0] - _ARROW
        half = (self.bend + base) / 2
        return (
            (self.bend, self.start[1]),
            (half, self.start[1]),
            (half, self.end[1]),
            (base, self.end[1]),
        )

    def arrow(self) -> tuple[tuple[float, float], ...]:
        x, y = self.end
        half = _ARROW / 2
        return (x, y), (x - _ARROW, y - half), (x - _ARROW, y + half)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A thin horizontal line that parts the two halves of a label."""

    left: float
    right: float
    y: float
    colour: str


@dataclasses.dataclass
class Layout:
    """All that is to be drawn of a cell, back to front."""

    width: float = 0.0
    height: float = 0.0
    lines: list[Line] = dataclasses.field(default_factory=list)
    boxes: list[Box] = dataclasses.field(default_factory=list)
    rules: list[Rule] = dataclasses.field(default_factory=list)
    texts: list[Text] = dataclasses.field(default_factory=list)


def kind_colours(name):
    """Returns the colours (fill, edge) of a layer by its name."""
    return next(c for prefix, c in _KINDS if name.startswith(prefix))


def lay_out(cell, title):
    """Places everything in the picture of a cell.

    Args:
        cell: A `Cell`.
        title: String above the picture.

    Returns:
        A `Layout` with the origin in the top left corner.
    """
    title = _printable(title)
    order = _order_of_bands(cell)
    tops, bottom = _bands(cell, order)
    middles = {s: (tops[s][0] + tops[s][1]) / 2 for s in order}
    depths = _depths(cell)
    label_width = _width_of_labels(cell)
    layout = Layout()

    def column(depth):
        """Returns where the gap, labels and states of a column begin."""
        if depth == 0:
            return None, None, _MARGIN
        step = _GAP + label_width + _FAN + _STATE_WIDTH
        gap = _MARGIN + _STATE_WIDTH + (depth - 1) * step
        return gap, gap + _GAP, gap + _GAP + label_width + _FAN

    for state in range(cell.num_states):
        left = column(depths[state])[2]
        _add_state(layout, state, left, middles[state])
    for node, edges in enumerate(cell.nodes):
        state = node + search_space.NUM_INPUTS
        gap, labels, left = column(depths[state])
        y = middles[state] - _height_of_labels(edges) / 2
        for edge in _from_top_to_bottom(edges, middles):
            label = _add_label(layout, edge.layers, labels, y, label_width)
            colour = _state_colour(edge.source)
            source_right = column(depths[edge.source])[2] + _STATE_WIDTH
            layout.lines.append(
                Line(
                    (source_right, middles[edge.source]),
                    gap,
                    (labels, label.middle),
                    colour,
                )
            )
            layout.lines.append(
                Line(
                    (label.right, label.middle),
                    label.right,
                    (left, middles[state]),
                    colour,
                )
            )
            y = label.top + label.height + _LABEL_GAP

    last = column(max(depths.values()))[2] + _STATE_WIDTH
    right = _add_output(
        layout, cell, last + _GAP / 2, middles, depths, column, label_width
    )
    title_width = len(title) * _LETTER * 1.1 * _TITLE_SIZE
    layout.width = max(right, _MARGIN + title_width) + _MARGIN
    lowest = max(box.top + box.height for box in layout.boxes)
    layout.height = max(bottom, lowest) + _MARGIN
    layout.texts.append(
        Text(
            _MARGIN,
            _MARGIN + _TITLE_SIZE / 2,
            title,
            size=_TITLE_SIZE,
            bold=True,
            from_left=True,
        )
    )
    return layout


def draw_cell(cell, title):
    """Returns the picture of a cell as the text of an SVG file.

    It names no identifiers, so that several may stand in one HTML page.

    Args:
        cell: A `Cell`.
        title: String above the picture.
    """
    layout = lay_out(cell, title)
    width, height = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="{_FONTS}">',
        f"<title>{saxutils.escape(_printable(title))}</title>",
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
    ]
    parts += [_svg_line(line) for line in layout.lines]
    parts += [_svg_box(box) for box in layout.boxes]
    parts += [_svg_rule(rule) for rule in layout.rules]
    parts += [_svg_text(text) for text in layout.texts]
    return "\n".join([*parts, "</svg>"]) + "\n"


def draw_cell_png(cell, title, path, *, scale=2):
    """Writes the picture of a cell as a PNG file.

    Args:
        cell: A `Cell`.
        title: String above the picture.
        path: Name of the file, or a binary file to write to.
        scale: Number. Pixels of the PNG for each of the SVG.
    """
    from matplotlib import patches
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    layout = lay_out(cell, title)
    # At 72 dots an inch a point is a pixel.
    figure = Figure((layout.width / 72, layout.height / 72), dpi=72 * scale)
    backend_agg.FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.axis("off")
    for line in layout.lines:
        points = [line.start, *line.controls()]
        codes = [Path.MOVETO, Path.LINETO, *[Path.CURVE4] * 3]
        axes.add_patch(
            patches.PathPatch(
                Path(points, codes), fill=False, edgecolor=line.colour, lw=1.6
            )
        )
        axes.add_patch(
            patches.Polygon(line.arrow(), facecolor=line.colour, lw=0)
        )
    for box in layout.boxes:
        axes.add_patch(
            patches.FancyBboxPatch(
                (box.left, box.top),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={_CORNER}",
                facecolor=box.fill,
                edgecolor=box.edge,
                linestyle="--" if box.dashed else "-",
                lw=1.3,
            )
        )
    for rule in layout.rules:
        axes.plot(
            (rule.left, rule.right),
            (rule.y, rule.y),
            color=rule.colour,
            lw=0.6,
        )
    for text in layout.texts:
        words = text.words
        if text.subscript:
            words = f"${text.words}_{{{text.subscript}}}$"
        axes.text(
            text.x,
            text.y,
            words,
            size=text.size,
            color=text.colour,
            family=FONT,
            weight="bold" if text.bold else "normal",
            ha="left" if text.from_left else "center",
            va="center_baseline" if not text.upright else "center",
            rotation=90 if text.upright else 0,
            parse_math=bool(text.subscript),
        )
    figure.savefig(path, format="png")


def draw_architecture(architecture, location):
    """Returns a picture of architecture weights, as the bytes of a PNG file.

    Each row is an edge, each column a candidate, each number the relative
    weight (the softmax) in percent. The strongest candidate of a row, `none`
    aside, is framed. Shades mean the same in every picture, so that those of
    successive epochs compare.

    Args:
        architecture: Dictionary of arrays by parameter name, as in
            `SearchSpace.architecture_shapes()`. Before the softmax.
        location: String, a key of `SEARCH_SPACES`.
    """
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    space = search_space.get(location)
    shapes = space.architecture_shapes()
    kinds = list(dict.fromkeys(name.rpartition("_")[0] for name in shapes))
    rows = [shapes[f"{kind}_normal"][:-1] or (1,) for kind in kinds]
    widest = max(shape[-1] for shape in shapes.values())
    cells = search_space.CELL_NAMES
    # In inches: a square a candidate, and room for names.
    height = sum(0.26 * row + 1.5 for (row,) in rows) + 0.2
    figure = Figure((len(cells) * (0.42 * widest + 1.3), height), dpi=110)
    backend_agg.FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(kinds),
        len(cells),
        squeeze=False,
        gridspec_kw={"height_ratios": [row + 1.5 for (row,) in rows]},
    )
    for i, kind in enumerate(kinds):
        for j, cell in enumerate(cells):
            name = f"{kind}_{cell}"
            logits = architecture[name]
            if len(shapes[name]) == 1:
                logits = [logits]
            _draw_weights(
                grid[i][j],
                name,
                [search_space.relative_weights(row) for row in logits],
                space.candidates(name),
                with_edges=len(shapes[name]) > 1,
            )
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_weights(axes, name, weights, candidates, *, with_edges):
    """Draws rows of relative weights as a table with a shade a number."""
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    # The root tells small weights apart: an even row has at most 17 percent.
    shades = PowerNorm(0.5, vmin=0.0, vmax=1.0)
    axes.imshow(weights, cmap="Blues", norm=shades, aspect="auto")
    selectable = search_space.selectable_columns(candidates)
    for i, row in enumerate(weights):
        best = max(selectable, key=row.__getitem__)
        axes.add_patch(
            Rectangle(
                (best - 0.5, i - 0.5),
                1,
                1,
                fill=False,
                edgecolor="#ea580c",
                lw=1.5,
                clip_on=False,
                zorder=3,
            )
        )
        for j, weight in enumerate(row):
            axes.text(
                j,
                i,
                f"{100 * weight:.1f}",
                size=7,
                ha="center",
                va="center",
                family=FONT,
                color=_PAPER if weight > 0.4 else _INK,
                in_layout=False,
            )
    axes.set_title(name, size=9, family=FONT)
    axes.set_xticks(range(len(candidates)), candidates)
    axes.tick_params("both", length=0, labelsize=7, labelfontfamily=FONT)
    for label in axes.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    if with_edges:
        axes.set_yticks(
            range(len(weights)),
            [
                f"{_state_name(source)} \u2192 {node}"
                for node, source in search_space.edges()
            ],
        )
    for node in range(1, search_space.NUM_NODES if with_edges else 0):
        axes.axhline(search_space.first_edge(node) - 0.5, color=_INK, lw=0.6)


def _state_name(state):
    """Returns the name of a state for matplotlib."""
    inputs = search_space.NUM_INPUTS
    if state < inputs:
        return f"$c_{{k-{inputs - state}}}$"
    return str(state - inputs)


def _printable(text):
    """Returns text on one line, without what XML or fonts do not know."""
    text = " ".join(str(text).split())
    return re.sub("[^\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd]", "?", text)


def _state_colour(state):
    if state < len(_STATE_COLOURS):
        return _STATE_COLOURS[state]
    inputs = search_space.NUM_INPUTS
    nodes = len(_STATE_COLOURS) - inputs
    return _STATE_COLOURS[inputs + (state - inputs) % nodes]


def _depths(cell):
    """Returns the column of each state: one more than that of its inputs."""
    depths = dict.fromkeys(range(search_space.NUM_INPUTS), 0)
    for node, edges in enumerate(cell.nodes):
        depths[node + search_space.NUM_INPUTS] = 1 + max(
            depths[edge.source] for edge in edges
        )
    return depths


def _height_of_labels(edges):
    heights = [_LINE_HEIGHT * len(edge.layers) + 6 for edge in edges]
    return sum(heights) + _LABEL_GAP * (len(heights) - 1)


def _width_of_labels(cell):
    names = [
        name for node in cell.nodes for edge in node for name in edge.layers
    ]
    longest = max(len(name) for name in [*names, cell.bottleneck])
    return longest * _LETTER * _TEXT_SIZE + 16


def _bands(cell, order):
    """Returns each state's (top, bottom), and the bottom of all."""
    bands = {}
    y = _MARGIN + _TITLE_HEIGHT
    for state in order:
        height = _STATE_HEIGHT
        if state >= search_space.NUM_INPUTS:
            edges = cell.nodes[state - search_space.NUM_INPUTS]
            height = max(height, _height_of_labels(edges))
        bands[state] = (y, y + height)
        y += height + _BAND_GAP
    return bands, y - _BAND_GAP


def _from_top_to_bottom(edges, middles):
    return sorted(edges, key=lambda edge: middles[edge.source])


@functools.lru_cache(maxsize=64)
def _order_of_bands(cell):
    """Returns the states from top to bottom, with few and short crossings."""
    states = tuple(range(cell.num_states))
    if len(states) > _MOST_SORTED:
        return states
    depths = _depths(cell)
    best = min(
        itertools.permutations(states),
        key=lambda order: _tangle(cell, order, depths),
    )
    # Upside down it reads as well; c_{k-2} is the upper one.
    return best if best.index(0) < best.index(1) else best[::-1]


def _tangle(cell, order, depths):
    """Returns how hard an order of bands is to read: crossings, then length."""
    bands, _ = _bands(cell, order)
    middles = {state: sum(bands[state]) / 2 for state in order}
    # What passes the gap before a column: (source, from, to).
    gaps = {}
    last = max(depths.values()) + 1
    ends = dict.fromkeys(order, 0)
    for state in cell.concat:
        ends[state] = last
    length = 0.0
    for node, edges in enumerate(cell.nodes):
        state = node + search_space.NUM_INPUTS
        y = bands[state][0]
        for edge in _from_top_to_bottom(edges, middles):
            start = middles[edge.source]
            gaps.setdefault(depths[state], []).append((edge.source, start, y))
            ends[edge.source] = max(ends[edge.source], depths[state])
            length += abs(start - y)
            y += _LINE_HEIGHT * len(edge.layers) + 6 + _LABEL_GAP
    for state in order:
        for depth in range(depths[state] + 1, ends[state]):
            gaps.setdefault(depth, []).append(
                (state, middles[state], middles[state])
            )
    crossings = 0
    for passing in gaps.values():
        for one, other in itertools.combinations(passing, 2):
            if one[0] != other[0]:
                crossings += (one[1] - other[1]) * (one[2] - other[2]) < 0
    return 100.0 * crossings + length


def _add_state(layout, state, left, middle):
    colour = _state_colour(state)
    top = middle - _STATE_HEIGHT / 2
    layout.boxes.append(
        Box(left, top, _STATE_WIDTH, _STATE_HEIGHT, _PAPER, colour)
    )
    words, subscript = str(state - search_space.NUM_INPUTS), ""
    if state < search_space.NUM_INPUTS:
        words, subscript = "c", f"k-{search_space.NUM_INPUTS - state}"
    layout.texts.append(
        Text(
            left + _STATE_WIDTH / 2,
            middle,
            words,
            size=15,
            colour=colour,
            subscript=subscript,
            bold=not subscript,
        )
    )


def _add_label(layout, layers, left, top, width):
    fill, edge = kind_colours(layers[0])
    height = _LINE_HEIGHT * len(layers) + 6
    box = Box(
        left,
        top,
        width,
        height,
        fill,
        edge,
        dashed=layers[0] == search_space.NONE,
    )
    layout.boxes.append(box)
    for i, name in enumerate(layers):
        layout.texts.append(
            Text(
                left + width / 2,
                top + 3 + _LINE_HEIGHT * (i + 0.5),
                name,
                colour=kind_colours(name)[1],
                bold=i == 0,
            )
        )
        if i:
            y = top + 3 + _LINE_HEIGHT * i
            layout.rules.append(Rule(left + 8, left + width - 8, y, edge))
    return box


def _add_output(layout, cell, left, middles, depths, column, label_width):
    """Adds the concatenation and what follows; returns the right end."""
    ys = [middles[state] for state in cell.concat]
    top, bottom = min(ys) - _STATE_HEIGHT / 2, max(ys) + _STATE_HEIGHT / 2
    lacking = max(_BAR_HEIGHT - (bottom - top), 0)
    first = min(middles.values()) - _STATE_HEIGHT / 2
    top = max(top - lacking / 2, first)
    bottom = max(bottom, top + _BAR_HEIGHT)
    middle = (top + bottom) / 2
    for state in cell.concat:
        start = column(depths[state])[2] + _STATE_WIDTH
        y = middles[state]
        layout.lines.append(
            Line((start, y), left - 2 * _ARROW, (left, y), _state_colour(state))
        )
    layout.boxes.append(
        Box(left, top, _BAR_WIDTH, bottom - top, "#f8fafc", _INK)
    )
    layout.texts.append(
        Text(left + _BAR_WIDTH / 2, middle, "concatenate", upright=True)
    )
    right = left + _BAR_WIDTH
    if cell.bottleneck:
        start = right + _FAN
        label = _add_label(
            layout,
            (cell.bottleneck,),
            start,
            middle - (_LINE_HEIGHT + 6) / 2,
            label_width,
        )
        layout.lines.append(Line((right, middle), right, (start, middle), _INK))
        right = label.right
    start = right + _FAN
    layout.lines.append(Line((right, middle), right, (start, middle), _INK))
    layout.boxes.append(
        Box(
            start,
            middle - _STATE_HEIGHT / 2,
            _STATE_WIDTH,
            _STATE_HEIGHT,
            _PAPER,
            _INK,
        )
    )
    layout.texts.append(
        Text(
            start + _STATE_WIDTH / 2,
            middle,
            "c",
            size=15,
            subscript="k",
        )
    )
    return start + _STATE_WIDTH


def _points(points):
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg_line(line):
    x, y = line.start
    bend, *curve = line.controls()
    return (
        f'<path d="M {x:.1f},{y:.1f} L {_points([bend])} C {_points(curve)}" '
        f'fill="none" stroke="{line.colour}" stroke-width="1.6"/>\n'
        f'<polygon points="{_points(line.arrow())}" fill="{line.colour}"/>'
    )


def _svg_box(box):
    dashes = ' stroke-dasharray="5 3"' if box.dashed else ""
    return (
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{_CORNER}" fill="{box.fill}" '
        f'stroke="{box.edge}" stroke-width="1.3"{dashes}/>'
    )


def _svg_rule(rule):
    return (
        f'<path d="M {rule.left:.1f},{rule.y:.1f} H {rule.right:.1f}" '
        f'stroke="{rule.colour}" stroke-width="0.6"/>'
    )


def _svg_text(text):
    # A third of the size lifts the middle of the letters to `y`.
    y = text.y + 0.35 * text.size
    attributes = (
        f'font-size="{text.size}" fill="{text.colour}" '
        f'text-anchor="{"start" if text.from_left else "middle"}"'
    )
    if text.bold:
        attributes += ' font-weight="bold"'
    words = saxutils.escape(text.words)
    if text.subscript:
        attributes += ' font-style="italic"'
        subscript = saxutils.escape(text.subscript.replace("-", "\u2212"))
        words += f'<tspan dy="4" font-size="70%">{subscript}</tspan>'
    if text.upright:
        attributes += f' transform="rotate(-90 {text.x:.1f} {text.y:.1f})"'
    return f'<text x="{text.x:.1f}" y="{y:.1f}" {attributes}>{words}</text>'
