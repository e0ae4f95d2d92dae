"""What runs a preparation: the same bytes, whoever works."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from att_darts_tf import storage
from att_darts_tf.data import beam, datasets, parts, run
from att_darts_tf.errors import UsageError
from tests.data import toy

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUNNERS = {
    "in_memory": {},
    "multi_threading": {"mode": "multi_threading", "workers": 3},
    # More than cores: each holds a connection.
    "multi_processing": {
        "mode": "multi_processing",
        "workers": (os.cpu_count() or 1) + 3,
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    toy.write_photos(root / "train", count=30)
    toy.write_photos(root / "test", count=6)
    return root


@pytest.fixture
def divided(monkeypatch):
    """So that few images are in several parts and shards."""
    monkeypatch.setattr(datasets, "_IMAGES", 7)
    monkeypatch.setattr(parts, "_SHARD_BYTES", 30_000)


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
    """Maps how images are kept to the bytes of one part and one worker."""
    found = {}
    for kept in ("padded_crop", "resized_crop"):
        folder = tmp_path_factory.mktemp(kept)
        config = toy.encoded_config(photos, augmentation=kept)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "_PARTS", 1)
            patch.setattr(parts, "_SHARD_BYTES", 30_000)
            run.run_prepare(config, output_dir=folder)
        found[kept] = toy.contents(folder)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("kept", ["padded_crop", "resized_crop"])
@pytest.mark.parametrize("mode", RUNNERS)
def test_workers_and_modes_change_no_byte(
    photos, expected, tmp_path, mode, kept
):
    config = toy.encoded_config(photos, augmentation=kept)
    config.beam.update(RUNNERS[mode])
    run.run_prepare(config, output_dir=tmp_path)
    assert toy.contents(tmp_path) == expected[kept]
    assert len(expected[kept]) > 6


def test_what_a_run_has_read_is_not_read_again_after_a_kill(photos, tmp_path):
    script = """
import os, signal, sys
from att_darts_tf.data import datasets, parts, run
from tests.data import toy

datasets._IMAGES = 7
read = parts.Reader._read

def killed(self, part, place):
    if (part.split, part.number) == ("train", 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, part, place)

parts.Reader._read = killed
run.run_prepare(toy.encoded_config(sys.argv[1]), output_dir=sys.argv[2])
"""
    folder = tmp_path / "data"
    command = [sys.executable, "-c", script, str(photos), str(folder)]
    done = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (staging,) = folder.glob(f"{run.STAGING}*")
    read = {path.stem for path in staging.glob(f"*{parts.SUMMARY}")}
    assert 0 < len(read) < 8
    again = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "_IMAGES", 7)
        original = parts.Reader._read

        def recorded(self, part, place):
            again.append(place.name)
            return original(self, part, place)

        patch.setattr(parts.Reader, "_read", recorded)
        run.run_prepare(toy.encoded_config(photos), output_dir=folder)
    assert again and not read & set(again)
    run.run_prepare(toy.encoded_config(photos), output_dir=tmp_path / "clean")
    assert toy.contents(folder) == toy.contents(tmp_path / "clean")


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(photos, tmp_path):
    script = """
import sys, time
from att_darts_tf.data import datasets, run
from tests.data import toy

datasets._IMAGES = 1
config = toy.encoded_config(sys.argv[1])
config.beam.update(mode="multi_processing", workers=2)
run.run_prepare(config, output_dir=sys.argv[2])
"""
    folder = tmp_path / "d"
    command = [sys.executable, "-c", script, str(photos), str(folder)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"*/*{parts.SUMMARY}")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    assert len(members(process.pid)) > 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while members(process.pid):
        assert time.monotonic() < deadline, members(process.pid)
        time.sleep(0.1)


def members(session):
    """Returns the processes of a session."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getsid(int(folder.name)) == session:
                    found.append(int(folder.name))
            except ProcessLookupError:
                continue
    return found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    script = """
import resource, sys
from att_darts_tf.data import run
from tests.data import toy

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run.run_prepare(
    toy.encoded_config(sys.argv[1], augmentation=sys.argv[3]),
    output_dir=sys.argv[2],
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    contents = toy.encode(toy.photo(size=(600, 800)), "PNG")
    assert len(contents) > 250_000
    peaks = []
    for count in (20, 400):
        root = tmp_path / str(count)
        for split in ("train", "test"):
            for label in ("ant", "cat"):
                (root / split / label).mkdir(parents=True)
        for number in range(count):
            label = "ant" if number % 2 else "cat"
            (root / f"train/{label}/{number}.png").write_bytes(contents)
        for label in ("ant", "cat"):
            (root / f"test/{label}/0.png").write_bytes(contents)
        command = [sys.executable, "-c", script, str(root)]
        command += [str(tmp_path / f"{count}-data"), "resized_crop"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, check=True
        )
        peaks.append(1024 * int(done.stdout.splitlines()[-1]))
    # 380 files more, of over 95 MB.
    assert peaks[1] - peaks[0] < 40e6, peaks


def test_a_worker_ends_when_the_other_end_of_its_leash_goes():
    script = """
