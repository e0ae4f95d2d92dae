"""How long a search step takes, from the start of the process.

    python -m benchmarks.search_step --channels=16 --cells=8 --batch=16

Prints one line of JSON. Time counts from the creation of the process; what is
timed is the class that `att-darts search` uses, on the embedded real images.
`--plain` computes every candidate as a plain layer.
"""

from benchmarks import measure


def main():
    options = measure.parser(
        __doc__,
        channels=16,
        cells=8,
        batch=16,
        location="after_every",
        order="first",
        implicit="finite_difference",
        steps=5,
        recompute="large",
        microbatch=0,
        precision="float32",
        jit=False,
        plain=False,
    ).parse_args()
    config, data, splits = measure.prepare(deterministic=not options.jit)

    from att_darts_tf.data import input_pipeline
    from att_darts_tf.search.run import make_search

    config.space.location = options.location
    config.engine.precision = options.precision
    config.engine.jit = options.jit
    for name in (
        "cells",
        "channels",
        "order",
        "implicit",
        "recompute",
        "microbatch",
    ):
        config.search[name] = getattr(options, name)
    search = make_search(
        config,
        image_shape=data.image_shape,
        num_classes=len(data.class_names),
        batched=not options.plain,
    )
    batches = input_pipeline.paired_batches(
        splits["weights"],
        splits["architecture"],
        **measure.batch_options(config, data, batch=options.batch),
    ).repeat()
    figures = measure.training_steps(
        search, batches, count=options.steps, images=2 * options.batch
    )
    measure.report(
        "search_step",
        deterministic=config.engine.deterministic,
        **vars(options),
        **figures,
    )


if __name__ == "__main__":
    main()
