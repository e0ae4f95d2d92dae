"""Damaged files of three kinds, and what their readers make of them.

    python -m tests.fuzz [READER ...] [--count=100000] [--seed=0]

A reader may read a file or refuse it by the error that is meant for it. Any
other exception, a crash, an input that takes longer than `MOST_SECONDS` and
one that takes more memory than `Reader.most_megabytes` end the program with a
status that is not 0, and with the file in `runs/fuzz/`. Prints how far it is,
and at the end a table: inputs, all different, those read and refused, and the
most computing time and memory that one took.
"""

import argparse
import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import pickle
import resource
import signal
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable

import hypothesis
import numpy as np
from hypothesis import strategies as st

from att_darts_tf.errors import UsageError
from att_darts_tf.released import state_dict
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype
from tests.released import torch_files

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "runs" / "fuzz"
# Of computation for one input, and of waiting, which a busy machine makes long.
MOST_SECONDS = 10
MOST_WAIT = 1_000
# Address space beyond that of a process that has read a few files.
MOST_SPACE = 3 * 2**30
# Between two lines of progress, and between two seeds.
CHUNK = 5_000

# What stands in no file that a program writes.
NUMBERS = st.sampled_from(
    [
        sign * number + more
        for number in (0, 3, 7, 99, 2**15, 2**31, 2**32, 2**61 - 1, 2**63)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ]
)
TIMES = st.sampled_from((1,) * 12 + (2, 3, 40, 3_000))


CUTS = st.sampled_from((0, 0, 1, 1, 2, 4, 9, 60, 2**20))
FEW = st.sampled_from((1, 1, 1, 2, 5))
SHORT = st.binary(max_size=4)


@st.composite
def damaged(draw, starts, pieces):
    """Files with some of their bytes replaced, removed or repeated."""
    content = bytearray(draw(starts))
    for _ in range(draw(FEW)):
        at = draw(st.integers(0, len(content)))
        cut = draw(CUTS)
        piece = draw(pieces if draw(st.booleans()) else SHORT)
        # The end of a file may be moved; it is seldom cut off.
        cut = 0 if cut > len(content) // 2 and draw(st.booleans()) else cut
        content[at : at + cut] = piece * draw(TIMES)
    return bytes(content)


@functools.cache
def json_values():
    leaves = (
        st.none()
        | st.booleans()
        | NUMBERS
        | st.floats()
        | st.text(max_size=4)
        | st.sampled_from(("", "SE", "none", "skip_connect", "sep_conv_3x3"))
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )


def named_tuple(cells):
    """Returns cells as the released code prints them."""
    fields = json.loads(cells.to_json())
    del fields["format"]
    return f"Genotype({', '.join(f'{k}={v!r}' for k, v in fields.items())})"


@functools.cache
def genotype_texts():
    cells = [published.get(n) for n in ("att_darts", "darts_v2", "snas_mild")]
    texts = [each.to_json() for each in cells] + list(map(named_tuple, cells))
    texts += ["{}", "Genotype()", "A = Genotype(normal=range(2, 6))"]
    return tuple(text.encode() for text in texts)


# Most of them may stand somewhere in a genotype.
PARTS = st.sampled_from(
    (
        *("", "SE", "CBAM", "none", "skip_connect", "sep_conv_3x3", 0, 1, 2, 3),
        *(None, [2], [2, 3], [5, 4], ["none", 0, ""], ["SE", 1, "BAM"]),
        *([["none", 0, "SE"]], [[["none", 0, ""]], [["SE", 2, None]]]),
    )
).map(copy.deepcopy)


