import json
import pathlib
import types

import pytest

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


def globs(*files):
    return types.SimpleNamespace(glob=lambda pattern: list(files))


@pytest.fixture
def machine(monkeypatch):
    """Replaces what the machine says by files; returns them by path."""
    files = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "/proc/self/statm": "0 0 0",
        "/proc/self/cgroup": "2:cpu:/x\n0::/\n",
    }

    class Files(pathlib.PosixPath):
        def read_text(self, *options):
            if str(self) not in files:
                raise FileNotFoundError(str(self))
            return files[str(self)]

        def exists(self):
            return str(self) in files

    # Names of the module alone: pytest reads files too.
    paths = types.SimpleNamespace(
        Path=Files, PurePosixPath=pathlib.PurePosixPath
    )
    monkeypatch.setattr(memory, "pathlib", paths)
    monkeypatch.setattr(memory, "glob", globs())
    monkeypatch.setattr(
        memory, "resource", types.SimpleNamespace(getpagesize=lambda: 4096)
    )
    return files


@pytest.mark.parametrize("free", [7.0, 4.5])
def test_more_than_is_free_is_refused_before_anything_is_made(
    monkeypatch, machine, free
):
    config = base.get_config()
    config.search.recompute = "none"
    monkeypatch.setattr(memory, "available", lambda: free)
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


def test_what_fits_is_told(monkeypatch, machine):
    monkeypatch.setattr(memory, "available", lambda: 500.0)
    assert "of 500.0 GB free" in memory.check(base.get_config())


def test_memory_of_a_gpu_is_not_that_of_the_machine(monkeypatch, machine):
    monkeypatch.setattr(memory, "available", lambda: 0.1)
    monkeypatch.setattr(memory, "glob", globs("/dev/nvidia0"))
    assert "not looked at" in memory.check(base.get_config())


def test_a_machine_that_does_not_tell_refuses_nothing(machine):
    machine.clear()
    assert memory.available() is None
    assert "unknown" in memory.check(base.get_config())


def test_free_memory_counts_what_this_process_has(machine):
    assert memory.available() == pytest.approx(8.192)
    machine["/proc/self/statm"] = "9 250000 1"
    assert memory.available() == pytest.approx(8.192 + 1.024)


@pytest.mark.parametrize(
    ("group", "folder", "names"),
    [
        (
            "0::/job/step",
            "/sys/fs/cgroup/job",
            ("memory.max", "memory.current", "inactive_file"),
        ),
        (
            "4:memory:/job",
            "/sys/fs/cgroup/memory",
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
        ),
    ],
)
def test_control_groups_above_the_process_leave_less(
    machine, group, folder, names
):
    limit, usage, cached = names
    machine["/proc/self/cgroup"] = f"2:cpu:/x\n{group}\n"
    machine[f"{folder}/{limit}"] = "3000000000\n"
    machine[f"{folder}/{usage}"] = "1500000000\n"
    machine[f"{folder}/memory.stat"] = f"anon 5\n{cached} 500000000\n"
    assert memory.available() == pytest.approx(2.0)
    machine[f"{folder}/{limit}"] = "max\n"
    assert memory.available() == pytest.approx(8.192)
