"""Figures of a training that all replicas have alike."""

import keras
import tensorflow as tf
from keras import ops

from att_darts_tf.engine import devices


@keras.saving.register_keras_serializable(package="att_darts_tf")
class Mean(keras.metrics.Metric):
    """A mean over the examples of all replicas.

    Unlike Keras' own, which keep what their replica has seen and add it up
    when they are read, it is given sums over the replicas: each copy is the
    whole, so a checkpoint holds it to the bit.
    """

    def __init__(self, name="mean", **kwargs):
        super().__init__(name=name, **kwargs)
        options = {
            "shape": (),
            "initializer": "zeros",
            "aggregation": "only_first_replica",
        }
        self.total = self.add_variable(name="total", **options)
        self.count = self.add_variable(name="count", **options)

    def update_state(self, total, count):
        """Adds what a step has seen.

        Args:
            total: Scalar tensor, a sum over the examples of all replicas.
            count: Scalar tensor, how many they are.
        """
        self.total.assign_add(ops.cast(total, self.total.dtype))
        self.count.assign_add(ops.cast(count, self.count.dtype))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


def update(loss_mean, accuracy_mean, *, loss, labels, logits):
    """Updates the figures of a batch.

    A smaller last batch counts by its size.

    Args:
        loss_mean: `Mean`.
        accuracy_mean: `Mean`.
        loss: Scalar tensor, this replica's share of the batch's mean loss.
        labels: Integer tensor of shape `(batch,)`, of this replica's part.
        logits: Float tensor of shape `(batch, num_classes)`.
    """
    best = tf.argmax(logits, -1)
    hits = tf.cast(tf.equal(best, tf.cast(labels, best.dtype)), loss.dtype)
    loss, hits, size = devices.all_reduce_sum(
        [loss, tf.reduce_sum(hits), tf.cast(tf.size(labels), loss.dtype)]
    )
    loss_mean.update_state(loss * size, size)
    accuracy_mean.update_state(hits, size)
