"""Judges networks; the only reader of the test split."""

import os
import pathlib
import statistics

import ml_collections

from att_darts_tf.data import input_pipeline, prepared
from att_darts_tf.engine import devices, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import network as network_module
from att_darts_tf.network.classifier import Classifier

# Images in a step; no figure depends on it but for rounding.
BATCH_SIZE = 250
PACKAGES = ("errors", "data", "space", "engine", "network")


def judge(
    network: Classifier, *, data: prepared.PreparedData, split: prepared.Split
) -> tuple[float, float]:
    """Returns accuracy and mean cross entropy on unaugmented images.

    Args:
        network: A compiled network.
        data: Description of the prepared images.
        split: The images to judge on.
    """
    figures = network.evaluate(
        input_pipeline.evaluation_batches(
            split, batch_size=BATCH_SIZE, mean=data.mean, std=data.std
        ),
        return_dict=True,
        verbose=0,
    )
    return float(figures["accuracy"]), float(figures["loss"])


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
        sample `standard_deviation` of the accuracies (0 for a single one), and
        the number of `images`.
    """
    data = prepared.load(data_dir)
    files = [pathlib.Path(folder) / "model.keras" for folder in models]
    if not files:
        raise UsageError(
            "Expected at least one trained network. Received: none. Run the "
            "stage `train` first"
        )
    identity = workdir.identity(
        config,
        sections=("engine",),
        packages=PACKAGES,
        inputs={f"model_{i}": file for i, file in enumerate(files)},
        data=data.digest,
    )
    with workdir.StageFolder(output_dir, identity=identity) as folder:
        result = folder.result()
        if result is not None:
            return result
        devices.configure(config)
        split = data.split("test")
        accuracies, losses = [], []
        for file in files:
            network = network_module.load(file)
            check_fits(network, data=data, file=file)
            accuracy, loss = judge(network, data=data, split=split)
            accuracies.append(accuracy)
            losses.append(loss)
        several = len(accuracies) > 1
        return folder.finish(
            {
                "accuracies": accuracies,
                "losses": losses,
                "mean": statistics.fmean(accuracies),
                "standard_deviation": (
                    statistics.stdev(accuracies) if several else 0.0
                ),
                "images": len(split),
            }
        )


def check_fits(
    network: Classifier, *, data: prepared.PreparedData, file: pathlib.Path
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
