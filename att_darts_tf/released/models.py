"""Models of the sizes that a state dictionary of the authors' has."""

import re
from collections.abc import Mapping

import numpy as np

from att_darts_tf.errors import UsageError
from att_darts_tf.network.network import Network
from att_darts_tf.released import names
from att_darts_tf.search.supernet import STEM_MULTIPLIER, Supernet
from att_darts_tf.space import search_space
from att_darts_tf.space.genotype import Genotype

State = Mapping[str, np.ndarray]


def is_supernet(state: State) -> bool:
    """Whether the weights are those of a search."""
    return "alphas_normal" in state


def network(
    state: State,
    genotype: Genotype,
    *,
    image_size: tuple[int, int],
    dtype: str = "float32",
) -> Network:
    """Returns a network with the weights of a state dictionary.

    Args:
        state: Mapping of their names to arrays.
        genotype: The cells that it was made with, which it does not name.
        image_size: Height and width in pixels.
        dtype: String. Of the computation and the weights.
    """
    large = "stem0.0.weight" in state
    if large and min(image_size) < _SMALLEST_LARGE:
        raise UsageError(
            "Expected the size of images as of ImageNet for a network with "
            f"the stem of large images. Received: {image_size} pixels. Add "
            '--config.data.image_size="(224, 224)"'
        )
    stem = _array(state, "stem0.0.weight" if large else "stem.0.weight", 4)
    made = Network.from_genotype(
        genotype,
        image_shape=(*image_size, stem.shape[1]),
        num_classes=len(_array(state, "classifier.bias", 1)),
        channels=(
            len(_array(state, "stem0.3.weight", 4))
            if large
            else len(stem) // STEM_MULTIPLIER
        ),
        cells=_num_cells(state),
        auxiliary=any(name.startswith("auxiliary_head.") for name in state),
        stem="imagenet" if large else "small",
        dtype=dtype,
    )
    names.load(names.of_network(made), state)
    return made


def location_of(state: State) -> str:
    """Returns where attention goes in a supernet, by its architecture weights.

    Args:
        state: Mapping of their names to arrays.
    """
    found = {
        name: np.shape(array)
        for name, array in state.items()
        if name.split("_")[0] in ("alphas", "betas", "gammas")
    }
    for location, space in search_space.SEARCH_SPACES.items():
        if space.architecture_shapes() == found:
            return location
    raise UsageError(
        "Expected the architecture weights of one of "
        f"{', '.join(search_space.SEARCH_SPACES)}. Received: {found}. Name a "
        "checkpoint of a search over these operations and attentions"
    )


def supernet(
    state: State,
    location: str,
    *,
    image_size: tuple[int, int],
) -> Supernet:
    """Returns a supernet with the weights of a state dictionary.

    Args:
        state: Mapping of their names to arrays.
        location: Where attention goes, a key of `SEARCH_SPACES`.
        image_size: Height and width in pixels.
    """
    made = empty_supernet(state, location, image_size=image_size)
    names.load(names.of_supernet(made), state)
    return made


def empty_supernet(
    state: State,
    location: str,
    *,
    image_size: tuple[int, int],
    batched: bool = True,
    dtype: str = "float32",
) -> Supernet:
    """Returns a new supernet of the sizes of a state dictionary.

    Args:
        state: Mapping of their names to arrays.
        location: Where attention goes, a key of `SEARCH_SPACES`.
        image_size: Height and width in pixels.
        batched: Whether edges are computed together.
        dtype: String. Of the computation and the weights.
    """
    stem = _array(state, "stem.0.weight", 4)
    made = Supernet(
        num_classes=len(_array(state, "classifier.bias", 1)),
        location=location,
        channels=len(stem) // STEM_MULTIPLIER,
        num_cells=_num_cells(state),
        batched=batched,
        dtype=dtype,
    )
    made.build((None, *image_size, stem.shape[1]))
    return made


def _array(state, name, rank):
    if np.ndim(state.get(name)) != rank or not np.size(state[name]):
        raise UsageError(
            f"Expected a state dictionary of the released code, with {name} of "
            f"{rank} axes. Received: {_shape(state, name)}. Name a checkpoint "
            "of a network or a search"
        )
    return state[name]


def _shape(state, name):
    if name in state:
        return f"one of shape {np.shape(state[name])}"
    return f"{len(state)} other names"


def _num_cells(state):
    numbers = [
        int(match[1]) for match in map(_CELL.match, state) if match is not None
    ]
    count = len(set(numbers))
    # Else a name alone would make a network of any depth.
    if not count or count != 1 + max(numbers):
        raise UsageError(
            "Expected a state dictionary of the released code, with weights of "
            f"cells.0 and those that follow. Received: {len(state)} names, of "
            f"{count} cells. Name a checkpoint of a network or a search"
        )
    return count


# Five halvings of a map, and a pixel left.
_SMALLEST_LARGE = 64
_CELL = re.compile(r"cells\.(\d{1,3})\.")
