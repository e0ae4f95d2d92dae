"""Names, and what they stand for."""

import difflib
import reprlib

from att_darts_tf.errors import UsageError

# A longer "name" is a mistake of another kind; comparing it only takes time.
_LONGEST_COMPARED = 80


def shorten(value, limit=100):
    """Returns `repr(value)` cut to `limit` characters, always one line."""
    # Does not descend into what is cut anyway, however deep or large.
    representation = reprlib.Repr()
    representation.maxlist = representation.maxtuple = limit
    representation.maxstring = limit
    try:
        text = representation.repr(value)
    except ValueError:
        # Python writes no integer of more than 4,300 digits.
        text = f"{type(value).__name__} that is too long to write"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def unknown_name(kind, names, received):
    """Returns the error for a name that is not there.

    Args:
        kind: String. What the name should stand for, such as "operation".
        names: Sequence of strings, the choices in order.
        received: What was given instead.

    Returns:
        A `UsageError` that lists the choices, the closest one first.
    """
    hint = ""
    if isinstance(received, str) and len(received) <= _LONGEST_COMPARED:
        by_lower = {name.lower(): name for name in names}
        close = difflib.get_close_matches(received.lower(), by_lower, n=1)
        if close:
            hint = f" Did you mean {by_lower[close[0]]!r}?"
    return UsageError(
        f"Unknown {kind}. Expected one of {', '.join(names)}. "
        f"Received: {shorten(received)}.{hint}"
    )


class Registry:
    """An ordered mapping from the names used in genotypes to layer classes.

    Column `i` of an architecture parameter scores the `i`-th registered name,
    so the order of registration is a contract.

    Args:
        kind: String. What is registered, as error messages call it.

    Example:

    >>> attentions = Registry("attention")
    >>> @attentions.register("twice")
    ... class Twice:
    ...     def __init__(self, ratio=2):
    ...         self.ratio = ratio
    >>> attentions.names()
    ('twice',)
    >>> attentions.create("twice", ratio=8).ratio
    8
    """

    def __init__(self, kind):
        self.kind = kind
        self._factories = {}

    def __contains__(self, name):
        return name in self._factories

    def register(self, name):
        """Returns a decorator that registers a class or function as `name`.

        Running a definition again (a notebook's cell) replaces it in place;
        another definition with the same name is an error.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"The name of an {self.kind} must be a string with at least "
                f"one character. Received: {name!r}"
            )

        def decorate(factory):
            known = self._factories.get(name)
            if known is not None and _origin(known) != _origin(factory):
                raise ValueError(
                    f"{self.kind} {name!r} is registered already, as {known}. "
                    f"Choose another name for {factory}."
                )
            self._factories[name] = factory
            return factory

        return decorate

    def names(self):
        """Returns the registered names, in the order of the columns."""
        return tuple(self._factories)

    def create(self, name, /, **kwargs):
        """Returns a new layer.

        Args:
            name: String, one of `names()`.
            **kwargs: Passed to what was registered.
        """
        if not isinstance(name, str) or name not in self._factories:
            raise unknown_name(self.kind, self.names(), name)
        return self._factories[name](**kwargs)


def _origin(factory):
    return factory.__module__, factory.__qualname__
