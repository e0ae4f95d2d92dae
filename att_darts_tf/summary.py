"""The few lines that a stage ends with, and the table of a whole run.

Plain functions from the stages' results to text; the pipeline prints the same
lines as the command line.
"""

import resource
import shlex
import sys
import time

import ml_collections

from att_darts_tf import durations, settings, storage
from att_darts_tf.engine import workdir
from att_darts_tf.layout import Layout


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
    rows += [
        ("Parameters", f"{result(folders.training(0))['parameters']:,}"),
        *accuracies(result(folders.evaluation)),
        *_models(config.export, folders),
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
        *classify_command(folders),
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
