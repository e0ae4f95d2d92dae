import json

import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.space import genotype, published, search_space


def test_names_are_those_of_the_results_table_and_their_variants():
    assert published.names() == (
        "nasnet_a",
        "nasnet_a_darts",
        "amoebanet_a",
        "amoebanet_a_darts",
        "amoebanet_b",
        "pnasnet_5",
        "enas",
        "enas_figure",
        "darts_v1",
        "darts_v2",
        "snas_mild",
        "snas_moderate",
        "snas_aggressive",
        "pc_darts_cifar",
        "pc_darts_imagenet",
        "att_darts",
        "bayesnas_0.005",
        "bayesnas_0.007",
        "bayesnas_0.01",
    )


@pytest.mark.parametrize("name", published.names())
def test_every_cell_is_valid_sourced_and_round_trips(name):
    cells = published.get(name)
    assert genotype.Genotype.from_json(cells.to_json()) == cells
    assert published.source(name)
    flat = not name.startswith("bayesnas")
    first = json.loads(cells.to_json())["normal"][0][0]
    assert isinstance(first, str) == flat


def test_att_darts_is_the_cell_of_the_paper():
    cells = published.get("att_darts")
    assert cells.normal.nodes[0] == (
        genotype.Edge(0, ("sep_conv_3x3", "DoubleAttention")),
        genotype.Edge(1, ("sep_conv_3x3", "CBAM")),
    )
    assert published.figures("att_darts") == {
        "cifar10_parameters_millions": 3.2,
        "cifar10_test_error_percent": 2.54,
    }
    assert published.parameters("att_darts") == {
        "cifar10_36_channels_20_cells": 3231343,
        "imagenet_48_channels_14_cells": 4641666,
    }


def test_variants_that_the_table_does_not_list_have_no_figures():
    assert published.figures("enas_figure") == {}


@pytest.mark.parametrize("name", published.network_names())
def test_every_network_is_counted_at_its_size(name):
    size = published.size_name(name)
    assert published.source(name)
    assert published.parameters(name)[size] > 1_000_000
    assert published.multiply_adds(name)[size] > 100_000_000
    assert published.parameters(name).keys() == (
        published.multiply_adds(name).keys()
    )
    # Rounding of the table aside, only what the head of the module tells of
    # differs from what was published.
    figures = published.figures(name)
    same = name == published.DENSENET or published.skeleton(name) == "DARTS"
    if figures and same and name != "bayesnas_0.005":
        assert published.parameters(name)[size] / 1e6 == pytest.approx(
            figures["cifar10_parameters_millions"], abs=0.06
        )


def test_skeletons_are_those_of_the_publications():
    others = {
        name
        for name in published.network_names()
        if published.skeleton(name) != "DARTS"
    }
    assert others == {
        "nasnet_a",
        "nasnet_a_darts",
        "amoebanet_a",
        "amoebanet_a_darts",
        "amoebanet_b",
        "pnasnet_5",
        "enas",
        "enas_figure",
        "densenet_bc",
    }


def test_a_network_without_cells_is_named_but_has_none():
    assert published.resolve_network("densenet_bc") == "densenet_bc"
    assert published.plain("densenet_bc") == "densenet_bc"
    cells = published.resolve_network("darts_v2")
    assert cells == published.get("darts_v2")
    assert published.plain(cells) == json.loads(cells.to_json())
    for function in (published.get, published.resolve):
        with pytest.raises(UsageError, match="a network without cells"):
            function("densenet_bc")
    with pytest.raises(UsageError, match="Did you mean 'densenet_bc'"):
        published.resolve_network("densenet-bc")


def test_figures_are_copies():
    published.figures("att_darts")["cifar10_test_error_percent"] = 0.0
    assert published.figures("att_darts")["cifar10_test_error_percent"] == 2.54


def test_extra_operations_are_used_by_published_cells_and_only_by_them():
    used = {
        name
        for cell in published.names()
        for half in search_space.CELL_NAMES
        for node in getattr(published.get(cell), half).nodes
        for edge in node
        for name in edge.layers
    }
    assert used >= set(search_space.EXTRA_OPERATION_NAMES)
    assert not set(search_space.EXTRA_OPERATION_NAMES) & set(
        search_space.EITHER_NAMES
    )


def test_resolves_names_and_files(tmp_path, monkeypatch):
    cells = published.get("darts_v2")
    path = tmp_path / "mine.json"
    cells.write(path)
    assert published.resolve("darts_v2") == cells
    assert published.resolve(str(path)) == cells
    assert published.resolve(path) == cells
    monkeypatch.chdir(tmp_path)
    cells.write("plain")
    assert published.resolve("plain") == cells
    # A file with the name of a published cell does not stand in its place.
    published.get("darts_v1").write("att_darts")
    assert published.resolve("att_darts") == published.get("att_darts")
    assert published.resolve("./att_darts") == published.get("darts_v1")


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("att-darts", "Did you mean 'att_darts'?"),
        ("Att_DARTS", "Did you mean 'att_darts'?"),
        ("", "Expected one of nasnet_a, "),
        ("absent.json", "absent.json: expected a genotype file that can be"),
        ("runs/absent", "runs/absent: expected a genotype file that can be"),
        ("x" * 300, "Expected one of nasnet_a, "),
        (None, "name of a published cell or the path"),
        (3, "name of a published cell or the path"),
    ],
)
def test_what_is_neither_is_refused(cell, expected):
    with pytest.raises(UsageError) as caught:
        published.resolve(cell)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function", [published.get, published.source, published.figures]
)
def test_unknown_name_lists_the_names(function):
    with pytest.raises(UsageError, match="Did you mean 'pnasnet_5'"):
        function("pnasnet5")


# Source: the released BayesNAS network; two size reductions of C to C, by two
# convolutions to C / 2, and normalisations of what enters instead of what
# leaves a preprocessing; no normalisation in the stem, one before the head.
def test_released_bayesnas_network_has_the_listed_number_of_parameters():
    (here,) = published.parameters("bayesnas_0.005").values()
    channels, inputs, released = 36, [108, 108], here
    for cell in range(20):
        channels *= 1 + (cell in (6, 13))
        released += sum(2 * (each - channels) for each in inputs)
        if cell - 1 in (6, 13):
            released += inputs[0] ** 2
        inputs = [inputs[1], 4 * channels]
    released += 2 * inputs[1] - 2 * 108
    assert released == 2_512_198
