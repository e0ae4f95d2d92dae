"""What training runs on; the only user of `tf.distribute`.

Replicas compute alike on parts of a batch. One device is a strategy with one
replica, so nothing else asks how many there are. Of several processes each
runs the whole program, and the replicas of its own machine.
"""

import contextlib
import functools
import os

import tensorflow as tf

from att_darts_tf.engine import cluster, preemption
from att_darts_tf.errors import UsageError

Strategy = tf.distribute.Strategy
_ABORTED = "Collective ops is aborted by: "


def strategy(config):
    """Returns the strategy that `config.engine.strategy` names.

    One is made for the whole process, before TensorFlow is used otherwise.
    """
    name = config.engine.strategy
    if name not in STRATEGIES:
        raise UsageError(
            f"Expected config.engine.strategy to be one of "
            f"{sorted(STRATEGIES)}. Received: {name!r}. Choose one of them"
        )
    return _made(name, config.engine.replicas)


@functools.cache
def _made(name, replicas):
    return STRATEGIES[name](replicas)


def _default(replicas):
    return tf.distribute.get_strategy()


def _mirrored(replicas):
    gpus = tf.config.list_physical_devices("GPU")
    kind = "GPU" if gpus else "CPU"
    count = replicas or max(1, len(gpus))
    if not gpus:
        _divide_processor(count)
    elif count > len(gpus):
        raise UsageError(
            f"Expected config.engine.replicas={count} GPUs. Received: "
            f"{len(gpus)} on this machine. Lower it; 0 takes all"
        )
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])


def _divide_processor(count):
    """Makes the processor as many devices, which share it."""
    processor, *_ = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(processor, devices)
    except RuntimeError as error:
        # In use already; by a caller who has divided it, perhaps.
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UsageError(
                f"Expected {count} devices of one processor. Received: a "
                "process that uses it whole already. Start another one"
            ) from error


def _multi_worker(replicas):
    processes = cluster.of_environment()
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster.gather(processes)
    with _telling_of_the_lost(processes):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    # TensorFlow has taken SIGTERM for itself.
    preemption.listen_again()
    return strategy


def _tpu(replicas):
    """Of the machine, or of the name in `TPU_NAME`; untried."""
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UsageError(
            f"Expected a TPU, {name!r}. Received: "
            f"{str(error).splitlines()[0][:400]}. Name it in TPU_NAME, or "
            "choose another config.engine.strategy"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES = {
    "default": _default,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


class _Processes(cluster.Alone):
    """The team of a process with others; see there.

    Args:
        processes: `cluster.Cluster`.
        strategy: `tf.distribute.Strategy` that they share.
    """

    def __init__(self, processes, strategy):
        self.processes = processes
        self.strategy = strategy
        self.leads = processes.leads
        self.size = len(processes.addresses)

    def from_leader(self, number):
        # Of 64 bits there are 53 for an integer.
        (sent,) = self.sums([number if self.leads else 0])
        return int(sent)

    def sums(self, numbers):
        mine = tf.constant(numbers, tf.float64)
        reduced = self.strategy.reduce("SUM", mine, axis=None)
        return reduced.numpy().tolist()

    def telling_of_the_lost(self):
        return _telling_of_the_lost(self.processes)


def is_of_the_lost(error):
    """Returns whether an error comes of a process that is gone.

    Once one is, whatever this process computes may raise it.

    Args:
        error: Exception.
    """
    kinds = (
        tf.errors.UnavailableError,
        tf.errors.DeadlineExceededError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
    )
    # Files of an object store may be unavailable too.
    return isinstance(error, kinds) and (
        _ABORTED in error.message or "/job:" in error.message
    )


@contextlib.contextmanager
def _telling_of_the_lost(processes):
    try:
        yield
    except tf.errors.OpError as error:
        if not is_of_the_lost(error):
            raise
        # Behind a traceback of the graph.
        _, _, reason = error.message.rpartition(_ABORTED)
        raise UsageError(
            f"Expected the other processes to answer {processes}. Received: "
            f"{' '.join(reason.split())[:200]}. See what they said; the same "
            "command in every process goes on from the last checkpoint"
        ) from error


def team(strategy):
    """Returns the processes that share a strategy, like `cluster.ALONE`."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return cluster.ALONE
    processes = cluster.of_environment()
    if len(processes.addresses) == 1:
        return cluster.ALONE
    return _Processes(processes, strategy)


def replicas(strategy):
    """Returns the replicas of a strategy as `input_pipeline` takes them."""
    total = strategy.num_replicas_in_sync
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, total, total
    processes = cluster.of_environment()
    own = total // len(processes.addresses)
    return processes.index * own, own, total


def on_replicas(strategy, function):
    """Returns a traced function of an iterator over the parts of batches.

    Args:
        strategy: `tf.distribute.Strategy`.
        function: Called by each replica with the next element.

    Returns:
        A function of the iterator of a `tf.data.Dataset`, whose elements are
        the parts of the replicas in turn. It returns a tuple of what
        `function` returns, one item a replica.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def step(iterator):
        part = strategy.experimental_distribute_values_from_function(
            lambda _: iterator.get_next()
        )
        outputs = strategy.run(function, args=(part,))
        return strategy.experimental_local_results(outputs)

    return step


def copies(strategy, variables):
    """Returns the numbers of variables on every replica.

    Args:
        strategy: `tf.distribute.Strategy`.
        variables: Sequence of variables of one type.

    Returns:
        An array of shape `(replicas, numbers)`.
    """

    def gathered():
        own = tf.concat(
            [tf.reshape(tf.convert_to_tensor(v), (1, -1)) for v in variables], 1
        )
        context = tf.distribute.get_replica_context()
        return own if num_replicas() == 1 else context.all_gather(own, axis=0)

    rows = strategy.run(tf.function(gathered, autograph=False))
    return strategy.experimental_local_results(rows)[0].numpy()


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


def place(size):
    """Returns where this replica's part of a batch begins, and the whole size.

    Args:
        size: Integer tensor, how many examples the part has.
    """
    (whole,) = all_reduce_sum([size])
    if num_replicas() == 1:
        return 0, whole
    context = tf.distribute.get_replica_context()
    index = context.replica_id_in_sync_group
    return index * whole // context.num_replicas_in_sync, whole


def share(size, dtype):
    """Returns this replica's share of the examples of a batch.

    Args:
        size: Integer tensor, how many examples its part has.
        dtype: Of the result, a scalar tensor.
    """
    if num_replicas() == 1:
        return tf.ones((), dtype)
    _, whole = place(size)
    return tf.cast(size, dtype) / tf.cast(whole, dtype)


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
