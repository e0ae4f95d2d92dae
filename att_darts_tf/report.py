"""Stage: what the other stages wrote -> drawings and one page of results.

The page is a single file that loads nothing. It depends on the records and the
configuration alone, not on when or where it is written.
"""

import dataclasses
import html
import io
import math
import os
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from att_darts_tf import (
    branches,
    intervals,
    ranges,
    settings,
    stages,
    storage,
)
from att_darts_tf.durations import duration
from att_darts_tf.engine import lineage, stage_folder
from att_darts_tf.engine import workdir as workdir_module
from att_darts_tf.errors import UsageError
from att_darts_tf.space import drawings, published, search_space
from att_darts_tf.space.genotype import Genotype

PAGE = "report.html"
# Trials of a tuning that are seen at once.
_TRIALS = 10
# Formats of the records that are shown; their writers load TensorFlow.
DATA_FORMAT = 1
HISTORY_FORMAT = 1
ARCHITECTURE_FORMAT = 1

# What is read of each record: a type, a list of one shape, or named fields.
_COUNT = int
_SPLIT = {"examples": _COUNT, "examples_per_class": [_COUNT]}
_DATA = {
    "name": str,
    "image_shape": [_COUNT],
    "class_names": [str],
    "mean": [float],
    "std": [float],
    "normalisation": str,
    "splits": {"train": _SPLIT, "test": _SPLIT},
}
_SEARCH = {
    "parameters": _COUNT,
    "train_accuracy": float,
    "architecture_accuracy": float,
    "seconds": float,
}
_SEARCH_HISTORY = {
    "epochs": [
        {
            "epoch": _COUNT,
            "loss": float,
            "accuracy": float,
            "search_loss": float,
            "search_accuracy": float,
        }
    ]
}
_ARCHITECTURE = {
    "location": str,
    "epochs": [{"epoch": _COUNT, "architecture": dict}],
}
_SELECTION = {
    "candidates": [
        {
            "seed": _COUNT,
            "validation_accuracy": float,
            "validation_images": _COUNT,
            "parameters": _COUNT,
            "seconds": float,
        }
    ],
    "chosen": _COUNT,
    "reason": str,
}
_TRAINING = {
    "seed": _COUNT,
    "parameters": _COUNT,
    "parameters_with_auxiliary": _COUNT,
    "train_accuracy": float,
    "train_loss": float,
    "epochs": _COUNT,
    "seconds": float,
}
_TUNING = {
    "trials": [
        {
            "trial": _COUNT,
            "values": {},
            "epochs": _COUNT,
            "accuracy": float,
            "images": _COUNT,
            "seconds": float,
            "infeasible": str,
        }
    ],
    "best": _COUNT,
    "found": {},
}
_TRAINING_HISTORY = {
    "epochs": [{"epoch": _COUNT, "loss": float, "accuracy": float}]
}
_EVALUATION = {
    "accuracies": [float],
    "losses": [float],
    "mean": float,
    "standard_deviation": float,
    "images": _COUNT,
}
_EXPORT = {
    "command": str,
    "cost": {
        "parameters": _COUNT,
        "parameters_with_auxiliary": _COUNT,
        "multiply_adds": _COUNT,
        "activation_bytes": _COUNT,
    },
    "latencies": [
        {"batch": _COUNT, "median": float, "least": float, "most": float}
    ],
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A record of its kind: its number, result and figures by epoch."""

    number: int
    result: dict[str, Any]
    epochs: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Compared:
    """A baseline or a target: what it is, and its figures."""

    branch: branches.Branch
    data: str
    parameters: int
    evaluation: dict[str, Any]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Records:
    """All that is shown.

    Attributes:
        data: Description of the images.
        cells: The cells of the final network, or the name of one without.
        searches: A `Run` for each seed; none where the cells were given.
        selection: Result of the selection, or `None` where they were given.
        location: Where attention goes in the search; empty without one.
        architecture: Final architecture weights of the chosen search, by the
            parameter's name, before the softmax.
        tuning: Result of the tuning, or `None` without one.
        trainings: A `Run` for each repeat.
        evaluation: Result of the evaluation.
        exported: Result of the export, or `None` where the accuracy is too low
            for one.
        compared: What the run is compared with.
        lineages: What each folder was made from, by its name; those that are
            there.
        files: SHA-256 of each file that was read, by its name.
    """

    data: dict[str, Any]
    cells: Genotype | str
    searches: list[Run]
    selection: dict[str, Any] | None
    location: str
    architecture: dict[str, list]
    tuning: dict[str, Any] | None
    trainings: list[Run]
    evaluation: dict[str, Any]
    exported: dict[str, Any] | None
    compared: list["Compared"]
    lineages: dict[str, dict[str, Any]]
    files: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: String of the legend.
        points: Sequence of (x, y).
        colour: Integer; the same one for what belongs together.
        dashed: Boolean.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def run_report(
    config: ml_collections.ConfigDict,
    *,
    workdir: str | os.PathLike,
    output_dir: str | os.PathLike,
) -> dict[str, Any]:
    """Draws the cells and writes the page of results.

    Args:
        config: The resolved configuration.
        workdir: Folder of the run, with the folders of the other stages.
        output_dir: Folder of `report.html` and of the drawings of both cells
            as SVG and PNG.

    Returns:
        `page` and `drawings`, the names of the files (no drawings for a
        network without cells); `parameters` of the
        network without auxiliary head; `mean` and `standard_deviation` of the
        test accuracy, and its number of `images`.
    """
    root = storage.path(workdir)
    records = read_records(config, root)
    identity = workdir_module.identity(
        config,
        sections=stages.STAGES["report"].settings,
        code=stages.STAGES["report"].code,
        # The page shows them all.
        without_influence=(),
        genotype=published.plain(records.cells),
        records=records.files,
    )
    with stage_folder.StageFolder(
        output_dir,
        stage="report",
        identity=identity,
        reads=[root / name for name in records.lineages],
        quick=True,
    ) as folder:
        cells = _cells_of(records)
        names = [f"{cell}.{kind}" for cell in cells for kind in ("svg", "png")]
        result = folder.result()
        if result and all(
            (folder.path / name).exists() for name in (*names, PAGE)
        ):
            return result
        for name, cell in cells.items():
            _draw(cell, name, folder.path)
        workdir_module.write_atomically(
            folder.path / PAGE, render(config, records)
        )
        evaluation = records.evaluation
        return folder.finish(
            {
                "page": PAGE,
                "drawings": names,
                "parameters": records.trainings[0].result["parameters"],
                "mean": evaluation["mean"],
                "standard_deviation": evaluation["standard_deviation"],
                "images": evaluation["images"],
            }
        )


def read_records(
    config: ml_collections.ConfigDict, root: storage.Path
) -> Records:
    """Reads and checks what is shown, or raises `UsageError`.

    Args:
        config: The resolved configuration.
        root: Folder of the run.
    """
    reader = _Reader(root)
    data = reader.read("prepare", "data/dataset.json", _DATA, DATA_FORMAT)
    _check_data(data, root / "data/dataset.json")
    folders = ["data"]
    searches, selection, location, architecture = [], None, "", {}
    if settings.given_cells(config):
        # What a training began with need not be there any more.
        cells = published.resolve_network(
            config.network.cell
            or reader.require("train", "training/repeat-0/model.keras")
        )
    else:
        for seed in config.search.seeds:
            folder = f"search/seed-{seed}"
            folders.append(folder)
            searches.append(
                reader.run("search", folder, seed, _SEARCH, _SEARCH_HISTORY)
            )
        selection = reader.result("select", "selection", _SELECTION)
        folders.append("selection")
        chosen = _chosen(selection, config, root / "selection/result.json")
        location, architecture = _read_architecture(reader, chosen["seed"])
        cells = reader.genotype("select", "selection/genotype.json")
    tuning = None
    if config.tune.space:
        tuning = reader.result("tune", "tuning", _TUNING)
        folders.append("tuning")
    trainings = []
    for repeat in range(config.repeats):
        folder = f"training/repeat-{repeat}"
        folders.append(folder)
        trainings.append(
            reader.run("train", folder, repeat, _TRAINING, _TRAINING_HISTORY)
        )
    evaluation = reader.result("evaluate", "evaluation", _EVALUATION)
    if config.repeats > 1:
        workdir_module.check_shape(
            evaluation,
            {"half_width_95": float},
            file=root / "evaluation/result.json",
        )
    for name in ("accuracies", "losses"):
        if len(evaluation[name]) != config.repeats:
            raise workdir_module.malformed(
                root / "evaluation/result.json",
                name,
                f"{config.repeats} numbers, one for each training",
                evaluation[name],
            )
    reader.check_evaluation("", config.repeats)
    if selection is not None:
        reader.check_selection(config.search.seeds)
    if tuning is not None:
        reader.check_tuned(config, tuning["found"])
    folders.append("evaluation")
    exported = None
    if evaluation["mean"] >= config.export.least_accuracy:
        exported = reader.result("export", "export", _EXPORT)
        folders.append("export")
    compared = [
        _read_compared(reader, branch, config) for branch in branches.of(config)
    ]
    folders += [f"{each.branch.name}/evaluation" for each in compared]
    lineages = {
        folder: reader.lineage(f"{folder}/{lineage.FILE}")
        for folder in folders
        if (root / folder / lineage.FILE).exists()
    }
    return Records(
        data=data,
        cells=cells,
        searches=searches,
        selection=selection,
        location=location,
        architecture=architecture,
        tuning=tuning,
        trainings=trainings,
        evaluation=evaluation,
        exported=exported,
        compared=compared,
        lineages=lineages,
        files=reader.files,
    )


def _read_compared(reader, branch, config) -> Compared:
    """Returns a branch of the pipeline, which alone runs it."""
    place = f"{branch.name}/"
    described = reader.read(
        "pipeline",
        f"{place if branch.is_target else ''}data/dataset.json",
        {"name": str},
        DATA_FORMAT,
    )
    seconds = []
    if not branch.is_target:
        selected = reader.result("pipeline", f"{place}selection", _SELECTION)
        seconds += [each["seconds"] for each in selected["candidates"]]
        if not branch.is_random:
            seconds += [
                reader.result("pipeline", f"{place}search/seed-{i}", _SEARCH)[
                    "seconds"
                ]
                for i in config.search.seeds
            ]
    trainings = [
        reader.result("pipeline", f"{place}training/repeat-{i}", _TRAINING)
        for i in range(config.repeats)
    ]
    seconds += [each["seconds"] for each in trainings]
    reader.check_evaluation(place, config.repeats)
    if not branch.is_target:
        reader.check_recipe(place)
    return Compared(
        branch,
        described["name"],
        trainings[0]["parameters"],
        reader.result("pipeline", f"{place}evaluation", _EVALUATION),
        sum(seconds),
    )


class _Reader:
    """Reads files of a run and keeps their digests.

    Args:
        root: Folder of the run.
    """

    def __init__(self, root: storage.Path):
        self.root = root
        self.files: dict[str, str] = {}

    def read(self, stage: str, name: str, shape: Any, format: int) -> dict:
        """Returns a checked record; `stage` is the one that writes it."""
        path = self.require(stage, name)
        payload = workdir_module.read_record(path, shape, format=format)
        self.files[name] = workdir_module.digest(path)
        return payload

    def result(self, stage: str, folder: str, shape: Any) -> dict:
        return self.read(
            stage,
            f"{folder}/result.json",
            shape,
            workdir_module.RESULT_FORMAT,
        )

    def run(
        self, stage: str, folder: str, number: int, result: Any, history: Any
    ) -> Run:
        # A stage writes its result last.
        found = self.result(stage, folder, result)
        file = f"{folder}/history.json"
        epochs = self.read(stage, file, history, HISTORY_FORMAT)["epochs"]
        if not epochs:
            raise workdir_module.malformed(
                self.root / file, "epochs", "at least one epoch", epochs
            )
        return Run(number, found, epochs)

    def genotype(self, stage: str, name: str) -> Genotype:
        path = self.require(stage, name)
        self.files[name] = workdir_module.digest(path)
        return Genotype.read(path)

    def lineage(self, name: str) -> dict:
        path = self.root / name
        self.files[name] = workdir_module.digest(path)
        return lineage.load(path)

    def check_evaluation(self, place: str, repeats: int) -> None:
        """Raises `UsageError` for an evaluation of other trainings."""
        judged = self._identity(f"{place}evaluation").get("inputs", {})
        for repeat in range(repeats):
            file = self.root / f"{place}training/repeat-{repeat}/model.keras"
            if file.exists() and judged.get(
                f"model_{repeat}"
            ) != workdir_module.digest(file):
                raise _of_others(f"{place}evaluation", "evaluate", file)

    def check_selection(self, seeds: Sequence[int]) -> None:
        """Raises `UsageError` for a selection among other cells."""
        chosen_from = self._identity("selection").get("genotypes", [])
        for i, seed in enumerate(seeds):
            file = self.root / f"search/seed-{seed}/genotype.json"
            if file.exists() and chosen_from[i : i + 1] != [
                published.plain(Genotype.read(file))
            ]:
                raise _of_others("selection", "select", file)

    def check_tuned(
        self, config: ml_collections.ConfigDict, found: Mapping[str, Any]
    ) -> None:
        """Raises `UsageError` for what took other values than were found."""
        stage, folders = config.tune.stage, ["training/repeat-0"]
        if stage == "search":
            folders = [f"search/seed-{seed}" for seed in config.search.seeds]
        for folder in folders:
            identity = self._identity(folder)
            made = {**identity.get("config", {}), "data": identity.get("data")}
            for name, value in found.items():
                section, field = name.split(".")
                if (made.get(section) or {}).get(field) != value:
                    raise _of_others(
                        folder, stage, self.root / "tuning/result.json"
                    )

    def check_recipe(self, place: str) -> None:
        """Raises `UsageError` for a baseline with another recipe."""
        recipes = []
        for folder in ("training/repeat-0", f"{place}training/repeat-0"):
            made = self._identity(folder).get("config", {})
            recipes.append(
                {
                    name: value
                    for name, value in made.get("network", {}).items()
                    if name not in ("cell", "pretrained", "frozen")
                }
            )
        if recipes[0] != recipes[1]:
            raise _of_others(
                f"{place}training", "pipeline", self.root / "training"
            )

    def _identity(self, folder: str) -> dict:
        return workdir_module.read_record(
            self.root / folder / "identity.json",
            {},
            format=workdir_module.IDENTITY_FORMAT,
        )

    def require(self, stage: str, name: str) -> storage.Path:
        path = self.root / name
        if not path.exists():
            command = shlex.join(["att-darts", stage])
            raise UsageError(
                f"Expected {path}, which an earlier stage writes. Received: no "
                f"such file. Run first: {command} --config=... "
                f"--workdir={shlex.quote(str(self.root))}"
            )
        return path


def _of_others(folder, stage, file) -> UsageError:
    return UsageError(
        f"Expected {folder} to be of what is there now. Received: one made "
        f"before {file} was. Run first: att-darts {stage} --replace, with the "
        "same flags"
    )


def _check_data(data, path) -> None:
    classes = len(data["class_names"])
    for name, split in data["splits"].items():
        if len(split["examples_per_class"]) != classes:
            raise workdir_module.malformed(
                path,
                f"splits.{name}.examples_per_class",
                f"{classes} numbers, one for each class",
                split["examples_per_class"],
            )
    if len(data["image_shape"]) != 3:
        raise workdir_module.malformed(
            path, "image_shape", "three numbers", data["image_shape"]
        )


def _chosen(selection, config, path) -> dict[str, Any]:
    seeds = [candidate["seed"] for candidate in selection["candidates"]]
    if seeds != list(config.search.seeds):
        raise workdir_module.malformed(
            path,
            "candidates",
            f"one for each of the seeds {tuple(config.search.seeds)}",
            seeds,
        )
    if not 0 <= selection["chosen"] < len(seeds):
        raise workdir_module.malformed(
            path,
            "chosen",
            f"the index of one of {len(seeds)} candidates",
            selection["chosen"],
        )
    return selection["candidates"][selection["chosen"]]


def _read_architecture(reader, seed) -> tuple[str, dict[str, list]]:
    """Returns the location and the last epoch's architecture weights."""
    name = f"search/seed-{seed}/architecture.json"
    record = reader.read("search", name, _ARCHITECTURE, ARCHITECTURE_FORMAT)
    path = reader.root / name
    if not record["epochs"]:
        raise workdir_module.malformed(path, "epochs", "at least one epoch", [])
    weights = record["epochs"][-1]["architecture"]
    space = search_space.get(record["location"])
    checked = {}
    for parameter, shape in space.architecture_shapes().items():
        field = f"epochs[{len(record['epochs']) - 1}].architecture.{parameter}"
        rows = weights.get(parameter)
        kind = [float] if len(shape) == 1 else [[float]]
        workdir_module.check_shape(rows, kind, file=path, field=field)
        rows = [rows] if len(shape) == 1 else rows
        received = (len(rows), *{len(row) for row in rows})
        expected = shape if len(shape) == 2 else (1, *shape)
        if received != expected:
            raise workdir_module.malformed(
                path, field, f"numbers of shape {shape}", rows
            )
        checked[parameter] = rows
    return record["location"], checked


def _cells_of(records) -> dict[str, Any]:
    """Returns the cells by name: none of a network without cells."""
    if isinstance(records.cells, str):
        return {}
    return {
        name: getattr(records.cells, name) for name in search_space.CELL_NAMES
    }


def _draw(cell, name, folder) -> None:
    title = _cell_title(name)
    workdir_module.write_atomically(
        folder / f"{name}.svg", drawings.draw_cell(cell, title)
    )
    file = io.BytesIO()
    drawings.draw_cell_png(cell, title, file)
    workdir_module.write_atomically(folder / f"{name}.png", file.getvalue())


def _cell_title(name: str) -> str:
    return {"normal": "Normal cell", "reduce": "Reduction cell"}[name]


class Markup(str):
    """Text that is HTML already; every other text is escaped."""


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns an HTML or SVG element.

    Args:
        tag: String.
        *children: What is in it: `Markup` as it is, sequences of children,
            and anything else as escaped text.
        **attributes: Escaped. `class_` is `class`, `stroke_width` is
            `stroke-width`; those that are `None` are left out.
    """
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag == "meta":
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{_inside(children)}</{tag}>")


def _inside(child: Any) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, (list, tuple)):
        return "".join(map(_inside, child))
    return _escaped(child)


def _escaped(value: Any) -> str:
    # A folder's name may hold bytes that are no text.
    text = str(value).encode("utf-8", "replace").decode()
    return html.escape(text)


def table(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], *, foot: Any = None
) -> Markup:
    """Returns a table whose first column names its rows."""
    return _scrolled(
        element(
            "table",
            element(
                "thead",
                element("tr", [element("th", c, scope="col") for c in head]),
            ),
            element("tbody", [_row(row) for row in rows]),
            element("tfoot", _row(foot)) if foot else "",
        )
    )


def _row(cells: Sequence[Any]) -> Markup:
    first, *rest = cells
    return element(
        "tr",
        element("th", first, scope="row"),
        [element("td", cell) for cell in rest],
    )


def _scrolled(*children: Any) -> Markup:
    return element("div", *children, class_="scroll")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def spread(evaluation: Mapping[str, Any]) -> str:
    """Returns the test accuracy with its spread, where there is one."""
    if len(evaluation["accuracies"]) == 1:
        return percent(evaluation["mean"])
    return (
        f"{100 * evaluation['mean']:.2f} \u00b1 "
        f"{100 * evaluation['standard_deviation']:.2f} %"
    )


def render(config: ml_collections.ConfigDict, records: Records) -> str:
    """Returns the page."""
    title = f"Att-DARTS on {records.data['name']}"
    sections = [
        _results(config, records),
        _comparison(records) if records.compared else "",
        _tuning(config, records.tuning) if records.tuning else "",
        _cost(records.exported) if records.exported else "",
        _cells(config, records),
        _weights(records) if records.searches else "",
        _curves(records),
        _time(config, records),
        _data(records.data),
        _use(config, records),
        _configuration(config),
        _lineage(config, records),
    ]
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element(
                "meta",
                http_equiv="Content-Security-Policy",
                content="default-src 'none'; style-src 'unsafe-inline'",
            ),
            element(
                "meta",
                name="viewport",
                content="width=device-width, initial-scale=1",
            ),
            element("title", title),
            element("style", Markup(_style())),
        ),
        "\n",
        element(
            "body",
            element("header", element("h1", title), _facts(config, records)),
            "\n",
            element("main", [[section, "\n"] for section in sections]),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _section(name: str, *children: Any) -> Markup:
    anchor = name.lower().replace(" ", "-")
    return element("section", element("h2", name), *children, id=anchor)


def _folded(summary: str, *children: Any) -> Markup:
    return element("details", element("summary", summary), *children)


def _facts(config, records) -> Markup:
    """Returns the few figures that matter most."""
    evaluation = records.evaluation
    trainings = len(records.trainings)
    if records.selection:
        chosen = records.selection["candidates"][records.selection["chosen"]]
        cells = f"seed {chosen['seed']}"
        origin = f"best of {_many(len(records.searches), 'search', 'es')}"
    else:
        # Of a file, the configuration below has the whole path.
        cells = storage.path(settings.given_cells(config)).name
        origin = "given, not searched"
    facts = [
        (
            "Test accuracy",
            spread(evaluation),
            f"{evaluation['images']:,} images, "
            f"{_many(trainings, 'training')}",
        ),
        (
            "Parameters",
            f"{records.trainings[0].result['parameters']:,}",
            "without auxiliary head",
        ),
        ("Cells", cells, origin),
    ]
    return element(
        "dl",
        [
            element(
                "div",
                element("dt", name),
                element("dd", value, class_="figure"),
                element("dd", note),
            )
            for name, value, note in facts
        ],
        class_="facts",
    )


def _many(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{ending if count != 1 else ''}"


def _results(config, records) -> Markup:
    parts = []
    if records.selection:
        parts.append(element("h3", "Candidates"))
        chosen = records.selection["chosen"]
        pairs = zip(
            records.selection["candidates"], records.searches, strict=True
        )
        rows = [
            (
                f"seed {candidate['seed']}",
                percent(search.result["architecture_accuracy"]),
                percent(candidate["validation_accuracy"]),
                f"{candidate['validation_images']:,}",
                f"{candidate['parameters']:,}",
                duration(search.result["seconds"]),
                element("strong", "\u2713 chosen") if i == chosen else "",
            )
            for i, (candidate, search) in enumerate(pairs)
        ]
        head = (
            "Search",
            "Supernet accuracy",
            "Validation accuracy",
            "Images",
            "Parameters",
            "Search time",
            "",
        )
        parts += [
            table(head, rows),
            element(
                "p", "Chosen: ", records.selection["reason"], ".", class_="why"
            ),
            _note(
                "Supernet accuracy is that of the last epoch on the "
                "architecture half, with augmentation. For validation, the "
                "network of each candidate is trained on the weight half and "
                "judged on the other; the test images play no part."
            ),
        ]
    evaluation = records.evaluation
    rows = [
        (
            f"repeat {run.number}",
            percent(accuracy),
            f"{loss:.4f}",
            percent(run.result["train_accuracy"]),
            f"{run.result['train_loss']:.4f}",
            f"{run.result['epochs']:,}",
            duration(run.result["seconds"]),
        )
        for run, accuracy, loss in zip(
            records.trainings,
            evaluation["accuracies"],
            evaluation["losses"],
            strict=True,
        )
    ]
    head = (
        "Training",
        "Test accuracy",
        "Test loss",
        "Training accuracy",
        "Training loss",
        "Epochs",
        "Time",
    )
    several = len(rows) > 1
    foot = ("mean \u00b1 standard deviation", spread(evaluation), *[""] * 5)
    first = records.trainings[0].result
    auxiliary = first["parameters_with_auxiliary"]
    return _section(
        "Results",
        parts,
        element("h3", "Final network"),
        table(head, rows, foot=foot if several else None),
        _note(
            f"{first['parameters']:,} parameters"
            + (
                f"; {auxiliary:,} with the auxiliary head of the training. "
                if auxiliary != first["parameters"]
                else ". "
            )
            + f"Test figures are of {evaluation['images']:,} images that "
            "nothing else reads"
            + (
                "; the deviation is that of a sample, and the mean is known to "
                f"\u00b1 {100 * evaluation['half_width_95']:.2f} % with 95 % "
                "confidence (Student's t). "
                if several
                else ", and of a single training, so their spread is unknown. "
            )
            + _top_5(evaluation)
            + "Training figures are of the last epoch, with augmentation, drop "
            "path, smoothed labels and the auxiliary head's share of the loss."
        ),
    )


def _tuning(config, tuning) -> Markup:
    """Returns the trials of a tuning, the best ones first."""
    names = list(tuning["found"])
    ranked = sorted(
        tuning["trials"],
        key=lambda trial: (-trial["epochs"], -trial["accuracy"]),
    )

    def row(trial):
        low, high = intervals.of_share(trial["accuracy"], trial["images"])
        accuracy = (
            f"{percent(trial['accuracy'])}, {100 * low:.1f} to "
            f"{100 * high:.1f}"
        )
        return (
            f"trial {trial['trial']}",
            "infeasible" if trial["infeasible"] else accuracy,
            f"{trial['epochs']:,}",
            *(ranges.shown(trial["values"].get(name)) for name in names),
            element("strong", "\u2713 taken")
            if trial["trial"] == tuning["best"]
            else "",
        )

    head = ("Trial", "Validation accuracy", "Epochs", *names, "")
    rows = [row(trial) for trial in ranked]
    return _section(
        "Tuning",
        table(head, rows[:_TRIALS]),
        _folded(
            f"{_many(len(rows) - _TRIALS, 'more trial')}",
            table(head, rows[_TRIALS:]),
        )
        if len(rows) > _TRIALS
        else "",
        _note(
            f"By KerasTuner ({config.tune.method}): each trial is trained on "
            "the weight half and judged on the other, with a 95 % interval "
            "(Wilson); the test images play no part. The best of many is "
            "better on these images than on others."
        ),
    )


def _comparison(records) -> Markup:
    """Returns the baselines beside this run, and the targets of its cells."""
    own = records.evaluation["accuracies"]

    def difference(accuracies):
        if len(accuracies) < 2:
            return "unknown"
        apart = statistics.fmean(accuracies) - statistics.fmean(own)
        half = intervals.of_difference(accuracies, own)
        return f"{100 * apart:+.2f} \u00b1 {100 * half:.2f}"

    def row(each):
        return (
            each.branch.title,
            _with_interval(each.evaluation),
            f"{each.parameters:,}",
            f"{len(each.evaluation['accuracies'])}",
            f"{each.seconds / 3600:.2f}",
        )

    first = records.trainings[0].result
    head = (
        "Cells",
        "Test accuracy",
        "Parameters",
        "Trainings",
        "Device-hours",
    )
    parts = []
    baselines = [each for each in records.compared if not each.branch.is_target]
    if baselines:
        rows = [
            (
                "this run",
                _with_interval(records.evaluation),
                f"{first['parameters']:,}",
                f"{len(own)}",
                f"{_seconds(records) / 3600:.2f}",
                "",
            ),
            *(
                (*row(each), difference(each.evaluation["accuracies"]))
                for each in baselines
            ),
        ]
        parts += [
            element("h3", "With other cells"),
            table((*head, "Difference, points"), rows),
            _note(
                "On the same images and trained by the same recipe; the "
                "cells of each are selected among as many candidates"
                + (
                    ", those of this run were given."
                    if not records.searches
                    else " by the same recipe. Of cells drawn at random only "
                    "the search is left out."
                )
            ),
        ]
    targets = [each for each in records.compared if each.branch.is_target]
    if targets:
        rows = [(each.data, *row(each)) for each in targets]
        parts += [
            element("h3", "The same cells on other images"),
            table(("Images", "Configuration", *head[1:]), rows),
        ]
    parts.append(
        _note(
            "\u00b1 is half of a 95 % interval: of a mean by Student's "
            "distribution, of a difference of means by Welch's. "
            + (
                ""
                if len(own) > 1
                else "A single training tells no spread; "
                "config.repeats makes more of them."
            )
        )
    )
    return _section("Comparison", parts)


def _with_interval(evaluation) -> str:
    half = evaluation.get("half_width_95")
    mean = f"{100 * evaluation['mean']:.2f}"
    return f"{mean} %" if half is None else f"{mean} \u00b1 {100 * half:.2f} %"


def _top_5(evaluation) -> str:
    accuracies = evaluation.get("top_5_accuracies")
    if accuracies is None:
        return ""
    figures = ", ".join(map(percent, accuracies))
    return f"Among the five most probable classes: {figures}. "


def _time(config, records) -> Markup:
    """Returns the device-hours of every stage that trains, and their price."""
    runs = _runs(records)
    runs |= {
        f"{each.branch.title}, all stages": [each.seconds]
        for each in records.compared
    }
    hours = {
        name: sum(seconds) / 3600 for name, seconds in runs.items() if seconds
    }
    hours["total"] = sum(hours.values())
    price = config.hourly_price
    head = ("Stage", "Runs", "Device-hours")
    rows = [
        (name, f"{len(runs.get(name, ())) or ''}", f"{each:.2f}")
        for name, each in hours.items()
    ]
    if price:
        head = (*head, "Price")
        rows = [
            (*row, f"{price * each:,.2f}")
            for row, each in zip(rows, hours.values(), strict=True)
        ]
    *rows, foot = rows
    return _section(
        "Time",
        table(head, rows, foot=foot),
        _note(
            "Of the epochs, with their checkpoints, on one device"
            + (f", at {price:,.2f} an hour." if price else ".")
        ),
    )


def _runs(records) -> dict[str, list[float]]:
    """Returns the seconds of each search and training of this run."""
    return {
        "search": [run.result["seconds"] for run in records.searches],
        "selection": [
            candidate["seconds"]
            for candidate in (records.selection or {"candidates": []})[
                "candidates"
            ]
        ],
        "tuning": [
            trial["seconds"] for trial in (records.tuning or {"trials": []})[
                "trials"
            ]
        ],
        "training": [run.result["seconds"] for run in records.trainings],
    }


def _seconds(records) -> float:
    return sum(map(sum, _runs(records).values()))


def _cost(exported: Mapping[str, Any]) -> Markup:
    cost = exported["cost"]
    auxiliary = cost["parameters_with_auxiliary"]
    facts = [("Parameters", f"{cost['parameters']:,}")]
    if auxiliary != cost["parameters"]:
        facts.append(("With auxiliary head", f"{auxiliary:,}"))
    facts += [
        ("Multiply-adds", f"{cost['multiply_adds']:,}"),
        ("Activation memory", f"{cost['activation_bytes'] / 1e6:,.1f} MB"),
    ]
    facts += [
        (
            f"Latency, batch {times['batch']}",
            f"{times['median']:,.1f} ms, from {times['least']:,.1f} to "
            f"{times['most']:,.1f}",
        )
        for times in exported["latencies"]
    ]
    return _section(
        "Cost",
        _pairs(facts),
        _note(
            "Multiply-adds are those of convolutions and dense layers for one "
            "image at inference. Activation memory is what a training step of "
            "one image keeps for its gradient. Latency is the median of some "
            "runs of the exported model where it was exported.",
        ),
    )


def _note(*children: Any) -> Markup:
    return element("p", *children, class_="note")


def _cells(config, records) -> Markup:
    note = ""
    if config.network.cell in published.network_names():
        note = _note("Published: ", published.source(config.network.cell), ".")
    cells = _cells_of(records)
    if not cells:
        return _section(
            "Cells",
            element("p", "A network without cells: ", records.cells, "."),
            note,
        )
    figures = [
        element(
            "figure",
            Markup(drawings.draw_cell(cell, _cell_title(name))),
            class_="paper",
        )
        for name, cell in cells.items()
    ]
    return _section(
        "Cells",
        note,
        figures,
        _note(
            "c",
            element("sub", "k\u22122"),
            " and c",
            element("sub", "k\u22121"),
            " are the outputs of the two cells before. A node sums its edges; "
            "a box on an edge names its layers in the order in which they are "
            "applied.",
        ),
    )


_MEANINGS = {
    "alphas": "First layer of each edge",
    "betas": "Second layer of each edge",
    "gammas": "Attention on the output",
}


def _weights(records) -> Markup:
    chosen = records.selection["candidates"][records.selection["chosen"]]
    space = search_space.get(records.location)
    kinds = list(
        dict.fromkeys(name.rpartition("_")[0] for name in records.architecture)
    )
    groups = []
    for kind in kinds:
        tables = [
            _heatmap(
                f"{_MEANINGS[kind]}, {_cell_title(cell).lower()}",
                records.architecture[f"{kind}_{cell}"],
                space.candidates(f"{kind}_{cell}"),
                cell=getattr(records.cells, cell),
                with_edges=kind in search_space.STAGE_PARAMETERS,
            )
            for cell in search_space.CELL_NAMES
        ]
        groups.append(element("div", tables, class_="pair"))
    return _section(
        "Architecture weights",
        element(
            "p",
            f"Search with seed {chosen['seed']} after its last epoch: relative "
            "weight (softmax) of each candidate in percent; a row sums to "
            "100. Framed is the strongest candidate, ",
            element("code", search_space.NONE),
            " aside; a dot marks the edges that the cell keeps.",
        ),
        groups,
    )


def _heatmap(title, rows, candidates, *, cell, with_edges) -> Markup:
    kept = {
        (node, edge.source)
        for node, edges in enumerate(cell.nodes)
        for edge in edges
    }
    selectable = search_space.selectable_columns(candidates)
    edges = search_space.edges()
    lines = []
    for i, logits in enumerate(rows):
        weights = search_space.relative_weights(logits)
        best = max(selectable, key=weights.__getitem__)
        label = ["output"]
        if with_edges:
            node, source = edges[i]
            mark = "\u25cf " if (node, source) in kept else ""
            label = [mark, _state(source), f" \u2192 {node}"]
        first = with_edges and i and edges[i][0] != edges[i - 1][0]
        lines.append(
            element(
                "tr",
                element("th", label, scope="row"),
                [
                    _weight(weight, best=j == best)
                    for j, weight in enumerate(weights)
                ],
                class_="first" if first else None,
            )
        )
    head = [
        element("th", element("span", name), scope="col") for name in candidates
    ]
    return element(
        "figure",
        element("figcaption", title),
        _scrolled(
            element(
                "table",
                element("thead", element("tr", element("td"), head)),
                element("tbody", lines),
                class_="heat",
            )
        ),
    )


def _weight(weight: float, *, best: bool) -> Markup:
    # The root tells small weights apart: an even row has at most 17 percent.
    shade = math.sqrt(weight)
    classes = ["best"] * best + ["strong"] * (shade > 0.85)
    return element(
        "td",
        f"{100 * weight:.1f}",
        class_=" ".join(classes) or None,
        style=f"background:rgba(37,99,235,{shade:.3f})",
    )


def _state(state: int) -> list[Any]:
    inputs = search_space.NUM_INPUTS
    if state >= inputs:
        return [state - inputs]
    return ["c", element("sub", f"k\u2212{inputs - state}")]


def _curves(records) -> Markup:
    parts = []
    if records.searches:
        halves = (
            ("", "weight half", False),
            ("search_", "architecture half", True),
        )
        parts += [
            element("h3", "Search"),
            _pair_of_charts(
                [
                    (f"seed {run.number}, {half}", run, prefix, i, dashed)
                    for i, run in enumerate(records.searches)
                    for prefix, half, dashed in halves
                ],
                "Supernet",
            ),
        ]
    parts += [
        element("h3", "Training of the final network"),
        _pair_of_charts(
            [
                (f"repeat {run.number}", run, "", i, False)
                for i, run in enumerate(records.trainings)
            ],
            "Training images",
        ),
    ]
    return _section("Curves", parts)


def _pair_of_charts(lines, subject) -> Markup:
    def series(figure, scale):
        return [
            Series(
                name,
                [
                    (epoch["epoch"] + 1, scale * epoch[f"{prefix}{figure}"])
                    for epoch in run.epochs
                ],
                colour,
                dashed,
            )
            for name, run, prefix, colour, dashed in lines
        ]

    return element(
        "div",
        chart(f"{subject}: loss", "cross entropy (nats)", series("loss", 1)),
        chart(f"{subject}: accuracy", "accuracy (%)", series("accuracy", 100)),
        class_="pair",
    )


# Sizes are in pixels of the SVG.
_WIDTH, _HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 12, 46
_COLOURS = 8
_MOST_MARKED = 30


def chart(title: str, unit: str, lines: Sequence[Series]) -> Markup:
    """Returns a line chart over epochs, with axes and a legend.

    Args:
        title: String above it.
        unit: String. What the vertical axis shows, with its unit.
        lines: Sequence of `Series`, each with at least one point.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_ticks = _ticks(min(xs), max(xs), whole=True)
    y_ticks = _ticks(min(ys), max(ys), outside=True)
    # A single epoch stands in the middle.
    x_first, x_last = min(xs), max(xs)
    if x_first == x_last:
        x_first, x_last = x_first - 1, x_last + 1
    y_first, y_last = y_ticks[0], y_ticks[-1]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(x):
        return _LEFT + (right - _LEFT) * (x - x_first) / (x_last - x_first)

    def y_of(y):
        return bottom - (bottom - _TOP) * (y - y_first) / (y_last - y_first)

    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    parts = []
    for tick in y_ticks:
        y = f"{y_of(tick):.1f}"
        parts += [
            element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"),
            element(
                "text",
                f"{tick:.{digits}f}",
                x=_LEFT - 8,
                y=f"{y_of(tick) + 4:.1f}",
                text_anchor="end",
            ),
        ]
    for tick in x_ticks:
        x = f"{x_of(tick):.1f}"
        parts += [
            element(
                "path", d=f"M{x},{bottom} V{bottom + 5}", class_="axis"
            ),
            element(
                "text", f"{tick:.0f}", x=x, y=bottom + 19, text_anchor="middle"
            ),
        ]
    middle = (_TOP + bottom) / 2
    parts += [
        element(
            "path",
            d=f"M{_LEFT},{_TOP} V{bottom} H{right}",
            class_="axis",
            fill="none",
        ),
        element(
            "text",
            "epoch",
            x=(_LEFT + right) / 2,
            y=_HEIGHT - 8,
            text_anchor="middle",
            class_="label",
        ),
        element(
            "text",
            unit,
            transform=f"translate(15 {middle:.1f}) rotate(-90)",
            text_anchor="middle",
            class_="label",
        ),
    ]
    for line in lines:
        points = [(f"{x_of(x):.1f}", f"{y_of(y):.1f}") for x, y in line.points]
        parts.append(
            element(
                "polyline",
                points=" ".join(",".join(point) for point in points),
                **_stroke(line),
            )
        )
        if len(points) <= _MOST_MARKED:
            parts += [
                element(
                    "circle",
                    cx=x,
                    cy=y,
                    r=2.5,
                    class_=f"dot colour-{line.colour % _COLOURS}",
                )
                for x, y in points
            ]
    return element(
        "figure",
        element("figcaption", title),
        element(
            "svg",
            element("title", title),
            parts,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            class_="chart",
        ),
        element("ul", [_legend(line) for line in lines], class_="legend"),
    )


def _stroke(line: Series) -> dict[str, Any]:
    return {
        "class_": f"line colour-{line.colour % _COLOURS}",
        "stroke_dasharray": "6 4" if line.dashed else None,
    }


def _legend(line: Series) -> Markup:
    swatch = element("line", x1=0, x2=28, y1=5, y2=5, **_stroke(line))
    return element(
        "li", element("svg", swatch, width=28, height=10), " ", line.name
    )


def _ticks(
    first: float, last: float, *, whole: bool = False, outside: bool = False
) -> list[float]:
    """Returns round numbers over a range.

    Args:
        first: Least number shown.
        last: Greatest number shown.
        whole: Boolean. Integers only.
        outside: Boolean. Begins at or below `first` and ends at or above
            `last`, with at least two numbers.
    """
    span = last - first
    if span <= 0:
        span = abs(first) * 0.1 or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(
        factor * power for factor in (1, 2, 5, 10) if factor * power >= rough
    )
    if whole:
        step = max(1.0, step)
    # Rounding errors must not add a tick.
    low, high = first / step, last / step
    if outside:
        begin, end = math.floor(low + 1e-9), math.ceil(high - 1e-9)
        end = max(end, begin + 1)
    else:
        begin, end = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    return [i * step for i in range(begin, end + 1)]


_MOST_OPEN = 30


def _data(data: Mapping[str, Any]) -> Markup:
    height, width, channels = data["image_shape"]
    train, test = data["splits"]["train"], data["splits"]["test"]
    half = train["examples"] // 2
    facts = [
        ("Name", data["name"]),
        (
            "Images",
            f"{height} \u00d7 {width} pixels, {_many(channels, 'channel')}",
        ),
        (
            "Training",
            f"{train['examples']:,} images; a search and the selection use two "
            f"halves of {half:,}",
        ),
        ("Test", f"{test['examples']:,} images"),
        ("Classes", f"{len(data['class_names']):,}"),
        ("Channel means", _numbers(data["mean"])),
        ("Channel deviations", _numbers(data["std"])),
        (
            "Origin of both",
            f"{data['normalisation']}, on the scale where 255 is 1",
        ),
    ]
    most = max(train["examples_per_class"] + test["examples_per_class"] + [1])
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            [
                element(
                    "td",
                    element(
                        "span",
                        class_=f"bar {split}",
                        style=f"width:{120 * count / most:.1f}px",
                    ),
                    f" {count:,}",
                )
                for split, count in (("train", trained), ("test", tested))
            ],
        )
        for name, trained, tested in zip(
            data["class_names"],
            train["examples_per_class"],
            test["examples_per_class"],
            strict=True,
        )
    ]
    head = [
        element("th", name, scope="col")
        for name in ("Class", "Training images", "Test images")
    ]
    histogram = _scrolled(
        element(
            "table",
            element("thead", element("tr", head)),
            element("tbody", rows),
            class_="histogram",
        )
    )
    if len(rows) > _MOST_OPEN:
        histogram = _folded(f"Images of {len(rows):,} classes", histogram)
    return _section("Data", _pairs(facts), histogram)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _pairs(facts: Sequence[tuple[Any, Any]]) -> Markup:
    return _scrolled(
        element(
            "table",
            element("tbody", [_row(fact) for fact in facts]),
            class_="pairs",
        )
    )


