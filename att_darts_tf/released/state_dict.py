"""State dictionaries in files of PyTorch, read without PyTorch.

Such a file holds a pickle, and a pickle is a program that may do anything. It
is not run here: the few instructions that a state dictionary needs build plain
data, a global stays a name, and any other instruction is refused. The standard
`pickle.Unpickler` would also set aside whatever memory a file asks for.

Source: `torch/serialization.py` and `torch/_weights_only_unpickler.py` of
PyTorch 1.0 and 2.13, https://pytorch.org/docs/stable/notes/serialization.html.
"""

import dataclasses
import functools
import io
import math
import pickle
import pickletools
import struct
import zipfile

import numpy as np

from att_darts_tf import storage
from att_darts_tf.errors import UsageError
from att_darts_tf.space import registry

# The first bytes of a file of PyTorch 1.5 or older.
_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
# Of the pickle, which describes the weights and does not hold them: thousands
# of weights take less than one MiB.
_MOST_BYTES = 16 * 2**20
# Of a pickle: 31 a weight, so 33,000 weights in about a second.
_MOST_INSTRUCTIONS = 2**20
# Larger numbers may be chosen to have all the same hash.
_LARGEST_KEY = 2**60
# Of an array in numpy 1; PyTorch allows 64.
_MOST_DIMENSIONS = 32

_DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",  # Unknown to numpy.
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
# How many of the latest values an instruction takes; others go back to a mark.
_TAKES = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_COPY = "Download or copy the file again"
_SAVE = (
    "Save the state dictionary alone: in PyTorch, "
    "`torch.save(model.state_dict(), path)`"
)
_BIG_ENDIAN = (
    "numbers of a big-endian machine",
    "Save it again on a little-endian one",
)


