"""A whole run whose recipe is tuned first: stopped in a trial, and reported."""

import json
import re
import signal
import subprocess
import time

import pytest

from att_darts_tf.engine import lineage
from tests.pipeline import test_end_to_end as whole_run

SETTINGS = (
    "--config.tune.space=network.learning_rate=log(0.01,0.3),"
    "network.cutout=choice(0,2)",
    "--config.tune.trials=2",
    "--config.network.epochs=1",
    "--config.search.seeds=3,",
    "--config.repeats=1",
    "--config.pipeline.baselines=random",
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A pipeline that SIGTERM has stopped in its second trial."""
    folder = tmp_path_factory.mktemp("tuned")
    with open(folder.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            whole_run.command("pipeline", folder, *SETTINGS),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    begun = time.monotonic()
    while not any(
        (folder / "tuning/trials/1/repeat-0/checkpoints").glob("*.index")
    ):
        said = folder.with_suffix(".log").read_text()
        assert process.poll() is None, said
        assert time.monotonic() - begun < whole_run.PATIENCE, said
        time.sleep(0.05)
    status = whole_run.signal_to(process, signal.SIGTERM, timeout=120)
    assert not (folder / "tuning/result.json").exists()
    return folder, status, whole_run.run("pipeline", folder, *SETTINGS)


def read(file):
    return json.loads(file.read_text())


@pytest.mark.long
class TestTuned:
    def test_goes_on_in_the_trial_that_was_stopped(self, tuned):
        folder, status, output = tuned
        assert status == 143
        assert "trial 0 of 2" not in output
        assert "trial 1 of 2" in output
        trials = read(folder / "tuning/result.json")["trials"]
        assert [each["trial"] for each in trials] == [0, 1]

    def test_trains_with_what_was_found_and_so_does_the_baseline(self, tuned):
        folder, *_ = tuned
        found = read(folder / "tuning/result.json")["found"]
        for place in (folder, folder / "baselines/random"):
            training = place / "training/repeat-0"
            recipe = read(training / "identity.json")["config"]["network"]
            for name, value in found.items():
                assert recipe[name.removeprefix("network.")] == value
            ancestors = lineage.load(training / "lineage.json")["ancestors"]
            stages = [each["stage"] for each in ancestors.values()]
            assert stages.count("tune") == 1

    def test_tells_of_it_in_the_end_and_in_the_report(self, tuned):
        folder, _, output = tuned
        assert re.search(r"Tuned, to train +network.learning_rate=", output)
        page = (folder / "report/report.html").read_text()
        assert "<h2>Tuning</h2>" in page
        assert "\u2713 taken" in page

    def test_same_command_again_does_nothing(self, tuned):
        folder, *_ = tuned
        before = (folder / "tuning/result.json").stat().st_mtime_ns
        output = whole_run.run("pipeline", folder, *SETTINGS)
        assert whole_run.executed(output) == ["prepare", "report"]
        assert (folder / "tuning/result.json").stat().st_mtime_ns == before

    def test_stages_by_themselves_take_it_too(self, tuned):
        folder, *_ = tuned
        for stage in ("tune", "train", "evaluate", "report"):
            output = whole_run.run(stage, folder, *SETTINGS)
            assert "step" not in output

    def test_page_is_refused_beside_trainings_with_other_values(
        self, tuned, tmp_path
    ):
        folder, *_ = tuned
        file = folder / "tuning/result.json"
        kept = file.read_text()
        record = read(file)
        record["found"]["network.learning_rate"] = 0.123
        file.write_text(json.dumps(record))
        try:
            done = subprocess.run(
                whole_run.command("report", folder, *SETTINGS),
                capture_output=True,
                text=True,
            )
        finally:
            file.write_text(kept)
        assert done.returncode == 2
        assert "training/repeat-0 to be of what is there now" in done.stderr
