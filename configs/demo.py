"""Demonstration: the whole pipeline on embedded images, for two cores.

    make demo

A recipe that shows every stage within minutes, not one that finds good cells:
the supernet takes 20 steps. Its figures stand in the README.
"""

from att_darts_tf.configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.search.seeds = (0, 1)
    config.search.update(cells=3, channels=4, epochs=2, batch_size=75)
    small = {"cells": 5, "channels": 8, "batch_size": 50}
    # An erased square of 16 pixels is half the object at this many images.
    config.selection.update(epochs=3, cutout=8, drop_path=0.0, **small)
    config.network.update(epochs=12, cutout=8, drop_path=0.0, **small)
    config.repeats = 2
    return config