def _use(config: ml_collections.ConfigDict, records: Records) -> Markup:
    if records.exported is None:
        return _section(
            "Use of the model",
            element(
                "p",
                "Nothing was exported: the test accuracy is below "
                f"{percent(config.export.least_accuracy)}.",
            ),
        )
    folder = f"export/{config.export.name}/{config.export.version}"
    height, width, channels = records.data["image_shape"]
    return _section(
        "Use of the model",
        element(
            "p",
            "The first network is exported, whatever its test accuracy. With "
            "TensorFlow alone this classifies JPEG or PNG files of any size:",
        ),
        element("pre", records.exported["command"]),
        element(
            "p",
            "The signature ",
            element("code", "serving_default"),
            " takes ",
            element("code", "uint8"),
            f" images of shape (batch, {height}, {width}, {channels}); "
            "normalisation is inside. All signatures:",
        ),
        element("pre", f"saved_model_cli show --dir {folder} --all"),
        element(
            "p",
            "TensorFlow Serving takes the folder as it is; what it is for, and "
            "how it is served, tells its ",
            element("code", "assets.extra/model_card.md"),
            ".",
        ),
    )


def _configuration(config) -> Markup:
    groups: dict[str, list] = {}
    for name, value in _flatten(workdir_module.plain(config)):
        groups.setdefault(name.rpartition(".")[0], []).append(
            (element("code", name), element("code", _setting(value)))
        )
    count = sum(map(len, groups.values()))
    tables = [_pairs(rows) for rows in groups.values()]
    return _section(
        "Configuration",
        _folded(
            f"All {count} settings", element("div", tables, class_="columns")
        ),
    )


