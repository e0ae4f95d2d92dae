"""Stage: images, and cells where there are some -> settings that do well."""

import os
import statistics
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
    data_dir = storage.path(data_dir)
    found = settings.tuned_ranges(config)
    place = storage.path(output_dir)
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
    oracle_module = _keras_tuner()
    plan = _plan(oracle_module, trials)
    if role == roles.WORKER:
        _work(oracle_module, trials, place, identity)
        return {}
    with stage_folder.StageFolder(
        output_dir, stage="tune", identity=identity, reads=reads
    ) as folder:
        result = folder.result()
        if result is not None and _is_of(result, config):
            # Of what does not decide it, it has what is said now.
            show.write(folder.path, config, result, found)
            return result
        declare(folder.path / "tensorboard", found)
        done = _lead(oracle_module, trials, plan, folder.path, role)
        best = choose(done)
        if best is None:
            raise UsageError(
                "Expected a trial that can be trained to its end. Received: "
                f"{len(done)} that cannot, the last one since: "
                f"{done[-1]['infeasible']} Change config.tune.space, and give "
                "--replace"
            )
        result = {
            "tune": workdir.plain(config.tune),
            "trials": done,
            "best": best["trial"],
            "found": best["values"],
        }
        show.write(folder.path, config, result, found)
        return folder.finish(result)


def _is_of(result, config):
    return result["tune"] == workdir.plain(config.tune)


def _plan(oracle_module, trials):
    """Returns the epochs of each trial; raises `UsageError` for too few."""
    config = trials.config
    epochs, tune = config[trials.section].epochs, config.tune
    plan = oracle_module.planned(tune, trials.ranges, epochs=epochs)
    if tune.method == "hyperband" and (len(plan) < 2 or max(plan) < epochs):
        raise UsageError(
            "Expected several epochs, and more values in config.tune.space "
            "than trials, beside config.tune.method=hyperband. Received: "
            f"{epochs} epochs, and values for {len(plan)} trials of at most "
            f"{max(plan)} epochs. Give --config.tune.method=random, or a wider "
            "space"
        )
    return plan


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


def _lead(oracle_module, trials, plan, place, role):
    """Runs the trials, or has workers run them, and returns their results."""
    epochs, tune = trials.config[trials.section].epochs, trials.config.tune

    def remembering():
        made = oracle_module.make(tune, trials.ranges, epochs=epochs)
        made.remember(oracle_module.Journal(place / "journal.json"), role=role)
        return made

    begun = len(oracle_module.Journal(place / "journal.json").begun)
    if begun > len(plan):
        raise UsageError(
            f"Expected config.tune.trials of at least {begun}, which have "
            f"begun in {place}. Received: {len(plan)}. Give as many or more"
        )
    oracle = remembering()
    progress = _Progress(plan)
    for each in _done(trials):
        progress.ended(each, told=False)
    # A chief would wait for workers that have nothing to ask for.
    if role != roles.CHIEF or not remembering().is_done():
        if role == roles.CHIEF:
            print(
                f"tuning: the chief of at most {len(plan)} trials listens at "
                f"{roles.address()}",
                flush=True,
            )
        oracle_module.run(
            oracle, trials.ranges, _telling(trials, progress), epochs=epochs
        )
    done = _done(trials)
    missing = oracle.journal.ended - {each["trial"] for each in done}
    if missing:
        raise UsageError(
            f"Expected the results of all trials in {trials.folder}. Received: "
            f"none of {sorted(missing)}, which have ended. Look after its file "
            "system; the same command goes on"
        )
    return done


def _work(oracle_module, trials, place, identity):
    """Runs trials for the chief."""
    epochs = trials.config[trials.section].epochs
    oracle = oracle_module.make(
        trials.config.tune, trials.ranges, epochs=epochs
    )

    def check():
        stage_folder.require_identity(place, identity)

    def is_over():
        file = place / "result.json"
        if not file.exists():
            return False
        check()
        result = workdir.read_json(file, format=workdir.RESULT_FORMAT)
        return _is_of(result, trials.config)

    if is_over():
        return
    print(f"tuning: works for the chief at {roles.address()}", flush=True)
    oracle_module.run(
        oracle,
        trials.ranges,
        _telling(trials, _Progress([])),
        epochs=epochs,
        check=check,
        is_over=is_over,
    )


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

    def begun(self, number, values, epochs):
        of = f" of {len(self.plan)}" if self.plan else ""
        print(
            f"tuning: trial {number}{of}, {epochs} epochs: "
            f"{ranges.told(values)}",
            flush=True,
        )

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
