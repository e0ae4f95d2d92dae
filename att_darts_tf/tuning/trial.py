"""One trial of a tuning: values of settings -> how good they are."""

import dataclasses
import os
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

import ml_collections
import tensorflow as tf
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.scalar import summary as scalars
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from att_darts_tf import ranges as ranges_module
from att_darts_tf import settings, stages, storage
from att_darts_tf.data import prepared, preprocess
from att_darts_tf.engine import stage_folder, workdir
from att_darts_tf.engine.writing import writing
from att_darts_tf.errors import InfeasibleError, UsageError
from att_darts_tf.network import run as network_run
from att_darts_tf.search import run as search_run
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype
from att_darts_tf.tuning import process

METRIC = "validation_accuracy"


@dataclasses.dataclass(frozen=True)
class Trials:
    """What all trials of a tuning share.

    Attributes:
        config: The resolved configuration; its recipe is changed.
        data_dir: Path of the prepared images.
        genotype: What the trials train, as `published.resolve_network` takes
            it; `None` where they search.
        reads: As in `StageFolder`.
        ranges: What is tuned.
        folder: Path of the folders of all trials.
    """

    config: ml_collections.ConfigDict
    data_dir: storage.Path
    genotype: str | os.PathLike | None
    reads: Sequence[storage.Path]
    ranges: Sequence[ranges_module.Range]
    folder: storage.Path

    def run_apart(
        self, number: int, values: dict[str, Any], epochs: int
    ) -> dict:
        """Does what `run` does, in a process of its own."""
        own = [getattr(self, each.name) for each in dataclasses.fields(self)]
        return process.call(__name__, "run", own, number, values, epochs)

    @property
    def data(self) -> prepared.PreparedData:
        """Returns the description of the prepared images."""
        return prepared.load(self.data_dir)

    @property
    def section(self) -> str:
        """Returns the part of the configuration that has the epochs."""
        return "search" if self.config.tune.stage == "search" else "network"

    def config_of(
        self, values: dict[str, Any], epochs: int
    ) -> ml_collections.ConfigDict:
        """Returns the configuration of one trial."""
        return settings.with_values(
            self.config, {**values, f"{self.section}.epochs": epochs}
        )

    def run(self, number: int, values: dict[str, Any], epochs: int) -> dict:
        """Runs a trial, or goes on with it.

        A trial whose recipe cannot be trained to its end has accuracy 0.

        Args:
            number: Integer. Of the trial.
            values: Of the settings that are tuned.
            epochs: Integer.

        Returns:
            `values`, `epochs`, the `accuracies` of its trainings on the
            architecture half and their mean, the `accuracy`, how many
            `images` that half has, `seconds`, and what made it `infeasible`,
            if it was.
        """
        config = self.config_of(values, epochs)
        folder = self.folder / str(number)
        with stage_folder.StageFolder(
            folder,
            stage="tune",
            identity=self.identity(config),
            reads=self.reads,
        ) as held:
            result = held.result()
            if result is not None:
                return result
            judged, infeasible = [], ""
            try:
                self._check(config)
                for repeat in range(self.config.tune.repeats):
                    judged.append(
                        self._judge(config, folder, number, repeat)
                    )
            except InfeasibleError as error:
                infeasible = str(error)
            except tf.errors.ResourceExhaustedError as error:
                # Of a GPU it is known when it is gone; else of a disk.
                if not re.search("OOM|out of memory", error.message, re.I):
                    raise
                infeasible = f"No memory is left: {error.message[:200]}"
            accuracies = [each["validation_accuracy"] for each in judged]
            result = {
                "values": workdir.plain(values),
                "epochs": epochs,
                "accuracies": accuracies,
                "accuracy": 0.0 if infeasible else statistics.fmean(accuracies),
                "images": len(self.data.split("architecture")),
                "seconds": sum(each["seconds"] for each in judged),
                "infeasible": infeasible,
            }
            show(folder / "tensorboard", values, result["accuracy"], epochs)
            return held.finish(result)

    def _check(self, config) -> None:
        """Raises `InfeasibleError` for values that do not go together."""
        # A task of a pipeline has a part of all settings.
        values = {**dict(settings.flatten(config)), "tune.space": ()}
        try:
            settings.validate(
                settings.with_values(settings.load("base"), values)
            )
        except UsageError as error:
            raise InfeasibleError(str(error)) from error

    def identity(self, config: ml_collections.ConfigDict) -> dict:
        """Returns what the result of trials of a configuration depends on."""
        sections = ["engine", self.section]
        if self.section == "search":
            sections += ["space", "selection"]
        pretrained = config.network.pretrained
        identity = workdir.identity(
            config,
            sections=sections,
            inputs={"pretrained": pretrained} if pretrained else {},
            # How values are chosen is nothing to them.
            code=sorted(
                {*stages.STAGES["train"].code, *stages.STAGES["search"].code}
            ),
            data={
                "digest": self.data.digest,
                **preprocess.training_settings(config.data),
                **preprocess.evaluation_settings(config.data),
            },
            repeats=config.tune.repeats,
        )
        identity["config"].get("search", {}).pop("seeds", None)
        if self.genotype is not None:
            identity["genotype"] = published.plain(
                published.resolve_network(self.genotype)
            )
        return identity

    def _judge(self, config, folder, number, repeat):
        """Returns the judgement of one training or search of a trial."""
        label = f"trial {number}, repeat {repeat}"
        more = {
            "data": self.data,
            "stage": "tune",
            "seed": repeat,
            "alike": config.tune.repeats - 1 - repeat,
        }
        if self.genotype is not None:
            return network_run.run_candidate(
                config,
                section="network",
                genotype=published.resolve_network(self.genotype),
                reads=self.reads,
                output_dir=folder / f"repeat-{repeat}",
                label=label,
                **more,
            )
        place = folder / f"search-{repeat}"
        searched = search_run.run_search(
            config,
            data_dir=self.data_dir,
            output_dir=place,
            seed=repeat,
        )
        file = place / "genotype.json"
        # As the selection of the run would judge it, by its recipe.
        judged = network_run.run_candidate(
            self.config,
            section="selection",
            genotype=Genotype.read(file),
            reads=[*self.reads, place],
            output_dir=folder / f"repeat-{repeat}",
            label=f"{label}, its cells",
            **{**more, "seed": 0},
        )
        return {**judged, "seconds": judged["seconds"] + searched["seconds"]}


