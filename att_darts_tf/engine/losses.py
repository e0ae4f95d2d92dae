"""What training minimises."""

import tensorflow as tf


def cross_entropy(labels, logits):
    """Returns the mean cross entropy of a batch.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float tensor of shape `(batch, num_classes)`.
    """
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    )
