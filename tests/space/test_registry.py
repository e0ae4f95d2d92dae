import pytest

from att_darts_tf.errors import UsageError
from att_darts_tf.space import registry


def fruits():
    fruit = registry.Registry("fruit")

    @fruit.register("pear")
    class Pear:
        def __init__(self, weight=1):
            self.weight = weight

    @fruit.register("Apple")
    class Apple:
        pass

    return fruit


def test_names_keep_the_order_of_registration():
    assert fruits().names() == ("pear", "Apple")


def test_creates_what_was_registered_with_the_arguments():
    assert fruits().create("pear", weight=3).weight == 3


def test_tells_whether_a_name_is_there():
    assert "pear" in fruits()
    assert "plum" not in fruits()


@pytest.mark.parametrize("name", ["aple", "apple", "APPLE"])
def test_unknown_name_lists_the_choices_and_the_closest(name):
    with pytest.raises(UsageError) as caught:
        fruits().create(name)
    assert str(caught.value) == (
        f"Unknown fruit. Expected one of pear, Apple. Received: {name!r}. "
        "Did you mean 'Apple'?"
    )


@pytest.mark.parametrize("name", [None, ["pear"], {}, 3, "x" * 10**6, ""])
def test_anything_else_is_an_unknown_name_in_one_short_line(name):
    with pytest.raises(UsageError) as caught:
        fruits().create(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_definition_that_runs_again_is_replaced_in_place():
    fruit = registry.Registry("fruit")
    for weight in (1, 2):

        @fruit.register("pear")
        class Pear:
            value = weight

        fruit.register("plum")(dict)
    assert fruit.names() == ("pear", "plum")
    assert fruit.create("pear").value == 2


def test_two_definitions_of_one_name_are_refused():
    fruit = registry.Registry("fruit")
    fruit.register("pear")(dict)
    with pytest.raises(ValueError, match="'pear' is registered already"):
        fruit.register("pear")(list)


@pytest.mark.parametrize("name", ["", None, dict])
def test_a_name_must_be_a_string(name):
    with pytest.raises(ValueError, match="must be a string"):
        registry.Registry("fruit").register(name)


def test_shortens_whatever_is_large_or_deep():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "a\n" * 10**6, list(range(10**6)), {"k": "v" * 999}):
        text = registry.shorten(value)
        assert len(text) <= 100
        assert "\n" not in text
    assert registry.shorten("short") == "'short'"


def test_a_number_that_python_does_not_write_is_shortened():
    assert registry.shorten(16**9_000) == "int that is too long to write"
    assert "too long" in registry.shorten([16**9_000])
