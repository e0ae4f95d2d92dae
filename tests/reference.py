"""Compares this project with the numbers of the authors' implementation.

    python -m tests.reference FOLDER [NAME ...]

FOLDER holds fixtures: `operations.npz`, `attentions.npz`, `network_*.npz`,
`supernet_LOCATION.npz` and `names_LOCATION.txt`, any subset; NAMEs choose
files of it. Prints a line for each case and ends with status 1 if a number is
off, an array was not used or a case is not known.

Numbers are compared in float64, relative to the largest magnitude of their
array, or to a millionth of that of the largest array of the case if that is
more; outputs, logits and losses in float32 too.
"""

import argparse
import dataclasses
import pathlib
import re
import sys
import time

from att_darts_tf.startup import load_tensorflow

load_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from att_darts_tf.engine import losses, optimizers  # noqa: E402
from att_darts_tf.errors import UsageError  # noqa: E402
from att_darts_tf.released import models, names  # noqa: E402
from att_darts_tf.search.trainer import Search  # noqa: E402
from att_darts_tf.space import published, search_space  # noqa: E402
from att_darts_tf.space.attentions import ATTENTIONS  # noqa: E402
from att_darts_tf.space.genotype import Genotype  # noqa: E402
from att_darts_tf.space.operations import OPERATIONS  # noqa: E402

TOLERANCE = 1e-8
LAYER_TOLERANCE_32 = 1e-5
MODEL_TOLERANCE_32 = 1e-4
_SMALLEST = 1e-6


@dataclasses.dataclass
class Row:
    """The verdict on one case."""

    case: str
    difference: float
    tolerance: float
    where: str

    @property
    def fails(self):
        # A difference that is no number fails too.
        return not self.difference <= self.tolerance


class Case:
    """Arrays of one case; knows which have been used.

    Args:
        name: String, for the table.
        arrays: Mapping of names to arrays.
    """

    def __init__(self, name, arrays):
        self.name = name
        self.arrays = arrays
        self.used = set()

    def __contains__(self, name):
        return name in self.arrays

    def take(self, name):
        """Returns an array, which counts as used."""
        self.used.add(name)
        return self.arrays[name]

    def part(self, prefix):
        """Returns the arrays below a prefix, which count as used."""
        return {
            name.removeprefix(prefix): self.take(name)
            for name in self.arrays
            if name.startswith(prefix)
        }

    def images(self, name, dtype):
        """Returns images in the order of TensorFlow."""
        return tf.constant(self.take(name).transpose(0, 2, 3, 1), dtype)

    def unused(self):
        """Yields a row if arrays were neither inputs nor compared."""
        left = sorted(self.arrays.keys() - self.used)
        if left:
            yield Row(f"{self.name}: unused", len(left), 0, left[0])


class Comparison:
    """Pairs of numbers that must be equal, of one case and one column.

    Args:
        case: `Case`.
        column: String. Which of our ways made the numbers.
        tolerance: Float.
    """

    def __init__(self, case, column, tolerance):
        self.case = case
        self.column = column
        self.tolerance = tolerance
        self.pairs = {}

    def add(self, name, found, before=None):
        """Compares a map, vector or scalar with the array of that name.

        A name that the case lacks is left out.
        """
        if name not in self.case:
            return
        found = np.asarray(found)
        if found.ndim == 4:
            found = found.transpose(0, 3, 1, 2)
        self._add(name, found, self.case.take(name), before)

    def add_weight(self, name, place, value, before=None):
        """Compares a value of a variable with a weight of theirs."""
        if before is not None:
            before = place.part(before)
        expected = place.ours(self.case.take(name)).ravel()
        self._add(name, place.part(value), expected, before)

    def row(self):
        """Returns the verdict."""
        name = f"{self.case.name}: {self.column}"
        if not self.pairs:
            return Row(name, float("nan"), self.tolerance, "no array at all")
        largest = max(
            np.abs(expected).max() for _, expected in self.pairs.values()
        )
        worst, where = 0.0, ""
        for pair, (found, expected) in self.pairs.items():
            scale = max(np.abs(expected).max(), _SMALLEST * largest)
            difference = np.abs(found - expected).max()
            if scale:
                difference /= scale
            if not difference <= worst:
                worst, where = float(difference), pair
        return Row(name, worst, self.tolerance, where)

    def _add(self, name, found, expected, before):
        expected = np.asarray(expected, "float64")
        if found.shape != expected.shape:
            raise UsageError(
                f"Expected {name} of shape {expected.shape}, as in the "
                f"fixture. Received: {found.shape}. Mend the layer"
            )
        if before is not None:
            found, expected = found - before, expected - before
        self.pairs[name] = found.astype("float64"), expected


