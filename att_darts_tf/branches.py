"""What one pipeline does beside its own search and training, for comparison.

A branch is a run of its own in a folder of the work directory: a baseline on
the same images by the same recipe, or another data set for the same cells.
"""

import dataclasses
import pathlib
import re

import ml_collections

from att_darts_tf import settings
from att_darts_tf.errors import UsageError

BASELINES, TARGETS = "baselines", "targets"
RANDOM, NO_ATTENTION = settings.BASELINES
_MEANINGS = {
    RANDOM: "cells drawn at random",
    NO_ATTENTION: "search without attention",
}


@dataclasses.dataclass(frozen=True)
class Branch:
    """A run in a folder of the work directory.

    Attributes:
        name: String. Its folder below the work directory; empty for the run
            that it belongs to.
        title: String, for people; of a target, the configuration's name.
    """

    name: str
    title: str

    @property
    def is_target(self) -> bool:
        """Returns whether it trains the cells of the run on other images."""
        return self.name.startswith(TARGETS)

    @property
    def is_random(self) -> bool:
        """Returns whether its candidates are drawn, not searched."""
        return self.name == f"{BASELINES}/{RANDOM}"

    def config(self, config: ml_collections.ConfigDict):
        """Returns its own resolved configuration.

        Raises `UsageError` for a target that does not go with the run.

        Args:
            config: The resolved configuration of the run.
        """
        if self.is_target:
            return _target(config, self.title)
        if self.name:
            return _baseline(config, self.name.partition("/")[2])
        return config


MAIN = Branch("", "this run")


def of(config: ml_collections.ConfigDict) -> list[Branch]:
    """Returns the baselines and targets of a run.

    Args:
        config: The resolved configuration; `config.pipeline` names them.
    """
    found = [
        Branch(f"{BASELINES}/{name}", _MEANINGS[name])
        for name in config.pipeline.baselines
    ]
    for name in config.pipeline.targets:
        branch = Branch(f"{TARGETS}/{_folder(name)}", name)
        twins = [each.title for each in found if each.name == branch.name]
        if twins:
            raise UsageError(
                "Expected config.pipeline.targets with folders of their own. "
                f"Received: {twins[0]} and {name}, both {branch.name}. Name "
                "one of them differently"
            )
        found.append(branch)
    return found


def _baseline(config, name):
    made = _without_branches(config)
    with made.unlocked():
        # Found or drawn, with the budget of the search.
        made.network.update(cell="", pretrained="", frozen=False)
        if name == NO_ATTENTION:
            made.space.location = NO_ATTENTION
    return made


def _target(config, name):
    """Returns the images and recipes of a target, with the rest of the run."""
    named = settings.resolve(settings.load(name))
    settings.validate(named)
    made = _without_branches(config)
    with made.unlocked():
        for section in ("data", "selection"):
            made[section] = named[section]
        # It is where the data sets of this machine are.
        made.data.data_dir = made.data.data_dir or config.data.data_dir
        cells = {
            field: config.network[field]
            for field in ("cell", "pretrained", "frozen")
        }
        made.network = named.network
        made.network.update(cells)
    try:
        settings.validate(made)
    except UsageError as error:
        raise UsageError(
            f"As the target {name} of this run: {error}"
        ) from error
    return made


def _without_branches(config):
    made = settings.from_plain(config.to_dict())
    with made.unlocked():
        made.pipeline.update(baselines=(), targets=())
        # What the run has found is for it and its baselines.
        made.tune.space = ()
    return made


def _folder(name):
    """Returns a folder's name for that of a configuration."""
    file, _, variant = name.partition(":")
    stem = pathlib.PurePath(file).name.removesuffix(".py")
    return re.sub(r"[^\w.-]+", "-", "-".join(filter(None, (stem, variant))))
