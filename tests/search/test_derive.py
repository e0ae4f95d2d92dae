import json
import os
import pathlib

import numpy as np
import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.search.derive import derive
from att_darts_tf.space import search_space
from att_darts_tf.space.genotype import Edge, Genotype

# Architecture weights of the authors' supernets, and the cells that the
# authors' code derives from them.
EMBEDDED = json.loads(
    pathlib.Path(__file__).with_name("derive_reference.json").read_text()
)
ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = pathlib.Path(
    os.environ.get("ATT_DARTS_REFERENCE", ROOT.parent / "shared" / "reference")
)


def zeros(location):
    shapes = search_space.get(location).architecture_shapes()
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def prefer(array, node, source, column, value):
    array[search_space.edge_index(node, source), column] = value


@pytest.mark.parametrize("location", EMBEDDED)
def test_equals_the_released_code(location):
    architecture = {
        name: np.asarray(rows, dtype="float32")
        for name, rows in EMBEDDED[location]["architecture"].items()
    }
    expected = json.dumps(EMBEDDED[location]["genotype"])
    assert derive(architecture, location) == Genotype.from_json(expected)


@pytest.mark.parametrize("location", EMBEDDED)
def test_embedded_numbers_are_those_of_the_reference(location):
    path = REFERENCE / f"supernet_{location}.npz"
    for file in [path] if path.exists() else []:
        with np.load(file) as arrays:
            for name, rows in EMBEDDED[location]["architecture"].items():
                np.testing.assert_array_equal(
                    arrays[f"state/{name}"], np.asarray(rows, "float32")
                )
            assert (
                json.loads(str(arrays["genotype"]))
                == (EMBEDDED[location]["genotype"])
            )


def test_nested_lists_of_a_file_are_as_good_as_arrays():
    embedded = EMBEDDED["after_every"]["architecture"]
    arrays = {name: np.asarray(rows) for name, rows in embedded.items()}
    assert derive(embedded, "after_every") == derive(arrays, "after_every")


def test_keeps_the_two_strongest_edges_strongest_first():
    architecture = zeros("no_attention")
    prefer(architecture["alphas_normal"], 3, 4, 4, 1.0)
    prefer(architecture["alphas_normal"], 3, 2, 7, 2.0)
    prefer(architecture["alphas_normal"], 3, 0, 3, 0.5)
    cells = derive(architecture, "no_attention")
    assert cells.normal.nodes[3] == (
        Edge(2, ("dil_conv_5x5",)),
        Edge(4, ("sep_conv_3x3",)),
    )
    assert cells.normal.concat == (2, 3, 4, 5)


def test_an_edge_competes_with_its_relative_weight():
    # 3.0 against seven of 2.9 is less, relatively, than 1.0 against zeros.
    architecture = zeros("no_attention")
    row = search_space.edge_index(2, 0)
    architecture["alphas_reduce"][row] = 2.9
    prefer(architecture["alphas_reduce"], 2, 0, 5, 3.0)
    prefer(architecture["alphas_reduce"], 2, 2, 1, 1.0)
    prefer(architecture["alphas_reduce"], 2, 3, 2, 0.9)
    assert derive(architecture, "no_attention").reduce.nodes[2] == (
        Edge(2, ("max_pool_3x3",)),
        Edge(3, ("avg_pool_3x3",)),
    )


def test_none_is_never_chosen_but_weakens_its_edge():
    architecture = zeros("no_attention")
    alphas = architecture["alphas_normal"]
    prefer(alphas, 1, 0, 0, 5.0)
    prefer(alphas, 1, 0, 6, 1.0)
    assert derive(architecture, "no_attention").normal.nodes[1] == (
        Edge(1, ("max_pool_3x3",)),
        Edge(2, ("max_pool_3x3",)),
    )
    # At node 0 both edges stay, the weakened one last.
    prefer(alphas, 0, 0, 0, 5.0)
    assert derive(architecture, "no_attention").normal.nodes[0] == (
        Edge(1, ("max_pool_3x3",)),
        Edge(0, ("max_pool_3x3",)),
    )


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_ties_go_to_the_lower_index(location):
    cells = derive(zeros(location), location)
    space = search_space.get(location)
    layers = tuple(
        names[search_space.selectable_columns(names)[0]]
        for names in space.stages
    )
    for cell in (cells.normal, cells.reduce):
        assert cell.nodes == ((Edge(0, layers), Edge(1, layers)),) * 4
        assert cell.bottleneck == ("Identity" if space.output else "")


