"""How fast the input pipeline makes augmented batches.

    python -m benchmarks.input_pipeline --batch=64 --steps=200
    python -m benchmarks.input_pipeline --augmentation=resized_crop --steps=20

Prints one line of JSON: the time from one pair of batches of a search to the
next, with nothing else running, on the embedded real images; or, with
`resized_crop`, on JPEG files of ImageNet's mean size that are drawn here, as
smooth and as noisy as photographs, for windows of 224 pixels. What a core does
is counted in seconds of processors, whatever else they are busy with.
"""

import io
import pathlib
import tempfile
import time

from benchmarks import measure

# Files of 500 x 375 pixels that take part in turn.
_FILES = 256


def main():
    options = measure.parser(
        __doc__, augmentation="padded_crop", batch=64, steps=200, cutout=16
    ).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.augmentation == "resized_crop":
            options.cutout = 0
            draw_photographs(pathlib.Path(folder))
            config, data, splits = measure.prepare(
                name=folder,
                augmentation=options.augmentation,
                image_size=(224, 224),
                channels=3,
            )
        else:
            config, data, splits = measure.prepare()
        run(options, config, data, splits)


def run(options, config, data, splits):
    from att_darts_tf.data import input_pipeline

    batches = input_pipeline.paired_batches(
        splits["weights"],
        splits["architecture"],
        **measure.batch_options(
            config, data, batch=options.batch, cutout=options.cutout
        ),
    ).repeat()
    iterator = iter(batches)
    next(iterator)
    first = measure.seconds_since_start()
    busy = time.process_time()
    seconds = measure.timed(lambda: next(iterator), count=options.steps)
    busy = time.process_time() - busy
    images = 2 * options.batch
    measure.report(
        "input_pipeline",
        deterministic=config.engine.deterministic,
        **vars(options),
        image_shape=data.image_shape,
        seconds_to_first_step=round(first, 2),
        seconds_per_step=seconds,
        images_per_second=round(images / seconds["mean"]),
        images_per_second_of_a_core=round(images * options.steps / busy),
    )


def draw_photographs(folder):
    """Writes JPEG files of about 110 kB, as ImageNet's, in two classes."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(_FILES):
        coarse = generator.integers(0, 256, (24, 32, 3)).astype("uint8")
        image = Image.fromarray(coarse).resize((500, 375), Image.BICUBIC)
        noise = generator.integers(-20, 21, (375, 500, 3))
        pixels = np.clip(np.asarray(image) + noise, 0, 255).astype("uint8")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        path = folder / f"class-{number % 2}" / f"{number:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
