"""Trains a network by a recipe: the `selection` or `network` configuration."""


import keras
import ml_collections

from att_darts_tf import storage
from att_darts_tf.data import input_pipeline, prepared, preprocess
from att_darts_tf.engine import (
    callbacks,
    cluster,
    devices,
    optimizers,
    training,
)
from att_darts_tf.network import memory
from att_darts_tf.network import network as network_module
from att_darts_tf.network.classifier import Classifier
from att_darts_tf.space.genotype import Genotype


class DropPathSchedule(keras.callbacks.Callback):
    """Raises drop path's probability in proportion to the epochs done.

    Source: Liu et al., 2019; the released code's
    `drop_path_prob * epoch / epochs`.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_progress(epoch / self.params["epochs"])


def make_network(
    config: ml_collections.ConfigDict,
    recipe: ml_collections.ConfigDict,
    *,
    data: prepared.PreparedData,
    genotype: Genotype | str,
    frozen: bool = False,
) -> Classifier:
    """Returns a new network for a recipe, ready to be trained."""
    network = network_module.create(
        genotype,
        image_shape=data.image_shape,
        num_classes=len(data.class_names),
        channels=recipe.channels,
        cells=recipe.cells,
        auxiliary=recipe.auxiliary_weight > 0,
        drop_path=recipe.drop_path,
        stem=recipe.stem,
        frozen=frozen,
        dtype=config.engine.precision,
    )
    network.compile(
        optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum),
        clip_norm=recipe.clip_norm,
        weight_decay=recipe.weight_decay,
        auxiliary_weight=recipe.auxiliary_weight,
        label_smoothing=recipe.label_smoothing,
        sync_batch_norm=config.engine.sync_batch_norm,
        jit_compile=config.engine.jit,
    )
    return network


def train(
    config: ml_collections.ConfigDict,
    recipe: ml_collections.ConfigDict,
    *,
    data: prepared.PreparedData,
    split: prepared.Split,
    genotype: Genotype | str,
    seed: int,
    folder: storage.Path,
    label: str,
    alike: int = 0,
    pretrained: str = "",
    frozen: bool = False,
) -> tuple[Classifier, list[dict]]:
    """Trains a network from scratch, or goes on with it.

    Args:
        config: The whole configuration.
        recipe: Its part that says how to train.
        data: Description of the prepared images.
        split: The images to train on.
        genotype: The cells, or the name of a network without.
        seed: Of initial weights, order, augmentation and drop path.
        folder: Path of checkpoints and records.
        label: What progress calls the training.
        alike: How many trainings of the same length come after it.
        pretrained: Path of a trained network whose weights, but for the
            classifiers, the training begins with; "" for random ones.
        frozen: Whether the classifier alone is trained.

    Returns:
        The trained network and its history, as `training.fit` returns it.
    """
    strategy = devices.strategy(config)
    replicas = devices.replicas(strategy)
    devices.configure(config)
    steps = input_pipeline.steps_per_epoch(
        len(split), recipe.batch_size, replicas=replicas[-1]
    )
    preprocessing = preprocess.of(config.data, data, cutout=recipe.cutout)
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        network = make_network(
            config, recipe, data=data, genotype=genotype, frozen=frozen
        )
    images = cluster.images_of(config.engine, recipe.batch_size)
    print(f"{label}: {memory.check(network, images)}", flush=True)
    if pretrained:
        network.take_weights(network_module.load(pretrained))

    def dataset_for(epoch, first_step):
        return input_pipeline.training_batches(
            split,
            preprocessing=preprocessing,
            batch_size=recipe.batch_size,
            epoch=epoch,
            first_step=first_step,
            seed=seed,
            replicas=replicas,
        )

    def rate(epoch):
        if recipe.schedule == "exponential":
            return optimizers.exponential_rate(
                epoch, first=recipe.learning_rate, decay=recipe.decay
            )
        return optimizers.cosine_rate(
            epoch,
            epochs=recipe.epochs,
            first=recipe.learning_rate,
            last=recipe.final_learning_rate,
        )

    history = training.fit(
        network,
        strategy=strategy,
        dataset_for=dataset_for,
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        folder=folder,
        checkpoint_steps=config.engine.checkpoint_steps,
        callbacks=[
            callbacks.RateSchedule(rate),
            DropPathSchedule(),
            callbacks.Progress(label),
            callbacks.Forecast(label, alike),
            callbacks.TensorBoard(folder / "tensorboard"),
        ],
    )
    return network, history
