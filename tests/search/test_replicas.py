import json
import pathlib
import subprocess
import sys

import pytest

from tests.search import replicas

ROOT = pathlib.Path(__file__).parents[2]
ORDERS = ("first", "finite_difference", "exact")
ON_TWO = tuple(case for case in replicas.CASES if case != "exact, traced")


@pytest.mark.long
# Each order on either number of devices; what takes a trace on one of them.
@pytest.mark.parametrize(
    ("number", "cases"), [(2, ON_TWO), (4, ORDERS)]
)
def test_replicas_equal_one_device(number, cases):
    result = subprocess.run(
        [sys.executable, "-m", "tests.search.replicas", str(number), *cases],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert tuple(outcome["case"] for outcome in outcomes) == cases
    for outcome in outcomes:
        assert outcome["difference"] < 1e-9, outcome
        assert outcome["replicas"] == number
        assert outcome["alike"], outcome
