import io

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf import durations
from att_darts_tf.engine import callbacks
from att_darts_tf.errors import UsageError
from tests.engine import toy


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """A clock that moves by a second whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(callbacks, "time", Clock())


def run(progress, *, epochs=2, steps=4, first=(0, 0)):
    """Plays a training of given lengths to a callback."""
    progress.set_params({"epochs": epochs, "steps": steps})
    logs = {"loss": 1.5, "accuracy": 0.25, "learning_rate": 0.1}
    for epoch in range(first[0], epochs):
        progress.on_epoch_begin(epoch)
        begin = first[1] if epoch == first[0] else 0
        for batch in range(begin, steps):
            progress.on_train_batch_begin(batch)
            progress.on_train_batch_end(batch, logs)
        progress.on_epoch_end(epoch, logs)


@pytest.mark.usefixtures("clock")
def test_log_gets_plain_lines_with_the_time_left():
    stream = io.StringIO()
    run(callbacks.Progress("search", interval=3.0, stream=stream))
    assert stream.getvalue().splitlines() == [
        "search: epoch 1/2  step 3/4  loss 1.5000  accuracy 0.2500  5 s left",
        "search: epoch 1/2  step 4/4  loss 1.5000  accuracy 0.2500  5 s left",
        "search: epoch 2/2  step 3/4  loss 1.5000  accuracy 0.2500  1 s left",
        "search: epoch 2/2  step 4/4  loss 1.5000  accuracy 0.2500  done",
    ]


@pytest.mark.usefixtures("clock")
def test_log_gets_a_line_an_epoch_at_least():
    stream = io.StringIO()
    run(callbacks.Progress("search", interval=100.0, stream=stream))
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.usefixtures("clock")
def test_terminal_gets_one_live_line():
    stream = Terminal()
    run(callbacks.Progress("search", stream=stream))
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    lines = text.rstrip("\n").split("\r")[1:]
    assert len(lines) == 10
    assert lines[0].startswith("search [==                  ] epoch 1/2")
    assert lines[-1].startswith("search [====================] epoch 2/2")


@pytest.mark.usefixtures("clock")
def test_progress_counts_from_where_a_resume_began():
    stream = io.StringIO()
    progress = callbacks.Progress("search", interval=1.0, stream=stream)
    run(progress, first=(1, 2))
    steps = [line.split("  ")[1] for line in stream.getvalue().splitlines()]
    assert steps == ["step 3/4", "step 4/4", "step 4/4"]


def test_a_forecast_is_of_the_steps_that_are_left(monkeypatch):
    monkeypatch.setattr(durations, "time", Clock())
    lines = []
    forecast = callbacks.Forecast("search", alike=1, show=lines.append)
    run(forecast, epochs=3, steps=4, first=(1, 2))
    # Steps of a second each, 6 of 12 to go.
    assert lines == [
        "search: takes about 6 s, 18 s with 1 more, by 3 of 6 steps"
    ]


def test_events_hold_every_figure_and_the_pictures(tmp_path):
    picture = np.zeros((4, 6, 3), "uint8")
    board = callbacks.TensorBoard(
        tmp_path / "events", images=lambda epoch: {"cell": picture}
    )
    _, history = toy.train(tmp_path, more=[board])
    (file,) = (tmp_path / "events").iterdir()
    scalars, pictures = {}, []
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            content = tf.make_ndarray(value.tensor)
            if value.metadata.plugin_data.plugin_name == "images":
                pictures.append((event.step, content[:2]))
            else:
                scalars[value.tag, event.step] = content
    assert scalars.keys() == {
        (name, epoch)
        for name in ("loss", "learning_rate")
        for epoch in range(toy.EPOCHS)
    }
    for entry in history:
        assert scalars["loss", entry["epoch"]] == np.float32(entry["loss"])
    assert [(step, list(size)) for step, size in pictures] == [
        (epoch, [b"6", b"4"]) for epoch in range(toy.EPOCHS)
    ]


def test_events_that_cannot_be_written_are_told_in_one_line(tmp_path):
    (tmp_path / "events").touch()
    board = callbacks.TensorBoard(tmp_path / "events")
    with pytest.raises(UsageError) as caught:
        board.on_epoch_end(0, {"loss": 1.0})
    assert str(caught.value).startswith(f"Expected to write {tmp_path}/events")
    assert "\n" not in str(caught.value)


def test_rate_is_set_before_the_first_step_of_an_epoch(tmp_path):
    rates = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate.numpy()))

    toy.train(tmp_path, more=[Watch()])
    expected = np.repeat(np.float32([0.1, 0.05, 0.1 / 3]), toy.STEPS)
    np.testing.assert_array_equal(np.float32(rates), expected)
