"""Candidates -> the best pair of cells."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def select(
    config: str,
    workdir: str,
    branch: str,
    records: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[list[dsl.Artifact]],
    cells: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains every candidate briefly and keeps the best.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run, so that a restart resumes.
        branch: Folder of this part of the run in it, if it is one.
        records: Prepared images.
        candidates: The genotypes of all searches.
        cells: The chosen genotype.
        metrics: Validation accuracy of each candidate, by its place.
    """
    from att_darts_tf.pipeline import share, task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf.network import run

        result = share.call(
            run.run_selection,
            settings,
            data_dir=records.uri,
            genotypes=[candidate.uri for candidate in candidates],
            output_dir=folders.selection,
        )
        task.publish(cells, folders.selected)
        task.log(
            metrics,
            folders.selection / "result.json",
            {
                f"validation_accuracy_{place}": candidate[
                    "validation_accuracy"
                ]
                for place, candidate in enumerate(result["candidates"])
            },
        )
