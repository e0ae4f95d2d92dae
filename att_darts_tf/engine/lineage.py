"""What a result was made from: a record beside it that stands alone.

A record holds the records of all that its stage has read, so that a file which
was copied elsewhere, such as a served model, still answers.
"""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from att_darts_tf import stages, storage
from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError

FORMAT = 2
FILE = "lineage.json"
# Where a SavedModel keeps it, as TensorFlow Serving knows the folder.
EXTRA = "assets.extra"
# What is read of a record. `made_from` is the identity of the stage's folder:
# settings, seed, digests of the inputs and of the code. `reads` are keys of
# `ancestors`, whose records have no ancestors of their own.
SHAPE = {
    "stage": str,
    "made_from": dict,
    "result": {"file": str, "sha256": str},
    "files": dict,
    "reads": [str],
    "packages": dict,
    "machine": dict,
    "ended": str,
    "seconds": float,
    "resumed": bool,
    "ancestors": dict,
}

# What computes, reads or writes a result.
_DISTRIBUTIONS = (
    "att-darts-tf",
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "tensorflow-datasets",
    "apache-beam",
    "kfp",
)
_PROCESSOR = pathlib.Path("/proc/cpuinfo")


class Ancestry(NamedTuple):
    """What was read, and all before it.

    Attributes:
        reads: Keys of the records of what was read.
        records: The records by the SHA-256 of their result.
    """

    reads: tuple[str, ...] = ()
    records: Mapping[str, Mapping[str, Any]] = {}


NOTHING = Ancestry()


def ancestry(reads: Iterable[storage.Path]) -> Ancestry:
    """Returns what is known of files, or raises `UsageError` for damage.

    Args:
        reads: Paths of the files, or folders of stages, that are read; those
            that no stage wrote have no record.
    """
    keys, records = [], {}
    for path in reads:
        found = _beside(path)
        if found is None:
            continue
        record = load(found)
        records |= record.pop("ancestors")
        key = record["result"]["sha256"]
        records[key] = record
        keys.append(key)
    return Ancestry(tuple(keys), records)


def write(
    folder: storage.Path,
    *,
    stage: str,
    made_from: Mapping[str, Any],
    result: tuple[str, str],
    files: Mapping[str, str] = {},
    before: Ancestry = NOTHING,
    seconds: float,
    resumed: bool = False,
) -> None:
    """Writes `lineage.json` of a result.

    Args:
        folder: Path of the folder that it is written to.
        stage: String. The stage, as the command line calls it.
        made_from: All that decides the result.
        result: Pair of strings: the name of the file that stands for the
            result, in the folder or in the one above, and its SHA-256.
        files: SHA-256 of other files that are read of it, by their names.
        before: What was read, as `ancestry` returns it.
        seconds: Wall time of the process that ended the stage.
        resumed: Boolean. Whether an earlier process began it.
    """
    file, sha256 = result
    workdir.write_json(
        folder / FILE,
        {
            "stage": stage,
            "made_from": made_from,
            "result": {"file": file, "sha256": sha256},
            "files": dict(files),
            "reads": list(before.reads),
            "packages": versions(),
            "machine": machine(),
            "ended": datetime.datetime.now(datetime.UTC).isoformat(
                timespec="seconds"
            ),
            "seconds": round(seconds, 3),
            "resumed": resumed,
            "ancestors": dict(before.records),
        },
        format=FORMAT,
    )


def write_of_images(folder: storage.Path, *, digest: str, begun: float) -> None:
    """Writes the record of prepared images, which describe themselves.

    Images that were prepared before keep theirs.

    Args:
        folder: Path of the prepared images.
        digest: Of the images, as `prepared.digest_of` returns it.
        begun: `time.monotonic` of the beginning.
    """
    file = folder / "dataset.json"
    description = json.loads(file.read_text("utf-8"))
    made_from = {
        "config": {"data": description["source"]},
        "data": digest,
        "code": workdir.code_fingerprint(*stages.STAGES["prepare"].code),
    }
    sha256 = workdir.digest(file)
    if (folder / FILE).exists():
        found = load(folder / FILE)
        if (found["made_from"], found["result"]["sha256"]) == (
            made_from,
            sha256,
        ):
            return
    write(
        folder,
        stage="prepare",
        made_from=made_from,
        result=(file.name, sha256),
        seconds=time.monotonic() - begun,
    )


