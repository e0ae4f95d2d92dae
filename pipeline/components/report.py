"""Everything -> drawings and a page."""

from kfp import dsl

from att_darts_tf.pipeline.image import IMAGE


@dsl.component(
    base_image=IMAGE, packages_to_install=[], install_kfp_package=False
)
def report(
    config: str,
    workdir: str,
    branch: str,
    evaluation: dsl.Input[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
):
    """Draws the cells and writes the page of results.

    Args:
        config: The settings that it reads as JSON: the cache key must see them.
        workdir: Stable folder of the run, whose records are shown.
        branch: Folder of this part of the run in it, if it is one.
        evaluation: Test accuracy, which comes after all that it shows.
        page: The self-contained page.
    """
    from att_darts_tf.pipeline import task

    with task.begin(config, workdir, branch) as (settings, folders):
        from att_darts_tf import report

        report.run_report(
            settings, workdir=folders.root, output_dir=folders.report
        )
        file = folders.report / "report.html"
        task.publish(page, file)
