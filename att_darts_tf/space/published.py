"""Cells that others have published, by name, and a network without cells.

A cell's entry in `published.json` says where its data were released. The
counts of parameters and multiply-adds are those of the DARTS skeleton without
auxiliary head; NASNet, AmoebaNet, PNASNet and ENAS were published on skeletons
of their own, so that their published figures do not compare with them.

BayesNAS keeps several operations an edge, so a node has one to six inputs. It
is read as their sum, like any node. Its released network differs from the DARTS
skeleton: normalisation stands before the ReLU instead of behind each pointwise
kernel, an average counts the padding, and an input is halved by two full 1x1
convolutions before it is brought to the width of the cell. The operations have
as many weights as those here; with that halving `bayesnas_0.005` has 2.51
million parameters (2.39 here), not the published 3.4. `snas_mild` has 2.66
million as released, not the published 2.9.
"""

import functools
import importlib.resources
import json
import os

from att_darts_tf import storage
from att_darts_tf.errors import UsageError
from att_darts_tf.space import genotype, registry, trained

DENSENET = "densenet_bc"
# What stands for a cell in a configuration and has none.
_NETWORKS = {
    DENSENET: {
        "source": "Huang et al., 2017, https://arxiv.org/abs/1608.06993, "
        "sections 3 and 4.2 (L = 190, k = 40)",
        "parameters": {"cifar10_40_channels_31_cells": 25624430},
        "multiply_adds": {"cifar10_40_channels_31_cells": 9301945740},
        # Table 2, C10+; as in the table of results of Nakai et al., 2020.
        "published": {
            "cifar10_parameters_millions": 25.6,
            "cifar10_test_error_percent": 3.46,
        },
    },
}
# Channels and cells of the networks for CIFAR-10. Source: Liu et al., 2019,
# https://arxiv.org/abs/1806.09055, section 3.1.1; for the other, its own.
_SIZE = (36, 20)
_SIZES = {DENSENET: (40, 31)}
# Cells whose published figures are of skeletons of their own.
_OTHER_SKELETONS = ("nasnet", "amoebanet", "pnasnet", "enas")


@functools.cache
def _entries():
    file = importlib.resources.files(__package__) / "published.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _entry(name):
    entries = {**_entries(), **_NETWORKS}
    if not isinstance(name, str) or name not in entries:
        raise registry.unknown_name("published cell", tuple(entries), name)
    return entries[name]


def names() -> tuple[str, ...]:
    """Returns the names of all published cells."""
    return tuple(_entries())


def network_names() -> tuple[str, ...]:
    """Returns `names()` and those of networks without cells."""
    return (*names(), *_NETWORKS)


def get(name: str) -> genotype.Genotype:
    """Returns the cells of a publication, or raises `UsageError`."""
    if _is_network(name):
        raise UsageError(
            f"Expected a published cell, one of {', '.join(names())}. "
            f"Received: {name!r}, a network without cells. Name another"
        )
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


def multiply_adds(name: str) -> dict[str, int]:
    """Returns exact numbers of multiply-adds by the size of the network.

    They are of one image, as `network.cost` counts them.
    """
    return dict(_entry(name).get("multiply_adds", {}))


def size(name: str) -> tuple[int, int]:
    """Returns `config.network.channels` and `.cells` for CIFAR-10.

    Those of `densenet_bc` are its growth rate and the layers of a block.
    """
    return _SIZES.get(name, _SIZE)


def size_name(name: str) -> str:
    """Returns what `parameters` and `multiply_adds` call that size."""
    return "cifar10_{}_channels_{}_cells".format(*size(name))


def skeleton(name: str) -> str:
    """Returns which skeleton the published figures are of.

    Source: the papers of those cells; see the head of this module.
    """
    if name.startswith(_OTHER_SKELETONS) or name in _NETWORKS:
        return "its own"
    return "DARTS"


def resolve(cell: str | os.PathLike) -> genotype.Genotype:
    """Returns the cells of a publication or of a file.

    Args:
        cell: String. One of `names()`, or else the path of a genotype file or
            of a trained network's `.keras` file.

    Example:

    >>> print(*resolve("att_darts").normal.nodes[0])
    sep_conv_3x3+DoubleAttention(0) sep_conv_3x3+CBAM(1)
    """
    if isinstance(cell, str) and cell in network_names():
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
    if looks_like_path or storage.is_file(path):
        return genotype.Genotype.read(path)
    raise registry.unknown_name(
        "cell, neither published nor a file", network_names(), path
    )


def resolve_network(cell: str | os.PathLike) -> genotype.Genotype | str:
    """Returns the cells of a network, or the name of one without cells.

    Args:
        cell: String. One of `network_names()`, or else the path of a genotype
            file.
    """
    return cell if _is_network(cell) else resolve(cell)


def _is_network(name) -> bool:
    return isinstance(name, str) and name in _NETWORKS


def plain(network: genotype.Genotype | str) -> dict | str:
    """Returns what `resolve_network` returned as plain data."""
    if isinstance(network, str):
        return network
    return json.loads(network.to_json())