def _flatten(values: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value in (None, "") else str(value)


def _lineage(config, records: Records) -> Markup:
    lineages = records.lineages
    if not lineages:
        return _section("Lineage", _note("No stage has left a record of it."))
    rows = [
        (
            element("code", folder),
            record["stage"],
            _digest(record["result"]["sha256"]),
            _digest(record["made_from"].get("code")),
            record["ended"],
            duration(record["seconds"]),
            _given(record["made_from"]),
        )
        for folder, record in lineages.items()
    ]
    head = ("Folder", "Stage", "Result", "Code", "Ended", "Took", "Made from")
    folder = "evaluation"
    if records.exported is not None:
        folder = f"export/{config.export.name}/{config.export.version}"
    versions: dict[str, dict[str, None]] = {}
    for record in lineages.values():
        for name, value in (record["packages"] | record["machine"]).items():
            versions.setdefault(name, {})[str(value)] = None
    return _section(
        "Lineage",
        table(head, rows),
        _note(
            "SHA-256, the first 16 of 64 digits; ",
            element("code", "lineage.json"),
            " in each folder has all of them, the settings, and what was read. "
            "It is shown, for the model wherever it is copied to, by:",
        ),
        element("pre", f"att-darts lineage {folder}"),
        _folded(
            "Packages and machine",
            _pairs(
                [
                    (element("code", name), ", ".join(values))
                    for name, values in versions.items()
                ]
            ),
        ),
    )


def _digest(value: Any) -> Any:
    if not isinstance(value, str):
        return ""
    return element("code", value[:16], title=value)


def _given(made_from: Mapping[str, Any]) -> list[Any]:
    """Returns what a stage was given besides its configuration."""
    given = []
    if "seed" in made_from:
        given.append(f"seed {made_from['seed']}")
    data = made_from.get("data")
    if isinstance(data, dict):
        data = data.get("digest")
    inputs = made_from.get("inputs") or {}
    for name, value in (("images", data), *inputs.items()):
        # Records of what stands here already.
        if isinstance(value, str) and not name.startswith("lineage_"):
            given.append([f"{name} ", _digest(value)])
    return [[", " if i else "", item] for i, item in enumerate(given)]


_LIGHT = {
    "page": "#f8fafc",
    "card": "#ffffff",
    "ink": "#1f2937",
    "faint": "#64748b",
    "rule": "#e2e8f0",
    "accent": "#ea580c",
    "bar": "#2563eb",
    **{
        f"colour-{i}": colour
        for i, colour in enumerate(
            ("#2563eb", "#ea580c", "#16a34a", "#c026d3",
             "#0891b2", "#a16207", "#dc2626", "#475569")
        )
    },
}
_DARK = {
    "page": "#0f172a",
    "card": "#1e293b",
    "ink": "#e2e8f0",
    "faint": "#94a3b8",
    "rule": "#334155",
    "accent": "#fb923c",
    "bar": "#60a5fa",
    **{
        f"colour-{i}": colour
        for i, colour in enumerate(
            ("#60a5fa", "#fb923c", "#4ade80", "#e879f9",
             "#22d3ee", "#facc15", "#f87171", "#cbd5e1")
        )
    },
}
_RULES = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px;
  background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 8px 0 16px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 20px 0 8px; }
