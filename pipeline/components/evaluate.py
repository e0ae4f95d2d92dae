"""Trained networks -> test accuracy."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def evaluate(
    config: str,
    workdir: str,
    branch: str,
    records: dsl.Input[dsl.Dataset],
    networks: dsl.Input[list[dsl.Model]],
    metrics: dsl.Output[dsl.Metrics],
    served: dsl.Output[dsl.Model],
    accuracy: dsl.OutputPath(float),
):
    """Judges trained networks on the test split, which nothing else reads.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run.
        branch: Folder of this part of the run in it, if it is one.
        records: Prepared images.
        networks: The trained networks.
        metrics: Mean and spread of the test accuracy.
        served: The network to serve. It is not chosen on the test split: the
            first, whatever its figure.
        accuracy: The mean, in [0, 1].
    """
    from att_darts_tf.pipeline import share, task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf.network import evaluate

        result = share.call(
            evaluate.run_evaluation,
            settings,
            data_dir=records.uri,
            models=[network.uri for network in networks],
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
        task.publish(
            served, networks[0].uri, content=folders.trained(0)
        )
        task.write(accuracy, result["mean"])
