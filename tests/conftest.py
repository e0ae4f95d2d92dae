import pytest
import tensorflow as tf


@pytest.fixture(scope="session", autouse=True)
def graphs_as_they_are_traced():
    """Sets what every stage does on a CPU: see `devices.configure`.

    For a step or two of a tiny model, TensorFlow's optimizer of graphs takes
    longer than the steps.
    """
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
