"""From a genotype to a trained and evaluated network."""
