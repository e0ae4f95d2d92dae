"""Ranges as a configuration says them, and which ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_darts_tf import ranges, settings
from att_darts_tf.data import preprocess
from att_darts_tf.errors import UsageError


def configured(*space, **changes):
    config = settings.load("base").unlock()
    config.tune.space = space
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("network.momentum=linear(0.5,0.9)", "linear", (0.5, 0.9)),
        ("network.momentum = linear( 0, 0.9 )", "linear", (0, 0.9)),
        ("network.cells=log(4,20)", "log", (4, 20)),
        ("x=linear(-1,-0.5)", "linear", (-1, -0.5)),
        ("x=choice(first,second)", "choice", ("first", "second")),
        ("x=choice('a,b',\"c\")", "choice", ("a,b", "c")),
        ("x=choice(true,False)", "choice", (True, False)),
        ("x=choice((0.5,0.9),(0.1,1))", "choice", ((0.5, 0.9), (0.1, 1))),
    ],
)
def test_texts_say_ranges(text, kind, values):
    name = text.partition("=")[0].strip()
    assert ranges.parse(text) == ranges.Range(name, kind, values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x=",
        "x=3",
        "x=uniform(1,2)",
        "x=linear(low=1,high=2)",
        "x=linear(1,2",
        "x=a.linear(1,2)",
        "x=choice([1],[2])",
        "x=choice(*(1,2))",
        "x=choice(1+1,f(2))",
        "x=choice((1,[2]),3)",
        "x=" + "(" * 500,
        "x=linear(1,2);print(1)",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match="NAME=log"):
        ranges.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=choice(1)", "two or more different"),
        ("x=choice(1,1)", "two or more different"),
        ("x=linear(2,1)", "the smaller one first"),
        ("x=linear(1,1)", "the smaller one first"),
        ("x=linear(1,2,3)", "two finite numbers"),
        ("x=linear(first,second)", "two finite numbers"),
        ("x=linear(true,2)", "two finite numbers"),
        ("x=linear(0,1e999)", "two finite numbers"),
        ("x=linear(0," + "9" * 400 + ")", "two finite numbers"),
        ("x=log(0,1)", "numbers above 0"),
    ],
)
def test_ranges_of_no_values_are_refused(text, expected):
    with pytest.raises(UsageError, match=expected):
        ranges.parse(text)


@given(st.text(alphabet="x=(),.'1a [{-\\n"))
def test_no_text_ends_otherwise(text):
    for each in ranges.split(text):
        try:
            ranges.parse(each)
        except UsageError:
            pass


@given(st.lists(st.sampled_from(["a", "b(1,2)", "c((1,2),3)", "d()"])))
def test_split_undoes_a_join(texts):
    assert ranges.split(",".join(texts)) == tuple(texts)


def test_ranges_have_the_type_of_the_setting():
    (found,) = settings.tuned_ranges(
        configured("network.weight_decay=linear(0,1)")
    )
    assert list(map(type, found.values)) == [float, float]
    (found,) = settings.tuned_ranges(configured("network.cells=linear(3,9)"))
    assert list(map(type, found.values)) == [int, int]


@pytest.mark.parametrize("stage", ["train", "search"])
def test_every_setting_of_the_recipe_can_be_tuned(stage):
    section = {"train": "network", "search": "search"}[stage]
    left_out = {"cell", "pretrained", "frozen", "seeds", "epochs"}
    fields = set(configured()[section]) - left_out
    assert len(fields) > 10
    names = settings._tunable(configured(**{"tune.stage": stage}))
    assert {f"{section}.{field}" for field in fields} <= set(names)
    assert not {f"{section}.{field}" for field in left_out} & set(names)


def test_images_are_changed_by_what_training_does_to_them_alone():
    used = {name: set(each) for name, each in preprocess._TRAINING.items()}
    assert used == {n: set(each) for n, each in settings.TUNED_DATA.items()}


@pytest.mark.parametrize(
    ("space", "changes", "expected"),
    [
        (("network.rate=log(1,2)",), {}, "Unknown setting.*network.rate"),
        (("network.cell=choice(a,b)",), {}, "Unknown setting"),
        (("search.cells=linear(3,9)",), {}, "Unknown setting"),
        (("data.image_size=choice((8,8),(9,9))",), {}, "Unknown setting"),
        (("engine.jit=choice(true,false)",), {}, "Unknown setting"),
        (("network.cells=linear(2,9)",), {}, "cells=2: config.network.cells"),
        (("network.cells=linear(3,9.5)",), {}, "as 20"),
        (("network.schedule=choice(cosine,step)",), {}, "schedule=step"),
        (("network.momentum=linear(0,1)",), {}, "momentum=1.0"),
        (
            ("network.cells=linear(3,9)", "network.cells=choice(3,4)"),
            {},
            "once",
        ),
        (("network.epochs=linear(1,9)",), {}, "Unknown setting"),
        (
            ("data.crop_area=choice((0.1,1.0),(0.2,1.0))",),
            {},
            "Unknown setting",
        ),
        (
            ("network.channels=choice(16,36)",),
            {"network.pretrained": "model.keras"},
            "Unknown setting",
        ),
        (
            ("network.cutout=choice(0,8)",),
            {
                "data.augmentation": "resized_crop",
                "network.cutout": 0,
                "selection.cutout": 0,
            },
            "cutout=8: Expected",
        ),
        (
            ("space.location=choice(end,merged)",),
            {"tune.stage": "search", "pipeline.baselines": ("random",)},
            "Leave one out",
        ),
        (
            ("search.cells=linear(3,9)",),
            {"tune.stage": "search", "network.cell": "att_darts"},
            "cells to search for",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything(space, changes, expected):
    with pytest.raises(UsageError, match=expected) as caught:
        settings.validate(configured(*space, **changes))
    assert "\n" not in str(caught.value)


def test_grid_is_refused_with_the_reason():
    config = configured(**{"tune.method": "grid"})
    with pytest.raises(UsageError, match="no grid, as KerasTuner cannot"):
        settings.validate(config)
