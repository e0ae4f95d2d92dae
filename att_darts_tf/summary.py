"""The few lines that a stage ends with, and the table of a whole run.

Plain functions from the stages' results to text; the pipeline prints the same
lines as the command line.
"""

import json
import resource
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from att_darts_tf import (
    branches,
    durations,
    intervals,
    ranges,
    settings,
    storage,
)
from att_darts_tf.engine import lineage as lineage_module
from att_darts_tf.engine import workdir
from att_darts_tf.errors import printable
from att_darts_tf.layout import Layout

# Trials of a tuning, the best ones.
_SHOWN = 5


def table(config: ml_collections.ConfigDict, folders: Layout) -> list[str]:
    """Returns what a whole run ends with."""

    def result(folder):
        return workdir.read_json(
            folder / "result.json", format=workdir.RESULT_FORMAT
        )

    rows = []
    given = settings.given_cells(config)
    if given:
        rows.append(("Cells", given))
    else:
        chosen = result(folders.selection)
        rows += [
            (f"Candidate, seed {candidate['seed']}", _candidate(candidate))
            for candidate in chosen["candidates"]
        ]
        rows.append(("Chosen", chosen["reason"]))
        rows.append(("Cells", folders.selected))
    if config.tune.space:
        found = result(folders.tuning)["found"]
        rows.append((f"Tuned, to {config.tune.stage}", ranges.told(found)))
    judged = result(folders.evaluation)
    least = config.export.least_accuracy
    served = judged["mean"] >= least
    rows += [
        ("Parameters", f"{result(folders.training(0))['parameters']:,}"),
        *accuracies(judged),
        *(
            (
                f"On {branch.title}"
                if branch.is_target
                else branch.title.capitalize(),
                spread(result(place.evaluation)),
            )
            for branch in branches.of(config)
            for place in [folders.branch(branch.name)]
        ),
        *(
            _models(config.export, folders)
            if served
            else [("SavedModel", f"none, for less than {percent(least)}")]
        ),
    ]
    # A network without cells has none.
    if result(folders.report)["drawings"]:
        rows.append(("Drawings", folders.report / "{normal,reduce}.{svg,png}"))
    rows.append(("Report", folders.report / "report.html"))
    width = max(len(name) for name, _ in rows)
    line = "-" * 79
    return [
        line,
        *(f"{name:{width}}  {value}" for name, value in rows),
        line,
        *(classify_command(folders) if served else []),
    ]


def prepare(description: dict, folders: Layout) -> list[str]:
    splits = description["splits"]
    height, width, channels = description["image_shape"]
    return [
        f"{description['name']}: {splits['train']['examples']:,} training and "
        f"{splits['test']['examples']:,} test images of {height} x {width} x "
        f"{channels}, {len(description['class_names'])} classes",
        f"Records: {folders.data}",
    ]


def tune(result: dict, folders: Layout) -> list[str]:
    if not result:
        return ["No trial is left for this process: the chief has the result"]
    ranked = sorted(
        result["trials"],
        key=lambda each: (each["epochs"], each["accuracy"]),
        reverse=True,
    )
    lines = []
    for each in ranked[:_SHOWN]:
        low, high = intervals.of_share(each["accuracy"], each["images"])
        lines.append(
            f"Trial {each['trial']}: {percent(each['accuracy'])} of "
            f"{each['images']:,} held-out images (95 % interval: "
            f"{100 * low:.2f} to {100 * high:.2f}), {each['epochs']} epochs: "
            f"{ranges.told(each['values'])}"
        )
    infeasible = sum(bool(each["infeasible"]) for each in result["trials"])
    others = len(ranked) - len(lines)
    return [
        *lines,
        *([f"and {others} more, in {folders.tuned}"] if others else []),
        *(
            [f"{infeasible} of them could not be trained to their end"]
            if infeasible
            else []
        ),
        f"Configuration: {folders.tuning / 'config.py'}",
        f"Picture: {folders.tuning / 'trials.png'}",
        f"TensorBoard, HParams: tensorboard --logdir={folders.tuning}",
    ]


def search(result: dict, folders: Layout) -> list[str]:
    folder = folders.search(result["seed"])
    return [
        f"Seed {result['seed']}: supernet accuracy "
        f"{percent(result['train_accuracy'])} on the weight half, "
        f"{percent(result['architecture_accuracy'])} on the architecture half, "
        f"{result['seconds']:.0f} s. Cells: {folder / 'genotype.json'}"
    ]


def select(result: dict, folders: Layout) -> list[str]:
    return [
        *(
            f"Seed {candidate['seed']}: {_candidate(candidate)}"
            for candidate in result["candidates"]
        ),
        f"Chosen: {result['reason']}",
        f"Cells: {folders.selected}",
    ]


def train(result: dict, folders: Layout) -> list[str]:
    file = folders.trained(result["seed"])
    return [
        f"Repeat {result['seed']}: {result['parameters']:,} parameters, "
        f"training accuracy {percent(result['train_accuracy'])} after "
        f"{result['epochs']} epochs, {result['seconds']:.0f} s. Network: {file}"
    ]


