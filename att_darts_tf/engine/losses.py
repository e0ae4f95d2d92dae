"""What training minimises."""

import tensorflow as tf


def cross_entropy(labels, logits, *, smoothing=0.0):
    """Returns the mean cross entropy of a batch.

    Source of the smoothing: Szegedy et al., 2016,
    https://arxiv.org/abs/1512.00567, section 7.

    Args:
        labels: Integer tensor of shape `(batch,)`.
        logits: Float tensor of shape `(batch, num_classes)`.
        smoothing: Float in [0, 1). Share of each label that is spread evenly
            over all classes, its own among them.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if smoothing:
        spread = -tf.reduce_mean(tf.nn.log_softmax(logits), -1)
        losses = (1.0 - smoothing) * losses + smoothing * spread
    return tf.reduce_mean(losses)
