"""Files and folders, here or on any file system that TensorFlow reads.

`path` gives a `pathlib.Path` for a place on this machine, and a `RemotePath`,
which answers to the same names, for a URI such as `gs://bucket/folder`.
TensorFlow is loaded where a URI is first used, and not before.
"""

import contextlib
import errno
import fnmatch
import functools
import hashlib
import io
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from att_darts_tf import startup

# Begins the names of files that are not whole yet.
PARTIAL = ".partial-"
_URI = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>.*)", re.DOTALL)


class _Status(NamedTuple):
    """As much of `os.stat_result` as is told of a remote file."""

    st_size: int
    st_mtime_ns: int


@functools.total_ordering
class RemotePath(os.PathLike):
    """A place named by a URI, with the interface of `pathlib.Path`.

    Of that interface it has what is used here. Failures are `OSError`, as of
    files on this machine.

    Args:
        uri: String, `scheme://...`.
    """

    def __init__(self, uri: str):
        match = _URI.fullmatch(uri)
        self._scheme = match["scheme"]
        self._pure = pathlib.PurePosixPath(match["rest"])

    def __str__(self) -> str:
        return f"{self._scheme}://{self._pure}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    __fspath__ = __str__

    def __eq__(self, other) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __lt__(self, other) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str | os.PathLike) -> "RemotePath":
        return self._at(self._pure / name)

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def parent(self) -> "RemotePath":
        return self._at(self._pure.parent)

    def with_name(self, name: str) -> "RemotePath":
        return self._at(self._pure.with_name(name))

    def with_suffix(self, suffix: str) -> "RemotePath":
        return self._at(self._pure.with_suffix(suffix))

    def relative_to(self, other: "RemotePath") -> pathlib.PurePosixPath:
        return self._pure.relative_to(other._pure)

    def absolute(self) -> "RemotePath":
        return self

    resolve = expanduser = absolute

    def exists(self) -> bool:
        return self._call("exists")

    def is_dir(self) -> bool:
        return self._call("isdir")

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def stat(self) -> _Status:
        found = self._call("stat")
        return _Status(found.length, found.mtime_nsec)

    def iterdir(self) -> Iterator["RemotePath"]:
        # Object stores end the names of folders with a slash.
        return (self / name for name in self._call("listdir"))

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yields what is in the folder itself; there may be no folder."""
        if self.is_dir():
            for path in self.iterdir():
                if fnmatch.fnmatchcase(path.name, pattern):
                    yield path

    def rglob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yields the files, but no folders, in it and below."""
        for folder, _, names in walk(self):
            for name in fnmatch.filter(names, pattern):
                yield path(folder) / name

    def mkdir(self, *, parents: bool, exist_ok: bool) -> None:
        """Makes the folder and its parents; object stores have none."""
        self._call("makedirs")

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._call("remove")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def open(self, mode: str = "rb", buffering: int = -1) -> io.IOBase:
        """Opens the file for reading; `replacing` is for writing."""
        if mode != "rb":
            raise ValueError(f"`mode` must be 'rb'. Received: {mode!r}")
        reader = _Reader(self)
        return io.BufferedReader(reader, 2**20) if buffering else reader

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def _at(self, pure) -> "RemotePath":
        return RemotePath(f"{self._scheme}://{pure}")

    def _call(self, function: str, *arguments, **options) -> Any:
        with _system_errors(self):
            return getattr(_gfile(), function)(
                str(self), *arguments, **options
            )


Path = pathlib.Path | RemotePath


def is_remote(place: str | os.PathLike) -> bool:
    """Tells whether a place is named by a URI."""
    return _URI.fullmatch(os.fspath(place)) is not None


def path(place: str | os.PathLike) -> Path:
    """Returns the path of a place on this machine, or that of a URI."""
    text = os.fspath(place)
    return RemotePath(text) if is_remote(text) else pathlib.Path(text)


def is_file(place: str | os.PathLike) -> bool:
    """Tells whether a place is that of a file that can be looked at."""
    try:
        return path(place).is_file()
    except OSError:
        return False


def is_dir(place: str | os.PathLike) -> bool:
    """Tells whether a place is that of a folder that can be looked at."""
    try:
        return path(place).is_dir()
    except OSError:
        return False


def absolute(place: str | os.PathLike) -> Path:
    """Returns the path of a place as it holds in any current directory."""
    if is_remote(place):
        return path(place)
    return pathlib.Path(os.path.abspath(os.path.expanduser(place)))


