"""What is tried, and that a stop anywhere changes none of it."""

import collections
import json
import math

import pytest

from att_darts_tf import settings
from att_darts_tf.errors import UsageError
from att_darts_tf.ranges import Range
from att_darts_tf.tuning import oracle, roles

METHODS = ("random", "bayesian", "hyperband")
RANGES = (
    Range("network.learning_rate", "log", (0.001, 1.0)),
    Range("network.cells", "linear", (3, 9)),
    Range("network.cutout", "choice", (0, 8, 16)),
    Range("network.schedule", "choice", ("cosine", "exponential")),
    Range("data.flip", "choice", (True, False)),
    Range("data.crop_area", "choice", ((0.1, 1.0), (0.2, 1.0))),
)
EPOCHS = 9


def tune(method, **changes):
    found = settings.load("base").tune.unlock()
    found.update(method=method, trials=12, **changes)
    return found


def quality(values):
    """Returns an accuracy that is highest at a rate of 0.03."""
    return 1 / (1 + abs(math.log10(values["network.learning_rate"] / 0.03)))


class Stopped(Exception):
    """As a process that is killed: nothing after it is done."""


class Tuning:
    """A tuning whose trials take no time.

    Args:
        file: Path of the journal.
        stop: Integer. After how many more events it is stopped.
    """

    def __init__(self, file, method, ranges, stop=math.inf, **changes):
        self.tried = []
        self.left = stop
        self.ranges = ranges
        tune_ = tune(method, **changes)
        self.oracle = oracle.make(tune_, ranges, epochs=EPOCHS)
        self.journal = oracle.Journal(file)
        append = self.journal.append

        def stopping(event):
            self.count()
            append(event)
            self.count()

        self.journal.append = stopping
        self.oracle.remember(self.journal, role=roles.ALONE)

    def count(self):
        if self.left <= 0:
            raise Stopped
        self.left -= 1

    def run_trial(self, number, values, epochs):
        self.tried.append((number, values, epochs))
        return quality(values)

    def run(self):
        oracle.run(self.oracle, self.ranges, self.run_trial, epochs=EPOCHS)
        return self.journal.events


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def test_values_are_of_their_ranges_and_types(method, tmp_path):
    tuning = Tuning(tmp_path / "journal.json", method, RANGES)
    tuning.run()
    assert len(tuning.tried) >= 12
    for _, values, _ in tuning.tried:
        assert list(values) == [each.name for each in RANGES]
        for each in RANGES:
            value = values[each.name]
            assert type(value) is type(each.values[0])
            if each.kind == "choice":
                assert value in each.values
            else:
                assert each.values[0] <= value <= each.values[1]
    seen = {json.dumps(values) for _, values, _ in tuning.tried}
    assert len(seen) > 6


def test_the_same_seed_tries_the_same_and_another_one_others(method, tmp_path):
    found = [
        Tuning(tmp_path / f"{i}.json", method, RANGES, seed=seed).run()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2]


def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(method, tmp_path):
    # One setting: the Gaussian process begins after three trials.
    whole = Tuning(tmp_path / "whole.json", method, RANGES[:1]).run()
    events = 2 * len(whole)
    for stop in range(0, events, 3 if method == "random" else 7):
        file = tmp_path / f"{stop}.json"
        with pytest.raises(Stopped):
            Tuning(file, method, RANGES[:1], stop=stop).run()
        again = Tuning(file, method, RANGES[:1])
        assert again.run() == whole, stop
        # What had ended is not tried again.
        ended = (stop + 1) // 2 // 2
        assert len(again.tried) <= len(whole) // 2 - ended + 1
    assert json.loads(file.read_text())["events"] == whole


def test_more_trials_go_on_after_those_that_were(tmp_path):
    for method in ("random", "bayesian"):
        file, other = tmp_path / f"{method}.json", tmp_path / f"{method}-2.json"
        few = Tuning(file, method, RANGES[:1])
        few.oracle.max_trials = 5
        few.run()
        more = Tuning(file, method, RANGES[:1])
        assert more.run() == Tuning(other, method, RANGES[:1]).run()
        assert [number for number, *_ in more.tried] == list(range(5, 12))


def test_a_trial_of_another_process_is_done_by_one_that_is_alone(tmp_path):
    file = tmp_path / "journal.json"
    chief = Tuning(file, "random", RANGES[:1])
    begun = [chief.oracle.create_trial(f"worker-{i}") for i in range(3)]
    again = Tuning(file, "random", RANGES[:1])
    again.run()
    tried = {number: values for number, values, _ in again.tried}
    assert sorted(tried) == list(range(12))
    for i, trial in enumerate(begun):
        assert tried[i] == trial.hyperparameters.values


