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
        recompute=False,
        microbatch=0,
        plain=False,
    ).parse_args()
    config, data, splits = measure.prepare()

    from att_darts_tf.data import input_pipeline
    from att_darts_tf.engine import optimizers
    from att_darts_tf.search.supernet import Supernet
    from att_darts_tf.search.trainer import Search

    supernet = Supernet(
        len(data.class_names),
        options.location,
        options.channels,
        options.cells,
        batched=not options.plain,
    )
    supernet.build((None, *data.image_shape))
    search = Search(supernet)
    search.compile(
        optimizers.SGD(0.025, momentum=0.9),
        optimizers.Adam(3e-4, beta_1=0.5, beta_2=0.999),
        order=options.order,
        implicit=options.implicit,
        recompute=options.recompute,
        microbatch=options.microbatch,
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
