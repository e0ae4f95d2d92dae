import types

import pytest

from att_darts_tf import memory as machine_memory
from att_darts_tf.errors import UsageError
from att_darts_tf.network import cost, memory, network
from att_darts_tf.space import published

SMALL = {"image_shape": (32, 32, 3), "stem": "small"}
LARGE = {"image_shape": (224, 224, 3), "stem": "imagenet"}


def build(cell, channels, cells, *, dtype="float32", **options):
    return network.create(
        published.resolve_network(cell),
        num_classes=10,
        channels=channels,
        cells=cells,
        auxiliary=cell != published.DENSENET,
        dtype=dtype,
        **options,
    )


# Peak memory of a process that took five training steps, in GB; of a stage
# `train` where no other is given. Measured on two CPU cores.
@pytest.mark.parametrize(
    ("name", "channels", "cells", "batch", "more", "measured"),
    [
        ("att_darts", 8, 5, 50, SMALL, 1.33),
        ("att_darts", 36, 8, 96, SMALL, 4.99),
        ("att_darts", 48, 5, 8, LARGE, 1.33),
        ("darts_v2", 36, 20, 16, SMALL, 2.45),
        ("nasnet_a", 24, 8, 64, SMALL, 2.55),
        ("densenet_bc", 12, 8, 32, SMALL, 1.14),
        ("att_darts", 16, 5, 64, {**SMALL, "dtype": "mixed_bfloat16"}, 1.44),
        # The whole stage.
        ("att_darts", 8, 5, 24, LARGE, 1.6),
    ],
)
def test_measured_trainings_lie_within_30_percent(
    name, channels, cells, batch, more, measured
):
    made = build(name, channels, cells, **more)
    assert memory.estimate(made, batch) == pytest.approx(measured, rel=0.3)


# Of a process that judged three batches.
@pytest.mark.parametrize(
    ("name", "channels", "cells", "batch", "more", "measured"),
    [
        ("att_darts", 36, 8, 250, SMALL, 1.66),
        ("att_darts", 48, 5, 64, LARGE, 1.13),
        ("darts_v2", 16, 5, 250, SMALL, 0.95),
        ("densenet_bc", 24, 8, 250, SMALL, 1.4),
    ],
)
def test_measured_judgements_lie_within_30_percent(
    name, channels, cells, batch, more, measured
):
    made = build(name, channels, cells, **more)
    estimate = memory.estimate_inference(made, batch)
    assert estimate == pytest.approx(measured, rel=0.3)


def test_a_measured_export_lies_within_30_percent():
    made = build("att_darts", 8, 5, **LARGE)
    estimate = memory.estimate_inference(made, 32, graphs=2)
    assert estimate == pytest.approx(1.2, rel=0.3)


@pytest.mark.parametrize(
    ("name", "channels", "more"),
    [("att_darts", 8, SMALL), ("bayesnas_0.007", 4, LARGE)],
)
def test_maps_are_those_that_a_traced_step_keeps(name, channels, more):
    made = build(name, channels, 3, **more)
    counted = cost.activation_bytes(made)
    assert 4 * memory.numbers_kept(made) == pytest.approx(counted, rel=0.15)


def test_a_training_that_does_not_fit_is_refused(monkeypatch):
    nothing = types.SimpleNamespace(glob=lambda pattern: [])
    monkeypatch.setattr(machine_memory, "glob", nothing)
    monkeypatch.setattr(machine_memory, "resident", lambda: 0.6)
    monkeypatch.setattr(machine_memory, "available", lambda: 2.0)
    made = build("darts_v2", 8, 3, **SMALL)
    assert "of 2.0 GB free" in memory.check(made, 8)
    with pytest.raises(UsageError, match="that fits the 2.0 GB.*batch_size"):
        memory.check(made, 1000)
    assert "of 2.0 GB free" in memory.check_inference(made, 8)
    with pytest.raises(UsageError, match="a network that fits the 2.0 GB"):
        memory.check_inference(made, 50_000)
    # What an earlier network has left counts.
    monkeypatch.setattr(machine_memory, "resident", lambda: 2.1)
    with pytest.raises(UsageError, match="a training that fits"):
        memory.check(made, 8)
