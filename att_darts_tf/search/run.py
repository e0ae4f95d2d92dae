"""Stage: prepared images -> the cells that a search finds."""

import io
import json
import os
from collections.abc import Sequence

import keras
import ml_collections
import numpy as np

from att_darts_tf import stages, storage
from att_darts_tf.data import input_pipeline, prepared, preprocess
from att_darts_tf.engine import (
    callbacks,
    devices,
    optimizers,
    stage_folder,
    training,
    workdir,
)
from att_darts_tf.search import derive, memory
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.search.trainer import Search
from att_darts_tf.space import drawings, search_space

ARCHITECTURE_FORMAT = 1


def run_search(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    seed: int,
    alike: int = 0,
    reads: Sequence[str | os.PathLike] = (),
) -> dict:
    """Searches for a pair of cells, or goes on with it.

    Writes after every epoch `genotype.json`, the cells as they stand, and
    `architecture.json`, the architecture weights of every epoch so far.

    Args:
        config: The resolved configuration; `config.search` is the recipe.
        data_dir: Folder of the prepared images.
        output_dir: Folder of the result.
        seed: Of initial weights, order and augmentation.
        alike: How many searches come after this one, for the forecast.
        reads: Folders of further stages that the configuration comes from.

    Returns:
        `genotype`, `seed`, `parameters` (weights of the supernet),
        `train_accuracy` and `architecture_accuracy` of the last epoch (with
        augmentation, each half before its update), `epochs` and `seconds`.
    """
    # Before TensorFlow is used otherwise.
    team = devices.team(devices.strategy(config))
    data = prepared.load(data_dir)
    search_space.get(config.space.location)
    identity = workdir.identity(
        config,
        sections=("space", "engine", "search"),
        code=stages.STAGES["search"].code,
        data={
            "digest": data.digest,
            **preprocess.training_settings(config.data),
        },
        seed=seed,
    )
    # The other seeds, where they are known, are other searches.
    identity["config"]["search"].pop("seeds", None)
    with stage_folder.StageFolder(
        output_dir,
        stage="search",
        identity=identity,
        reads=[data_dir, *reads],
        team=team,
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        search, history = train(
            config, data=data, seed=seed, folder=folder.path, alike=alike
        )
        last = history[-1]
        return folder.finish(
            {
                "genotype": json.loads(search.genotype().to_json()),
                "seed": seed,
                "parameters": sum(
                    int(np.prod(v.shape))
                    for v in search.supernet.weight_variables
                ),
                "train_accuracy": last["accuracy"],
                "architecture_accuracy": last["search_accuracy"],
                "epochs": len(history),
                "seconds": sum(epoch["seconds"] for epoch in history),
            }
        )


def train(
    config: ml_collections.ConfigDict,
    *,
    data: prepared.PreparedData,
    seed: int,
    folder: storage.Path,
    alike: int = 0,
) -> tuple[Search, list[dict]]:
    """Trains a supernet by a recipe; returns the search and its history."""
    recipe, label = config.search, f"search, seed {seed}"
    strategy = devices.strategy(config)
    replicas = devices.replicas(strategy)
    print(f"{label}: {memory.check(config)}", flush=True)
    devices.configure(config)
    # Source: Liu et al., 2019, appendix A.1: the search erases nothing.
    preprocessing = preprocess.of(config.data, data)
    weights, architecture = data.split("weights"), data.split("architecture")
    steps = input_pipeline.steps_per_epoch(
        len(weights), recipe.batch_size, replicas=replicas[-1]
    )
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        search = make_search(
            config,
            image_shape=data.image_shape,
            num_classes=len(data.class_names),
        )

    def dataset_for(epoch, first_step):
        return input_pipeline.paired_batches(
            weights,
            architecture,
            preprocessing=preprocessing,
            batch_size=recipe.batch_size,
            epoch=epoch,
            first_step=first_step,
            seed=seed,
            replicas=replicas,
        )

    def rate(epoch):
        return optimizers.cosine_rate(
            epoch,
            epochs=recipe.epochs,
            first=recipe.learning_rate,
            last=recipe.final_learning_rate,
        )

    supernet = search.supernet
    history = training.fit(
        search,
        strategy=strategy,
        dataset_for=dataset_for,
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        folder=folder,
        checkpoint_steps=config.engine.checkpoint_steps,
        callbacks=[
            callbacks.RateSchedule(rate),
            callbacks.SameOnReplicas(
                strategy,
                supernet.architecture_variables,
                "architecture weights",
            ),
            ArchitectureRecord(folder),
            callbacks.Progress(label),
            callbacks.Forecast(label, alike),
            callbacks.TensorBoard(
                folder / "tensorboard", images=lambda epoch: pictures(search)
            ),
        ],
    )
    return search, history


def make_search(
    config: ml_collections.ConfigDict,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    batched: bool = True,
) -> Search:
    """Returns a new search for a recipe, ready to be trained.

    Args:
        config: The configuration; `config.search` is the recipe.
        image_shape: Height, width and channels.
        num_classes: Of the images.
        batched: See `Supernet`.
    """
    recipe = config.search
    supernet = Supernet(
        num_classes=num_classes,
        location=config.space.location,
        channels=recipe.channels,
        num_cells=recipe.cells,
        batched=batched,
        dtype=config.engine.precision,
    )
    supernet.build((None, *image_shape))
    search = Search(supernet)
    beta_1, beta_2 = recipe.architecture_betas
    search.compile(
        optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum),
        optimizers.Adam(
            recipe.architecture_learning_rate, beta_1=beta_1, beta_2=beta_2
        ),
        clip_norm=recipe.clip_norm,
        weight_decay=recipe.weight_decay,
        architecture_weight_decay=recipe.architecture_weight_decay,
        order=recipe.order,
        implicit=recipe.implicit,
        recompute=recipe.recompute,
        microbatch=recipe.microbatch,
        jit=config.engine.jit,
        sync_batch_norm=config.engine.sync_batch_norm,
    )
    return search


