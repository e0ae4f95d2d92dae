"""The page of results, on a work directory written in the real formats."""

import ast
import html.parser
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from att_darts_tf import branches, report
from att_darts_tf.configs import base
from att_darts_tf.engine import lineage, stage_folder, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.space import published, search_space

LIBRARY = pathlib.Path(report.__file__).parent
VOID = {"meta", "br", "img", "link", "input", "hr"}
CLASSES = ["airplane", "<b>bold</b> & \"quoted\"", "ship"]
CELLS = published.get("att_darts")

COST = {
    "parameters": 271828,
    "parameters_with_auxiliary": 314159,
    "multiply_adds": 486244480,
    "activation_bytes": 83621744,
}
LATENCIES = [
    {"batch": 1, "median": 3.14, "least": 2.72, "most": 12.25},
    {"batch": 32, "median": 1234.56, "least": 1000.0, "most": 2000.0},
]
COMMAND = "python /a run/export/classify.py IMAGE"


def config_of(**settings):
    """Returns a configuration of two searches and two trainings."""
    config = base.get_config()
    config.search.seeds = (3, 5)
    config.repeats = 2
    config.update(settings)
    return config


def write_stage(folder, result, *, stage, seed=None, epochs=None):
    """Writes what every stage leaves, as the stages do."""
    identity = {
        "config": {"repeats": 2},
        **({} if seed is None else {"seed": seed}),
        "inputs": {"model_0": "a" * 64},
        "data": {"digest": "d" * 64},
        "genotypes": 2 * [json.loads(CELLS.to_json())],
        "code": "c" * 64,
    }
    with stage_folder.StageFolder(
        folder, stage=stage, identity=identity
    ) as claimed:
        if epochs is not None:
            workdir.write_json(
                claimed.path / "history.json",
                {"epochs": epochs},
                format=report.HISTORY_FORMAT,
            )
        claimed.finish(result)


def write_data(folder):
    count = len(CLASSES)
    splits = {
        name: {
            "examples": sum(counts),
            "examples_per_class": counts,
            "files": [{"name": f"{name}.tfrecord", "sha256": "e" * 64}],
        }
        for name, counts in (
            ("train", [500, 400, 601][:count]),
            ("test", [200, 100, 200][:count]),
        )
    }
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(
        folder / "dataset.json",
        {
            "name": "toys <i>",
            "image_shape": [32, 32, 3],
            "class_names": CLASSES,
            "mean": [0.49139968, 0.48215827, 0.44653124],
            "std": [0.24703233, 0.24348505, 0.26158768],
            "normalisation": "published",
            "splits": splits,
            "source": {"name": "toys"},
        },
        format=report.DATA_FORMAT,
    )
    lineage.write_of_images(folder, digest="d" * 64, begun=time.monotonic())


def write_search(folder, seed, location, epochs=5):
    history = [
        {
            "epoch": epoch,
            "accuracy": 0.15 + 0.06 * epoch + 0.01 * seed,
            "loss": 2.3 - 0.12 * epoch + 0.02 * seed,
            "search_accuracy": 0.14 + 0.055 * epoch + 0.01 * seed,
            "search_loss": 2.31 - 0.11 * epoch + 0.02 * seed,
            "learning_rate": 0.025,
            "seconds": 20.5,
        }
        for epoch in range(epochs)
    ]
    space = search_space.get(location)

    def weights(shape, scale):
        if len(shape) == 1:
            return [scale * math.sin(seed + 2 * i) for i in range(*shape)]
        rows, columns = shape
        return [
            [scale * math.sin(seed + 3 * i + 1.7 * j) for j in range(columns)]
            for i in range(rows)
        ]

    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(
        folder / "architecture.json",
        {
            "location": location,
            "epochs": [
                {
                    "epoch": epoch,
                    "genotype": json.loads(CELLS.to_json()),
                    "architecture": {
                        name: weights(shape, 0.4 * epoch)
                        for name, shape in space.architecture_shapes().items()
                    },
                }
                for epoch in range(epochs)
            ],
        },
        format=report.ARCHITECTURE_FORMAT,
    )
    CELLS.write(folder / "genotype.json")
    result = {
        "genotype": json.loads(CELLS.to_json()),
        "seed": seed,
        "parameters": 123456,
        "train_accuracy": history[-1]["accuracy"],
        "architecture_accuracy": history[-1]["search_accuracy"],
        "epochs": epochs,
        "seconds": 102.5,
    }
    write_stage(folder, result, stage="search", seed=seed, epochs=history)


