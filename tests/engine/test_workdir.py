import json
import os
import stat
import subprocess
import sys

import ml_collections
import pytest
from ml_collections import config_dict

from att_darts_tf.engine import workdir
from att_darts_tf.errors import UsageError

IDENTITY = {"config": {"search": {"epochs": 2, "betas": (0.5, 0.9)}}, "seed": 1}


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
        packages=("errors",),
        inputs={"cells": tmp_path / "cells"},
        seed=3,
    )
    assert identity["config"] == {"a": {"x": 1}}
    assert identity["seed"] == 3
    assert identity["inputs"]["cells"] == workdir.digest(tmp_path / "cells")
    assert identity["code"] == workdir.code_fingerprint("errors")


def test_folder_remembers_its_result(tmp_path):
    with workdir.StageFolder(tmp_path / "a" / "b", identity=IDENTITY) as folder:
        assert folder.result() is None
        assert folder.finish({"accuracy": 0.5}) == {"accuracy": 0.5}
    with workdir.StageFolder(tmp_path / "a" / "b", identity=IDENTITY) as folder:
        assert folder.result() == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "Expected seed=1, .* Received: seed=2"),
        ({"more": 2}, "Expected more=None, .* Received: more=2"),
        (
            {"config": {"search": {"epochs": 2, "betas": (0.5, 0.8)}}},
            r"Expected config.search.betas=\[0.5, 0.9\]",
        ),
    ],
)
def test_folder_of_another_configuration_is_refused(tmp_path, change, message):
    with workdir.StageFolder(tmp_path, identity=IDENTITY):
        pass
    with pytest.raises(UsageError, match=message) as caught:
        with workdir.StageFolder(tmp_path, identity={**IDENTITY, **change}):
            pass
    assert "use another --workdir" in str(caught.value).lower()
    # Refusing gives the lock back.
    with workdir.StageFolder(tmp_path, identity=IDENTITY):
        pass


def test_second_process_is_refused_while_the_first_works(tmp_path):
    program = (
        "import sys\n"
        "from att_darts_tf.engine import workdir\n"
        "with workdir.StageFolder(sys.argv[1], identity={'seed': 1}):\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout.readline() == "in\n"
        with pytest.raises(UsageError, match="another process is working"):
            with workdir.StageFolder(tmp_path, identity={"seed": 1}):
                pass
        # A process that is killed gives its lock back.
        first.kill()
    with workdir.StageFolder(tmp_path, identity={"seed": 1}):
        pass


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="folder that can be written"):
        with workdir.StageFolder(tmp_path / "file" / "a", identity={}):
            pass


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
