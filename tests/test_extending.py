"""The page on extending is followed to the letter, in a copy of the sources."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Returns a copy of the sources to which the page was applied."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("att_darts_tf", "tests"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    layer, name = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.M
    )
    with open(folder / "att_darts_tf/space/attentions.py", "a") as file:
        file.write(f"\n\n{layer}")
    table = folder / "att_darts_tf/space/search_space.py"
    last = '    "DoubleAttention",\n'
    text = table.read_text("utf-8")
    assert text.count(last) == 1
    table.write_text(text.replace(last, last + name), "utf-8")
    return folder


def test_the_example_is_short():
    layer, name = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.M
    )
    assert len((layer + name).splitlines()) < 30


@pytest.mark.slow
def test_a_new_attention_passes_the_conformance_tests(extended):
    output = run(
        extended,
        "-m",
        "pytest",
        "-q",
        "tests/space/test_conformance.py",
        "tests/search/test_mixed.py",
        "-k",
        "ECA",
    )
    # Shapes, gradients, images alone, configuration; three places of a search.
    assert re.search(r"^1[0-9] passed", output, re.M), output


# In one process, since each takes seconds to begin.
STAGES = """
import sys

from att_darts_tf import __main__ as command_line

for stage in ("prepare", "search", "train", "evaluate", "export", "report"):
    status = command_line.main([stage, *sys.argv[1:]])
    if status:
        sys.exit(status)
"""


@pytest.mark.slow
def test_a_new_attention_is_searched_trained_and_exported(extended):
    command = ["--config=demo", "--workdir=run", "--config.repeats=1"]
    command += ["--config.search.seeds=0,", "--config.search.epochs=1"]
    command += ["--config.search.batch_size=375", "--config.network.epochs=1"]
    # Of small images, and each layer traced but once: it is quicker.
    command += ["--config.data.image_size=8,8", "--config.network.cutout=2"]
    command.append("--config.search.recompute=none")
    cell = extended / "cells.json"
    edges = [["skip_connect", i % 2, "ECA"] for i in range(8)]
    fields = {"normal": edges, "reduce": edges}
    concat = {f"{name}_concat": [2, 3, 4, 5] for name in fields}
    cell.write_text(json.dumps(fields | concat))
    command.append("--config.network.cell=cells.json")
    command += ["--config.network.cells=3", "--config.network.channels=4"]
    run(extended, "-c", STAGES, *command)
    record = json.loads(
        (extended / "run/search/seed-0/architecture.json").read_text("utf-8")
    )
    weights = record["epochs"][-1]["architecture"]["betas_normal"]
    assert all(len(row) == 7 for row in weights)
    assert (extended / "run/export/att_darts/1/saved_model.pb").exists()
    assert "ECA" in (extended / "run/report/normal.svg").read_text("utf-8")
