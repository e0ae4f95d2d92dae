"""A run whose images and work directory are not on this machine.

TensorFlow's `ram://` stands for an object store: it has no file descriptors, no
locks, and folders only by name. It is as old as the process.
"""

import json
import pathlib
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import __main__ as program
from att_darts_tf import layout, storage
from att_darts_tf.configs import base
from att_darts_tf.engine import ownership
from att_darts_tf.errors import UsageError
from att_darts_tf.search import run as search_run

ROOT = "ram://run/tiny"
IMAGES = "ram://images/two classes"
CONFIG = pathlib.Path(__file__).with_name("pipeline") / "tiny.py"
STAGES = ("prepare", "search", "select", "train", "evaluate", "export")


def put(uri, content):
    path = storage.path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replacing(path) as file:
        file.write_bytes(content)


def run(stage, *flags, workdir=ROOT):
    return program.main(
        [
            stage,
            f"--config={CONFIG}",
            f"--workdir={workdir}",
            f"--config.data.name={IMAGES}",
            "--config.search.seeds=3,",
            "--config.search.batch_size=4",
            "--config.selection.batch_size=8",
            "--config.network.batch_size=8",
            "--config.repeats=1",
            *flags,
        ]
    )


def files_below(uri):
    return {
        file.relative_to(storage.path(uri)).as_posix()
        for file in storage.path(uri).rglob("*")
    }


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        for number in range(16):
            image = generator.integers(100, size=(8, 8, 3)) + 150 * label
            contents = tf.io.encode_png(image.astype("uint8")).numpy()
            put(f"{IMAGES}/{name}/{number}.png", contents)
    put(f"{IMAGES}/dark/.hidden/image.png", b"")
    return IMAGES


@pytest.fixture(scope="module")
def finished(images):
    """A run that was interrupted inside of its search."""
    assert run("prepare") == 0
    write, writes = search_run.workdir.write_json, []

    def interrupted(path, *arguments, **options):
        write(path, *arguments, **options)
        if path.name == "history.json":
            writes.append(path)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_run.workdir, "write_json", interrupted)
        assert run("search") == program.INTERRUPTED_STATUS
    assert len(writes) == 1
    for stage in (*STAGES[1:], "report"):
        assert run(stage) == 0, stage
    return storage.path(ROOT)


@pytest.mark.slow
class TestRemoteRun:
    def test_ends_with_the_bits_of_an_uninterrupted_one_here(
        self, finished, tmp_path
    ):
        assert run("prepare", workdir=tmp_path) == 0
        assert run("search", workdir=tmp_path) == 0
        for name in ("architecture.json", "genotype.json", "identity.json"):
            there = finished / "search" / "seed-3" / name
            here = tmp_path / "search" / "seed-3" / name
            assert there.read_bytes() == here.read_bytes(), name
        assert files_below(finished / "data") == {
            file.name for file in (tmp_path / "data").iterdir()
        }

    def test_leaves_whole_files_alone(self, finished):
        names = files_below(finished)
        assert "report/report.html" in names
        assert "report/normal.png" in names
        assert "training/repeat-0/model.keras" in names
        assert "training/repeat-0/history.csv" in names
        assert not [
            name
            for name in names
            if storage.PARTIAL in name or ownership.LOCK in name
        ]
        assert b"</html>" in (finished / "report/report.html").read_bytes()

    def test_model_is_one_that_tensorflow_loads_from_there(self, finished):
        model = tf.saved_model.load(str(finished / "export" / "model"))
        answer = model.signatures["encoded"](
            tf.constant([storage.path(f"{IMAGES}/dark/0.png").read_bytes()])
        )
        assert answer["label_name"].numpy()[0] in (b"dark", b"light")

    def test_same_command_again_writes_nothing(self, finished, capsys):
        before = {
            name: (finished / name).read_bytes()
            for name in files_below(finished)
        }
        assert run("train") == 0
        assert "Network: ram://run/tiny/training" in capsys.readouterr().out
        assert files_below(finished) == set(before)
        for name, content in before.items():
            assert (finished / name).read_bytes() == content, name

    def test_a_training_begins_with_a_remote_network(self, finished, tmp_path):
        file = finished / "training" / "repeat-0" / "model.keras"
        flags = (f"--config.network.pretrained={file}",)
        assert run("prepare", *flags, workdir=tmp_path) == 0
        assert run("train", *flags, workdir=tmp_path) == 0
        assert (tmp_path / "training" / "repeat-0" / "model.keras").exists()

    def test_says_what_to_do_with_a_remote_model(self, finished, capsys):
        assert run("export") == 0
        output = capsys.readouterr().out
        assert f"With a copy of {finished / 'export'}, classify" in output
        assert " export/classify.py IMAGE" in output


