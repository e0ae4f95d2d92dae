"""The definition: what it compiles to, and what its tasks' keys hold."""

import json
import pathlib
import shutil

import pytest
import yaml
from kfp import compiler

from att_darts_tf import settings, stages
from att_darts_tf.engine import workdir
from att_darts_tf.pipeline import main, pipeline
from att_darts_tf.space import published
from tests import test_every_setting

GOLDEN = pathlib.Path(__file__).parent.parent / "goldens" / "pipeline.yaml"
# Without what baselines alone need, and what is tuned where that is asked for.
STAGES = set(stages.STAGES) - {"sample", "tune"}
TUNED = STAGES | {"tune"}
SPACE = ("network.learning_rate=log(0.01,0.1)",)


def configured(**changes):
    config = settings.load("demo").unlock()
    config.update_from_flattened_dict(changes)
    return settings.resolve(config)


def compiled(tmp_path, config=None, code=None):
    config = config or configured()
    define = pipeline.define(
        main.runs_of(config),
        code=code or dict.fromkeys(stages.STAGES, "code"),
        given=main.cells_digest(config),
    )
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(define, str(file))
    specification = yaml.safe_load(file.read_text())
    # Newer versions of the compiler write the same pipeline.
    del specification["sdkVersion"]
    return specification


def executors(specification):
    return specification["deploymentSpec"]["executors"]


def environment(executor):
    return {
        variable["name"]: variable["value"]
        for variable in executor["container"]["env"]
    }


def tasks(specification):
    """Yields every task by its name, those of loops and conditions too."""
    parts = [specification["root"], *specification["components"].values()]
    for part in parts:
        for name, task in part.get("dag", {}).get("tasks", {}).items():
            reference = task["componentRef"]["name"]
            component = specification["components"][reference]
            if "executorLabel" in component:
                yield name, task, component["executorLabel"]


def keys(specification):
    """Returns what of the configuration and of the code each task is told."""
    found = {}
    for name, task, label in tasks(specification):
        given = task["inputs"]["parameters"]
        code = environment(executors(specification)[label])
        found[name] = (
            given["config"]["runtimeValue"]["constant"],
            code[pipeline.CODE_VARIABLE],
            code.get(pipeline.CELLS_VARIABLE),
        )
    return found


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_compiles_to_the_golden_file(tmp_path):
    golden = yaml.safe_load(GOLDEN.read_text())
    assert compiled(tmp_path) == golden, (
        "After a change that is meant, write the golden file again: "
        "python -m tests.pipeline.test_pipeline"
    )


def test_every_stage_is_one_component_that_calls_one_function(tmp_path):
    config = configured(**{"pipeline.baselines": ("random",)})
    for label, executor in executors(compiled(tmp_path, config)).items():
        source = executor["container"]["command"][-1]
        assert source.count(".run_") == 1, label


def test_no_task_installs_anything(tmp_path):
    for executor in executors(compiled(tmp_path)).values():
        assert "pip install" not in " ".join(executor["container"]["command"])
        assert environment(executor)["PYTHONUNBUFFERED"] == "1"


def test_given_cells_leave_out_the_search(tmp_path):
    config = configured(**{"network.cell": "att_darts"})
    names = {name for name, *_ in tasks(compiled(tmp_path, config))}
    assert names == STAGES - {"search", "select"}


# Tasks that a setting is told to, by its name or its section. What says how
# often a task is done is told to none: each is done for itself.
READERS = {
    "data": TUNED,
    "beam": {"prepare"},
    "space": {"search", "tune", "report"},
    "engine": TUNED - {"prepare"},
    "search": {"search", "tune", "report"},
    "search.seeds": {"select", "tune", "report"},
    "selection": {"select", "tune", "report"},
    "network": {"train", "tune", "report"},
    "tune": {"tune", "report"},
    "export": {"export", "report"},
    "repeats": {"tune", "report"},
    "hourly_price": {"report"},
    "pipeline": {"report"},
    "vertex": set(),
}
OTHER = {
    **{name: value for name, (value, _) in test_every_setting.OTHER.items()},
    "beam.runner": "DataflowRunner",
    "beam.mode": "multi_threading",
    "beam.workers": 2,
    "beam.options": ("--project=birds",),
    "data.broken_fraction": 0.1,
    "data.data_dir": "/elsewhere",
    "engine.strategy": "mirrored",
    "engine.replicas": 2,
    "hourly_price": 2.5,
    "repeats": 3,
    "data.name": "cifar10",
    "export.least_accuracy": 0.25,
    "pipeline.retries": 3,
    "tune.method": "bayesian",
    "tune.space": ("network.momentum=choice(0.5,0.9)",),
    "tune.trials": 7,
    "tune.repeats": 2,
    "tune.seed": 5,
    # What a task runs on changes no result.
    "vertex.project": "birds",
    "vertex.region": "europe-west4",
    "vertex.image": "image",
    "vertex.root": "gs://bucket/pipeline",
    "vertex.service_account": "runner",
    "vertex.failure_policy": "slow",
    "vertex.labels": ("team=vision",),
    "vertex.machines": 2,
    "vertex.machine_type": "n1-standard-16",
    **{
        f"vertex.{stage}.{field}": value
        for stage in stages.STAGES
        for field, value in (
            ("cpus", 3),
            ("memory", 7),
            ("accelerator", "NVIDIA_TESLA_T4"),
            ("accelerators", 1),
        )
    },
}
# They change which tasks there are.
OF_THE_SHAPE = {"network.cell", "network.pretrained", "pipeline.baselines",
                "pipeline.targets", "tune.stage"}


