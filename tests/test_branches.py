"""Baselines and targets: whose settings they have."""

import pytest

from att_darts_tf import branches, settings
from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.space import search_space


def configured(**changes):
    config = settings.load("cifar").unlock()
    config.data.data_dir = "/images"
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        (config[section] if section else config)[field] = value
    return settings.resolve(config)


def changed(branch, config):
    """Returns the settings that a branch has otherwise than its run."""
    of_run = dict(settings.flatten(workdir.plain(config)))
    own = dict(settings.flatten(workdir.plain(branch.config(config))))
    assert set(own) == set(of_run)
    return {name: own[name] for name in own if own[name] != of_run[name]}


def test_run_without_any_has_none():
    assert branches.of(configured()) == []


@pytest.mark.parametrize("cell", ["", "att_darts"])
def test_baselines_differ_in_their_cells_alone(cell):
    config = configured(
        pipeline__baselines=settings.BASELINES, network__cell=cell
    )
    found = {each.name: each for each in branches.of(config)}
    assert list(found) == ["baselines/random", "baselines/no_attention"]
    random, without = found.values()
    expected = {"pipeline.baselines": []}
    if cell:
        expected["network.cell"] = ""
    assert changed(random, config) == expected
    expected["space.location"] = "no_attention"
    assert changed(without, config) == expected
    assert "no_attention" in search_space.SEARCH_SPACES
    assert (random.is_random, without.is_random) == (True, False)


def test_target_has_its_images_and_recipe_and_the_rest_of_the_run(tmp_path):
    config = configured(
        pipeline__targets=("cifar:cifar100", "imagenet"),
        repeats=5,
        engine__precision="mixed_bfloat16",
        search__order="first",
    )
    cifar100, imagenet = branches.of(config)
    assert cifar100.name == "targets/cifar-cifar100"
    assert cifar100.is_target
    assert changed(cifar100, config) == {
        "data.name": "cifar100",
        "pipeline.targets": [],
    }


def test_target_of_other_images_brings_its_whole_recipe():
    config = configured(pipeline__targets=("imagenet",), repeats=5)
    (target,) = branches.of(config)
    own = target.config(config)
    named = settings.load("imagenet")
    assert own.data.image_size == named.data.image_size
    assert own.data.data_dir == "/images"
    assert own.network.epochs == named.network.epochs
    assert own.repeats == 5
    # The cells are those of the run, which a selection gives.
    assert named.network.cell == "att_darts"
    assert own.network.cell == ""


def test_target_that_does_not_go_with_the_run_is_refused():
    config = configured(pipeline__targets=("nothing",))
    (target,) = branches.of(config)
    with pytest.raises(UsageError, match="'nothing'"):
        target.config(config)


def test_targets_of_one_folder_are_refused(tmp_path):
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "birds.py"
        file.write_text(
            "from att_darts_tf.configs.base import get_config\n"
        )
        names.append(str(file))
    with pytest.raises(UsageError, match="folders of their own.*targets/birds"):
        branches.of(configured(pipeline__targets=tuple(names)))
    (target,) = branches.of(configured(pipeline__targets=(f"{names[0]}:x y",)))
    assert target.name == "targets/birds-x-y"
