import os
import pathlib

import numpy as np
import pytest

from att_darts_tf.network.network import Network
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype
from tests import reference_network

FOLDER = pathlib.Path(
    os.environ.get("ATT_DARTS_REFERENCE")
    or pathlib.Path(__file__).parents[2].parent / "shared" / "reference"
)


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the authors' numbers are not here"
)
@pytest.mark.parametrize(
    ("case", "image_shape", "num_classes", "stem"),
    [
        ("cifar", (32, 32, 3), 10, "small"),
        ("imagenet", (224, 224, 3), 20, "imagenet"),
    ],
)
def test_network_equals_the_authors_in_double_precision(
    case, image_shape, num_classes, stem
):
    with np.load(FOLDER / f"network_{case}.npz") as file:
        fixture = {
            name.removeprefix(f"{case}/"): file[name] for name in file.files
        }
    genotype = published.get("att_darts")
    if "genotype" in fixture:
        genotype = Genotype.from_json(str(fixture["genotype"]))
    network = Network.from_genotype(
        genotype,
        image_shape=image_shape,
        num_classes=num_classes,
        channels=16,
        cells=5,
        auxiliary=True,
        stem=stem,
        dtype="float64",
    )
    differences = reference_network.compare(network, fixture)
    assert differences["parameters"] == 0
    assert max(differences.values()) < 1e-12, differences
