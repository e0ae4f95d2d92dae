"""Gradients of the bilevel problem, as functions of values.

Nothing here knows a network: a loss function maps values to a loss, so it can
be evaluated away from the current variables, and none of them is changed.

Every function takes `loss_fn`, which maps `(weights, architecture, batch)` to
this replica's share of the loss, a scalar, and to the logits that it was
computed from. Lists of weights and of architecture weights hold tensors.
"""

import dataclasses

import tensorflow as tf

from att_darts_tf.engine import devices

ORDERS = ("first", "second")
# Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, footnote 2.
_RADIUS = 0.01


@dataclasses.dataclass(frozen=True)
class VirtualStep:
    """One step of gradient descent that is computed and not taken.

    Args:
        rate: Scalar, the current learning rate of the weights.
        momentum: Float, that of the weights' optimizer.
        velocities: List of tensors, its momentum buffers.
        weight_decay: Float, added to the gradient as an L2 term.
    """

    rate: float | tf.Tensor
    momentum: float
    velocities: list
    weight_decay: float

    def __call__(self, weights, gradients):
        """Returns the weights after the step."""
        return [
            weight
            - _scalar(self.rate, weight.dtype)
            * (
                self.momentum * velocity
                + gradient
                + self.weight_decay * weight
            )
            for weight, gradient, velocity in zip(
                weights, gradients, self.velocities, strict=True
            )
        ]


def first_order(loss_fn, weights, architecture, batch):
    """Returns the gradient of the search loss at the current weights.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.3
    (`xi = 0`).

    Args:
        loss_fn: See above.
        weights: List of tensors.
        architecture: List of tensors.
        batch: Pair of images and labels from the architecture half.

    Returns:
        A list of tensors of the shapes of `architecture`, this replica's share
        of the gradient; its share of the loss; and the logits.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(architecture)
        loss, logits = loss_fn(weights, architecture, batch)
    return tape.gradient(loss, architecture), loss, logits


def second_order(
    loss_fn,
    weights,
    architecture,
    train_batch,
    search_batch,
    *,
    step,
    implicit="finite_difference",
):
    """Returns the gradient of the search loss through one virtual step.

    With `w' = w - rate (momentum m + grad_w L_train(w, a) + decay w)` it is
    `grad_a L_search(w', a) - rate (grad_a,w L_train(w, a)) v`, where
    `v = grad_w' L_search(w', a)`.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, equations 6 to
    8.

    Args:
        loss_fn: See above.
        weights: List of tensors.
        architecture: List of tensors.
        train_batch: Pair of images and labels from the weight half.
        search_batch: The same from the architecture half.
        step: `VirtualStep`.
        implicit: String. How the product with the mixed derivative is had, a
            key of `IMPLICIT`.

    Returns:
        As `first_order`; loss and logits are those at the virtual weights.
    """
    gradients, product = IMPLICIT[implicit](
        loss_fn, weights, architecture, train_batch
    )
    # Gradients of other replicas move the same weights.
    moved = step(weights, devices.all_reduce_sum(gradients))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([moved, architecture])
        loss, logits = loss_fn(moved, architecture, search_batch)
    direct, vector = tape.gradient(
        loss, [architecture, moved], unconnected_gradients=_NO_PATH
    )
    terms = product(devices.all_reduce_sum(vector))
    return (
        [
            gradient - _scalar(step.rate, gradient.dtype) * term
            for gradient, term in zip(direct, terms, strict=True)
        ],
        loss,
        logits,
    )


def _finite_difference(loss_fn, weights, architecture, batch):
    """Returns the weights' gradient, and its derivative along a vector."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        loss, _ = loss_fn(weights, architecture, batch)

    def product(vector):
        radius = _RADIUS / tf.linalg.global_norm(vector)

        def shifted(sign):
            moved = [
                weight + sign * radius * direction
                for weight, direction in zip(weights, vector, strict=True)
            ]
            return first_order(loss_fn, moved, architecture, batch)[0]

        return [
            (above - below) / (2 * radius)
            for above, below in zip(shifted(1), shifted(-1), strict=True)
        ]

    gradients = tape.gradient(loss, weights, unconnected_gradients=_NO_PATH)
    return gradients, product


def _exact(loss_fn, weights, architecture, batch):
    """Returns the weights' gradient, and its derivative along a vector."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(architecture)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(weights)
            loss, _ = loss_fn(weights, architecture, batch)
        gradients = inner.gradient(
            loss, weights, unconnected_gradients=_NO_PATH
        )

    def product(vector):
        return outer.gradient(
            gradients, architecture, vector, unconnected_gradients=_NO_PATH
        )

    return gradients, product


def _scalar(value, dtype):
    # `tf.cast` would take a Python number through float32.
    return tf.cast(tf.convert_to_tensor(value, dtype_hint=dtype), dtype)


_NO_PATH = tf.UnconnectedGradients.ZERO
IMPLICIT = {"finite_difference": _finite_difference, "exact": _exact}
