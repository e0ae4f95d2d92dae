import types

import pytest

from att_darts_tf import durations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert durations.duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    """Returns what stands still until a test moves its `now`."""
    time = types.SimpleNamespace(now=0.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(durations, "time", time)
    return time


def forecast(clock, seconds, **options):
    """Returns the lines of a forecast whose steps take given seconds."""
    lines = []
    said = durations.Forecast(
        "search", unit="steps", show=lines.append, **options
    )
    for each in seconds:
        clock.now += each
        said.step()
    return lines


def test_what_is_expected_is_told_once_and_before_the_end(clock):
    # A first step of 30 s, and 99 of 2 s.
    lines = forecast(clock, [30, 2, 2], steps=100)
    assert lines == []
    lines = forecast(clock, [30, 2, 2, 2, 5, 5], steps=100)
    assert lines == ["search: takes about 3 min 48 s, by 3 of 100 steps"]


def test_short_steps_are_looked_at_for_two_seconds(clock):
    pace = [1.0] + [0.125] * 20
    (line,) = forecast(clock, pace, steps=1000)
    # 1 s and 999 steps of 0.125 s.
    assert line == "search: takes about 2 min 06 s, by 16 of 1,000 steps"


def test_little_work_is_told_after_a_tenth(clock):
    (line,) = forecast(clock, [1.0] + [0.01] * 6, steps=50)
    assert line == "search: takes about 1 s, by 5 of 50 steps"


def test_work_alike_that_is_to_come_is_told_too(clock):
    # Of this one 20 steps are left after a resume; two others have 100.
    (line,) = forecast(
        clock, [10, 1, 1, 1], steps=20, whole=100, alike=2
    )
    assert line == (
        "search: takes about 29 s, 4 min 07 s with 2 more, by 3 of 20 steps"
    )


@pytest.mark.parametrize(
    ("steps", "alike", "expected"),
    [
        (1, 0, []),
        (1, 2, ["search: takes about 4 s, 12 s with 2 more, by 1 of 1 steps"]),
        (2, 0, []),
        (2, 1, ["search: takes about 8 s, 16 s with 1 more, by 1 of 2 steps"]),
        (3, 0, []),
        (4, 0, []),
        (4, 1, ["search: takes about 16 s, 32 s with 1 more, by 3 of 4 steps"]),
        (5, 0, ["search: takes about 20 s, by 3 of 5 steps"]),
    ],
)
def test_the_least_work_is_told_if_any_is_left(clock, steps, alike, expected):
    seconds = [4.0] * steps
    assert forecast(clock, seconds, steps=steps, alike=alike) == expected