def write_selection(folder, root):
    folder.mkdir(parents=True)
    CELLS.write(folder / "genotype.json")
    result = {
        "candidates": [
            {
                "genotype_file": str(root / f"search/seed-{seed}"),
                "seed": seed,
                "validation_accuracy": accuracy,
                "validation_loss": 1.7,
                "validation_images": 750,
                "train_accuracy": 0.44,
                "parameters": parameters,
                "seconds": 40.0,
            }
            for seed, accuracy, parameters in (
                (3, 0.3826666, 61234),
                (5, 0.4013333, 71235),
            )
        ],
        "chosen": 1,
        "reason": "seed 5, the highest <validation> accuracy, 40.13 %",
    }
    write_stage(folder, result, stage="select")


def write_network(root, repeats, epochs=12):
    for repeat in range(repeats):
        history = [
            {
                "epoch": epoch,
                "loss": 2.6 * 0.93 ** (epoch + repeat),
                "accuracy": 0.2 + 0.025 * epoch + 0.01 * repeat,
                "learning_rate": 0.025,
                "seconds": 9.0,
            }
            for epoch in range(epochs)
        ]
        result = {
            "seed": repeat,
            "parameters": 271828,
            "parameters_with_auxiliary": 314159,
            "train_accuracy": history[-1]["accuracy"],
            "train_loss": history[-1]["loss"],
            "epochs": epochs,
            "seconds": 108.0,
        }
        write_stage(
            root / f"training/repeat-{repeat}",
            result,
            stage="train",
            seed=repeat,
            epochs=history,
        )
    accuracies = [0.456, 0.472][:repeats]
    result = {
        "accuracies": accuracies,
        "losses": [1.51234, 1.48765][:repeats],
        "mean": sum(accuracies) / repeats,
        "standard_deviation": 0.011313708498984772 if repeats > 1 else 0.0,
        "images": 500,
        **({"half_width_95": 0.1016} if repeats > 1 else {}),
    }
    write_stage(root / "evaluation", result, stage="evaluate")
    exported = {"command": COMMAND, "cost": COST, "latencies": LATENCIES}
    write_stage(root / "export", exported, stage="export")


def write_run(root, *, searched=True, repeats=2):
    """Writes a whole work directory."""
    write_data(root / "data")
    if searched:
        for seed in (3, 5):
            write_search(root / f"search/seed-{seed}", seed, "after_every")
        write_selection(root / "selection", root)
    write_network(root, repeats)
    return root


def copy(written, folder):
    return shutil.copytree(written, folder / "a run")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns a whole work directory, to be copied."""
    return write_run(tmp_path_factory.mktemp("written"))


@pytest.fixture
def root(written, tmp_path):
    return copy(written, tmp_path)


@pytest.fixture(scope="module")
def reported(written, tmp_path_factory):
    """Returns the folder of a report, and its result."""
    root = copy(written, tmp_path_factory.mktemp("reported"))
    return root / "report", run(root)


def run(root, config=None):
    return report.run_report(
        config or config_of(), workdir=root, output_dir=root / "report"
    )


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced, and keeps text, tags and attributes."""

    def __init__(self, file):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.source = file.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def count(self, tag, class_name=None):
        return sum(
            found == tag
            and (
                class_name is None
                or class_name in attributes.get("class", "").split()
            )
            for found, attributes in self.tags
        )


@pytest.fixture(scope="module")
def page(reported):
    return Page(reported[0] / report.PAGE)


def test_result_names_the_files_and_the_figures(reported):
    folder, result = reported
    assert result == {
        "page": "report.html",
        "drawings": ["normal.svg", "normal.png", "reduce.svg", "reduce.png"],
        "parameters": 271828,
        "mean": 0.46399999999999997,
        "standard_deviation": 0.011313708498984772,
        "images": 500,
    }
    for name in result["drawings"]:
        content = (folder / name).read_bytes()
        if name.endswith("png"):
            assert content.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")


@pytest.mark.parametrize("price", [0.0, 36.0])
def test_time_is_totalled_and_priced(tmp_path, price):
    write_run(tmp_path)
    config = config_of(hourly_price=price)
    text = report.render(config, report.read_records(config, tmp_path))
    section = text[text.index('id="time"') :].partition("</section>")[0]
    # Two searches of 102.5 s, candidates of 40 s and trainings of 108 s.
    for figure in ("0.06", "0.02", "0.14"):
        assert f"{figure}</td>" in section
    for money in ("2.05", "0.80", "2.16", "5.01"):
        assert (f"{money}</td>" in section) == bool(price)


