import errno
import json
import os
import stat

import ml_collections
import pytest
from ml_collections import config_dict

from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError


def test_plain_resolves_references_placeholders_and_tuples():
    config = ml_collections.ConfigDict(
        {
            "rate": 0.5,
            "sizes": (32, (1, 2)),
            "folder": config_dict.placeholder(str),
        }
    )
    config.step = config.get_oneway_ref("rate")
    data = workdir.plain(config)
    assert data == {
        "rate": 0.5,
        "sizes": [32, [1, 2]],
        "folder": None,
        "step": 0.5,
    }
    assert json.loads(json.dumps(data)) == data


@pytest.mark.parametrize("content", [b"\0\xff", "größe"])
def test_write_atomically_replaces_a_whole_file(tmp_path, content):
    file = tmp_path / "file"
    file.write_text("before, and longer")
    workdir.write_atomically(file, content)
    expected = content if isinstance(content, bytes) else content.encode()
    assert file.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_written_file_is_as_readable_as_others(tmp_path):
    plain_file = tmp_path / "plain"
    plain_file.write_text("")
    workdir.write_atomically(tmp_path / "file", "")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch
):
    file = tmp_path / "file"
    file.write_text("before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        workdir.write_atomically(file, "after")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_comes_back_without_its_format(tmp_path):
    payload = {"accuracy": 0.1 + 0.2, "names": ["a"]}
    workdir.write_json(tmp_path / "file.json", payload, format=3)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text)["format"] == 3
    assert workdir.read_json(tmp_path / "file.json", format=3) == payload


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "readable file .* No such file"),
        ('{"format": 1', "Expected JSON in"),
        ("[1]", "JSON object .* list"),
        ('{"format": 2}', "format 1 in .* Received: format 2"),
        ('{"seed": 2}', "format 1 in .* Received: format None"),
        (b"\xff\xfe", "Expected JSON in"),
        ("[" * 100_000, "Expected JSON in"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path, content, message):
    file = tmp_path / "file.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        workdir.read_json(file, format=1)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digest_sees_content_and_names(tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a").write_text("1")
    before = workdir.digest(folder)
    assert before == workdir.digest(folder)
    (folder / "below" / "a").rename(folder / "below" / "b")
    renamed = workdir.digest(folder)
    (folder / "below" / "b").write_text("2")
    assert len({before, renamed, workdir.digest(folder)}) == 3
    assert workdir.digest(folder / "below" / "b").startswith("d4735e3a265e16ee")


def test_code_fingerprint_depends_on_the_named_parts_only():
    engine = workdir.code_fingerprint("engine", "errors")
    assert engine == workdir.code_fingerprint("errors", "engine")
    assert engine != workdir.code_fingerprint("engine")
    with pytest.raises(ValueError, match="'nothing'"):
        workdir.code_fingerprint("nothing")


def test_identity_holds_sections_inputs_and_code(tmp_path):
    config = ml_collections.ConfigDict({"a": {"x": 1}, "b": {"y": 2}})
    (tmp_path / "cells").write_text("")
    identity = workdir.identity(
        config,
        sections=("a",),
        code=("errors",),
        inputs={"cells": tmp_path / "cells"},
        seed=3,
    )
    assert identity["config"] == {"a": {"x": 1}}
    assert identity["seed"] == 3
    assert identity["inputs"]["cells"] == workdir.digest(tmp_path / "cells")
    assert identity["code"] == workdir.code_fingerprint("errors")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_told_whoever_was_writing(number):
    with pytest.raises(UsageError, match="room.*: file. Make room"):
        with workdir.telling_of_a_full_disk():
            raise OSError(number, os.strerror(number), "file")


def test_other_failures_of_the_system_keep_their_traceback():
    with pytest.raises(PermissionError), workdir.telling_of_a_full_disk():
        raise PermissionError(errno.EACCES, "Permission denied", "file")


def test_a_link_is_not_written_through(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(UsageError, match="log.*symbolic link. Remove it"):
        open(tmp_path / "log", "a", opener=workdir.open_itself)
    assert target.read_text() == "mine"
    with open(tmp_path / "new", "a", opener=workdir.open_itself) as file:
        file.write("text")
    assert (tmp_path / "new").read_text() == "text"
