"""Folders of stages: one owner at a time, one identity, atomic files.

Stages talk through files. A file is either absent or whole, and a folder says
which configuration, code and inputs its files come from.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping

from att_darts_tf import storage
from att_darts_tf.engine import cluster, ownership
from att_darts_tf.errors import UsageError

IDENTITY_FORMAT = 1
RESULT_FORMAT = 1
# What begins the names in a folder that a stage has not written to yet.
_OWN = (ownership.LOCK, "identity.json")
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
    text = json.dumps({"format": format, **payload}, indent=2, allow_nan=False)
    write_atomically(path, text + "\n")


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


def identity(config, *, sections, packages, inputs=None, **more):
    """Returns what the result of a stage depends on.

    Args:
        config: The resolved configuration.
        sections: Names of the fields of `config` that the stage reads.
        packages: Arguments of `code_fingerprint`.
        inputs: Mapping of names to the files or folders that the stage reads.
        **more: Further fields, as `seed=3`.

    Returns:
        A dictionary for `StageFolder`.
    """
    return {
        "config": {name: plain(config[name]) for name in sections},
        **more,
        "inputs": {
            name: digest(path) for name, path in sorted((inputs or {}).items())
        },
        "code": code_fingerprint(*packages),
    }


class StageFolder:
    """The folder of one stage, held by one process at a time.

    A second process on the folder, and a folder made from another
    configuration, other inputs or other code, are refused before any work.

    Of processes that work together the first one holds it. The others work on
    copies of their own, which go in the end: they read what it holds and
    write nothing into it.

    Args:
        path: Path of the folder, which is made if absent.
        identity: JSON-able dictionary of all that the result depends on, as
            `identity` returns it.
        team: As `devices.team` returns it.

    Attributes:
        path: Path of the folder, or of this process' copy.

    Example:

    >>> def stage(output_dir):
    ...     with StageFolder(output_dir, identity={"seed": 3}) as folder:
    ...         if folder.result() is None:
    ...             print("works")
    ...             folder.finish({"accuracy": 0.5})
    ...         return folder.result()
    >>> stage("run/search")
    works
    {'accuracy': 0.5}
    >>> stage("run/search")
    {'accuracy': 0.5}
    """

    def __init__(self, path, *, identity, team=cluster.ALONE):
        self.path = storage.path(path)
        self.identity = json.loads(json.dumps(plain(identity)))
        if team.size > 1:
            # By their number the parts of a batch differ.
            self.identity["processes"] = team.size
        self.team = team
        self._held = None
        self._new = False

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            if self.team.leads:
                stack.enter_context(ownership.hold(self.path))
                self._claim()
                stack.push(self._forget)
            stack.enter_context(self.team.telling_of_the_lost())
            self.team.agree(
                json.dumps(self.identity, sort_keys=True),
                "configuration, code and images",
            )
            if not self.team.leads:
                copy = stack.enter_context(tempfile.TemporaryDirectory())
                storage.copy_folder(self.path, pathlib.Path(copy))
                self.path = pathlib.Path(copy)
            if self.team.size > 1:
                # What is copied is whole, and not to be written before.
                self.team.agree(_content(self.path), "files of the stage")
            stack.push(self._wait)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._held.__exit__(*error)

    def result(self):
        """Returns the dictionary given to `finish`, or `None` before that."""
        file = self.path / "result.json"
        if not file.exists():
            return None
        return read_json(file, format=RESULT_FORMAT)

    def finish(self, result):
        """Writes the result, the last file of a stage, and returns it."""
        write_json(self.path / "result.json", result, format=RESULT_FORMAT)
        return self.result()

    def _wait(self, kind, *_):
        if kind is None:
            # The first one has written all before another goes on.
            self.team.wait()

    def _forget(self, kind, *_):
        mistaken = kind is not None and issubclass(kind, UsageError)
        begun = any(
            not path.name.startswith(_OWN) for path in self.path.glob("*")
        )
        if self._new and mistaken and not begun:
            # The mended command is welcome; checkpoints keep their identity.
            (self.path / "identity.json").unlink(missing_ok=True)

    def _claim(self):
        file = self.path / "identity.json"
        self._new = not file.exists()
        if self._new:
            write_json(file, self.identity, format=IDENTITY_FORMAT)
            return
        found = read_json(file, format=IDENTITY_FORMAT)
        difference = _first_difference(found, self.identity)
        if difference is not None:
            field, old, new = difference
            raise UsageError(
                f"Expected {field}={old}, with which {self.path} was made. "
                f"Received: {field}={new}. Use another --workdir or remove "
                f"{self.path}"
            )


def _content(folder):
    """Returns the digests of the files of a folder as text."""
    files = {
        file.relative_to(folder).as_posix(): digest(file)
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(ownership.LOCK)
    }
    return json.dumps(files, sort_keys=True)


def _first_difference(old, new, field=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            below = _first_difference(
                old.get(name), new.get(name), f"{field}.{name}".lstrip(".")
            )
            if below is not None:
                return below
        return None
    return None if old == new else (field, old, new)