def cases_of(path, pattern):
    """Yields the match and the arrays of every case of a file.

    Args:
        path: Path of an `.npz` file.
        pattern: Compiled pattern that a name must begin with.
    """
    groups, unknown = {}, []
    with np.load(path) as file:
        for name in file.files:
            match = pattern.match(name)
            if match is None:
                unknown.append(name)
                continue
            _, arrays = groups.setdefault(match[0], (match, {}))
            arrays[name[match.end() :]] = file[name]
    if unknown:
        raise UsageError(
            f"Expected names that begin as {pattern.pattern} in {path}. "
            f"Received: {unknown[0]}. Add the case to tests/reference.py"
        )
    yield from groups.values()


def attempt(name, rows, *arguments):
    """Yields the rows of a check; an error is a row that fails.

    Args:
        name: String, of the case and the column.
        rows: Function that yields rows.
        *arguments: Of the function.
    """
    try:
        yield from rows(*arguments)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Row(name, float("nan"), 0, reason[:300])


def check_layers(path):
    """Yields rows for every operation or attention of a file."""
    pattern = _OPERATION if path.stem == "operations" else _ATTENTION
    for match, arrays in cases_of(path, pattern):
        case = Case(match[0].rstrip("/"), arrays)
        for dtype in ("float64", "float32"):
            name = f"{case.name}: {dtype}"
            yield from attempt(name, _check_layer, case, match, dtype)
        yield from case.unused()


def _check_layer(case, match, dtype):
    precise = dtype == "float64"
    kind, place = match["kind"], match.groupdict()
    if "stride" in place:
        layer = OPERATIONS.create(
            kind,
            channels=case.arrays["input"].shape[1],
            stride=int(place["stride"]),
            affine=place["affine"] == "1",
            dtype=dtype,
        )
    else:
        layer = ATTENTIONS.create(kind, dtype=dtype)
    comparison = Comparison(
        case, dtype, TOLERANCE if precise else LAYER_TOLERANCE_32
    )
    images = case.images("input", dtype)
    layer.build(images.shape)
    places = names.of_layer(kind, layer)
    names.load(places, case.part("state/"))
    comparison.add("output_inference", layer(images, training=False))
    values = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
    comparison.add("output_training", outputs)
    if not precise:
        yield comparison.row()
        return
    upstream = case.images("upstream", dtype)
    gradient, gradients = tape.gradient(
        outputs, [images, values], upstream, _ZERO
    )
    comparison.add("input_gradient", gradient)
    _add_gradients(comparison, "gradient/", places, layer, gradients)
    _add_statistics(comparison, places)
    yield comparison.row()


def check_network(path):
    """Yields rows for the networks of a file."""
    for match, arrays in cases_of(path, _NETWORK):
        case = Case(f"network {match['kind']}", arrays)
        for dtype in ("float64", "float32"):
            name = f"{case.name}: {dtype}"
            yield from attempt(name, _check_network, case, dtype)
        yield from case.unused()