def test_a_price_may_be_given_later(tmp_path):
    write_run(tmp_path)
    run(tmp_path)
    page = tmp_path / "report" / report.PAGE
    assert "Price" not in page.read_text("utf-8")
    run(tmp_path, config_of(hourly_price=36.0))
    assert "5.01</td>" in page.read_text("utf-8")
    run(tmp_path)
    assert "Price" not in page.read_text("utf-8")


def test_top_5_accuracies_are_told_where_there_are_some(tmp_path):
    write_run(tmp_path)
    records = report.read_records(config_of(), tmp_path)
    assert "five most probable" not in report.render(config_of(), records)
    records.evaluation["top_5_accuracies"] = [0.901, 0.912]
    page = report.render(config_of(), records)
    assert "five most probable classes: 90.10 %, 91.20 %." in page


def test_page_holds_the_figures_of_the_run(page):
    for figure in (
        "46.40 \u00b1 1.13 %",
        "500 images, 2 trainings",
        "271,828",
        "314,159",
        "45.60 %",
        "47.20 %",
        "1.5123",
        "38.27 %",
        "40.13 %",
        "61,234",
        "71,235",
        "1 min 48 s",
        "\u00b1 10.16 % with 95 %",
        "halves of 750",
        "486,244,480",
        "83.6 MB",
        "3.1 ms, from 2.7 to 12.2",
        "1,234.6 ms, from 1,000.0 to 2,000.0",
        "0.4914, 0.4822, 0.4465",
    ):
        assert figure in page.text, figure


def test_page_says_which_candidate_was_chosen_and_why(page):
    assert "Chosen: seed 5, the highest <validation> accuracy" in page.text
    rows = re.findall(r"<tr><th scope=\"row\">seed.*?</tr>", page.source)
    assert ["chosen" in row for row in rows] == [False, True]


def test_page_escapes_what_others_wrote(page):
    assert "<b>" not in page.source
    assert "<i>" not in page.source
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; &quot;quoted&quot;" in page.source
    assert CLASSES[1] in page.text
    assert "Att-DARTS on toys <i>" in page.text


def test_page_loads_nothing(page):
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "image"}
    for _, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "srcset"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in attributes.get("style", "")
    assert not re.search(r"url\(|@import", page.source)


def test_page_shows_cells_curves_and_weights(page):
    assert page.count("figure", "paper") == 2
    assert "Reduction cell" in page.text
    # Loss and accuracy, of the searches and of the trainings.
    assert page.count("svg", "chart") == 4
    # A line a seed and half, or a repeat.
    assert page.count("polyline") == 2 * (4 + 2)
    assert page.count("table", "heat") == 4
    assert page.count("td", "best") == 4 * search_space.num_edges()


def test_weights_are_those_of_the_last_epoch_of_the_chosen_seed(page):
    logits = [1.6 * math.sin(5 + 1.7 * j) for j in range(8)]
    total = sum(map(math.exp, logits))
    shown = "</td>.*?".join(
        f">{100 * math.exp(value) / total:.1f}" for value in logits
    )
    assert re.search(shown, page.source)


def test_page_shows_the_configuration_and_the_lineage(page):
    assert "search.architecture_betas" in page.text
    assert "0.5, 0.999" in page.text
    for folder in ("data", "search/seed-5", "training/repeat-1", "export"):
        assert f"<code>{folder}</code>" in page.source
    assert f'title="{"c" * 64}">{"c" * 16}</code>' in page.source
    assert "tensorflow" in page.text
    assert "att-darts lineage export/att_darts/1" in page.text


def test_page_says_how_to_use_the_model(page):
    assert COMMAND in page.text
    assert "saved_model_cli show --dir export/att_darts/1 --all" in page.text
    assert "(batch, 32, 32, 3)" in page.text


def test_page_does_not_depend_on_time_or_place(tmp_path):
    pages = []
    written = write_run(tmp_path / "written", searched=False)
    for name in ("one", "other"):
        root = shutil.copytree(written, tmp_path / name)
        run(root, config_of(network={"cell": "att_darts"}))
        pages.append((root / "report" / report.PAGE).read_bytes())
    assert pages[0] == pages[1]
    assert str(tmp_path).encode() not in pages[0]


