"""The API reference has every public module, and all that it offers."""

import ast
import html.parser
import pathlib
import subprocess
import sys

import pytest

from tests.test_structure import modules

ROOT = pathlib.Path(__file__).parents[1]

def offered():
    """Returns the public classes and functions of each page by its path."""
    pages = {
        name.replace(".", "/") + ".html": {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            and not node.name.startswith("_")
        }
        for name, _, tree in modules()
        if "._" not in name
    }
    pages["att_darts_tf.html"] = {
        "Network",
        "Search",
        "Supernet",
        "split_in_halves",
    }
    return pages


class Page(html.parser.HTMLParser):
    """What a page links to, what can be linked in it, and its text."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.words = set(), set(), []
        self.feed(text)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a":
            self.links.add(attributes.get("href"))

    def handle_data(self, data):
        self.words.append(data)


def write(*command, **options):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Returns the written pages by their path."""
    folder = tmp_path_factory.mktemp("api")
    done = write("-m", "docs.api", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        path.relative_to(folder).as_posix(): Page(path.read_text("utf-8"))
        for path in folder.rglob("*.html")
    }


@pytest.mark.slow
def test_every_public_module_has_a_page_that_the_first_one_links(pages):
    assert set(pages) == set(offered()) | {"index.html"}
    assert set(offered()) <= pages["index.html"].links


@pytest.mark.slow
def test_a_page_has_every_public_class_and_function(pages):
    for name, names in offered().items():
        assert names <= pages[name].ids, name


@pytest.mark.slow
def test_the_sections_of_a_docstring_are_shown(pages):
    page = pages["att_darts_tf/search/supernet.html"]
    assert "Arguments:" in page.text
    # Of the docstring, in its words.
    assert "location: String. Where attention goes" in page.text
    assert "Input shape: (batch, height, width, channels)" in page.text
    assert "supernet.build((None, 8, 8, 3))" in page.text
    assert "Supernet.architecture" in page.ids


def test_a_module_that_cannot_be_imported_ends_it(tmp_path):
    program = (
        "import runpy, sys; sys.modules['kfp'] = None; "
        f"sys.argv[1:] = [{str(tmp_path)!r}]; "
        "runpy.run_module('docs.api', run_name='__main__')"
    )
    done = write("-c", program)
    assert done.returncode == 1
    assert "kfp" in done.stderr
    assert not list(tmp_path.rglob("*.html"))
