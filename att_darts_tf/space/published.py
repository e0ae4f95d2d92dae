"""Cells that others have published, by name.

A cell's entry in `published.json` says where its data were released. The
counts of parameters are those of the DARTS skeleton without auxiliary head;
NASNet, AmoebaNet, PNASNet and ENAS were published on skeletons of their own,
so that their published figures do not compare with them.
"""

import functools
import importlib.resources
import json
import os

from att_darts_tf.errors import UsageError
from att_darts_tf.space import genotype, registry, trained


@functools.cache
def _entries():
    file = importlib.resources.files(__package__) / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _entry(name):
    entries = _entries()
    if not isinstance(name, str) or name not in entries:
        raise registry.unknown_name("published cell", names(), name)
    return entries[name]


def names() -> tuple[str, ...]:
    """Returns the names of all published cells."""
    return tuple(_entries())


def get(name: str) -> genotype.Genotype:
    """Returns the cells of a publication, or raises `UsageError`."""
    return genotype.Genotype.from_json(
        json.dumps(_entry(name)), source=f"published cell {name}"
    )


def source(name: str) -> str:
    """Returns where the data of the cells were released."""
    return _entry(name)["source"]


def figures(name: str) -> dict[str, float]:
    """Returns the figures as published, by name and unit.

    Empty for variants of a cell that the table of results does not list.
    """
    return dict(_entry(name).get("published", {}))


def parameters(name: str) -> dict[str, int]:
    """Returns exact numbers of weights by the size of the network.

    They are without auxiliary head. Empty where none has been counted.
    """
    return dict(_entry(name).get("parameters", {}))


def resolve(cell: str | os.PathLike) -> genotype.Genotype:
    """Returns the cells of a publication or of a file.

    Args:
        cell: String. One of `names()`, or else the path of a genotype file or
            of a trained network's `.keras` file.
    """
    if isinstance(cell, str) and cell in names():
        return get(cell)
    if not isinstance(cell, str | os.PathLike):
        raise UsageError(
            "Expected the name of a published cell or the path of a genotype "
            f"file. Received: {registry.shorten(cell)}"
        )
    path = os.fspath(cell)
    if path.endswith(".keras"):
        return trained.describe(path).genotype
    looks_like_path = os.path.dirname(path) or path.endswith(".json")
    if looks_like_path or os.path.isfile(path):
        return genotype.Genotype.read(path)
    raise registry.unknown_name(
        "cell, neither published nor a file", names(), path
    )