def test_given_cells_need_no_search(tmp_path):
    root = write_run(tmp_path / "run", searched=False)
    run(root, config_of(network={"cell": "darts_v2"}))
    page = Page(root / "report" / report.PAGE)
    assert "given, not searched" in page.text
    assert published.source("darts_v2") in page.text
    assert page.count("svg", "chart") == 2
    assert page.count("table", "heat") == 0


def test_a_network_without_cells_has_no_drawings(tmp_path):
    root = write_run(tmp_path / "run", searched=False)
    result = run(root, config_of(network={"cell": "densenet_bc"}))
    assert result["drawings"] == []
    page = Page(root / "report" / report.PAGE)
    assert "A network without cells: densenet_bc." in page.text
    assert published.source("densenet_bc") in page.text
    assert page.count("figure", "paper") == 0
    assert not list((root / "report").glob("*.svg"))


def test_given_cells_may_be_a_file(tmp_path):
    root = write_run(tmp_path / "run", searched=False)
    CELLS.write(tmp_path / "<cells>.json")
    file = str(tmp_path / "<cells>.json")
    run(root, config_of(network={"cell": file}))
    page = Page(root / "report" / report.PAGE)
    assert "Cells <cells>.json given, not searched" in page.text
    assert file in page.text


@pytest.mark.parametrize("location", search_space.SEARCH_SPACES)
def test_every_location_has_its_weights(written, tmp_path, location):
    root = copy(written, tmp_path)
    for seed in (3, 5):
        shutil.rmtree(root / f"search/seed-{seed}")
        write_search(root / f"search/seed-{seed}", seed, location, epochs=1)
    records = report.read_records(config_of(), root)
    shapes = search_space.get(location).architecture_shapes()
    text = report.render(config_of(), records)
    assert text.count('class="heat"') == len(shapes)


def test_single_training_has_no_spread(tmp_path):
    root = write_run(tmp_path / "run", repeats=1)
    result = run(root, config_of(repeats=1))
    page = Page(root / "report" / report.PAGE)
    assert result["standard_deviation"] == 0.0
    assert "45.60 % 500 images, 1 training " in page.text
    assert "spread is unknown" in page.text
    assert "\u00b1" not in page.text


def test_finished_report_is_returned_at_once(reported, monkeypatch):
    folder, result = reported

    def fail(*arguments):
        raise AssertionError("nothing was to be drawn")

    monkeypatch.setattr(report, "render", fail)
    assert run(folder.parent) == result


def test_removed_drawing_is_drawn_again(root):
    run(root)
    (root / "report/reduce.png").unlink()
    run(root)
    assert (root / "report/reduce.png").exists()


def test_missing_lineage_is_not_needed(root):
    for file in root.rglob("lineage.json"):
        file.unlink()
    run(root)
    page = Page(root / "report" / report.PAGE)
    assert "No stage has left a record" in page.text


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/dataset.json", "prepare"),
        ("search/seed-5/result.json", "search"),
        ("search/seed-5/architecture.json", "search"),
        ("search/seed-3/history.json", "search"),
        ("selection/result.json", "select"),
        ("selection/genotype.json", "select"),
        ("training/repeat-1/result.json", "train"),
        ("evaluation/result.json", "evaluate"),
        ("export/result.json", "export"),
    ],
)
def test_missing_stage_is_named_with_its_command(root, name, stage):
    (root / name).unlink()
    with pytest.raises(UsageError) as raised:
        run(root)
    message = str(raised.value)
    assert str(root / name) in message
    assert f"att-darts {stage} --config=... --workdir='{root}'" in message
    assert "\n" not in message
    assert not (root / "report").exists()


