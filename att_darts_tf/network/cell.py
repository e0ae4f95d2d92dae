"""Cells of the final network: a genotype's cell as layers."""

import dataclasses

import keras
import tensorflow as tf

from att_darts_tf.engine import determinism
from att_darts_tf.errors import UsageError
from att_darts_tf.space import blocks, genotype, search_space
from att_darts_tf.space.attentions import ATTENTIONS
from att_darts_tf.space.operations import OPERATIONS


@blocks.serializable
class Edge(keras.layers.Layer):
    """The layers of one edge of a genotype, applied in turn.

    Only the first has the stride. An attention keeps the size of a map, so one
    that stands first on a strided edge follows a strided skip, without scale
    and offset as in the released code.

    Args:
        layers: Sequence of names of operations and attentions.
        stride: Integer, 1 or 2.

    Input shape: `(batch, height, width, channels)`.
    Output shape: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`.
    """

    def __init__(self, layers, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.layers = tuple(layers)
        self.stride = stride

    @property
    def droppable(self):
        """Whether drop path may remove the edge.

        Source: the released code, which spares an edge if its operation or
        its attention is an identity; its figures were reached so.
        """
        return not any(
            name == "Identity"
            or (name == "skip_connect" and (i > 0 or self.stride == 1))
            for i, name in enumerate(self.layers)
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        policy = self.dtype_policy
        self.steps = []
        stride = self.stride
        for name in self.layers:
            if name in OPERATIONS:
                step = OPERATIONS.create(
                    name,
                    channels=channels,
                    stride=stride,
                    affine=True,
                    dtype=policy,
                )
            else:
                if stride > 1:
                    self.steps.append(
                        blocks.FactorizedReduction(
                            channels, affine=False, dtype=policy, name="skip"
                        )
                    )
                step = ATTENTIONS.create(name, dtype=policy)
            self.steps.append(step)
            stride = 1
        shape = input_shape
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)

    def call(self, inputs):
        maps = inputs
        for step in self.steps:
            maps = step(maps)
        return maps

    def compute_output_shape(self, input_shape):
        return blocks.strided_shape(input_shape, self.stride)

    def get_config(self):
        return {
            **super().get_config(),
            "layers": list(self.layers),
            "stride": self.stride,
        }


@blocks.serializable
class Cell(keras.layers.Layer):
    """Sums edges into nodes and concatenates nodes.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.1;
    attention on edges and on the output: Nakai et al., 2020.

    Args:
        cell: `genotype.Cell`.
        channels: Integer. Channels of every state.
        reduction: Boolean. Whether edges that leave the inputs have stride 2.
        previous_reduction: Boolean. Whether the cell before has halved the
            map, so that the older of the two inputs is twice as large.

    Input shape: pair of `(batch, height, width, channels)`, the outputs of the
    cell before the last and of the last.
    Output shape: `(batch, height, width, len(cell.concat) * channels)`, with
    `ceil(height / 2)` and `ceil(width / 2)` in a reduction cell.
    """

    def __init__(
        self,
        cell,
        channels,
        reduction=False,
        previous_reduction=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if reduction and min(cell.concat) < search_space.NUM_INPUTS:
            raise UsageError(
                "Expected the output of a reduction cell to consist of nodes, "
                "which are smaller than its inputs. Received: concat "
                f"{cell.concat}. Leave out 0 and 1"
            )
        self.cell = cell
        self.channels = channels
        self.reduction = reduction
        self.previous_reduction = previous_reduction
        self.edges = [
            Edge(
                edge.layers,
                stride=2
                if reduction and edge.source < search_space.NUM_INPUTS
                else 1,
                dtype=self.dtype_policy,
                name=f"node_{i}_edge_{j}",
            )
            for i, node in enumerate(cell.nodes)
            for j, edge in enumerate(node)
        ]
        bring = (
            blocks.FactorizedReduction
            if previous_reduction
            else blocks.ReluConvolutionNormalization
        )
        self.preprocess = [
            bring(channels, dtype=self.dtype_policy, name="preprocess_0"),
            blocks.ReluConvolutionNormalization(
                channels, dtype=self.dtype_policy, name="preprocess_1"
            ),
        ]
        self.bottleneck = None
        if cell.bottleneck:
            self.bottleneck = ATTENTIONS.create(
                cell.bottleneck, dtype=self.dtype_policy
            )

    @property
    def num_droppable(self):
        """How many edges drop path may remove."""
        return sum(edge.droppable for edge in self.edges)

    def build(self, input_shape):
        for layer, shape in zip(self.preprocess, input_shape, strict=True):
            layer.build(shape)
        shapes = [
            layer.compute_output_shape(shape)
            for layer, shape in zip(self.preprocess, input_shape, strict=True)
        ]
        edges = iter(self.edges)
        for node in self.cell.nodes:
            for source in node:
                edge = next(edges)
                edge.build(shapes[source.source])
                shape = edge.compute_output_shape(shapes[source.source])
            shapes.append(shape)
        if self.bottleneck is not None:
            self.bottleneck.build(self.compute_output_shape(input_shape))

    def call(self, inputs, keep=None):
        """`keep`, of shape `(batch, num_droppable)`, scales such edges."""
        readers = self._readers()
        states = []

        def add(state):
            copies = determinism.fan_out(state, readers[len(states)])
            states.append(iter(copies))

        for layer, maps in zip(self.preprocess, inputs, strict=True):
            add(layer(maps))
        edges = iter(self.edges)
        scales = iter(() if keep is None else tf.unstack(keep, axis=1))
        for node in self.cell.nodes:
            terms = []
            for source in node:
                edge = next(edges)
                maps = edge(next(states[source.source]))
                if keep is not None and edge.droppable:
                    maps = maps * next(scales)[:, None, None, None]
                terms.append(maps)
            add(sum(terms[1:], terms[0]))
        outputs = [next(states[state]) for state in self.cell.concat]
        outputs = tf.concat(outputs, -1)
        if self.bottleneck is not None:
            outputs = self.bottleneck(outputs)
        return outputs

    def _readers(self):
        readers = [0] * self.cell.num_states
        for node in self.cell.nodes:
            for edge in node:
                readers[edge.source] += 1
        for state in self.cell.concat:
            readers[state] += 1
        return readers

    def compute_output_shape(self, input_shape):
        stride = 2 if self.reduction else 1
        shape = blocks.strided_shape(input_shape[1], stride)
        return (*shape[:-1], len(self.cell.concat) * self.channels)

    def get_config(self):
        return {
            **super().get_config(),
            "cell": dataclasses.asdict(self.cell),
            "channels": self.channels,
            "reduction": self.reduction,
            "previous_reduction": self.previous_reduction,
        }

    @classmethod
    def from_config(cls, config):
        cell = config["cell"]
        nodes = tuple(
            tuple(genotype.Edge(**edge) for edge in node)
            for node in cell["nodes"]
        )
        return cls(
            **{**config, "cell": genotype.Cell(**{**cell, "nodes": nodes})}
        )