def evaluate(result: dict, folders: Layout) -> list[str]:
    return [
        *(f"{name}: {value}" for name, value in accuracies(result)),
        f"Figures: {folders.evaluation / 'result.json'}",
    ]


def export(
    config: ml_collections.ConfigDict, folders: Layout
) -> list[str]:
    return [
        *(f"{name}: {path}" for name, path in _models(config.export, folders)),
        *classify_command(folders),
    ]


def report(result: dict, folders: Layout) -> list[str]:
    return [f"Report: {folders.report / 'report.html'}"]


def import_checkpoint(result: dict) -> list[str]:
    return [
        f"A {result['kind']} of {result['parameters']:,} parameters: "
        f"{result['cells']} cells, {result['channels']} channels, "
        f"{result['classes']} classes, for images of "
        f"{' x '.join(map(str, result['image_size']))} pixels",
        f"Files: {result['folder']}",
    ]


def lineage(record: Mapping[str, Any], *, changed: bool) -> Iterator[str]:
    """Yields lines that tell of a record and of all before it.

    Args:
        record: As `lineage.load` returns it.
        changed: Boolean. Whether the result is no longer the one it tells of.
    """
    if changed:
        yield (
            f"Changed since: {record['result']['file']} is not the file that "
            "this record tells of"
        )
    stages = {
        key: each["stage"] for key, each in record["ancestors"].items()
    }
    yield from _of_stage(record, stages)
    # Those that were read last were made last.
    for ancestor in reversed(record["ancestors"].values()):
        yield ""
        yield from _of_stage(ancestor, stages)


def used(stage: str, begun: float) -> str:
    """Returns a line of the time and the memory that a stage took.

    Args:
        stage: What ends now in this process.
        begun: `time.monotonic` of its beginning.
    """
    kilobytes = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (
        f"{stage} took {durations.duration(time.monotonic() - begun)} and at "
        f"most {kilobytes * 1024 / 1e9:.1f} GB of memory"
    )


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def accuracies(result: dict) -> list[tuple[str, str]]:
    """Returns the names of the figures of an evaluation, and the figures."""
    rows = [("Test accuracy", spread(result))]
    if "top_5_accuracies" in result:
        rows.append(("Top-5 accuracy", spread(result, prefix="top_5_")))
    return rows


def spread(result: dict, *, prefix: str = "") -> str:
    accuracies = result[f"{prefix}accuracies"]
    of = f"of {result['images']:,} images"
    if len(accuracies) == 1:
        return f"{percent(accuracies[0])} {of}, one training"
    return (
        f"{percent(result[f'{prefix}mean'])} +- "
        f"{100 * result[f'{prefix}standard_deviation']:.2f} {of}, "
        f"{len(accuracies)} trainings (95 % interval of the mean: +- "
        f"{100 * result[f'{prefix}half_width_95']:.2f})"
    )


def classify_command(folders: Layout) -> list[str]:
    """Returns how to classify an image, with TensorFlow alone."""
    script, first = str(folders.classifier), "Classify a JPEG or PNG file:"
    if storage.is_remote(folders.export):
        script = "export/classify.py"
        first = f"With a copy of {folders.export}, classify a JPEG or PNG file:"
    return [first, f"  {shlex.join([sys.executable, script])} IMAGE"]


def _models(recipe, folders):
    rows = [("SavedModel", folders.model(recipe.name, recipe.version))]
    if recipe.litert:
        rows.append(("LiteRT model", folders.litert(recipe.name)))
    return rows


def _candidate(candidate: dict) -> str:
    return (
        f"{percent(candidate['validation_accuracy'])} of "
        f"{candidate['validation_images']:,} held-out images, "
        f"{candidate['parameters']:,} parameters"
    )


def _of_stage(record, stages):
    made_from, result = record["made_from"], record["result"]
    machine, packages = record["machine"], record["packages"]
    told = {
        result["file"]: result["sha256"],
        "ended": f"{record['ended']}, after "
        + durations.duration(record["seconds"])
        + (" since it was resumed" if record["resumed"] else ""),
        "machine": f"Python {machine.get('python')} on "
        f"{machine.get('system')}, {machine.get('device')}",
        "packages": ", ".join(map(" ".join, packages.items())),
        "code": made_from.get("code"),
        "images": lineage_module.images_of(record),
        "seed": made_from.get("seed"),
        "reads": ", ".join(
            f"{stages[key]} {key[:16]}" for key in record["reads"]
        ),
        **{
            name: digest
            for name, digest in made_from.get("inputs", {}).items()
            # Those are what it reads, above.
            if not name.startswith("lineage_")
        },
        "settings": " ".join(
            f"{name}={json.dumps(value)}"
            for name, value in settings.flatten(made_from.get("config", {}))
        ),
    }
    width = 14
    yield printable(record["stage"])
    for name, value in told.items():
        if value not in (None, ""):
            # A copied record is somebody else's text.
            yield from textwrap.wrap(
                printable(str(value)),
                width=79,
                initial_indent=f"  {printable(name)} ".ljust(width),
                subsequent_indent=" " * width,
                break_long_words=False,
                break_on_hyphens=False,
            )
