"""The definition: what it compiles to, and what its tasks carry."""

import pathlib

import yaml
from kfp import compiler

from att_darts_tf.pipeline import pipeline

GOLDEN = pathlib.Path(__file__).parent.parent / "goldens" / "pipeline.yaml"


def compiled(tmp_path, **options):
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(
        pipeline.define(code="code", **options), str(file)
    )
    specification = yaml.safe_load(file.read_text())
    # Newer versions of the compiler write the same pipeline.
    del specification["sdkVersion"]
    return specification


def executors(specification):
    return specification["deploymentSpec"]["executors"]


def test_compiles_to_the_golden_file(tmp_path):
    golden = yaml.safe_load(GOLDEN.read_text())
    assert compiled(tmp_path) == golden, (
        "After a change that is meant, write the golden file again: "
        "python -m tests.pipeline.test_pipeline"
    )


def test_every_stage_is_one_component_that_calls_one_function(tmp_path):
    for label, executor in executors(compiled(tmp_path)).items():
        source = executor["container"]["command"][-1]
        assert source.count(".run_") == 1, label


def test_every_task_tells_the_cache_of_the_code(tmp_path):
    for executor in executors(compiled(tmp_path)).values():
        variables = {
            variable["name"]: variable["value"]
            for variable in executor["container"]["env"]
        }
        assert variables[pipeline.CODE_VARIABLE] == "code"
        assert variables["PYTHONUNBUFFERED"] == "1"


def test_no_task_installs_anything(tmp_path):
    for executor in executors(compiled(tmp_path)).values():
        assert "pip install" not in " ".join(executor["container"]["command"])


def test_given_cells_leave_out_the_search(tmp_path):
    specification = compiled(tmp_path, search_cells=False)
    names = {label.removeprefix("exec-") for label in executors(specification)}
    assert names == {"prepare", "train", "evaluate", "export", "report"}


def write_golden():
    GOLDEN.parent.mkdir(exist_ok=True)
    specification = compiled(GOLDEN.parent)
    GOLDEN.write_text(yaml.safe_dump(specification, sort_keys=True))


if __name__ == "__main__":
    write_golden()
