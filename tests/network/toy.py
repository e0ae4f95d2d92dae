"""Small images, cells and settings that the tests of `network` share.

    python -m tests.network.toy DATA_DIR OUTPUT_DIR STEP

trains in OUTPUT_DIR and is killed before its STEP-th step; at -1 it is not.
"""

import os
import pathlib
import signal
import sys

import numpy as np
import tensorflow as tf

from att_darts_tf.configs import base
from att_darts_tf.data import run as data_run
from att_darts_tf.network import run, trainer
from att_darts_tf.space.genotype import Cell, Edge, Genotype

SIDE = 9
TRAIN, TEST = 48, 10


def genotype(first, second, bottleneck=""):
    """Returns cells of two nodes whose edges alternate between two kinds.

    Args:
        first: Tuple of the names of an edge's layers.
        second: Tuple of the names of another's.
        bottleneck: Name of the attention on the output.
    """
    cell = Cell(
        nodes=(
            (Edge(0, first), Edge(1, second)),
            (Edge(1, first), Edge(2, second)),
        ),
        concat=(2, 3),
        bottleneck=bottleneck,
    )
    return Genotype(normal=cell, reduce=cell)


USEFUL = genotype(("sep_conv_3x3", "SE"), ("skip_connect",))
HOPELESS = genotype(("none",), ("none", "CBAM"))


def config():
    """Returns a configuration of a few seconds."""
    result = base.get_config()
    result.search.seeds = (3, 5)
    result.engine.checkpoint_steps = 2
    result.data.padding = 1
    for recipe in (result.selection, result.network):
        recipe.cells = 3
        recipe.channels = 4
        recipe.epochs = 3
        recipe.batch_size = 10
        recipe.cutout = 3
        recipe.learning_rate = 0.1
    return result


def write_images(root):
    """Writes a folder of upright and level stripes, two classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for i in range(count):
            stripes = np.zeros((SIDE, SIDE, 3))
            stripes[i // 2 % 3 :: 3] = 200
            if i % 2:
                stripes = stripes.swapaxes(0, 1)
            image = stripes + generator.integers(0, 50, stripes.shape)
            name = ("level", "upright")[i % 2]
            path = pathlib.Path(root, split, name, f"{i:02d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = tf.io.encode_png(image.astype(np.uint8))
            path.write_bytes(encoded.numpy())


def prepare(root):
    """Writes images and prepares them; returns the folder of the records."""
    write_images(root / "images")
    settings = config()
    settings.data.name = str(root / "images")
    settings.data.image_size = (SIDE, SIDE)
    data_run.run_prepare(settings, output_dir=root / "data")
    return root / "data"


class KillAt(trainer.DropPathSchedule):
    """Kills this process before a step, counted over all epochs."""

    step = -1

    def on_train_batch_begin(self, batch, logs=None):
        if KillAt.step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        KillAt.step -= 1


def train(data_dir, output_dir):
    """Trains the useful cells and returns the result."""
    file = pathlib.Path(data_dir, "useful.json")
    USEFUL.write(file)
    return run.run_training(
        config(),
        data_dir=data_dir,
        genotype=file,
        output_dir=output_dir,
        seed=1,
    )


if __name__ == "__main__":
    KillAt.step = int(sys.argv[3])
    trainer.DropPathSchedule = KillAt
    train(*sys.argv[1:3])
