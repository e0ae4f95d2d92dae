"""How long a training step of a final network takes.

    python -m benchmarks.network_step --cell=att_darts --channels=36 --cells=20

Prints one line of JSON. Time counts from the creation of the process; what is
timed is the class that `att-darts train` uses, with its auxiliary head, on the
embedded real images.
"""

from benchmarks import measure


def main():
    options = measure.parser(
        __doc__, cell="att_darts", channels=36, cells=20, batch=16, steps=5
    ).parse_args()
    config, data, splits = measure.prepare()

    from att_darts_tf.data import input_pipeline
    from att_darts_tf.network import trainer
    from att_darts_tf.space.published import get

    recipe = config.network
    recipe.channels, recipe.cells = options.channels, options.cells
    network = trainer.make_network(
        recipe, data=data, genotype=get(options.cell)
    )
    built = measure.seconds_since_start()
    batches = input_pipeline.training_batches(
        splits["weights"],
        batch_size=options.batch,
        epoch=0,
        seed=0,
        **measure.augmentation(config, data),
    ).repeat()
    figures = measure.training_steps(network, batches, count=options.steps)
    measure.report(
        "network_step",
        deterministic=config.engine.deterministic,
        **vars(options),
        parameters=network.num_parameters(),
        seconds_to_build=round(built, 2),
        images_per_second=round(
            options.batch / figures["seconds_per_step"]["median"], 1
        ),
        **figures,
    )


if __name__ == "__main__":
    main()