def walk(
    folder: Path, onerror: Callable[[Exception], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Does what `os.walk` does, everywhere."""
    if not is_remote(folder):
        return os.walk(folder, onerror=onerror)
    return _walk(folder, onerror)


def revision_and_stamp(
    root: Path, names: Iterable[str]
) -> tuple[str, str]:
    """Returns digests of files: of names and sizes, and of names and times.

    Args:
        root: Path of their folder.
        names: Names in it, in an order that does not change.
    """
    digests = hashlib.sha256(), hashlib.sha256()
    for name in names:
        status = (root / name).stat()
        values = status.st_size, status.st_mtime_ns
        for digest, value in zip(digests, values, strict=True):
            entry = f"{name}\0{value}\n"
            digest.update(entry.encode("utf-8", "surrogateescape"))
    return digests[0].hexdigest(), digests[1].hexdigest()


@contextlib.contextmanager
def local(place: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a file on this machine: the one named, or a copy while entered.

    For readers that take the names of local files alone.
    """
    source = path(place)
    if not is_remote(source):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / source.name
        _fetch(source, copy)
        yield copy


@contextlib.contextmanager
def replacing(place: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a new file on this machine, which becomes the named one whole.

    On this machine that is a rename of what is on the disk already. Elsewhere
    the file is sent under a name of its own, which it then changes: where that
    is a copy, as on object stores, the named file is the old or the new one.
    Nothing is changed where the body fails.

    Args:
        place: Path of the file. An existing one is replaced.
    """
    target = path(place)
    if is_remote(target):
        with tempfile.TemporaryDirectory() as folder:
            unfinished = pathlib.Path(folder) / target.name
            yield unfinished
            _send(unfinished, target)
        return
    descriptor, name = tempfile.mkstemp(
        dir=target.parent, prefix=PARTIAL, suffix=f"-{target.name}"
    )
    os.close(descriptor)
    try:
        yield pathlib.Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        # Private by default; results are as readable as other files.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def temporary_folder(
    near: Path, *, prefix: str
) -> tempfile.TemporaryDirectory:
    """Returns a new folder on this machine, to be entered and removed.

    It is in `near` if that is on this machine: its disk has the room.
    """
    return tempfile.TemporaryDirectory(
        prefix=prefix, dir=None if is_remote(near) else near
    )


def move_folder(folder: pathlib.Path, target: Path) -> None:
    """Gives a folder on this machine the place of another.

    Here that is a rename. Elsewhere its files are sent one by one, those of
    the deepest folders first: a reader waits for a file that is written later.

    Args:
        folder: Path of the folder, which goes.
        target: Path of its new place. What is there goes before.
    """
    remove(target)
    if not is_remote(target):
        os.replace(folder, target)
        return
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: -len(file.parts)):
        place = target / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        _send(file, place)
    shutil.rmtree(folder)


def move(place: Path, target: Path) -> None:
    """Gives a file or folder another name in the same file system.

    On object stores that is a copy of every file.

    Args:
        place: Path of the file or folder.
        target: Path that nothing has, in an existing folder.
    """
    if not is_remote(place):
        os.replace(place, target)
        return
    files = [place]
    if place.is_dir():
        files = [file for file in place.rglob("*") if file.is_file()]
    for file in files:
        name = target / file.relative_to(place) if file != place else target
        name.parent.mkdir(parents=True, exist_ok=True)
        with _system_errors(file):
            # A move that was interrupted may have left a copy.
            _gfile().rename(str(file), str(name), overwrite=True)
    remove(place)


def copy_folder(
    folder: Path, target: pathlib.Path, *, without: str = ""
) -> None:
    """Copies a folder, if there is one, into one on this machine.

    Args:
        folder: Path of the folder.
        target: Path of an existing folder.
        without: Pattern of names in the folder itself that are left out.
    """
    for parent, _, names in walk(folder):
        inside = path(parent).relative_to(folder)
        if inside.parts and fnmatch.fnmatchcase(inside.parts[0], without):
            continue
        place = target / inside
        place.mkdir(exist_ok=True)
        for name in names:
            _fetch(path(parent) / name, place / name)


def remove(place: Path) -> None:
    """Removes a file, or a folder with all that is in it, if there is one."""
    if not place.is_dir():
        place.unlink(missing_ok=True)
    elif is_remote(place):
        place._call("rmtree")
    else:
        shutil.rmtree(place)


def _walk(folder, onerror):
    # A generator: what fails, fails while it is read.
    with _system_errors(folder):
        yield from _gfile().walk(str(folder), onerror=onerror)


def _fetch(source: Path, target: pathlib.Path) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _send(file: pathlib.Path, target: RemotePath) -> None:
    partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex}-{target.name}")
    with _system_errors(target):
        try:
            _gfile().copy(str(file), str(partial))
            _gfile().rename(str(partial), str(target), overwrite=True)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class _Reader(io.RawIOBase):
    """A remote file as Python's own libraries read files.

    Args:
        path: `RemotePath` of the file.
    """

    def __init__(self, path: RemotePath):
        super().__init__()
        # TensorFlow opens what is not there, and fails when it is read.
        path.stat()
        self._path = path
        self._file = _gfile().GFile(str(path), "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        with _system_errors(self._path):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _system_errors(self._path):
            self._file.seek(offset, whence)
            return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@functools.cache
def _gfile():
    startup.load_tensorflow()
    import tensorflow as tf

    return tf.io.gfile


@contextlib.contextmanager
def _system_errors(path: RemotePath) -> Iterator[None]:
    """Raises what TensorFlow says of a file as the system's errors."""
    errors = _errors()
    try:
        yield
    except errors.OpError as error:
        numbers = {
            errors.NotFoundError: errno.ENOENT,
            errors.PermissionDeniedError: errno.EACCES,
            errors.UnauthenticatedError: errno.EACCES,
            errors.ResourceExhaustedError: errno.ENOSPC,
        }
        number = numbers.get(type(error), errno.EIO)
        reason = " ".join(error.message.split()) or os.strerror(number)
        raise OSError(number, reason, str(path)) from error


@functools.cache
def _errors():
    startup.load_tensorflow()
    import tensorflow as tf

    return tf.errors


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
