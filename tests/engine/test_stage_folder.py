"""Folders of stages: whose they are, and what becomes of stale files."""

import json
import subprocess
import sys

import pytest

from att_darts_tf import storage
from att_darts_tf.engine import lineage, stage_folder, workdir
from att_darts_tf.errors import UsageError

IDENTITY = {"config": {"search": {"epochs": 2, "betas": (0.5, 0.9)}}, "seed": 1}


def held(path, identity=None, **options):
    """Returns a folder of a search."""
    identity = IDENTITY if identity is None else identity
    return stage_folder.StageFolder(
        path, stage="search", identity=identity, **options
    )


def work(path, seed, **options):
    """Does a stage, if it has not been done, and returns its result."""
    with held(path, {"seed": seed}, **options) as folder:
        if folder.result() is None:
            workdir.write_atomically(folder.path / "cells.json", f"of {seed}")
            folder.finish({"accuracy": seed / 10})
        return folder.result()["accuracy"]


def test_folder_remembers_its_result(tmp_path):
    with held(tmp_path / "a" / "b") as folder:
        assert folder.result() is None
        assert folder.finish({"accuracy": 0.5}) == {"accuracy": 0.5}
    with held(tmp_path / "a" / "b") as folder:
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
    with held(tmp_path):
        pass
    with pytest.raises(UsageError, match=message) as caught:
        with held(tmp_path, {**IDENTITY, **change}):
            pass
    assert "use another --workdir, or give --replace" in str(
        caught.value
    ).replace("Use", "use")
    # Refusing gives the lock back.
    with held(tmp_path):
        pass


@pytest.mark.parametrize("begun", [False, True])
def test_mistake_leaves_the_folder_to_another_configuration_if_not_begun(
    tmp_path, begun
):
    def fail(seed):
        with held(tmp_path, {"seed": seed}):
            if begun:
                (tmp_path / "checkpoints").mkdir(exist_ok=True)
            raise UsageError("Expected room. Received: none")

    with pytest.raises(UsageError, match="Expected room"):
        fail(1)
    # A checkpoint of one configuration must not go on as another.
    message = "Expected seed=1" if begun else "Expected room"
    with pytest.raises(UsageError, match=message):
        fail(2)


def test_second_process_is_refused_while_the_first_works(tmp_path):
    program = (
        "import sys\n"
        "from att_darts_tf.engine import stage_folder\n"
        "with stage_folder.StageFolder(\n"
        "    sys.argv[1], stage='search', identity={'seed': 1}\n"
        "):\n"
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
            with held(tmp_path, {"seed": 1}):
                pass
        # A process that is killed gives its lock back.
        first.kill()
    with held(tmp_path, {"seed": 1}):
        pass


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="folder that can be written"):
        with held(tmp_path / "file" / "a", {}):
            pass


