"""What a result was made from, written beside it."""

import importlib.metadata
import json
import platform

from att_darts_tf import storage
from att_darts_tf.engine import workdir

LINEAGE_FORMAT = 1

# What computes, reads or writes a result.
_DISTRIBUTIONS = (
    "att-darts-tf",
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "tensorflow-datasets",
    "kfp",
)


def record(folder: storage.Path, *, stage: str) -> dict:
    """Writes `lineage.json` into the folder of a finished stage.

    It holds what the stage's identity holds - configuration, seed, digests of
    the inputs and of the code - and what may differ without being refused:
    versions of packages and the machine. A stage that was finished already
    keeps its first record.

    Args:
        folder: Path of the stage's folder.
        stage: String. The stage, as the command line calls it.

    Returns:
        The record.
    """
    identity = workdir.read_json(
        folder / "identity.json", format=workdir.IDENTITY_FORMAT
    )
    return _write(folder, stage, identity, folder / "result.json")


def record_data(folder: storage.Path) -> dict:
    """Does the same for prepared images, which describe themselves.

    Args:
        folder: Path of the prepared images.
    """
    file = folder / "dataset.json"
    description = json.loads(file.read_text("utf-8"))
    made_from = {
        "config": {"data": description["source"]},
        "code": workdir.code_fingerprint("data", "errors"),
    }
    return _write(folder, "prepare", made_from, file)


def _write(folder, stage, made_from, result_file) -> dict:
    file = folder / "lineage.json"
    result = workdir.digest(result_file)
    if file.exists():
        found = workdir.read_json(file, format=LINEAGE_FORMAT)
        if (found["made_from"], found["result"]) == (made_from, result):
            return found
    record = {
        "stage": stage,
        "made_from": made_from,
        "result": result,
        "packages": versions(),
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
        },
    }
    workdir.write_json(file, record, format=LINEAGE_FORMAT)
    return record


def versions() -> dict[str, str]:
    """Returns the versions of what is installed and computes a result."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # An extra that is not installed took no part.
            continue
    return found