@st.composite
def changed_trees(draw):
    """Genotypes with values of any kind at some places."""
    tree = json.loads(genotype_texts()[draw(st.integers(0, 2))])
    for _ in range(draw(st.integers(1, 3))):
        place, keys = tree, list(tree)
        key = draw(st.sampled_from(keys))
        while isinstance(place[key], list) and place[key]:
            if draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
            key = draw(st.integers(0, len(place) - 1))
        if draw(st.integers(0, 9)) == 0:
            del place[key]
        else:
            values = PARTS if draw(st.integers(0, 2)) else json_values()
            place[key] = draw(values)
        if not tree:
            break
    if draw(st.booleans()):
        written = ", ".join(f"{k}={v!r}" for k, v in tree.items())
        return f"Genotype({written})".encode("utf-8", "surrogatepass")
    text = json.dumps(tree, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def genotypes():
    pieces = (
        *(b"[", b"]", b"{", b"}", b"(", b")", b",", b'"', b"'", b":", b"="),
        *(b"null", b"true", b"None", b"NaN", b"-Infinity", b"1e999", b"-1"),
        *(b"0x" + b"f" * 9_000, b"9" * 5_000, b"\\ud800", b"\\u0000", b"\0"),
        *(b"\xff", b"\xef\xbb\xbf", b"range(2, 6)", b"range(0, 1e9)"),
        *(b"__import__('os')", b"[[", b"{**", b"f'{", b"*", b"**", b"not "),
        *(b'"normal": [],', b"normal=1,", b'"format": 2,', b"# ", b"\\\n"),
    )
    whole = st.sampled_from(genotype_texts())
    return st.one_of(
        damaged(whole, st.sampled_from(pieces)),
        damaged(whole, st.sampled_from(pieces)),
        changed_trees(),
        json_values().map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=300),
    )


@functools.cache
def _weights():
    """Weights of a checkpoint with views of any kind."""
    numbers = NUMBERS | st.integers(-2, 7)
    shapes = st.lists(numbers, max_size=4).map(tuple) | numbers
    storages = st.builds(
        torch_files.stored,
        key=st.sampled_from(("0", "0", "1", "../0", "data.pkl", "\0", 0)),
        total=st.just(6) | numbers,
        kind=st.sampled_from(
            ("FloatStorage", "BFloat16Storage", "BoolStorage", "QStorage")
        ),
        view=st.just(b"")
        | st.tuples(st.just("1"), numbers, numbers).map(torch_files.plain),
    )
    return st.builds(
        torch_files.tensor,
        storage=storages | st.just(torch_files.stored()),
        offset=st.just(0) | numbers,
        size=st.just((2, 3)) | shapes,
        stride=st.just((3, 1)) | shapes,
    ) | st.sampled_from(
        [
            torch_files.tensor(size=size, stride=stride, offset=offset)
            for size, stride, offset in (
                ((2, 3), (3, 1), 0),
                ((3, 2), (1, 3), 0),
                ((2,), (2,), 3),
                ((), (), 5),
                ((0, 4), (4, 1), 0),
            )
        ]
    )


# Of pickles.
INSTRUCTIONS = st.sampled_from(
    (
        *(b"}", b"]", b")", b"(", b"N", b"\x85", b"\x86", b"t", b"a", b"e"),
        *(b"s", b"u", b"R", b"b", b"Q", b"h\0", b"q\0", b"0", b"2", b"\x81"),
        *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"i", b"o", b"."),
        *(b"ccollections\nOrderedDict\n)R", b"ctorch\nFloatStorage\n"),
        *(b"J\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f"),
        *(b"\x8a\x09" + b"\x7f" * 9, b"X\xff\xff\xff\xff"),
        *(b"I99\n", b"L99L\n", b"F1e999\n", b"K\0", b"K\5"),
    )
)


@functools.cache
def _entries():
    others = json_values().map(torch_files.plain) | st.binary(max_size=3).map(
        torch_files.plain
    )
    names = st.text(max_size=3) | st.sampled_from(("a", "b", "module.c"))
    weights = st.tuples(names, _weights())
    return st.one_of(
        st.lists(weights, max_size=4),
        st.lists(weights, max_size=4),
        st.lists(st.tuples(names, _weights() | others), max_size=4),
    )


@st.composite
def pickles(draw):
    """Programs of pickles: most of them do what a state dictionary needs."""
    content = b"".join(
        pickle.dumps(name, 2)[2:-1] + value for name, value in draw(_entries())
    )
    content = b"}(" + content + b"u"
    if not draw(st.integers(0, 3)):
        content = torch_files.dictionary(epoch=b"K\0", state_dict=content)
    if not draw(st.integers(0, 2)):
        content = draw(damaged(st.just(content), INSTRUCTIONS))
    return content