def _check_network(case, dtype):
    precise = dtype == "float64"
    state = case.part("state/")
    genotype = published.get("att_darts")
    if "genotype" in case:
        genotype = Genotype.from_json(str(case.take("genotype")))
    images = case.images("input", dtype)
    network = models.network(
        state, genotype, image_size=tuple(images.shape[1:3]), dtype=dtype
    )
    auxiliary = network.auxiliary
    places = names.of_network(network)
    comparison = Comparison(
        case, dtype, TOLERANCE if precise else MODEL_TOLERANCE_32
    )
    comparison.add("logits_inference", network(images, training=False))
    labels = tf.constant(case.take("labels"))
    values = [v.value for v in network.trainable_variables]
    with tf.GradientTape() as tape:
        logits = network(images, training=True, auxiliary=auxiliary)
        if auxiliary:
            logits, more = logits
            comparison.add("auxiliary_logits_training", more)
        loss = losses.cross_entropy(labels, logits)
        if auxiliary:
            loss += 0.4 * losses.cross_entropy(labels, more)
    comparison.add("logits_training", logits)
    comparison.add("loss_training", loss)
    if precise:
        gradients = tape.gradient(loss, values, unconnected_gradients=_ZERO)
        comparison.add("gradient_global_norm", tf.linalg.global_norm(gradients))
        _add_gradients(comparison, "gradient/", places, network, gradients)
        _add_statistics(comparison, places)
        comparison.add(
            "num_parameters_without_auxiliary", network.num_parameters()
        )
    yield comparison.row()


def check_supernet(path):
    """Yields rows for a supernet, batched and as a sum of plain layers."""
    location = path.stem.removeprefix("supernet_")
    for _, arrays in cases_of(path, _ANYTHING):
        case = Case(f"supernet {location}", arrays)
        for batched in (True, False):
            column = "batched" if batched else "plain"
            for dtype in ("float64", "float32"):
                yield from attempt(
                    f"{case.name}: {column}, {dtype}",
                    *(_check_supernet, case, location, column, dtype),
                )
        yield from case.unused()


def _check_supernet(case, location, column, dtype):
    """Yields a row for each kind of number."""

    def comparison(kind):
        return Comparison(case, f"{column}, {kind}", TOLERANCE)

    state = case.part("state/")
    batches = {
        half: (
            case.images(f"{half}_images", dtype),
            tf.constant(case.take(f"{half}_labels")),
        )
        for half in ("train", "search")
    }
    supernet = models.empty_supernet(
        state,
        location,
        image_size=tuple(batches["train"][0].shape[1:3]),
        batched=column == "batched",
        dtype=dtype,
    )
    places = names.of_supernet(supernet)
    state = _agreeing(state, places)
    names.load(places, state)
    search = Search(supernet)
    search.compile(optimizers.SGD(), optimizers.Adam())
    gradients, loss, (logits, _) = search.weight_gradient(batches["train"])
    if dtype == "float32":
        rounded = Comparison(case, f"{column}, float32", MODEL_TOLERANCE_32)
        rounded.add("train_logits", logits)
        rounded.add("train_loss", loss)
        yield rounded.row()
        return
    training = comparison("training")
    training.add("train_logits", logits)
    training.add("train_loss", loss)
    training.add(
        "train_weight_gradient_global_norm", tf.linalg.global_norm(gradients)
    )
    gradient_of = {
        id(v): g
        for v, g in zip(supernet.weight_variables, gradients, strict=True)
    }
    _add_below(
        training,
        "train_weight_gradient/",
        places,
        lambda variable: gradient_of[id(variable)],
    )
    training.add(
        "num_parameters",
        sum(int(np.prod(v.shape)) for v in supernet.weight_variables),
    )
    yield training.row()
    if "genotype" in case:
        yield _check_genotype(case, search, column)
    yield from _check_architecture_gradients(
        case, search, batches, places, comparison
    )
    for kind, clip_norm in _ALTERNATING.items():
        if any(name.startswith(f"{kind}/") for name in case.arrays):
            names.load(places, state)
            yield _check_alternating(
                kind, clip_norm, supernet, batches, places, comparison(kind)
            )


