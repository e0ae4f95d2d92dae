"""The pipeline's one definition, for this machine and for others."""

import json
from collections.abc import Callable, Mapping

import ml_collections
from kfp import dsl

from att_darts_tf import branches, settings, stages
from att_darts_tf.engine import workdir
from att_darts_tf.pipeline import share
from att_darts_tf.pipeline.components.evaluate import evaluate
from att_darts_tf.pipeline.components.export import export
from att_darts_tf.pipeline.components.prepare import prepare
from att_darts_tf.pipeline.components.report import report
from att_darts_tf.pipeline.components.sample import sample
from att_darts_tf.pipeline.components.search import search
from att_darts_tf.pipeline.components.select import select
from att_darts_tf.pipeline.components.train import train
from att_darts_tf.pipeline.components.tune import tune

NAME = "att-darts"
CODE_VARIABLE, CELLS_VARIABLE = "ATT_DARTS_CODE", "ATT_DARTS_CELLS"


def define(
    runs: Mapping[branches.Branch, ml_collections.ConfigDict],
    *,
    code: Mapping[str, str],
    given: str = "",
    vertex: ml_collections.ConfigDict | None = None,
) -> Callable:
    """Returns the pipeline.

    Each task is given the settings that its result depends on and no others,
    and a digest of the code that it stands on: both are in the key of its
    cache, which sees nothing else of the configuration and a component's own
    source only.

    Args:
        runs: The configurations of the run itself and of those that it is
            compared with.
        code: Digests by the stage's name.
        given: Digest of the file of given cells; empty without one.
        vertex: `config.vertex`, for tasks that run there.
    """
    main = branches.MAIN
    options = runs[main].pipeline
    tuned_stage = runs[main].tune.stage if runs[main].tune.space else ""
    least = runs[main].export.least_accuracy
    # Else they are given.
    searches = not settings.given_cells(runs[main])
    # Two searches on one machine gain nothing.
    parallelism = 1 if vertex is None else None

    def task(component, branch, workdir_, **inputs):
        stage = component.name
        read = stages.settings_of(stage, workdir.plain(runs[branch]))
        made = component(
            config=json.dumps(read, sort_keys=True),
            workdir=workdir_,
            branch=branch.name,
            **inputs,
        )
        made.set_env_variable(CODE_VARIABLE, code[stage])
        # Locally a progress display is lines, and they must not wait.
        made.set_env_variable("PYTHONUNBUFFERED", "1")
        if options.retries:
            made.set_retry(num_retries=options.retries)
        if vertex is not None:
            _place(made, vertex, stage)
            # A folder knows what it holds, whoever has worked in it since;
            # that cache does not.
            made.set_caching_options(False)
        return made

    def prepared(branch, root):
        # The cache cannot see whether the images have changed; it can.
        return task(prepare, branch, root).set_caching_options(False)

    def found(stage, root, images, cells, first):
        """Returns what a tuning of the run finds for a stage, if there is one.

        A search is tuned before there are cells.
        """
        if stage != tuned_stage:
            return {}
        made = task(tune, main, root, **images, **cells)
        made.after(*first)
        if stage == "train" and not cells:
            made.set_env_variable(CELLS_VARIABLE, given)
        return {"tuned": made.outputs["tuned"]}

    def chosen(branch, root, images, seeds, tuned, first=()):
        """Returns the cells that a search, or a draw, and a selection give."""
        with dsl.ParallelFor(seeds, parallelism=parallelism) as seed:
            if branch.is_random:
                candidate = task(sample, branch, root, seed=seed)
            else:
                candidate = task(
                    search, branch, root, seed=seed, **images, **tuned
                )
            candidate.after(*first)
        made = task(
            select,
            branch,
            root,
            candidates=dsl.Collected(candidate.outputs["cells"]),
            **images,
        )
        return {"cells": made.outputs["cells"]}

    def judged(branch, root, images, cells, repeats, tuned, first=()):
        """Returns the evaluation of trained networks."""
        with dsl.ParallelFor(repeats, parallelism=parallelism) as repeat:
            trained = task(
                train, branch, root, repeat=repeat, **images, **cells, **tuned
            )
            trained.after(*first)
            if not cells:
                # The cache would not see that another file has their name.
                trained.set_env_variable(CELLS_VARIABLE, given)
        return task(
            evaluate,
            branch,
            root,
            networks=dsl.Collected(trained.outputs["network"]),
            **images,
        )

    @dsl.pipeline(name=NAME)
    def att_darts(workdir: str, seeds: list, repeats: list):
        """Searches, selects, trains, judges, exports and reports.

        Args:
            workdir: Stable folder of the run.
            seeds: One search each.
            repeats: One training each.
        """
        # What is wrong with images of a target is told before hours of work.
        preparations = {
            branch: prepared(branch, workdir)
            for branch in runs
            if branch == main or branch.is_target
        }
        images = {
            branch: {"records": made.outputs["records"]}
            for branch, made in preparations.items()
        }
        first = [
            made for branch, made in preparations.items() if branch != main
        ]
        searched = found("search", workdir, images[main], {}, first)
        cells = {}
        if searches:
            cells = chosen(
                main, workdir, images[main], seeds, searched, first
            )
        trained = found("train", workdir, images[main], cells, first)
        evaluated = judged(
            main, workdir, images[main], cells, repeats, trained, first
        )
        others = []
        for branch in runs:
            if branch == main:
                continue
            own, own_cells = images.get(branch, images[main]), cells
            if not branch.is_target:
                own_cells = chosen(branch, workdir, own, seeds, searched)
            # A target has a recipe of its own, a baseline that of the run.
            recipe = {} if branch.is_target else trained
            others.append(
                judged(branch, workdir, own, own_cells, repeats, recipe)
            )

        def exported():
            return task(
                export,
                main,
                workdir,
                network=evaluated.outputs["served"],
                evaluation=evaluated.outputs["metrics"],
                **images[main],
            )

        def reported(after):
            # It shows what no input names; it sees whether that has changed.
            made = task(
                report,
                main,
                workdir,
                evaluation=evaluated.outputs["metrics"],
            ).set_caching_options(False)
            return made.after(*after, *others)

        if not least:
            reported([exported()])
            return
        with dsl.If(evaluated.outputs["accuracy"] >= least, "accurate"):
            reported([exported()])
        with dsl.Else("not-accurate"):
            reported([])

    return att_darts


def _place(task, vertex, stage):
    """Gives a task the image and the machine that it runs on."""
    machine = vertex[stage]
    task.set_container_image(vertex.image)
    if vertex.machines > 1 and stage in stages.TOGETHER:
        _let_share(task, vertex, machine)
        return
    task.set_cpu_limit(str(machine.cpus))
    task.set_memory_limit(f"{machine.memory}G")
    if machine.accelerators:
        task.set_accelerator_type(machine.accelerator)
        task.set_accelerator_limit(machine.accelerators)


def _let_share(task, vertex, machine):
    """Gives a task what it needs to start several machines, and wait."""
    shared = {
        name: vertex[name]
        for name in (
            *("project", "region", "image", "service_account"),
            *("machines", "machine_type"),
        )
    }
    shared |= {
        "labels": list(vertex.labels),
        "accelerator": machine.accelerator,
        "accelerators": machine.accelerators,
    }
    task.set_env_variable(share.VARIABLE, json.dumps(shared, sort_keys=True))
    task.set_cpu_limit("2")
    task.set_memory_limit("8G")
