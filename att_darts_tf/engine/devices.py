"""What training runs on; the only user of `tf.distribute`.

One device is a strategy too, so nothing else asks how many there are.
"""

import tensorflow as tf

from att_darts_tf.errors import UsageError

STRATEGIES = {"default": tf.distribute.get_strategy}


def strategy(config):
    """Returns the strategy that `config.engine.strategy` names."""
    name = config.engine.strategy
    if name not in STRATEGIES:
        raise UsageError(
            f"Expected config.engine.strategy to be one of "
            f"{sorted(STRATEGIES)}. Received: {name!r}. Choose one of them"
        )
    return STRATEGIES[name]()


def num_replicas():
    """Returns how many replicas share the batch; 1 on a single device."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def all_reduce_sum(tensors):
    """Sums tensors over replicas; the identity on a single one.

    Args:
        tensors: List of tensors, this replica's terms.

    Returns:
        A list of the sums, equal on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(tensors)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def configure(config):
    """Sets how TensorFlow computes, for the rest of the process.

    Deterministic, if so configured: otherwise sums run in the order in which
    threads finish. The graph optimizer must not merge additions into `AddN`
    either: their order would differ from process to process (measured with
    TensorFlow 2.21). It belongs before the first step of a stage. See also
    `determinism.fan_out`.

    On a CPU graphs stay as they are traced: TensorFlow's optimizer takes two
    thirds of the time from the trace of a supernet to its first step, and the
    steps are no faster (measured with TensorFlow 2.21 on 2 cores: 40 s and
    13 s for 8 cells of 16 channels). A GPU needs its choice of layouts.
    """
    options = {}
    if config.engine.deterministic:
        tf.config.experimental.enable_op_determinism()
        options["arithmetic_optimization"] = False
    if not tf.config.list_physical_devices("GPU"):
        options["disable_meta_optimizer"] = True
    tf.config.optimizer.set_experimental_options(options)
