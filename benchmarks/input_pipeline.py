"""How fast the input pipeline makes augmented batches.

    python -m benchmarks.input_pipeline --batch=64 --steps=200

Prints one line of JSON: the time from one pair of batches of a search to the
next, with nothing else running, on the embedded real images.
"""

from benchmarks import measure


def main():
    options = measure.parser(
        __doc__, batch=64, steps=200, cutout=16
    ).parse_args()
    config, data, splits = measure.prepare()

    from att_darts_tf.data import input_pipeline

    augmentation = measure.batch_options(config, data, batch=options.batch)
    augmentation["cutout"] = options.cutout
    batches = input_pipeline.paired_batches(
        splits["weights"], splits["architecture"], **augmentation
    ).repeat()
    iterator = iter(batches)
    next(iterator)
    first = measure.seconds_since_start()
    seconds = measure.timed(lambda: next(iterator), count=options.steps)
    measure.report(
        "input_pipeline",
        deterministic=config.engine.deterministic,
        **vars(options),
        image_shape=data.image_shape,
        seconds_to_first_step=round(first, 2),
        seconds_per_step=seconds,
        images_per_second=round(2 * options.batch / seconds["mean"]),
    )


if __name__ == "__main__":
    main()
