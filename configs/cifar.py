"""CIFAR-10: search, selection and retraining as in Nakai et al., 2020.

    att-darts pipeline --config=cifar --workdir=runs/cifar10
    att-darts pipeline --config=cifar:cifar100 --workdir=runs/cifar100

The published test error is 2.54 +- 0.10 % on CIFAR-10 and 16.54 +- 0.40 % on
CIFAR-100; nothing of the kind has been measured with this code yet. It needs a
GPU, and the data set where TensorFlow Datasets finds or downloads it (see
`config.data.data_dir`).
"""

from att_darts_tf.configs import base

VARIANTS = {"": "cifar10", "cifar100": "cifar100"}


def get_config(variant=""):
    """Returns the configuration.

    Args:
        variant: String. "" for CIFAR-10, "cifar100" for CIFAR-100.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"Unknown variant. Expected one of {sorted(VARIANTS)}. Received: "
            f"{variant!r}"
        )
    config = base.get_config()
    config.data.name = VARIANTS[variant]
    # Source: the released code's command, `train_search.py --unrolled`.
    config.search.order = "second"
    # The paper reports the mean of several trainings of the selected cells.
    config.repeats = 3
    return config
