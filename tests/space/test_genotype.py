import dataclasses
import json
import os
import random
import stat
import string

import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.space import genotype, published, search_space
from att_darts_tf.space.genotype import Cell, Edge, Genotype

# A genotype as the released code writes it.
RELEASED = {
    "normal": [
        ["dil_conv_3x3", 0, "DoubleAttention"],
        ["skip_connect", 1, "GE_theta-plus"],
        ["max_pool_3x3", 2, "DoubleAttention"],
        ["dil_conv_3x3", 0, "Identity"],
        ["skip_connect", 0, "SE"],
        ["sep_conv_5x5", 3, "GE_theta-plus"],
        ["dil_conv_5x5", 4, "SE"],
        ["max_pool_3x3", 1, ""],
    ],
    "normal_concat": [2, 3, 4, 5],
    "reduce": [
        ["max_pool_3x3", 1, "CBAM"],
        ["sep_conv_3x3", 0, "DoubleAttention"],
        ["max_pool_3x3", 1, "DoubleAttention"],
        ["avg_pool_3x3", 2, "BAM"],
        ["skip_connect", 1, "DoubleAttention"],
        ["avg_pool_3x3", 0, "Identity"],
        ["dil_conv_5x5", 3, "DoubleAttention"],
        ["sep_conv_3x3", 4, "BAM"],
    ],
    "reduce_concat": [2, 3, 4, 5],
    "normal_bottleneck": "",
    "reduce_bottleneck": "CBAM",
}
# One with other numbers of edges.
NESTED = {
    "normal": [
        [["skip_connect", 0, ""]],
        [["sep_conv_3x3", 0, "SE"], ["none", 1, ""], ["skip_connect", 2, ""]],
    ],
    "normal_concat": [3],
    "reduce": [[["max_pool_3x3", 1, ""], ["max_pool_3x3", 1, ""]]],
    "reduce_concat": [2, 0],
}


def changed(path, value, start=RELEASED):
    """Returns the text of a genotype with one value replaced or removed."""
    fields = json.loads(json.dumps(start))
    *parents, last = path
    target = fields
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return json.dumps(fields)


def message_of(text):
    with pytest.raises(UsageError) as caught:
        Genotype.from_json(text, source="cells/mine.json")
    message = str(caught.value)
    assert message.startswith("cells/mine.json: ")
    assert "\n" not in message
    return message


def test_reads_the_format_of_the_released_code():
    cells = Genotype.from_json(json.dumps(RELEASED))
    assert cells.normal.nodes[1] == (
        Edge(2, ("max_pool_3x3", "DoubleAttention")),
        Edge(0, ("dil_conv_3x3", "Identity")),
    )
    assert cells.normal.nodes[3][1] == Edge(1, ("max_pool_3x3",))
    assert cells.normal.concat == (2, 3, 4, 5)
    assert cells.normal.bottleneck == ""
    assert cells.reduce.bottleneck == "CBAM"


def test_writes_two_edges_a_node_as_the_released_code_does():
    written = json.loads(Genotype.from_json(json.dumps(RELEASED)).to_json())
    assert written == {"format": 1, **RELEASED}
    assert list(written) == [
        "format",
        "normal",
        "normal_concat",
        "reduce",
        "reduce_concat",
        "normal_bottleneck",
        "reduce_bottleneck",
    ]


def test_reads_and_writes_nodes_where_one_has_not_two_edges():
    cells = Genotype.from_json(json.dumps(NESTED))
    assert [len(node) for node in cells.normal.nodes] == [1, 3]
    assert cells.reduce.concat == (2, 0)
    written = json.loads(cells.to_json())
    assert written == {
        "format": 1,
        **NESTED,
        "normal_bottleneck": "",
        "reduce_bottleneck": "",
    }


def test_remarks_of_a_collection_are_no_part_of_the_cells():
    remarks = {"source": "a page", "parameters": {}, "published": {}}
    assert Genotype.from_json(
        json.dumps({**NESTED, **remarks})
    ) == Genotype.from_json(json.dumps(NESTED))


@pytest.mark.parametrize("first", genotype.LAYER_NAMES)
def test_either_place_takes_names_of_both_lists(first):
    for second in ("", *genotype.LAYER_NAMES):
        text = changed(("normal", 0), [first, 0, second])
        cells = Genotype.from_json(text)
        assert cells.normal.nodes[0][0].layers == tuple(
            name for name in (first, second) if name
        )
        assert Genotype.from_json(cells.to_json()) == cells