def test_equal_rows_tie_whatever_the_order_of_their_columns():
    row = np.random.default_rng(0).normal(size=8)
    row[0] = -3.0
    for turn in range(7):
        architecture = zeros("no_attention")
        for source, shift in ((1, 0), (3, turn)):
            index = search_space.edge_index(2, source)
            shifted = np.roll(row[1:], shift)
            architecture["alphas_normal"][index, 0] = row[0]
            architecture["alphas_normal"][index, 1:] = shifted
        nodes = derive(architecture, "no_attention").normal.nodes
        assert [edge.source for edge in nodes[2]] == [1, 3]


def test_attention_does_not_decide_which_edges_stay():
    architecture = zeros("after_every")
    prefer(architecture["betas_normal"], 2, 3, 4, 9.0)
    prefer(architecture["betas_normal"], 2, 1, 3, 0.1)
    assert derive(architecture, "after_every").normal.nodes[2] == (
        Edge(0, ("max_pool_3x3", "Identity")),
        Edge(1, ("max_pool_3x3", "CBAM")),
    )


def test_an_attention_may_win_among_the_operations():
    architecture = zeros("mixed_with_operation")
    prefer(architecture["alphas_reduce"], 1, 2, 8, 1.0)
    prefer(architecture["alphas_reduce"], 1, 1, 12, 0.5)
    assert derive(architecture, "mixed_with_operation").reduce.nodes[1] == (
        Edge(2, ("SE",)),
        Edge(1, ("DoubleAttention",)),
    )


def test_double_mixed_chooses_no_none_in_either_place():
    architecture = zeros("double_mixed")
    for array in architecture.values():
        array[:, 0] = 4.0
    prefer(architecture["alphas_normal"], 1, 2, 10, 2.0)
    prefer(architecture["betas_normal"], 1, 2, 3, 2.0)
    # The first layer decides which edge stays.
    prefer(architecture["betas_normal"], 1, 1, 3, 3.0)
    assert derive(architecture, "double_mixed").normal.nodes[1] == (
        Edge(2, ("CBAM", "skip_connect")),
        Edge(0, ("max_pool_3x3", "max_pool_3x3")),
    )


@pytest.mark.parametrize("location", ["end", "after_every_and_end"])
def test_the_output_takes_the_attention_with_the_largest_gamma(location):
    architecture = zeros(location)
    architecture["gammas_normal"][:] = [0.1, 0.2, 0.3, 0.5, 0.5, 0.4]
    architecture["gammas_reduce"][:] = [0.1, 0.0, -0.3, -0.5, 0.0, 0.0]
    cells = derive(architecture, location)
    assert cells.normal.bottleneck == "CBAM"
    assert cells.reduce.bottleneck == "Identity"


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_agrees_with_sorting_every_pair_of_layers(location):
    generator = np.random.default_rng(3)
    space = search_space.get(location)
    for _ in range(5):
        architecture = {
            name: generator.normal(size=shape)
            for name, shape in space.architecture_shapes().items()
        }
        cells = derive(architecture, location)
        assert Genotype.from_json(cells.to_json()) == cells
        for half in search_space.CELL_NAMES:
            alphas = architecture[f"alphas_{half}"]
            weights = np.exp(alphas) / np.exp(alphas).sum(1, keepdims=True)
            strength = weights[:, 1:].max(1)
            for node, edges in enumerate(getattr(cells, half).nodes):
                first = search_space.edge_index(node, 0)
                order = np.argsort(-strength[first : first + node + 2])
                assert [edge.source for edge in edges] == list(order[:2])


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"betas_normal": None}, "of the location 'after_every'. Received:"),
        ({"gammas_normal": np.zeros(6)}, "gammas_normal. Use the location"),
        ({"alphas_normal": np.zeros((14, 13))}, "`alphas_normal` of shape"),
        ({"alphas_normal": [["a"]]}, "Expected numbers as `alphas_normal`"),
        ({"alphas_normal": [[1], [1, 2]]}, "Expected numbers as"),
        ({"alphas_normal": [[10**400]]}, "Expected numbers as"),
        ({"betas_reduce": np.full((14, 6), np.nan)}, "84 that are not"),
        ({"betas_reduce": np.full((14, 6), -np.inf)}, "lower its learning"),
    ],
)
def test_wrong_weights_are_refused(change, expected):
    architecture = {**zeros("after_every"), **change}
    architecture = {k: v for k, v in architecture.items() if v is not None}
    with pytest.raises(UsageError) as caught:
        derive(architecture, "after_every")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_location_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'end'"):
        derive({}, "ends")
