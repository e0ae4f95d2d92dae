import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import optimizers

RATES = [0.1, 0.1, 0.03, 0.01, 0.5]


def trajectory(optimizer, gradients):
    """Returns the variable after each step, at the rates of `RATES`."""
    variable = keras.Variable(np.zeros(3), dtype="float64")
    optimizer.build([variable])
    values = []
    for rate, gradient in zip(RATES, gradients):
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient)], [variable])
        values.append(np.asarray(variable.value))
    return np.array(values)


@pytest.fixture
def gradients():
    return np.random.default_rng(0).normal(size=(len(RATES), 3))


@pytest.fixture
def double_precision():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.usefixtures("double_precision")
def test_sgd_follows_the_formulas_of_pytorch(gradients):
    value, velocity, expected = np.zeros(3), np.zeros(3), []
    for rate, gradient in zip(RATES, gradients):
        velocity = 0.9 * velocity + gradient
        value = value - rate * velocity
        expected.append(value)
    np.testing.assert_allclose(
        trajectory(optimizers.SGD(0.1, momentum=0.9), gradients),
        expected,
        rtol=1e-12,
    )


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("epsilon", [1e-8, 0.1])
@pytest.mark.parametrize("beta_1", [0.5, 0.0])
def test_adam_follows_the_formulas_of_pytorch(gradients, beta_1, epsilon):
    value, mean, square, expected = np.zeros(3), 0.0, 0.0, []
    for step, (rate, gradient) in enumerate(zip(RATES, gradients), start=1):
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = 0.999 * square + 0.001 * gradient**2
        deviation = np.sqrt(square) / np.sqrt(1 - 0.999**step) + epsilon
        value = value - rate / (1 - beta_1**step) * mean / deviation
        expected.append(value)
    adam = optimizers.Adam(0.1, beta_1=beta_1, beta_2=0.999, epsilon=epsilon)
    np.testing.assert_allclose(
        trajectory(adam, gradients), expected, rtol=1e-12
    )


def test_adam_corrects_bias_in_single_precision():
    # `1 - 0.999` in float32 is 1.3e-5 off; a first step is the rate itself.
    variable = keras.Variable(np.zeros(1), dtype="float32")
    adam = optimizers.Adam(1.0, beta_1=0.5, beta_2=0.999)
    adam.apply([tf.constant([2.0])], [variable])
    np.testing.assert_allclose(np.asarray(variable.value), [-1.0], rtol=5e-7)


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.25, momentum=0.75),
        optimizers.Adam(0.25, beta_1=0.5, beta_2=0.75, epsilon=0.125),
    ],
)
def test_keras_file_keeps_optimizer_and_its_state(tmp_path, optimizer):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=type(optimizer).from_config(optimizer.get_config()))
    variables = model.trainable_variables
    gradients = [tf.ones_like(variable.value) for variable in variables]
    model.optimizer.apply(gradients, variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(optimizer)
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert len(loaded.optimizer.variables) > 2
    for one, other in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_direction_clips_the_whole_gradient_then_decays():
    gradients = [tf.constant([3.0]), tf.constant([0.0, 4.0])]
    variables = [tf.Variable([10.0]), tf.Variable([20.0, 30.0])]
    first, second = optimizers.update_direction(
        gradients, variables, clip_norm=1.0, weight_decay=0.1
    )
    # Norm 5, so the scale is 1 / (5 + 1e-6).
    scale = 1 / 5.000001
    np.testing.assert_allclose(first, [3 * scale + 1], rtol=1e-6)
    np.testing.assert_allclose(second, [2, 4 * scale + 3], rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 5.1])
def test_direction_leaves_small_gradients_as_they_are(clip_norm):
    gradient = np.float32([3.0, 4.0])
    (direction,) = optimizers.update_direction(
        [tf.constant(gradient)],
        [tf.Variable([1.0, 1.0])],
        clip_norm=clip_norm,
        weight_decay=0.0,
    )
    np.testing.assert_array_equal(direction, gradient)


def test_variable_without_gradient_is_neither_clipped_nor_decayed():
    directions = optimizers.update_direction(
        [None, tf.constant([1.0])],
        [tf.Variable([1.0]), tf.Variable([2.0])],
        clip_norm=5.0,
        weight_decay=0.5,
    )
    assert directions[0] is None
    np.testing.assert_array_equal(directions[1], [2.0])


def test_cosine_rate_begins_at_first_and_ends_one_step_above_last():
    rates = [
        optimizers.cosine_rate(epoch, epochs=50, first=0.025, last=0.001)
        for epoch in range(50)
    ]
    assert rates[0] == 0.025
    assert rates[25] == pytest.approx(0.013)
    assert rates[49] == pytest.approx(0.00102, abs=5e-6)
    assert rates == sorted(rates, reverse=True)


def test_exponential_rate_falls_by_one_factor():
    # ImageNet's recipe: 0.97 an epoch.
    rates = [
        optimizers.exponential_rate(epoch, first=0.1, decay=0.97)
        for epoch in range(250)
    ]
    expected = 0.1 * np.cumprod([1.0] + 249 * [0.97])
    np.testing.assert_allclose(rates, expected, rtol=1e-10)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_momentum_outside_its_range_is_refused(momentum):
    with pytest.raises(ValueError, match=r"`momentum` must lie in \[0, 1\)"):
        optimizers.SGD(0.1, momentum=momentum)
