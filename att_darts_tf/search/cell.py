"""A cell of the supernet: every edge is a mixture of its candidates."""

import keras
import tensorflow as tf

from att_darts_tf.search.mixed import MixedBundle, PlainMixedBundle
from att_darts_tf.search.tracing import DEFAULT_MODE, SharedTraces
from att_darts_tf.space import blocks, search_space


def edges_from(state):
    """Returns the rows of the edges that leave a state, by rising node."""
    return [
        search_space.edge_index(node, source)
        for node, source in search_space.edges()
        if source == state
    ]


NUM_STATES = search_space.NUM_INPUTS + search_space.NUM_NODES - 1


class SearchCell(keras.layers.Layer):
    """Sums mixed edges from every earlier state, for each of the nodes.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 2.1.

    Args:
        location: String. Where attention goes, a key of `SEARCH_SPACES`.
        channels: Integer. Channels of a node.
        reduction: Boolean. Whether edges from states 0 and 1 have stride 2.
        reduction_before: Boolean. Whether the cell before was a reduction.
        batched: Boolean. `False` computes every candidate of every edge as a
            plain layer: slow, the same numbers.
        traces: `SharedTraces` of the network that the cell is part of.

    Call arguments:
        states: Pair of tensors, the outputs of the two cells before:
            `(batch, height, width, any)`; the first has twice the height and
            width of the second if `reduction_before`.
        weights: List with one tensor a stage, `(num_edges, candidates)`, and
            one of shape `(candidates,)` for a mixed attention on the output:
            softmaxes.
        mode: `tracing.Mode`.
        recompute: Boolean. Whether this is one of the cells of
            `mode.recompute`.
        num_constant: Integer. How many of the states, from the first, nobody
            will ask for a gradient of.

    Output shape: `(batch, height, width, num_nodes * channels)`, height and
    width halved in a reduction cell.
    """

    def __init__(
        self,
        location,
        channels,
        reduction=False,
        reduction_before=False,
        batched=True,
        traces=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.traces = SharedTraces() if traces is None else traces
        self.space = search_space.get(location)
        self.channels = channels
        self.reduction = reduction
        self.reduction_before = reduction_before
        self.batched = batched

    def build(self, state_shapes):
        policy = self.dtype_policy
        mixed = MixedBundle if self.batched else PlainMixedBundle
        before, last = state_shapes
        preprocessing = (
            blocks.FactorizedReduction
            if self.reduction_before
            else blocks.ReluConvolutionNormalization
        )
        self.preprocessing = [
            preprocessing(
                self.channels, affine=False, dtype=policy, name="preprocess_0"
            ),
            blocks.ReluConvolutionNormalization(
                self.channels, affine=False, dtype=policy, name="preprocess_1"
            ),
        ]
        self.preprocessing[0].build(before)
        self.preprocessing[1].build(last)
        inputs = (*last[:-1], self.channels)
        nodes = blocks.strided_shape(inputs, 2 if self.reduction else 1)
        # One list of stages a state.
        self.bundles = []
        for state in range(NUM_STATES):
            edges = len(edges_from(state))
            is_input = state < search_space.NUM_INPUTS
            shape = inputs if is_input else nodes
            stages = []
            for i, names in enumerate(self.space.stages):
                first = i == 0
                layer = mixed(
                    names,
                    edges,
                    stride=2 if self.reduction and is_input and first else 1,
                    shared=first,
                    dtype=policy,
                    name=f"state_{state}_stage_{i}",
                )
                layer.build(shape)
                shape = (*nodes[:-1], edges * self.channels)
                stages.append(layer)
            self.bundles.append(stages)
        if self.space.output:
            self.output_attention = mixed(
                self.space.output, 1, dtype=policy, name="output_attention"
            )
            self.output_attention.build(
                (*nodes[:-1], search_space.NUM_NODES * self.channels)
            )

    def call(
        self,
        states,
        weights,
        training=False,
        mode=DEFAULT_MODE,
        recompute=False,
        num_constant=0,
    ):
        states = [
            layer(state, training=training)
            for layer, state in zip(self.preprocessing, states, strict=True)
        ]
        # What arrives at each node.
        arriving = [[] for _ in range(search_space.NUM_NODES)]
        for state in range(NUM_STATES):
            if state >= search_space.NUM_INPUTS:
                states.append(tf.add_n(arriving[state - 2]))
            maps = states[state]
            rows = edges_from(state)
            for layer, stage in zip(self.bundles[state], weights, strict=False):
                maps = self.traces.call(
                    layer,
                    maps,
                    tf.gather(stage, rows),
                    training=training,
                    mode=mode,
                    recompute=recompute,
                    constant_inputs=state < num_constant
                    and maps is states[state],
                )
            parts = tf.split(maps, len(rows), -1)
            first = search_space.NUM_NODES - len(rows)
            for node, part in enumerate(parts, first):
                arriving[node].append(part)
        states.append(tf.add_n(arriving[-1]))
        outputs = tf.concat(states[search_space.NUM_INPUTS :], -1)
        if self.space.output:
            outputs = self.traces.call(
                self.output_attention,
                outputs,
                weights[-1][None],
                training=training,
                mode=mode,
                recompute=recompute,
            )
        return outputs

    def compute_output_shape(self, state_shapes):
        shape = blocks.strided_shape(
            state_shapes[1], 2 if self.reduction else 1
        )
        return (*shape[:-1], search_space.NUM_NODES * self.channels)