class ArchitectureRecord(keras.callbacks.Callback):
    """Writes the cells and the architecture weights after every epoch.

    Args:
        folder: Path of the two files.
    """

    def __init__(self, folder):
        super().__init__()
        self.genotype_file = folder / "genotype.json"
        self.weights_file = folder / "architecture.json"

    def on_epoch_end(self, epoch, logs=None):
        supernet = self.model.supernet
        epochs = []
        if self.weights_file.exists():
            record = workdir.read_json(
                self.weights_file, format=ARCHITECTURE_FORMAT
            )
            # A resume may end an epoch for the second time.
            epochs = record["epochs"][:epoch]
        architecture = {
            name: values.tolist()
            for name, values in supernet.architecture().items()
        }
        genotype = derive.derive(architecture, supernet.location)
        epochs.append(
            {
                "epoch": epoch,
                "genotype": json.loads(genotype.to_json()),
                "architecture": architecture,
            }
        )
        workdir.write_json(
            self.weights_file,
            {"location": supernet.location, "epochs": epochs},
            format=ARCHITECTURE_FORMAT,
        )
        genotype.write(self.genotype_file)


def pictures(search: Search) -> dict[str, np.ndarray]:
    """Returns images of the cells and the architecture weights as they are."""
    from matplotlib import image

    def pixels(png):
        return (image.imread(png)[..., :3] * 255).astype("uint8")

    supernet = search.supernet
    weights = drawings.draw_architecture(
        supernet.architecture(), supernet.location
    )
    drawn = {"architecture_weights": pixels(io.BytesIO(weights))}
    genotype = search.genotype()
    for name in search_space.CELL_NAMES:
        file = io.BytesIO()
        drawings.draw_cell_png(
            getattr(genotype, name), f"{name} cell", file, scale=1
        )
        file.seek(0)
        drawn[f"{name}_cell"] = pixels(file)
    return drawn
