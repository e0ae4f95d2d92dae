"""Files of PyTorch are read as PyTorch reads them, and nothing in them is run.

`zip.pt` and `legacy.pt` were written by PyTorch 2.13.0+cpu with this code:

    weights = collections.OrderedDict()
    weights["stem.weight"] = torch.arange(48.0).reshape(4, 3, 2, 2) / 7
    weights["vector"] = torch.arange(5, dtype=torch.float64) / 3
    weights["transposed"] = torch.arange(6.0).reshape(2, 3).t()
    weights["part"] = torch.arange(20.0).reshape(4, 5)[1:4:2, 2:]
    weights["parameter"] = torch.nn.Parameter(torch.arange(4.0) - 2)
    weights["brain"] = torch.arange(8).to(torch.bfloat16)
    weights["norm.num_batches_tracked"] = torch.tensor(3)
    weights._metadata = collections.OrderedDict({"": {"version": 1}})
    optimizer = {"state": {0: {"step": 2}}, "param_groups": [{"lr": 0.1}]}
    torch.save(
        {"epoch": 3, "state_dict": weights, "optimizer": optimizer}, "zip.pt"
    )
    named = collections.OrderedDict(
        (f"module.{name}", weight) for name, weight in weights.items()
    )
    named._metadata = weights._metadata
    torch.save(named, "legacy.pt", _use_new_zipfile_serialization=False)

The other files are put together here from the instructions of pickles.
"""

import builtins
import io
import os
import pathlib
import pickle
import random
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.released import state_dict
from tests.released.torch_files import (
    NUMBERS,
    called,
    dictionary,
    legacy,
    plain,
    stored,
    tensor,
    whole,
    zipped,
)

FOLDER = pathlib.Path(__file__).parent
FILES = ("zip.pt", "legacy.pt")
EXPECTED = {
    "stem.weight": np.arange(48, dtype="f4").reshape(4, 3, 2, 2) / 7,
    "vector": np.arange(5, dtype="f8") / 3,
    "transposed": np.arange(6, dtype="f4").reshape(2, 3).T,
    "part": np.array([[7, 8, 9], [17, 18, 19]], "f4"),
    "parameter": np.arange(4, dtype="f4") - 2,
    "brain": np.arange(8, dtype="f4"),
}


def read(folder, content):
    file = folder / "file.pt"
    file.write_bytes(content)
    return state_dict.read(file)


