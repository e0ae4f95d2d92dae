"""Records, and cells where there are some -> settings that do well."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def tune(
    config: str,
    workdir: str,
    branch: str,
    records: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    cells: dsl.Input[dsl.Artifact] = None,
):
    """Tries settings of trainings or searches, which later tasks take.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run, so that a restart resumes.
        branch: Folder of this part of the run in it, if it is one.
        records: Prepared images.
        tuned: What was found.
        metrics: Accuracy of the best trial on images not trained on.
        cells: The genotype that trials of trainings train; without it, the
            cells that the configuration names.
    """
    from att_darts_tf import settings
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir, branch) as (resolved, folders):
        from att_darts_tf.tuning import run

        genotype = None
        if resolved.tune.stage == "train":
            genotype = cells.uri if cells else settings.given_cells(resolved)
        result = run.run_tuning(
            resolved,
            data_dir=records.uri,
            genotype=genotype,
            output_dir=folders.tuning,
        )
        task.publish(tuned, folders.tuning, content=folders.tuned)
        (best,) = (
            each
            for each in result["trials"]
            if each["trial"] == result["best"]
        )
        task.log(metrics, folders.tuned, {"accuracy": best["accuracy"]})
