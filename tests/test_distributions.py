"""What is distributed: the files of wheel and sdist, and what they require."""

import email
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import packaging.requirements
import packaging.utils
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Where a package is installed, and where the checkout keeps it.
HOMES = {
    "att_darts_tf": "att_darts_tf",
    "att_darts_tf/pipeline": "pipeline",
    "att_darts_tf/configs": "configs",
}
# What the modules under a name need beyond the core, and its extra.
EXTRAS = {
    "att_darts_tf.pipeline": ("kfp", "pipeline"),
    # What Google\'s client itself looks for first.
    "att_darts_tf.pipeline.vertex": ("cryptography", "vertex"),
    "att_darts_tf.data.beam": ("apache_beam", "beam"),
    "att_darts_tf.tuning.oracle": ("keras_tuner", "tune"),
}


def sources():
    """Returns the files of the packages, by their path once installed."""
    return {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}": path
        for package, folder in HOMES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(*command, **options):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns a folder with an sdist, its wheel, and `tree/`, the checkout's.

    They are made from a copy, in which a build leaves what it likes.
    """
    folder = tmp_path_factory.mktemp("distributions")
    apart = (".*", "build", "dist", "runs", "results", "__pycache__")
    shutil.copytree(
        ROOT,
        folder / "copy",
        ignore=shutil.ignore_patterns(*apart, "*.egg-info"),
    )
    build = (sys.executable, "-m", "build", "--no-isolation", folder / "copy")
    run(*build, "--outdir", folder)
    run(*build, "--wheel", "--outdir", folder / "tree")
    return folder


def wheel_of(folder):
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(built):
    """Returns the bytes of the wheel's files by name."""
    return wheel_of(built)


@pytest.fixture(scope="module")
def metadata(wheel):
    """Returns what the wheel says of itself."""
    (name,) = (each for each in wheel if each.endswith("/METADATA"))
    return email.message_from_bytes(wheel[name])


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    expected = {name: path.read_bytes() for name, path in sources().items()}
    about = {name for name in wheel if ".dist-info/" in name}
    assert sorted(set(wheel) - about) == sorted(expected)
    changed = [name for name in expected if wheel[name] != expected[name]]
    assert not changed
    names = {name.rpartition("/")[2] for name in about}
    assert names == {
        "LICENSE",
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "top_level.txt",
    }


def test_the_wheel_brings_one_name_to_the_top_level(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "att_darts_tf"
    }


def test_the_sdist_holds_what_builds_the_wheel_and_says_what_it_is(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {
            member.name.partition("/")[2]
            for member in archive
            if member.isfile()
        }
    made = {name for name in names if name.startswith("att_darts_tf.egg-info/")}
    expected = {str(each.relative_to(ROOT)) for each in sources().values()}
    assert sorted(names - made - {"PKG-INFO", "setup.cfg"}) == sorted(
        expected
        | {
            "CHANGELOG.md",
            "LICENSE",
            "MANIFEST.in",
            "README.md",
            "pyproject.toml",
            "setup.py",
        }
    )


def test_the_wheel_of_the_sdist_is_that_of_the_checkout(built, wheel):
    def digests(files):
        return {
            name: hashlib.sha256(content).hexdigest()
            for name, content in files.items()
        }

    assert digests(wheel) == digests(wheel_of(built / "tree"))


def test_the_metadata_name_systems_versions_licence_and_readme(metadata):
    assert metadata["License"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text("utf-8")
    assert metadata.get_payload(decode=True).decode().strip() == readme.strip()
    classifiers = metadata.get_all("Classifier")
    assert "Operating System :: POSIX :: Linux" in classifiers
    versions = {
        name.removeprefix("Programming Language :: Python :: ")
        for name in classifiers
        if name.startswith("Programming Language :: Python :: 3.")
    }
    for version in versions:
        assert version in readme


def core(metadata):
    """Returns the names of all packages that an install of the core brings."""
    return brought_by(
        requirement
        for requirement in metadata.get_all("Requires-Dist")
        if "extra ==" not in requirement
    )


def brought_by(requirements):
    """Returns the names of all packages that requirements bring."""
    found, waiting = set(), list(requirements)
    while waiting:
        requirement = packaging.requirements.Requirement(waiting.pop())
        marker = requirement.marker
        if marker is not None and not any(
            marker.evaluate({"extra": extra})
            for extra in requirement.extras or {""}
        ):
            continue
        name = packaging.utils.canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            waiting += importlib.metadata.requires(name) or ()
    return found


def test_what_only_some_need_is_an_extra(metadata):
    only_some = {"kfp", "apache-beam", "keras-tuner", "tensorflow-datasets"}
    assert not core(metadata) & only_some
    extras = set()
    for text in metadata.get_all("Requires-Dist"):
        requirement = packaging.requirements.Requirement(text)
        if "extra ==" in text:
            extras.add(packaging.utils.canonicalize_name(requirement.name))
    assert only_some <= extras


# Run with the wheel's files in front, and what the core does not bring hidden.
CORE_ALONE = """
import contextlib, importlib, importlib.abc, io, json, sys

hidden, commands, modules = map(json.loads, sys.argv[1:])


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
from att_darts_tf.__main__ import main

said = {}
for command in commands:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(command.split())
    said[command] = status, output.getvalue()
missing = {}
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name.partition(".")[0]

import att_darts_tf
import numpy as np

network = att_darts_tf.Network.from_genotype(
    "att_darts", image_shape=(8, 8, 3), num_classes=3, channels=4, cells=1
)
logits = network(np.zeros((2, 8, 8, 3), "float32"))
print(json.dumps([att_darts_tf.__file__, said, missing, list(logits.shape)]))
"""


def test_the_core_alone_does_all_but_what_its_extras_are_for(
    built, wheel, metadata, tmp_path
):
    brought = core(metadata) | {"att-darts-tf"}
    hidden = [
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if not brought & {*map(packaging.utils.canonicalize_name, owners)}
    ]
    assert {
        "apache_beam",
        "keras_tuner",
        "kfp",
        "pytest",
        "tensorflow_datasets",
    } <= set(hidden)
    for name, content in wheel.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in wheel
        if name.endswith(".py")
    )
    pipeline = "pipeline --config=demo --workdir=run"
    commands = ["--help", "cells", "cells --table", pipeline]
    output = run(
        sys.executable,
        *("-c", CORE_ALONE),
        *map(json.dumps, (hidden, commands, modules)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    file, said, missing, shape = json.loads(output.splitlines()[-1])
    assert file.startswith(str(tmp_path))
    refused, message = said.pop(pipeline)
    assert refused == 2
    assert "pip install 'att-darts-tf[pipeline]'" in message
    assert {status for status, _ in said.values()} == {0}
    assert "att_darts" in said["cells"][1]
    assert shape == [2, 3]
    wanted = {
        name: package
        for name in missing
        for prefix, (package, _) in EXTRAS.items()
        if f"{name}.".startswith(f"{prefix}.")
    }
    assert missing == wanted
    # The table names nothing that an extra does not bring, or none needs.
    assert {package for package, _ in EXTRAS.values()} == {*missing.values()}
    for package, extra in EXTRAS.values():
        of_extra = brought_by(
            label.partition(";")[0]
            for label in metadata.get_all("Requires-Dist")
            if f'extra == "{extra}"' in label.replace("'", '"')
        )
        assert package.replace("_", "-") in of_extra
