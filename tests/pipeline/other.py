"""Other images for the cells of `tiny.py`: the same, of another size."""

from tests.pipeline import tiny


def get_config(variant=""):
    config = tiny.get_config(variant)
    config.data.image_size = (9, 9)
    config.network.epochs = 1
    return config
