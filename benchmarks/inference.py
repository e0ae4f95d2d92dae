"""How long the exported model of a network takes to classify images.

    python -m benchmarks.inference --cell=att_darts --channels=36 --cells=20

Exports a network with initial weights, then times its SavedModel in a new
process, which knows nothing of this project, as whoever serves it would. Prints
one line of JSON. `--model` times a SavedModel that is there already.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import measure

BATCHES = (1, 32)


def main():
    options = measure.parser(
        __doc__, cell="att_darts", channels=36, cells=20, steps=20, model=""
    ).parse_args()
    if options.model:
        serve(options)
        return
    # Whoever serves has not the settings that this process makes.
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        export(options, folder)
        subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.inference"),
                *(f"--{name}={value}" for name, value in vars(options).items()),
                f"--model={folder}",
            ],
            env=environment,
            check=True,
        )


def export(options, folder):
    """Writes the SavedModel of a network with initial weights."""
    config, data, _ = measure.prepare()
    from att_darts_tf import serving
    from att_darts_tf.data import preprocess
    from att_darts_tf.network import trainer
    from att_darts_tf.space.published import get

    recipe = config.network
    recipe.channels, recipe.cells = options.channels, options.cells
    network = trainer.make_network(
        config, recipe, data=data, genotype=get(options.cell)
    )
    preprocessing = preprocess.of(config.data, data)
    serving.Classifier(network, data, preprocessing).save(folder)


def serve(options):
    """Times the SavedModel, and prints."""
    import numpy as np
    import tensorflow as tf

    classify = tf.saved_model.load(options.model).signatures["serving_default"]
    (spec,) = classify.structured_input_signature[1].values()
    draw = np.random.default_rng(0)
    figures = {}
    for batch in BATCHES:
        images = draw.integers(0, 256, (batch, *spec.shape[1:]), "uint8")
        images = tf.constant(images)
        # The first calls prepare kernels for a new size.
        for _ in range(3):
            classify(images=images)["label"].numpy()
        if batch == BATCHES[0]:
            figures["seconds_to_first_image"] = round(
                measure.seconds_since_start(), 2
            )
        seconds = measure.timed(
            lambda images=images: classify(images=images)["label"].numpy(),
            count=options.steps,
        )
        figures[f"seconds_per_batch_of_{batch}"] = seconds
    figures["images_per_second"] = round(
        BATCHES[-1] / figures[f"seconds_per_batch_of_{BATCHES[-1]}"]["median"],
        1,
    )
    figures["model_mb"] = round(
        sum(
            file.stat().st_size
            for file in pathlib.Path(options.model).rglob("*")
            if file.is_file()
        )
        / 1e6,
        1,
    )
    shown = {k: v for k, v in vars(options).items() if k != "model"}
    measure.report("inference", deterministic=False, **shown, **figures)


if __name__ == "__main__":
    main()