def load(file: storage.Path) -> dict[str, Any]:
    """Returns a record, or raises `UsageError` for one that is damaged."""
    record = workdir.read_record(file, SHAPE, format=FORMAT)
    one = {name: kind for name, kind in SHAPE.items() if name != "ancestors"}
    for key, ancestor in record["ancestors"].items():
        workdir.check_shape(
            ancestor, one, file=file, field=f"ancestors.{key}"
        )
    for each in (record, *record["ancestors"].values()):
        texts = {
            "packages": each["packages"],
            "machine": each["machine"],
            "files": each["files"],
            "made_from.inputs": each["made_from"].get("inputs", {}),
        }
        for name, values in texts.items():
            workdir.check_shape(values, {}, file=file, field=name)
            for key, value in values.items():
                workdir.check_shape(
                    value, str, file=file, field=f"{name}.{key}"
                )
        workdir.check_shape(
            each["made_from"].get("config", {}),
            {},
            file=file,
            field="made_from.config",
        )
        if not set(each["reads"]) <= set(record["ancestors"]):
            raise workdir.malformed(
                file, "reads", "keys of `ancestors`", each["reads"]
            )
    return record


def find(place: storage.Path) -> storage.Path:
    """Returns the record of a file or folder that a stage wrote.

    Args:
        place: Path of the folder of a stage, of anything in one, or of a
            SavedModel or something in it, wherever it was copied to.
    """
    if not place.exists():
        raise UsageError(
            f"Expected a file or folder of a run. Received: {place}, which "
            "does not exist. Name another"
        )
    near = place
    # A file system, or a bucket of one, is no stage.
    while near.name:
        found = _beside(near)
        if found is not None:
            return found
        near = near.parent
    below = []
    if place.is_dir() and not storage.is_remote(place):
        # As deep as a work directory is.
        for pattern in (f"*/{FILE}", f"*/*/{FILE}"):
            below += sorted(place.glob(pattern))
    hint = (
        f"Name one of {', '.join(str(each.parent) for each in below)}"
        if below
        else "Name what a stage has written, or the folder of a SavedModel "
        f"with its {EXTRA}"
    )
    raise UsageError(
        f"Expected a result with its {FILE}. Received: {place}, which has "
        f"none. {hint}"
    )


def fits(file: storage.Path, record: Mapping[str, Any]) -> bool:
    """Returns whether all files beside a record are those it tells of."""
    folder = file.parent
    if folder.name == EXTRA:
        folder = folder.parent
    result = record["result"]
    return all(
        (folder / name).exists() and workdir.digest(folder / name) == sha256
        for name, sha256 in (
            (result["file"], result["sha256"]),
            *record["files"].items(),
        )
    )


def images_of(record: Mapping[str, Any]) -> str:
    """Returns the digest of the images that a stage read, "" without any."""
    data = record["made_from"].get("data", "")
    # A search's identity has all settings of the images beside it.
    digest = data.get("digest", "") if isinstance(data, Mapping) else data
    return digest if isinstance(digest, str) else ""


def _beside(place: storage.Path) -> storage.Path | None:
    folder = place if place.is_dir() else place.parent
    for each in (folder / FILE, folder / EXTRA / FILE):
        if each.exists():
            return each
    return None


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


def machine() -> dict[str, str]:
    """Returns what this process computes on, in words."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "device": " and ".join(_devices()),
    }


def _devices() -> list[str]:
    # Where TensorFlow has not been loaded, nothing was computed with it.
    tensorflow = sys.modules.get("tensorflow")
    gpus = tensorflow.config.list_physical_devices("GPU") if tensorflow else []
    names = [
        tensorflow.config.experimental.get_device_details(gpu).get(
            "device_name", gpu.name
        )
        for gpu in gpus
    ]
    return names or [_processor()]


def _processor() -> str:
    if _PROCESSOR.exists():
        for line in _PROCESSOR.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return f"{value.strip()} ({platform.machine()})"
    return platform.machine()
