"""A configuration whose stages take seconds; what they learn is nothing."""

from att_darts_tf.configs import base


def get_config(variant=""):
    config = base.get_config(variant)
    config.data.image_size = (8, 8)
    config.engine.checkpoint_steps = 1
    # The smallest of the search spaces; others cost a minute a search.
    config.space.location = "no_attention"
    config.search.seeds = (3, 5)
    config.search.update(cells=3, channels=4, epochs=2, batch_size=250)
    recipe = dict(cells=3, channels=4, epochs=2, cutout=2)
    config.selection.update(batch_size=250, **recipe)
    config.network.update(batch_size=500, **recipe)
    config.repeats = 2
    return config
