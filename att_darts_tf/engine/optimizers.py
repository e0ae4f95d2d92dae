"""Optimizers with PyTorch's arithmetic, which the published figures used.

Keras differs in four places: its SGD keeps the rate inside the velocity, its
Adam adds epsilon before the bias correction, its `weight_decay` is apart from
the gradient, and it clips each replica's gradient. See `update_direction`.
"""

import math

import keras
import tensorflow as tf
from keras import ops

from att_darts_tf.engine import devices


class _Optimizer(keras.optimizers.Optimizer):
    """An optimizer without Keras' own clipping, decay and averaging."""

    def get_config(self):
        config = super().get_config()
        return {name: config[name] for name in ("name", "learning_rate")}


@keras.saving.register_keras_serializable(package="att_darts_tf")
class SGD(_Optimizer):
    """Gradient descent whose velocity does not hold the learning rate.

    `velocity = momentum * velocity + gradient`, then
    `variable -= learning_rate * velocity`. With a rate that changes this parts
    from `keras.optimizers.SGD`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

    Args:
        learning_rate: Float, or a Keras learning rate schedule.
        momentum: Float in [0, 1).
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, name="SGD"):
        super().__init__(learning_rate, name=name)
        self.momentum = _fraction("momentum", momentum)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.velocities[self._get_variable_index(variable)]
        # One operation a variable: in a graph of many layers, most nodes would
        # otherwise be the optimizer's.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.value.handle,
            lr=ops.cast(learning_rate, variable.dtype),
            grad=ops.cast(gradient, variable.dtype),
            momentum=self.momentum,
            use_locking=True,
        )

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="att_darts_tf")
class Adam(_Optimizer):
    """Adam that adds epsilon after the bias correction.

    At the first step `keras.optimizers.Adam` in effect uses an epsilon that is
    `1 / sqrt(1 - beta_2)` times as large.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    Args:
        learning_rate: Float, or a Keras learning rate schedule.
        beta_1: Float in [0, 1). Decay of the mean of gradients.
        beta_2: Float in [0, 1). Decay of the mean of their squares.
        epsilon: Float. Keeps the denominator from zero.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        name="Adam",
    ):
        super().__init__(learning_rate, name=name)
        self.beta_1 = _fraction("beta_1", beta_1)
        self.beta_2 = _fraction("beta_2", beta_2)
        self.epsilon = epsilon

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.means = self.add_optimizer_variables(variables, "mean")
        self.squares = self.add_optimizer_variables(variables, "square")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        mean, square = self.means[index], self.squares[index]
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        self.assign(
            square,
            self.beta_2 * square + (1 - self.beta_2) * ops.square(gradient),
        )
        deviation = ops.sqrt(square) / ops.sqrt(_correction(self.beta_2, step))
        direction = mean / (deviation + self.epsilon)
        rate = ops.cast(learning_rate, dtype) / _correction(self.beta_1, step)
        self.assign_sub(variable, rate * direction)

    def get_config(self):
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


def update_direction(gradients, variables, *, clip_norm, weight_decay):
    """Clips the gradient of the whole batch, then adds coupled weight decay.

    Keras would clip each replica's share and decay apart from the gradient;
    the published results come from clipping first and decaying with it.

    Source: `torch.nn.utils.clip_grad_norm_` for the scale,
    `min(1, clip_norm / (norm + 1e-6))`.

    Args:
        gradients: List of tensors, this replica's share of the gradient. A
            variable without gradient has `None`, and is not decayed either.
        variables: List of as many variables.
        clip_norm: Float, the largest global norm, or `None` to clip nothing.
        weight_decay: Float. Its product with the variable joins the gradient.

    Returns:
        A list of tensors for `optimizer.apply(directions, variables)`, which
        sums over replicas once more.
    """
    known = [index for index, g in enumerate(gradients) if g is not None]
    sums = devices.all_reduce_sum([gradients[index] for index in known])
    share = 1.0 / devices.num_replicas()
    scale = share
    if clip_norm is not None:
        norm = tf.linalg.global_norm(sums)
        scale *= tf.minimum(clip_norm / (norm + 1e-6), 1.0)
    directions = [None] * len(gradients)
    for index, gradient in zip(known, sums, strict=True):
        variable = ops.convert_to_tensor(variables[index])
        directions[index] = (
            gradient * tf.cast(scale, gradient.dtype)
            + (weight_decay * share) * variable
        )
    return directions


def cosine_rate(epoch, *, epochs, first, last):
    """Returns the learning rate of an epoch on half a cosine.

    Source: Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983,
    equation 5, without restarts. The last epoch is one step above `last`.

    Args:
        epoch: Integer in [0, epochs).
        epochs: Integer. Length of the schedule.
        first: Float. Rate of epoch 0.
        last: Float. Rate that epoch `epochs` would have.

    Example:

    >>> cosine_rate(25, epochs=50, first=0.5, last=0.0)
    0.25
    """
    return last + (first - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def exponential_rate(epoch, *, first, decay):
    """Returns the learning rate of an epoch that falls by a constant factor.

    Args:
        epoch: Integer, at least 0.
        first: Float. Rate of epoch 0.
        decay: Float. Factor of each epoch.
    """
    return first * decay**epoch


def _correction(beta, step):
    # `1 - beta**step` loses five digits in float32 for beta near 1.
    return -ops.expm1(step * (math.log(beta) if beta else -math.inf))


def _fraction(name, value):
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must lie in [0, 1). Received: {name}={value!r}"
        )
    return float(value)
