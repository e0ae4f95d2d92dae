"""What the networks of this project share: how one is trained and judged."""

import keras
import numpy as np
import tensorflow as tf

from att_darts_tf.engine import devices, losses, metrics, optimizers
from att_darts_tf.space import blocks


class Classifier(keras.Model):
    """A network from images to classes, with its step of training.

    A kind of network defines `build`, which sets `image_shape`, and `call`;
    one with an auxiliary head, which takes part in training only, sets
    `auxiliary_head` and overrides `training_logits`.

    Args:
        num_classes: Integer.

    Input shape: `(batch, height, width, channels)`, normalised images.
    Output shape: `(batch, num_classes)`, logits.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        check_integer("num_classes", num_classes, least=1)
        self.num_classes = num_classes
        self.image_shape = None
        self.auxiliary_head = None
        self.loss_tracker = metrics.Mean("loss")
        self.accuracy_tracker = metrics.Mean("accuracy")

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def set_progress(self, fraction):
        """Tells the share of epochs done, which a network may depend on.

        Args:
            fraction: Float in [0, 1].
        """

    def training_logits(self, images):
        """Returns the logits in training, then those of auxiliary heads.

        Args:
            images: Tensor of shape `(batch, height, width, channels)`.
        """
        return [self(images, training=True)]

    def compile(
        self,
        optimizer,
        clip_norm=5.0,
        weight_decay=3e-4,
        auxiliary_weight=0.4,
        label_smoothing=0.0,
        sync_batch_norm=False,
        **kwargs,
    ):
        """Prepares a built network for `fit` and `evaluate`.

        Args:
            optimizer: Keras optimizer, without clipping and decay of its own.
            clip_norm: Float, the largest global norm of the gradient, or
                `None`.
            weight_decay: Float, added to the clipped gradient as an L2 term.
            auxiliary_weight: Float. Share of an auxiliary head's loss.
            label_smoothing: Float, as in `losses.cross_entropy`; training's
                alone.
            sync_batch_norm: Boolean. Whether batch statistics are those of
                all replicas.
            **kwargs: `run_eagerly`, `steps_per_execution` and `jit_compile`
                (`False` if not given), as in `keras.Model.compile`.
        """
        if not self.built:
            raise ValueError(
                "A network must be built before it is compiled. Received: a "
                "new one. Make it with `network.create`, or call `build` "
                "first"
            )
        # XLA would spend minutes before the first step on a CPU.
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        self.optimizer.build(self.trainable_variables)
        self.clip_norm = clip_norm
        self.weight_decay = weight_decay
        self.auxiliary_weight = auxiliary_weight
        self.label_smoothing = label_smoothing
        self.sync_batch_norm = sync_batch_norm

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "clip_norm": self.clip_norm,
            "weight_decay": self.weight_decay,
            "auxiliary_weight": self.auxiliary_weight,
            "label_smoothing": self.label_smoothing,
            "sync_batch_norm": self.sync_batch_norm,
            "jit_compile": self.jit_compile,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        images, labels = data
        variables = self.trainable_variables
        total = devices.all_reduce_sum if self.sync_batch_norm else None
        with blocks.batch_of_all(total), tf.GradientTape() as tape:
            logits, *auxiliary = self.training_logits(images)
            loss = self._training_loss(labels, logits)
            for auxiliary_logits in auxiliary:
                loss += self.auxiliary_weight * self._training_loss(
                    labels, auxiliary_logits
                )
            loss *= devices.share(tf.size(labels), loss.dtype)
        gradients = tape.gradient(loss, [v.value for v in variables])
        directions = optimizers.update_direction(
            gradients,
            variables,
            clip_norm=self.clip_norm,
            weight_decay=self.weight_decay,
        )
        # A network may hold layers that the output does not depend on.
        known = [
            pair for pair in zip(directions, variables) if pair[0] is not None
        ]
        self.optimizer.apply(*zip(*known))
        return self._update_metrics(labels, logits, loss)

    def test_step(self, data):
        images, labels = data
        logits = self(images, training=False)
        loss = losses.cross_entropy(labels, logits)
        loss *= devices.share(tf.size(labels), loss.dtype)
        return self._update_metrics(labels, logits, loss)

    def num_parameters(self, *, auxiliary=False):
        """Returns the number of trained weights.

        Args:
            auxiliary: Boolean. Whether to count the auxiliary head, which
                published figures leave out.
        """
        counted = {
            id(variable): int(np.prod(variable.shape))
            for variable in self.trainable_variables
        }
        if not auxiliary and self.auxiliary_head is not None:
            for variable in self.auxiliary_head.trainable_variables:
                del counted[id(variable)]
        return sum(counted.values())

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def _training_loss(self, labels, logits):
        return losses.cross_entropy(
            labels, logits, smoothing=self.label_smoothing
        )

    def _update_metrics(self, labels, logits, loss):
        metrics.update(
            self.loss_tracker,
            self.accuracy_tracker,
            loss=loss,
            labels=labels,
            logits=logits,
        )
        return {
            "loss": self.loss_tracker.result(),
            "accuracy": self.accuracy_tracker.result(),
        }


def check_integer(name, value, *, least):
    """Raises `ValueError` for an argument that is no such integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: "
            f"{name}={value!r}"
        )