@pytest.mark.parametrize("place", ["{tmp}/run", "ram://replaced/run"])
class TestReplacing:
    @pytest.fixture
    def folder(self, place, tmp_path):
        folder = storage.path(place.format(tmp=tmp_path))
        yield folder
        storage.remove(folder)

    def test_what_is_stale_is_done_again_and_kept(self, folder, capsys):
        assert work(folder, 1) == 0.1
        with stage_folder.replacing_stale():
            assert work(folder, 2) == 0.2
        assert (folder / "cells.json").read_text() == "of 2"
        aside = folder / "replaced-1"
        assert (aside / "cells.json").read_text() == "of 1"
        assert lineage.load(aside / "lineage.json")["made_from"] == {"seed": 1}
        assert f"it is kept in {aside}" in capsys.readouterr().out
        # Not for longer than was asked for.
        with pytest.raises(UsageError, match="Expected seed=2"):
            work(folder, 3)

    def test_each_time_has_a_folder_of_its_own(self, folder):
        with stage_folder.replacing_stale():
            for seed in (1, 2, 1):
                assert work(folder, seed) == seed / 10
        kept = {
            number: (folder / f"replaced-{number}/cells.json").read_text()
            for number in (1, 2)
        }
        assert kept == {1: "of 1", 2: "of 2"}

    def test_what_is_not_stale_stays(self, folder):
        with stage_folder.replacing_stale():
            work(folder, 1)
            workdir.write_atomically(folder / "cells.json", "looked at")
            work(folder, 1)
        assert (folder / "cells.json").read_text() == "looked at"
        assert not (folder / "replaced-1").exists()

    def test_stages_in_it_stay(self, folder):
        work(folder, 1)
        work(folder / "candidate-0", 7)
        with stage_folder.replacing_stale():
            work(folder, 2)
        assert (folder / "candidate-0/cells.json").read_text() == "of 7"
        assert not (folder / "replaced-1/candidate-0").exists()

    @pytest.mark.parametrize("again", [1, 2])
    @pytest.mark.parametrize("moves", [0, 1, 2])
    def test_end_in_the_middle_mixes_nothing(
        self, folder, moves, again, monkeypatch
    ):
        work(folder, 1)
        move, done = storage.move, []

        def die_later(*names):
            if len(done) == moves:
                raise KeyboardInterrupt
            done.append(names)
            move(*names)

        with stage_folder.replacing_stale():
            monkeypatch.setattr(storage, "move", die_later)
            with pytest.raises(KeyboardInterrupt):
                work(folder, 2)
            monkeypatch.setattr(storage, "move", move)
        # It is nobody's now, not even that of the first one.
        with pytest.raises(UsageError, match="was interrupted. Give --repl"):
            work(folder, again)
        with stage_folder.replacing_stale():
            assert work(folder, again) == again / 10
        assert (folder / "cells.json").read_text() == f"of {again}"
        aside = folder / "replaced-1"
        assert (aside / "cells.json").read_text() == "of 1"
        assert workdir.read_json(aside / "identity.json", format=1) == {
            "seed": 1
        }
        assert not (folder / "replaced-2").exists()

    def test_mistake_brings_back_what_was_replaced(self, folder):
        work(folder, 1)
        work(folder / "candidate-0", 7)
        before = [path.name for path in sorted(folder.rglob("*"))]
        with stage_folder.replacing_stale():
            with pytest.raises(UsageError, match="Expected room"):
                with held(folder, {"seed": 2}):
                    assert not (folder / "cells.json").exists()
                    raise UsageError("Expected room. Received: none")
        assert [path.name for path in sorted(folder.rglob("*"))] == before
        assert (folder / "cells.json").read_text() == "of 1"
        # Done, as it was.
        (folder / "cells.json").unlink()
        assert work(folder, 1) == 0.1
        assert not (folder / "cells.json").exists()

    def test_mistake_after_the_work_has_begun_brings_nothing_back(self, folder):
        work(folder, 1)
        with stage_folder.replacing_stale():
            with pytest.raises(UsageError, match="Expected room"):
                with held(folder, {"seed": 2}):
                    workdir.write_atomically(folder / "checkpoint", "half")
                    raise UsageError("Expected room. Received: none")
        assert (folder / "checkpoint").exists()
        with pytest.raises(UsageError, match="Expected seed=2"):
            work(folder, 1)

    def test_what_others_have_stays(self, folder):
        work(folder, 1)
        workdir.write_atomically(folder / "cells.json", "served")
        with stage_folder.replacing_stale():
            with held(folder, {"seed": 2}, stays=("cells.json",)):
                assert (folder / "cells.json").read_text() == "served"


def test_what_is_quick_is_done_again_unasked(tmp_path):
    assert work(tmp_path, 1, quick=True) == 0.1
    assert work(tmp_path, 2, quick=True) == 0.2
    assert work(tmp_path, 2) == 0.2
    assert not list(tmp_path.glob("replaced-*"))


def test_record_says_whether_an_earlier_process_began_it(tmp_path):
    for name, begun in (("a", False), ("b", True)):
        if begun:
            with held(tmp_path / name, {"seed": 1}):
                pass
        work(tmp_path / name, 1)
        record = lineage.load(tmp_path / name / "lineage.json")
        assert record["resumed"] == begun


def test_record_is_of_the_result_beside_it(tmp_path):
    work(tmp_path, 1)
    record = json.loads((tmp_path / "lineage.json").read_text())
    assert record["stage"] == "search"
    assert record["files"] == {}
    assert record["result"] == {
        "file": "result.json",
        "sha256": workdir.digest(tmp_path / "result.json"),
    }


def test_record_is_of_what_others_read_too(tmp_path):
    with held(tmp_path) as folder:
        for name in ("genotype.json", "model.keras", "history.json"):
            workdir.write_atomically(folder.path / name, name)
        folder.finish({})
    record = lineage.load(tmp_path / "lineage.json")
    assert record["files"] == {
        name: workdir.digest(tmp_path / name)
        for name in ("genotype.json", "model.keras")
    }
    assert lineage.fits(tmp_path / "lineage.json", record)
    (tmp_path / "model.keras").write_text("others")
    assert not lineage.fits(tmp_path / "lineage.json", record)