def _agreeing(state, places):
    """Returns a state whose pools of one state have the same statistics.

    The batched supernet keeps them once. They always agree in a search, but
    need not in a fixture, whose numbers in training mode do not read them.
    """
    first, agreeing = {}, dict(state)
    for name, place in places.items():
        if name in state and name.rpartition(".")[2].startswith("running"):
            key = id(place.variable), place.start
            agreeing[name] = first.setdefault(key, state[name])
    return agreeing


def _check_genotype(case, search, column):
    expected = Genotype.from_json(str(case.take("genotype")))
    equal = search.genotype() == expected
    return Row(
        f"{case.name}: {column}, genotype", 0 if equal else 1, 0, "genotype"
    )


def _check_architecture_gradients(case, search, batches, places, comparison):
    """Yields a row for each order that the case has."""
    velocity = case.part("momentum/")
    for kind in ("first_order", *_SECOND_ORDERS):
        if not any(name.startswith(f"{kind}/") for name in case.arrays):
            continue
        implicit, with_momentum = _SECOND_ORDERS.get(kind, (None, False))
        search.compile(
            optimizers.SGD(0.025, momentum=0.9),
            optimizers.Adam(),
            weight_decay=3e-4,
            order="second" if implicit else "first",
            implicit=implicit or "finite_difference",
        )
        if with_momentum:
            buffer_of = {
                id(v): buffer
                for v, buffer in zip(
                    search.supernet.weight_variables,
                    search.optimizer.velocities,
                    strict=True,
                )
            }
            names.load(
                {
                    name: dataclasses.replace(
                        places[name],
                        variable=buffer_of[id(places[name].variable)],
                    )
                    for name in velocity
                },
                velocity,
            )
        gradients, loss, _ = search.architecture_gradient(
            batches["train"], batches["search"]
        )
        found = comparison(kind)
        variables = search.supernet.architecture_variables
        for variable, gradient in zip(variables, gradients, strict=True):
            found.add(f"{kind}/{variable.name}", gradient)
        if kind == "first_order":
            found.add("search_loss", loss)
        yield found.row()


def _check_alternating(kind, clip_norm, supernet, batches, places, comparison):
    """Returns the row of three alternating steps."""
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.025, momentum=0.9),
        optimizers.Adam(3e-4, beta_1=0.5, beta_2=0.999),
        clip_norm=clip_norm,
        weight_decay=3e-4,
        architecture_weight_decay=1e-3,
    )
    before = {id(v): v.numpy() for v in supernet.trainable_variables}
    norm = _norm(before[id(v)] for v in supernet.weight_variables)
    for i in range(3):
        search.trackers["loss"].reset_state()
        search.train_step((batches["train"], batches["search"]))
        comparison.add(
            f"{kind}/train_loss_{i}", search.trackers["loss"].result()
        )
    for name in comparison.case.arrays:
        if name.startswith(f"{kind}/after/"):
            place = places[name.removeprefix(f"{kind}/after/")]
            comparison.add_weight(
                name,
                place,
                place.variable.numpy(),
                before=before[id(place.variable)],
            )
    comparison.add(
        f"{kind}/after_weight_global_norm",
        _norm(v.numpy() for v in supernet.weight_variables),
        before=norm,
    )
    return comparison.row()


def check_names(path):
    """Yields a row for the names and shapes of a state dictionary."""
    location = path.stem.removeprefix("names_")
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    shapes = {
        name: tuple(int(size) for size in re.findall(r"\d+", shape))
        for name, shape in (line.split(maxsplit=1) for line in lines)
        if not name.endswith(names.IGNORED)
    }
    # Gather-excite has a kernel of the size of the first cell's maps.
    size = next(
        (
            shape[2:]
            for name, shape in shapes.items()
            if name.startswith("cells.0.") and name.endswith("dwconv.weight")
        ),
        (32, 32),
    )
    state = {name: np.zeros(shape) for name, shape in shapes.items()}
    for column in ("batched", "plain"):
        # Shapes are all that counts: no variable is given values.
        with keras.StatelessScope():
            supernet = models.empty_supernet(
                state,
                location,
                image_size=size,
                batched=column == "batched",
                dtype="float32",
            )
            places = names.of_supernet(supernet)
        wrong = sorted(
            name
            for name in state.keys() | places.keys()
            if name not in places
            or name not in state
            or not places[name].accepts(state[name])
        )
        where = wrong[0] if wrong else ""
        yield Row(f"names {location}: {column}", len(wrong), 0, where)


