"""What is seen of a training while it runs, and what stops it.

Callbacks learn how long a training is from `self.params`, which `training.fit`
fills: `epochs`, and `steps` of a whole epoch. Steps count from the beginning of
the epoch, also after a resume.
"""

import math
import shutil
import sys
import time

import keras
import tensorflow as tf

from att_darts_tf import durations
from att_darts_tf.durations import duration
from att_darts_tf.engine import devices
from att_darts_tf.engine.writing import writing
from att_darts_tf.errors import InfeasibleError


class RateSchedule(keras.callbacks.Callback):
    """Sets the learning rate at the beginning of every epoch.

    Args:
        rate: Maps an epoch to a float, as `optimizers.cosine_rate` does.

    Example:

    >>> schedule = RateSchedule(lambda epoch: 0.1 / (1 + epoch))
    >>> schedule.rate(3)
    0.025
    """

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = self.rate(epoch)

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = self.rate(epoch)


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends a training whose loss is lost, before it is saved.

    Args:
        folder: Path named in the message: where the last checkpoint is.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        for name, value in (logs or {}).items():
            if "loss" in name and not math.isfinite(value):
                raise InfeasibleError(
                    f"Expected a finite {name}. Received: {value} in epoch "
                    f"{self.epoch}, step {batch}. Lower the learning rate and "
                    f"use another --workdir; the last good checkpoint is kept "
                    f"in {self.folder}"
                )


class SameOnReplicas(keras.callbacks.Callback):
    """Sees after every epoch that all replicas have the same numbers.

    Args:
        strategy: `tf.distribute.Strategy` of the training.
        variables: Sequence of variables of one type.
        name: String. What the variables are, in the plural.
    """

    def __init__(self, strategy, variables, name):
        super().__init__()
        self.strategy = strategy
        self.variables = variables
        self.name = name

    def on_epoch_end(self, epoch, logs=None):
        first, *others = devices.copies(self.strategy, self.variables)
        for i, other in enumerate(others, 1):
            if other.tobytes() != first.tobytes():
                raise RuntimeError(
                    f"Expected the same {self.name} on every replica. "
                    f"Received: others on replica {i} than on replica 0 "
                    f"after epoch {epoch}, by up to "
                    f"{abs(other - first).max()}. Look for a device that "
                    "computes wrongly, and use another --workdir: a "
                    "checkpoint from within the epoch may hold it already"
                )


class Progress(keras.callbacks.Callback):
    """Says how far a training is and how long it will take.

    A terminal gets one live line with a bar; a log gets a plain line every
    `interval` seconds and one at the end of every epoch. The time left is that
    of all remaining epochs, by the mean pace after the first step.

    Args:
        label: String. What is being trained, as `"search, seed 0"`.
        interval: Seconds between two lines of a log.
        stream: Text stream; standard output if `None`.
    """

    def __init__(self, label, interval=10.0, stream=None):
        super().__init__()
        self.label = label
        self.interval = interval
        self.stream = stream
        self.epoch = 0
        self.width = 0
        self.steps_timed = -1
        self.begun = self.shown = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        self.steps_timed += 1
        if self.steps_timed == 0:
            # The first step holds the tracing and says nothing of the pace.
            self.begun = now
        terminal = self._stream().isatty()
        if now - self.shown >= (0.1 if terminal else self.interval):
            self.shown = now
            self._show(batch + 1, logs, now, live=terminal)

    def on_epoch_end(self, epoch, logs=None):
        now = self.shown = time.monotonic()
        terminal = self._stream().isatty()
        last = epoch + 1 == self.params["epochs"]
        live = terminal and not last
        self._show(self.params["steps"], logs, now, live=live)

    def _show(self, step, logs, now, *, live):
        epochs, steps = self.params["epochs"], self.params["steps"]
        done = self.epoch * steps + step
        parts = [f"epoch {self.epoch + 1}/{epochs}", f"step {step}/{steps}"]
        parts += [
            f"{name} {value:.4f}"
            for name, value in (logs or {}).items()
            if "loss" in name or "accuracy" in name
        ]
        if done == epochs * steps:
            parts.append("done")
        elif self.steps_timed > 0:
            pace = (now - self.begun) / self.steps_timed
            parts.append(f"{duration((epochs * steps - done) * pace)} left")
        text = "  ".join(parts)
        stream = self._stream()
        if not stream.isatty():
            print(f"{self.label}: {text}", file=stream, flush=True)
            return
        line = f"{self.label} {_bar(done / (epochs * steps))} {text}"
        line = line[: shutil.get_terminal_size().columns - 1]
        # Overwrites what a longer line left behind.
        end = "" if live else "\n"
        print(f"\r{line:<{self.width}}", end=end, file=stream, flush=True)
        self.width = len(line) if live else 0

    def _stream(self):
        return self.stream or sys.stdout


class Forecast(keras.callbacks.Callback):
    """Says after some steps how long the whole training is going to take.

    Args:
        label: String. As in `Progress`.
        alike: Integer. Trainings of as many steps that come after it.
        show: As in `durations.Forecast`.
    """

    def __init__(self, label, alike=0, show=None):
        super().__init__()
        self.label = label
        self.alike = alike
        self.show = show
        self.epoch = 0
        self.forecast = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.forecast is None:
            steps, epochs = self.params["steps"], self.params["epochs"]
            self.forecast = durations.Forecast(
                self.label,
                steps=(epochs - self.epoch) * steps - batch,
                unit="steps",
                alike=self.alike,
                whole=epochs * steps,
                show=self.show,
            )

    def on_train_batch_end(self, batch, logs=None):
        self.forecast.step()


class TensorBoard(keras.callbacks.Callback):
    """Writes every figure of an epoch, and pictures, for TensorBoard.

    Args:
        folder: Path of the event files.
        images: Maps an epoch to a dictionary of pictures by name, arrays of
            shape `(height, width, channels)` and type uint8; or `None`.
    """

    def __init__(self, folder, images=None):
        super().__init__()
        self.folder = str(folder)
        self.images = images
        self.writer = None

    def on_epoch_end(self, epoch, logs=None):
        if self.writer is None:
            # Not before there is something to write: a finished training that
            # is asked for again leaves no empty file.
            with writing(self.folder):
                self.writer = tf.summary.create_file_writer(self.folder)
        with self.writer.as_default(step=epoch):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)
            pictures = self.images(epoch) if self.images else {}
            for name, picture in pictures.items():
                tf.summary.image(name, picture[None])
        self.writer.flush()


def _bar(fraction, width=20):
    full = int(fraction * width)
    return "[" + "=" * full + " " * (width - full) + "]"
