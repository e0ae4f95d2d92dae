"""Folders of stages: one owner at a time, one identity, a record of it.

Stages talk through files, and a folder says which configuration, code and
inputs its files come from.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import time

from att_darts_tf import storage
from att_darts_tf.engine import cluster, lineage, ownership, workdir
from att_darts_tf.errors import UsageError

# Of the environment, so that the tasks of a pipeline have it too: what a
# folder does with files that were made from something else.
STALE_VARIABLE = "ATT_DARTS_STALE"
REPLACE = "replace"
_IDENTITY = "identity.json"
# What others read of a folder.
_READ = ("*.keras", "*.tflite", "genotype.json", "report.html")
_REPLACED = "replaced-"
# Instead of an identity: the folder that files are being moved to.
_ASIDE = "aside"


@contextlib.contextmanager
def replacing_stale():
    """Lets stages replace what was made from something else.

    Without it they refuse such a folder. What was in it is kept beside the
    new files, in `replaced-1` and so on.
    """
    before = os.environ.get(STALE_VARIABLE)
    os.environ[STALE_VARIABLE] = REPLACE
    try:
        yield
    finally:
        if before is None:
            del os.environ[STALE_VARIABLE]
        else:
            os.environ[STALE_VARIABLE] = before


def replaces_stale():
    """Returns whether this process is within `replacing_stale`."""
    return os.environ.get(STALE_VARIABLE) == REPLACE


def require_identity(path, identity):
    """Raises `UsageError` unless another process made a folder from the same.

    Args:
        path: Path of the folder.
        identity: As `StageFolder` takes it.
    """
    file = storage.path(path) / _IDENTITY
    found = workdir.read_json(file, format=workdir.IDENTITY_FORMAT)
    identity = json.loads(json.dumps(workdir.plain(identity)))
    difference = _first_difference(found, identity)
    if difference is not None:
        field, old, new = difference
        raise UsageError(
            f"Expected {field}={old}, as the first process on {path}. "
            f"Received: {field}={new}. Give all processes the same command"
        )


class StageFolder:
    """The folder of one stage, held by one process at a time.

    A second process on the folder, and a folder made from another
    configuration, other inputs or other code, are refused before any work; the
    latter is done again within `replacing_stale`, and where it is quick to do.

    Of processes that work together the first one holds it. The others work on
    copies of their own, which go in the end: they read what it holds and
    write nothing into it.

    Args:
        path: Path of the folder, which is made if absent.
        stage: String. The stage, as the command line calls it.
        identity: JSON-able dictionary of all that the result depends on, as
            `workdir.identity` returns it.
        reads: Paths of the files or folders of other stages that are read,
            whose records become part of the record of the result.
        team: As `devices.team` returns it.
        quick: Boolean. Whether the stage takes seconds, so that what was made
            from something else goes without being asked for.
        stays: Names of folders that are not put aside with the other files.

    Attributes:
        path: Path of the folder, or of this process' copy.

    Example:

    >>> def stage(output_dir):
    ...     with StageFolder(
    ...         output_dir, stage="search", identity={"seed": 3}
    ...     ) as folder:
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

    def __init__(
        self,
        path,
        *,
        stage,
        identity,
        reads=(),
        team=cluster.ALONE,
        quick=False,
        stays=(),
    ):
        self.path = storage.path(path)
        self.stage = stage
        self.identity = json.loads(json.dumps(workdir.plain(identity)))
        self.reads = [storage.path(each) for each in reads]
        self.quick = quick
        self.stays = stays
        if team.size > 1:
            # By their number the parts of a batch differ.
            self.identity["processes"] = team.size
        self.team = team
        self._held = None
        self._new = False
        self._resumed = False
        # Where the files of something else were put, and what stayed.
        self._aside = None
        self._left = set()
        self._before = lineage.NOTHING
        self._begun = time.monotonic()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            if self.team.leads:
                stack.enter_context(ownership.hold(self.path))
                # A damaged record is told of before the work.
                self._before = lineage.ancestry(self.reads)
                self._claim()
                stack.push(self._forget)
            stack.enter_context(self.team.telling_of_the_lost())
            self.team.agree(
                json.dumps(self.identity, sort_keys=True),
                "configuration, code and images",
            )
            if not self.team.leads:
                copy = stack.enter_context(tempfile.TemporaryDirectory())
                storage.copy_folder(
                    self.path, pathlib.Path(copy), without=f"{_REPLACED}*"
                )
                self.path = pathlib.Path(copy)
            if self.team.size > 1:
                # What is copied is whole, and not to be written before.
                self.team.agree(_content(self.path), "files of the stage")
            stack.push(self._wait)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._held.__exit__(*error)

    @property
    def ancestors(self):
        """Returns the records of all that was read, and of all before it."""
        return list(self._before.records.values())

    def result(self):
        """Returns the dictionary given to `finish`, or `None` before that."""
        file = self.path / "result.json"
        if not file.exists():
            return None
        return workdir.read_json(file, format=workdir.RESULT_FORMAT)

    def finish(self, result):
        """Writes the record and the result, the last file, and returns it."""
        text = workdir.as_json(result, format=workdir.RESULT_FORMAT)
        file = self.path / "result.json"
        self.record(
            self.path,
            result=(file.name, hashlib.sha256(text.encode()).hexdigest()),
            files={
                path.name: workdir.digest(path)
                for pattern in _READ
                for path in self.path.glob(pattern)
            },
        )
        workdir.write_atomically(file, text)
        return self.result()

    def record(self, folder, *, result, files):
        """Writes what a result was made from beside it.

        Args:
            folder: Path of the folder for the record.
            result: As `lineage.write` takes it.
            files: The same.
        """
        lineage.write(
            folder,
            stage=self.stage,
            made_from=self.identity,
            result=result,
            files=files,
            before=self._before,
            seconds=time.monotonic() - self._begun,
            resumed=self._resumed,
        )

    def _wait(self, kind, *_):
        if kind is None:
            # The first one has written all before another goes on.
            self.team.wait()

    def _forget(self, kind, *_):
        """Takes the claim back where a mistake ended it before the work."""
        mistaken = kind is not None and issubclass(kind, UsageError)
        # Checkpoints keep their identity.
        begun = self._names() - {_IDENTITY} - self._left
        if not (self._new and mistaken) or begun:
            return
        if self._aside is None:
            # The mended command is welcome.
            (self.path / _IDENTITY).unlink(missing_ok=True)
        else:
            self._bring_back()

    def _claim(self):
        file = self.path / _IDENTITY
        if file.exists():
            found = workdir.read_json(file, format=workdir.IDENTITY_FORMAT)
            difference = _first_difference(found, self.identity)
            if difference is None:
                self._resumed = True
                return
            if replaces_stale():
                self._put_aside(found)
            elif self.quick:
                (self.path / "result.json").unlink(missing_ok=True)
            elif _ASIDE in found:
                raise UsageError(
                    f"Expected the files of one result in {self.path}. "
                    "Received: some, and the others in "
                    f"{self.path / found[_ASIDE]}, as replacing them was "
                    "interrupted. Give --replace to do it again"
                )
            else:
                field, old, new = difference
                raise UsageError(
                    f"Expected {field}={old}, with which {self.path} was made. "
                    f"Received: {field}={new}. Use another --workdir, or give "
                    "--replace to keep its files aside and do it again"
                )
        self._new = True
        workdir.write_json(
            file, self.identity, format=workdir.IDENTITY_FORMAT
        )

    def _names(self):
        """Returns the names of the files and folders that are a result's."""
        return {
            path.name
            for path in self.path.glob("*")
            if not path.name.startswith((ownership.LOCK, _REPLACED))
        }

    def _put_aside(self, identity):
        """Moves the files into a folder below.

        As long as that may be interrupted, the identity is nobody's but names
        that folder. Folders of other stages stay, with identities of theirs.
        """
        name = identity.get(_ASIDE)
        if name is None:
            taken = {path.name for path in self.path.glob(f"{_REPLACED}*")}
            number = 1
            while (name := f"{_REPLACED}{number}") in taken:
                number += 1
        self._aside = self.path / name
        self._aside.mkdir(parents=True, exist_ok=True)
        if _ASIDE not in identity:
            workdir.write_json(
                self._aside / _IDENTITY,
                identity,
                format=workdir.IDENTITY_FORMAT,
            )
        self._mark()
        for each in self._names():
            if (self.path / each / _IDENTITY).exists() or each in self.stays:
                self._left.add(each)
            elif each != _IDENTITY:
                storage.move(self.path / each, self._aside / each)
        print(
            f"{self.stage}: what {self.path} held was made from something "
            f"else; it is kept in {self._aside}",
            flush=True,
        )

    def _bring_back(self):
        """Undoes what `_put_aside` has done, the identity last."""
        self._mark()
        for path in list(self._aside.glob("*")):
            if path.name != _IDENTITY:
                storage.move(path, self.path / path.name)
        identity = workdir.read_json(
            self._aside / _IDENTITY, format=workdir.IDENTITY_FORMAT
        )
        workdir.write_json(
            self.path / _IDENTITY, identity, format=workdir.IDENTITY_FORMAT
        )
        storage.remove(self._aside)
        print(f"{self.stage}: {self.path} is as it was", flush=True)

    def _mark(self):
        workdir.write_json(
            self.path / _IDENTITY,
            {_ASIDE: self._aside.name},
            format=workdir.IDENTITY_FORMAT,
        )


def _content(folder):
    """Returns the digests of the files of a folder as text."""
    files = {
        name.as_posix(): workdir.digest(file)
        for file in folder.rglob("*")
        for name in [file.relative_to(folder)]
        if file.is_file()
        and not file.name.startswith(ownership.LOCK)
        and not name.parts[0].startswith(_REPLACED)
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
