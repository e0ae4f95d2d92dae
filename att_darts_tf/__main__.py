"""The command line: `att-darts STAGE --config=... --workdir=...`.

`doctor`, `cost` and `cells` are no stages: they need neither. All
import what they run when they are called, so that `--help` and every refusal
answer without loading TensorFlow.
"""

import contextlib
import dataclasses
import difflib
import json
import os
import re
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

import att_darts_tf
from att_darts_tf import (
    layout,
    ranges,
    settings,
    stages,
    startup,
    storage,
    summary,
)
from att_darts_tf.engine import (
    cluster,
    lineage,
    preemption,
    stage_folder,
    workdir,
)
from att_darts_tf.errors import UsageError, printable
from att_darts_tf.space import published, registry
from att_darts_tf.tuning import roles

PROGRAM = "att-darts"
USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
_PREEMPTED = (
    f"{PROGRAM}: ended by SIGTERM; the same command goes on where it stopped"
)
_CONFIG_FLAG = re.compile(r"--?config(?:=(?P<value>.*))?", re.DOTALL)
_SETTING_FLAG = re.compile(
    r"--?(?:no)?config\.(?P<name>[^=]+)(?:=(?P<value>.*))?", re.DOTALL
)
_WRONG_TYPE = re.compile(r"flag --config\.(?P<name>[^=]+)=(?P<value>.*?): ")
# Flags that one stage takes.
_OWN_FLAGS = ("checkpoint", "cell", "runner", "compile_to")
_RUNNERS = ("local", "vertex")
_TYPES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    tuple: "a tuple",
    str: "a text",
}


@dataclasses.dataclass(frozen=True)
class Command:
    """What was asked for."""

    stage: str
    config: ml_collections.ConfigDict
    workdir: str
    flags: tuple[str, ...]
    replace: bool = False
    checkpoint: str = ""
    cell: str = ""
    runner: str = "local"
    compile_to: str = ""

    @property
    def elsewhere(self) -> bool:
        """Returns whether the work directory is not this process' to claim."""
        works = (
            self.stage == "tune" and roles.of_environment() == roles.WORKER
        )
        return self.runner != "local" or bool(self.compile_to) or works

    @property
    def leads(self) -> bool:
        """Returns whether this is the first of the processes of a team."""
        if self.config.engine.strategy != "multi_worker":
            return True
        # The others take one process, which need not be told of any.
        needed = self.stage in stages.TOGETHER
        if not needed and not cluster.is_given():
            return True
        return cluster.of_environment().leads

    def again(self, stage: str) -> str:
        """Returns the command that runs another stage of the same run."""
        return shlex.join([PROGRAM, stage, *self.flags])

    def require(self, folder: storage.Path, stage: str) -> None:
        """Raises `UsageError` where an earlier stage has not been finished."""
        # A stage writes this file last.
        last = "dataset.json" if stage == "prepare" else "result.json"
        if not (folder / last).exists():
            raise UsageError(
                f"Expected {folder / last}, which ends an earlier stage. "
                f"Received: no such file. Run first: {self.again(stage)}"
            )


def _prepare(command, folders):
    startup.load_tensorflow()
    from att_darts_tf.data import run

    result = run.run_prepare(command.config, output_dir=folders.data)
    return summary.prepare(result, folders)


def _as_tuned(command, folders, stage):
    """Returns the configuration of a stage, and what it comes from."""
    tune = command.config.tune
    if not tune.space or tune.stage != stage:
        return command.config, []
    command.require(folders.tuning, "tune")
    return layout.as_tuned(command.config, folders), [folders.tuning]


def _require_memory(config, folders):
    """Raises `UsageError` before a search that the memory is too small for."""
    from att_darts_tf.search import memory

    if not all(
        (folders.search(seed) / "result.json").exists()
        for seed in config.search.seeds
    ):
        memory.check(config)


def _search(command, folders):
    command.require(folders.data, "prepare")
    config, reads = _as_tuned(command, folders, "search")
    _require_memory(config, folders)
    startup.load_tensorflow()
    from att_darts_tf.search import run

    lines = []
    seeds = config.search.seeds
    for place, seed in enumerate(seeds):
        result = run.run_search(
            config,
            data_dir=folders.data,
            output_dir=folders.search(seed),
            seed=seed,
            alike=len(seeds) - 1 - place,
            reads=reads,
        )
        lines += summary.search(result, folders)
    return lines


