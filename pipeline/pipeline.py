"""The pipeline's one definition, for this machine and for others."""

from collections.abc import Callable

from kfp import dsl

from att_darts_tf.pipeline.components.evaluate import evaluate
from att_darts_tf.pipeline.components.export import export
from att_darts_tf.pipeline.components.prepare import prepare
from att_darts_tf.pipeline.components.report import report
from att_darts_tf.pipeline.components.search import search
from att_darts_tf.pipeline.components.select import select
from att_darts_tf.pipeline.components.train import train

NAME = "att-darts"
CODE_VARIABLE = "ATT_DARTS_CODE"


def define(*, code: str, search_cells: bool = True) -> Callable:
    """Returns the pipeline.

    Args:
        code: String. A digest of the library: the cache sees a component's own
            source only, so every task carries it as an environment variable.
        search_cells: Boolean. Without it the pipeline trains the cells that
            the configuration names.
    """

    def task(component, **inputs):
        # Locally a progress display is lines, and they must not wait.
        return (
            component(**inputs)
            .set_env_variable(CODE_VARIABLE, code)
            .set_env_variable("PYTHONUNBUFFERED", "1")
        )

    @dsl.pipeline(name=NAME)
    def att_darts(config: str, workdir: str, seeds: list, repeats: list):
        """Searches, selects, trains, judges, exports and reports.

        Args:
            config: The resolved configuration as JSON.
            workdir: Stable folder of the run.
            seeds: One search each.
            repeats: One training each.
        """
        run = {"config": config, "workdir": workdir}
        # The cache cannot see whether the images have changed; it can.
        prepared = task(prepare, **run).set_caching_options(False)
        images = {"records": prepared.outputs["records"]}
        cells = {}
        if search_cells:
            # Two searches on one machine gain nothing.
            with dsl.ParallelFor(seeds, parallelism=1) as seed:
                found = task(search, **run, **images, seed=seed)
            chosen = task(
                select,
                **run,
                **images,
                candidates=dsl.Collected(found.outputs["cells"]),
            )
            cells = {"cells": chosen.outputs["cells"]}
        with dsl.ParallelFor(repeats, parallelism=1) as repeat:
            trained = task(train, **run, **images, **cells, repeat=repeat)
        network = trained.outputs["network"]
        # A `Collected` each: the compiler changes the one it has used.
        judged = task(
            evaluate, **run, **images, networks=dsl.Collected(network)
        )
        exported = task(
            export,
            **run,
            **images,
            networks=dsl.Collected(network),
            evaluation=judged.outputs["metrics"],
        )
        task(
            report,
            **run,
            evaluation=judged.outputs["metrics"],
            model=exported.outputs["model"],
        )

    return att_darts
