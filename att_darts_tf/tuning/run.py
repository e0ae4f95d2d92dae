"""Stage: images, and cells where there are some -> settings that do well."""

import os
import statistics
import time
from collections.abc import Sequence

import ml_collections

from att_darts_tf import durations, ranges, settings, stages, storage
from att_darts_tf.engine import stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.tuning import roles, show
from att_darts_tf.tuning.trial import Trials, declare


def run_tuning(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    genotype: str | os.PathLike | None,
    output_dir: str | os.PathLike,
) -> dict:
    """Tries values of the settings in `config.tune.space`, or goes on with it.

    A trial trains on the weight half of the training images and is judged on
    the other; the test split plays no part. One of a search is judged by the
    cells that it finds, as the selection judges candidates.

    Several processes share the trials where the variables of `roles` say so.

    Args:
        config: The resolved configuration; `config.tune` says what is tried.
        data_dir: Folder of the prepared images.
        genotype: What trials of trainings train, as
            `published.resolve_network` takes it; of searches `None`.
        output_dir: Folder of the result, of `config.py`, a configuration with
            what was found, and of the trials.

    Returns:
        `tune` (the settings of this stage), `trials` (as `Trials.run` returns
        them, with their `trial`), `best`, the number of the most accurate of
        those with the most epochs, and `found`, its values. Of a worker, whose
        chief has the result, nothing.
    """
    role = roles.of_environment()
    found = settings.tuned_ranges(config)
    place = storage.path(output_dir)
    data_dir = storage.path(data_dir)
    reads = [data_dir]
    if genotype is not None and storage.is_file(genotype):
        reads.append(storage.path(genotype))
    trials = Trials(config, data_dir, genotype, reads, found, place / "trials")
    identity = trials.identity(config)
    identity["code"] = workdir.code_fingerprint(*stages.STAGES["tune"].code)
    tune = workdir.plain(config.tune)
    # More of them may be asked for later.
    del tune["trials"]
    identity["config"]["tune"] = tune
    if role == roles.WORKER:
        _work(trials, place, identity)
        return {}
    with stage_folder.StageFolder(
        output_dir, stage="tune", identity=identity, reads=reads
    ) as folder:
        result = folder.result()
        if result is not None and result["tune"] == workdir.plain(config.tune):
            # Of what does not decide it, it has what is said now.
            show.write(folder.path, config, result, found)
            return result
        declare(folder.path / "tensorboard", found)
        _lead(trials, folder.path, role)
        done = _done(trials)
        best = choose(done)
        if best is None:
            raise UsageError(
                "Expected a trial that can be trained to its end. Received: "
                f"{len(done)} that cannot, the last one since: "
                f"{done[-1]['infeasible'] if done else 'there is none'}. "
                "Change config.tune.space"
            )
        result = {
            "tune": workdir.plain(config.tune),
            "trials": done,
            "best": best["trial"],
            "found": best["values"],
        }
        show.write(folder.path, config, result, found)
        return folder.finish(result)


def choose(trials: Sequence[dict]) -> dict | None:
    """Returns the most accurate of the trials with the most epochs.

    Args:
        trials: As `run_tuning` returns them. Of equal ones the first counts;
            those that were infeasible do not.
    """
    feasible = [each for each in trials if not each["infeasible"]]
    return max(
        feasible,
        key=lambda each: (each["epochs"], each["accuracy"], -each["trial"]),
        default=None,
    )


def _lead(trials, place, role):
    """Runs the trials, or has them run by workers."""
    oracle_module = _keras_tuner()
    epochs = trials.config[trials.section].epochs
    tune = trials.config.tune
    plan = oracle_module.planned(tune, trials.ranges, epochs=epochs)
    oracle = oracle_module.make(tune, trials.ranges, epochs=epochs)
    journal = oracle_module.Journal(place / "journal.json")
    begun = sum("values" in event for event in journal.events)
    if begun > len(plan):
        raise UsageError(
            f"Expected config.tune.trials of at least {begun}, which have "
            f"begun in {place}. Received: {len(plan)}. Give as many or more"
        )
    oracle.remember(journal, alone=role == roles.ALONE)
    if role == roles.CHIEF:
        print(
            f"tuning: the chief of at most {len(plan)} trials listens at "
            f"{roles.address()}",
            flush=True,
        )
    progress = _Progress(plan)
    for each in _done(trials):
        progress.ended(each, told=False)
    oracle_module.run(
        oracle, trials.ranges, _telling(trials, progress), epochs=epochs
    )


def _work(trials, place, identity):
    """Runs trials for the chief."""
    oracle_module = _keras_tuner()
    epochs = trials.config[trials.section].epochs
    oracle = oracle_module.make(
        trials.config.tune, trials.ranges, epochs=epochs
    )
    print(f"tuning: works for the chief at {roles.address()}", flush=True)
    run = _telling(trials, _Progress([]))

    def checked(number, values, epochs_):
        # Before it listens it has written its own.
        stage_folder.require_identity(place, identity)
        return run(number, values, epochs_)

    oracle_module.run(oracle, trials.ranges, checked, epochs=epochs)


def _telling(trials, progress):
    """Returns a function that runs a trial and tells of it."""

    def run(number, values, epochs):
        progress.begun(number, values, epochs)
        result = trials.run_apart(number, values, epochs)
        progress.ended({"trial": number, **result})
        return result["accuracy"]

    return run


class _Progress:
    """Says which trial is run, which was the best and what remains.

    Args:
        plan: Epochs of each trial, where they are known.
    """

    def __init__(self, plan):
        self.plan = plan
        self.done = []
        self.since = time.monotonic()

    def begun(self, number, values, epochs):
        of = f" of {len(self.plan)}" if self.plan else ""
        print(
            f"tuning: trial {number}{of}, {epochs} epochs: "
            f"{ranges.told(values)}",
            flush=True,
        )
        self.since = time.monotonic()

    def ended(self, trial, *, told=True):
        self.done.append(trial)
        if not told:
            return
        what = f"{100 * trial['accuracy']:.2f} %"
        if trial["infeasible"]:
            what = f"infeasible: {trial['infeasible']}"
        line = f"tuning: trial {trial['trial']}: {what}"
        best = choose(self.done)
        if best is not None:
            line += (
                f"; best so far {100 * best['accuracy']:.2f} % of trial "
                f"{best['trial']}"
            )
        left = sum(self.plan) - sum(each["epochs"] for each in self.done)
        if left > 0:
            pace = statistics.median(
                each["seconds"] / each["epochs"] for each in self.done
            )
            line += f"; about {durations.duration(left * pace)} left"
        print(line, flush=True)


def _done(trials):
    """Returns the results of the trials that have ended, in order."""
    found = []
    for folder in trials.folder.glob("*"):
        file = folder / "result.json"
        if file.exists():
            result = workdir.read_json(file, format=workdir.RESULT_FORMAT)
            found.append({"trial": int(folder.name), **result})
    return sorted(found, key=lambda each: each["trial"])


def _keras_tuner():
    try:
        from att_darts_tf.tuning import oracle
    except ModuleNotFoundError as error:
        if error.name not in ("keras_tuner", "grpc"):
            raise
        raise UsageError(
            "Expected the package keras-tuner for the stage tune. Received: it "
            "is not installed. Run: pip install 'att-darts-tf[tune]'"
        ) from error
    return oracle
