"""What a trained network is, read from its file without TensorFlow."""

import dataclasses
import json
import os
import zipfile
from typing import Any

from att_darts_tf import storage
from att_darts_tf.errors import UsageError
from att_darts_tf.space.genotype import Genotype

_DESCRIPTION = "config.json"
# That of a network takes 2,000. A small archive may hold any number.
_MOST_BYTES = 2**20
# Others set aside as much memory as an archive asks for.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclasses.dataclass(frozen=True)
class Description:
    """The skeleton of a trained network.

    Attributes:
        genotype: Its cells.
        cells: Their number.
        channels: Of the states of the first cells.
        stem: "small" or "imagenet".
    """

    genotype: Genotype
    cells: int
    channels: int
    stem: str


def describe(path: str | os.PathLike) -> Description:
    """Reads what a `.keras` file of a network says of it.

    Args:
        path: Path of a file that the stage `train` or `import-checkpoint`
            wrote.
    """
    config = read(path).get("config")
    kinds = {"genotype": str, "cells": int, "channels": int, "stem": str}
    if not isinstance(config, dict) or not all(
        type(config.get(name)) is kind for name, kind in kinds.items()
    ):
        raise _unfit(path, "a model without cells")
    return Description(
        Genotype.from_json(config["genotype"], source=str(path)),
        config["cells"],
        config["channels"],
        config["stem"],
    )


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads how a `.keras` file describes its model, and makes nothing of it.

    Args:
        path: Path of the file.
    """
    try:
        source = storage.path(path).open("rb")
        with source, zipfile.ZipFile(source) as archive:
            entry = archive.getinfo(_DESCRIPTION)
            if entry.compress_type not in _COMPRESSIONS:
                raise _unfit(path, "an unknown compression")
            with archive.open(entry) as file:
                text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise _unfit(path, f"a description of over {_MOST_BYTES} bytes")
        description = json.loads(text)
    except UsageError:
        raise
    except OSError as error:
        raise _unfit(path, error.strerror or error) from error
    # A damaged archive makes the libraries below raise nearly anything.
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise _unfit(path, f"{type(error).__name__}: {text}") from error
    if not isinstance(description, dict):
        raise _unfit(path, "a description that is no JSON object")
    return description


def _unfit(path, received):
    return UsageError(
        f"Expected a trained network of cells in {path}. Received: {received}. "
        "Name a training/repeat-*/model.keras"
    )
