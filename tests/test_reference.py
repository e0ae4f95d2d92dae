"""Runs `python -m tests.reference`: on a part of the authors' numbers that is
kept here, and on more of them where they are at hand."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = pathlib.Path(
    os.environ.get("ATT_DARTS_REFERENCE")
    or ROOT.parent / "shared" / "reference"
)
# A part of `operations.npz`, of `attentions.npz`, and names at one location.
KEPT = ROOT / "tests" / "goldens" / "reference"
# The whole check takes ten minutes: `python -m tests.reference FOLDER`.
QUICK = (
    "network_cifar.npz",
    "supernet_no_attention.npz",
    "names_double_mixed.txt",
    "names_after_every_and_end.txt",
)


def check(folder, *names):
    return subprocess.run(
        [sys.executable, "-m", "tests.reference", str(folder), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_layers_equal_the_numbers_that_are_kept_here():
    result = check(KEPT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 off" in result.stdout


def test_a_number_that_is_off_or_not_used_fails(tmp_path):
    with np.load(KEPT / "attentions.npz") as file:
        arrays = {name: file[name] for name in file.files if "SE/" in name}
    arrays["SE/channels16/output_training"] = (
        arrays["SE/channels16/output_training"] + 1e-6
    )
    arrays["SE/channels16/more"] = np.zeros(3)
    np.savez(tmp_path / "attentions.npz", **arrays)
    result = check(tmp_path)
    assert result.returncode == 1
    assert "OFF at output_training" in result.stdout
    assert "SE/channels16: unused" in result.stdout
    assert "OFF at more" in result.stdout


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the authors' numbers are not here"
)
def test_equals_the_authors_numbers():
    present = [name for name in QUICK if (FOLDER / name).exists()]
    result = check(FOLDER, *present)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 off" in result.stdout


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("supernet_nowhere.npz", b"", "no such case is known"),
        ("names_end.txt", b"alphas_normal (14, 8)", "names_end.txt"),
    ],
)
def test_a_file_that_cannot_be_checked_fails(
    tmp_path, name, content, complaint
):
    (tmp_path / name).write_bytes(content)
    result = check(tmp_path)
    assert result.returncode == 1
    assert complaint in result.stdout


def test_a_folder_without_fixtures_is_refused(tmp_path):
    result = check(tmp_path)
    assert result.returncode == 2
    assert "Expected fixtures in" in result.stderr