def refusal(folder, content):
    """Returns the error of a file, and holds it to what every one must be."""
    with pytest.raises(UsageError) as caught:
        read(folder, content)
    message = str(caught.value)
    start = f"Expected a state dictionary of PyTorch in {folder / 'file.pt'}. "
    assert message.startswith(f"{start}Received: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("name", FILES)
def test_reads_what_pytorch_wrote(name):
    weights = state_dict.read(FOLDER / name)
    assert list(weights) == list(EXPECTED)
    for key, expected in EXPECTED.items():
        assert weights[key].dtype == expected.dtype, key
        assert not weights[key].flags.writeable
        np.testing.assert_array_equal(weights[key], expected)


def test_path_may_be_a_string():
    assert list(state_dict.read(str(FOLDER / "zip.pt"))) == list(EXPECTED)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_hand_written_file_is_read(tmp_path, write):
    weights = read(tmp_path, write(dictionary(a=tensor())))
    np.testing.assert_array_equal(weights["a"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("FloatStorage", "f4"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
        ("ShortStorage", "i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
        ("BoolStorage", "?"),
    ],
)
@pytest.mark.parametrize("write", [zipped, legacy])
def test_numbers_keep_their_type(tmp_path, write, kind, dtype):
    numbers = np.array([0, 1, 1, 0, 1, 0], dtype)
    content = dictionary(a=tensor(stored(kind=kind)))
    weights = read(tmp_path, write(content, numbers.tobytes()))
    assert weights["a"].dtype == dtype
    np.testing.assert_array_equal(weights["a"], numbers.reshape(2, 3))


def test_bfloat16_becomes_float32(tmp_path):
    # 1, -2, infinity, 0, and the halves of the float32 nearest to 1/3 and 3.
    data = struct.pack("<6H", 0x3F80, 0xC000, 0x7F80, 0, 0x3EAB, 0x4040)
    content = dictionary(a=tensor(stored(kind="BFloat16Storage")))
    weights = read(tmp_path, zipped(content, data))
    assert weights["a"].dtype == np.float32
    expected = [[1, -2, np.inf], [0, 0.333984375, 3]]
    np.testing.assert_array_equal(weights["a"], expected)


def test_view_of_the_legacy_format_is_a_part_of_its_storage(tmp_path):
    for view, expected in ((("1", 2, 4), [3, 4]), (None, [1, 2])):
        content = dictionary(
            a=tensor(stored(view=plain(view)), 1, size=(2,), stride=(1,))
        )
        weights = read(tmp_path, legacy(content))
        np.testing.assert_array_equal(weights["a"], expected)
    content = dictionary(a=tensor(stored(view=plain(("1", 2, 5)))))
    assert "another kind" in refusal(tmp_path, legacy(content))
    content = dictionary(a=tensor(stored(view=plain(("1", 2, 4)))))
    assert "beyond its data" in refusal(tmp_path, legacy(content))


def test_old_rebuilding_and_parameters_are_read(tmp_path):
    old = called(
        "torch._utils._rebuild_tensor",
        *(stored(), plain(4), plain(()), plain(())),
    )
    parameter = called(
        "torch._utils._rebuild_parameter",
        *(tensor(), plain(True), called("collections.OrderedDict")),
    )
    weights = read(tmp_path, zipped(dictionary(a=old, b=parameter)))
    np.testing.assert_array_equal(weights["a"], 4)
    assert weights["b"].shape == (2, 3)


def test_weight_of_no_numbers_is_read(tmp_path):
    empty = tensor(stored(total=0), size=(0, 3))
    weights = read(tmp_path, zipped(dictionary(a=empty), b""))
    assert weights["a"].shape == (0, 3)


def test_prefix_is_taken_off_if_every_name_has_it(tmp_path):
    every = {"module.b": tensor(), "module.a.module.": tensor()}
    assert list(read(tmp_path, zipped(dictionary(**every)))) == [
        "b",
        "a.module.",
    ]
    some = {"module.b": tensor(), "a": tensor()}
    assert list(read(tmp_path, zipped(dictionary(**some)))) == list(some)


@pytest.mark.parametrize("name", ["missing", ".", "missing/below", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="Expected a state dict.* Received: "):
        state_dict.read(f"{tmp_path}/{name}")


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return file.getvalue()


def other_zip(name="picture.png"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"content")
    return file.getvalue()


def compressed(method):
    """Returns a zip that is smaller than its content, or larger for `LZMA`."""
    large = method != zipfile.ZIP_LZMA
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("some/data.pkl", whole(dictionary(a=tensor())))
        archive.writestr("some/data/0", bytes(10**6) if large else NUMBERS)
    return file.getvalue()


def overlapping():
    """Returns a zip that lists one entry a hundred times."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some/data.pkl", whole(dictionary(a=tensor())))
        archive.writestr("some/data/0", bytes(2**16))
        archive.filelist.extend([archive.filelist[-1]] * 99)
    return file.getvalue()


def greedy():
    """Returns a zip each of whose entries is said to be the whole file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some/data.pkl", whole(dictionary(a=tensor())))
        for number in range(9):
            archive.writestr(f"some/data/{number}", NUMBERS)
        for entry in archive.filelist[1:]:
            entry.compress_size = 2**20
    return file.getvalue()


WEIGHTS = dictionary(a=tensor())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"weights: 3\n", "`torch.save` did not write"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "`torch.save` did not write"),
        (pickle.dumps({"a": 1}), "`torch.save` did not write"),
        (other_zip(), "a zip that `torch.save` did not write"),
        (tar(), "PyTorch 0.1. Load it there and save it again"),
        (compressed(zipfile.ZIP_DEFLATED), "a compressed zip"),
        (compressed(zipfile.ZIP_LZMA), "a compressed zip"),
        (overlapping(), "a compressed zip"),
        (greedy(), "a compressed zip"),
        (zipped(plain([1])), "without weights by name"),
        (zipped(tensor()), "without weights by name"),
        (zipped(dictionary()), "without weights by name"),
        (zipped(dictionary(state_dict=b"}")), "without weights by name"),
        (zipped(dictionary(epoch=plain(3))), "an entry 'epoch' that is no"),
        (zipped(b"}K\x01" + tensor() + b"s"), "an entry 1 that is no weight"),
        (zipped(WEIGHTS, byteorder=b"big"), "a big-endian machine"),
        (legacy(WEIGHTS, little=False), "a big-endian machine"),
        (legacy(WEIGHTS).replace(b"M\xe9\x03", b"M\xea\x03"), "version"),
        (zipped(WEIGHTS, NUMBERS[:-1]), "too little data"),
        (legacy(WEIGHTS, NUMBERS[:-1]), "ends before its data"),
        (legacy(WEIGHTS, count=-1), "ends before its data"),
        (legacy(WEIGHTS, count=2**62), "ends before its data"),
        (legacy(WEIGHTS, count=5), "too little data"),
        (legacy(WEIGHTS, keys=plain(["0", "1"])), "no weight asks for"),
        (legacy(WEIGHTS, keys=plain([])), "without data"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path, content, message):
    assert message in refusal(tmp_path, content)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_pickled_model_is_refused_with_the_way_to_save_it(tmp_path, write):
    model = b"cmodel\nNetworkCIFAR\n)\x81}b"
    message = refusal(tmp_path, write(model))
    assert "asks for 'model.NetworkCIFAR'" in message
    assert "`torch.save(model.state_dict(), path)`" in message


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("function", [os.system, builtins.eval, os.mkdir])
def test_function_in_a_file_is_not_called(tmp_path, write, function):
    marker = tmp_path / "marker"
    command = {
        os.system: f"touch {marker}",
        builtins.eval: f"open({str(marker)!r}, 'w')",
        os.mkdir: str(marker),
    }[function]
    hostile = plain(Hostile(function, command))
    name = f"{function.__module__}.{function.__name__}"
    name = name.replace("builtins", "__builtin__")
    for content in (
        hostile,
        dictionary(a=tensor(), b=hostile),
        dictionary(state_dict=WEIGHTS, epoch=hostile),
        dictionary(a=tensor(storage=hostile)),
        dictionary(a=b"(" + hostile + b"tQ"),
        called("collections.OrderedDict", hostile),
        WEIGHTS + dictionary(__setstate__=hostile) + b"b",
    ):
        assert f"asks for {name!r}" in refusal(tmp_path, write(content))
    # The other pickles of the legacy format are no way in either.
    assert name in refusal(tmp_path, legacy(WEIGHTS, keys=hostile))
    before, after = legacy(WEIGHTS).split(whole(plain(1001)))
    content = before + whole(hostile) + after
    assert name in refusal(tmp_path, content)
    # The hostile pickle does work where pickles are run.
    assert not marker.exists()
    pickle.loads(whole(hostile))
    assert marker.exists()


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"\x82\x01", "instruction EXT1"),
        (b"\x83\x01\x00", "instruction EXT2"),
        (b"\x84\x01\x00\x00\x00", "instruction EXT4"),
        (b"(ios\nsystem\n", "instruction INST"),
        (b"(ctorch\nFloatStorage\no", "instruction OBJ"),
        (b"ctorch\nFloatStorage\n)\x81", "instruction NEWOBJ"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93", "STACK_GLOBAL"),
        (b"P0\n", "instruction PERSID"),
        (b"cbuiltins\ngetattr\n", "asks for 'builtins.getattr'"),
        (b"ctorch\nload\n", "asks for 'torch.load'"),
        (b"ctorch._utils\n__builtins__\n", "torch._utils.__builtins__"),
        (b"ccollections\nOrderedDict.clear\n", "OrderedDict.clear"),
        (b"ca\\nb\n" + b"c" * 9999 + b"\n", r"asks for 'a\nb.ccc"),
        (called("torch.FloatStorage"), "no function"),
        (plain("eval") + b")R", "no function"),
        (WEIGHTS + b")R", "no function"),
        (called("collections.OrderedDict", plain([])), "a damaged file"),
        (b"ccollections\nOrderedDict\nNR", "a damaged file"),
        (called("torch._utils._rebuild_tensor_v2"), "a damaged file"),
        (b"N.", "without weights"),
        (b"", "a damaged file"),
        (b"\xff", "a damaged file"),
        (b"NQ", "a damaged file"),
        (b")Q", "a damaged file"),
        (plain("0") + b"Q", "a damaged file"),
        (plain(("module", 1, 2, 3, 4)) + b"Q", "data of another kind"),
        (plain(("storage", "torch.F", "0", "cpu", 6)) + b"Q", "another kind"),
        (stored(total="6"), "data of another kind"),
        (stored(total=-6), "data of another kind"),
        (stored(key=0), "data of another kind"),
        (stored(kind="UntypedStorage"), "asks for 'torch.UntypedStorage'"),
        (plain([]) + plain([1]) + b"h\x07", "a damaged file"),
        (plain({}) + b"(" + plain(1) + b"e", "a list of another kind"),
        (plain([]) + plain(1) + plain(1) + b"s", "dictionary of another"),
        (plain({}) + plain(()) + plain(1) + b"s", "dictionary of another"),
        (b"u", "a damaged file"),
        (b"\x87", "more than there is"),
        (b"N(" + b"\x86" + b"t", "more than there is"),
    ],
)
def test_instruction_of_no_state_dictionary_is_refused(
    tmp_path, instructions, message
):
    assert message in refusal(tmp_path, zipped(instructions))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # A quarter of an exabyte from 24 bytes.
        ({"size": (2**30, 2**26), "stride": (0, 0)}, "beyond its data"),
        ({"size": (7,), "stride": (0,)}, "beyond its data"),
        ({"offset": 1}, "beyond its data"),
        ({"offset": 2**62}, "beyond its data"),
        ({"offset": 2**99}, "beyond its data"),
        ({"offset": -1}, "another kind"),
        ({"offset": 5.0}, "another kind"),
        ({"stride": (4, 1)}, "beyond its data"),
        ({"stride": (2**62, 2**62)}, "beyond its data"),
        ({"stride": (-3, 1)}, "another kind"),
        ({"stride": (3,)}, "another kind"),
        ({"size": (-2, -3)}, "another kind"),
        ({"size": "ab"}, "another kind"),
        ({"size": 6}, "a damaged file"),
        ({"size": (1,) * 99, "stride": (1,) * 99}, "another kind"),
        ({"size": (0, 2**70)}, "a damaged file"),
        ({"size": (1, 1), "stride": (2**70, 1)}, "a damaged file"),
        ({"storage": plain("0")}, "another kind"),
        ({"storage": stored(total=7), "size": (7,)}, "another kind"),
        (
            {"storage": stored(total=2**40), "size": (7,), "stride": (1,)},
            "too little data",
        ),
        ({"storage": stored(key="1")}, "without data"),
        ({"storage": stored(key="../data.pkl")}, "without data"),
        ({"storage": stored(key="../../../etc/passwd")}, "without data"),
        ({"storage": stored(key="/etc/passwd")}, "without data"),
    ],
)
def test_weight_reads_nothing_but_its_data(tmp_path, changed, message):
    content = dictionary(a=tensor(**changed))
    assert message in refusal(tmp_path, zipped(content))


