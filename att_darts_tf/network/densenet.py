"""DenseNet-BC, the manual baseline: a network without cells."""

import keras
import tensorflow as tf

from att_darts_tf.errors import UsageError
from att_darts_tf.network.classifier import Classifier, check_integer
from att_darts_tf.space import blocks

BLOCKS = 3
# Channels of a bottleneck and of the first convolution, in growth rates.
BOTTLENECK, FIRST = 4, 2
# A transition keeps one channel of so many.
COMPRESSION = 2


@blocks.serializable
class NormalizationReluConvolution(keras.layers.Layer):
    """Batch normalisation, ReLU, convolution: what all of it is made of.

    Args:
        filters: Integer. Output channels.
        kernel_size: Odd integer.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, height, width, filters)`.
    """

    def __init__(self, filters, kernel_size=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        policy = self.dtype_policy
        self.normalization = blocks.BatchNormalization(
            dtype=policy, name="normalization"
        )
        self.convolution = blocks.Convolution(
            filters, kernel_size, dtype=policy, name="convolution"
        )

    def build(self, input_shape):
        self.normalization.build(input_shape)
        self.convolution.build(input_shape)

    def call(self, inputs, training=False):
        maps = self.normalization(inputs, training=training)
        return self.convolution(tf.nn.relu(maps))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }


@blocks.serializable
class DenseNet(Classifier):
    """Three blocks whose layers read the maps of all layers before them.

    A layer is a 1x1 convolution to `4 * growth_rate` channels and a 3x3
    convolution to `growth_rate`; between blocks a 1x1 convolution halves the
    channels and a pool the map. Normalisation is that of this project.

    Source: Huang et al., 2017, https://arxiv.org/abs/1608.06993, sections 3
    and 4.2 (DenseNet-BC).

    Args:
        num_classes: Integer.
        growth_rate: Integer. The paper's k.
        num_layers: Integer. Layers of each block; the paper's depth L counts
            both convolutions of each: `L = 6 * num_layers + 4`.

    Input shape: `(batch, height, width, channels)`, normalised images of at
    least 4 x 4 pixels.
    Output shape: `(batch, num_classes)`, logits.
    """

    def __init__(self, num_classes, growth_rate=40, num_layers=31, **kwargs):
        super().__init__(num_classes, **kwargs)
        check_integer("growth_rate", growth_rate, least=1)
        check_integer("num_layers", num_layers, least=1)
        self.growth_rate = growth_rate
        self.num_layers = num_layers
        policy = self.dtype_policy
        self.stem = blocks.Convolution(
            FIRST * growth_rate, 3, dtype=policy, name="stem"
        )
        self.dense_layers = [
            [
                [
                    NormalizationReluConvolution(
                        BOTTLENECK * growth_rate,
                        dtype=policy,
                        name=f"block_{i}_layer_{j}_bottleneck",
                    ),
                    NormalizationReluConvolution(
                        growth_rate,
                        3,
                        dtype=policy,
                        name=f"block_{i}_layer_{j}",
                    ),
                ]
                for j in range(num_layers)
            ]
            for i in range(BLOCKS)
        ]
        channels = FIRST * growth_rate
        self.transitions = []
        for i in range(BLOCKS - 1):
            channels = (channels + num_layers * growth_rate) // COMPRESSION
            self.transitions.append(
                NormalizationReluConvolution(
                    channels, dtype=policy, name=f"transition_{i}"
                )
            )
        self.normalization = blocks.BatchNormalization(
            dtype=policy, name="normalization"
        )

    @classmethod
    def from_recipe(
        cls,
        *,
        image_shape,
        num_classes,
        channels=40,
        cells=31,
        auxiliary=False,
        drop_path=0.0,
        stem="small",
        frozen=False,
        **options,
    ):
        """Returns a built network from the settings of one of cells.

        Args:
            image_shape: `(height, width, channels)`.
            num_classes: Integer.
            channels: Integer. The growth rate.
            cells: Integer. Layers of each of the three blocks.
            auxiliary: Boolean. Refused if true, as there is no such head.
            drop_path: Float. Refused unless 0.
            stem: String. Refused unless `"small"`.
            frozen: Boolean. Refused if true.
            **options: Further arguments of `keras.Model`.
        """
        received = {
            "auxiliary": auxiliary,
            "drop_path": drop_path,
            "stem": stem,
            "frozen": frozen,
        }
        expected = {
            "auxiliary": False,
            "drop_path": 0,
            "stem": "small",
            "frozen": False,
        }
        if received != expected:
            raise UsageError(
                f"Expected {expected} for densenet_bc, which has no cells. "
                f"Received: {received}. Give those"
            )
        network = cls(num_classes, channels, cells, **options)
        network.build((None, *image_shape))
        return network

    def build(self, input_shape):
        if min(input_shape[1:3]) < 2 ** (BLOCKS - 1):
            raise UsageError(
                f"Expected images of at least {2 ** (BLOCKS - 1)} pixels a "
                f"side for densenet_bc. Received: {tuple(input_shape[1:])}. "
                "Give larger ones"
            )
        self.image_shape = tuple(input_shape[1:])
        self.stem.build(input_shape)
        batch, height, width, channels = self.stem.compute_output_shape(
            input_shape
        )
        for i, block in enumerate(self.dense_layers):
            for bottleneck, layer in block:
                shape = (batch, height, width, channels)
                bottleneck.build(shape)
                layer.build(bottleneck.compute_output_shape(shape))
                channels += self.growth_rate
            shape = (batch, height, width, channels)
            if i < len(self.transitions):
                self.transitions[i].build(shape)
                channels = self.transitions[i].filters
                height, width = height // 2, width // 2
        self.normalization.build(shape)
        self.classifier = blocks.dense(
            self.num_classes,
            channels,
            # Logits stay in full precision under a mixed policy.
            dtype=self.variable_dtype,
            name="classifier",
        )
        self.built = True

    def call(self, inputs, training=False):
        maps = self.stem(inputs)
        for i, block in enumerate(self.dense_layers):
            for bottleneck, layer in block:
                new = layer(
                    bottleneck(maps, training=training), training=training
                )
                maps = tf.concat([maps, new], -1)
            if i < len(self.transitions):
                maps = self.transitions[i](maps, training=training)
                maps = tf.nn.avg_pool2d(maps, 2, 2, "VALID")
        maps = tf.nn.relu(self.normalization(maps, training=training))
        return self.classifier(tf.reduce_mean(maps, (1, 2)))

    def get_config(self):
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "num_layers": self.num_layers,
        }
