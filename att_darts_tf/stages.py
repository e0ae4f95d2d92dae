"""What each stage stands on: of the configuration, and of this library.

A stage whose settings, code and inputs are the same gives the same result. The
command line shows the settings, a stage's folder and the pipeline's cache hold
a result to both.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage stands on.

    Attributes:
        settings: Sections of the configuration, or single settings.
        code: Parts of `att_darts_tf` that can change its result. Missing are
            those that say things, and those that read and write files.
        count: The setting, if any, that says for what the stage is done
            several times: no single result depends on it.
    """

    settings: tuple[str, ...]
    code: tuple[str, ...]
    count: str = ""


# Those that the processes of several machines share.
TOGETHER = ("search", "select", "train", "evaluate")

_NETWORKS = ("data", "engine", "intervals", "network", "space")

STAGES = {
    "prepare": Stage(("data", "beam"), ("data",)),
    "search": Stage(
        ("search", "space", "data", "engine"),
        ("data", "engine", "search", "space"),
        count="search.seeds",
    ),
    "sample": Stage(("space",), ("engine", "search", "space")),
    "select": Stage(
        ("selection", "search.seeds", "data", "engine"), _NETWORKS
    ),
    "tune": Stage(
        (
            *("tune", "network", "search", "space", "selection"),
            *("repeats", "data", "engine"),
        ),
        (*_NETWORKS, "ranges", "search", "tuning"),
    ),
    "train": Stage(
        ("network", "repeats", "data", "engine"), _NETWORKS, count="repeats"
    ),
    "evaluate": Stage(("data", "engine"), _NETWORKS),
    "export": Stage(
        ("export", "data", "engine"),
        (*_NETWORKS, "litert", "model_card", "serving", "warm_up"),
    ),
    "report": Stage(
        (
            "data",
            "space",
            "engine",
            "search",
            "selection",
            "network",
            "export",
            "repeats",
            "hourly_price",
            "pipeline",
            "tune",
        ),
        ("engine", "intervals", "ranges", "report", "settings", "space"),
    ),
}


def settings_of(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a configuration that one result depends on.

    Args:
        stage: String, one of `STAGES`.
        config: The resolved configuration as `workdir.plain` returns it.
    """
    reads = STAGES[stage]
    found = {}
    for name in reads.settings:
        section, _, field = name.partition(".")
        value = config[section]
        if field:
            value = {field: value[field]}
        if isinstance(value, Mapping):
            value = {
                key: each
                for key, each in value.items()
                if f"{section}.{key}" != reads.count
            }
        if name != reads.count:
            found[section] = found.get(section, {}) | value if field else value
    return found
