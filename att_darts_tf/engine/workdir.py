"""Files of a run: absent or whole, and known by what they hold."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import reprlib
import sys
from collections.abc import Mapping

from att_darts_tf import storage
from att_darts_tf.errors import UsageError

IDENTITY_FORMAT = 1
RESULT_FORMAT = 1
# How often a training saves changes none of its bits.
WITHOUT_INFLUENCE = ("engine.checkpoint_steps",)
_PACKAGE = pathlib.Path(__file__).resolve().parent.parent


def plain(config):
    """Returns a configuration as data that JSON can hold.

    References are resolved, placeholders become `None`, tuples become lists.

    Args:
        config: `ml_collections.ConfigDict`, or any nesting of mappings,
            sequences and scalars.
    """
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(name): plain(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return config


def write_atomically(path, content):
    """Writes a whole file or none, also if power fails or the disk is full.

    Args:
        path: Path of the file. An existing one is replaced.
        content: `bytes`, or `str`, which is written as UTF-8.
    """
    if isinstance(content, str):
        content = content.encode()
    try:
        with storage.replacing(path) as file:
            file.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"Expected to write {path}. Received: {error.strerror}. Make room "
            "or choose a folder that can be written"
        ) from error


@contextlib.contextmanager
def telling_of_a_full_disk():
    """Raises `UsageError` where a disk is full, whoever was writing to it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f": {error.filename}" if error.filename else ""
        raise UsageError(
            f"Expected room for the files of the run. Received: "
            f"{error.strerror}{place}. Make room; the same command goes on "
            "where it stopped"
        ) from error


def open_itself(path, flags):
    """Opens a file but no symbolic link, the `opener` of a Python `open`.

    A work directory of somebody else's may hold a link to any file, which
    would be written to.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UsageError(
            f"Expected a file, or none yet, at {path}. Received: a symbolic "
            "link. Remove it"
        ) from error


def write_json(path, payload, *, format):
    """Writes a dictionary as JSON with a format number, atomically."""
    write_atomically(path, as_json(payload, format=format))


def as_json(payload, *, format):
    """Returns what `write_json` writes."""
    text = json.dumps({"format": format, **payload}, indent=2, allow_nan=False)
    return f"{text}\n"


def read_json(path, *, format):
    """Reads what `write_json` wrote.

    Args:
        path: Path of the file.
        format: Integer. The one format that the caller can read.

    Returns:
        The dictionary, without its format number.
    """
    try:
        payload = json.loads(storage.path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"Expected a readable file {path}. Received: {error.strerror}. Run "
            "the stage that writes it, or name another"
        ) from error
    # Deeply nested text overflows Python's stack.
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"Expected JSON in {path}. Received: {error}. Remove the file and "
            "run the stage that writes it"
        ) from error
    if not isinstance(payload, dict):
        raise UsageError(
            f"Expected a JSON object in {path}. Received: "
            f"{type(payload).__name__}. Remove the file and run the stage that "
            "writes it"
        )
    received = payload.pop("format", None)
    if received != format:
        raise UsageError(
            f"Expected format {format} in {path}. Received: format "
            f"{received!r}. Use the version of att-darts that wrote it, or "
            "remove the file"
        )
    return payload


def read_record(path, shape, *, format):
    """Returns what `read_json` does, checked as `check_shape` does."""
    payload = read_json(path, format=format)
    check_shape(payload, shape, file=path)
    return payload


def check_shape(value, shape, *, file, field=""):
    """Raises `UsageError` where a record is not as it was written.

    Args:
        value: What `read_json` returned, or a part of it.
        shape: A type; a list of one shape, for a list of any length; or a
            mapping of names to shapes, beside which there may be others.
            `float` allows integers too.
        file: Path of the record.
        field: String. The name of `value` in it.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            raise malformed(file, field, "an object", value)
        for name, inner in shape.items():
            below = f"{field}.{name}".lstrip(".")
            if name not in value:
                raise malformed(file, below, "a value", "none")
            check_shape(value[name], inner, file=file, field=below)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise malformed(file, field, "a list", value)
        for i, item in enumerate(value):
            check_shape(item, shape[0], file=file, field=f"{field}[{i}]")
    elif shape is float:
        # An integer may be larger than any float.
        if (
            type(value) not in (int, float)
            or not abs(value) <= sys.float_info.max
        ):
            raise malformed(file, field, "a finite number", value)
    elif type(value) is not shape:
        raise malformed(file, field, f"a value of {shape.__name__}", value)


def malformed(file, field, expected, received):
    """Returns the error for a field of a record that is not as it was written.

    Args:
        file: Path of the record.
        field: String.
        expected: String.
        received: Any value.
    """
    return UsageError(
        f"Expected {expected} in the field `{field}` of {file}. Received: "
        f"{reprlib.repr(received)}. Remove {file.parent} and run its stage "
        "again"
    )


def digest(path):
    """Returns the SHA-256 of a file, or of the names and files of a folder."""
    path = storage.path(path)
    total = hashlib.sha256()
    if not path.is_dir():
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
        except OSError as error:
            raise UsageError(
                f"Expected a readable file {path}. Received: "
                f"{error.strerror}. Run the stage that writes it, or name "
                "another"
            ) from error
        return total.hexdigest()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            total.update(f"{file.relative_to(path).as_posix()}\0".encode())
            total.update(digest(file).encode())
    return total.hexdigest()


def code_fingerprint(*packages):
    """Returns the SHA-256 of the sources that a stage stands on.

    A stage names the parts of `att_darts_tf` that can change its result, so
    editing a report does not make a finished search stale.

    Args:
        *packages: Names of sub-packages or modules, as `"space"`, `"errors"`.
    """
    total = hashlib.sha256()
    for name in sorted(packages):
        module = _PACKAGE / f"{name}.py"
        folder = _PACKAGE / name
        if module.is_file():
            files = [module]
        else:
            files = sorted(
                file
                for file in folder.rglob("*")
                if file.suffix in (".py", ".json")
            )
        if not files:
            raise ValueError(
                f"Expected a part of att_darts_tf. Received: {name!r}"
            )
        for file in files:
            total.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def identity(
    config,
    *,
    sections,
    code,
    inputs=None,
    without_influence=WITHOUT_INFLUENCE,
    **more,
):
    """Returns what the result of a stage depends on.

    Args:
        config: The resolved configuration.
        sections: Names of the fields of `config` that the stage reads.
        code: Sequence of the arguments of `code_fingerprint`.
        inputs: Mapping of names to the files or folders that the stage reads.
        without_influence: Settings of these sections that change no result.
        **more: Further fields, as `seed=3`.

    Returns:
        A dictionary for `StageFolder`.
    """
    read = {name: plain(config[name]) for name in sections}
    for name in without_influence:
        section, field = name.split(".")
        if section in read:
            del read[section][field]
    return {
        "config": read,
        **more,
        "inputs": {
            name: digest(path) for name, path in sorted((inputs or {}).items())
        },
        "code": code_fingerprint(*code),
    }