def change(file, field, value):
    record = json.loads(file.read_text("utf-8"))
    *path, last = field
    inner = record
    for key in path:
        inner = inner[key]
    inner[last] = value
    file.write_text(json.dumps(record), "utf-8")


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("evaluation/result.json", ["mean"], "high", "`mean`"),
        ("evaluation/result.json", ["mean"], math.nan, "`mean`"),
        ("evaluation/result.json", ["mean"], -math.inf, "`mean`"),
        ("evaluation/result.json", ["mean"], 10**400, "`mean`"),
        ("evaluation/result.json", ["accuracies"], [0.5], "2 numbers"),
        ("evaluation/result.json", ["images"], True, "`images`"),
        ("selection/result.json", ["chosen"], 2, "one of 2"),
        ("selection/result.json", ["candidates", 0, "seed"], 4, "seeds (3, 5)"),
        (
            "training/repeat-0/history.json",
            ["epochs", 2, "loss"],
            None,
            "`epochs[2].loss`",
        ),
        ("training/repeat-0/history.json", ["epochs"], [], "one epoch"),
        ("training/repeat-0/history.json", ["format"], 9, "format 9"),
        (
            "search/seed-5/architecture.json",
            ["epochs", 4, "architecture", "betas_reduce", 3],
            [0.0],
            "betas_reduce",
        ),
        (
            "search/seed-5/architecture.json",
            ["epochs", 4, "architecture", "alphas_normal"],
            None,
            "alphas_normal",
        ),
        ("search/seed-5/architecture.json", ["location"], "top", "'top'"),
        ("data/dataset.json", ["image_shape"], [32], "`image_shape`"),
        (
            "data/dataset.json",
            ["splits", "test", "examples_per_class"],
            [1],
            "3 numbers",
        ),
        ("data/lineage.json", ["packages"], [], "`packages`"),
        (
            "export/result.json",
            ["latencies", 1, "median"],
            "fast",
            "`latencies[1].median`",
        ),
        (
            "export/result.json",
            ["cost", "multiply_adds"],
            1.5,
            "`cost.multiply_adds`",
        ),
    ],
)
def test_broken_record_is_named_with_its_field(root, name, field, value, words):
    change(root / name, field, value)
    with pytest.raises(UsageError) as raised:
        run(root)
    assert words in str(raised.value)
    if words != "'top'":
        assert str(root / name) in str(raised.value)


def test_text_that_is_no_json_is_named(root):
    (root / "evaluation/result.json").write_text("{")
    with pytest.raises(UsageError, match="JSON in .*evaluation/result.json"):
        run(root)


def test_report_of_other_records_is_written_again(root):
    assert run(root)["mean"] == pytest.approx(0.464)
    change(root / "evaluation/result.json", ["mean"], 0.5)
    assert run(root)["mean"] == 0.5


class TestComparison:
    @pytest.fixture
    def config(self):
        config = config_of()
        config.pipeline.update(
            baselines=("random", "no_attention"), targets=("cifar:cifar100",)
        )
        return config

    @pytest.fixture
    def compared(self, root, config):
        """A run whose baselines and target have the figures of its own."""
        for branch in branches.of(config):
            place = root / branch.name
            write_network(place, 2)
            if branch.is_target:
                write_data(place / "data")
                continue
            write_selection(place / "selection", root)
            if not branch.is_random:
                for seed in (3, 5):
                    write_search(place / f"search/seed-{seed}", seed, "end")
        return root

    def figures(self, root, config, name, accuracies):
        evaluation = root / name / "evaluation/result.json"
        change(evaluation, ["accuracies"], accuracies)
        change(evaluation, ["mean"], sum(accuracies) / 2)
        change(evaluation, ["half_width_95"], 0.25)

    def test_shows_intervals_and_the_difference(self, compared, config):
        self.figures(compared, config, "baselines/random", [0.40, 0.41])
        run(compared, config)
        page = Page(compared / "report" / report.PAGE)
        section = page.text[page.text.index("With other cells") :]
        # Of 2 and 2 with deviations 0.00707 and 0.01131: Welch's degrees of
        # freedom are 1.68, of which the quantile is 5.20 (by integration of
        # the density), the error of the difference 0.00943.
        assert "cells drawn at random 40.50 \u00b1 25.00 % 271,828 2" in section
        assert "-5.90 \u00b1 4.91" in section
        assert "search without attention 46.40 \u00b1 10.16 %" in section
        assert "+0.00 \u00b1" in section
        assert "toys <i> cifar:cifar100 46.40 \u00b1 10.16 %" in section

    def test_of_a_single_training_says_that_the_spread_is_unknown(
        self, tmp_path
    ):
        config = config_of(repeats=1)
        config.pipeline.baselines = ("random",)
        write_run(tmp_path, repeats=1)
        write_network(tmp_path / "baselines/random", 1)
        write_selection(tmp_path / "baselines/random/selection", tmp_path)
        run(tmp_path, config)
        page = Page(tmp_path / "report" / report.PAGE)
        assert "unknown" in page.text
        assert "A single training tells no spread" in page.text

    def test_counts_the_time_of_all_of_a_branch(self, compared, config):
        records = report.read_records(config, compared)
        own = sum(map(sum, report._runs(records).values()))
        seconds = {each.branch.name: each.seconds for each in records.compared}
        assert seconds["baselines/no_attention"] == own
        searched = sum(each.result["seconds"] for each in records.searches)
        assert seconds["baselines/random"] == own - searched
        trained = sum(each.result["seconds"] for each in records.trainings)
        assert seconds["targets/cifar-cifar100"] == trained

    def test_branch_that_has_not_run_is_asked_for(self, compared, config):
        file = compared / "baselines/random/evaluation/result.json"
        file.unlink()
        with pytest.raises(UsageError, match="att-darts pipeline") as caught:
            run(compared, config)
        assert str(file) in str(caught.value)

    def test_run_without_branches_has_no_comparison(self, page):
        assert "With other cells" not in page.text
        assert page.count("section") == 10


