"""Stage: a seed -> a pair of cells drawn at random, to compare searches with.

Source: Li and Talwalkar, 2019, https://arxiv.org/abs/1902.07638: what a search
finds says something beside cells of the same space, chosen and trained alike.
"""

import json
import os

import ml_collections
import numpy as np

from att_darts_tf import stages, storage
from att_darts_tf.engine import stage_folder, workdir
from att_darts_tf.search import derive
from att_darts_tf.space import search_space
from att_darts_tf.space.genotype import Genotype


def run_sample(
    config: ml_collections.ConfigDict,
    *,
    output_dir: str | os.PathLike,
    seed: int,
) -> dict:
    """Draws a pair of cells.

    Args:
        config: The configuration; `config.space.location` is the space.
        output_dir: Folder of the result and of `genotype.json`.
        seed: Integer of at least 0.

    Returns:
        `genotype` and `seed`.
    """
    identity = workdir.identity(
        config,
        sections=("space",),
        code=stages.STAGES["sample"].code,
        seed=seed,
    )
    with stage_folder.StageFolder(
        storage.path(output_dir), stage="sample", identity=identity
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        genotype = draw(config.space.location, seed)
        genotype.write(folder.path / "genotype.json")
        return folder.finish(
            {"genotype": json.loads(genotype.to_json()), "seed": seed}
        )


def draw(location: str, seed: int) -> Genotype:
    """Returns one of all pairs of cells that a search can find, all as likely.

    Independent weights of one distribution are derived as those of a search:
    no edge, and no candidate of an edge but `none`, is before another.

    Args:
        location: String, a key of `SEARCH_SPACES`.
        seed: Integer of at least 0.

    Example:

    >>> print(draw("no_attention", seed=0).normal.nodes[0][0])
    dil_conv_3x3(0)
    """
    random = np.random.default_rng(seed)
    shapes = search_space.get(location).architecture_shapes()
    return derive.derive(
        {name: random.normal(size=shape) for name, shape in shapes.items()},
        location,
    )
