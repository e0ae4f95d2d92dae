"""A tuning of three trials of seconds, on images of tests/network/toy.py."""

from att_darts_tf.configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.data.image_size = (9, 9)
    config.data.padding = 1
    config.engine.checkpoint_steps = 1
    config.network.update(
        cells=3, channels=4, epochs=2, batch_size=10, cutout=3
    )
    config.tune.space = ("network.learning_rate=log(0.01,0.3)",)
    config.tune.trials = 3
    return config
