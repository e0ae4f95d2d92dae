"""The configuration of a run: where it comes from and what it may hold.

Nothing here imports TensorFlow, so `--help` and every refusal are quick.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import os
import pathlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from att_darts_tf import ranges, stages, storage
from att_darts_tf.errors import UsageError
from att_darts_tf.space import published, registry, search_space, trained

SHIPPED = "att_darts_tf.configs"
# Runs that a pipeline can compare its own with.
BASELINES = ("random", "no_attention")
# What a tuning may change of a recipe, but for what is found or given, and for
# the epochs, which are what a trial may cost.
_TUNED = {"train": "network", "search": "search"}
_NOT_TUNED = (
    "network.cell",
    "network.pretrained",
    "network.frozen",
    "network.epochs",
    "search.seeds",
    "search.epochs",
)
# What is done to training images, by `data.augmentation`.
TUNED_DATA = {
    "padded_crop": ("padding", "flip"),
    "resized_crop": ("crop_area", "flip", "color_jitter"),
}
_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<variant>.*))?")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a setting may be, in words and as a test."""

    expected: str
    allows: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # NaN compares false with everything, so the bounds below refuse it.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integer(least: int) -> Rule:
    return Rule(
        f"an integer of at least {least}",
        lambda value: _is_integer(value) and value >= least,
    )


def _above(least: float) -> Rule:
    return Rule(
        f"a finite number above {least:g}",
        lambda value: _is_number(value) and least < value < float("inf"),
    )


def _at_least(least: float) -> Rule:
    return Rule(
        f"a finite number of at least {least:g}",
        lambda value: _is_number(value) and least <= value < float("inf"),
    )


def _share(*, zero: bool) -> Rule:
    first = "at least 0" if zero else "above 0"
    return Rule(
        f"a number {first} and below 1",
        lambda value: _is_number(value)
        and (0 <= value < 1 if zero else 0 < value < 1),
    )


def _one_of(choices: tuple) -> Rule:
    return Rule(
        f"one of {', '.join(str(choice) for choice in choices)}",
        lambda value: any(
            type(value) is type(choice) and value == choice
            for choice in choices
        ),
    )


def _several_of(choices: tuple) -> Rule:
    return Rule(
        f"any of {', '.join(choices)}, each at most once",
        lambda value: isinstance(value, tuple)
        and all(each in choices for each in value)
        and len(set(value)) == len(value),
    )


_SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
_NAME = Rule(
    "a name or path with at least one character",
    lambda value: isinstance(value, str) and bool(value),
)
_OPTIONAL_TEXT = Rule(
    "a text or nothing", lambda value: value is None or isinstance(value, str)
)
_PIXELS = Rule(
    "two integers of at least 8",
    lambda value: isinstance(value, tuple)
    and len(value) == 2
    and all(_is_integer(side) and side >= 8 for side in value),
)
_SEEDS = Rule(
    "one or more different integers from 0 to 2**31 - 1",
    lambda value: isinstance(value, tuple)
    and len(value) > 0
    and all(_is_integer(seed) and 0 <= seed < 2**31 for seed in value)
    and len(set(value)) == len(value),
)
_BETAS = Rule(
    "two numbers of at least 0 and below 1",
    lambda value: isinstance(value, tuple)
    and len(value) == 2
    and all(_is_number(beta) and 0 <= beta < 1 for beta in value),
)
_AREA = Rule(
    "two numbers above 0 and up to 1, the smaller one first",
    lambda value: isinstance(value, tuple)
    and len(value) == 2
    and all(_is_number(share) for share in value)
    and 0 < value[0] <= value[1] <= 1,
)
_JITTER = Rule(
    "four finite numbers of at least 0, the last one up to 0.5",
    lambda value: isinstance(value, tuple)
    and len(value) == 4
    and all(
        _is_number(strength) and 0 <= strength < float("inf")
        for strength in value
    )
    and value[3] <= 0.5,
)
# Files that stand beside the folder of an exported model.
_BESIDE = ("classify.py", "identity.json", "lineage.json", "result.json")
_FOLDER = re.compile(r"(?!replaced-)[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_MODEL_NAME = Rule(
    "a folder's name of at most 100 letters, digits and _ . - that begins with "
    "a letter or digit but not with replaced-, and none of "
    f"{', '.join(_BESIDE)}",
    lambda value: isinstance(value, str)
    and _FOLDER.fullmatch(value) is not None
    and value not in _BESIDE,
)
_TEXT = Rule("a text", lambda value: isinstance(value, str))
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")
_VERSION = Rule(
    "an integer from 1 to 2**63 - 1",
    lambda value: _is_integer(value) and 1 <= value < 2**63,
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field: what it means, with its unit, and what it may be."""

    meaning: str
    rule: Rule


def _network_settings(section: str) -> dict[str, Setting]:
    return {
        f"{section}.cells": Setting("cells in a row", _integer(3)),
        f"{section}.channels": Setting(
            "channels of the first cells, doubled at a third and two thirds",
            _integer(1),
        ),
        f"{section}.epochs": Setting("passes over the images", _integer(1)),
        f"{section}.batch_size": Setting("images in a step", _integer(1)),
        f"{section}.learning_rate": Setting(
            "rate of SGD in the first epoch", _above(0)
        ),
        f"{section}.final_learning_rate": Setting(
            "rate that the cosine ends at", _at_least(0)
        ),
        f"{section}.momentum": Setting("momentum of SGD", _share(zero=True)),
        f"{section}.weight_decay": Setting(
            "L2 on every weight, added to the clipped gradient", _at_least(0)
        ),
        f"{section}.clip_norm": Setting(
            "largest global norm of a gradient", _above(0)
        ),
    }


SETTINGS: dict[str, Setting] = {
    "data.name": Setting(
        '"sample" (embedded CIFAR-10 images), a name of TensorFlow Datasets, '
        "or a folder of images",
        _NAME,
    ),
    "data.data_dir": Setting(
        "folder where TensorFlow Datasets keeps its data; its own if unset",
        _OPTIONAL_TEXT,
    ),
    "data.image_size": Setting(
        "height and width in pixels that a network sees", _PIXELS
    ),
    "data.channels": Setting(
        "1 for grey, 3 for colour, 0 for what the source has",
        _one_of((0, 1, 3)),
    ),
    "data.test_fraction": Setting(
        "share of a folder without test/ that becomes the test split",
        _share(zero=False),
    ),
    "data.halves": Setting(
        "how training images are halved for a search: by a hash, or the first "
        "and the second half in the order of the source",
        _one_of(("hashed", "source_order")),
    ),
    "data.broken_fraction": Setting(
        "largest share of images that cannot be decoded and are left out",
        _share(zero=True),
    ),
    "data.augmentation": Setting(
        "images resized once and shifted, or windows of files as for ImageNet",
        _one_of(("padded_crop", "resized_crop")),
    ),
    "data.flip": Setting("mirror half of the training images", _SWITCH),
    "data.padding": Setting(
        "padded_crop: pixels of zeros on each side before the random crop",
        _integer(0),
    ),
    "data.crop_area": Setting(
        "resized_crop: smallest and largest share of an image in a window",
        _AREA,
    ),
    "data.color_jitter": Setting(
        "resized_crop: changes of brightness, contrast, saturation and hue",
        _JITTER,
    ),
    "data.evaluation_resize": Setting(
        "resized_crop: pixels of the shorter side before the middle is judged",
        _integer(8),
    ),
    "beam.runner": Setting(
        "what prepares images: this machine or Dataflow",
        _one_of(("DirectRunner", "DataflowRunner")),
    ),
    "beam.mode": Setting(
        "DirectRunner: one worker, several threads or several processes",
        _one_of(("in_memory", "multi_threading", "multi_processing")),
    ),
    "beam.workers": Setting(
        "DirectRunner: how many threads or processes", _integer(1)
    ),
    "beam.options": Setting(
        "further options of Apache Beam",
        Rule(
            'texts such as "--project=NAME"',
            lambda value: isinstance(value, tuple)
            and all(
                isinstance(each, str) and each.startswith("--")
                for each in value
            ),
        ),
    ),
    "space.location": Setting(
        "where attention goes in a cell",
        _one_of(tuple(search_space.SEARCH_SPACES)),
    ),
    "engine.deterministic": Setting(
        "same bits on every run of one machine and one set of versions",
        _SWITCH,
    ),
    "engine.strategy": Setting(
        "what training runs on: one device, several of this machine, those "
        "of the machines that TF_CONFIG names, or a TPU",
        _one_of(("default", "mirrored", "multi_worker", "tpu")),
    ),
    "engine.replicas": Setting(
        "mirrored: how many GPUs, 0 for all; without GPUs, into how many "
        "devices the processor is divided",
        _integer(0),
    ),
    "engine.sync_batch_norm": Setting(
        "batch statistics of all devices, not of each one's part of a batch",
        _SWITCH,
    ),
    "engine.precision": Setting(
        "what layers compute in", _one_of(("float32", "mixed_bfloat16"))
    ),
    "engine.jit": Setting(
        "compile with XLA, without engine.deterministic", _SWITCH
    ),
    "engine.checkpoint_steps": Setting(
        "steps between checkpoints within an epoch; 0 for one an epoch",
        _integer(0),
    ),
    "search.seeds": Setting(
        "one search each; the selection keeps the best", _SEEDS
    ),
    **_network_settings("search"),
    "search.batch_size": Setting("images of each half in a step", _integer(1)),
    "search.architecture_learning_rate": Setting(
        "rate of Adam on the architecture weights", _above(0)
    ),
    "search.architecture_betas": Setting("decay rates of that Adam", _BETAS),
    "search.architecture_weight_decay": Setting(
        "L2 on the architecture weights", _at_least(0)
    ),
    "search.order": Setting(
        "gradient of the architecture weights: at the weights, or through a "
        "virtual step of theirs",
        _one_of(("first", "second")),
    ),
    "search.implicit": Setting(
        "how the second order derives that step",
        _one_of(("finite_difference", "exact")),
    ),
    "search.recompute": Setting(
        "which cells are computed again for their gradients, for less memory "
        "and more time: large ones are all before the last reduction",
        _one_of(search_space.RECOMPUTE),
    ),
    "search.microbatch": Setting(
        "most images computed at once, each part with batch statistics of its "
        "own; 0 for the whole batch",
        Rule(
            "0 or an integer of at least 2",
            lambda value: _is_integer(value) and (value == 0 or value >= 2),
        ),
    ),
    "export.name": Setting(
        "folder of the exported model, by which a server names it", _MODEL_NAME
    ),
    "export.version": Setting(
        "folder in that one; a server takes the highest", _VERSION
    ),
    "export.litert": Setting(
        "write NAME.tflite too, in float32, for LiteRT", _SWITCH
    ),
    "export.least_accuracy": Setting(
        "mean test accuracy below which nothing is exported",
        _share(zero=True),
    ),
    "pipeline.baselines": Setting(
        "runs to compare with: cells drawn at random, a search without "
        "attention",
        _several_of(BASELINES),
    ),
    "pipeline.targets": Setting(
        "configurations whose images the selected cells are trained on too",
        Rule(
            "names of configurations",
            lambda value: isinstance(value, tuple)
            and all(isinstance(each, str) and each for each in value),
        ),
    ),
    "pipeline.retries": Setting(
        "how often a task that ends with an error is tried again",
        Rule(
            "an integer from 0 to 10",
            lambda value: _is_integer(value) and 0 <= value <= 10,
        ),
    ),
    "vertex.project": Setting("project of Google Cloud", _TEXT),
    "vertex.region": Setting("region of Vertex AI, as europe-west4", _TEXT),
    "vertex.image": Setting("image with this project, which tasks run", _TEXT),
    "vertex.root": Setting(
        "folder of Vertex AI's own files, as gs://bucket/pipeline", _TEXT
    ),
    "vertex.service_account": Setting(
        "account that tasks run as; the project's own if unset", _TEXT
    ),
    "vertex.failure_policy": Setting(
        "what happens after a task has failed: slow finishes what it can",
        _one_of(("fast", "slow")),
    ),
    "vertex.machines": Setting(
        "machines that share each search, selection, training and evaluation",
        _integer(1),
    ),
    "vertex.machine_type": Setting(
        "what each of several machines is, as n1-standard-8", _NAME
    ),
    "vertex.labels": Setting(
        "labels of the job",
        Rule(
            'texts of small letters, digits, - and _, as "team=vision"',
            lambda value: isinstance(value, tuple)
            and all(
                isinstance(each, str) and _LABEL.fullmatch(each)
                for each in value
            ),
        ),
    ),
    "tune.stage": Setting(
        "whose recipe is tuned: that of trainings or of searches",
        _one_of(tuple(_TUNED)),
    ),
    "tune.method": Setting(
        "how values are chosen: at random, by a Gaussian process, or at random "
        "with more epochs for the best",
        Rule(
            "one of random, bayesian, hyperband; no grid, as KerasTuner cannot "
            "take one up that was stopped",
            lambda value: value in ("random", "bayesian", "hyperband"),
        ),
    ),
    "tune.space": Setting(
        "settings to tune and what they may be; empty tunes nothing",
        Rule(
            'texts such as "network.learning_rate=log(0.001,0.1)"',
            lambda value: isinstance(value, tuple)
            and all(isinstance(each, str) for each in value),
        ),
    ),
    "tune.trials": Setting(
        "trials of random and bayesian; those of hyperband follow from the "
        "recipe's epochs",
        _integer(1),
    ),
    "tune.repeats": Setting(
        "trainings or searches of a trial, whose mean counts", _integer(1)
    ),
    "tune.seed": Setting(
        "seed of the values that are tried",
        Rule(
            "an integer from 0 to 2**31 - 1",
            lambda value: _is_integer(value) and 0 <= value < 2**31,
        ),
    ),
    "repeats": Setting("trainings of the final network", _integer(1)),
    "hourly_price": Setting(
        "price of an hour of the device in the report; 0 for none",
        _at_least(0),
    ),
}
for _stage in stages.STAGES:
    SETTINGS |= {
        f"vertex.{_stage}.cpus": Setting(
            f"processors of each task {_stage}", _integer(1)
        ),
        f"vertex.{_stage}.memory": Setting(
            f"memory of each task {_stage}, in gigabytes", _integer(1)
        ),
        f"vertex.{_stage}.accelerator": Setting(
            f"kind of accelerator of each task {_stage}, as NVIDIA_TESLA_T4",
            _TEXT,
        ),
        f"vertex.{_stage}.accelerators": Setting(
            f"accelerators of each task {_stage}", _integer(0)
        ),
    }
for _section in ("selection", "network"):
    SETTINGS |= _network_settings(_section)
    SETTINGS |= {
        f"{_section}.stem": Setting(
            "first convolutions, for small images or for those of ImageNet",
            _one_of(("small", "imagenet")),
        ),
        f"{_section}.schedule": Setting(
            "how the rate falls from epoch to epoch",
            _one_of(("cosine", "exponential")),
        ),
        f"{_section}.decay": Setting(
            "factor of the rate each epoch, of the exponential schedule",
            _share(zero=False),
        ),
        f"{_section}.label_smoothing": Setting(
            "share of each label that is spread over all classes",
            _share(zero=True),
        ),
        f"{_section}.auxiliary_weight": Setting(
            "weight of the auxiliary head's loss; 0 builds none", _at_least(0)
        ),
        f"{_section}.drop_path": Setting(
            "drop-path probability after the last epoch", _share(zero=True)
        ),
        f"{_section}.cutout": Setting(
            "side of the erased square in pixels; 0 erases none", _integer(0)
        ),
    }
SETTINGS |= {
    "network.cell": Setting(
        "published cell or genotype file, or densenet_bc; unset trains the "
        "selected cells",
        _TEXT,
    ),
    "network.pretrained": Setting(
        "model.keras whose cells and weights, but for the classifiers, a "
        "training begins with",
        _TEXT,
    ),
    "network.frozen": Setting(
        "train the classifier alone, beside network.pretrained", _SWITCH
    ),
}
for _field, _meaning in (
    ("cells", "layers of each of its 3 blocks"),
    ("channels", "its growth rate"),
):
    _cells = SETTINGS[f"network.{_field}"]
    SETTINGS[f"network.{_field}"] = Setting(
        f"{_cells.meaning}; of densenet_bc, {_meaning}", _cells.rule
    )


# Several texts, which a command line gives as `--config.NAME=one,other`.
TEXTS = frozenset(
    (
        "beam.options",
        "pipeline.baselines",
        "pipeline.targets",
        "tune.space",
        "vertex.labels",
    )
)


def shipped() -> dict[str, str]:
    """Returns the first line of each shipped configuration by its name."""
    package = importlib.util.find_spec(SHIPPED)
    folders = package.submodule_search_locations
    lines = {}
    for module in pkgutil.iter_modules(folders):
        source = pathlib.Path(module.module_finder.path, f"{module.name}.py")
        docstring = ast.get_docstring(ast.parse(source.read_text("utf-8")))
        lines[module.name] = docstring.splitlines()[0]
    return lines


def load(text: str) -> ml_collections.ConfigDict:
    """Returns the configuration that `--config` names, locked.

    Args:
        text: String. `NAME` of a shipped configuration or the path of a
            `FILE.py`, both with an optional `:VARIANT`.

    Example:

    >>> config = load("cifar:cifar100")
    >>> config.data.name
    'cifar100'
    >>> config.search.order = "second"
    """
    file = _FILE.fullmatch(text)
    if file:
        module = _module_of_file(file["file"])
        variant = file["variant"]
    else:
        name, _, variant = text.partition(":")
        if name not in shipped():
            raise _with_hint(
                registry.unknown_name(
                    "configuration", tuple(shipped()), name
                ),
                "Or give the path of a FILE.py",
            )
        module = importlib.import_module(f"{SHIPPED}.{name}")
    try:
        config = module.get_config(variant or "")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # What a configuration file of the user's raises is the user's to mend.
        raise UsageError(
            f"--config={text}: {_one_line(error)}"
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(
            f"--config={text}: expected get_config to return an "
            f"ml_collections.ConfigDict. Received: {type(config).__name__}. "
            "Start from att_darts_tf.configs.base.get_config()"
        )
    return config.lock()


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for the first setting that cannot work."""
    values = dict(flatten(config))
    missing = [name for name in SETTINGS if name not in values]
    unknown = [name for name in values if name not in SETTINGS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], SETTINGS, n=1)
        hint = f"Did you mean config.{close[0]}?" if close else "Remove it"
        raise UsageError(
            "Expected only settings of att_darts_tf/configs/base.py. Received: "
            f"config.{unknown[0]}. {hint}"
        )
    if missing:
        raise UsageError(
            f"Expected a configuration with config.{missing[0]}. Received one "
            "without. Start from att_darts_tf.configs.base.get_config()"
        )
    for name, setting in SETTINGS.items():
        if not setting.rule.allows(values[name]):
            raise UsageError(
                f"config.{name} must be {setting.rule.expected}. Received: "
                f"{registry.shorten(values[name])}. Give another with "
                f"--config.{name}="
            )
    if config.engine.jit and config.engine.deterministic:
        raise UsageError(
            "Expected config.engine.deterministic=false beside "
            "config.engine.jit=true, since what XLA compiles is not promised "
            "to give the same bits. Received: true. Give "
            "--config.engine.deterministic=false"
        )
    if config.space.location in config.pipeline.baselines:
        raise UsageError(
            "Expected config.pipeline.baselines other than the run itself. "
            f"Received: {config.space.location}, which is config.space."
            "location. Leave it out"
        )
    if config.pipeline.baselines and config.network.cell == published.DENSENET:
        raise UsageError(
            "Expected config.pipeline.baselines beside cells, whose number and "
            f"channels baselines share. Received: config.network.cell="
            f"{published.DENSENET}, a network without. Leave one out"
        )
    _check_accelerators(config.vertex)
    _check_workers(config.beam)
    _check_devices(config)
    if config.engine.precision != "float32" and (
        config.search.order,
        config.search.implicit,
    ) == ("second", "finite_difference"):
        raise UsageError(
            "Expected config.engine.precision=float32 beside config.search."
            "implicit=finite_difference, whose small steps bfloat16 rounds "
            f"away. Received: {config.engine.precision}. Give "
            "--config.search.implicit=exact or --config.search.order=first"
        )
    if config.data.augmentation == "resized_crop":
        _check_resized_crop(config)
    if config.network.cell:
        published.resolve_network(config.network.cell)
    if config.network.cell == published.DENSENET:
        _check_without_cells(config)
    _check_fine_tuning(config.network)
    if config.tune.space:
        _check_tuning(config)


