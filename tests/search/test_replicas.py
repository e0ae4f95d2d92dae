import json
import pathlib
import subprocess
import sys

import pytest

from tests.search import replicas

ROOT = pathlib.Path(__file__).parents[2]
# Each order on either number of devices; what takes a trace on one of them.
CASES = [(2, case) for case in replicas.CASES] + [
    (4, case) for case in ("first", "finite_difference", "exact")
]


@pytest.fixture(scope="module")
def outcomes():
    """What `tests.search.replicas` prints, by number and case."""
    found = {}
    for number in (2, 4):
        cases = [case for each, case in CASES if each == number]
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.search.replicas",
                str(number),
                *cases,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        for line in map(json.loads, result.stdout.splitlines()):
            found[number, line["case"]] = line
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_replicas_equal_one_device(outcomes, case):
    outcome = outcomes[case]
    assert outcome["difference"] < 1e-9
    assert outcome["replicas"] == case[0]
    assert outcome["alike"]
