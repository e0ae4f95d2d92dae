"""Draws the sample from the CIFAR-10 of TensorFlow Datasets.

    python -m att_darts_tf.data.sample.draw --data_dir=DIR

Per class the images whose keys have the smallest digests: the same images
whenever it is run on version 3.0.2 of the dataset. Writes `train.png` and
`test.png` beside this file.
"""

import argparse
import collections

import ml_collections
import numpy as np

from att_darts_tf.data import datasets
from att_darts_tf.data.sample import sheets

DATASET = "cifar10:3.0.2"
# Together 4.3 MB.
IMAGES_PER_CLASS = {"train": 150, "test": 50}


def draw(examples, *, images_per_class: int) -> np.ndarray:
    """Chooses by digest of the key; shape as `sheets.pack` takes it."""
    by_label = collections.defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    return np.stack(
        [
            np.stack(
                [
                    example.image
                    for example in sorted(
                        by_label[label],
                        key=lambda example: datasets.digest_of(example.key),
                    )[:images_per_class]
                ]
            )
            for label in range(len(sheets.CLASS_NAMES))
        ]
    )


def main():
    parser = argparse.ArgumentParser(description="Draws the sample again.")
    parser.add_argument(
        "--data_dir", help="where TensorFlow Datasets keeps its data"
    )
    settings = ml_collections.ConfigDict(
        {
            "name": DATASET,
            "data_dir": parser.parse_args().data_dir,
            "image_size": (sheets.SIDE, sheets.SIDE),
            "channels": 3,
            "test_fraction": 0.2,
            "augmentation": "padded_crop",
        }
    )
    source = datasets.open_source(settings)
    for split, count in IMAGES_PER_CLASS.items():
        examples = (
            example._replace(
                image=datasets.examine(example, settings).content
            )
            for example in source.read(split)
        )
        images = draw(examples, images_per_class=count)
        sheets.write(split, images)
        print(f"{split}: {images.shape[0]} classes x {images.shape[1]} images")


if __name__ == "__main__":
    main()
