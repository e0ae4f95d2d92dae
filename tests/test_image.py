"""The image's file: what it copies is there, and what it installs works.

Docker is not needed: the steps are run in a new virtual environment.
"""

import importlib.metadata
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from att_darts_tf import settings

ROOT = pathlib.Path(__file__).parents[1]
FILE = (ROOT / "Dockerfile").read_text("utf-8")


def steps(kind):
    """Returns the arguments of each instruction of a kind."""
    return re.findall(rf"^{kind} (.+)$", FILE, re.M)


def variants():
    """Returns the extras of each image that the file tells how to build."""
    (usual,) = (
        step.removeprefix("EXTRAS=") for step in steps("ARG")
    )
    return [usual, *re.findall(r"--build-arg EXTRAS=(\S+)", FILE)]


def test_what_it_copies_is_what_is_installed():
    copied = {
        name
        for step in steps("COPY")
        for name in step.split()[:-1]
    }
    for name in copied:
        assert (ROOT / name).exists(), name
    # What setup.py reads, and the packages.
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= copied
    assert {"att_darts_tf", "configs", "pipeline"} <= copied


def test_its_python_is_that_of_the_lock():
    (base,) = steps("FROM")
    assert base.startswith("python:3.11-")
    assert "Python 3.11" in (ROOT / "requirements.lock").read_text()


def test_its_variant_for_gpus_brings_cuda_for_the_tensorflow_of_the_lock():
    usual, with_gpu = variants()
    assert with_gpu == f"{usual},gpu"
    locked = re.search(
        r"^tensorflow==(.+)$", (ROOT / "requirements.lock").read_text(), re.M
    )
    assert importlib.metadata.version("tensorflow") == locked[1]
    # What the extra asks for, whose gigabytes are not installed here.
    cuda = [
        requirement
        for requirement in importlib.metadata.requires("tensorflow")
        if 'extra == "and-cuda"' in requirement.replace("'", '"')
    ]
    assert any(each.startswith("nvidia-cudnn") for each in cuda)
    asked = importlib.metadata.requires("att-darts-tf")
    assert any(
        each.startswith("tensorflow[and-cuda]") and "gpu" in each
        for each in asked
    )


@pytest.mark.long
def test_its_steps_install_what_runs_every_task(tmp_path):
    extras, _ = variants()
    source = tmp_path / "source"
    source.mkdir()
    for step in steps("COPY"):
        *names, target = step.split()
        for name in names:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / (name if target == "./" else target))
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    (step,) = steps("RUN")
    command = shlex.split(step.replace("${EXTRAS}", extras))
    assert command[0] == "python"
    result = subprocess.run(
        [python, *command[1:]], cwd=source, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    program = (
        "import importlib, json, pkgutil\n"
        "from att_darts_tf import settings\n"
        "from att_darts_tf.pipeline import components\n"
        "names = [m.name for m in pkgutil.iter_modules(components.__path__)]\n"
        "for name in names:\n"
        "    importlib.import_module(f'{components.__name__}.{name}')\n"
        "import apache_beam, kfp, tensorflow_datasets\n"
        "from att_darts_tf.pipeline import vertex\n"
        "from att_darts_tf.tuning import oracle\n"
        "print(json.dumps([names, sorted(settings.SETTINGS)]))\n"
    )
    result = subprocess.run(
        [python, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    names, found = json.loads(result.stdout.splitlines()[-1])
    assert found == sorted(settings.SETTINGS)
    assert "search" in names