def test_chief_that_is_started_again_leaves_trials_to_their_workers(tmp_path):
    file = tmp_path / "journal.json"
    chief = Tuning(file, "random", RANGES[:1])
    begun = [chief.oracle.create_trial(f"worker-{i}") for i in range(2)]
    again = oracle.make(tune("random"), RANGES[:1], epochs=EPOCHS)
    again.remember(oracle.Journal(file), role=roles.CHIEF)
    for i in (1, 0):
        trial = again.create_trial(f"worker-{i}")
        assert trial.trial_id == begun[i].trial_id
        assert trial.hyperparameters.values == begun[i].hyperparameters.values
    assert again.create_trial("worker-2").trial_id not in {
        each.trial_id for each in begun
    }


def test_what_was_tried_stands_where_another_machine_would_try_others(tmp_path):
    file = tmp_path / "journal.json"
    with pytest.raises(Stopped):
        Tuning(file, "bayesian", RANGES[:1], stop=20).run()
    record = json.loads(file.read_text())
    first = record["events"][0]
    first["values"]["network.learning_rate"] = 0.5
    file.write_text(json.dumps(record))
    events = Tuning(file, "bayesian", RANGES[:1]).run()
    assert len(events) == 24
    oracle_ = oracle.make(tune("bayesian"), RANGES[:1], epochs=EPOCHS)
    oracle_.remember(oracle.Journal(file), role=roles.ALONE)
    first, *others = oracle_.trials.values()
    assert first.hyperparameters.values == {"network.learning_rate": 0.5}
    assert all(each.status == "COMPLETED" for each in (first, *others))


@pytest.mark.parametrize("error", [UsageError("broken"), ValueError("broken")])
def test_what_ends_a_trial_ends_the_tuning(error, tmp_path):
    tuning = Tuning(tmp_path / "journal.json", "random", RANGES[:1])

    def fail(*_):
        raise error

    tuning.run_trial = fail
    with pytest.raises(type(error)) as caught:
        tuning.run()
    assert caught.value is error


def test_trial_of_a_process_alone_is_for_any_worker_of_a_chief(tmp_path):
    file = tmp_path / "journal.json"
    alone = Tuning(file, "random", RANGES[:1])
    begun = alone.oracle.create_trial(roles.ALONE)
    chief = oracle.make(tune("random"), RANGES[:1], epochs=EPOCHS)
    chief.remember(oracle.Journal(file), role=roles.CHIEF)
    assert chief.create_trial("worker-0").trial_id == begun.trial_id


def test_chief_knows_whether_anything_is_left(method, tmp_path):
    file = tmp_path / "journal.json"
    tuning = Tuning(file, method, RANGES[:1])

    def is_done():
        made = oracle.make(tune(method), RANGES[:1], epochs=EPOCHS)
        made.remember(oracle.Journal(file), role=roles.CHIEF)
        return made.is_done()

    assert not is_done()
    begun = tuning.oracle.create_trial("worker-0")
    assert not is_done()
    tuning.oracle.update_trial(begun.trial_id, {"accuracy": 0.5})
    tuning.oracle.end_trial(begun)
    assert not is_done()
    tuning.run()
    before = file.read_text()
    assert is_done()
    assert file.read_text() == before


def test_worker_may_tell_twice_what_became_of_a_trial(tmp_path):
    """As after a chief that went before its answer came."""
    file = tmp_path / "journal.json"
    tuning = Tuning(file, "random", RANGES[:1])
    begun = tuning.oracle.create_trial("worker-0")
    tuning.oracle.update_trial(begun.trial_id, {"accuracy": 0.5})
    chief = oracle.make(tune("random"), RANGES[:1], epochs=EPOCHS)
    chief.remember(oracle.Journal(file), role=roles.CHIEF)
    chief.update_trial(begun.trial_id, {"accuracy": 0.5})
    chief.end_trial(begun)
    assert chief.trials[begun.trial_id].score == 0.5
    assert chief.end_order == [begun.trial_id]
    assert len(oracle.Journal(file).events) == 2


def test_integers_stay_within_their_range(tmp_path):
    space = [Range("network.batch_size", "log", (16, 256))]
    tuning = Tuning(tmp_path / "journal.json", "bayesian", space)
    # The more, the better: the Gaussian process asks for the end.
    tuning.run_trial = lambda number, values, epochs: (
        tuning.tried.append(values["network.batch_size"])
        or values["network.batch_size"] / 1000
    )
    tuning.run()
    assert max(tuning.tried) == 256
    assert min(tuning.tried) >= 16