def _add_gradients(comparison, prefix, places, layer, gradients):
    gradient_of = {
        id(v): g
        for v, g in zip(layer.trainable_variables, gradients, strict=True)
    }
    _add_below(
        comparison, prefix, places, lambda variable: gradient_of[id(variable)]
    )


def _add_statistics(comparison, places):
    _add_below(comparison, "after/", places, lambda variable: variable.numpy())


def _add_below(comparison, prefix, places, value_of):
    """Compares a value of each variable that is named below a prefix."""
    for name in comparison.case.arrays:
        below = name.removeprefix(prefix)
        if name.startswith(prefix) and below.endswith(names.IGNORED):
            comparison.case.take(name)
        elif name.startswith(prefix):
            place = places[below]
            comparison.add_weight(name, place, value_of(place.variable))


def _norm(arrays):
    return np.sqrt(sum(float(np.sum(array**2)) for array in arrays))


_ZERO = tf.UnconnectedGradients.ZERO
_OPERATION = re.compile(
    r"(?P<kind>[^/]+)/stride(?P<stride>[12])/affine(?P<affine>[01])/"
)
_ATTENTION = re.compile(r"(?P<kind>[^/]+)/channels\d+/")
_NETWORK = re.compile(r"(?P<kind>cifar|imagenet)/")
_ANYTHING = re.compile("")
_SECOND_ORDERS = {
    f"second_order_{implicit}_{with_}_momentum": (implicit, with_ == "with")
    for implicit in ("exact", "finite_difference")
    for with_ in ("without", "with")
}
_ALTERNATING = {
    "alternating_first_order": 5.0,
    "alternating_first_order_clipped_to_1": 1.0,
}
_SPACES = "|".join(search_space.SEARCH_SPACES)
CHECKS = {
    r"(operations|attentions)\.npz": check_layers,
    r"network_\w+\.npz": check_network,
    rf"supernet_({_SPACES})\.npz": check_supernet,
    rf"names_({_SPACES})\.txt": check_names,
}


def check(path):
    """Yields the rows of a file; one that cannot be checked fails."""
    checks = [
        function
        for pattern, function in CHECKS.items()
        if re.fullmatch(pattern, path.name)
    ]
    if not checks:
        yield Row(path.name, float("nan"), 0, "no such case is known")
        return
    yield from attempt(path.name, checks[0], path)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], prog="python -m tests.reference"
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="files; all without any")
    options = parser.parse_args(argv)
    files = sorted(
        path
        for path in options.folder.glob("*")
        if re.fullmatch(r".+\.npz|names_.+\.txt", path.name)
        and (not options.names or path.name in options.names)
    )
    absent = set(options.names) - {path.name for path in files}
    if absent or not files:
        parser.error(
            f"Expected fixtures in {options.folder}. Received: "
            f"{', '.join(sorted(absent)) or 'none'} is not there"
        )
    keras.config.set_floatx("float64")
    # Traces of a plain supernet would take minutes.
    tf.config.run_functions_eagerly(True)
    rows, begun = [], time.monotonic()
    print(f"{'case':62} {'difference':>10} {'tolerance':>10}  verdict")
    for path in files:
        for row in check(path):
            rows.append(row)
            verdict = f"OFF at {row.where}" if row.fails else "equal"
            print(
                f"{row.case:62} {row.difference:10.1e} {row.tolerance:10.0e}  "
                f"{verdict}",
                flush=True,
            )
    failed = sum(row.fails for row in rows)
    print(
        f"{len(rows)} comparisons, {failed} off, "
        f"{time.monotonic() - begun:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
