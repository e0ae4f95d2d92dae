"""The network of a genotype, as a Keras model."""

import zipfile

import keras
import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.engine import devices
from att_darts_tf.errors import UsageError
from att_darts_tf.network.cell import Cell
from att_darts_tf.network.classifier import Classifier, check_integer
from att_darts_tf.network.densenet import DenseNet
from att_darts_tf.space import (
    blocks,
    published,
    registry,
    search_space,
    trained,
)
from att_darts_tf.space.genotype import Genotype

# By the stem, the side of the maps that the auxiliary head pools, and the
# stride of its pooling. The released code says 14 of large images, but its
# classifier fits 7, which is what 224 x 224 images come to.
_AUXILIARY_POOLING = {"small": (8, 3), "imagenet": (7, 2)}


@blocks.serializable
class SmallStem(keras.layers.Layer):
    """Convolution and normalisation: the stem for small images.

    Source: Liu et al., 2019; the released code's `NetworkCIFAR`.

    Args:
        filters: Integer. Output channels.

    Input shape: `(batch, height, width, channels)`.
    Output shape: pair of twice the same `(batch, height, width, filters)`.
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.convolution = blocks.Convolution(
            filters, 3, dtype=self.dtype_policy, name="convolution"
        )
        self.normalization = blocks.BatchNormalization(
            dtype=self.dtype_policy, name="normalization"
        )

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.normalization.build((*input_shape[:-1], self.filters))

    def call(self, inputs):
        maps = self.normalization(self.convolution(inputs))
        return maps, maps

    def compute_output_shape(self, input_shape):
        shape = (*input_shape[:-1], self.filters)
        return shape, shape

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@blocks.serializable
class LargeStem(keras.layers.Layer):
    """Three convolutions of stride 2: the stem for images as of ImageNet.

    Source: Liu et al., 2019; the released code's `NetworkImageNet`.

    Args:
        filters: Integer. Output channels.

    Input shape: `(batch, height, width, channels)`.
    Output shape: pair `(batch, height / 4, width / 4, filters)` and
    `(batch, height / 8, width / 8, filters)`, sizes rounded up.
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        policy = self.dtype_policy
        self.convolutions = [
            blocks.Convolution(
                width, 3, 2, dtype=policy, name=f"convolution_{i}"
            )
            for i, width in enumerate((filters // 2, filters, filters))
        ]
        self.normalizations = [
            blocks.BatchNormalization(dtype=policy, name=f"normalization_{i}")
            for i in range(3)
        ]

    def build(self, input_shape):
        shape = input_shape
        for convolution, normalization in zip(
            self.convolutions, self.normalizations, strict=True
        ):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            normalization.build(shape)

    def call(self, inputs):
        maps = self.normalizations[0](self.convolutions[0](inputs))
        maps = self.convolutions[1](tf.nn.relu(maps))
        first = self.normalizations[1](maps)
        maps = self.convolutions[2](tf.nn.relu(first))
        return first, self.normalizations[2](maps)

    def compute_output_shape(self, input_shape):
        shape = (*input_shape[:-1], self.filters)
        for _ in range(2):
            shape = blocks.strided_shape(shape, 2)
        return shape, blocks.strided_shape(shape, 2)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


_STEMS = {"small": SmallStem, "imagenet": LargeStem}


@blocks.serializable
class AuxiliaryHead(keras.layers.Layer):
    """A classifier in the middle of a network, for training only.

    Its kernels fit one size of map; others are brought to it by adaptive
    averaging.

    Source: Liu et al., 2019; the released code's `AuxiliaryHeadCIFAR` and
    `AuxiliaryHeadImageNet`, which has no normalisation after its second
    convolution.

    Args:
        num_classes: Integer.
        stem: `"small"` or `"imagenet"`, as in `Network`.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, num_classes)`, logits.
    """

    def __init__(self, num_classes, stem="small", **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.stem = stem
        self.side, self.stride = _AUXILIARY_POOLING[stem]

    def build(self, input_shape):
        policy = self.dtype_policy
        self.squeeze = blocks.Convolution(128, dtype=policy, name="squeeze")
        self.squeeze.build((None, 2, 2, input_shape[-1]))
        self.squeeze_normalization = blocks.BatchNormalization(
            dtype=policy, name="squeeze_normalization"
        )
        self.squeeze_normalization.build((None, 2, 2, 128))
        self.features = blocks.Convolution(
            768, 2, padding="valid", dtype=policy, name="features"
        )
        self.features.build((None, 2, 2, 128))
        self.features_normalization = None
        if self.stem == "small":
            self.features_normalization = blocks.BatchNormalization(
                dtype=policy, name="features_normalization"
            )
            self.features_normalization.build((None, 1, 1, 768))
        # Logits stay in full precision under a mixed policy.
        self.classifier = blocks.dense(
            self.num_classes, 768, dtype=self.variable_dtype, name="classifier"
        )

    def call(self, inputs):
        maps = adaptive_average_pool(tf.nn.relu(inputs), size=self.side)
        maps = tf.nn.avg_pool2d(maps, 5, self.stride, "VALID")
        maps = tf.nn.relu(self.squeeze_normalization(self.squeeze(maps)))
        maps = self.features(maps)
        if self.features_normalization is not None:
            maps = self.features_normalization(maps)
        return self.classifier(tf.nn.relu(maps)[:, 0, 0])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "stem": self.stem,
        }


@blocks.serializable
class Network(Classifier):
    """A stack of a genotype's cells with a classifier.

    Cells `cells // 3` and `2 * cells // 3` are reduction cells, with twice the
    channels from there on.

    Source: Nakai et al., 2020; Liu et al., 2019,
    https://arxiv.org/abs/1806.09055, section 3.

    Args:
        genotype: `Genotype`, or its JSON.
        num_classes: Integer.
        channels: Integer. Channels of the states of the first cells.
        cells: Integer. Number of cells.
        auxiliary: Boolean. Whether the network has an auxiliary head, which
            takes part in training only.
        drop_path: Float in [0, 1). Probability of dropping an edge that
            `set_progress(1.0)` would set; 0 builds none.
        stem: `"small"`, or `"imagenet"` for large images.
        frozen: Boolean. Whether stem and cells keep their weights and
            statistics in training; without `auxiliary` and `drop_path`.

    Input shape: `(batch, height, width, channels)`, normalised images.
    Output shape: `(batch, num_classes)`, logits; a pair of such with
    `auxiliary=True`.

    Example:

    >>> network = Network.from_genotype(
    ...     "att_darts",
    ...     image_shape=(32, 32, 3),
    ...     num_classes=10,
    ...     channels=4,
    ...     cells=1,
    ... )
    >>> network(tf.zeros((2, 32, 32, 3))).shape
    TensorShape([2, 10])
    >>> network.genotype.normal.concat
    (2, 3, 4, 5)
    """

    def __init__(
        self,
        genotype,
        num_classes,
        channels=36,
        cells=20,
        auxiliary=False,
        drop_path=0.0,
        stem="small",
        frozen=False,
        **kwargs,
    ):
        super().__init__(num_classes, **kwargs)
        if isinstance(genotype, str):
            genotype = Genotype.from_json(genotype)
        check_integer("cells", cells, least=1)
        check_integer("channels", channels, least=1)
        if not 0 <= drop_path < 1:
            raise ValueError(
                "`drop_path` must lie in [0, 1). Received: "
                f"drop_path={drop_path!r}"
            )
        if stem not in _STEMS:
            raise ValueError(
                f"`stem` must be one of {sorted(_STEMS)}. Received: "
                f"stem={stem!r}"
            )
        if frozen and (auxiliary or drop_path):
            raise ValueError(
                "`frozen` trains the last classifier alone, without auxiliary "
                f"head and drop path. Received: auxiliary={auxiliary!r}, "
                f"drop_path={drop_path!r}"
            )
        self.genotype = genotype
        self.channels = channels
        self.auxiliary = auxiliary
        self.drop_path = drop_path
        self.stem_name = stem
        self.frozen = frozen
        # Of layers that are not trained here; `build` counts them.
        self.frozen_parameters = 0
        policy = self.dtype_policy
        multiplier = 3 if stem == "small" else 1
        self.stem = _STEMS[stem](
            multiplier * channels, dtype=policy, name="stem"
        )
        reductions = search_space.reduction_cells(cells)
        self.cells = []
        previous_reduction = stem == "imagenet"
        for i in range(cells):
            reduction = i in reductions
            if reduction:
                channels *= 2
            self.cells.append(
                Cell(
                    genotype.reduce if reduction else genotype.normal,
                    channels,
                    reduction,
                    previous_reduction,
                    dtype=policy,
                    name=f"cell_{i}",
                )
            )
            previous_reduction = reduction
        self.auxiliary_after = reductions[1]
        if auxiliary:
            self.auxiliary_head = AuxiliaryHead(
                num_classes, stem, dtype=policy, name="auxiliary_head"
            )
        # A weight, unlike a `SeedGenerator`, is in `.keras` files too, so that
        # a network read from one draws on.
        self.draw_seed = self.add_weight(
            name="draw_seed",
            shape=(2,),
            dtype="int64",
            initializer=_random_seed,
            trainable=False,
        )
        self.drop_probability = self.add_weight(
            name="drop_probability",
            shape=(),
            initializer="zeros",
            trainable=False,
        )

    @classmethod
    def from_genotype(cls, genotype, *, image_shape, num_classes, **options):
        """Returns a built network.

        Args:
            genotype: `Genotype`, the name of a published cell, or the path of
                a genotype file.
            image_shape: `(height, width, channels)`.
            num_classes: Integer.
            **options: Further arguments of `Network`.
        """
        if not isinstance(genotype, Genotype):
            genotype = published.resolve(genotype)
        network = cls(genotype, num_classes, **options)
        network.build((None, *image_shape))
        return network

    def build(self, input_shape):
        self.image_shape = tuple(input_shape[1:])
        self.stem.build(input_shape)
        shapes = list(self.stem.compute_output_shape(input_shape))
        for i, cell in enumerate(self.cells):
            cell.build(shapes)
            shapes = [shapes[1], cell.compute_output_shape(shapes)]
            if i == self.auxiliary_after and self.auxiliary_head is not None:
                self.auxiliary_head.build(shapes[1])
        self.classifier = blocks.dense(
            self.num_classes,
            shapes[1][-1],
            # As those of the auxiliary head.
            dtype=self.variable_dtype,
            name="classifier",
        )
        if self.frozen:
            for layer in self._body:
                self.frozen_parameters += sum(
                    int(np.prod(variable.shape))
                    for variable in layer.trainable_variables
                )
                layer.trainable = False
        self.built = True

    def call(self, inputs, training=False, auxiliary=False):
        """`auxiliary` asks for the auxiliary head's logits too."""
        keep = self._draw_keep(tf.shape(inputs)[0]) if training else None
        previous, maps = self.stem(inputs)
        first = 0
        auxiliary_logits = None
        for i, cell in enumerate(self.cells):
            scales = None
            if keep is not None:
                scales = keep[:, first : first + cell.num_droppable]
                first += cell.num_droppable
            previous, maps = maps, cell([previous, maps], keep=scales)
            if auxiliary and i == self.auxiliary_after:
                auxiliary_logits = self.auxiliary_head(maps)
        logits = self.classifier(tf.reduce_mean(maps, (1, 2)))
        return (logits, auxiliary_logits) if auxiliary else logits

    def set_progress(self, fraction):
        """Sets drop path's probability to `fraction` of `drop_path`.

        Args:
            fraction: Float. Epochs done, as a share of all.
        """
        self.drop_probability.assign(self.drop_path * fraction)

    def training_logits(self, images):
        outputs = self(
            images, training=not self.frozen, auxiliary=self.auxiliary
        )
        return list(outputs) if self.auxiliary else [outputs]

    def num_parameters(self, *, auxiliary=False):
        counted = super().num_parameters(auxiliary=auxiliary)
        return counted + self.frozen_parameters

    @property
    def _body(self):
        return [self.stem, *self.cells]

    def take_weights(self, other):
        """Copies the weights and statistics of stem and cells.

        Args:
            other: Built `Network` of the same cells, also for other classes.
        """
        for mine, theirs in zip(self._body, other._body, strict=True):
            for variable, source in zip(
                mine.variables, theirs.variables, strict=True
            ):
                if variable.shape != source.shape:
                    raise UsageError(
                        "Expected a trained network whose weights fit images "
                        f"of {self.image_shape}. Received: one for images of "
                        f"{other.image_shape}, whose {variable.path} is "
                        f"{tuple(source.shape)} instead of "
                        f"{tuple(variable.shape)}. Prepare images of its size "
                        "with config.data.image_size and config.data.channels"
                    )
                variable.assign(source)

    def get_config(self):
        return {
            **super().get_config(),
            "genotype": self.genotype.to_json(),
            "channels": self.channels,
            "cells": len(self.cells),
            "auxiliary": self.auxiliary,
            "drop_path": self.drop_path,
            "stem": self.stem_name,
            "frozen": self.frozen,
        }

    def _draw_keep(self, batch):
        # One draw a step for all edges: each is a column.
        edges = sum(cell.num_droppable for cell in self.cells)
        if self.drop_path == 0 or edges == 0:
            return None
        share = 1.0 - tf.convert_to_tensor(self.drop_probability)
        seed = tf.convert_to_tensor(self.draw_seed)
        self.draw_seed.assign(seed + [0, 1])
        # The rows of this replica, of the draws for the whole batch.
        first, whole = devices.place(batch)
        draws = tf.random.stateless_uniform(
            (whole, edges), seed, dtype=share.dtype
        )[first : first + batch]
        return tf.cast(tf.floor(share + draws) / share, self.compute_dtype)


def create(architecture, **options):
    """Returns a new network, built.

    Args:
        architecture: `Genotype`, one of `published.network_names()`, or the
            path of a genotype file.
        **options: Arguments of `Network.from_genotype`; those of
            `DenseNet.from_recipe` mean the same for a network without cells.
    """
    if not isinstance(architecture, Genotype):
        architecture = published.resolve_network(architecture)
    if architecture == published.DENSENET:
        return DenseNet.from_recipe(**options)
    return Network.from_genotype(architecture, **options)


def load(path):
    """Reads a network that `save` wrote.

    Args:
        path: Path of a `.keras` file.

    Returns:
        A compiled `Classifier` with its weights and its optimizer's state.
    """
    _check_classes(path, trained.read(path))
    try:
        with storage.local(path) as file:
            network = keras.saving.load_model(file, safe_mode=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"Expected a trained network in {path}. Received: "
            f"{_first_line(error)}. Train it again, or name another"
        ) from error
    if not isinstance(network, Classifier):
        raise UsageError(
            f"Expected a trained network of att-darts in {path}. Received: a "
            f"{type(network).__name__}. Name another file"
        )
    return network


def _check_classes(path, description):
    """Refuses a file that names any class but those that `save` writes.

    Keras makes what a description names, and only then can it be looked at.
    """
    if isinstance(description, dict):
        if "class_name" in description:
            name, own = (
                description.get(field)
                for field in ("class_name", "registered_name")
            )
            known = isinstance(own, str) and own.startswith("att_darts_tf>")
            if not known and (own, name) != (None, "DTypePolicy"):
                raise UsageError(
                    f"Expected a trained network of att-darts in {path}. "
                    f"Received: a {registry.shorten(name)}. Name another file"
                )
        description = list(description.values())
    if isinstance(description, list):
        for part in description:
            _check_classes(path, part)


def save(network, path):
    """Writes a network as a `.keras` file, whole or not at all."""
    try:
        with storage.replacing(path) as unfinished:
            network.save(unfinished)
    except OSError as error:
        raise UsageError(
            f"Expected to write {path}. Received: {error.strerror or error}. "
            "Make room or choose a folder that can be written"
        ) from error


def adaptive_average_pool(inputs, *, size):
    """Averages maps to a given size, whatever theirs.

    Output pixel `i` of `size` averages the input pixels from
    `floor(i * height / size)` to `ceil((i + 1) * height / size)`.

    Source: `torch.nn.AdaptiveAvgPool2d`.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        size: Integer. Height and width of the result.
    """
    outputs = inputs
    for axis in (1, 2):
        side = inputs.shape[axis]
        if side == size:
            continue
        weights = np.zeros((side, size))
        for i in range(size):
            first, last = i * side // size, -(-(i + 1) * side // size)
            weights[first:last, i] = 1.0 / (last - first)
        # The contracted axis becomes the last, and goes back to its place.
        pooled = tf.tensordot(
            outputs, tf.constant(weights, outputs.dtype), [[axis], [0]]
        )
        order = [0, 1, 2]
        order.insert(axis, 3)
        outputs = tf.transpose(pooled, order)
    return outputs


def _random_seed(shape, dtype=None):
    return keras.random.randint(shape, 0, 2**31 - 1, dtype)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