@functools.cache
def checkpoint_files():
    folder = pathlib.Path(torch_files.__file__).parent
    return tuple((folder / f).read_bytes() for f in ("zip.pt", "legacy.pt"))


@st.composite
def archives(draw):
    """Checkpoints whose archive is of another kind than `torch.save` writes."""
    file = io.BytesIO()
    names = st.sampled_from(
        ("a/data.pkl", "a/data/0", "b/data.pkl", "../data/0", "/a", "a\0b", "/")
    )
    contents = draw(pickles())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("a/data.pkl", *draw(st.lists(names, max_size=4))):
                content = torch_files.NUMBERS
                if name.endswith("pkl"):
                    content = torch_files.whole(contents)
                archive.writestr(
                    name,
                    content * draw(TIMES),
                    draw(st.sampled_from((0, 0, 0, 8, 12, 14))),
                )
    archive = bytearray(file.getvalue())
    if draw(st.booleans()):
        # Sizes, flags and offsets of the entries that the directory lists.
        place = archive.find(b"PK\x01\x02") + draw(st.integers(4, 45))
        archive[place : place + 4] = draw(st.binary(min_size=4, max_size=4))
    return bytes(archive)


def checkpoints():
    pieces = st.sampled_from((b"PK\x01\x02", b"PK\x05\x06", b"}", b"\xff" * 4))
    return st.one_of(
        pickles().map(torch_files.zipped),
        pickles().map(torch_files.legacy),
        st.builds(
            torch_files.legacy,
            pickles(),
            keys=pickles(),
            count=NUMBERS.filter(lambda n: -(2**63) <= n < 2**63),
        ),
        archives(),
        damaged(st.sampled_from(checkpoint_files()), pieces),
        st.binary(max_size=300),
    )


def chunk(kind, content):
    """Returns a chunk of a PNG file, whose sum is right."""
    total = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + total


PNG = b"\x89PNG\r\n\x1a\n"
SIDES = st.sampled_from((1, 3, 8, 20)) | st.sampled_from(
    (0, 255, 9_000, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1)
)


@st.composite
def png_files(draw):
    """PNG files whose chunks are whole and say anything."""
    width, height = draw(SIDES), draw(SIDES)
    depth, colour = draw(
        st.sampled_from(
            ((8, 2), (8, 0), (1, 0), (8, 3), (16, 6), (8, 4), (16, 2), (7, 9))
        )
    )
    head = struct.pack(
        ">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 2))
    )
    length = draw(st.sampled_from((0, 30, 400, 4_000, 2**20)))
    octet = draw(st.binary(min_size=1, max_size=2))
    body = zlib.compress(octet * length)[: draw(st.integers(0, 2**16))]
    bomb = b"name\0\0" + zlib.compress(b"\0" * 2**20)
    chunks = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    others = st.sampled_from(
        (
            *((b"PLTE", bytes(range(48))), (b"PLTE", b"\0" * 4)),
            *((b"tRNS", b"\0" * 6), (b"gAMA", b"\0" * 4), (b"IEND", b"")),
            *((b"zTXt", bomb), (b"iCCP", bomb), (b"iTXt", b"a\0\1" + bomb)),
            *((b"IHDR", head), (b"abCd", struct.pack(">II", 4, 4) * 2)),
            (b"IDAT", body),
        )
    )
    for other in draw(st.lists(others, max_size=3)):
        chunks.insert(draw(st.integers(0, len(chunks))), other)
    return PNG + b"".join(chunk(*each) for each in chunks)


def segments_of(file):
    """Splits a JPEG file before its markers."""
    places = [
        i
        for i in range(len(file) - 1)
        if file[i] == 0xFF and file[i + 1] not in (0, 0xFF)
    ]
    return [file[a:b] for a, b in zip(places, [*places[1:], None])]