def _select(command, folders):
    command.require(folders.data, "prepare")
    seeds = command.config.search.seeds
    for seed in seeds:
        command.require(folders.search(seed), "search")
    startup.load_tensorflow()
    from att_darts_tf.network import run

    result = run.run_selection(
        command.config,
        data_dir=folders.data,
        genotypes=[folders.found(seed) for seed in seeds],
        output_dir=folders.selection,
    )
    return summary.select(result, folders)


def _cells_to_train(command, folders):
    """Returns what names the cells of the run, given or selected."""
    genotype = settings.given_cells(command.config)
    if genotype:
        return genotype
    command.require(folders.selection, "select")
    return folders.selected


def _tune(command, folders):
    config = command.config
    if not config.tune.space:
        raise UsageError(
            "Expected settings to tune. Received: none. Give --config.tune."
            "space='network.learning_rate=log(0.005,0.5)' or others"
        )
    if config.engine.strategy == "multi_worker":
        raise UsageError(
            "Expected one process for each trial of the stage tune. Received: "
            "config.engine.strategy=multi_worker. Give another, and share the "
            "trials by a chief and workers: see docs/tuning.md"
        )
    settings.check_pretrained(config)
    command.require(folders.data, "prepare")
    genotype = None
    if config.tune.stage == "train":
        genotype = _cells_to_train(command, folders)
    startup.load_tensorflow()
    from att_darts_tf.tuning import run

    result = run.run_tuning(
        config,
        data_dir=folders.data,
        genotype=genotype,
        output_dir=folders.tuning,
    )
    return summary.tune(result, folders)


def _train(command, folders):
    settings.check_pretrained(command.config)
    command.require(folders.data, "prepare")
    genotype = _cells_to_train(command, folders)
    config, reads = _as_tuned(command, folders, "train")
    startup.load_tensorflow()
    from att_darts_tf.network import run

    lines = []
    repeats = config.repeats
    for repeat in range(repeats):
        result = run.run_training(
            config,
            data_dir=folders.data,
            genotype=genotype,
            output_dir=folders.training(repeat),
            seed=repeat,
            alike=repeats - 1 - repeat,
            reads=reads,
        )
        lines += summary.train(result, folders)
    return lines


def _evaluate(command, folders):
    command.require(folders.data, "prepare")
    repeats = range(command.config.repeats)
    for repeat in repeats:
        command.require(folders.training(repeat), "train")
    startup.load_tensorflow()
    from att_darts_tf.network import evaluate

    result = evaluate.run_evaluation(
        command.config,
        data_dir=folders.data,
        models=[folders.training(repeat) for repeat in repeats],
        output_dir=folders.evaluation,
    )
    return summary.evaluate(result, folders)


def _export(command, folders):
    command.require(folders.data, "prepare")
    command.require(folders.training(0), "train")
    startup.load_tensorflow()
    from att_darts_tf import serving

    judged = (folders.evaluation / "result.json").exists()
    serving.run_export(
        command.config,
        data_dir=folders.data,
        model=folders.training(0),
        output_dir=folders.export,
        evaluation=folders.evaluation if judged else None,
    )
    return summary.export(command.config, folders)


def _report(command, folders):
    startup.load_tensorflow()
    from att_darts_tf import report

    result = report.run_report(
        command.config, workdir=folders.root, output_dir=folders.report
    )
    return summary.report(result, folders)


