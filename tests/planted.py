"""Plants defects in a copy of the sources and sees each of them found.

    python -m tests.planted [FOLDER] [--only=TEXT]

Each defect is one that silently changes what is computed; FOLDER holds the
authors' numbers, as for `python -m tests.reference`. Prints what found each
defect, and ends with status 1 if one survives.
"""

import argparse
import dataclasses
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT.parent / "shared" / "reference"

BLOCKS = "att_darts_tf/space/blocks.py"
OPTIMIZERS = "att_darts_tf/engine/optimizers.py"
BILEVEL = "att_darts_tf/search/bilevel.py"
TRAINER = "att_darts_tf/search/trainer.py"
NETWORK = "att_darts_tf/network/network.py"
CLASSIFIER = "att_darts_tf/network/classifier.py"


@dataclasses.dataclass(frozen=True)
class Defect:
    """One mistake, as replacements in the sources.

    Args:
        name: String.
        edits: Pairs of old and new text by file; the old occurs once.
        fixtures: Names of the files of numbers that it is held against.
        tests: Arguments of pytest.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    fixtures: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()

    def plant(self, folder):
        """Applies the replacements to a copy of the sources."""
        for file, old, new in self.edits:
            path = folder / file
            text = path.read_text("utf-8")
            if text.count(old) != 1:
                raise SystemExit(
                    f"Expected the text of the defect {self.name!r} once in "
                    f"{file}. Received: {text.count(old)} times: {old!r}. Mend "
                    "tests/planted.py"
                )
            path.write_text(text.replace(old, new), "utf-8")


OPERATIONS = ("operations.npz",)
OF_OPTIMIZERS = ("tests/engine/test_optimizers.py",)
OF_BILEVEL = ("tests/search/test_bilevel.py",)
OF_TRAINER = ("tests/search/test_trainer.py",)
OF_NETWORK = ("tests/network/test_network.py", "-k")

DEFECTS = (
    Defect(
        "`same` padding at stride 2",
        (
            (
                BLOCKS,
                'depthwise_conv2d(padded, kernel, strides, "VALID")',
                'depthwise_conv2d(inputs, kernel, strides, "SAME")',
            ),
        ),
        OPERATIONS,
    ),
    Defect(
        "padding counted by average pooling",
        ((BLOCKS, '"VALID") / share', '"VALID")'),),
        OPERATIONS,
    ),
    Defect(
        "epsilon of normalisation 1e-3",
        ((BLOCKS, "EPSILON = 1e-5", "EPSILON = 1e-3"),),
        OPERATIONS,
    ),
    Defect(
        "momentum of normalisation 0.99",
        ((BLOCKS, "MOMENTUM = 0.9", "MOMENTUM = 0.99"),),
        OPERATIONS,
    ),
    Defect(
        "biased moving variance",
        (
            (
                BLOCKS,
                "variance * count / tf.maximum(count - 1, 1)",
                "variance",
            ),
        ),
        OPERATIONS,
    ),
    Defect(
        "no shift by one pixel in the factorized reduction",
        ((BLOCKS, "self.odd(odd)", "self.odd(even)"),),
        OPERATIONS,
    ),
    Defect(
        "a bias where there is none",
        (
            (
                BLOCKS,
                "        rate=1,\n        use_bias=False,",
                "        rate=1,\n        use_bias=True,",
            ),
        ),
        OPERATIONS,
    ),
    Defect(
        "softmax over the wrong axis in double attention",
        (
            (
                "att_darts_tf/space/attentions.py",
                "self.gathering(pixels), axis=1",
                "self.gathering(pixels), axis=2",
            ),
        ),
        ("attentions.npz",),
    ),
    Defect(
        "L2 with factor 2",
        (
            (
                OPTIMIZERS,
                "(weight_decay * share) * variable",
                "(2 * weight_decay * share) * variable",
            ),
        ),
        tests=OF_OPTIMIZERS,
    ),
    Defect(
        "L2 before clipping",
        (
            (
                OPTIMIZERS,
                "            gradient * tf.cast(scale, gradient.dtype)\n"
                "            + (weight_decay * share) * variable\n",
                "            (gradient + weight_decay * variable)\n"
                "            * tf.cast(scale, gradient.dtype)\n",
            ),
        ),
        tests=OF_OPTIMIZERS,
    ),
    Defect(
        "clipping per tensor",
        (
            (
                OPTIMIZERS,
                "            gradient * tf.cast(scale, gradient.dtype)\n",
                "            tf.clip_by_norm(gradient, clip_norm or 1e9)\n",
            ),
        ),
        tests=OF_OPTIMIZERS,
    ),
    Defect(
        "architecture weights counted in the norm",
        (
            (
                TRAINER,
                "        gradients, loss, (logits, statistics) = "
                "self.weight_gradient(batch)\n",
                "        own, more, loss, (logits, statistics) = (\n"
                "            self.gradients.both(\n"
                "                *self._values(),\n"
                "                self._with_statistics(batch),\n"
                "            )\n"
                "        )\n"
                "        gradients = own + more\n"
                "        variables = (\n"
                "            variables + self.supernet.architecture_variables\n"
                "        )\n",
            ),
            (
                TRAINER,
                "        self.optimizer.apply(directions, variables)\n",
                "        count = len(self.supernet.weight_variables)\n"
                "        directions = directions[:count]\n"
                "        self.optimizer.apply(directions, variables[:count])\n",
            ),
        ),
        tests=OF_TRAINER,
    ),
    Defect(
        "no architecture update",
        (
            (
                TRAINER,
                "        self.update_architecture(train_batch, search_batch)\n",
                "",
            ),
        ),
        tests=OF_TRAINER,
    ),
    Defect(
        "sign of the implicit term",
        (
            (
                BILEVEL,
                "gradient - _scalar(step.rate",
                "gradient + _scalar(step.rate",
            ),
        ),
        tests=OF_BILEVEL,
    ),
    Defect(
        "momentum left out of the virtual step",
        (
            (
                BILEVEL,
                "self.momentum * velocity +",
                "0.0 * velocity +",
            ),
        ),
        tests=OF_BILEVEL,
    ),
    Defect(
        "initial weights of Keras",
        (
            (
                BLOCKS,
                "return keras.initializers.RandomUniform(-limit, limit)",
                "return keras.initializers.GlorotUniform()",
            ),
        ),
        tests=("tests/test_initial_weights.py",),
    ),
    Defect(
        "auxiliary loss left out",
        (
            (
                CLASSIFIER,
                "loss += self.auxiliary_weight * self",
                "loss += 0.0 * self",
            ),
        ),
        tests=(*OF_NETWORK, "auxiliary"),
    ),
    Defect(
        "drop path without rescaling",
        (
            (
                NETWORK,
                "tf.floor(share + draws) / share",
                "tf.floor(share + draws)",
            ),
        ),
        tests=(*OF_NETWORK, "drop_path"),
    ),
    Defect(
        "edges listed in the order of their index",
        (
            (
                "att_darts_tf/search/derive.py",
                "for i in kept)",
                "for i in sorted(kept))",
            ),
        ),
        tests=("tests/search/test_derive.py",),
    ),
    Defect(
        "statistics moved by an architecture step",
        (
            (
                TRAINER,
                "        values = self._values()\n        search_batch",
                "        self.supernet(search_batch[0], training=True)\n"
                "        values = self._values()\n        search_batch",
            ),
        ),
        tests=OF_TRAINER,
    ),
)


def run(folder, *arguments):
    """Runs a module of the copy; returns its status and output."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return result.returncode, result.stdout


