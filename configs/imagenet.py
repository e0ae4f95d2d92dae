"""ImageNet: cells found on CIFAR-10, trained as in Nakai et al., 2020.

    att-darts prepare --config=imagenet --workdir=runs/imagenet
    att-darts train --config=imagenet --workdir=runs/imagenet
    att-darts evaluate --config=imagenet --workdir=runs/imagenet

The published errors are 26.0 % (top-1) and 8.5 % (top-5); nothing of the kind
has been measured with this code yet. It needs GPUs, and `imagenet2012` where
TensorFlow Datasets finds it (see `config.data.data_dir`), or a folder with a
sub-folder per class in `train/` and `test/` (`--config.data.name=FOLDER`). Its
labelled validation images are the test split.

    imagenet           the published recipe
    imagenet:released  what the authors' released code does: a cosine to zero,
                       and no label smoothing
"""

from att_darts_tf.configs import base

VARIANTS = ("", "released")


def get_config(variant=""):
    """Returns the configuration.

    Args:
        variant: String. One of `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"Unknown variant. Expected one of {sorted(VARIANTS)}. Received: "
            f"{variant!r}"
        )
    config = base.get_config()
    config.data.name = "imagenet2012"
    config.data.image_size = (224, 224)
    # Some of its images are grey.
    config.data.channels = 3
    config.data.augmentation = "resized_crop"
    # Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 3.4
    # and appendix A.3.
    large = {
        "stem": "imagenet",
        "cells": 14,
        "channels": 48,
        "batch_size": 128,
        "schedule": "exponential",
        "learning_rate": 0.1,
        "decay": 0.97,
        "weight_decay": 3e-5,
        "label_smoothing": 0.1,
        "drop_path": 0.0,
        "cutout": 0,
    }
    if variant == "released":
        large.update(schedule="cosine", label_smoothing=0.0)
    config.network.epochs = 250
    for recipe in (config.selection, config.network):
        recipe.update(large)
    config.network.cell = "att_darts"
    return config
