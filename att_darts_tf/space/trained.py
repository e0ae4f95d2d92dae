"""What a trained network is, read from its file without TensorFlow."""

import dataclasses
import json
import os
import zipfile

from att_darts_tf.errors import UsageError
from att_darts_tf.space.genotype import Genotype

_DESCRIPTION = "config.json"


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
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_DESCRIPTION))["config"]
        return Description(
            Genotype.from_json(config["genotype"], source=str(path)),
            config["cells"],
            config["channels"],
            config["stem"],
        )
    except OSError as error:
        received = error.strerror or str(error)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        received = f"{type(error).__name__}: {error}"
    raise UsageError(
        f"Expected a trained network of cells in {path}. Received: {received}. "
        "Name a training/repeat-*/model.keras"
    )
