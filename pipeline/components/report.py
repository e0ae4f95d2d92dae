"""Everything -> drawings and a page."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def report(
    config: str,
    workdir: str,
    evaluation: dsl.Input[dsl.Metrics],
    model: dsl.Input[dsl.Model],
    page: dsl.Output[dsl.HTML],
):
    """Draws the cells and writes the page of results.

    Args:
        config: The resolved configuration as JSON: the cache key must see it.
        workdir: Stable folder of the run, whose records are shown.
        evaluation: Test accuracy, which comes after all that it shows.
        model: The SavedModel that the page describes.
        page: The self-contained page.
    """
    from att_darts_tf import lineage
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir) as (settings, folders):
        from att_darts_tf import report

        report.run_report(
            settings, workdir=folders.root, output_dir=folders.report
        )
        file = folders.report / "report.html"
        task.publish(page, file, content=file)
        lineage.record(folders.report, stage="report")