@st.composite
def jpeg_files(draw):
    """JPEG files with segments moved, repeated, and of other sizes."""
    jpegs = [file for file in image_files() if file[:2] == b"\xff\xd8"]
    parts = segments_of(draw(st.sampled_from(jpegs)))
    for _ in range(draw(st.integers(0, 3))):
        i, j = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        change = draw(st.sampled_from(("move", "repeat", "drop", "turn")))
        if change == "move":
            parts.insert(i, parts.pop(j))
        elif change == "repeat":
            parts[i:i] = [parts[j]] * draw(TIMES)
        elif change == "drop" and len(parts) > 1:
            del parts[i]
        elif change == "turn":
            part = bytearray(parts[i])
            part[draw(st.integers(0, len(part) - 1))] = draw(
                st.integers(0, 255)
            )
            parts[i] = bytes(part)
    if draw(st.integers(0, 2)) == 0:
        sides = SIDES.filter(lambda side: side < 2**16)
        size = struct.pack(">HH", draw(sides), draw(sides))
        parts = [
            part[:5] + size + part[9:]
            if part[:2] in (b"\xff\xc0", b"\xff\xc2")
            else part
            for part in parts
        ]
    return b"".join(parts)


@functools.cache
def image_files():
    from tests.data import toy

    image = toy.photo(size=(20, 17))
    return (
        toy.encode(image),
        toy.encode(image, progressive=True),
        toy.encode(image, mode="L", subsampling=0),
        toy.encode(image, mode="CMYK"),
        toy.encode(image, optimize=True, restart_marker_rows=1),
        *(toy.encode(image, "PNG", mode=m) for m in ("RGB", "L", "P", "RGBA")),
        *(toy.encode(image, kind) for kind in ("GIF", "BMP", "WEBP")),
    )


def images():
    pieces = st.sampled_from(
        (b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"IHDR", b"IEND")
    )
    return st.one_of(
        damaged(st.sampled_from(image_files()), pieces),
        jpeg_files(),
        png_files(),
        st.binary(max_size=300),
        st.binary(max_size=60).map(lambda tail: PNG + tail),
        st.binary(max_size=60).map(lambda tail: b"\xff\xd8\xff" + tail),
    )


def _read_genotype(path):
    cells = Genotype.read(path)
    if Genotype.from_json(cells.to_json()) != cells:
        raise AssertionError("The cells are not those that they are written as")


def _read_checkpoint(path):
    weights = state_dict.read(path)
    # Every number can be reached, and there are no more than in the file.
    total = sum(weight.size for weight in weights.values())
    if total > len(weights) * path.stat().st_size:
        raise AssertionError(f"{total} numbers of {path.stat().st_size} bytes")
    for weight in weights.values():
        np.nansum(weight.astype("f8"))


@functools.cache
def _graphs():
    """Returns what a served model and a training do with a file."""
    import tensorflow as tf

    from att_darts_tf.data import preprocess

    crop = preprocess.ResizedCrop(
        image_shape=(24, 20, 3),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        crop_area=(0.08, 1.0),
        flip=True,
        color_jitter=(0.4, 0.4, 0.4, 0.2),
        evaluation_resize=28,
    )
    file = [tf.TensorSpec((), tf.string)]
    return (
        tf.function(crop.fit, input_signature=file),
        tf.function(
            lambda contents: crop.augment(contents, seed=(1, 2)),
            input_signature=file,
        ),
        tf.errors.InvalidArgumentError,
    )


def _read_image(path):
    from att_darts_tf.data import datasets
    from tests.data import toy

    fit, augment, refused = _graphs()
    contents = path.read_bytes()
    # The other ways to read it, each of some inputs.
    if len(contents) % 3 == 0:
        with contextlib.suppress(refused):
            augment(contents)
    else:
        _prepare(path, toy.config(channels=len(contents) % 3 - 1).data)
    try:
        fit(contents)
    except refused:
        served = False
    else:
        served = True
    # What was prepared can be served, and the other way round.
    seen = _prepare(path, toy.config(channels=3).data)
    if isinstance(seen, datasets.Broken):
        if served:
            raise AssertionError("It is served but not prepared")
        raise UsageError(seen.reason)
    if not served:
        raise AssertionError("It is prepared but not served")