h2 + h3 { margin-top: 0; }
section { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 20px 22px; margin: 18px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 14px; margin: 0; }
.facts > div { flex: 1 1 250px; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px; padding: 14px 18px; }
.facts dt, .facts dd, .note { color: var(--faint); font-size: 13px; }
.facts dd { margin: 0; }
.facts .figure { color: var(--ink); font-size: 24px; font-weight: 600;
  overflow-wrap: anywhere; }
.note, .why { margin: 10px 0 0; max-width: 85ch; }
sub { line-height: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 16px 6px 0; text-align: left; font-weight: 400;
  vertical-align: baseline; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
thead th { color: var(--faint); font-size: 13px; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
.pairs td { white-space: normal; overflow-wrap: anywhere; }
.pairs th { color: var(--faint); }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--page); border: 1px solid var(--rule);
  border-radius: 8px; padding: 10px 14px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 8px 0; }
figure { margin: 0 0 14px; min-width: 0; }
figcaption { font-size: 13px; font-weight: 600; margin-bottom: 6px; }
.paper { background: #ffffff; border: 1px solid var(--rule);
  border-radius: 8px; overflow-x: auto; }
.paper svg { display: block; margin: 0 auto; max-width: 100%;
  min-width: 760px; height: auto; }
.pair { display: grid; gap: 8px 34px;
  grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); }
