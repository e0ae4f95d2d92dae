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


def set_determinism(config):
    """Makes TensorFlow give the same bits on every run, if configured.

    Without it sums run in the order in which threads finish. The graph
    optimizer must not merge additions into `AddN` either: their order would
    differ from process to process (measured with TensorFlow 2.21, where it
    costs no time). A process cannot take this back, so it belongs before the
    first step of a stage. See also `determinism.fan_out`.
    """
    if config.engine.deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.config.optimizer.set_experimental_options(
            {"arithmetic_optimization": False}
        )


def skip_graph_optimizer():
    """Leaves graphs as they are traced, on a CPU.

    TensorFlow's graph optimizer takes a third of the time from the start of a
    network's training to its first step, and its steps are no faster (measured
    with TensorFlow 2.21 on 2 cores: 9.5 s against 4.5 s for 5 cells of 24
    channels, then 1.2 s a step either way). A GPU needs its choice of layouts.
    """
    if not tf.config.list_physical_devices("GPU"):
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": True}
        )
