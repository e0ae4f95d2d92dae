"""How long something takes: told beforehand, and in words.

Nothing here imports TensorFlow.
"""

import time

# Steps that a pace is of at least, and how long they take at least, unless
# they are a tenth of the work.
_STEPS, _SECONDS, _PART = 3, 2.0, 10


class Forecast:
    """Says once how long work is going to take, by the pace of its beginning.

    Args:
        label: String. What is being done, as `"training, seed 0"`.
        steps: Integer. Steps of the work, those of earlier processes aside.
        unit: String. What a step is, in the plural.
        alike: Integer. How often as much work as a whole one comes after it.
        whole: Integer. Steps of a whole one; `steps` if not given.
        show: Called with the line.
    """

    def __init__(
        self, label, *, steps, unit, alike=0, whole=None, show=None
    ):
        self.label = label
        self.steps = steps
        self.unit = unit
        self.alike = alike
        self.whole = whole or steps
        self.show = show or _print
        self.timed = -1
        self.told = False
        self.begun = self.first = time.monotonic()

    def step(self):
        """Is to be called after every step."""
        if self.told:
            return
        now = time.monotonic()
        self.timed += 1
        if self.timed == 0:
            # The first step holds what is done once, as tracing.
            self.first = now
        seconds, last = now - self.first, self.timed + 1 == self.steps
        enough = seconds >= _SECONDS or self.timed * _PART >= self.steps
        if last or (self.timed >= _STEPS and enough):
            self.told = True
            if self.alike or not last:
                self._tell(seconds / max(self.timed, 1))

    def _tell(self, pace):
        once = self.first - self.begun
        needed = once + (self.steps - 1) * pace
        text = f"{self.label}: takes about {duration(needed)}"
        if self.alike:
            more = self.alike * (once + (self.whole - 1) * pace)
            text += f", {duration(needed + more)} with {self.alike} more"
        self.show(
            f"{text}, by {max(self.timed, 1):,} of {self.steps:,} {self.unit}"
        )


def duration(seconds: float) -> str:
    """Returns a time as people say it.

    Example:

    >>> duration(42), duration(7500)
    ('42 s', '2 h 05 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _print(line):
    print(line, flush=True)
