import io
import itertools
import random
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from att_darts_tf.space import drawings, genotype, published, search_space

PNG = b"\x89PNG\r\n\x1a\n"


def random_cell(seed, *, nodes, most_edges):
    generator = random.Random(seed)
    return genotype.Cell(
        tuple(
            tuple(
                genotype.Edge(
                    generator.randrange(node + 2),
                    tuple(
                        generator.choice(genotype.LAYER_NAMES)
                        for _ in range(generator.choice((1, 2)))
                    ),
                )
                for _ in range(generator.randint(1, most_edges))
            )
            for node in range(nodes)
        ),
        tuple(generator.sample(range(nodes + 2), generator.randint(1, nodes))),
        generator.choice(("", "CBAM", "DoubleAttention")),
    )


CELLS = {
    **{
        f"{name}-{half}": getattr(published.get(name), half)
        for name in published.names()
        for half in search_space.CELL_NAMES
    },
    **{f"random-{i}": random_cell(i, nodes=4, most_edges=6) for i in range(12)},
    "one-node": random_cell(0, nodes=1, most_edges=1),
    "twelve-nodes": random_cell(0, nodes=12, most_edges=4),
}


def apart(one, other, gap=0.0):
    return (
        one.right + gap <= other.left
        or other.right + gap <= one.left
        or one.top + one.height + gap <= other.top
        or other.top + other.height + gap <= one.top
    )


def points(line, count=40):
    """Returns points of a line: its straight part, then its bend."""
    one, two, three, four = (np.asarray(p) for p in line.controls())
    times = np.linspace(0.0, 1.0, count)[:, None]
    straight = (1 - times) * np.asarray(line.start) + times * one
    bend = (
        (1 - times) ** 3 * one
        + 3 * (1 - times) ** 2 * times * two
        + 3 * (1 - times) * times**2 * three
        + times**3 * four
    )
    return np.concatenate([straight, bend])


@pytest.mark.parametrize("name", CELLS)
def test_boxes_keep_apart_inside_the_picture(name):
    layout = drawings.lay_out(CELLS[name], name)
    for one, other in itertools.combinations(layout.boxes, 2):
        assert apart(one, other, gap=4.0), (one, other)
    for box in layout.boxes:
        assert box.left >= 0 and box.top >= 0
        assert box.right <= layout.width
        assert box.top + box.height <= layout.height


@pytest.mark.parametrize("name", CELLS)
def test_no_line_crosses_a_box(name):
    layout = drawings.lay_out(CELLS[name], name)
    for line in layout.lines:
        for box in layout.boxes:
            x, y = points(line).T
            inside = (
                (x > box.left + 0.1)
                & (x < box.right - 0.1)
                & (y > box.top + 0.1)
                & (y < box.top + box.height - 0.1)
            )
            assert not inside.any(), (line, box)


@pytest.mark.parametrize("name", CELLS)
def test_every_line_joins_two_boxes(name):
    layout = drawings.lay_out(CELLS[name], name)
    cell = CELLS[name]
    edges = sum(len(node) for node in cell.nodes)
    assert len(layout.lines) == (
        2 * edges + len(cell.concat) + 1 + bool(cell.bottleneck)
    )
    for line in layout.lines:
        for x, y, side in (
            (*line.start, "right"),
            (*line.end, "left"),
        ):
            assert any(
                abs(getattr(box, side) - x) < 1e-6
                and box.top < y < box.top + box.height
                for box in layout.boxes
            )


@pytest.mark.parametrize("name", CELLS)
def test_svg_is_xml_that_names_every_layer(name):
    cell = CELLS[name]
    root = ElementTree.fromstring(drawings.draw_cell(cell, name))
    texts = ["".join(element.itertext()) for element in root.iter()]
    for layer in {n for node in cell.nodes for e in node for n in e.layers}:
        wanted = sum(
            edge.layers.count(layer) for node in cell.nodes for edge in node
        ) + (cell.bottleneck == layer)
        assert texts.count(layer) == wanted
    for state in ("ck\u22122", "ck\u22121", "ck"):
        assert state in texts
    for node in range(len(cell.nodes)):
        assert str(node) in texts


def test_svg_may_stand_in_a_page_beside_others():
    svg = drawings.draw_cell(CELLS["att_darts-normal"], "a")
    assert not re.search(r"\bid=|<style|class=|url\(|href", svg)
    assert svg.startswith("<svg ")


def test_a_bottleneck_stands_between_concatenation_and_output():
    cell = CELLS["att_darts-normal"]
    ended = genotype.Cell(cell.nodes, cell.concat, "GE_theta-plus")
    assert "GE_theta-plus" not in drawings.draw_cell(cell, "")
    layout = drawings.lay_out(ended, "")
    bar, label, output = layout.boxes[-3:]
    assert bar.right < label.left < label.right < output.left
    assert "GE_theta-plus" in drawings.draw_cell(ended, "")


@pytest.mark.parametrize(
    "title",
    [
        "",
        "a <b> & \"c\" 'd'",
        "two\nlines\tof it",
        "\x00\x1b\ud800",
        "a $b$ \\",
    ],
)
def test_any_title_makes_a_picture(title):
    cell = CELLS["darts_v1-reduce"]
    assert ElementTree.fromstring(drawings.draw_cell(cell, title)).tag
    file = io.BytesIO()
    drawings.draw_cell_png(cell, title, file, scale=0.5)
    assert file.getvalue().startswith(PNG)


def test_a_long_title_widens_the_picture():
    cell = CELLS["one-node"]
    short, long = (drawings.lay_out(cell, "x" * n) for n in (1, 200))
    assert long.width > short.width


def test_the_same_cell_gives_the_same_text():
    cell = CELLS["att_darts-normal"]
    assert drawings.draw_cell(cell, "a") == drawings.draw_cell(cell, "a")


def test_png_file_has_the_size_of_the_layout_times_the_scale(tmp_path):
    cell = CELLS["bayesnas_0.007-reduce"]
    layout = drawings.lay_out(cell, "cell")
    path = tmp_path / "cell.png"
    drawings.draw_cell_png(cell, "cell", path, scale=1)
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = (
        int.from_bytes(content[i : i + 4], "big") for i in (16, 20)
    )
    assert abs(width - layout.width) <= 1
    assert abs(height - layout.height) <= 1


def test_layers_of_one_kind_share_colours():
    colours = drawings.kind_colours
    assert colours("sep_conv_3x3") == colours("sep_conv_7x7")
    assert colours("dil_conv_3x3") == colours("dil_sep_conv_5x5")
    assert colours("SE") == colours("DoubleAttention")
    kinds = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3")
    kinds += ("sep_conv_3x3", "dil_conv_3x3", "conv_1x1", "SE")
    assert len({colours(kind) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("location", ["no_attention", "after_every_and_end"])
def test_architecture_weights_become_a_png(location):
    generator = np.random.default_rng(0)
    shapes = search_space.get(location).architecture_shapes()
    architecture = {
        name: generator.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }
    content = drawings.draw_architecture(architecture, location)
    assert content.startswith(PNG)
    # Lists, as a file holds them, give the same picture.
    lists = {name: array.tolist() for name, array in architecture.items()}
    assert drawings.draw_architecture(lists, location) == content


def test_drawing_leaves_the_state_of_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawings.draw_cell_png(CELLS["one-node"], "cell", io.BytesIO())
    assert dict(matplotlib.rcParams) == before
