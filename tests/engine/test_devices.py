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
    with pytest.raises(UsageError, match=r"'tpu'\]. Received: 'tpus'"):
        devices.strategy(config(strategy="tpus"))


REPLICAS = """
import ml_collections
import numpy as np
import tensorflow as tf
from att_darts_tf.engine import callbacks, devices, optimizers
engine = {"strategy": "mirrored", "replicas": 2}
strategy = devices.strategy(ml_collections.ConfigDict({"engine": engine}))
with strategy.scope():
    variable = tf.Variable([10.0])

def show(per_replica):
    results = strategy.experimental_local_results(per_replica)
    print(*[float(value[0]) for value in results])

@tf.function
def step(broken):
    def replica():
        context = tf.distribute.get_replica_context()
        index = context.replica_id_in_sync_group
        gradient = tf.constant([1.0]) + 2.0 * tf.cast(index, tf.float32)
        if broken:
            gradient *= tf.where(tf.equal(index, 1), np.nan, 1.0)
        (direction,) = optimizers.update_direction(
            [gradient], [variable], clip_norm=2.0, weight_decay=0.5
        )
        return devices.all_reduce_sum([direction])[0]
    return strategy.run(replica)

show(step(False))
show(step(True))
same = callbacks.SameOnReplicas(strategy, [variable], "weights")
same.on_epoch_end(0)
variable.values[1].assign([12.5])
try:
    same.on_epoch_end(3)
except RuntimeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def replicas():
    """What a process with two devices prints, by line."""
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_replicas_clip_and_decay_the_sum_of_their_gradients(replicas):
    values = [float(value) for value in replicas[0].split()]
    # 1 + 3 clipped to 2, and half of 10, once; not once a replica.
    np.testing.assert_allclose(values, [7.0, 7.0], rtol=1e-5)


def test_nan_on_one_replica_reaches_all_and_so_no_checkpoint(replicas):
    assert replicas[1] == "nan nan"


def test_replicas_that_differ_end_the_training(replicas):
    message = replicas[2]
    assert "the same weights on every replica" in message
    assert "others on replica 1 than on replica 0 after epoch 3" in message
    assert "by up to 2.5" in message


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
