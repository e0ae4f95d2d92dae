"""Gradients of the bilevel problem, as functions of values.

Nothing here knows a network: a loss function maps values to a loss, so it can
be evaluated away from the current variables, and none of them is changed.

A loss function maps `(weights, architecture, batch, constants)` to this
replica's share of the loss, a scalar, and to whatever else was computed on the
way. Lists of weights and of architecture weights hold tensors; a batch is any
structure; `constants` holds which of `SOURCES` nobody derives for, which may
save a loss function work.
"""

import dataclasses

import tensorflow as tf

from att_darts_tf.engine import devices

ORDERS = ("first", "second")
SOURCES = WEIGHTS, ARCHITECTURE = "weights", "architecture"
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
            * (self.momentum * velocity + gradient + self.weight_decay * weight)
            for weight, gradient, velocity in zip(
                weights, gradients, self.velocities, strict=True
            )
        ]


class Gradients:
    """Gradients of a loss function, each traced once.

    A step takes up to five of them, away from each other. Kept out of line,
    the graph holds each kind once, and frees what a call has needed.

    Args:
        loss_fn: See above.
        inline: Boolean. Whether they become part of the caller's graph, as
            they must where replicas talk to each other within.
    """

    def __init__(self, loss_fn, *, inline=False):
        self.loss_fn = loss_fn
        kept = (lambda function: function) if inline else traced
        self._traced = {
            sources: kept(self._derived(sources))
            for sources in ((WEIGHTS,), (ARCHITECTURE,), SOURCES)
        }
        self._mixed = kept(self._derived_twice)

    def evaluate(self, function, weights, architecture, batch, *others):
        """Calls one of the traced functions.

        Args:
            function: Maps the values that follow to a list of gradients of
                the weights, one of the architecture weights, a loss, and the
                rest.
            weights: List of tensors.
            architecture: List of tensors.
            batch: See above.
            *others: Tensors.
        """
        return function(weights, architecture, batch, *others)

    def weights(self, weights, architecture, batch):
        """Returns the gradient of the weights, the loss and the rest."""
        gradients, _, *rest = self.evaluate(
            self._traced[WEIGHTS,], weights, architecture, batch
        )
        return gradients, *rest

    def architecture(self, weights, architecture, batch):
        """Returns that of the architecture weights, the loss and the rest.

        Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.3
        (`xi = 0`): the first order.
        """
        _, gradients, *rest = self.evaluate(
            self._traced[ARCHITECTURE,], weights, architecture, batch
        )
        return gradients, *rest

    def both(self, weights, architecture, batch):
        """Returns both gradients, the loss and the rest."""
        return self.evaluate(
            self._traced[SOURCES], weights, architecture, batch
        )

    def mixed(self, weights, architecture, batch, vector):
        """Returns `(grad_a,w L) vector`, tensors like `architecture`.

        Args:
            weights: List of tensors.
            architecture: List of tensors.
            batch: See above.
            vector: List of tensors like `weights`.
        """
        _, products, *_ = self.evaluate(
            self._mixed, weights, architecture, batch, vector
        )
        return products

    def _derived(self, sources):
        constants = tuple(name for name in SOURCES if name not in sources)

        def gradients(weights, architecture, batch):
            values = {WEIGHTS: weights, ARCHITECTURE: architecture}
            wanted = [
                values[name] if name in sources else [] for name in SOURCES
            ]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(wanted)
                loss, rest = self.loss_fn(
                    weights, architecture, batch, constants
                )
            found = tape.gradient(loss, wanted, unconnected_gradients=_NO_PATH)
            return *found, loss, rest

        return gradients

    def _derived_twice(self, weights, architecture, batch, vector):
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(architecture)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(weights)
                loss, rest = self.loss_fn(weights, architecture, batch, ())
            descent = inner.gradient(
                loss, weights, unconnected_gradients=_NO_PATH
            )
        products = outer.gradient(
            descent, architecture, vector, unconnected_gradients=_NO_PATH
        )
        return [], products, loss, rest


def traced(function, *, jit=False):
    """Returns a `tf.function` whose calls are kept out of line.

    The graph holds it once, however often it is called.

    Args:
        function: Function of tensors.
        jit: Boolean. Whether XLA compiles it.
    """
    return tf.function(
        function,
        autograph=False,
        # Not `False`, which would keep the caller from being compiled.
        jit_compile=jit or None,
        reduce_retracing=True,
        experimental_attributes={"_noinline": True},
    )


def second_order(
    gradients,
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
        gradients: `Gradients`.
        weights: List of tensors.
        architecture: List of tensors.
        train_batch: Pair of images and labels from the weight half.
        search_batch: The same from the architecture half.
        step: `VirtualStep`.
        implicit: String. How the product with the mixed derivative is had, a
            key of `IMPLICIT`.

    Returns:
        A list of tensors of the shapes of `architecture`, this replica's share
        of the gradient; and the loss and the rest at the virtual weights.
    """
    # With the other gradient, which costs little, no third kind is traced.
    descent, *_ = gradients.both(weights, architecture, train_batch)
    # Gradients of other replicas move the same weights.
    moved = step(weights, devices.all_reduce_sum(descent))
    vector, direct, loss, rest = gradients.both(
        moved, architecture, search_batch
    )
    terms = IMPLICIT[implicit](
        gradients,
        weights,
        architecture,
        train_batch,
        devices.all_reduce_sum(vector),
    )
    return (
        [
            gradient - _scalar(step.rate, gradient.dtype) * term
            for gradient, term in zip(direct, terms, strict=True)
        ],
        loss,
        rest,
    )


def _finite_difference(gradients, weights, architecture, batch, vector):
    """Approximates `Gradients.mixed` from both sides of the weights."""
    radius = _RADIUS / tf.linalg.global_norm(vector)

    def shifted(sign):
        moved = [
            weight + sign * radius * direction
            for weight, direction in zip(weights, vector, strict=True)
        ]
        return gradients.architecture(moved, architecture, batch)[0]

    above = shifted(1)
    # One after the other: at the same time they take twice the memory.
    with tf.control_dependencies(above):
        below = shifted(-1)
    return [
        (high - low) / (2 * radius)
        for high, low in zip(above, below, strict=True)
    ]


def _scalar(value, dtype):
    # `tf.cast` would take a Python number through float32.
    return tf.cast(tf.convert_to_tensor(value, dtype_hint=dtype), dtype)


_NO_PATH = tf.UnconnectedGradients.ZERO
IMPLICIT = {"finite_difference": _finite_difference, "exact": Gradients.mixed}
