"""Trained networks -> test accuracy."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def evaluate(
    config: str,
    workdir: str,
    records: dsl.Input[dsl.Dataset],
    networks: dsl.Input[list[dsl.Model]],
    metrics: dsl.Output[dsl.Metrics],
):
    """Judges trained networks on the test split, which nothing else reads.

    Args:
        config: The resolved configuration as JSON: the cache key must see it.
        workdir: Stable folder of the run.
        records: Prepared images.
        networks: The trained networks.
        metrics: Mean and spread of the test accuracy.
    """
    from att_darts_tf import lineage
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir) as (settings, folders):
        from att_darts_tf.network import evaluate

        result = evaluate.run_evaluation(
            settings,
            data_dir=records.path,
            models=[network.path for network in networks],
            output_dir=folders.evaluation,
        )
        task.log(
            metrics,
            folders.evaluation / "result.json",
            {
                name: result[name]
                for name in ("mean", "standard_deviation", "images")
            },
        )
        lineage.record(folders.evaluation, stage="evaluate")
