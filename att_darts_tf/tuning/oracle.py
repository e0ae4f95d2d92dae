"""KerasTuner chooses what is tried, and what it has chosen is on disk.

Its own files are not written whole or not at all, and do not hold all that it
goes by. Here what has happened is kept instead: which trial was begun, with
which values, and which was ended, how accurate. An oracle to which the same
happens again is the same oracle, so a tuning that was killed anywhere goes on
as if it had not been.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import keras_tuner
import ml_collections
import numpy as np
from keras_tuner.engine import base_tuner

from att_darts_tf import storage
from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.ranges import Range
from att_darts_tf.tuning import roles

JOURNAL_FORMAT = 1
_OBJECTIVE = "accuracy"
# Of Hyperband: of as many trials the best one gets as many times the epochs.
# Source: Li et al., 2018, https://arxiv.org/abs/1603.06560, section 3.
_FACTOR = 3
# Where Hyperband says the epochs of a trial.
_EPOCHS = "tuner/epochs"
# Seconds until a chief that went is looked for again.
_AGAIN = 5.0


class Journal:
    """What has happened in a tuning, in order.

    Args:
        file: Path of the file that keeps it.

    Attributes:
        events: List of dictionaries: `trial`, the number of one, with `tuner`
            and `values` where it was begun, with `accuracy` where it was ended.
    """

    def __init__(self, file: storage.Path):
        self.file = file
        self.events = []
        if file.exists():
            record = workdir.read_record(
                file, {"events": [{"trial": int}]}, format=JOURNAL_FORMAT
            )
            self.events = record["events"]
            for i, event in enumerate(self.events):
                begun = {"tuner": str, "values": {}}
                workdir.check_shape(
                    event,
                    begun if "values" in event else {"accuracy": float},
                    file=file,
                    field=f"events[{i}]",
                )

    @property
    def begun(self) -> set[int]:
        """Returns the numbers of the trials that were begun."""
        return {each["trial"] for each in self.events if "values" in each}

    @property
    def ended(self) -> set[int]:
        """Returns the numbers of the trials that were ended."""
        return {each["trial"] for each in self.events if "accuracy" in each}

    def append(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        workdir.write_json(
            self.file, {"events": self.events}, format=JOURNAL_FORMAT
        )


class _Remembering:
    """Makes an oracle keep a journal, and nothing else.

    Attributes:
        ranges: What is tuned.
        journal: `Journal`, or `None` where nothing is kept.
    """

    ranges = ()
    journal = None

    def remember(self, journal: Journal, *, role: str) -> None:
        """Lets happen what the journal tells, and keeps it from now on.

        Args:
            journal: What has happened so far.
            role: As `roles.of_environment` returns it. One that is alone does
                what any other had begun; to a chief, workers come again.
        """
        for event in journal.events:
            if "values" in event:
                self._begin(event, journal)
            else:
                name = self._ids()[event["trial"]]
                self.update_trial(name, {_OBJECTIVE: event["accuracy"]})
                self.end_trial(self.trials[name])
        for tuner, trial in list(self.ongoing_trials.items()):
            if role == roles.ALONE or tuner == roles.ALONE:
                self._retry_queue.append(trial.trial_id)
                del self.ongoing_trials[tuner]
        # The others have left.
        self.tuner_ids = set(self.ongoing_trials)
        self.journal = journal

    def is_done(self) -> bool:
        """Returns whether nothing is left to try, and spoils the oracle."""
        if self.ongoing_trials or self._retry_queue:
            return False
        self.journal = None
        return self.create_trial(roles.ALONE).status == "STOPPED"

    def _begin(self, event, journal):
        trial = self.create_trial(event["tuner"])
        if int(trial.trial_id) != event["trial"]:
            raise UsageError(
                f"Expected trial {trial.trial_id} in {journal.file}. "
                f"Received: {event['trial']}. Use the versions of keras-tuner "
                "and scikit-learn that began it, or another --workdir"
            )
        # Another machine may round otherwise.
        trial.hyperparameters.values = dict(event["values"])

    def _ids(self):
        return {int(name): name for name in self.trials}

    def create_trial(self, tuner_id):
        known = set(self.trials)
        trial = super().create_trial(tuner_id)
        if trial.trial_id in self.trials and trial.trial_id not in known:
            given = trial.hyperparameters.values
            values = {name: _plain(value) for name, value in given.items()}
            for each in self.ranges:
                if each.kind != "choice":
                    # Of integers, the Gaussian process may ask for one more.
                    low, high = each.values
                    values[each.name] = min(max(values[each.name], low), high)
            trial.hyperparameters.values = values
            self._tell(trial.trial_id, tuner=tuner_id, values=values)
        return trial

    def update_trial(self, trial_id, metrics, step=0):
        trial = self.trials[trial_id]
        # A worker that did not hear that it was heard tells it again.
        if not trial.metrics.exists(_OBJECTIVE):
            super().update_trial(trial_id, metrics, step)
            # There is one accuracy, that with which it ends.
            self._tell(trial_id, accuracy=metrics[_OBJECTIVE])
        return trial

    def end_trial(self, trial):
        if trial.trial_id not in self.end_order:
            trial.status = "COMPLETED"
            super().end_trial(trial)

    def _tell(self, trial_id, **event):
        if self.journal is not None:
            self.journal.append({"trial": int(trial_id), **event})

    def save(self):
        """Writes nothing: the journal has it."""

    _save_trial = reload = lambda self, *_: None


class _RandomSearch(_Remembering, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Hyperband(_Remembering, keras_tuner.oracles.HyperbandOracle):
    pass


class _Bayesian(
    _Remembering, keras_tuner.oracles.BayesianOptimizationOracle
):
    def populate_space(self, trial_id):
        proposed = super().populate_space(trial_id)
        if proposed["status"] == "RUNNING" and self._duplicate(
            proposed["values"]
        ):
            # The same values are as accurate as before.
            return self._random_populate_space()
        return proposed


def make(
    tune: ml_collections.ConfigDict, ranges: Sequence[Range], *, epochs: int
) -> keras_tuner.Oracle:
    """Returns an oracle to which nothing has happened.

    Args:
        tune: `config.tune`.
        ranges: What is tuned.
        epochs: Of a whole trial.
    """
    space = keras_tuner.HyperParameters()
    for each in ranges:
        _declare(space, each)
    common = {
        "objective": keras_tuner.Objective(_OBJECTIVE, "max"),
        "hyperparameters": space,
        # It takes 0 for none.
        "seed": tune.seed + 1,
    }
    if tune.method == "hyperband":
        made = _Hyperband(max_epochs=epochs, factor=_FACTOR, **common)
    elif tune.method == "bayesian":
        try:
            made = _Bayesian(max_trials=tune.trials, **common)
        except ImportError as error:
            raise UsageError(
                "Expected the package scikit-learn for config.tune.method="
                "bayesian. Received: it is not installed. Run: pip install "
                "'att-darts-tf[tune]'"
            ) from error
    else:
        made = _RandomSearch(max_trials=tune.trials, **common)
    made.ranges = ranges
    made.verbose = 0
    return made


def planned(
    tune: ml_collections.ConfigDict, ranges: Sequence[Range], *, epochs: int
) -> list[int]:
    """Returns the epochs of each trial that a tuning has at most.

    Args:
        tune: `config.tune`.
        ranges: What is tuned.
        epochs: Of a whole trial.
    """
    oracle, found = make(tune, ranges, epochs=epochs), []
    if tune.method != "hyperband":
        return [epochs] * tune.trials
    # However accurate they are, they are as many.
    while (trial := oracle.create_trial("plan")).status == "RUNNING":
        found.append(epochs_of(trial, epochs))
        oracle.update_trial(trial.trial_id, {_OBJECTIVE: 0.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return found


def epochs_of(trial, epochs: int) -> int:
    """Returns the epochs that a trial has of so many."""
    return trial.hyperparameters.values.get(_EPOCHS, epochs)


def run(
    oracle: keras_tuner.Oracle,
    ranges: Sequence[Range],
    run_trial: Callable[[int, dict[str, Any], int], float],
    *,
    epochs: int,
    check: Callable[[], None] = lambda: None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Runs trials until the oracle wants no more, or serves those who do.

    Args:
        oracle: As `make` returns it.
        ranges: What is tuned.
        run_trial: Maps a trial's number, the values of settings and its epochs
            to an accuracy.
        epochs: Of a whole trial.
        check: Called before the first one is asked for, when there is an
            oracle that answers.
        is_over: Returns whether a chief that is gone was done.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        tuner = _Tuner(oracle, ranges, run_trial, check, epochs, nowhere)
        while True:
            try:
                tuner.search()
                return
            except grpc.RpcError as error:
                if is_over():
                    return
                # A chief that is started again goes on with its trials.
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    print(f"tuning: {roles.address()} is gone", flush=True)
                    time.sleep(_AGAIN)
                    continue
                raise UsageError(
                    f"Expected the chief of this tuning at {roles.address()}. "
                    f"Received: {error.details()}. Start it there; the same "
                    "command goes on where it stopped"
                ) from error
            except RuntimeError as error:
                # A port that is taken.
                if roles.of_environment() != roles.CHIEF:
                    raise
                raise UsageError(
                    f"Expected to listen at {roles.address()}, as the chief of "
                    f"this tuning. Received: {error}. Give an address of this "
                    "machine and a free port"
                ) from error


class _Tuner(base_tuner.BaseTuner):
    """Asks an oracle, its own or the chief's, and tells it what came of it."""

    def __init__(self, oracle, ranges, run_trial, check, epochs, folder):
        super().__init__(oracle, directory=folder)
        self.ranges = ranges
        self.run = run_trial
        self.check = check
        self.epochs = epochs
        self.asked = False
        if roles.of_environment() == roles.ALONE:
            self.tuner_id = roles.ALONE

    def on_search_begin(self):
        # This waits for a chief that is still to come.
        self.oracle.get_space()
        self.check()

    def pre_create_trial(self):
        if self.asked:
            # A chief that has nothing to do yet is asked again and again.
            time.sleep(0.2)
        self.asked = True

    def on_trial_begin(self, trial):
        self.asked = False

    def run_trial(self, trial):
        values = trial.hyperparameters.values
        accuracy = self.run(
            int(trial.trial_id),
            dict(_values(self.ranges, values)),
            epochs_of(trial, self.epochs),
        )
        return {_OBJECTIVE: accuracy}

    def _try_run_and_update_trial(self, trial, *_):
        # That of KerasTuner swallows whatever goes wrong.
        accuracy = self.run_trial(trial)
        self.oracle.update_trial(trial.trial_id, accuracy)
        trial.status = "COMPLETED"

    def save(self):
        """Writes nothing: the journal has it."""


def _declare(space, each: Range) -> None:
    first = each.values[0]
    if each.kind == "choice":
        numbers = type(first) in (int, float)
        space.Choice(
            each.name,
            list(each.values if numbers else map(str, each.values)),
        )
        return
    add = space.Int if isinstance(first, int) else space.Float
    add(each.name, *each.values, sampling=each.kind)


def _values(
    ranges: Sequence[Range], values: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yields names and values of settings as a configuration has them."""
    for each in ranges:
        value = values[each.name]
        if each.kind == "choice" and isinstance(value, str):
            value = {str(one): one for one in each.values}[value]
        yield each.name, value


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