def test_is_frozen_plain_data():
    cells = Genotype.from_json(json.dumps(RELEASED))
    assert hash(cells) == hash(Genotype.from_json(json.dumps(RELEASED)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        cells.normal.bottleneck = "SE"
    # Lists become tuples, so that nothing inside can change either.
    edge = Edge(0, ["skip_connect"])
    assert Cell([[edge]], [2]) == Cell(((edge,),), (2,))


@pytest.mark.parametrize(
    "path, value, expected",
    [
        (
            ("normal", 2, 0),
            "sep_conv_3x4",
            "`normal`: node 1, edge 0: Unknown operation. Expected one of "
            "none, max_pool_3x3,",
        ),
        (("normal", 2, 0), "sep_conv_3x4", "Did you mean 'sep_conv_3x3'?"),
        (
            ("reduce", 7, 2),
            "cbam",
            "`reduce`: node 3, edge 1: Unknown attention",
        ),
        (("reduce", 7, 2), "cbam", "Received: 'cbam'. Did you mean 'CBAM'?"),
        (("reduce", 7, 2), 0, 'attention ("" is none)'),
        (("normal", 0, 0), "", "node 0, edge 0: Unknown operation"),
        (
            ("normal", 3, 1),
            3,
            "`normal`: node 1, edge 1: edges of node 1 must read a state in "
            "[0, 3): an input of the cell or an earlier node. Received: 3",
        ),
        (("normal", 3, 1), -1, "an integer of at least 0. Received: -1"),
        (("normal", 3, 1), 1.0, "an integer of at least 0. Received: 1.0"),
        (("normal", 3, 1), True, "an integer of at least 0. Received: True"),
        (("normal", 3, 1), "0", "an integer of at least 0. Received: '0'"),
        (
            ("normal", 3),
            ["skip_connect", 0],
            "`normal`: node 1, edge 1: expected [operation, input, attention]",
        ),
        (("normal", 3), "skip_connect", "Received: 'skip_connect'"),
        (("normal", 3), [], "node 1, edge 1: expected [operation, input,"),
        (
            ("normal", 3),
            KeyError,
            "must hold 2 edges a node. Received: 7 edges",
        ),
        (("normal",), [], "`normal`: A cell must have at least one node"),
        (("normal",), {}, "`normal`: expected a list of edges"),
        (("normal",), [[[]]], "expected [operation, input, attention]"),
        (("normal",), [[["none", 0, ""]], "x"], "node 1: expected a list of"),
        (("normal",), [[["none", 0, ""]], []], "node 1: a node must have"),
        (("normal",), KeyError, "Expected the field `normal`. Received the"),
        (("reduce_concat",), KeyError, "Expected the field `reduce_concat`"),
        (("reduce_concat",), 5, "`reduce_concat`: expected a list of states"),
        (("reduce_concat",), [], "`reduce`: concat: the output must have at"),
        (("reduce_concat",), [2, 6], "states in [0, 6). Received: 6"),
        (("reduce_concat",), [2, -1], "states in [0, 6). Received: -1"),
        (("reduce_concat",), [2, True], "states in [0, 6). Received: True"),
        (("reduce_concat",), [2, 3, 2], "Received 2 more than once"),
        (
            ("normal_bottleneck",),
            "SEE",
            '`normal`: Unknown attention on the output ("" is none). Expected '
            "one of Identity, SE,",
        ),
        (("normal_bottleneck",), 0, "Received: 0"),
        (("normal_bottleneck",), [], "Received: []"),
        (("normal_bottlneck",), "", "Did you mean 'normal_bottleneck'?"),
        (
            ("format",),
            2,
            "Expected a genotype of format 1, the only one that this version "
            "reads. Received: format 2",
        ),
        (("format",), True, "format True"),
        (("format",), "1", "format '1'"),
        (("format",), None, "format None"),
    ],
)
def test_error_names_the_place_and_what_was_received(path, value, expected):
    assert expected in message_of(changed(path, value))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "Expected a genotype as JSON"),
        ("Cells(normal=[('skip_connect', 0)])", "line 1 column 1"),
        (
            "Genotype(normal=[('skip_connect', 0)])",
            "Expected the field `normal_concat`",
        ),
        ("[" * 60_000, "Expected a genotype as JSON"),
        ("[" * 200_000, "at most 65536 characters. Received: more"),
        ("1" * 10_000, "Expected a genotype as JSON"),
        (
            f"Genotype(normal=0x{'f' * 9_000}, normal_concat=[2], reduce=[], "
            "reduce_concat=[2])",
            "Received: int that is too long to write",
        ),
        ("[]", "Expected a JSON object with the fields format, normal"),
        ("null", "Received: None"),
        ("{}", "Received the fields (none)"),
        ('{"normal": [], "normal": []}', "Expected each field once"),
        ('{"\\ud800": 1}', "Unknown field"),
        ('{"a\\nb": 1}', r"Received: 'a\nb'"),
    ],
)
def test_text_that_is_no_genotype_is_refused(text, expected):
    message = message_of(text)
    assert expected in message
    message.encode()
    assert len(message) < 400