class _Unfit(Exception):
    """What was received instead of a state dictionary, and how to mend it."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """The dotted name of a function or class that the file asks for."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """`count` numbers from number `start` on of the `total` under a key."""

    key: str
    dtype: str
    total: int
    start: int
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage. Offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(path) -> dict[str, np.ndarray]:
    """Reads the weights in a checkpoint, whoever wrote it.

    Args:
        path: Path of a file that `torch.save` wrote: a state dictionary, or a
            dictionary with one as `"state_dict"` and plain values beside it.

    Returns:
        A dictionary of read-only arrays by the name of the weight, in the
        order of the file. The prefix `module.` of `DataParallel` is taken off,
        counts of batches are left out and bfloat16 becomes float32.
    """
    try:
        with storage.path(path).open("rb") as file:
            return _weights(*_contents(file))
    except _Unfit as error:
        cause, (received, mend) = error, error.args
    except OSError as error:
        cause, received = error, error.strerror or type(error).__name__
        mend = "Name a file that can be read, or download it again"
    # A damaged file makes the libraries below raise nearly anything.
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(". ")
        cause, mend = error, _COPY
        received = f"a damaged file: {text[:400] or type(error).__name__}"
    raise UsageError(
        f"Expected a state dictionary of PyTorch in {path}. Received: "
        f"{received}. {mend}"
    ) from cause


def _contents(file):
    """Returns the pickled object, and the bytes of each storage by its key."""
    head = file.read(512)
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    if head.startswith(_ZIP_MAGIC):
        return _read_zip(file, length)
    if head.startswith(_LEGACY_MAGIC):
        return _read_legacy(file, length)
    if not head:
        raise _Unfit("an empty file", _COPY)
    if head[257:262] == b"ustar":
        raise _Unfit(
            "the tar format of PyTorch 0.1",
            "Load it there and save it again with a newer PyTorch",
        )
    raise _Unfit("a file that `torch.save` did not write", _SAVE)


def _read_zip(file, length):
    """Reads the format of PyTorch 1.6 and newer."""
    with zipfile.ZipFile(file) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.filelist}
        # Else a small file could fill the memory, or be read without an end.
        if sum(entry.file_size for entry in archive.filelist) > length or any(
            entry.compress_type != zipfile.ZIP_STORED
            or entry.compress_size != entry.file_size
            for entry in archive.filelist
        ):
            raise _Unfit("a compressed zip", _SAVE)
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Unfit("a zip that `torch.save` did not write", _SAVE)
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in sizes and archive.read(order) != b"little":
            raise _Unfit(*_BIG_ENDIAN)
        if sizes[pickles[0]] > _MOST_BYTES:
            raise _Unfit(f"a pickle of more than {_MOST_BYTES} bytes", _SAVE)
        content, _ = _unpickle(io.BytesIO(archive.read(pickles[0])))
        data = f"{folder}data/"
        return content, {
            name.removeprefix(data): archive.read(name)
            for name in sizes
            if name.startswith(data)
        }


def _read_legacy(file, length):
    """Reads the format of PyTorch 1.5 and older, five pickles and the data."""
    # Unlike a file, `BytesIO` never sets aside more memory than it reads.
    pickles = io.BytesIO(file.read(_MOST_BYTES))
    _unpickle(pickles)  # The magic number.
    protocol, _ = _unpickle(pickles)
    if protocol != _LEGACY_PROTOCOL:
        raise ValueError("another version of the format")
    system, _ = _unpickle(pickles)
    if system["little_endian"] is not True:
        raise _Unfit(*_BIG_ENDIAN)
    content, storages = _unpickle(pickles)
    keys, _ = _unpickle(pickles)
    file.seek(pickles.tell())
    buffers = {}
    for key in keys:
        # Hashing deeply nested tuples would overflow the stack.
        if type(key) is not str or key not in storages:
            raise ValueError("data that no weight asks for")
        (count,) = struct.unpack("<q", file.read(8))
        num_bytes = count * _item_size(storages[key].dtype)
        if not 0 <= num_bytes <= length - file.tell():
            raise ValueError("it ends before its data")
        buffers[key] = file.read(num_bytes)
    return content, buffers


def _weights(content, buffers):
    """Returns the arrays of the state dictionary in an unpickled object."""

    @functools.cache
    def stored(key, dtype):
        if key not in buffers:
            raise ValueError("a weight without data")
        kind = "<u2" if dtype == "bfloat16" else dtype
        count = len(buffers[key]) // _item_size(dtype)
        numbers = np.frombuffer(buffers[key], kind, count)
        if dtype == "bfloat16":
            return (numbers.astype("<u4") << 16).view("<f4")
        return numbers

    def array(tensor):
        storage = tensor.storage
        numbers = stored(storage.key, storage.dtype)
        if storage.total > len(numbers):
            raise ValueError("a weight with too little data")
        # `_rebuild_tensor` made sure that the view stays inside.
        return np.lib.stride_tricks.as_strided(
            numbers[storage.start + tensor.offset :],
            tensor.size,
            [step * numbers.itemsize for step in tensor.stride],
            writeable=False,
        )

    if type(content) is dict and type(content.get("state_dict")) is dict:
        content = content["state_dict"]
    if type(content) is not dict or not content:
        raise _Unfit("a file without weights by name", _SAVE)
    for name, tensor in content.items():
        if type(name) is not str or type(tensor) is not _Tensor:
            raise _Unfit(
                f"an entry {registry.shorten(name)} that is no weight", _SAVE
            )
    prefix = "module."
    if not all(name.startswith(prefix) for name in content):
        prefix = ""
    return {
        name.removeprefix(prefix): array(tensor)
        for name, tensor in content.items()
        if not name.endswith("num_batches_tracked")
    }


def _unpickle(file):
    """Returns one pickle's object, and the storages it names by their keys.

    Only what PyTorch writes, in protocol 2, is understood. Attributes, such as
    the `_metadata` of an `OrderedDict`, are dropped.
    """
    stack, marks, memo, storages = [], [], {}, {}

    def take(count):
        start = marks.pop() if count is None else len(stack) - count
        if not 0 <= start <= len(stack):
            raise ValueError("a pickle that takes more than there is")
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        # One byte of a pickle may become a list of 64.
        if count == _MOST_INSTRUCTIONS:
            raise _Unfit(
                f"a pickle of more than {_MOST_INSTRUCTIONS} instructions",
                _SAVE,
            )
        match opcode.name:
            case "PROTO":
                pass
            case "BINUNICODE" | "BINFLOAT" | "LONG1":
                stack.append(argument)
            case "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(take(_TAKES.get(name))))
            case "APPEND" | "APPENDS" as name:
                items = take(_TAKES.get(name))
                if type(stack[-1]) is not list:
                    raise ValueError("a list of another kind")
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS" as name:
                items = take(_TAKES.get(name))
                if type(stack[-1]) is not dict or not all(
                    map(_is_key, items[::2])
                ):
                    raise ValueError("a dictionary of another kind")
                stack[-1].update(zip(items[::2], items[1::2]))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                name = argument.replace(" ", ".", 1)
                if name not in _DTYPES and name not in _CALLS:
                    asked = registry.shorten(name)
                    raise _Unfit(f"a pickle that asks for {asked}", _SAVE)
                stack.append(_Global(name))
            case "BINPERSID":
                storage = _storage(*stack.pop())
                storages.setdefault(storage.key, storage)
                stack.append(storage)
            case "REDUCE":
                function, arguments = take(2)
                if type(function) is not _Global or function.name in _DTYPES:
                    raise ValueError("a call of what is no function")
                stack.append(_CALLS[function.name](*arguments))
            case "BUILD":
                stack.pop()
            case "STOP":
                return stack.pop(), storages
            case name:
                raise _Unfit(f"a pickle with the instruction {name}", _SAVE)
    raise ValueError("a pickle without an end")


def _is_key(value):
    # Hashing deeply nested tuples would overflow the stack.
    return type(value) is str or (
        type(value) is int and abs(value) < _LARGEST_KEY
    )


def _storage(kind, storage_type, key, location, total, view=None):
    """Returns what a persistent identifier, given as arguments, stands for.

    `view` is of the legacy format alone: `(key, start, count)` or `None`.
    """
    _, start, count = view or (None, 0, total)
    if (
        kind != "storage"
        or type(storage_type) is not _Global
        or type(key) is not str
        or any(type(number) is not int for number in (total, start, count))
        or not 0 <= start <= start + count <= total
    ):
        raise ValueError("data of another kind")
    return _Storage(key, _DTYPES[storage_type.name], total, start, count)


def _rebuild_tensor(storage, offset, size, stride, *gradient):
    """Returns a view that was seen to stay inside its storage."""
    # Copied, because a list may still grow.
    size, stride = tuple(size), tuple(stride)
    if (
        type(storage) is not _Storage
        or len(size) != len(stride)
        or len(size) > _MOST_DIMENSIONS
        or any(type(n) is not int or n < 0 for n in (offset, *size, *stride))
    ):
        raise ValueError("a weight of another kind")
    num_elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Strides of 0 would make an enormous weight of a few numbers.
    if num_elements > storage.count or (num_elements and last >= storage.count):
        raise ValueError("a weight that reaches beyond its data")
    return _Tensor(storage, offset, size, stride)


_CALLS = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *gradient: tensor,
}


def _item_size(dtype):
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