def run(fields: list, *args: Any) -> dict:
    """Does what `Trials.run` does.

    Args:
        fields: Of `Trials`, which needs TensorFlow to be sent itself.
        *args: Of `Trials.run`.
    """
    return Trials(*fields).run(*args)


def declare(
    folder: storage.Path, ranges: Sequence[ranges_module.Range]
) -> None:
    """Tells TensorBoard what is tuned.

    Args:
        folder: Path of the summaries.
        ranges: What is tuned.
    """
    summary = hparams.hparams_config_pb(
        hparams=[hparams.HParam(each.name, _domain(each)) for each in ranges],
        metrics=[hparams.Metric(METRIC, display_name="accuracy")],
    )
    _write(folder, event_pb2.Event(summary=summary))


def show(
    folder: storage.Path, values: dict[str, Any], accuracy: float, epochs: int
) -> None:
    """Tells TensorBoard of a trial that has ended.

    Args:
        folder: Path of its summaries.
        values: Of the settings that are tuned.
        accuracy: Float.
        epochs: Integer, at which its point stands.
    """
    described = hparams.hparams_pb(
        {name: _shown(value) for name, value in values.items()},
        trial_id=folder.parent.name,
    )
    _write(
        folder,
        event_pb2.Event(summary=described),
        event_pb2.Event(
            step=epochs, summary=scalars.scalar_pb(METRIC, accuracy)
        ),
    )


def _write(folder: storage.Path, *events: event_pb2.Event) -> None:
    # One that was stopped begins anew.
    storage.remove(folder)
    with writing(folder):
        writer = EventFileWriter(str(folder))
        for event in events:
            event.wall_time = time.time()
            writer.add_event(event)
        writer.close()


def _domain(each):
    if each.kind == "choice":
        return hparams.Discrete([_shown(value) for value in each.values])
    if isinstance(each.values[0], int):
        return hparams.IntInterval(*each.values)
    return hparams.RealInterval(*each.values)


def _shown(value):
    """Returns the value of a setting as TensorBoard takes it."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)