def found_by(defect, folder, numbers):
    """Returns the line that names what found a defect, or `None`."""
    lines = []
    if defect.fixtures:
        status, output = run(
            folder,
            *("-m", "tests.reference", str(numbers), *defect.fixtures),
        )
        if status:
            lines += [line for line in output.splitlines() if " OFF" in line]
    if defect.tests:
        status, output = run(
            folder,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *defect.tests,
        )
        if status not in (0, 1):
            raise SystemExit(f"pytest ended with status {status}: {output}")
        if status:
            lines += [
                line
                for line in output.splitlines()
                if line.startswith("FAILED")
            ]
    return " ".join(lines[0].split()) if lines else None


def everything(defects):
    """Returns no defect, with all that the given ones are held against."""
    return Defect(
        "none",
        (),
        tuple(sorted({name for each in defects for name in each.fixtures})),
        # Without the choice of some of a file's tests.
        tuple(
            sorted(
                {
                    argument
                    for each in defects
                    for argument in each.tests
                    if argument.endswith(".py")
                }
            )
        ),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], prog="python -m tests.planted"
    )
    parser.add_argument("folder", type=pathlib.Path, nargs="?", default=FOLDER)
    parser.add_argument("--only", default="", help="part of a defect's name")
    options = parser.parse_args(argv)
    numbers = options.folder.resolve()
    if not (numbers / "operations.npz").exists():
        parser.error(
            f"Expected the authors' numbers in {numbers}. Received: no "
            "operations.npz. Name their folder"
        )
    chosen = [defect for defect in DEFECTS if options.only in defect.name]
    line = found_by(everything(chosen), ROOT, numbers)
    if line:
        print(f"Without any defect: {line}")
        return 1
    survivors = 0
    for defect in chosen:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for part in ("att_darts_tf", "configs", "pipeline", "tests"):
                shutil.copytree(ROOT / part, folder / part)
            defect.plant(folder)
            line = found_by(defect, folder, numbers)
        survivors += line is None
        print(f"{defect.name}: {line or 'SURVIVED'}"[:160], flush=True)
    print(f"{len(chosen)} defects, {survivors} survived")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
