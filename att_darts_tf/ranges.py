"""Ranges of settings that a tuning draws from, as a configuration says them.

Nothing here imports TensorFlow or KerasTuner.
"""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from att_darts_tf.errors import UsageError

KINDS = ("linear", "log", "choice")
_NAMES = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that one setting may take.

    Attributes:
        name: String. The setting, as `"network.learning_rate"`.
        kind: String, one of `KINDS`. Of "linear" all values between two are as
            probable, of "log" all ratios.
        values: Tuple. The lowest and the highest one, or all of a choice.
    """

    name: str
    kind: str
    values: tuple

    def of_type(self, default: Any) -> "Range":
        """Returns the range with values of a setting's type.

        Args:
            default: A value of the setting.
        """
        kind = type(default)
        values = self.values
        if kind is float:
            values = tuple(
                float(value) if type(value) is int else value
                for value in values
            )
        wrong = [value for value in values if type(value) is not kind]
        if wrong:
            raise UsageError(
                f"Expected values of config.{self.name} as {default!r} in "
                f"config.tune.space. Received: {wrong[0]!r}. Give others"
            )
        return Range(self.name, self.kind, values)


def parse(text: str) -> Range:
    """Returns the range that a text says.

    Args:
        text: String, `NAME=linear(LOW,HIGH)`, `NAME=log(LOW,HIGH)` or
            `NAME=choice(ONE,OTHER,...)`.

    Example:

    >>> parse("network.learning_rate=log(0.001,0.1)").values
    (0.001, 0.1)
    >>> parse("search.order=choice(first,second)").values
    ('first', 'second')
    """
    name, _, rest = text.partition("=")
    try:
        call = ast.parse(rest.strip(), mode="eval").body
        if call.func.id not in KINDS or call.keywords:
            raise ValueError(rest)
        kind, values = call.func.id, tuple(map(_value, call.args))
    # What is no call of a name lacks something; nesting has limits.
    except (
        SyntaxError,
        ValueError,
        AttributeError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UsageError(
            "Expected config.tune.space of NAME=linear(LOW,HIGH), NAME=log(LOW,"
            f"HIGH) and NAME=choice(ONE,OTHER,...). Received: {text[:200]!r}. "
            "Write it as network.learning_rate=log(0.001,0.1)"
        ) from error
    found = Range(name.strip(), kind, values)
    if kind == "choice":
        if len(values) < 2 or len(set(values)) < len(values):
            raise _wrong(found, "two or more different values")
    elif not _is_ascending(values):
        raise _wrong(found, "two finite numbers, the smaller one first")
    elif kind == "log" and values[0] <= 0:
        raise _wrong(found, "numbers above 0")
    return found


def split(text: str) -> tuple[str, ...]:
    """Returns texts that commas part, but for the commas in parentheses.

    Example:

    >>> split("a=choice((1,2),(3,4)),b=log(1,2)")
    ('a=choice((1,2),(3,4))', 'b=log(1,2)')
    """
    texts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            texts.append("")
        else:
            texts[-1] += character
    return tuple(filter(None, texts))


def told(values: Mapping[str, Any]) -> str:
    """Returns settings and their values for people, in one line.

    Example:

    >>> told({"network.learning_rate": 0.0123456, "network.cells": 5})
    'network.learning_rate=0.01235 network.cells=5'
    """
    return " ".join(f"{name}={shown(each)}" for name, each in values.items())


def shown(value: Any) -> str:
    """Returns a value of a setting, to as many digits as people read."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(node):
    if isinstance(node, ast.Name):
        return _NAMES.get(node.id, node.id)
    value = ast.literal_eval(node)
    hash(value)
    return value


def _is_ascending(values):
    return (
        len(values) == 2
        and all(type(value) in (int, float) for value in values)
        # As KerasTuner passes them on.
        and all(-(2**63) < value < 2**63 for value in values)
        and values[0] < values[1]
    )


def _wrong(found, expected):
    return UsageError(
        f"Expected {expected} in the {found.kind} of config.{found.name} in "
        f"config.tune.space. Received: {found.values!r}. Give others"
    )
