"""Stage: a checkpoint of the authors' -> a model of this project."""

import json
import os

import ml_collections
import numpy as np

from att_darts_tf.engine import optimizers, stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import network as network_module
from att_darts_tf.released import models, state_dict
from att_darts_tf.search import derive
from att_darts_tf.space import published

_STAGE = "import-checkpoint"
_CODE = ("data", "engine", "network", "released", "search", "space")


def run_import(
    config: ml_collections.ConfigDict,
    *,
    checkpoint: str | os.PathLike,
    cell: str,
    network_dir: str | os.PathLike,
    supernet_dir: str | os.PathLike,
) -> dict:
    """Makes a model of the weights in a file of PyTorch.

    A final network becomes `model.keras` in `network_dir`, where evaluation
    and export find it; a supernet becomes `supernet.keras` in `supernet_dir`,
    beside the `genotype.json` of its architecture weights. Channels, cells and
    classes are those of the file.

    Args:
        config: The resolved configuration.
        checkpoint: Path of a released state dictionary.
        cell: Published cell or genotype file of a final network, which the
            file does not name; unread for a supernet.
        network_dir: Folder of an imported network.
        supernet_dir: Folder of an imported supernet.

    Returns:
        `kind` (`"network"` or `"supernet"`), `folder`, `parameters` (without
        auxiliary head and architecture weights), and sizes.
    """
    state = state_dict.read(checkpoint)
    inputs = {"checkpoint": checkpoint}
    size = tuple(config.data.image_size)
    if models.is_supernet(state):
        location = models.location_of(state)
        if location != config.space.location:
            raise UsageError(
                f"Expected a supernet of config.space.location="
                f"{config.space.location}. Received: one of {location}. Add "
                f"--config.space.location={location}"
            )
        identity = workdir.identity(
            config,
            sections=("space",),
            code=_CODE,
            inputs=inputs,
            image_size=size,
        )
        with stage_folder.StageFolder(
            supernet_dir, stage=_STAGE, identity=identity
        ) as folder:
            return folder.result() or folder.finish(
                _import_supernet(state, config.space.location, size, folder)
            )
    if not cell:
        raise UsageError(
            f"Expected the cells of {checkpoint}, which it does not name. "
            "Received: none. Add --cell= with a published cell, such as "
            "att_darts, or a genotype file"
        )
    if config.repeats != 1:
        raise UsageError(
            "Expected config.repeats=1, as there is one network to import. "
            f"Received: {config.repeats}. Add --config.repeats=1 to this and "
            "to the following commands"
        )
    genotype = published.resolve(cell)
    identity = workdir.identity(
        config,
        sections=(),
        code=_CODE,
        inputs=inputs,
        image_size=size,
        genotype=json.loads(genotype.to_json()),
    )
    with stage_folder.StageFolder(
        network_dir, stage=_STAGE, identity=identity
    ) as folder:
        return folder.result() or folder.finish(
            _import_network(state, genotype, size, folder, config.network)
        )


def _import_network(state, genotype, size, folder, recipe):
    network = models.network(state, genotype, image_size=size)
    network.compile(
        optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum),
        clip_norm=recipe.clip_norm,
        weight_decay=recipe.weight_decay,
        auxiliary_weight=recipe.auxiliary_weight,
        label_smoothing=recipe.label_smoothing,
    )
    network_module.save(network, folder.path / "model.keras")
    return {
        "kind": "network",
        "folder": str(folder.path),
        "parameters": network.num_parameters(),
        "parameters_with_auxiliary": network.num_parameters(auxiliary=True),
        "cells": len(network.cells),
        "channels": network.channels,
        "classes": network.num_classes,
        "image_size": list(size),
    }


def _import_supernet(state, location, size, folder):
    supernet = models.supernet(state, location, image_size=size)
    architecture = supernet.architecture()
    genotype = derive.derive(architecture, location)
    genotype.write(folder.path / "genotype.json")
    network_module.save(supernet, folder.path / "supernet.keras")
    return {
        "kind": "supernet",
        "folder": str(folder.path),
        "parameters": sum(
            int(np.prod(v.shape)) for v in supernet.weight_variables
        ),
        "cells": supernet.num_cells,
        "channels": supernet.channels,
        "classes": supernet.num_classes,
        "image_size": list(size),
    }
