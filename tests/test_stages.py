"""What each stage stands on, held to its imports and to its settings."""

import ast
import importlib.util
import pathlib
import re

import pytest

from att_darts_tf import settings, stages
from att_darts_tf.engine import workdir
from tests import test_structure

# Where each stage begins.
MODULES = {
    "prepare": "data.run",
    "search": "search.run",
    "sample": "search.sample",
    "select": "network.run",
    "tune": "tuning.run",
    "train": "network.run",
    "evaluate": "network.evaluate",
    "export": "serving",
    "report": "report",
}
# What says things, and reads and writes files, changes no result; neither does
# the table itself. What a configuration means, its settings tell.
WITHOUT_INFLUENCE = {
    "",
    "branches",
    "durations",
    "errors",
    "memory",
    "settings",
    "stages",
    "startup",
    "storage",
}


def plain():
    return workdir.plain(settings.load("base"))


def units_below(module):
    """Returns the parts of the library that a module and its imports need."""
    found = list(test_structure.modules())
    known = {name for name, _, _ in found}
    trees = {name: tree for name, _, tree in found}
    waiting, seen = [f"{test_structure.LIBRARY}.{module}"], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in trees:
            continue
        seen.add(name)
        waiting += test_structure.imports_of(trees[name], known)
    return {test_structure.unit_of(name) for name in seen}


def test_every_stage_is_looked_at():
    assert set(MODULES) == set(stages.STAGES)


@pytest.mark.parametrize("stage", MODULES)
def test_code_is_what_the_stage_imports(stage):
    expected = units_below(MODULES[stage]) - WITHOUT_INFLUENCE
    code = set(stages.STAGES[stage].code)
    if stage == "prepare":
        # For its record alone.
        expected -= {"engine"}
    if stage == "report":
        # What a configuration means is what the page shows.
        expected |= {"settings"}
    assert code == expected


@pytest.mark.parametrize("stage", MODULES)
def test_settings_are_those_that_the_source_reads(stage):
    """No section that the stage's module names is missing."""
    name = f"{test_structure.LIBRARY}.{MODULES[stage]}"
    source = pathlib.Path(importlib.util.find_spec(name).origin).read_text()
    sections = {
        each.partition(".")[0] for each in settings.SETTINGS
    }
    named = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) == "config"
    }
    read = {each.partition(".")[0] for each in stages.STAGES[stage].settings}
    # One module holds the selection and the training.
    others = {"select": {"network"}, "train": {"selection", "search"}}
    assert named & sections - others.get(stage, set()) <= read


def test_settings_of_leave_out_what_counts_results():
    config = plain()
    search = stages.settings_of("search", config)
    assert "seeds" not in search["search"]
    assert search["search"]["epochs"] == config["search"]["epochs"]
    assert "repeats" not in stages.settings_of("train", config)
    assert stages.settings_of("select", config)["search"] == {
        "seeds": config["search"]["seeds"]
    }


@pytest.mark.parametrize("stage", MODULES)
def test_settings_of_are_those_of_the_configuration(stage):
    config = plain()
    found = dict(settings.flatten(stages.settings_of(stage, config)))
    whole = dict(settings.flatten(config))
    assert found.items() <= whole.items()
    for name in stages.STAGES[stage].settings:
        below = {
            each
            for each in whole
            if re.fullmatch(rf"{re.escape(name)}(\..+)?", each)
        } - {stages.STAGES[stage].count}
        assert below <= set(found), name


def test_every_setting_is_of_a_stage():
    named = {
        name for stage in stages.STAGES.values() for name in stage.settings
    }
    for name in settings.SETTINGS:
        # Where tasks run changes no result.
        if name.startswith("vertex."):
            continue
        assert {name, name.partition(".")[0]} & named, name
