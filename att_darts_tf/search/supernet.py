"""The network that holds every architecture of a search space at once."""

import keras
import tensorflow as tf

from att_darts_tf.search import bilevel
from att_darts_tf.search.cell import SearchCell
from att_darts_tf.search.tracing import DEFAULT_MODE, SharedTraces
from att_darts_tf.space import blocks, search_space

STEM_MULTIPLIER = 3


@blocks.serializable
class Supernet(keras.Model):
    """A stack of cells whose edges mix all candidates.

    Its trainable variables are two disjoint lists: `weight_variables` and
    `architecture_variables`, the latter before the softmax.

    Source: Nakai et al., 2020, section III; Liu et al., 2019,
    https://arxiv.org/abs/1806.09055, section 3.1.1 (the skeleton).

    Args:
        num_classes: Integer.
        location: String. Where attention goes, a key of `SEARCH_SPACES`.
        channels: Integer. Channels of a node in the first cells; doubled in
            each reduction cell.
        num_cells: Integer. Cells `num_cells // 3` and `2 * num_cells // 3`
            are reduction cells.
        batched: Boolean. `False` computes every candidate of every edge as a
            plain layer: slow, the same numbers.

    Input shape: `(batch, height, width, channels)`, normalised images of any
    size and number of channels.
    Output shape: `(batch, num_classes)`, logits.

    Example:

    >>> supernet = Supernet(num_classes=10, channels=4, num_cells=1)
    >>> supernet.build((None, 8, 8, 3))
    >>> supernet(tf.zeros((2, 8, 8, 3))).shape
    TensorShape([2, 10])
    >>> [variable.name for variable in supernet.architecture_variables]
    ['alphas_normal', 'alphas_reduce', 'betas_normal', 'betas_reduce']
    """

    def __init__(
        self,
        num_classes=10,
        location="after_every",
        channels=16,
        num_cells=8,
        batched=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.space = search_space.get(location)
        for name, value in (
            ("num_classes", num_classes),
            ("channels", channels),
            ("num_cells", num_cells),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
        self.num_classes = num_classes
        self.location = location
        self.channels = channels
        self.num_cells = num_cells
        self.batched = batched

    def build(self, input_shape):
        policy = self.dtype_policy
        # Architecture weights keep full precision under a mixed policy.
        precise = "float64" if self.compute_dtype == "float64" else "float32"
        self.architecture_variables = [
            self.add_weight(
                name=name,
                shape=shape,
                # Source: Liu et al., 2019, released code, model_search.py.
                initializer=keras.initializers.RandomNormal(stddev=1e-3),
                dtype=precise,
                autocast=False,
            )
            for name, shape in self.space.architecture_shapes().items()
        ]
        stem_channels = STEM_MULTIPLIER * self.channels
        self.stem = blocks.Convolution(
            stem_channels, 3, dtype=policy, name="stem"
        )
        self.stem_normalization = blocks.BatchNormalization(
            dtype=policy, name="stem_normalization"
        )
        self.stem.build(input_shape)
        shape = (*input_shape[:-1], stem_channels)
        self.stem_normalization.build(shape)
        shapes = [shape, shape]
        channels, reduction_before = self.channels, False
        self.cells = []
        traces = SharedTraces()
        for i in range(self.num_cells):
            reduction = i in search_space.reduction_cells(self.num_cells)
            channels *= 2 if reduction else 1
            cell = SearchCell(
                self.location,
                channels,
                reduction=reduction,
                reduction_before=reduction_before,
                batched=self.batched,
                traces=traces,
                dtype=policy,
                name=f"cell_{i}",
            )
            cell.build(shapes)
            shapes = [shapes[1], cell.compute_output_shape(shapes)]
            reduction_before = reduction
            self.cells.append(cell)
        self.classifier = blocks.dense(
            self.num_classes, shapes[1][-1], dtype=policy, name="classifier"
        )

    def call(self, images, training=False, mode=DEFAULT_MODE):
        """Returns the logits.

        Args:
            images: Tensor.
            training: Boolean.
            mode: `tracing.Mode`.
        """
        weights = self.relative_weights()
        state = self.stem_normalization(self.stem(images), training=training)
        states = [state, state]
        again = search_space.recomputed_cells(mode.recompute, self.num_cells)
        for i, cell in enumerate(self.cells):
            # Architecture weights do not reach the stem.
            num_constant = (
                max(0, 2 - i) if bilevel.WEIGHTS in mode.constants else 0
            )
            outputs = cell(
                states,
                weights["reduce" if cell.reduction else "normal"],
                training=training,
                mode=mode,
                recompute=i < again,
                num_constant=num_constant,
            )
            states = [states[1], outputs]
        features = tf.reduce_mean(states[1], (1, 2))
        logits = self.classifier(features)
        return tf.cast(logits, tf.as_dtype(self.variable_dtype))

    def relative_weights(self):
        """Returns the softmaxed rows: a list of stages by cell name."""
        return {
            cell: [
                tf.cast(
                    tf.nn.softmax(tf.convert_to_tensor(variable)),
                    self.compute_dtype,
                )
                for variable in self.architecture_variables
                if variable.name.endswith(cell)
            ]
            for cell in search_space.CELL_NAMES
        }

    @property
    def weight_variables(self):
        """The trainable variables that are no architecture weights."""
        others = {id(variable) for variable in self.architecture_variables}
        return [v for v in self.trainable_variables if id(v) not in others]

    def architecture(self):
        """Returns the architecture weights by name, as NumPy arrays."""
        return {
            variable.name: variable.numpy()
            for variable in self.architecture_variables
        }

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "location": self.location,
            "channels": self.channels,
            "num_cells": self.num_cells,
            "batched": self.batched,
        }
