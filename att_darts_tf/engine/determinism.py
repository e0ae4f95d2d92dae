"""Sums whose order does not depend on which thread was faster."""

import functools
import operator

import tensorflow as tf


def fan_out(tensor, count):
    """Returns a tensor once for each of its readers.

    The gradients of the readers are added one after the other. TensorFlow
    would add them by `AddN`, which begins with whichever input nobody else
    holds at that moment: with three readers and more, of which two pass their
    gradient on untouched, the rounding depends on timing. No setting of
    TensorFlow covers this; measured with 2.21.

    Args:
        tensor: Tensor of any shape.
        count: Integer. How many readers there are.

    Returns:
        A tuple of `count` tensors.
    """
    if count < 3:
        return (tensor,) * count

    @tf.custom_gradient
    def copies(tensor):
        def gradient(*upstream):
            return functools.reduce(operator.add, upstream)

        return tuple(tf.identity(tensor) for _ in range(count)), gradient

    return copies(tensor)
