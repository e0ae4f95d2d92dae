import math
import subprocess
import sys

import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.space import search_space

# Weights of architecture parameters in the authors' supernet, which the
# method's description lists beside the locations.
NUM_ARCHITECTURE_WEIGHTS = {
    "no_attention": 224,
    "after_every": 392,
    "end": 236,
    "after_every_and_end": 404,
    "mixed_with_operation": 364,
    "double_mixed": 728,
}


def test_locations_are_those_of_the_method():
    assert list(search_space.SEARCH_SPACES) == list(NUM_ARCHITECTURE_WEIGHTS)


@pytest.mark.parametrize("location", NUM_ARCHITECTURE_WEIGHTS)
def test_architecture_has_as_many_weights_as_the_released_code(location):
    shapes = search_space.get(location).architecture_shapes()
    assert (
        sum(math.prod(shape) for shape in shapes.values())
        == (NUM_ARCHITECTURE_WEIGHTS[location])
    )


def test_parameters_are_named_and_shaped_as_in_a_released_checkpoint():
    assert search_space.get("after_every_and_end").architecture_shapes() == {
        "alphas_normal": (14, 8),
        "alphas_reduce": (14, 8),
        "betas_normal": (14, 6),
        "betas_reduce": (14, 6),
        "gammas_normal": (6,),
        "gammas_reduce": (6,),
    }
    shapes = search_space.get("double_mixed").architecture_shapes()
    assert set(shapes.values()) == {(14, 13)}


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_a_parameter_has_a_column_for_each_candidate(location):
    space = search_space.get(location)
    for name, shape in space.architecture_shapes().items():
        assert len(space.candidates(name)) == shape[-1]


def test_attentions_among_the_operations_are_columns_8_to_12():
    assert search_space.EITHER_NAMES[:8] == search_space.OPERATION_NAMES
    assert search_space.EITHER_NAMES[8:] == (
        "SE",
        "BAM",
        "CBAM",
        "GE_theta-plus",
        "DoubleAttention",
    )


def test_no_name_means_two_things():
    names = (
        *search_space.OPERATION_NAMES,
        *search_space.EXTRA_OPERATION_NAMES,
        *search_space.ATTENTION_NAMES,
    )
    assert len(set(names)) == len(names)


def test_edges_are_counted_node_by_node():
    assert search_space.num_edges() == 14
    edges = search_space.edges()
    assert edges[:6] == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0))
    for row, (node, source) in enumerate(edges):
        assert search_space.edge_index(node, source) == row


@pytest.mark.parametrize("node, source", [(0, 2), (1, -1), (-1, 0), (3, 5)])
def test_an_edge_that_does_not_exist_has_no_row(node, source):
    with pytest.raises(ValueError, match=f"node={node}, source={source}"):
        search_space.edge_index(node, source)


def test_all_but_none_are_selectable():
    columns = search_space.selectable_columns
    assert columns(search_space.OPERATION_NAMES) == (1, 2, 3, 4, 5, 6, 7)
    assert columns(search_space.ATTENTION_NAMES) == (0, 1, 2, 3, 4, 5)
    assert columns(search_space.EITHER_NAMES) == tuple(range(1, 13))


def test_relative_weights_are_the_softmax():
    weights = search_space.relative_weights([0.0, math.log(3.0)])
    assert weights == pytest.approx([0.25, 0.75], abs=1e-15)
    assert search_space.relative_weights([1000.0, -1000.0]) == [1.0, 0.0]


def test_relative_weights_tie_whatever_the_order():
    row = [0.3, -1.7, 0.11, 2.9, 1e-3, 0.7]
    strongest = max(search_space.relative_weights(row))
    for shift in range(6):
        turned = row[shift:] + row[:shift]
        assert max(search_space.relative_weights(turned)) == strongest


@pytest.mark.parametrize("location", ["after_evry", "", None, ["end"]])
def test_unknown_location_lists_the_six(location):
    with pytest.raises(UsageError, match="no_attention, after_every, end"):
        search_space.get(location)


def test_names_genotypes_and_drawings_do_not_load_heavy_packages():
    program = (
        "import sys\n"
        "from att_darts_tf.search import derive\n"
        "from att_darts_tf.space import drawings, genotype, published\n"
        "published.get('att_darts')\n"
        "heavy = {'tensorflow', 'keras', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert result.stdout == "[]\n", result.stderr