def tuned_ranges(config: ml_collections.ConfigDict) -> list[ranges.Range]:
    """Returns what is tuned, with values of the settings' types.

    Raises `UsageError` for a setting that cannot be tuned, and for a range
    whose ends cannot be.

    Args:
        config: The configuration; `config.tune` says what is tuned.
    """
    tune = config.tune
    values = dict(flatten(config))
    names = _tunable(config)
    found = []
    for text in tune.space:
        each = ranges.parse(text)
        if each.name not in names:
            raise registry.unknown_name(
                "setting in config.tune.space beside config.tune.stage="
                f"{tune.stage}",
                names,
                each.name,
            )
        if each.name in (other.name for other in found):
            raise UsageError(
                "Expected each setting once in config.tune.space. Received: "
                f"config.{each.name} twice. Leave one out"
            )
        found.append(each.of_type(values[each.name]))
    return found


def _tunable(config):
    section = _TUNED[config.tune.stage]
    left_out = set(_NOT_TUNED)
    if config.network.pretrained:
        # They are those of its file.
        left_out |= {"network.cells", "network.channels", "network.stem"}
    names = [
        name
        for name in SETTINGS
        if name.startswith(f"{section}.") and name not in left_out
    ]
    if section == "search":
        return ["space.location", *names]
    of_images = TUNED_DATA[config.data.augmentation]
    return [*names, *(f"data.{name}" for name in of_images)]


