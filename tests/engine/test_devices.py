import subprocess
import sys

import ml_collections
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import devices, optimizers
from att_darts_tf.errors import UsageError


def config(**engine):
    return ml_collections.ConfigDict({"engine": {"replicas": 0, **engine}})


def test_one_device_is_a_strategy_that_sums_nothing():
    strategy = devices.strategy(config(strategy="default"))
    tensor = tf.constant([1.0, 2.0])
    with strategy.scope():
        assert devices.num_replicas() == 1
        (total,) = strategy.run(lambda: devices.all_reduce_sum([tensor]))
    np.testing.assert_array_equal(total, tensor)


def test_unknown_strategy_is_refused():
    with pytest.raises(UsageError, match=r"'mirrored'\]. Received: 'tpus'"):
        devices.strategy(config(strategy="tpus"))


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
logical = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [logical, logical])
from att_darts_tf.engine import devices, optimizers
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    variable = tf.Variable([10.0])

@tf.function
def step():
    def replica():
        context = tf.distribute.get_replica_context()
        index = context.replica_id_in_sync_group
        gradient = tf.constant([1.0]) + 2.0 * tf.cast(index, tf.float32)
        (direction,) = optimizers.update_direction(
            [gradient], [variable], clip_norm=2.0, weight_decay=0.5
        )
        return devices.all_reduce_sum([direction])[0]
    return strategy.run(replica)

print(*[float(v[0]) for v in strategy.experimental_local_results(step())])
"""


def test_replicas_clip_and_decay_the_sum_of_their_gradients():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    values = [float(value) for value in result.stdout.split()]
    # 1 + 3 clipped to 2, and half of 10, once; not once a replica.
    np.testing.assert_allclose(values, [7.0, 7.0], rtol=1e-5)


@pytest.mark.parametrize("gpus", [[], ["0"]])
@pytest.mark.parametrize("deterministic", [True, False])
def test_tensorflow_is_set_to_the_configuration_and_the_device(
    monkeypatch, gpus, deterministic
):
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config.experimental,
        "enable_op_determinism",
        lambda: calls.append("operations"),
    )
    monkeypatch.setattr(
        tf.config.optimizer, "set_experimental_options", calls.append
    )
    devices.configure(config(deterministic=deterministic))
    options = {}
    if deterministic:
        assert calls.pop(0) == "operations"
        options["arithmetic_optimization"] = False
    if not gpus:
        options["disable_meta_optimizer"] = True
    assert calls == [options]


def test_direction_needs_no_replica_context():
    (direction,) = optimizers.update_direction(
        [tf.constant([1.0])],
        [tf.Variable([2.0])],
        clip_norm=None,
        weight_decay=0.25,
    )
    np.testing.assert_array_equal(direction, [1.5])
