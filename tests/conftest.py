import pytest

from att_darts_tf import startup

# As every command does, before anything else loads it: processes that tests
# start get the threads of this one by the environment, and so the same bits.
startup.load_tensorflow()

import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import (  # noqa: E402
    config as framework_config,
)


@pytest.fixture(scope="session", autouse=True)
def graphs_as_they_are_traced():
    """Sets what every stage does on a CPU: see `devices.configure`.

    For a step or two of a tiny model, TensorFlow's optimizer of graphs takes
    longer than the steps.
    """
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )


@pytest.fixture(autouse=True)
def as_tensorflow_begins():
    """Takes back what a stage sets for its process, for the next test."""
    yield
    framework_config.disable_op_determinism()
