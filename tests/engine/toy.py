"""A tiny model with every kind of state that a training can have.

    python -m tests.engine.toy FOLDER STEP

trains it in FOLDER and is killed before its STEP-th step.
"""

import os
import signal
import sys

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from att_darts_tf.engine import callbacks, devices, optimizers, training

EPOCHS = 3
STEPS = 5
BATCH = 4


class Toy(keras.Model):
    """A regression with noise, moving statistics and two optimizers."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.normalization = keras.layers.BatchNormalization()
        self.noise = keras.random.SeedGenerator(7)
        self.gain = self.add_weight(name="gain", initializer="ones")
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.traces = 0
        self.build((None, 2))

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.normalization.build((None, 3))
        self.built = True

    def call(self, inputs, training=False):
        inputs += keras.random.normal(tf.shape(inputs), seed=self.noise)
        maps = self.normalization(self.dense(inputs), training=training)
        return self.gain * maps

    def compile(self, **kwargs):
        super().compile(
            optimizer=optimizers.SGD(0.1, momentum=0.9),
            jit_compile=False,
            **kwargs,
        )
        self.gain_optimizer = optimizers.Adam(0.01)
        self.optimizer.build(self.dense.trainable_variables)
        self.gain_optimizer.build([self.gain])

    def train_step(self, data):
        self.traces += 1
        inputs, targets = data
        weights = self.dense.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self(inputs, training=True)
            loss = tf.reduce_mean(tf.square(outputs - targets))
        *gradients, last = tape.gradient(loss, [*weights, self.gain])
        self.optimizer.apply(gradients, weights)
        self.gain_optimizer.apply([last], [self.gain])
        self.loss_tracker.update_state(loss, tf.shape(inputs)[0])
        return {"loss": self.loss_tracker.result()}


def dataset_for(epoch, first_step):
    """Returns batches that depend on the position only, the last smaller."""
    generator = np.random.default_rng(epoch)
    inputs = generator.normal(size=(STEPS * BATCH - 1, 2)).astype("float32")
    targets = inputs[:, :1]
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets))
    return dataset.batch(BATCH).skip(first_step)


class KillAt(keras.callbacks.Callback):
    """Kills this process before a step, counted over all epochs."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if self.step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.step -= 1


def train(folder, *, more=(), checkpoint_steps=2, epochs=EPOCHS):
    """Trains the toy and returns it and its history."""
    # As every stage does: alike in a test's process and in one of its own.
    devices.configure(
        ml_collections.ConfigDict({"engine": {"deterministic": True}})
    )
    keras.utils.set_random_seed(3)
    model = Toy()
    model.compile()
    history = training.fit(
        model,
        strategy=tf.distribute.get_strategy(),
        dataset_for=dataset_for,
        epochs=epochs,
        steps_per_epoch=STEPS,
        folder=folder,
        checkpoint_steps=checkpoint_steps,
        callbacks=[callbacks.RateSchedule(lambda e: 0.1 / (1 + e)), *more],
    )
    return model, history


if __name__ == "__main__":
    train(sys.argv[1], more=[KillAt(int(sys.argv[2]))])
