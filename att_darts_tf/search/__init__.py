"""From two halves of the training images to a genotype."""
