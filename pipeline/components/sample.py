"""A seed -> a pair of cells drawn at random."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def sample(
    config: str,
    workdir: str,
    branch: str,
    seed: int,
    cells: dsl.Output[dsl.Artifact],
):
    """Draws a pair of cells, to compare those of a search with.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run.
        branch: Folder of this part of the run in it.
        seed: Seed of the draw.
        cells: The genotype.
    """
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf.search import sample

        sample.run_sample(
            settings, output_dir=folders.search(seed), seed=seed
        )
        task.publish(cells, folders.found(seed))