def _pipeline(command, folders):
    try:
        from att_darts_tf.pipeline import main as pipeline
    except ModuleNotFoundError as error:
        if error.name != "kfp":
            raise
        raise UsageError(
            "Expected the package kfp for the stage pipeline. Received: it is "
            "not installed. Run: pip install 'att-darts-tf[pipeline]', or run "
            "the other stages one by one"
        ) from error
    if command.compile_to:
        pipeline.compile_pipeline(
            command.config,
            folders,
            command.compile_to,
            on_vertex=command.runner == "vertex",
        )
        return [f"Compiled: {command.compile_to}"]
    if command.runner == "vertex":
        return pipeline.run_on_vertex(command.config, folders)
    if storage.is_remote(folders.root):
        raise UsageError(
            "Expected a --workdir on this machine for the stage pipeline, "
            "whose local runner and its tasks meet there. Received: "
            f"{folders.root}. Run the stages one by one, or choose another"
        )
    if command.config.engine.strategy == "multi_worker":
        raise UsageError(
            "Expected one process for the stage pipeline, whose tasks are "
            "processes of this machine. Received: config.engine.strategy="
            "multi_worker. Run the stages one by one in every process"
        )
    if command.config.tune.space and roles.of_environment() != roles.ALONE:
        raise UsageError(
            "Expected the stage pipeline without the variables of KerasTuner. "
            "Received: KERASTUNER_ORACLE_IP. Unset it, or run the stage tune "
            "by itself"
        )
    for branch, own in pipeline.runs_of(command.config).items():
        without = branch.is_target or branch.is_random
        if not without and not settings.given_cells(own):
            _require_memory(own, folders.branch(branch.name))
    return pipeline.run_pipeline(command.config, folders)


