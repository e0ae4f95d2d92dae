"""Differentiable search for operations and attention, in Keras.

The command line is `att-darts`; what a notebook needs stands here and is
loaded when first asked for, so that importing the package costs nothing:

    Supernet: the network that holds every candidate.
    Search: trains a supernet's weights and architecture in turn.
    Network: the network of one genotype, `Network.from_genotype(...)`.
    split_in_halves: makes the pairs of batches that `Search.fit` takes.

Source: Nakai et al., 2020, https://doi.org/10.1109/IJCNN48605.2020.9207369.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Supernet": "att_darts_tf.search.supernet",
    "Search": "att_darts_tf.search.trainer",
    "Network": "att_darts_tf.network.network",
    "split_in_halves": "att_darts_tf.data.input_pipeline",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOMES})
