"""Demonstration: the whole pipeline on embedded images, for two cores.

    make demo
"""

from att_darts_tf.configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.search.seeds = (0, 1)
    config.repeats = 2
    return config