def _check_tuning(config):
    tune = config.tune
    if tune.stage == "search" and given_cells(config):
        raise UsageError(
            "Expected cells to search for beside config.tune.stage=search. "
            f"Received: {given_cells(config)}, which are given. Leave "
            "config.network.cell and .pretrained out"
        )
    for each in tuned_ranges(config):
        if each.name == "space.location" and config.pipeline.baselines:
            raise UsageError(
                "Expected config.pipeline.baselines beside a search space that "
                "is given. Received: space.location in config.tune.space. "
                "Leave one out"
            )
        for value in each.values:
            made = with_values(config, {each.name: value, "tune.space": ()})
            try:
                validate(made)
            except UsageError as error:
                raise UsageError(
                    f"In config.tune.space, {each.name}={value}: {error}"
                ) from error


def with_values(
    config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns a configuration with other values of some settings.

    Args:
        config: A resolved configuration, which stays as it is.
        values: Mapping of dotted names to values.
    """
    made = from_plain(config.to_dict())
    with made.unlocked():
        for name, value in values.items():
            section, _, field = name.rpartition(".")
            place = made[section] if section else made
            place[field] = tuple(value) if isinstance(value, list) else value
    return made


def _check_accelerators(vertex: ml_collections.ConfigDict) -> None:
    for stage in stages.STAGES:
        machine = vertex[stage]
        if bool(machine.accelerator) != bool(machine.accelerators):
            raise UsageError(
                f"Expected config.vertex.{stage}.accelerator and .accelerators "
                f"or none of them. Received: {machine.accelerator!r} and "
                f"{machine.accelerators}. Give both"
            )


def _check_workers(beam: ml_collections.ConfigDict) -> None:
    if beam.workers > 1 and beam.mode == "in_memory":
        raise UsageError(
            "Expected config.beam.mode=multi_threading or multi_processing "
            f"beside config.beam.workers={beam.workers}. Received: in_memory, "
            "which is one worker. Give --config.beam.mode=multi_processing"
        )


def _check_devices(config: ml_collections.ConfigDict) -> None:
    engine = config.engine
    if engine.replicas and engine.strategy != "mirrored":
        raise UsageError(
            "Expected config.engine.strategy=mirrored beside config.engine."
            f"replicas={engine.replicas}. Received: {engine.strategy}. Give "
            "--config.engine.strategy=mirrored or --config.engine.replicas=0"
        )
    if engine.strategy == "default" and engine.sync_batch_norm:
        raise UsageError(
            "Expected several devices beside config.engine.sync_batch_norm="
            "true. Received: config.engine.strategy=default, one. Give "
            "--config.engine.strategy=mirrored or leave it out"
        )
    if engine.strategy != "default" and engine.jit:
        raise UsageError(
            "Expected config.engine.strategy=default beside config.engine."
            f"jit=true. Received: {engine.strategy}. Give "
            "--config.engine.jit=false"
        )
    if engine.sync_batch_norm and config.search.microbatch:
        raise UsageError(
            "Expected config.search.microbatch=0 beside config.engine."
            "sync_batch_norm=true, since a part of a batch has statistics of "
            f"its own. Received: {config.search.microbatch}. Give "
            "--config.search.microbatch=0"
        )


def _check_without_cells(config: ml_collections.ConfigDict) -> None:
    expected = {"auxiliary_weight": 0, "drop_path": 0, "stem": "small"}
    for name, value in expected.items():
        if config.network[name] != value:
            flags = " ".join(
                f"--config.network.{each}={expected[each]}" for each in expected
            )
            raise UsageError(
                f"Expected config.network.{name}={value} beside config.network."
                f"cell={published.DENSENET}, a network without cells. "
                f"Received: {config.network[name]}. Give {flags}"
            )


def _check_fine_tuning(recipe):
    if not recipe.pretrained:
        if recipe.frozen:
            raise UsageError(
                "Expected config.network.pretrained beside config.network."
                "frozen=true. Received: none. Name the model.keras whose "
                "weights are kept"
            )
        return
    if recipe.cell:
        raise UsageError(
            "Expected config.network.cell or config.network.pretrained, whose "
            f"file has cells. Received: {recipe.cell} and {recipe.pretrained}. "
            "Leave one out"
        )
    for name in ("auxiliary_weight", "drop_path"):
        if recipe.frozen and recipe[name]:
            raise UsageError(
                f"Expected config.network.{name}=0 beside config.network."
                f"frozen=true, which trains the last classifier alone. "
                f"Received: {recipe[name]}. Give --config.network.{name}=0"
            )


def check_pretrained(config: ml_collections.ConfigDict) -> None:
    """Raises `UsageError` for a network that a training cannot begin with.

    Only a training reads it, so that what follows does without.
    """
    recipe = config.network
    if not recipe.pretrained:
        return
    found = trained.describe(recipe.pretrained)
    for name in ("cells", "channels", "stem"):
        if recipe[name] != getattr(found, name):
            raise UsageError(
                f"Expected config.network.{name} as in {recipe.pretrained}. "
                f"Received: {recipe[name]}. Give "
                f"--config.network.{name}={getattr(found, name)}"
            )


def given_cells(config: ml_collections.ConfigDict) -> str:
    """Returns what names the cells of the network, "" if a search finds them.

    It is what `published.resolve` takes.
    """
    return config.network.cell or config.network.pretrained


def _check_resized_crop(config) -> None:
    least = max(config.data.image_size)
    if config.data.evaluation_resize < least:
        raise UsageError(
            "Expected config.data.evaluation_resize to be at least the "
            f"{least} pixels of config.data.image_size. Received: "
            f"{config.data.evaluation_resize}. Give "
            f"--config.data.evaluation_resize={least} or more"
        )
    for section in ("selection", "network"):
        if config[section].cutout:
            raise UsageError(
                f"Expected config.{section}.cutout=0 beside config.data."
                "augmentation=resized_crop, which erases nothing. Received: "
                f"{config[section].cutout}. Give --config.{section}.cutout=0"
            )


def resolve(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the configuration as it holds in any current directory."""
    config = config.copy_and_resolve_references().unlock()
    if config.data.name != "sample" and _is_path(config.data.name):
        config.data.name = _absolute(config.data.name)
    if config.data.data_dir:
        config.data.data_dir = _absolute(config.data.data_dir)
    cell = config.network.cell
    if cell and cell not in published.network_names() and _is_path(cell):
        config.network.cell = _absolute(cell)
    if config.network.pretrained:
        config.network.pretrained = _absolute(config.network.pretrained)
    return config.lock()


def from_plain(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the configuration that `workdir.plain` made data of."""

    def restore(value):
        if isinstance(value, dict):
            return {name: restore(item) for name, item in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return ml_collections.ConfigDict(restore(values)).lock()


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the value of every field, in order."""
    for name, value in config.items():
        if isinstance(value, (dict, ml_collections.ConfigDict)):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _module_of_file(path: str):
    if not os.path.isfile(path):
        raise UsageError(
            f"Expected a configuration file at {path}. Received: no such "
            "file. Give its path or one of " + ", ".join(shipped())
        )
    spec = importlib.util.spec_from_file_location("att_darts_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"Expected a configuration file that can be run: {path}. "
            f"Received: {type(error).__name__}: {_one_line(error)}. Mend it"
        ) from error
    if not callable(getattr(module, "get_config", None)):
        raise UsageError(
            f"Expected {path} to define get_config(variant). Received a file "
            "without. See configs/cifar.py for an example"
        )
    return module


def _is_path(value: str) -> bool:
    # A name of TensorFlow Datasets may hold a slash.
    return (
        value.startswith((".", "~", os.sep))
        or storage.is_remote(value)
        or os.path.exists(value)
    )


def _absolute(path: str) -> str:
    return str(storage.absolute(path))


def _with_hint(error: UsageError, hint: str) -> UsageError:
    return UsageError(f"{error} {hint}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