def _prepare(path, settings):
    from att_darts_tf.data import datasets

    example = datasets.Example("key", datasets.read_file(path), 0)
    return datasets.examine(example, settings)


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is damaged, and what reads it.

    Attributes:
        files: Returns files that it reads.
        inputs: Returns the strategy of damaged ones.
        read: Maps the path of a file to nothing, or raises `UsageError`.
        most_megabytes: Memory that an input may take.
    """

    files: Callable
    inputs: Callable
    read: Callable
    most_megabytes: int


READERS = {
    "genotype": Reader(genotype_texts, genotypes, _read_genotype, 100),
    "checkpoint": Reader(
        checkpoint_files, checkpoints, _read_checkpoint, 300
    ),
    "image": Reader(image_files, images, _read_image, 1_100),
}


@dataclasses.dataclass
class Outcome:
    """What became of the inputs so far."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    megabytes: float = 0.0
    inputs: set[int] = dataclasses.field(default_factory=set)

    @property
    def total(self):
        return self.read + self.refused


def run(name, *, count, seed, folder, progress=lambda outcome: None):
    """Feeds a reader, and returns the `Outcome`, or raises what went wrong."""
    reader, outcome = READERS[name], Outcome()
    file = folder / f"{name}-{os.getpid()}.input"
    # Libraries are loaded and graphs are traced by the first.
    for content in reader.files():
        file.write_bytes(content)
        with contextlib.suppress(UsageError):
            reader.read(file)

    def feed(content):
        if hash(content) in outcome.inputs or outcome.total == count:
            return
        file.write_bytes(content)
        begun, before = time.process_time(), forget_peak()
        # They end the process: nothing else ends a hang in C.
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, MOST_WAIT)
        try:
            reader.read(file)
        except UsageError as error:
            message = str(error)
            if "\n" in message or len(message) > 2_000:
                raise AssertionError(f"No line: {message[:2000]!r}") from None
            outcome.refused += 1
        else:
            outcome.read += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcome.slowest = max(outcome.slowest, time.process_time() - begun)
        taken = peak() - before
        outcome.megabytes = max(outcome.megabytes, taken)
        if taken > reader.most_megabytes:
            raise AssertionError(f"{taken:.0f} MB for {file}")
        # Not before: a find is tried again.
        outcome.inputs.add(hash(content))

    with bounded_space():
        for part in itertools.count():
            if outcome.total == count:
                break
            settings = hypothesis.settings(
                max_examples=min(CHUNK, count),
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            given = hypothesis.given(reader.inputs())(feed)
            hypothesis.seed(f"{seed} {part}")(settings(given))()
            progress(outcome)
    file.unlink()
    return outcome


@contextlib.contextmanager
def bounded_space():
    """Refuses memory that the machine may still have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + MOST_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def forget_peak():
    """Begins to measure anew; returns the memory of this process in MB."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak():
    """Returns the most memory that it has had since, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _begin_process():
    # Decoders report every damaged byte there.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # For images of a few pixels, handing over takes longer than the work.
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _run_here(name, count, seed, folder):
    begun = time.monotonic()

    def progress(outcome):
        seconds = time.monotonic() - begun
        print(
            f"{name}: {outcome.total:,} of {count:,} inputs, {seconds:.0f} s",
            flush=True,
        )

    return run(name, count=count, seed=seed, folder=folder, progress=progress)


def run_apart(name, *, count, seed, folder):
    """Does the same in a process of its own, which may come to any end."""
    with concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
    ) as pool:
        return pool.submit(_run_here, name, count, seed, folder).result()


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], prog="python -m tests.fuzz"
    )
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    names = arguments.readers or list(READERS)
    for name in names:
        if name not in READERS:
            parser.error(f"Expected {', '.join(READERS)}. Received: {name}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, total, finds = [], 0, 0
    for name in names:
        try:
            found = run_apart(
                name,
                count=arguments.count,
                seed=arguments.seed,
                folder=FOLDER,
            )
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:800]
            print(f"{name}: FAILED on a file in {FOLDER}: {reason}")
            finds += 1
            continue
        total += found.total
        rows.append(
            f"{name:12}{found.total:>9,}"
            f"{found.read:>9,}{found.refused:>9,}{found.slowest:>9.2f} s"
            f"{found.megabytes:>7.0f} MB"
        )
    print(
        f"{'reader':12}{'inputs':>9}{'read':>9}{'refused':>9}"
        f"{'slowest':>11}{'memory':>10}"
    )
    print("\n".join(rows))
    print(f"{total:,} inputs read or refused, {finds} finds")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
