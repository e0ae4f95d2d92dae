"""The alternating search: architecture weights, then weights, each step."""

import keras
import tensorflow as tf

from att_darts_tf.engine import devices, losses, metrics, optimizers
from att_darts_tf.search import bilevel, derive, tracing
from att_darts_tf.space import blocks, search_space


@blocks.serializable
class Search(keras.Model):
    """Trains a supernet's weights and architecture weights in alternation.

    A batch is a pair: one batch of the weight half of the training images and
    one of the architecture half. A step first updates the architecture weights
    with the gradient of the loss on the latter, then the weights with that on
    the former. Moving statistics change in the weight step only.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, algorithm 1.

    Args:
        supernet: Built `Supernet`.

    Example:

    >>> from att_darts_tf.data.input_pipeline import split_in_halves
    >>> from att_darts_tf.search.supernet import Supernet
    >>> supernet = Supernet(
    ...     num_classes=2, location="no_attention", channels=2, num_cells=1
    ... )
    >>> supernet.build((None, 8, 8, 3))
    >>> search = Search(supernet)
    >>> search.compile(
    ...     optimizers.SGD(0.025, momentum=0.9),
    ...     optimizers.Adam(3e-4, beta_1=0.5),
    ... )
    >>> dataset = tf.data.Dataset.from_tensor_slices(
    ...     (tf.random.normal((8, 8, 8, 3)), tf.range(8) % 2)
    ... )
    >>> pairs = split_in_halves(dataset, batch_size=2)
    >>> history = search.fit(pairs, epochs=1, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss', 'search_accuracy', 'search_loss']
    >>> len(search.genotype().normal.nodes)
    4
    """

    def __init__(self, supernet, **kwargs):
        super().__init__(**kwargs)
        if not supernet.built:
            raise ValueError(
                "`supernet` must be built, so that its variables exist. "
                "Received: a new one. Call `supernet.build((None, height, "
                "width, channels))` first"
            )
        self.supernet = supernet
        self.trackers = {
            name: metrics.Mean(name)
            for name in ("loss", "accuracy", "search_loss", "search_accuracy")
        }
        self.built = True

    def compile(
        self,
        weight_optimizer,
        architecture_optimizer,
        clip_norm=5.0,
        weight_decay=3e-4,
        architecture_weight_decay=1e-3,
        order="first",
        implicit="finite_difference",
        recompute="none",
        microbatch=0,
        jit=False,
        sync_batch_norm=False,
        **kwargs,
    ):
        """Sets both optimizers and how gradients become their directions.

        Args:
            weight_optimizer: Keras optimizer of the weights, without clipping
                and decay of its own.
            architecture_optimizer: The same of the architecture weights.
            clip_norm: Float, the largest global norm of the weights' gradient,
                or `None`.
            weight_decay: Float, added to the clipped gradient as an L2 term.
            architecture_weight_decay: The same for the architecture weights,
                whose gradient is not clipped.
            order: `"first"`, the gradient at the current weights, or
                `"second"`, that through a virtual step of the weights, which
                takes this project's `SGD`.
            implicit: `"finite_difference"` or `"exact"`, how the second order
                derives the virtual step.
            recompute: One of `search_space.RECOMPUTE`. The exact second
                order always takes `"all"`.
            microbatch: Integer. Most images that are computed at once, the
                gradients of the parts of a batch being averaged; 0 computes
                a batch at once. Less memory; each part is normalised by
                statistics of its own.
            jit: Boolean, whether XLA compiles mixed layers.
            sync_batch_norm: Boolean. Whether batch statistics are those of
                all replicas. The graph of a step then holds every mixed layer
                as often as it is computed, since TensorFlow lets replicas
                talk to each other nowhere else, and keeps all their maps.
            **kwargs: `run_eagerly`, as in `keras.Model.compile`.
        """
        # For the whole step XLA would spend minutes before the first one.
        super().compile(
            optimizer=weight_optimizer, **{"jit_compile": False, **kwargs}
        )
        self.architecture_optimizer = architecture_optimizer
        # `fit` would build the first on every trainable variable.
        self.optimizer.build(self.supernet.weight_variables)
        architecture_optimizer.build(self.supernet.architecture_variables)
        self.clip_norm = clip_norm
        self.weight_decay = weight_decay
        self.architecture_weight_decay = architecture_weight_decay
        for name, value, choices in (
            ("order", order, bilevel.ORDERS),
            ("implicit", implicit, bilevel.IMPLICIT),
            ("recompute", recompute, search_space.RECOMPUTE),
        ):
            if value not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(choices)}. "
                    f"Received: {name}={value!r}"
                )
        if order == "second" and not isinstance(
            weight_optimizer, optimizers.SGD
        ):
            raise ValueError(
                "`weight_optimizer` must be an att_darts_tf.engine.optimizers."
                "SGD for order='second', whose virtual step is one of it. "
                f"Received: {type(weight_optimizer).__name__}"
            )
        self.order = order
        self.implicit = implicit
        self.mode = tracing.Mode(
            # Keeping maps it would trace each layer several times.
            recompute="all"
            if order == "second" and implicit == "exact"
            else recompute,
            jit=jit,
            inline=sync_batch_norm,
        )
        if microbatch < 0 or microbatch == 1:
            raise ValueError(
                "`microbatch` must be 0 or at least 2, since one image has no "
                f"batch statistics. Received: microbatch={microbatch!r}"
            )
        if microbatch and sync_batch_norm:
            raise ValueError(
                "`microbatch` must be 0 beside `sync_batch_norm`: statistics "
                "are either those of a part of a batch or those of all its "
                f"parts. Received: microbatch={microbatch!r}"
            )
        self.microbatch = microbatch
        self.gradients = (
            _GradientsInParts(self.loss_at, microbatch)
            if microbatch
            else bilevel.Gradients(self.loss_at, inline=sync_batch_norm)
        )

    def call(self, images, training=False):
        return self.supernet(images, training=training)

    def compute_output_shape(self, input_shape):
        return self.supernet.compute_output_shape(input_shape)

    def train_step(self, batches):
        train_batch, search_batch = _checked_pair(batches)
        with blocks.batch_of_all(
            devices.all_reduce_sum if self.mode.inline else None
        ):
            self.update_architecture(train_batch, search_batch)
            self.update_weights(train_batch)
        return {name: each.result() for name, each in self.trackers.items()}

    def test_step(self, batch):
        """Judges the supernet on a batch of images and labels."""
        images, labels = batch
        logits = self.supernet(images, training=False)
        loss = losses.cross_entropy(labels, logits)
        share = devices.share(tf.size(labels), loss.dtype)
        self._track("", batch, loss * share, logits)
        return {
            name: self.trackers[name].result() for name in ("loss", "accuracy")
        }

    def update_architecture(self, train_batch, search_batch):
        """Moves the architecture weights against the search gradient."""
        variables = self.supernet.architecture_variables
        gradients, loss, (logits, _) = self.architecture_gradient(
            train_batch, search_batch
        )
        directions = optimizers.update_direction(
            gradients,
            variables,
            clip_norm=None,
            weight_decay=self.architecture_weight_decay,
        )
        self.architecture_optimizer.apply(directions, variables)
        self._track("search_", search_batch, loss, logits)

    def architecture_gradient(self, train_batch, search_batch):
        """Returns the gradient by the order, and the loss and its logits.

        Args:
            train_batch: Pair of images and labels from the weight half; the
                first order does not read it.
            search_batch: The same from the architecture half.

        Returns:
            As `bilevel.Gradients.architecture`.
        """
        values = self._values()
        search_batch = self._with_statistics(search_batch)
        if self.order == "first":
            return self.gradients.architecture(*values, search_batch)
        step = bilevel.VirtualStep(
            rate=self.optimizer.learning_rate,
            momentum=self.optimizer.momentum,
            velocities=_tensors(self.optimizer.velocities),
            weight_decay=self.weight_decay,
        )
        return bilevel.second_order(
            self.gradients,
            *values,
            self._with_statistics(train_batch),
            search_batch,
            step=step,
            implicit=self.implicit,
        )

    def update_weights(self, batch):
        """Moves the weights against the training gradient."""
        variables = self.supernet.weight_variables
        gradients, loss, (logits, statistics) = self.weight_gradient(batch)
        directions = optimizers.update_direction(
            gradients,
            variables,
            clip_norm=self.clip_norm,
            weight_decay=self.weight_decay,
        )
        self.optimizer.apply(directions, variables)
        for variable, value in zip(
            self.supernet.non_trainable_variables, statistics, strict=True
        ):
            variable.assign(value)
        self._track("", batch, loss, logits)

    def weight_gradient(self, batch):
        """Returns the gradient of the weights.

        Args:
            batch: Pair of images and labels.

        Returns:
            As `bilevel.Gradients.weights`; the rest are the logits and the
            moving statistics after the batch.
        """
        values, batch = self._values(), self._with_statistics(batch)
        if self.order == "first":
            return self.gradients.weights(*values, batch)
        # Traced already for the virtual step.
        gradients, _, *rest = self.gradients.both(*values, batch)
        return gradients, *rest

    def loss_at(self, weights, architecture, batch, constants):
        """Returns this replica's share of the loss at given values.

        Batch statistics are used, and no variable is changed.

        Args:
            weights: Tensors in the order of `supernet.weight_variables`.
            architecture: Tensors in the order of
                `supernet.architecture_variables`.
            batch: Images, labels, the moving statistics, tensors in the
                order of `supernet.non_trainable_variables`, and the share of
                this replica's images.
            constants: See `tracing.Mode`.

        Returns:
            A scalar; and the logits with the moving statistics after the
            batch.
        """
        images, labels, statistics, share = batch
        values = {
            id(variable): value
            for variables, given in (
                (self.supernet.weight_variables, weights),
                (self.supernet.architecture_variables, architecture),
            )
            for variable, value in zip(variables, given, strict=True)
        }
        logits, moved = self.supernet.stateless_call(
            [values[id(v)] for v in self.supernet.trainable_variables],
            statistics,
            images,
            training=True,
            mode=self.mode._replace(constants=tuple(constants)),
        )
        loss = losses.cross_entropy(labels, logits)
        return loss * tf.cast(share, loss.dtype), (logits, moved)

    def _values(self):
        return (
            _tensors(self.supernet.weight_variables),
            _tensors(self.supernet.architecture_variables),
        )

    def _with_statistics(self, batch):
        _, labels = batch
        statistics = self.supernet.non_trainable_variables
        # Out here: within, replicas may not talk to each other.
        share = devices.share(tf.size(labels), "float64")
        return *batch, _tensors(statistics), share

    def genotype(self):
        """Returns the `Genotype` that the architecture weights stand for."""
        return derive.derive(
            self.supernet.architecture(), self.supernet.location
        )

    def _track(self, prefix, batch, loss, logits):
        _, labels = batch
        metrics.update(
            self.trackers[f"{prefix}loss"],
            self.trackers[f"{prefix}accuracy"],
            loss=loss,
            labels=labels,
            logits=logits,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "supernet": keras.saving.serialize_keras_object(self.supernet),
        }

    @classmethod
    def from_config(cls, config):
        supernet = keras.saving.deserialize_keras_object(config["supernet"])
        return cls(**{**config, "supernet": supernet})

    def get_compile_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "weight_optimizer": serialize(self.optimizer),
            "architecture_optimizer": serialize(self.architecture_optimizer),
            "clip_norm": self.clip_norm,
            "weight_decay": self.weight_decay,
            "architecture_weight_decay": self.architecture_weight_decay,
            "order": self.order,
            "implicit": self.implicit,
            "recompute": self.mode.recompute,
            "jit": self.mode.jit,
            "microbatch": self.microbatch,
            "sync_batch_norm": self.mode.inline,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))