def test_gaussian_process_tries_nothing_twice(tmp_path):
    space = [Range("network.cutout", "choice", tuple(range(0, 32, 4)))]
    tuning = Tuning(tmp_path / "journal.json", "bayesian", space)
    tuning.run_trial = lambda number, values, epochs: (
        tuning.tried.append(values["network.cutout"]) or 0.5
    )
    tuning.run()
    # Then the space is exhausted.
    assert sorted(tuning.tried) == list(range(0, 32, 4))


def test_hyperband_is_that_of_its_authors(tmp_path):
    """Li et al., 2018, https://arxiv.org/abs/1603.06560, algorithm 1."""
    brackets = round(math.log(EPOCHS, 3)) + 1
    expected = collections.Counter()
    for s in range(brackets):
        first = math.ceil(brackets / (s + 1) * 3**s)
        for i in range(s + 1):
            # The paper keeps the floor of a third, KerasTuner the ceiling.
            kept = math.ceil(brackets / (s + 1) * 3 ** (s - i))
            assert abs(kept - first / 3**i) < 1
            expected[EPOCHS // 3 ** (s - i)] += kept
    tuning = Tuning(tmp_path / "journal.json", "hyperband", RANGES[:1])
    tuning.run()
    received = collections.Counter(epochs for *_, epochs in tuning.tried)
    assert received == expected == {1: 9, 3: 8, 9: 6}
    planned = oracle.planned(tune("hyperband"), RANGES[:1], epochs=EPOCHS)
    assert collections.Counter(planned) == expected
    # The best three of the first nine go on.
    first = sorted(tuning.tried[:9], key=lambda each: -quality(each[1]))
    assert {str(values) for _, values, _ in first[:3]} == {
        str(values) for _, values, epochs in tuning.tried[9:12]
    }


def test_random_and_bayesian_have_as_many_trials_as_are_asked_for():
    for method in ("random", "bayesian"):
        planned = oracle.planned(tune(method), RANGES, epochs=7)
        assert planned == [7] * 12


def test_gaussian_process_learns_where_the_best_is(tmp_path):
    tuning = Tuning(tmp_path / "journal.json", "bayesian", RANGES[:1])
    tuning.run()
    found = [quality(values) for _, values, _ in tuning.tried]
    assert max(found[3:]) > 0.95
    assert sorted(found[3:])[4] > sorted(found[:3])[1]


def test_journal_of_other_packages_is_refused(tmp_path):
    file = tmp_path / "journal.json"
    Tuning(file, "random", RANGES[:1]).run()
    record = json.loads(file.read_text())
    record["events"][0]["trial"] = record["events"][1]["trial"] = 4
    file.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="versions of keras-tuner"):
        Tuning(file, "random", RANGES[:1])


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"trial": "x", "accuracy": 0.5}, "trial"),
        ({"trial": 0}, "accuracy"),
        ({"trial": 0, "accuracy": "high"}, "accuracy"),
        ({"trial": 0, "values": {}}, "tuner"),
        ({"trial": 0, "values": [], "tuner": "a"}, "values"),
    ],
)
def test_damaged_journal_is_named_with_its_field(event, field, tmp_path):
    file = tmp_path / "journal.json"
    Tuning(file, "random", RANGES[:1]).run()
    record = json.loads(file.read_text())
    record["events"][3] = event
    file.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=rf"events\[3\].{field}"):
        oracle.Journal(file)


class TestRoles:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        for name in (roles._IP, roles._PORT, roles._ID):
            monkeypatch.delenv(name, raising=False)
        self.set = monkeypatch.setenv

    def given(self, port="8000", name="worker-0"):
        self.set("KERASTUNER_ORACLE_IP", "10.0.0.1")
        self.set("KERASTUNER_ORACLE_PORT", port)
        self.set("KERASTUNER_TUNER_ID", name)

    def test_without_variables_a_process_is_alone(self):
        assert roles.of_environment() == roles.ALONE

    @pytest.mark.parametrize(
        ("name", "role"), [("chief", "chief"), ("worker-0", "worker")]
    )
    def test_of_variables(self, name, role):
        self.given(name=name)
        assert roles.of_environment() == role
        assert roles.address() == "10.0.0.1:8000"

    @pytest.mark.parametrize("missing", ["port", "name"])
    def test_all_are_asked_for(self, missing):
        self.given(**{missing: ""})
        with pytest.raises(UsageError, match="Expected the variable"):
            roles.of_environment()

    @pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
    def test_port_is_one(self, port):
        self.given(port=port)
        with pytest.raises(UsageError, match="from 1 to 65535"):
            roles.of_environment()