import sys, time
from att_darts_tf.data import beam
beam._tied(sys.argv[1], print, "tied")
sys.stdout.flush()
time.sleep(60)
"""
    config = toy.config()
    config.beam.update(mode="multi_processing")
    options = beam.options_of(config.beam, storage.path("x"))
    with beam._leash(options) as address:
        # A zero byte is no part of an argument.
        command = script.replace("sys.argv[1]", repr(address))
        process = subprocess.Popen(
            [sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"tied\n"
        assert process.poll() is None
    assert process.wait(timeout=20) == 1


def refusal(**changes):
    config = toy.config()
    config.beam.update(changes)
    with pytest.raises(UsageError) as caught:
        beam.options_of(config.beam, storage.path("gs://bucket/run"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_options_go_to_beam():
    config = toy.config()
    config.beam.update(
        mode="multi_threading",
        workers=5,
        options=("--job_name=name", "--experiments=one"),
    )
    options = beam.options_of(config.beam, storage.path("x"))
    received = options.get_all_options()
    assert received["direct_num_workers"] == 5
    assert received["direct_running_mode"] == "multi_threading"
    assert received["experiments"] == ["one"]
    assert received["job_name"] == "name"
    assert received["runner"] == "DirectRunner"


def test_an_option_that_beam_does_not_know_is_refused():
    message = refusal(options=("--job_nme=name",))
    assert "'--job_nme=name'" in message and "--job_name" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("runner", "FlinkRunner"),
        ("direct_running_mode", "in_memory"),
        ("direct_num_workers", "3"),
    ],
)
def test_what_settings_decide_is_no_option(name, value):
    assert f"without --{name}" in refusal(options=(f"--{name}={value}",))


def test_a_value_that_beam_does_not_take_is_refused():
    message = refusal(options=("--max_num_workers=many",))
    assert "--max_num_workers" in message and "many" in message


class TestDataflow:
    GIVEN = (
        "--project=p",
        "--region=europe-west4",
        "--temp_location=gs://bucket/temp",
        "--setup_file=./setup.py",
    )

    @pytest.mark.parametrize("missing", range(4))
    def test_what_it_needs_is_asked_for(self, missing):
        given = self.GIVEN[:missing] + self.GIVEN[missing + 1 :]
        message = refusal(runner="DataflowRunner", options=given)
        assert self.GIVEN[missing].partition("=")[0] in message

    def test_its_workers_cannot_write_to_this_machine(self, tmp_path):
        config = toy.config()
        config.beam.update(runner="DataflowRunner", options=self.GIVEN)
        with pytest.raises(UsageError, match="workers of Dataflow can write"):
            beam.options_of(config.beam, tmp_path)

    def test_a_setup_file_that_is_not_there_is_refused(self):
        given = (*self.GIVEN[:3], "--setup_file=./stup.py")
        message = refusal(runner="DataflowRunner", options=given)
        assert "./stup.py, which does not exist" in message

    @pytest.mark.parametrize("field", ["name", "data_dir"])
    def test_its_workers_cannot_read_from_this_machine(self, field, tmp_path):
        toy.write_folder(tmp_path / "images")
        config = toy.config(tmp_path / "images" if field == "name" else
                            "sample")
        if field == "data_dir":
            config.data.data_dir = str(tmp_path)
        config.beam.update(runner="DataflowRunner", options=self.GIVEN)
        with pytest.raises(UsageError, match=f"config.data.{field} that work"):
            run.run_prepare(config, output_dir=tmp_path / "data")

    def test_its_own_packages_are_asked_for(self, monkeypatch):
        name = "apache_beam.runners.dataflow.internal"
        monkeypatch.setitem(sys.modules, f"{name}.apiclient", None)
        message = refusal(runner="DataflowRunner", options=self.GIVEN)
        assert "apache-beam[gcp]" in message

    def test_its_options_are_passed_through(self, monkeypatch):
        name = "apache_beam.runners.dataflow.internal"
        monkeypatch.setitem(sys.modules, f"{name}.apiclient", type(sys)("a"))
        config = toy.config()
        config.beam.update(
            runner="DataflowRunner",
            options=(*self.GIVEN, "--max_num_workers=7"),
        )
        received = beam.options_of(
            config.beam, storage.path("gs://bucket/run")
        ).get_all_options()
        assert received["runner"] == "DataflowRunner"
        assert received["project"] == "p"
        assert received["temp_location"] == "gs://bucket/temp"
        assert received["setup_file"] == "./setup.py"
        assert received["max_num_workers"] == 7


def test_without_beam_what_is_prepared_is_taken(tmp_path, monkeypatch):
    config = toy.config("sample")
    result = run.run_prepare(config, output_dir=tmp_path / "data")
    monkeypatch.delitem(sys.modules, "att_darts_tf.data.beam")
    monkeypatch.delattr("att_darts_tf.data.beam")
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run.run_prepare(config, output_dir=tmp_path / "data") == result
    with pytest.raises(UsageError, match=r"att-darts-tf\[beam\]"):
        run.run_prepare(config, output_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()
