"""The runner's cache is taken at its word only for what is still there."""

import pathlib

import pytest
from kfp import dsl
from kfp.local import cache as runner

from att_darts_tf.pipeline import cache, task


@pytest.fixture
def folder(tmp_path):
    """A pipeline's folder whose cache knows one output."""
    file = tmp_path / "network" / "model.keras"
    file.parent.mkdir()
    file.write_text("weights")
    artifact = dsl.Model(name="network", uri="nowhere")
    task.publish(artifact, file.parent, content=file)
    known = runner.LocalCache(str(tmp_path / cache.FOLDER))
    known.put("key", {"network": artifact, "accuracy": 0.5})
    known.put("other", {"accuracy": 0.5})
    return tmp_path


def keys(folder):
    return {path.stem for path in (folder / cache.FOLDER).glob("*.json")}


def test_what_is_as_it_was_is_kept(folder):
    cache.forget_changed(folder)
    assert keys(folder) == {"key", "other"}
    found = runner.LocalCache(str(folder / cache.FOLDER)).get("key")
    assert pathlib.Path(found["network"].path) == folder / "network"


@pytest.mark.parametrize("remove", [False, True])
def test_what_has_changed_is_forgotten(folder, remove):
    file = folder / "network" / "model.keras"
    file.write_text("others")
    if remove:
        file.unlink()
    cache.forget_changed(folder)
    assert keys(folder) == {"other"}


def test_folder_without_a_cache_has_nothing_to_forget(tmp_path):
    cache.forget_changed(tmp_path)


def test_entry_that_is_damaged_is_forgotten(folder):
    (folder / cache.FOLDER / "key.json").write_text("")
    cache.forget_changed(folder)
    assert keys(folder) == {"other"}
