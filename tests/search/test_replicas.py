import json
import pathlib
import subprocess
import sys

import pytest

from tests.search import replicas

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[2, 4])
def outcomes(request):
    """What `tests.search.replicas` prints, by case."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.search.replicas", str(request.param)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["replicas"] for line in lines} == {request.param}
    return {line["case"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("case", list(replicas.SYNCHRONIZED))
def test_replicas_with_statistics_of_all_equal_one_device(outcomes, case):
    assert outcomes[case]["difference"] < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("case", list(replicas.CONSTANT))
def test_replicas_differ_by_their_batch_statistics_alone(outcomes, case):
    assert outcomes[case]["difference"] < 1e-9


@pytest.mark.slow
def test_replicas_keep_the_same_architecture_weights(outcomes):
    assert all(each["alike"] for each in outcomes.values())
