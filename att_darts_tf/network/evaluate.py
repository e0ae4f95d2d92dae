"""Judges networks; the only reader of the test split."""

import math
import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from att_darts_tf import durations, intervals, stages, storage
from att_darts_tf.data import input_pipeline, prepared, preprocess
from att_darts_tf.engine import (
    devices,
    losses,
    stage_folder,
    training,
    workdir,
)
from att_darts_tf.errors import UsageError
from att_darts_tf.network import memory
from att_darts_tf.network import network as network_module
from att_darts_tf.network.classifier import Classifier

# Images in a step; no figure depends on it but for rounding.
BATCH_SIZE = 250


class Judgement(NamedTuple):
    """How good a network is on some images.

    Attributes:
        accuracy: Share of the images whose class is the most probable one.
        loss: Mean cross entropy.
        top_5_accuracy: Share of those whose class is one of the five most
            probable; `None` where there are no more.
    """

    accuracy: float
    loss: float
    top_5_accuracy: float | None


def judge(
    network: Classifier,
    *,
    split: prepared.Split | prepared.EncodedSplit,
    preprocessing: preprocess.Preprocessing,
    strategy: devices.Strategy,
    after_batch: Callable[[], None] = lambda: None,
) -> Judgement:
    """Judges a network on unaugmented images.

    Args:
        network: A network, made in the scope of the strategy.
        split: The images to judge on.
        preprocessing: Of these images.
        strategy: Its replicas share the images, those of all processes.
        after_batch: Called after every batch.
    """
    replicas = devices.replicas(strategy)
    batches = input_pipeline.evaluation_batches(
        split,
        preprocessing=preprocessing,
        batch_size=BATCH_SIZE,
        replicas=replicas,
    )

    def step(batch):
        images, labels = batch
        return labels, network(images, training=False)

    answer = devices.on_replicas(strategy, step)
    iterator = iter(batches)
    best, best_5, loss = 0, 0, 0.0
    # Batch by batch: the logits of all images may not fit.
    with training.mistakes_of_the_input():
        for _ in range(len(batches) // replicas[1]):
            for labels, logits in answer(iterator):
                ranks = ranks_of(logits.numpy(), labels.numpy())
                if len(ranks):
                    best += int(np.sum(ranks < 1))
                    best_5 += int(np.sum(ranks < 5))
                    mean = losses.cross_entropy(labels, logits)
                    loss += len(ranks) * float(mean)
            after_batch()
    best, best_5, loss = devices.team(strategy).sums([best, best_5, loss])
    return Judgement(
        accuracy=best / len(split),
        loss=loss / len(split),
        top_5_accuracy=(
            best_5 / len(split) if network.num_classes > 5 else None
        ),
    )


def ranks_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how many classes are before the right one, for each image.

    Of equal logits the first class is before the others.

    Args:
        logits: Array of shape `(images, classes)`. What is not a number is
            before everything.
        labels: Integer array of shape `(images,)`.
    """
    labels = labels[:, None]
    own = np.take_along_axis(logits, labels, axis=1)
    later = np.arange(logits.shape[1]) > labels
    behind = (logits < own) | ((logits == own) & later)
    return logits.shape[1] - 1 - behind.sum(1)


def run_evaluation(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    models: list[str | os.PathLike],
    output_dir: str | os.PathLike,
) -> dict:
    """Judges trained networks on the test split.

    Every network counts, so no training is chosen by its test accuracy.

    Args:
        config: The resolved configuration.
        data_dir: Folder of the prepared images.
        models: Folders of the trainings, each with a `model.keras`.
        output_dir: Folder of the result.

    Returns:
        `accuracies` and `losses` in the order of `models`, the `mean` and the
        sample `standard_deviation` of the accuracies (0 for a single one), of
        several also `half_width_95` (`intervals.of_mean`), the number of
        `images`, and
        with more than five classes the same of the top five:
        `top_5_accuracies`, `top_5_mean` and so on.
    """
    strategy = devices.strategy(config)
    team = devices.team(strategy)
    data = prepared.load(data_dir)
    files = [storage.path(folder) / "model.keras" for folder in models]
    if not files:
        raise UsageError(
            "Expected at least one trained network. Received: none. Run the "
            "stage `train` first"
        )
    identity = workdir.identity(
        config,
        sections=("engine",),
        code=stages.STAGES["evaluate"].code,
        inputs={f"model_{i}": file for i, file in enumerate(files)},
        data={
            "digest": data.digest,
            **preprocess.evaluation_settings(config.data),
        },
    )
    with stage_folder.StageFolder(
        output_dir,
        stage="evaluate",
        identity=identity,
        reads=[data_dir, *models],
        team=team,
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        devices.configure(config)
        split = data.split("test")
        forecast = durations.Forecast(
            "evaluation",
            steps=math.ceil(len(split) / BATCH_SIZE),
            unit="batches",
            alike=len(files) - 1,
        )
        judged = []
        for file in files:
            with strategy.scope():
                network = network_module.load(file)
            check_fits(network, data=data, file=file)
            if file is files[0]:
                images = min(BATCH_SIZE, len(split))
                told = memory.check_inference(network, images)
                print(f"evaluation: {told}", flush=True)
            judged.append(
                judge(
                    network,
                    split=split,
                    preprocessing=preprocess.of(config.data, data),
                    strategy=strategy,
                    after_batch=forecast.step,
                )
            )
        result = {
            "losses": [each.loss for each in judged],
            "images": len(split),
            **_summary([each.accuracy for each in judged]),
        }
        if len(data.class_names) > 5:
            best = _summary([each.top_5_accuracy for each in judged])
            result |= {f"top_5_{name}": value for name, value in best.items()}
        return folder.finish(result)


def _summary(accuracies: list[float]) -> dict:
    summary = {
        "accuracies": accuracies,
        "mean": statistics.fmean(accuracies),
        "standard_deviation": 0.0,
    }
    if len(accuracies) > 1:
        summary["standard_deviation"] = statistics.stdev(accuracies)
        summary["half_width_95"] = intervals.of_mean(accuracies)
    return summary


def check_fits(
    network: Classifier, *, data: prepared.PreparedData, file: storage.Path
) -> None:
    """Raises `UsageError` for a network of images of another kind."""
    expected = (tuple(data.image_shape), len(data.class_names))
    received = (network.image_shape, network.num_classes)
    if expected != received:
        raise UsageError(
            f"Expected a network for images of {expected[0]} in {expected[1]} "
            f"classes, as in {data.folder}. Received: one for images of "
            f"{received[0]} in {received[1]} classes, {file}. Name the images "
            "that it was trained on"
        )
