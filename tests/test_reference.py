"""Runs `python -m tests.reference` where the authors' numbers are at hand."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = pathlib.Path(
    os.environ.get("ATT_DARTS_REFERENCE")
    or ROOT.parent / "shared" / "reference"
)
# A minute each; the whole check is `python -m tests.reference FOLDER`.
QUICK = (
    "attentions.npz",
    "operations.npz",
    "network_cifar.npz",
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