def test_every_setting_is_changed():
    assert set(OTHER) | OF_THE_SHAPE == set(settings.SETTINGS)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    config = configured(**{"tune.space": SPACE})
    return keys(compiled(tmp_path_factory.mktemp("before"), config))


@pytest.mark.parametrize("name", sorted(set(OTHER) - OF_THE_SHAPE))
def test_a_setting_is_in_the_keys_of_what_reads_it_and_no_others(
    name, before, tmp_path
):
    assert dict(settings.flatten(configured()))[name] != OTHER[name]
    config = configured(**{"tune.space": SPACE, name: OTHER[name]})
    after = compiled(tmp_path, config)
    expected = READERS.get(name, READERS.get(name.partition(".")[0]))
    received = changed(before, keys(after) | {"report": before["report"]})
    if name == "export.least_accuracy":
        # The page is one of two tasks then.
        assert {each for each, *_ in tasks(after)} == TUNED | {"report-2"}
    # The page is written whenever what it shows has changed.
    assert received == expected - {"report"}
    for each, task, _ in tasks(after):
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (each not in ("prepare", "report", "report-2"))


# Stages that stand on each part of the library.
STANDING_ON = {
    "data": TUNED - {"report"},
    "engine": TUNED - {"prepare"},
    "space": TUNED - {"prepare"},
    "search": {"search", "tune"},
    "network": {"select", "tune", "train", "evaluate", "export"},
    "intervals": {"select", "tune", "train", "evaluate", "export", "report"},
    "ranges": {"tune", "report"},
    "tuning": {"tune"},
    "serving": {"export"},
    "warm_up": {"export"},
    "model_card": {"export"},
    "litert": {"export"},
    "report": {"report"},
    "summary": set(),
    "storage": set(),
    "__main__": set(),
}