def test_size_that_grows_after_it_was_checked_does_not_count(tmp_path):
    growing = called(
        "torch._utils._rebuild_tensor",
        *(stored(), plain(0), b"]q\x50(K\x02e", plain((3,))),
    )
    content = dictionary(a=growing)[:-1]
    late = b"h\x500" + plain("b") + b"h\x50K\x09a"
    message = refusal(tmp_path, zipped(content + late + b"u"))
    assert "instruction POP" in message
    message = refusal(tmp_path, zipped(content + plain("b") + b"h\x50K\x09au"))
    assert "an entry 'b' that is no weight" in message
    wrapped = dictionary(state_dict=dictionary(a=growing))[:-1]
    late = plain("more") + b"h\x50K\x09a"
    weights = read(tmp_path, zipped(wrapped + late + b"u"))
    np.testing.assert_array_equal(weights["a"], [0, 3])


def test_allowed_global_keeps_no_state_of_a_file(tmp_path):
    name = "torch._utils._rebuild_tensor"
    module, function = name.rsplit(".", 1)
    state = plain((None, {"name": "os.system", "__defaults__": (1,)}))
    built = f"c{module}\n{function}\n".encode() + state + b"b"
    read_first = read(tmp_path, zipped(dictionary(state_dict=WEIGHTS, b=built)))
    assert read_first["a"].shape == (2, 3)
    assert read(tmp_path, zipped(WEIGHTS))["a"].shape == (2, 3)