def test_any_mutation_reads_or_is_refused_as_usage():
    generator = random.Random(0)
    starts = [
        json.dumps(RELEASED),
        json.dumps(NESTED),
        Genotype.from_json(json.dumps(NESTED)).to_json(),
    ]
    pieces = [
        *string.printable,
        *("[", "]", "{", "}", ",", '"', "null", "true", "-1", "1e999", "NaN"),
        *("\ud800", "\x00", '"format": 1,', "[[", "]]", "Identity", "[]"),
    ]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(4000):
        text = generator.choice(starts)
        for _ in range(generator.choice((1, 1, 1, 2, 5))):
            at = generator.randrange(len(text))
            cut = generator.choice((0, 1, 1, 2, 8, 40))
            text = text[:at] + generator.choice(pieces) + text[at + cut :]
        _read_or_refuse(text, outcomes)
    assert min(outcomes.values()) > 20, outcomes


def test_any_value_anywhere_reads_or_is_refused_as_usage():
    generator = random.Random(1)
    values = [
        *(None, True, False, 0, 1, 2, -1, 7, 10**30, 0.0, 1.5, "", "SE"),
        *("none", "skip_connect", [], {}, [[]], [0], [[0]], {"a": 1}),
        *(["none", 0, ""], [["none", 0, ""]], float("nan"), KeyError),
    ]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(4000):
        start = generator.choice((RELEASED, NESTED, {"format": 1, **RELEASED}))
        path, target = [], start
        while isinstance(target, list | dict) and len(target):
            keys = list(target) if isinstance(target, dict) else None
            key = generator.choice(keys or range(len(target)))
            path.append(key)
            target = target[key]
            if generator.random() < 0.3:
                break
        text = changed(path, generator.choice(values), start)
        _read_or_refuse(text, outcomes)
    assert min(outcomes.values()) > 20, outcomes


def _read_or_refuse(text, outcomes):
    try:
        cells = Genotype.from_json(text, source="f")
    except UsageError as error:
        assert str(error).startswith("f: ")
        assert "\n" not in str(error)
        str(error).encode()
        outcomes["refused"] += 1
    else:
        assert Genotype.from_json(cells.to_json()) == cells
        outcomes["read"] += 1


def test_python_users_meet_the_same_errors():
    edge = Edge(0, ("skip_connect",))
    cell = Cell(((edge,),), (2,))
    for wrong in (
        lambda: Edge(0, ()),
        lambda: Edge(0, ("skip_connect", "SE", "SE")),
        lambda: Edge(0, "SE"),
        lambda: Edge(0, ("skip_connect", "")),
        lambda: Cell(edge, (2,)),
        lambda: Cell((edge,), (2,)),
        lambda: Cell((("edge",),), (2,)),
        lambda: Cell(((edge,),), 2),
        lambda: Genotype(cell, None),
    ):
        with pytest.raises(UsageError, match="Received"):
            wrong()


