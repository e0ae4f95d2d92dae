"""The examples of docstrings run, and end as they say."""

import ast
import doctest
import importlib
import sys

import pytest

from tests.test_structure import modules

DOCUMENTED = (
    ast.Module,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
)
# Whose docstrings show a reader how to begin.
SHOWN = {
    "att_darts_tf.data.input_pipeline.split_in_halves",
    "att_darts_tf.network.network.Network",
    "att_darts_tf.search.supernet.Supernet",
    "att_darts_tf.search.trainer.Search",
    "att_darts_tf.settings.load",
    "att_darts_tf.space.genotype.Genotype",
    "att_darts_tf.space.registry.Registry",
    "att_darts_tf.space.search_space.SearchSpace",
}


def docstrings(tree):
    """Yields the name, the line and the text of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            line = node.body[0].lineno - 1
            yield getattr(node, "name", "head"), line, ast.get_docstring(node)


def examples(name, path, tree):
    """Returns the examples of a source, each a `doctest.DocTest`."""
    parser = doctest.DocTestParser()
    found = []
    for owner, line, text in docstrings(tree):
        if parser.get_examples(text):
            found.append(
                parser.get_doctest(text, {}, f"{name}.{owner}", str(path), line)
            )
    return found


def run(example, module):
    """Runs an example as if it stood in a module; returns what went wrong."""
    said = []
    example.globs.update(vars(importlib.import_module(module)))
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    return "".join(said)


EXAMPLES = [
    pytest.param(example, name, id=example.name)
    for name, path, tree in modules()
    for example in examples(name, path, tree)
]


@pytest.mark.parametrize(("example", "module"), EXAMPLES)
def test_an_example_ends_as_it_says(example, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(example, module) == ""


def test_the_names_that_a_reader_begins_with_have_an_example():
    found = {parameter.id for parameter in EXAMPLES}
    assert SHOWN <= found


def test_no_example_is_left_out():
    for name, _, tree in modules():
        for owner, _, text in docstrings(tree):
            # A fence is shown as code and run by nobody.
            assert "```" not in text, f"{name}.{owner}"
            assert "+SKIP" not in text, f"{name}.{owner}"
            heads = text.splitlines().count("Example:")
            assert heads == ("\n>>> " in text), f"{name}.{owner}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (">>> half(3)\n    1.5", False),
        (">>> half(3)\n    1", True),
        (">>> half(3)", True),
        (">>> halve(3)\n    1.5", True),
    ],
)
def test_a_wrong_example_is_found(tmp_path, monkeypatch, line, wrong):
    path = tmp_path / "planted.py"
    text = (
        "def half(number):\n"
        f'    """Returns a half.\n\n    Example:\n\n    {line}\n    """\n'
        "    return number / 2\n"
    )
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    (example,) = examples("planted", path, ast.parse(text))
    assert bool(run(example, "planted")) == wrong
