"""Cells drawn at random: all of the space, each as likely."""

import collections
import itertools
import json

import pytest

from att_darts_tf import settings
from att_darts_tf.search import sample
from att_darts_tf.space import genotype, search_space
from att_darts_tf.space.genotype import Genotype

DRAWS = 600


def is_even(counts, cells):
    """Returns whether counts are those of an even draw, by chi-squared.

    Below the mean of its distribution and five of its deviations.
    """
    expected = sum(counts.values()) / cells
    squares = [
        (counts.get(each, 0) - expected) ** 2 / expected for each in counts
    ]
    missing = cells - len(counts)
    freedom = cells - 1
    return sum(squares) + missing * expected < freedom + 5 * (
        (2 * freedom) ** 0.5
    )


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_every_candidate_and_pair_of_edges_is_as_likely(location):
    space = search_space.get(location)
    pairs = [collections.Counter() for _ in range(search_space.NUM_NODES)]
    layers = [collections.Counter() for _ in space.stages]
    outputs = collections.Counter()
    for seed in range(DRAWS):
        drawn = sample.draw(location, seed)
        for name in search_space.CELL_NAMES:
            cell = getattr(drawn, name)
            outputs[cell.bottleneck] += 1
            for node, edges in enumerate(cell.nodes):
                pairs[node][frozenset(edge.source for edge in edges)] += 1
                for edge in edges:
                    for stage, layer in enumerate(edge.layers):
                        layers[stage][layer] += 1
    for node, counts in enumerate(pairs):
        sources = range(node + search_space.NUM_INPUTS)
        both = set(map(frozenset, itertools.combinations(sources, 2)))
        assert set(counts) == both
        assert is_even(counts, len(both)) or len(both) == 1
    for names, counts in zip(space.stages, layers, strict=True):
        choices = set(names) - {search_space.NONE}
        assert set(counts) <= choices
        assert is_even(counts, len(choices))
    if space.output:
        assert is_even(outputs, len(space.output))
    else:
        assert set(outputs) == {""}


def test_seed_decides():
    first, again = (sample.draw("after_every", 3) for _ in range(2))
    assert first == again
    assert sample.draw("after_every", 4) != first


def test_stage_writes_the_cells(tmp_path):
    config = settings.load("base")
    for _ in range(2):
        result = sample.run_sample(config, output_dir=tmp_path, seed=7)
        assert result["seed"] == 7
    written = Genotype.read(tmp_path / "genotype.json")
    assert written == sample.draw(config.space.location, 7)
    assert genotype.Genotype.from_json(json.dumps(result["genotype"])) == (
        written
    )
