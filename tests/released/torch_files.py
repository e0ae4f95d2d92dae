"""Files of PyTorch, put together from the instructions of pickles."""

import io
import pickle
import struct
import zipfile

import numpy as np

NUMBERS = struct.pack("<6f", *range(6))


def plain(value):
    """Returns the instructions that make a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def whole(instructions):
    return b"\x80\x02" + instructions + b"."


def called(name, *values):
    """Returns the instructions that call a global with values."""
    module, function = name.rsplit(".", 1)
    return f"c{module}\n{function}\n(".encode() + b"".join(values) + b"tR"


def stored(key="0", total=6, kind="FloatStorage", view=b""):
    identifier = (plain("storage"), f"ctorch\n{kind}\n".encode(), plain(key))
    return b"(%b%b%btQ" % (
        b"".join(identifier),
        plain("cpu") + plain(total),
        view,
    )


def tensor(storage=None, offset=0, size=(2, 3), stride=(3, 1)):
    return called(
        "torch._utils._rebuild_tensor_v2",
        stored() if storage is None else storage,
        plain(offset),
        plain(size),
        plain(stride),
        plain(False),
        called("collections.OrderedDict"),
    )


def dictionary(**entries):
    pairs = [plain(name) + value for name, value in entries.items()]
    return b"}(" + b"".join(pairs) + b"u"


def zipped(instructions, data=NUMBERS, **more):
    entries = {"data/0": data, "byteorder": b"little", **more}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some/data.pkl", whole(instructions))
        for name, content in entries.items():
            archive.writestr(f"some/{name}", content)
    return file.getvalue()


def legacy(instructions, data=NUMBERS, keys=None, count=6, little=True):
    keys = plain(["0"]) if keys is None else keys
    return b"".join(
        (
            whole(plain(0x1950A86A20F9469CFC6C)),
            whole(plain(1001)),
            whole(plain({"protocol_version": 1001, "little_endian": little})),
            whole(instructions),
            whole(keys),
            struct.pack("<q", count),
            data,
        )
    )


def checkpoint(state):
    """Returns the file of a state dictionary.

    Args:
        state: Mapping of names to arrays of float32.
    """
    entries, data = {}, {}
    for i, (name, array) in enumerate(state.items()):
        array = np.ascontiguousarray(array, "<f4")
        strides = tuple(stride // 4 for stride in array.strides)
        entries[name] = tensor(
            stored(key=str(i), total=array.size), 0, array.shape, strides
        )
        data[f"data/{i}"] = array.tobytes()
    return zipped(dictionary(**entries), data.pop("data/0"), **data)


def random_state(places, seed=0):
    """Returns arrays in the authors' layout for every name of a model."""
    draw = np.random.default_rng(seed)
    state, drawn = {}, {}
    for name, place in places.items():
        shape = place.shape
        # A plain depthwise kernel ends in a multiplier of one.
        if "depthwise" in place.variable.path and len(shape) == 4:
            shape = shape[:-1]
        if len(shape) == 3:
            height, width, channels = shape
            shape = (channels, 1, height, width)
        elif place.turned and len(shape) > 3:
            height, width, channels, filters = shape
            shape = (filters, channels, height, width)
        elif place.turned:
            shape = shape[::-1]
        array = draw.normal(scale=0.1, size=shape)
        if name.endswith("running_var"):
            array = 1 + np.abs(array)
        # The pools of a state are one place under several names.
        key = id(place.variable), place.start
        state[name] = drawn.setdefault(key, array.astype("float32"))
    return state