@pytest.mark.parametrize("part", STANDING_ON)
def test_code_is_in_the_keys_of_what_stands_on_it_and_no_others(
    part, before, tmp_path, monkeypatch
):
    copy = tmp_path / "att_darts_tf"
    shutil.copytree(
        workdir._PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(workdir, "_PACKAGE", copy)
    config = configured(**{"tune.space": SPACE})
    first = keys(compiled(tmp_path, config, main.code_digests()))
    file = copy / f"{part}.py"
    if not file.exists():
        file = sorted((copy / part).glob("*.py"))[-1]
    file.write_text(file.read_text() + "\n# Changed.\n")
    second = keys(compiled(tmp_path, config, main.code_digests()))
    assert changed(first, second) == STANDING_ON[part]


def test_cells_of_a_file_are_in_the_key_of_what_trains_them(tmp_path):
    file = tmp_path / "cells.json"
    published.get("att_darts").write(file)
    config = configured(
        **{
            "network.cell": str(file),
            "pipeline.baselines": ("random",),
            "pipeline.targets": ("cifar:cifar100",),
        }
    )
    first = compiled(tmp_path, config)
    published.get("darts_v2").write(file)
    second = compiled(tmp_path, config)
    trained = {
        name
        for name, task, _ in tasks(first)
        if name.startswith("train")
        # Not those that are drawn.
        and "baselines" not in str(task["inputs"]["parameters"]["branch"])
    }
    assert len(trained) == 2
    assert changed(keys(first), keys(second)) == trained


class TestTuning:
    @pytest.fixture(params=["train", "search"])
    def stage(self, request):
        return request.param

    @pytest.fixture
    def whole(self, stage, tmp_path):
        space = {"train": SPACE, "search": ("search.channels=choice(4,8)",)}
        config = configured(
            **{
                "pipeline.baselines": settings.BASELINES,
                "pipeline.targets": ("cifar:cifar100",),
                "tune.stage": stage,
                "tune.space": space[stage],
            }
        )
        return compiled(tmp_path, config)

    def test_is_one_task_that_what_it_tunes_reads(self, whole, stage):
        assert [name for name, *_ in tasks(whole)].count("tune") == 1
        for name, task, label in tasks(whole):
            branch = task["inputs"]["parameters"]["branch"]["runtimeValue"]
            own = branch["constant"].startswith("targets")
            expected = label.startswith(f"exec-{stage}") and not own
            received = "tuned" in task["inputs"].get("artifacts", {})
            assert received == expected, (name, branch)

    def test_has_cells_where_trainings_are_tuned(self, whole, stage):
        (task,) = (task for name, task, _ in tasks(whole) if name == "tune")
        assert ("cells" in task["inputs"]["artifacts"]) == (stage == "train")

    def test_of_given_cells_has_their_digest_in_its_key(self, tmp_path):
        file = tmp_path / "cells.json"
        published.get("att_darts").write(file)
        config = configured(
            **{"network.cell": str(file), "tune.space": SPACE}
        )
        first = keys(compiled(tmp_path, config))
        published.get("darts_v2").write(file)
        assert changed(first, keys(compiled(tmp_path, config))) == {
            "tune",
            "train",
        }


class TestBranches:
    @pytest.fixture
    def whole(self, tmp_path):
        config = configured(
            **{
                "pipeline.baselines": settings.BASELINES,
                "pipeline.targets": ("cifar:cifar100",),
                "pipeline.retries": 2,
            }
        )
        return compiled(tmp_path, config)

    def test_have_tasks_of_their_own(self, whole):
        found = {}
        for name, task, _ in tasks(whole):
            branch = task["inputs"]["parameters"]["branch"]["runtimeValue"]
            found.setdefault(branch["constant"], set()).add(
                name.rstrip("-0123456789")
            )
        judged = {"train", "evaluate"}
        assert found == {
            "": STAGES,
            "baselines/random": {"sample", "select", *judged},
            "baselines/no_attention": {"search", "select", *judged},
            "targets/cifar-cifar100": {"prepare", *judged},
        }

    def test_have_the_settings_of_their_own(self, whole):
        for _, task, label in tasks(whole):
            given = {
                name: value["runtimeValue"]["constant"]
                for name, value in task["inputs"]["parameters"].items()
                if "runtimeValue" in value
            }
            config = json.loads(given["config"])
            if label.startswith("exec-search"):
                own = given["branch"] == "baselines/no_attention"
                assert (config["space"]["location"] == "no_attention") == own
            if label.startswith("exec-train"):
                target = given["branch"].startswith("targets")
                assert (config["data"]["name"] == "cifar100") == target

    def test_leave_the_keys_of_the_run_as_they_were(self, whole, tmp_path):
        without = keys(compiled(tmp_path))
        assert changed(without, keys(whole)) <= {"report"}

    def test_images_of_targets_come_before_hours_of_work(self, whole):
        (loop,) = (
            task
            for task in whole["root"]["dag"]["tasks"].values()
            if "select" not in str(task.get("taskInfo"))
            and task["componentRef"]["name"] == "comp-for-loop-1"
        )
        assert {"prepare", "prepare-2"} <= set(loop["dependentTasks"])

    def test_every_task_is_tried_again(self, whole, tmp_path):
        for name, task, _ in tasks(whole):
            assert task["retryPolicy"]["maxRetryCount"] == 2, name
        for name, task, _ in tasks(compiled(tmp_path)):
            assert "retryPolicy" not in task, name

    def test_the_page_waits_for_all_of_them(self, whole):
        (report,) = (t for name, t, _ in tasks(whole) if name == "report")
        judged = {
            name for name, *_ in tasks(whole) if name.startswith("evaluate")
        }
        assert len(judged) == 4
        assert judged | {"export"} == set(report["dependentTasks"])


def test_export_waits_for_the_accuracy_if_one_is_asked_for(tmp_path):
    config = configured(**{"export.least_accuracy": 0.75})
    specification = compiled(tmp_path, config)
    conditions = [
        task["triggerPolicy"]["condition"]
        for part in [
            specification["root"], *specification["components"].values()
        ]
        for task in part.get("dag", {}).get("tasks", {}).values()
        if "triggerPolicy" in task
    ]
    assert len(conditions) == 2
    assert all(">= 0.75" in condition for condition in conditions)
    assert sum("!(" in condition for condition in conditions) == 1


def write_golden():
    GOLDEN.parent.mkdir(exist_ok=True)
    specification = compiled(GOLDEN.parent)
    GOLDEN.write_text(yaml.safe_dump(specification, sort_keys=True))


if __name__ == "__main__":
    write_golden()