def test_file_round_trips_and_may_start_with_a_byte_order_mark(tmp_path):
    cells = published.get("bayesnas_0.005")
    path = tmp_path / "genotype.json"
    cells.write(path)
    assert Genotype.read(path) == cells
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert Genotype.read(str(path)) == cells


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "genotype.json"
    for name in ("darts_v1", "att_darts"):
        published.get(name).write(path)
    assert Genotype.read(path) == published.get("att_darts")
    assert os.listdir(tmp_path) == ["genotype.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_file_that_cannot_be_read_or_written_is_named(tmp_path):
    cells = published.get("att_darts")
    missing = tmp_path / "absent" / "genotype.json"
    with pytest.raises(UsageError, match="genotype.json: expected a genotype"):
        Genotype.read(missing)
    with pytest.raises(UsageError, match="absent/genotype.json: expected"):
        cells.write(missing)
    with pytest.raises(UsageError, match="can be read"):
        Genotype.read(tmp_path)
    with pytest.raises(UsageError, match="can be written"):
        cells.write(tmp_path)
    assert os.listdir(tmp_path) == []
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.json.*UTF-8"):
        Genotype.read(binary)
    with pytest.raises(UsageError, match="null byte"):
        Genotype.read("a\0b.json")
    binary.write_text("{}")
    with pytest.raises(UsageError, match=r"binary\.json: Expected the field"):
        Genotype.read(binary)


def test_summary_is_a_line_for_each_cell():
    lines = Genotype.from_json(json.dumps(NESTED)).summary().split("\n")
    assert lines == [
        "normal: 2 = skip_connect(0); 3 = sep_conv_3x3+SE(0) none(1) "
        "skip_connect(2); concat 3",
        "reduce: 2 = max_pool_3x3(1) max_pool_3x3(1); concat 2 0",
    ]
    summary = Genotype.from_json(json.dumps(RELEASED)).summary()
    assert summary.endswith("concat 2 3 4 5, CBAM")


def test_a_genotype_may_hold_every_searched_name():
    searched = {
        *search_space.EITHER_NAMES,
        *search_space.ATTENTION_NAMES,
    }
    assert searched < set(genotype.LAYER_NAMES)


def named_tuple(fields):
    """Returns a genotype as the released code prints it."""
    values = {
        key: value if isinstance(value, str) else [tuple(e) for e in value]
        for key, value in fields.items()
        if not key.endswith("_concat")
    }
    for name in search_space.CELL_NAMES:
        values[f"{name}_concat"] = range(2, 6)
    listed = ", ".join(f"{key}={value!r}" for key, value in values.items())
    return f"Genotype({listed})"


@pytest.mark.parametrize("start", ["", "Att_DARTS = ", " \n"])
def test_reads_the_named_tuple_of_the_released_code(start):
    received = Genotype.from_json(start + named_tuple(RELEASED))
    assert received == Genotype.from_json(json.dumps(RELEASED))


def test_a_named_tuple_without_attention_is_plain_darts():
    pairs = [edge[:2] for edge in RELEASED["normal"]]
    text = (
        f"Genotype(normal={[tuple(e) for e in pairs]}, normal_concat=[2, 3, 4, "
        f"5], reduce={[tuple(e) for e in pairs]}, reduce_concat=range(2, 6))"
    )
    genotype_ = Genotype.from_json(text)
    for cell in (genotype_.normal, genotype_.reduce):
        edges = [edge for node in cell.nodes for edge in node]
        assert {len(edge.layers) for edge in edges} == {1}


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(",
        "Genotype()",
        "Genotype([], [], [], [])",
        "Genotype(normal=__import__('os').system('false'))",
        "Genotype(normal=open('x'), reduce=[])",
        "Genotype(normal=[], normal_concat=range(2, 10**9))",
        "Genotype(normal=[], normal=[])",
        "Genotype(**{'normal': []})",
        "Genotype(normal=" + "[" * 5000 + "]" * 5000 + ")",
        "Genotype(normal=[]); print(1)",
        "Genotype(normal=3, normal_concat=[2], reduce=[], reduce_concat=[2])",
    ],
)
def test_another_text_of_a_call_is_refused_and_not_run(text):
    with pytest.raises(UsageError):
        Genotype.from_json(text)


def test_null_is_no_attention_either():
    for path in (("reduce", 7, 2), ("reduce_bottleneck",)):
        received = Genotype.from_json(changed(path, None))
        assert received == Genotype.from_json(changed(path, ""))


def test_a_file_without_an_end_is_refused():
    with pytest.raises(UsageError, match="at most 65536 characters"):
        Genotype.read("/dev/zero")