def test_deep_nesting_is_refused_or_read(tmp_path):
    deep = b")" + b"\x85" * 10**5
    message = refusal(tmp_path, zipped(b"}" + deep + b"Ns"))
    assert "dictionary of another kind" in message
    # As a key of a dictionary this one ends the process.
    deeper = deep + b"\x85" * 9 * 10**5
    message = refusal(tmp_path, legacy(WEIGHTS, keys=b"]" + deeper + b"a"))
    assert "data that no weight asks for" in message
    refusal(tmp_path, zipped(dictionary(a=deep)))
    content = dictionary(state_dict=WEIGHTS, epoch=deep)
    assert list(read(tmp_path, zipped(content))) == ["a"]


def test_no_instruction_sets_aside_more_memory_than_the_file_has(tmp_path):
    # `pickle.Unpickler` takes 64 GiB for the first.
    content = b"Nr\xff\xff\xff\xff" + WEIGHTS
    assert list(read(tmp_path, zipped(content))) == ["a"]
    for instructions in (
        b"X\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"B\xff\xff\xff\xff",
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"\x95" + b"\xff" * 7 + b"\x7f",
    ):
        refusal(tmp_path, zipped(instructions))
        refusal(tmp_path, legacy(instructions))


def test_pickle_of_data_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(state_dict, "_MOST_BYTES", 2**10)
    content = dictionary(state_dict=WEIGHTS, notes=plain("b" * 2**10))
    assert "more than 1024 bytes" in refusal(tmp_path, zipped(content))
    assert "a damaged file" in refusal(tmp_path, legacy(content))


