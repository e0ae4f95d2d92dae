"""What a result was made from, however far it has been copied."""

import json
import pathlib
import shutil
import sys
import types

import pytest

from att_darts_tf import storage
from att_darts_tf.engine import lineage, stage_folder, workdir
from att_darts_tf.errors import UsageError


def stage(folder, name, *, reads=(), **made_from):
    """Leaves what a stage leaves; returns the folder."""
    with stage_folder.StageFolder(
        folder, stage=name, identity=made_from, reads=reads
    ) as held:
        held.finish({"name": str(folder.name)})
    return folder


@pytest.fixture
def run(tmp_path):
    """A search, a selection that reads its cells, and two trainings."""
    search = stage(tmp_path / "search", "search", seed=3, data="d" * 64)
    (search / "genotype.json").write_text("{}")
    selection = stage(
        tmp_path / "selection", "select", reads=[search / "genotype.json"]
    )
    for repeat in range(2):
        stage(
            tmp_path / f"repeat-{repeat}",
            "train",
            reads=[selection, tmp_path / "nothing"],
            seed=repeat,
        )
    stage(
        tmp_path / "evaluation",
        "evaluate",
        reads=[tmp_path / "repeat-0", tmp_path / "repeat-1"],
    )
    return tmp_path


def stages_before(record):
    return sorted(each["stage"] for each in record["ancestors"].values())


def test_record_holds_all_that_came_before_once(run):
    record = lineage.load(run / "evaluation/lineage.json")
    assert stages_before(record) == ["search", "select", "train", "train"]
    read = [record["ancestors"][key] for key in record["reads"]]
    assert [each["made_from"]["seed"] for each in read] == [0, 1]
    (key,) = read[0]["reads"]
    assert record["ancestors"][key]["stage"] == "select"
    assert key == workdir.digest(run / "selection/result.json")


def test_record_of_a_copy_needs_nothing_else(run, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(run / "evaluation", elsewhere)
    before = lineage.load(run / "evaluation/lineage.json")
    shutil.rmtree(run)
    assert lineage.load(lineage.find(elsewhere)) == before


@pytest.mark.parametrize(
    "name", ["search", "search/genotype.json", "search/deep/in/it", "search/."]
)
def test_anything_in_a_stage_finds_its_record(run, name):
    place = run / name
    if not place.exists():
        place.mkdir(parents=True)
    assert lineage.find(place) == run / "search/lineage.json"


@pytest.mark.parametrize("name", ["", "saved_model.pb", "variables/index"])
def test_saved_model_finds_the_record_in_its_extras(run, name, tmp_path):
    model = tmp_path / "served" / "1"
    (model / "variables").mkdir(parents=True)
    (model / "assets.extra").mkdir()
    for file in ("saved_model.pb", "variables/index"):
        (model / file).write_text("graph")
    shutil.copy(run / "search/lineage.json", model / "assets.extra")
    assert lineage.find(model / name) == model / "assets.extra/lineage.json"


def test_place_without_a_record_names_those_below(run):
    with pytest.raises(UsageError, match="Name one of") as caught:
        lineage.find(run)
    assert str(run / "selection") in str(caught.value)
    with pytest.raises(UsageError, match="does not exist"):
        lineage.find(run / "nothing")
    for place in (pathlib.Path("/"), storage.path("ram://without/any")):
        if storage.is_remote(place):
            workdir.write_atomically(place, "a file")
        with pytest.raises(UsageError, match="which has none"):
            lineage.find(place)


@pytest.mark.parametrize("extra", [False, True])
def test_changed_result_is_noticed(run, extra):
    file = run / "search/lineage.json"
    record = lineage.load(file)
    if extra:
        (run / "search/assets.extra").mkdir()
        file = shutil.move(file, run / "search/assets.extra/lineage.json")
    assert lineage.fits(pathlib.Path(file), record)
    record["files"]["genotype.json"] = workdir.digest(
        run / "search/genotype.json"
    )
    assert lineage.fits(pathlib.Path(file), record)
    (run / "search/genotype.json").write_text("[]")
    assert not lineage.fits(pathlib.Path(file), record)
    record["files"].clear()
    (run / "search/result.json").write_text("{}")
    assert not lineage.fits(pathlib.Path(file), record)
    (run / "search/result.json").unlink()
    assert not lineage.fits(pathlib.Path(file), record)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"packages": []}, "`packages`"),
        ({"result": {"file": "result.json"}}, "`result.sha256`"),
        ({"reads": [1]}, r"`reads\[0\]`"),
        ({"ancestors": {"a": {"stage": "train"}}}, "`ancestors.a.made_from`"),
        ({"reads": ["e" * 64]}, "`reads`"),
        ({"packages": {"keras": 3}}, "`packages.keras`"),
        ({"made_from": {"inputs": []}}, "`made_from.inputs`"),
        ({"made_from": {"inputs": {"a": 1}}}, "`made_from.inputs.a`"),
        ({"made_from": {"config": 1}}, "`made_from.config`"),
    ],
)
def test_damaged_record_is_named_with_its_field(run, change, field):
    file = run / "search/lineage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UsageError, match=field):
        lineage.load(file)


def test_versions_are_of_what_is_installed():
    assert lineage.versions()["att-darts-tf"]
    assert lineage.versions()["tensorflow"]


def test_machine_is_that_of_the_process(monkeypatch):
    told = lineage.machine()
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["device"]

    class Experimental:
        get_device_details = staticmethod(lambda gpu: {"device_name": "GH200"})

    class Config:
        experimental = Experimental
        list_physical_devices = staticmethod(
            lambda kind: 2 * [types.SimpleNamespace(name=f"/{kind}:0")]
        )

    class TensorFlow:
        config = Config

    monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow)
    assert lineage.machine()["device"] == "GH200 and GH200"
