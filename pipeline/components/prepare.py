"""Images -> records."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def prepare(
    config: str,
    workdir: str,
    records: dsl.Output[dsl.Dataset],
):
    """Turns images into records, with their statistics and splits.

    Args:
        config: The resolved configuration as JSON: the cache key must see it.
        workdir: Stable folder of the run.
        records: Prepared images.
    """
    from att_darts_tf import lineage
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir) as (settings, folders):
        from att_darts_tf.data import run

        run.run_prepare(settings, output_dir=folders.data)
        task.publish(records, folders.data, content=folders.dataset)
        lineage.record_data(folders.data)
