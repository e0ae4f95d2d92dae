"""Records -> a pair of cells."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def search(
    config: str,
    workdir: str,
    branch: str,
    seed: int,
    records: dsl.Input[dsl.Dataset],
    cells: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    tuned: dsl.Input[dsl.Artifact] = None,
):
    """Searches for a pair of cells.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run, so that a restart resumes.
        branch: Folder of this part of the run in it, if it is one.
        seed: Seed of the search.
        records: Prepared images.
        cells: The derived genotype.
        metrics: Supernet accuracy on both halves.
        tuned: What was found for the recipe, where it was tuned.
    """
    from att_darts_tf.pipeline import share, task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf.search import run

        settings, reads = task.as_tuned(settings, tuned)
        folder = folders.search(seed)
        result = share.call(
            run.run_search,
            settings,
            data_dir=records.uri,
            output_dir=folder,
            seed=seed,
            reads=reads,
        )
        found = folders.found(seed)
        task.publish(cells, found)
        task.log(
            metrics,
            folder / "result.json",
            {
                name: result[name]
                for name in ("architecture_accuracy", "train_accuracy")
            },
        )
