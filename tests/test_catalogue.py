import pathlib
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from att_darts_tf import catalogue
from att_darts_tf.errors import UsageError
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Cell, Edge, Genotype


def test_list_names_everything_with_its_source():
    lines = list(catalogue.list_cells())
    assert [line.split()[0] for line in lines] == [*published.network_names()]
    by_name = dict(zip(published.network_names(), lines, strict=True))
    assert "  after_every  " in by_name["att_darts"]
    assert "  no_attention  " in by_name["darts_v2"]
    assert "  (no cells)  " in by_name["densenet_bc"]
    for name, line in by_name.items():
        assert line.endswith(published.source(name))


@pytest.mark.parametrize(
    ("layers", "bottleneck", "expected"),
    [
        (("sep_conv_3x3",), "", "no_attention"),
        (("sep_conv_3x3", "SE"), "", "after_every"),
        (("sep_conv_3x3",), "SE", "end"),
        (("sep_conv_3x3", "SE"), "SE", "after_every_and_end"),
    ],
)
def test_location_is_where_attention_stands(layers, bottleneck, expected):
    plain = Cell(nodes=((Edge(0, ("skip_connect",)),),), concat=(2,))
    cell = Cell(
        nodes=((Edge(0, layers),),), concat=(2,), bottleneck=bottleneck
    )
    assert catalogue.location(Genotype(normal=plain, reduce=cell)) == expected


def test_drawings_are_written_and_the_cells_are_told(tmp_path):
    folder = tmp_path / "new" / "folder"
    lines = list(catalogue.draw("bayesnas_0.005", folder))
    assert published.source("bayesnas_0.005") in lines[0]
    assert lines[1:3] == published.get("bayesnas_0.005").summary().splitlines()
    assert sorted(file.name for file in folder.iterdir()) == [
        "bayesnas_0.005-normal.svg",
        "bayesnas_0.005-reduce.svg",
    ]
    for file, line in zip(sorted(folder.iterdir()), lines[3:], strict=True):
        assert line == f"Drawing: {file}"
        assert ElementTree.fromstring(file.read_text()).tag.endswith("svg")


def test_cells_of_a_file_are_drawn_under_its_name(tmp_path):
    file = tmp_path / "mine.json"
    published.get("att_darts").write(file)
    lines = list(catalogue.draw(str(file), tmp_path))
    assert lines[0] == str(file)
    assert (tmp_path / "mine-reduce.svg").exists()


def test_what_cannot_be_drawn_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name, folder, message in (
        ("att_dart", ".", "Did you mean 'att_darts'"),
        ("densenet_bc", ".", "a network without cells"),
        ("att_darts", tmp_path / "file" / "x", "--output="),
    ):
        with pytest.raises(UsageError, match=message):
            list(catalogue.draw(name, folder))


def test_table_shows_published_beside_counted_figures():
    lines = list(catalogue.table())
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["att_darts"] == [
        *("att_darts", "2.54", "3.2", "DARTS", "3,231,343", "486,244,480")
    ]
    assert rows["densenet_bc"] == [
        *("densenet_bc", "3.46", "25.6", "its", "own"),
        *("25,624,430", "9,301,945,740"),
    ]
    assert rows["nasnet_a"][3:5] == ["its", "own"]
    assert rows["darts_v1"][1:4] == ["-", "-", "-"]
    text = " ".join(" ".join(lines).split())
    assert "compare only where skeletons agree" in text
    assert set(published.network_names()) <= set(rows)


def test_needs_no_framework():
    program = (
        "import sys; from att_darts_tf import catalogue; "
        "list(catalogue.table()); list(catalogue.list_cells()); "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parent,
    )
    assert result.stdout.strip() == "set()"