.columns { columns: 340px; column-gap: 34px; }
.columns > * { break-inside: avoid; padding-bottom: 16px; }
.columns td, .columns th { padding: 2px 10px 2px 0; }
.columns td { padding-right: 2px; }
.heat { font-size: 12px; }
.heat th, .heat td { border: 0; padding: 3px 5px; }
.heat tbody td { text-align: right; min-width: 42px; }
.heat tbody th { padding-right: 10px; text-align: right; }
.heat thead th { vertical-align: bottom; text-align: center; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.heat .first > * { border-top: 2px solid var(--card); }
.heat .strong { color: #ffffff; }
.heat .best { outline: 2px solid var(--accent); outline-offset: -2px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--faint); font-size: 12px; }
.chart .label { fill: var(--ink); }
.grid { stroke: var(--rule); }
.axis { stroke: var(--faint); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none;
  margin: 6px 0 0; padding: 0 0 0 20px; font-size: 13px; }
.bar { display: inline-block; height: 10px; background: var(--bar);
  border-radius: 2px; }
.bar.test { background: var(--accent); }
.histogram { margin-top: 16px; }
.histogram th { max-width: 30ch; overflow: hidden; text-overflow: ellipsis; }
.histogram th, .histogram td { border: 0; padding-top: 2px;
  padding-bottom: 2px; }
@media print { section { break-inside: avoid; } }
"""


def _style() -> str:
    def variables(values):
        inside = " ".join(f"--{key}: {value};" for key, value in values.items())
        return f":root {{ color-scheme: light dark; {inside} }}"

    colours = "\n".join(
        f".line.colour-{i} {{ stroke: var(--colour-{i}); }} "
        f".dot.colour-{i} {{ fill: var(--colour-{i}); }}"
        for i in range(_COLOURS)
    )
    return (
        f"\n{variables(_LIGHT)}\n@media (prefers-color-scheme: dark) "
        f"{{ {variables(_DARK)} }}{_RULES}{colours}\n"
    )