def _import_checkpoint(command, folders):
    if not command.checkpoint:
        raise UsageError(
            "Expected --checkpoint=FILE, a state dictionary of the released "
            f"code. Received: none. See {PROGRAM} import-checkpoint --help"
        )
    startup.load_tensorflow()
    from att_darts_tf.released import run

    result = run.run_import(
        command.config,
        checkpoint=command.checkpoint,
        cell=command.cell or command.config.network.cell,
        network_dir=folders.training(0),
        supernet_dir=folders.imported,
    )
    return summary.import_checkpoint(result)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage: what it does, what it reads and what it can be told.

    Args:
        run: Called with a `Command` and the `Layout`; returns lines to print,
            or yields them as things happen elsewhere.
        purpose: String, one line.
        reads: String. The files of earlier stages.
        writes: String. The files that it makes.
        settings: Tuple of strings. The sections of the configuration that it
            heeds, or single settings.
        flags: Mapping. What its own flags mean, by name and value.
    """

    run: Callable[[Command, layout.Layout], Iterable[str]]
    purpose: str
    reads: str
    writes: str
    settings: tuple[str, ...]
    flags: dict[str, str] = dataclasses.field(default_factory=dict)


STAGES = {
    "prepare": Stage(
        _prepare,
        "Turn images into records, with their statistics and splits.",
        "config.data.name",
        "data/",
        stages.STAGES["prepare"].settings,
    ),
    "search": Stage(
        _search,
        "Search for a pair of cells with every seed.",
        "data/",
        "search/seed-*/ (genotype.json, architecture.json, tensorboard/)",
        stages.STAGES["search"].settings,
    ),
    "select": Stage(
        _select,
        "Train candidates briefly; keep the best on held-out images.",
        "data/, search/seed-*/genotype.json",
        "selection/genotype.json",
        stages.STAGES["select"].settings,
    ),
    "tune": Stage(
        _tune,
        "Try settings of trainings or searches, for those to come.",
        "data/, selection/genotype.json (or network.cell, .pretrained)",
        "tuning/ (result.json, config.py, trials.png, trials/)",
        stages.STAGES["tune"].settings,
    ),
    "train": Stage(
        _train,
        "Train the network of the selected cells from scratch.",
        "data/, selection/genotype.json (or network.cell, .pretrained)",
        "training/repeat-*/model.keras",
        stages.STAGES["train"].settings,
    ),
    "evaluate": Stage(
        _evaluate,
        "Judge the trained networks on the test split.",
        "data/, training/repeat-*/model.keras",
        "evaluation/result.json",
        ("repeats", *stages.STAGES["evaluate"].settings),
    ),
    "export": Stage(
        _export,
        "Write the first trained network as a SavedModel to serve.",
        "data/, training/repeat-0/model.keras, evaluation/ if there is one",
        "export/NAME/VERSION/, export/classify.py (and export/NAME.tflite)",
        stages.STAGES["export"].settings,
    ),
    "report": Stage(
        _report,
        "Draw the cells and write the page of results.",
        "what the other stages wrote",
        "report/ (report.html, normal.svg, reduce.svg, ...)",
        ("hourly_price", "pipeline"),
    ),
    "pipeline": Stage(
        _pipeline,
        "Run all of the above; again, to go on where it stopped.",
        "config.data.name",
        "everything above",
        ("data", "beam", "space", "search", "selection", "network", "repeats",
         "export", "engine", "hourly_price", "pipeline", "tune", "vertex"),
        {
            "runner=local": "what runs the tasks: this machine, or vertex, "
            "Vertex AI by config.vertex, with --workdir in a bucket",
            "compile_to=FILE": "only write the pipeline, as YAML",
        },
    ),
    "import-checkpoint": Stage(
        _import_checkpoint,
        "Make a model of a PyTorch checkpoint of the authors' code.",
        "--checkpoint",
        "training/repeat-0/ (a network), imported/ (a supernet)",
        ("data.image_size", "space", "network.cell", "repeats"),
        {
            "checkpoint=FILE": "a state dictionary (.pt), read without PyTorch "
            "and without running what is in it",
            "cell=NAME": "published cell or genotype file of a network, which "
            "its state dictionary does not name",
        },
    ),
}


def _doctor(names, values):
    from att_darts_tf import doctor

    return doctor.examine()


def _cost(names, values):
    if names[0].endswith(".keras"):
        raise UsageError(
            "Expected cells, whose network the flags describe. Received: "
            f"{names[0]}, a trained network. Its export/result.json has the "
            "cost"
        )
    architecture = published.resolve_network(names[0])
    if architecture == published.DENSENET and values.stem != "small":
        raise UsageError(
            f"Expected --stem=small beside {names[0]}, a network without "
            f"cells. Received: {values.stem}. Leave --stem out"
        )
    channels, cells = published.size(names[0])
    startup.load_tensorflow()
    from att_darts_tf.network import cost

    return cost.examine(
        architecture,
        channels=values.channels or channels,
        cells=values.cells or cells,
        image_size=values.image_size,
        num_classes=values.classes,
        stem=values.stem,
    )


def _define_cost(values):
    for name, default, least, meaning in (
        ("channels", None, 1, "channels of the first cells; 36 if not given. "
         "Of densenet_bc its growth rate, 40"),
        ("cells", None, 1, "cells in a row; 20 if not given. Of densenet_bc "
         "the layers of each of its 3 blocks, 31"),
        ("image_size", 32, 8, "height and width of images in pixels"),
        ("classes", 10, 1, "number of classes"),
    ):
        flags.DEFINE_integer(
            name, default, meaning, lower_bound=least, flag_values=values
        )
    flags.DEFINE_enum(
        "stem",
        "small",
        ("small", "imagenet"),
        "first layers: for small images, or those of ImageNet",
        flag_values=values,
    )


def _cells(names, values):
    if values.table and (names or values["output"].present):
        raise UsageError(
            "Expected --table alone. Received: a name or --output beside it. "
            f"Run: {PROGRAM} cells --table"
        )
    if values["output"].present and not names:
        raise UsageError(
            "Expected the name of a cell beside --output. Received: none. See "
            f"{PROGRAM} cells"
        )
    from att_darts_tf import catalogue

    if values.table:
        return catalogue.table()
    if names:
        return catalogue.draw(names[0], values.output)
    return catalogue.list_cells()


def _define_cells(values):
    flags.DEFINE_string(
        "output",
        ".",
        "folder of NAME-normal.svg and NAME-reduce.svg",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "table",
        False,
        "published errors and sizes, beside parameters and multiply-adds as "
        "counted here",
        flag_values=values,
    )


def _show_lineage(names, values):
    place = storage.absolute(names[0])
    file = lineage.find(place)
    record = lineage.load(file)
    if values.json:
        return [json.dumps(record, indent=2)]
    return summary.lineage(record, changed=not lineage.fits(file, record))


def _define_lineage(values):
    flags.DEFINE_boolean(
        "json", False, "print the record as it is", flag_values=values
    )


@dataclasses.dataclass(frozen=True)
class Tool:
    """A command that needs neither a configuration nor a work directory.

    Args:
        run: Called with the names and flags that were given; returns an
            iterable of lines to print.
        purpose: String, one line.
        usage: String. What follows its name.
        count: Pair of integers. The least and the most names it takes.
        define_flags: Defines its flags on a `flags.FlagValues`.
    """

    run: Callable[[list[str], flags.FlagValues], Iterable[str]]
    purpose: str
    usage: str = ""
    count: tuple[int, int] = (0, 0)
    define_flags: Callable[[flags.FlagValues], None] = lambda values: None


TOOLS = {
    "cells": Tool(
        _cells,
        "List published cells, draw one, or compare them all.",
        " [NAME [--output=FOLDER] | --table]",
        (0, 1),
        _define_cells,
    ),
    "cost": Tool(
        _cost,
        "Count a network's weights, arithmetic and memory; time it.",
        " CELL [--channels=36] [--cells=20] ...",
        (1, 1),
        _define_cost,
    ),
    "doctor": Tool(
        _doctor, "Show versions, devices and the time of a small search step."
    ),
    "lineage": Tool(
        _show_lineage,
        "Tell what images, seeds, code and settings made a result.",
        " PATH [--json]",
        (1, 1),
        _define_lineage,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        argv: Sequence of strings without the program's name; `None` takes the
            process's.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with (
            preemption.watching(f"{_PREEMPTED}\n"),
            workdir.telling_of_a_full_disk(),
        ):
            return _main(argv)
    except UsageError as error:
        message = " ".join(str(error).split())
        # Names of files may hold what moves the cursor of a terminal.
        print(f"{PROGRAM}: {printable(message)}", file=sys.stderr)
        return USAGE_STATUS
    except KeyboardInterrupt:
        print(
            f"{PROGRAM}: interrupted; the same command goes on from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return INTERRUPTED_STATUS
    except preemption.Preempted:
        print(_PREEMPTED, file=sys.stderr)
        return preemption.STATUS


def _main(argv):
    asked = any(argument in ("--help", "-h", "-help") for argument in argv)
    if asked or (argv and argv[0] in TOOLS):
        # A reader such as `head` may leave before the end.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if asked:
        print(_help(argv))
        return 0
    if argv == ["--version"]:
        print(f"{PROGRAM} {att_darts_tf.__version__}")
        return 0
    if argv and argv[0] in TOOLS:
        for line in _run_tool(argv[0], argv[1:]):
            print(line, flush=True)
        return 0
    command = _parse(argv)
    settings.validate(command.config)
    begun = time.monotonic()
    if not command.leads:
        return _follow(command)
    with contextlib.ExitStack() as stack:
        if command.replace:
            stack.enter_context(stage_folder.replacing_stale())
        if command.elsewhere:
            folders = layout.of(command.workdir)
            for line in STAGES[command.stage].run(command, folders):
                print(line, flush=True)
            return 0
        folders = stack.enter_context(
            layout.claim(
                command.workdir, command.config, replace=command.replace
            )
        )
        lines = STAGES[command.stage].run(command, folders)
    print("\n".join([summary.used(command.stage, begun), *lines]))
    return 0


def _follow(command):
    """Does the part of a process that is not the first of its team."""
    stage = STAGES[command.stage]
    if command.stage not in stages.TOGETHER:
        raise UsageError(
            f"Expected one process for the stage {command.stage}. Received: "
            f"{cluster.of_environment()}. Run it in the first one, before or "
            "after the stages that processes share"
        )
    print(f"{cluster.of_environment()}: the first one tells of the work")
    # What it would write, and say, the first one does.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        stage.run(command, layout.of(command.workdir))
    return 0


def _run_tool(name, arguments):
    """Returns an iterator over the lines that a tool prints."""
    tool = TOOLS[name]
    values = _tool_flags(tool)
    try:
        # absl takes a first argument for the program's name.
        names = values([name, *arguments])[1:]
    except flags.Error as error:
        raise _of_absl(error, name) from error
    least, most = tool.count
    if not least <= len(names) <= most:
        expected = {0: "nothing", 1: "one name"}[most]
        raise UsageError(
            f"Expected {expected} after {name}. Received: "
            f"{shlex.join(names) or 'nothing'}. See {PROGRAM} {name} --help"
        )
    return tool.run(names, values)


def _tool_flags(tool):
    values = flags.FlagValues()
    tool.define_flags(values)
    return values


def _of_absl(error, command=""):
    """Returns the error for flags that cannot be read, in one line."""
    message = str(error).rstrip(" ?")
    hint = "?" if "Did you mean" in message else ""
    return UsageError(
        f"{message}{hint}. See {' '.join([PROGRAM, command]).strip()} --help"
    )


def _parse(argv):
    if not argv:
        raise _no_stage("nothing")
    config_name, rest = _take_config(argv)
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "Folder of the run.", flag_values=values
    )
    flags.DEFINE_boolean(
        "replace", False, "Do again what is stale.", flag_values=values
    )
    for name in _OWN_FLAGS:
        flags.DEFINE_string(
            name, "", "Of one stage alone.", flag_values=values
        )
    config = None
    if config_name is not None:
        config = settings.load(config_name)
        _check_names(rest, config)
        rest = [_texts_quoted(argument) for argument in rest]
        _define_settings(config, rest, values)
    try:
        # absl takes a first argument for the program's name.
        positional = values([PROGRAM, *rest])[1:]
    except flags.IllegalFlagValueError as error:
        raise _wrong_type(error, config) from error
    except flags.Error as error:
        raise _of_absl(error) from error
    stage = _stage_of(positional)
    for name, value in (("config", config_name), ("workdir", values.workdir)):
        if not value:
            raise UsageError(
                f"Expected --{name}=... Received: none. See {PROGRAM} {stage} "
                "--help"
            )
    own = [name.partition("=")[0] for name in STAGES[stage].flags]
    for name in _OWN_FLAGS:
        if values[name].present and name not in own:
            (taker,) = (
                each
                for each, described in STAGES.items()
                if any(flag.startswith(f"{name}=") for flag in described.flags)
            )
            raise UsageError(
                f"Expected flags of the stage {stage}. Received: --{name}, "
                f"which {taker} alone takes. Leave it out"
            )
    runner = values.runner or "local"
    if runner not in _RUNNERS:
        raise registry.unknown_name("runner", _RUNNERS, runner)
    given = list(argv)
    given.remove(stage)
    return Command(
        stage,
        settings.resolve(config),
        values.workdir,
        tuple(given),
        values.replace,
        values.checkpoint,
        values.cell,
        runner,
        values.compile_to,
    )


def _stage_of(positional):
    if not positional:
        raise _no_stage("none")
    if positional[0] not in STAGES:
        close = difflib.get_close_matches(
            positional[0], (*STAGES, *TOOLS), n=1
        )
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise _no_stage(f"{positional[0]!r}{hint}")
    if len(positional) > 1:
        raise UsageError(
            f"Expected flags after {positional[0]!r}. Received: "
            f"{' '.join(positional[1:])!r}. Write settings as "
            "--config.FIELD=VALUE"
        )
    return positional[0]


def _no_stage(received):
    return UsageError(
        f"Expected one stage of {', '.join(STAGES)}. Received: {received} "
        f"(see {PROGRAM} --help)"
    )


def _take_config(argv):
    """Returns the value of `--config` and the arguments without it."""
    value, rest = None, []
    arguments = iter(argv)
    for argument in arguments:
        match = _CONFIG_FLAG.fullmatch(argument)
        if match is None:
            rest.append(argument)
        elif match["value"] is not None:
            value = match["value"]
        else:
            value = next(arguments, None)
    if value is None and any(map(_SETTING_FLAG.fullmatch, rest)):
        raise UsageError(
            "Expected --config=... together with --config.FIELD=... Received: "
            "no --config. Name a configuration; they are "
            f"{', '.join(settings.shipped())}, or a FILE.py"
        )
    return value, rest


def _check_names(arguments, config):
    """Raises `UsageError` for a setting that the configuration lacks."""
    names = [name for name, _ in settings.flatten(config)]
    for argument in arguments:
        match = _SETTING_FLAG.fullmatch(argument)
        if match is None or match["name"] in names:
            continue
        received = match["name"]
        close = difflib.get_close_matches(received, names, n=1)
        hint = f"Did you mean config.{close[0]}?" if close else "See --help"
        if received in config:
            hint = "Give one of its fields"
        raise UsageError(
            f"Unknown setting. Expected one that {PROGRAM} STAGE --help lists. "
            f"Received: config.{received}. {hint}"
        )


def _texts_quoted(argument):
    """Returns a flag of several texts as the parser of tuples takes them."""
    match = _SETTING_FLAG.fullmatch(argument)
    if match is None or match["name"] not in settings.TEXTS:
        return argument
    value = match["value"]
    if value is None or value.lstrip().startswith(("(", "[")):
        return argument
    return f"--config.{match['name']}={ranges.split(value)!r}"


def _define_settings(config, arguments, values):
    config_flags.DEFINE_config_dict(
        "config",
        config,
        flag_values=values,
        lock_config=True,
        sys_argv=[PROGRAM, *arguments],
    )


def _wrong_type(error, config):
    match = _WRONG_TYPE.match(str(error))
    if match is None:
        return UsageError(str(error))
    default = dict(settings.flatten(config))[match["name"]]
    return UsageError(
        f"config.{match['name']} must be {_TYPES.get(type(default))}, as "
        f"{default!r}. Received: {match['value']!r}"
    )


def _help(argv):
    config_name, rest = _take_config(
        [argument for argument in argv if "help" not in argument]
    )
    stages = [argument for argument in rest if not argument.startswith("-")]
    if not stages:
        return _general_help()
    if stages[0] in TOOLS:
        return _tool_help(stages[0])
    stage = _stage_of(stages[:1])
    return _stage_help(stage, config_name or "base")


def _general_help():
    stages = "\n".join(
        f"  {name:17} {stage.purpose}" for name, stage in STAGES.items()
    )
    names = "\n".join(
        f"  {name:9} {line}" for name, line in settings.shipped().items()
    )
    tools = "\n".join(
        f"  {name:17} {tool.purpose}" for name, tool in TOOLS.items()
    )
    return f"""\
{PROGRAM}: architecture search over operations and attention.

