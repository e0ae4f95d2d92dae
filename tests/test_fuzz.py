"""The first inputs of `python -m tests.fuzz`, and what it does about a find."""

import dataclasses
import signal
import subprocess
import sys
import textwrap
from unittest import mock

import pytest

from att_darts_tf.errors import UsageError
from tests import fuzz


@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_file_is_read_or_refused(tmp_path, name):
    outcome = fuzz.run(name, count=300, seed=0, folder=tmp_path)
    assert outcome.total == len(outcome.inputs) == 300
    assert not list(tmp_path.iterdir())
    assert outcome.read > 5 and outcome.refused > 100


def with_reader(monkeypatch, read):
    reader = dataclasses.replace(fuzz.READERS["genotype"], read=read)
    monkeypatch.setitem(fuzz.READERS, "genotype", reader)


@pytest.mark.parametrize(
    ("error", "found", "message"),
    [
        (KeyError("a defect"), KeyError, "a defect"),
        (UsageError("two\nlines"), AssertionError, "No line"),
        (UsageError("word " * 999), AssertionError, "No line"),
    ],
)
def test_any_other_end_is_a_find(tmp_path, monkeypatch, error, found, message):
    def read(path):
        if path.read_bytes() not in fuzz.genotype_texts():
            raise error

    with_reader(monkeypatch, read)
    with pytest.raises(found, match=message):
        fuzz.run("genotype", count=300, seed=0, folder=tmp_path)


def test_memory_that_one_input_takes_is_a_find(tmp_path, monkeypatch):
    def read(path):
        if path.read_bytes() not in fuzz.genotype_texts():
            bytearray(200 * 2**20)

    with_reader(monkeypatch, read)
    with pytest.raises(AssertionError, match="MB for"):
        fuzz.run("genotype", count=300, seed=0, folder=tmp_path)


HANG = """
    import dataclasses, pathlib, sys, time
    from tests import fuzz

    def read(path):
        if path.read_bytes() not in fuzz.genotype_texts():
            while sys.argv[2] == "computes" or time.sleep(60):
                pass

    fuzz.MOST_SECONDS, fuzz.MOST_WAIT = 0.1, 1
    reader = dataclasses.replace(fuzz.READERS["genotype"], read=read)
    fuzz.READERS["genotype"] = reader
    fuzz.run("genotype", count=9, seed=0, folder=pathlib.Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("what", "received"),
    [("computes", signal.SIGPROF), ("waits", signal.SIGALRM)],
)
def test_hang_ends_the_process_and_leaves_the_file(tmp_path, what, received):
    program = [sys.executable, "-c", textwrap.dedent(HANG), tmp_path, what]
    result = subprocess.run(program, cwd=fuzz.ROOT, timeout=50)
    assert result.returncode == -received
    assert list(tmp_path.glob("genotype-*.input"))


def test_program_ends_with_a_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fuzz, "FOLDER", tmp_path)
    assert fuzz.main(["genotype", "--count=9"]) == 0
    head, row, last = capsys.readouterr().out.splitlines()[-3:]
    assert last == "9 inputs read or refused, 0 finds"
    assert head.split()[:2] == ["reader", "inputs"]
    assert row.split()[:2] == ["genotype", "9"]
    monkeypatch.setattr(fuzz, "run_apart", mock.Mock(side_effect=OSError(5)))
    assert fuzz.main(["genotype"]) == 1
    assert "genotype: FAILED on" in capsys.readouterr().out
