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
        config, recipe, data=data, genotype=get(options.cell)
    )
    batches = input_pipeline.training_batches(
        splits["weights"],
        **measure.batch_options(config, data, batch=options.batch),
    ).repeat()
    figures = measure.training_steps(
        network, batches, count=options.steps, images=options.batch
    )
    measure.report(
        "network_step",
        deterministic=config.engine.deterministic,
        **vars(options),
        parameters=network.num_parameters(),
        **figures,
    )


if __name__ == "__main__":
    main()
