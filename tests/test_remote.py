"""A run whose images and work directory are not on this machine.

TensorFlow's `ram://` stands for an object store: it has no file descriptors, no
locks, and folders only by name. It is as old as the process.
"""

import json
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import __main__ as program
from att_darts_tf import layout, storage
from att_darts_tf.configs import base
from att_darts_tf.data import prepared
from att_darts_tf.engine import ownership, stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.space import published

ROOT = "ram://run/tiny"
IMAGES = "ram://images/two classes"
CONFIG = pathlib.Path(__file__).with_name("pipeline") / "tiny.py"


def put(uri, content):
    path = storage.path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.replacing(path) as file:
        file.write_bytes(content)


def run(stage, *flags, root=ROOT):
    return program.main(
        [
            stage,
            f"--config={CONFIG}",
            f"--workdir={root}",
            f"--config.data.name={IMAGES}",
            "--config.search.seeds=3,",
            "--config.search.epochs=1",
            "--config.search.batch_size=4",
            "--config.selection.epochs=1",
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
    """A run whose training was interrupted at the end of its first epoch."""
    # A process that comes back to this module makes it again.
    storage.remove(storage.path(ROOT))
    for stage in ("prepare", "search", "select"):
        assert run(stage) == 0, stage
    write = workdir.write_json

    def interrupted(path, *arguments, **options):
        write(path, *arguments, **options)
        if path.name == "history.json":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workdir, "write_json", interrupted)
        assert run("train") == program.INTERRUPTED_STATUS
    for stage in ("train", "evaluate", "export", "report"):
        assert run(stage) == 0, stage
    return storage.path(ROOT)


@pytest.mark.slow
class TestRemoteRun:
    def test_trains_to_the_bits_of_an_uninterrupted_one_here(
        self, finished, tmp_path
    ):
        cells = finished / "selection" / "genotype.json"
        flag = f"--config.network.cell={cells}"
        for stage in ("prepare", "train"):
            assert run(stage, flag, root=tmp_path) == 0
        assert {
            file.name for file in (finished / "data").iterdir()
        } == {file.name for file in (tmp_path / "data").iterdir()}
        there, here = (
            json.loads((root / "training/repeat-0/history.json").read_text())
            for root in (finished, tmp_path)
        )
        for epoch in there["epochs"] + here["epochs"]:
            del epoch["seconds"]
        assert len(there["epochs"]) == 2
        assert there == here

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
        model = tf.saved_model.load(str(finished / "export/att_darts/1"))
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

    def test_cells_of_a_remote_network_are_those_it_was_given(self, finished):
        network = finished / "training" / "repeat-0" / "model.keras"
        assert published.resolve(str(network)) == published.resolve(
            str(finished / "selection" / "genotype.json")
        )

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
    assert run("prepare", *flags, root=root) == 0
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
    assert run("pipeline", root="ram://run/pipeline") == 2
    assert "Run the stages one by one" in capsys.readouterr().err
    assert not files_below("ram://run/pipeline")


def test_remote_folder_without_images_is_no_name_of_a_dataset(capsys):
    flag = "--config.data.name=ram://nowhere/images"
    assert run("prepare", flag, root="ram://run/nowhere") == 2
    assert "Expected a folder of images at" in capsys.readouterr().err


def test_file_system_that_is_not_there_is_named(capsys):
    assert run("prepare", root="nothing://bucket/run") == 2
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


def test_claim_of_a_process_that_was_killed_ends():
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


def test_claim_that_is_renewed_too_late_is_lost(monkeypatch, capsys):
    monkeypatch.setattr(ownership, "RENEWAL", 0.02)
    monkeypatch.setattr(ownership, "LEASE", 0.5)
    folder = storage.path("ram://claimed/late")
    renew = ownership._Claim._renew

    def slow(claim):
        time.sleep(0.6)
        renew(claim)

    with pytest.raises(KeyboardInterrupt):
        with ownership.hold(folder):
            monkeypatch.setattr(ownership._Claim, "_renew", slow)
            time.sleep(20)
    assert f"claim on {folder} was lost" in capsys.readouterr().err


def test_folder_whose_walk_fails_is_told_as_the_system_does():
    def refuse(error):
        raise error

    with pytest.raises(FileNotFoundError):
        list(storage.walk(storage.path("ram://not/there"), refuse))


def test_process_whose_claim_went_is_interrupted(monkeypatch, capsys):
    monkeypatch.setattr(ownership, "RENEWAL", 0.02)
    folder = storage.path("ram://claimed/lost")
    with pytest.raises(KeyboardInterrupt):
        with ownership.hold(folder) as claim:
            begun = time.monotonic()
            while time.monotonic() - begun < 20:
                # Again: it may be in the middle of renewing it.
                claim.file.unlink(missing_ok=True)
                time.sleep(0.01)
    assert f"claim on {folder} was lost" in capsys.readouterr().err
    assert not files_below(folder)


def test_result_is_json_that_can_be_read_there(tmp_path):
    for folder in (tmp_path, storage.path("ram://stage")):
        with stage_folder.StageFolder(
            folder / "a", stage="search", identity={}
        ) as stage:
            stage.finish({"accuracy": 0.5})
        text = (folder / "a" / "result.json").read_text()
        assert json.loads(text) == {"format": 1, "accuracy": 0.5}
    assert workdir.digest(tmp_path / "a" / "result.json") == workdir.digest(
        "ram://stage/a/result.json"
    )
