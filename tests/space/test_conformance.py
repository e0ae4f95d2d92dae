"""What holds of every registered operation and attention.

A new name is tested by being registered: see docs/extending.md.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.network import cost
from att_darts_tf.space import search_space
from att_darts_tf.space.attentions import ATTENTIONS
from att_darts_tf.space.operations import OPERATIONS

CHANNELS = 32
KINDS = [
    *((name, stride) for name in OPERATIONS.names() for stride in (1, 2)),
    *((name, 1) for name in ATTENTIONS.names()),
]


def create(name, stride, **options):
    if name in OPERATIONS:
        options.update(channels=CHANNELS, stride=stride, affine=True)
        return OPERATIONS.create(name, **options)
    return ATTENTIONS.create(name, **options)


def maps(*shape):
    generator = np.random.default_rng(0)
    return tf.constant(generator.normal(size=(*shape, CHANNELS)), tf.float32)


def built(name, stride, shape):
    keras.utils.set_random_seed(0)
    layer = create(name, stride)
    layer.build((None, *shape, CHANNELS))
    return layer


def test_registries_hold_the_names_that_genotypes_may_use():
    assert set(OPERATIONS.names()) == {
        *search_space.OPERATION_NAMES,
        *search_space.EXTRA_OPERATION_NAMES,
    }
    assert ATTENTIONS.names() == search_space.ATTENTION_NAMES


@pytest.mark.parametrize("name, stride", KINDS)
class TestEveryLayer:
    @pytest.mark.parametrize("shape", [(8, 8), (7, 10), (2, 2), (1, 1)])
    def test_has_the_promised_shape(self, name, stride, shape):
        layer = built(name, stride, shape)
        outputs = layer(maps(2, *shape), training=True)
        height, width = (-(-side // stride) for side in shape)
        assert outputs.shape == (2, height, width, CHANNELS)
        promised = layer.compute_output_shape((2, *shape, CHANNELS))
        assert tuple(promised) == tuple(outputs.shape)

    def test_reaches_every_weight_with_a_finite_gradient(self, name, stride):
        layer = built(name, stride, (8, 8))
        inputs = maps(3, 8, 8)
        direction = tf.constant(
            np.random.default_rng(1).normal(
                size=layer.compute_output_shape(inputs.shape)
            ),
            tf.float32,
        )
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs * direction)
        sources = [inputs, *(v.value for v in layer.trainable_variables)]
        gradients = tape.gradient(loss, sources)
        assert np.isfinite(outputs).all()
        for gradient in gradients if name != search_space.NONE else []:
            assert np.isfinite(gradient).all()
            assert np.any(gradient)

    def test_says_how_much_it_multiplies(self, name, stride):
        assert cost.multiply_adds(built(name, stride, (8, 8))) >= 0

    def test_serves_each_image_as_if_it_were_alone(self, name, stride):
        layer = built(name, stride, (8, 8))
        inputs = maps(3, 8, 8)
        layer(inputs, training=True)
        together = layer(inputs, training=False)
        alone = [layer(image[None], training=False) for image in inputs]
        np.testing.assert_allclose(
            together, tf.concat(alone, 0), rtol=1e-5, atol=1e-6
        )

    def test_survives_its_configuration(self, name, stride):
        layer = built(name, stride, (8, 8))
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(layer)
        )
        if not copy.built:
            copy.build((None, 8, 8, CHANNELS))
        copy.set_weights(layer.get_weights())
        inputs = maps(2, 8, 8)
        np.testing.assert_array_equal(copy(inputs), layer(inputs))
