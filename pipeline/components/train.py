"""Cells -> a trained network."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def train(
    config: str,
    workdir: str,
    branch: str,
    repeat: int,
    records: dsl.Input[dsl.Dataset],
    network: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    cells: dsl.Input[dsl.Artifact] = None,
    tuned: dsl.Input[dsl.Artifact] = None,
):
    """Trains the network of a pair of cells from scratch.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run, so that a restart resumes.
        branch: Folder of this part of the run in it, if it is one.
        repeat: Number of the training, and its seed.
        records: Prepared images.
        network: The trained network.
        metrics: Accuracy and loss on the training split, and parameters.
        cells: The genotype; without it, the cells that the configuration
            names.
        tuned: What was found for the recipe, where it was tuned.
    """
    from att_darts_tf import settings
    from att_darts_tf.pipeline import share, task

    with task.begin(config, workdir, branch) as (resolved, folders):
        from att_darts_tf.network import run

        resolved, reads = task.as_tuned(resolved, tuned)
        folder = folders.training(repeat)
        result = share.call(
            run.run_training,
            resolved,
            data_dir=records.uri,
            genotype=(
                cells.uri if cells else settings.given_cells(resolved)
            ),
            output_dir=folder,
            seed=repeat,
            reads=reads,
        )
        task.publish(network, folder, content=folders.trained(repeat))
        task.log(
            metrics,
            folder / "result.json",
            {
                name: result[name]
                for name in ("train_accuracy", "train_loss", "parameters")
            },
        )