class TestGenerations:
    """A page is of results that belong together."""

    def test_evaluation_of_other_networks_is_refused(self, root):
        file = root / "training/repeat-1/model.keras"
        file.write_text("a network")
        with pytest.raises(UsageError, match="evaluate --replace") as caught:
            run(root)
        assert str(file) in str(caught.value)
        identity = root / "evaluation/identity.json"
        change(identity, ["inputs", "model_1"], workdir.digest(file))
        run(root)

    def test_selection_among_other_cells_is_refused(self, root):
        cells = root / "search/seed-5/genotype.json"
        run(root)
        published.get("darts_v2").write(cells)
        with pytest.raises(UsageError, match="select --replace"):
            run(root)

    def test_baseline_of_another_recipe_is_refused(self, tmp_path):
        config = config_of(repeats=1)
        config.pipeline.baselines = ("random",)
        write_run(tmp_path, repeats=1)
        write_network(tmp_path / "baselines/random", 1)
        write_selection(tmp_path / "baselines/random/selection", tmp_path)
        identity = tmp_path / "baselines/random/training/repeat-0/identity.json"
        change(identity, ["config", "network"], {"cell": "a", "epochs": 5})
        with pytest.raises(UsageError, match="pipeline --replace"):
            run(tmp_path, config)
        own = tmp_path / "training/repeat-0/identity.json"
        change(own, ["config", "network"], {"cell": "", "epochs": 5})
        run(tmp_path, config)


def test_accuracy_that_is_too_low_to_serve_is_told(root):
    config = config_of()
    config.export.least_accuracy = 0.75
    shutil.rmtree(root / "export")
    run(root, config)
    page = Page(root / "report" / report.PAGE)
    assert "Nothing was exported: the test accuracy is below 75.00 %" in (
        page.text
    )
    assert "att-darts lineage evaluation" in page.text


def test_names_that_are_no_text_do_not_stop_it():
    assert report.element("p", "a\udcff") == "<p>a?</p>"


@pytest.mark.parametrize(
    ("first", "last", "options", "expected"),
    [
        (0.0, 1.0, {}, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 5, {"whole": True}, [1, 2, 3, 4, 5]),
        (1, 2, {"whole": True}, [1, 2]),
        (1, 1, {"whole": True}, [1]),
        (1, 600, {"whole": True}, [200, 400, 600]),
        (0.31, 0.92, {"outside": True}, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (2.0, 2.0, {"outside": True}, [2.0, 2.05]),
        (0.0, 0.0, {"outside": True}, [0.0, 0.2]),
    ],
)
def test_ticks_are_round_and_cover_the_range(first, last, options, expected):
    assert report._ticks(first, last, **options) == pytest.approx(expected)


def test_chart_of_one_epoch_or_equal_values_is_drawn():
    for points in ([(1, 2.0)], [(1, 2.0), (2, 2.0)]):
        drawn = report.chart("t", "u", [report.Series("s", points, 0)])
        assert "nan" not in drawn
        assert drawn.count("<circle") == len(points)


def test_formats_are_those_of_the_writers():
    for file, name in (
        ("data/prepared.py", "FORMAT"),
        ("engine/training.py", "HISTORY_FORMAT"),
        ("search/run.py", "ARCHITECTURE_FORMAT"),
    ):
        tree = ast.parse((LIBRARY / file).read_text("utf-8"))
        (value,) = [
            node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == name
        ]
        ours = "DATA_FORMAT" if name == "FORMAT" else name
        assert getattr(report, ours) == value


def test_report_needs_no_framework():
    program = (
        "import sys; import att_darts_tf.report; "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "set()"
