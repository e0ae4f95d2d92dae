"""A trained network -> SavedModel, as TensorFlow Serving takes it."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def export(
    config: str,
    workdir: str,
    records: dsl.Input[dsl.Dataset],
    networks: dsl.Input[list[dsl.Model]],
    evaluation: dsl.Input[dsl.Metrics],
    model: dsl.Output[dsl.Model],
):
    """Writes the first network as a SavedModel.

    Which one is not chosen on the test split: the first, whatever its figure.

    Args:
        config: The resolved configuration as JSON: the cache key must see it.
        workdir: Stable folder of the run.
        records: Prepared images, which name the classes.
        networks: The trained networks.
        evaluation: Test accuracy, which the model card shows.
        model: The SavedModel.
    """
    from att_darts_tf import lineage
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir) as (settings, folders):
        from att_darts_tf import serving

        serving.run_export(
            settings,
            data_dir=records.path,
            model=networks[0].path,
            output_dir=folders.export,
            evaluation=folders.evaluation,
        )
        saved = folders.model(settings.export.name, settings.export.version)
        task.publish(model, saved, content=saved)
        lineage.record(folders.export, stage="export")
