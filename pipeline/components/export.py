"""A trained network -> SavedModel, as TensorFlow Serving takes it."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def export(
    config: str,
    workdir: str,
    branch: str,
    records: dsl.Input[dsl.Dataset],
    network: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Metrics],
    model: dsl.Output[dsl.Model],
):
    """Writes a trained network as a SavedModel.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run.
        branch: Folder of this part of the run in it, if it is one.
        records: Prepared images, which name the classes.
        network: The trained network.
        evaluation: Test accuracy, which the model card shows.
        model: The SavedModel.
    """
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf import serving

        serving.run_export(
            settings,
            data_dir=records.uri,
            model=network.uri,
            output_dir=folders.export,
            evaluation=folders.evaluation,
        )
        saved = folders.model(settings.export.name, settings.export.version)
        task.publish(model, saved)
