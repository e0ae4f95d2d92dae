"""One trace for all layers that compute the same function.

A supernet repeats few kinds of layers many times. Traced apart, building the
graph takes minutes; here all layers of one kind call one function with their
own values, so each kind is traced, differentiated and optimised once.
"""

from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.eager import record

from att_darts_tf.search import bilevel


class Mode(NamedTuple):
    """How a pass through a supernet is computed; its result is the same.

    Args:
        constants: Names from `bilevel.SOURCES` of which no gradient will be
            asked; without gradients that nobody reads a pass takes less.
        recompute: String, one of `search_space.RECOMPUTE`.
        jit: Boolean. Whether XLA compiles mixed layers.
        inline: Boolean. Whether mixed layers become part of the caller's
            graph, and nothing is computed again, as it must be where replicas
            talk to each other within.
    """

    constants: tuple[str, ...] = ()
    recompute: str = "none"
    jit: bool = False
    inline: bool = False


DEFAULT_MODE = Mode()


class SharedTraces:
    """Calls layers through one traced function for each kind.

    Layers are of one kind if their class, `signature()` and shapes are the
    same. Their variables are arguments, so gradients and `stateless_call`
    pass through, and moving statistics are assigned by the caller's layer.
    """

    def __init__(self):
        self._functions = {}

    def call(
        self,
        layer,
        inputs,
        weights,
        *,
        training,
        mode,
        recompute=False,
        constant_inputs=False,
    ):
        """Calls `layer(inputs, weights, training=training)`.

        Args:
            layer: Built layer with a method `signature`, whose result and
                input shape determine what it computes.
            inputs: Tensor of shape `(batch, height, width, channels)`.
            weights: Tensor of shape `(edges, candidates)`.
            training: Boolean.
            mode: `Mode`.
            recompute: Boolean. Whether its cell is one of `mode.recompute`.
            constant_inputs: Boolean. Whether nobody will ask for a gradient of
                the inputs either.
        """
        kind = (
            type(layer),
            layer.signature(),
            layer.dtype_policy.name,
            inputs.dtype,
            tuple(inputs.shape[1:]),
            bool(training),
            mode,
            bool(recompute),
            bool(constant_inputs),
        )
        if kind not in self._functions:
            function = _function(
                layer, training, mode.constants, constant_inputs
            )
            if not mode.inline:
                traced = Recomputed if recompute else bilevel.traced
                function = traced(function, jit=mode.jit)
            self._functions[kind] = function
        statistics = layer.non_trainable_variables
        outputs, *moved = self._functions[kind](
            # Not the variables themselves, for which it is traced once more.
            inputs,
            weights,
            *[tf.convert_to_tensor(v) for v in statistics],
            *[tf.convert_to_tensor(v) for v in layer.trainable_variables],
        )
        if training:
            for variable, value in zip(statistics, moved, strict=True):
                variable.assign(value)
        return outputs


def _function(layer, training, constants, constant_inputs):
    count = len(layer.non_trainable_variables)

    def call(inputs, weights, *values):
        statistics, trainable = values[:count], values[count:]
        if bilevel.WEIGHTS in constants:
            trainable = [tf.stop_gradient(value) for value in trainable]
        if bilevel.ARCHITECTURE in constants:
            weights = tf.stop_gradient(weights)
        if constant_inputs:
            inputs = tf.stop_gradient(inputs)
        outputs, moved = layer.stateless_call(
            trainable, statistics, inputs, weights, training=training
        )
        # Nobody derives for statistics.
        return outputs, *[tf.stop_gradient(value) for value in moved]

    return call


class Recomputed:
    """A traced function that keeps nothing but its arguments.

    Its gradient computes it again, and so do the gradients of that, each
    traced once.

    Args:
        function: Maps tensors to a sequence of tensors.
        jit: Boolean. Whether XLA compiles it.
    """

    def __init__(self, function, *, jit):
        self.function = function
        self.jit = jit
        self._traced = bilevel.traced(function, jit=jit)
        self._derivative = None

    def __call__(self, *arguments):
        @tf.custom_gradient
        def call(*arguments):
            if tf.config.functions_run_eagerly():
                outputs = self.function(*arguments)
            else:
                function = self._traced.get_concrete_function(*arguments)
                # A tape that saw this call would trace a gradient of its own.
                with record.stop_recording():
                    outputs = function(*arguments)

            def gradient(*cotangents):
                return self.derivative(len(outputs))(*cotangents, *arguments)

            return outputs, gradient

        return call(*arguments)

    def derivative(self, num_outputs):
        """Returns the gradient, a function of cotangents and arguments."""
        if self._derivative is None:

            def function(*values):
                cotangents = values[:num_outputs]
                arguments = values[num_outputs:]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(arguments)
                    outputs = self.function(*arguments)
                return tape.gradient(
                    outputs,
                    arguments,
                    cotangents,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )

            self._derivative = Recomputed(function, jit=self.jit)
        return self._derivative
