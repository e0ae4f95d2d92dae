"""Gradients of the bilevel problem, as functions of values.

Nothing here knows a network: a loss function maps values to a loss, so it can
be evaluated away from the current variables, and none of them is changed.
"""

import tensorflow as tf


def first_order(loss_fn, weights, architecture, batch):
    """Returns the gradient of the search loss at the current weights.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.3
    (`xi = 0`).

    Args:
        loss_fn: Maps `(weights, architecture, batch)` to a scalar loss and
            the logits it was computed from.
        weights: List of tensors.
        architecture: List of tensors.
        batch: Pair of images and labels from the architecture half.

    Returns:
        A list of tensors of the shapes of `architecture`, the loss, and the
        logits.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(architecture)
        loss, logits = loss_fn(weights, architecture, batch)
    return tape.gradient(loss, architecture), loss, logits