def test_encoded_images_are_read_from_a_remote_folder(images):
    root = "ram://run/encoded"
    flags = (
        "--config.data.augmentation=resized_crop",
        "--config.data.evaluation_resize=8",
        "--config.selection.cutout=0",
        "--config.network.cutout=0",
    )
    assert run("prepare", *flags, workdir=root) == 0
    from att_darts_tf.data import prepared

    split = prepared.load(f"{root}/data").split("train")
    expected = {
        storage.path(f"{images}/{name}/{number}.png").read_bytes(): label
        for label, name in enumerate(("dark", "light"))
        for number in range(16)
    }
    contents, labels = split.take(tf.range(len(split)))
    for content, label in zip(contents.numpy(), labels.numpy()):
        assert expected[content] == label


def test_pipeline_wants_a_work_directory_here(capsys):
    assert run("pipeline", workdir="ram://run/pipeline") == 2
    assert "Run the stages one by one" in capsys.readouterr().err
    assert not files_below("ram://run/pipeline")


def test_remote_folder_without_images_is_no_name_of_a_dataset(capsys):
    flag = "--config.data.name=ram://nowhere/images"
    assert run("prepare", flag, workdir="ram://run/nowhere") == 2
    assert "Expected a folder of images at" in capsys.readouterr().err


def test_file_system_that_is_not_there_is_named(capsys):
    assert run("prepare", workdir="nothing://bucket/run") == 2
    error = capsys.readouterr().err
    assert "Expected a folder that can be written: nothing://bucket" in error
    assert error.count("\n") == 1


def test_failed_write_leaves_the_old_file_and_nothing_else():
    put("ram://written/file", b"before")
    with pytest.raises(RuntimeError):
        with storage.replacing("ram://written/file") as file:
            file.write_bytes(b"half")
            raise RuntimeError
    assert storage.path("ram://written/file").read_bytes() == b"before"
    put("ram://written/file", b"after")
    assert storage.path("ram://written/file").read_bytes() == b"after"
    assert files_below("ram://written") == {"file"}


def test_failures_are_those_of_the_system():
    missing = storage.path("ram://written/missing")
    with pytest.raises(FileNotFoundError):
        missing.open()
    with pytest.raises(FileNotFoundError):
        missing.unlink()
    missing.unlink(missing_ok=True)
    assert list(storage.path("ram://missing").glob("*")) == []


def test_second_claim_is_refused_while_the_first_is_held():
    config = base.get_config()
    with layout.claim("ram://claimed/run", config):
        with pytest.raises(UsageError, match="another process is working"):
            with layout.claim("ram://claimed/run", config):
                pass
    with layout.claim("ram://claimed/run", config):
        pass
    assert files_below("ram://claimed/run") == {"config.json"}


def test_claim_of_a_process_that_was_killed_ends(monkeypatch):
    folder = storage.path("ram://claimed/stale")
    left = f"{folder}/{ownership.LOCK}-killed"
    put(left, f"{time.time() - 60} process 7 on elsewhere".encode())
    with pytest.raises(UsageError, match="process 7 on elsewhere.* wait 30 s"):
        ownership.hold(folder)
    put(left, f"{time.time() - 91} process 7 on elsewhere".encode())
    ownership.hold(folder).close()
    assert not files_below(folder)


def test_held_claim_is_renewed(monkeypatch):
    monkeypatch.setattr(ownership, "RENEWAL", 0.02)
    folder = storage.path("ram://claimed/renewed")
    with ownership.hold(folder) as claim:
        first = claim.file.read_text()
        begun = time.monotonic()
        while claim.file.read_text() == first:
            assert time.monotonic() - begun < 20
            time.sleep(0.01)


def test_process_whose_claim_went_is_interrupted(monkeypatch, capsys):
    monkeypatch.setattr(ownership, "RENEWAL", 0.02)
    folder = storage.path("ram://claimed/lost")
    interrupted = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        with ownership.hold(folder) as claim:
            claim.file.unlink()
            interrupted.wait(20)
    assert f"claim on {folder} was lost" in capsys.readouterr().err
    assert not files_below(folder)


def test_result_is_json_that_can_be_read_there(tmp_path):
    from att_darts_tf.engine import workdir

    for folder in (tmp_path, storage.path("ram://stage")):
        with workdir.StageFolder(folder / "a", identity={}) as stage:
            stage.finish({"accuracy": 0.5})
        text = (folder / "a" / "result.json").read_text()
        assert json.loads(text) == {"format": 1, "accuracy": 0.5}
    assert workdir.digest(tmp_path / "a" / "result.json") == workdir.digest(
        "ram://stage/a/result.json"
    )