class _GradientsInParts(bilevel.Gradients):
    """Gradients of a batch as averages over its parts, one after the other.

    Parts are as equal as can be, and none is of one image. Moving statistics
    pass from part to part.

    Args:
        loss_fn: `Search.loss_at`.
        size: Integer. Most images of a part.
    """

    def __init__(self, loss_fn, size):
        super().__init__(loss_fn)
        self.size = size

    def evaluate(self, function, weights, architecture, batch, *others):
        images, labels, statistics, whole = batch
        total = tf.shape(images)[0]
        count = tf.maximum(1, tf.minimum(-(-total // self.size), total // 2))

        def part(i, statistics):
            begin, end = i * total // count, (i + 1) * total // count
            *averages, (logits, moved) = function(
                weights,
                architecture,
                (images[begin:end], labels[begin:end], statistics, whole),
                *others,
            )
            share = (end - begin) / total
            averages = tf.nest.map_structure(
                lambda value: tf.cast(share, value.dtype) * value, averages
            )
            return averages, logits, moved

        def add(i, sums, outputs, statistics):
            averages, logits, moved = part(i, statistics)
            sums = tf.nest.map_structure(tf.add, sums, averages)
            return i + 1, sums, outputs.write(i, logits), moved

        averages, logits, moved = part(0, statistics)
        outputs = tf.TensorArray(
            logits.dtype,
            size=count,
            infer_shape=False,
            element_shape=(None, logits.shape[-1]),
        ).write(0, logits)
        _, sums, outputs, moved = tf.while_loop(
            lambda i, *_: i < count,
            add,
            (1, averages, outputs, moved),
            parallel_iterations=1,
        )
        return *sums, (outputs.concat(), moved)


def _tensors(variables):
    # Given variables once and tensors once, a function would be traced twice.
    return [tf.convert_to_tensor(v) for v in variables]


def _checked_pair(batches):
    def is_batch(value):
        return isinstance(value, (tuple, list)) and len(value) == 2

    if not is_batch(batches) or not all(map(is_batch, batches)):
        raise ValueError(
            "A batch of a search must be a pair of batches, ((images, labels), "
            "(images, labels)), of the weight half and of the architecture "
            "half. Received another structure. Make such a dataset with "
            "`att_darts_tf.split_in_halves(dataset, batch_size=64)`"
        )
    return batches