Usage: {PROGRAM} STAGE --config=CONFIG --workdir=FOLDER \\
         [--config.FIELD=VALUE ...]
       {PROGRAM} TOOL [...]

Stages, in order:
{stages}

Tools, which need neither --config nor --workdir:
{tools}

Options:
  --config=NAME[:VARIANT] or FILE.py[:VARIANT]
            The configuration; shipped ones are below.
  --config.FIELD=VALUE
            Another value for one setting; `{PROGRAM} STAGE --help` lists them.
  --workdir=FOLDER
            Where the run keeps its files, here or at a URI such as
            gs://bucket/run; made if absent. The same command again goes on
            where it stopped.
  --replace
            Do again what the folder holds of other settings, code or inputs,
            and nothing else; the old files are kept beside the new ones, in
            replaced-1 and so on. Without it they are refused.

Configurations:
{names}

Exit status: 0 done, {USAGE_STATUS} a mistake in the command or its files,
{INTERRUPTED_STATUS} interrupted, {preemption.STATUS} ended by SIGTERM,
once every finished step was saved, 1 anything else."""


def _tool_help(name):
    tool = TOOLS[name]
    lines = [tool.purpose, "", f"Usage: {PROGRAM} {name}{tool.usage}", ""]
    values = _tool_flags(tool)
    for flag in (values[each] for each in values):
        default = "" if flag.default is None else flag.default
        lines.append(f"  --{flag.name}{'' if flag.boolean else f'={default}'}")
        lines += textwrap.wrap(
            flag.help,
            width=79,
            initial_indent="            ",
            subsequent_indent="            ",
        )
    return "\n".join(lines)


def _stage_help(stage, config_name):
    config = settings.load(config_name)
    values = dict(settings.flatten(config))
    described = STAGES[stage]
    lines = [
        described.purpose,
        "",
        f"Usage: {PROGRAM} {stage} --config=CONFIG --workdir=FOLDER \\",
        "         [--config.FIELD=VALUE ...]",
        "",
        f"Reads:  {described.reads}",
        f"Writes: {described.writes}",
    ]
    for name, meaning in described.flags.items():
        lines += ["", f"  --{name}"] + textwrap.wrap(
            meaning,
            width=79,
            initial_indent="            ",
            subsequent_indent="            ",
        )
    shown = [
        name
        for section in described.settings
        for name in settings.SETTINGS
        if section in (name, name.partition(".")[0])
    ]
    if shown:
        lines += ["", f"Settings, with the values of --config={config_name}:"]
    for name in shown:
        setting = settings.SETTINGS[name]
        lines.append(f"  --config.{name}={_as_argument(values[name])}")
        lines += textwrap.wrap(
            f"{setting.meaning} ({setting.rule.expected})",
            width=79,
            initial_indent="            ",
            subsequent_indent="            ",
        )
    return "\n".join(lines)


def _as_argument(value):
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
