"""One trace for all layers that compute the same function.

A supernet repeats few kinds of layers many times. Traced apart, building the
graph takes minutes; here all layers of one kind call one function with their
own values, so each kind is traced, differentiated and optimised once.
"""

import tensorflow as tf

from att_darts_tf.search import bilevel


class SharedTraces:
    """Calls layers through one traced function for each kind.

    Layers are of one kind if their class, `signature()` and shapes are the
    same. Their variables are arguments, so gradients and `stateless_call`
    pass through, and moving statistics are assigned by the caller's layer.
    """

    def __init__(self):
        self._functions = {}

    def call(self, layer, inputs, weights, *, training, constants):
        """Calls `layer(inputs, weights, training=training)`.

        Args:
            layer: Built layer with a method `signature`, whose result and
                input shape determine what it computes.
            inputs: Tensor of shape `(batch, height, width, channels)`.
            weights: Tensor of shape `(edges, candidates)`.
            training: Boolean.
            constants: See `Supernet.call`.
        """
        kind = (
            type(layer),
            layer.signature(),
            layer.dtype_policy.name,
            inputs.dtype,
            tuple(inputs.shape[1:]),
            bool(training),
            tuple(constants),
        )
        if kind not in self._functions:
            self._functions[kind] = _traced(
                layer, training=bool(training), constants=constants
            )
        statistics = layer.non_trainable_variables
        outputs, moved = self._functions[kind](
            # Not the variables themselves, for which it is traced once more.
            [tf.convert_to_tensor(v) for v in layer.trainable_variables],
            [tf.convert_to_tensor(v) for v in statistics],
            inputs,
            weights,
        )
        if training:
            for variable, value in zip(statistics, moved, strict=True):
                variable.assign(value)
        return outputs


def _traced(template, *, training, constants):
    @tf.function(
        autograph=False,
        reduce_retracing=True,
        # Kept out of line, a kind is optimised once, not at every call.
        experimental_attributes={"_noinline": True},
    )
    def call(trainable, statistics, inputs, weights):
        if bilevel.WEIGHTS in constants:
            trainable = [tf.stop_gradient(value) for value in trainable]
        if bilevel.ARCHITECTURE in constants:
            weights = tf.stop_gradient(weights)
        return template.stateless_call(
            trainable, statistics, inputs, weights, training=training
        )

    return call