@pytest.mark.parametrize("name", FILES)
def test_cut_file_is_refused_wherever_it_is_cut(tmp_path, name):
    content = (FOLDER / name).read_bytes()
    for length in [*range(0, len(content), 10), len(content) - 1]:
        refusal(tmp_path, content[:length])


@pytest.mark.parametrize("name", FILES)
def test_changed_bytes_give_weights_or_a_refusal(tmp_path, name):
    generator = random.Random(1)
    content = (FOLDER / name).read_bytes()
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(generator.choice((1, 1, 3, 20))):
            changed[generator.randrange(len(changed))] = generator.randrange(
                256
            )
        try:
            weights = read(tmp_path, bytes(changed))
        except UsageError as error:
            assert str(tmp_path) in str(error)
            assert "\n" not in str(error)
        else:
            assert all(type(key) is str for key in weights)
            assert all(
                isinstance(value, np.ndarray) for value in weights.values()
            )
            # Every number can be reached.
            sum(np.nansum(value.astype("f8")) for value in weights.values())


@pytest.mark.parametrize("write", [zipped, legacy])
def test_numbers_that_hash_alike_are_no_keys(tmp_path, write):
    # A dictionary of n of them takes n * n / 2 comparisons.
    alike = [number * (2**61 - 1) for number in range(1, 9)]
    assert len(set(map(hash, alike))) == 1
    content = dictionary(state_dict=plain(dict.fromkeys(alike)))
    assert "dictionary of another kind" in refusal(tmp_path, write(content))


@pytest.mark.parametrize("write", [zipped, legacy])
def test_pickle_of_too_many_instructions_is_refused(
    tmp_path, write, monkeypatch
):
    # Each takes one byte of the file, and up to 64 bytes of memory.
    content = dictionary(state_dict=WEIGHTS, notes=plain([()] * 999))
    assert list(read(tmp_path, write(content))) == ["a"]
    monkeypatch.setattr(state_dict, "_MOST_INSTRUCTIONS", 1000)
    message = refusal(tmp_path, write(content))
    assert "more than 1000 instructions" in message
