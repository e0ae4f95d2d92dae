"""Images -> records."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def prepare(
    config: str,
    workdir: str,
    branch: str,
    records: dsl.Output[dsl.Dataset],
):
    """Turns images into records, with their statistics and splits.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run.
        branch: Folder of this part of the run in it, if it is one.
        records: Prepared images.
    """
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf.data import run

        run.run_prepare(settings, output_dir=folders.data)
        task.publish(records, folders.data, content=folders.dataset)
