import json
import pathlib
import types

import pytest

from att_darts_tf import memory as machine_memory
from att_darts_tf import settings
from att_darts_tf.configs import base
from att_darts_tf.errors import UsageError
from att_darts_tf.search import memory, run

MEASURED = pathlib.Path(__file__).parents[2] / "docs/growth/steps.jsonl"


def config_of(figures):
    config = base.get_config()
    config.space.location = figures["location"]
    config.search.batch_size = figures["batch"]
    config.engine.precision = figures["precision"]
    for name in (
        "channels",
        "cells",
        "order",
        "implicit",
        "recompute",
        "microbatch",
    ):
        config.search[name] = figures[name]
    return config


@pytest.mark.parametrize("line", MEASURED.read_text("utf-8").splitlines())
def test_measured_settings_lie_within_30_percent(line):
    figures = json.loads(line)
    estimate = memory.estimate(config_of(figures))
    assert estimate == pytest.approx(figures["peak_memory_gb"], rel=0.3)


def test_measured_settings_vary_what_is_estimated():
    lines = MEASURED.read_text("utf-8").splitlines()
    figures = [json.loads(line) for line in lines]
    for name in (
        "channels",
        "cells",
        "batch",
        "location",
        "order",
        "implicit",
        "recompute",
        "microbatch",
        "precision",
    ):
        assert len({each[name] for each in figures}) > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"search.recompute": "all"},
        {"search.microbatch": 16},
        {"search.batch_size": 32},
        {"search.channels": 8},
        {"search.cells": 4},
        {"space.location": "no_attention"},
        {"data.image_size": (16, 16)},
        {"engine.precision": "mixed_bfloat16"},
    ],
)
def test_what_lowers_memory_lowers_the_estimate(changes):
    config = base.get_config()
    before = memory.estimate(config)
    config.update_from_flattened_dict(changes)
    settings.validate(config)
    assert memory.estimate(config) < 0.95 * before


@pytest.fixture
def no_gpu(monkeypatch):
    nothing = types.SimpleNamespace(glob=lambda pattern: [])
    monkeypatch.setattr(machine_memory, "glob", nothing)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("free", [7.0, 4.5])
def test_more_than_is_free_is_refused_before_anything_is_made(
    monkeypatch, free
):
    config = base.get_config()
    config.search.recompute = "none"
    monkeypatch.setattr(machine_memory, "available", lambda: free)
    with pytest.raises(UsageError) as refusal:
        run.train(config, data=None, seed=0, folder=None)
    message = str(refusal.value)
    assert f"{free} GB of memory that are free" in message
    assert "lower config.search.batch_size" in message
    for flags in (
        {"recompute": "all"},
        {"microbatch": 16},
        {"recompute": "all", "microbatch": 16},
    ):
        given = " ".join(f"--config.search.{k}={v}" for k, v in flags.items())
        config = base.get_config()
        config.search.recompute = "none"
        config.search.update(flags)
        fits = memory.estimate(config) <= free
        assert (f" give {given} (" in message) == fits


@pytest.mark.usefixtures("no_gpu")
def test_what_fits_is_told(monkeypatch):
    monkeypatch.setattr(machine_memory, "available", lambda: 500.0)
    assert "of 500.0 GB free" in memory.check(base.get_config())
