"""Trains a Keras model so that no interruption shows in the result."""

import contextlib
import csv
import io
import json
import os
import re
import time
import warnings

import keras
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.engine import callbacks as callbacks_module
from att_darts_tf.engine import devices, preemption, workdir
from att_darts_tf.engine.writing import writing
from att_darts_tf.errors import UsageError

CHECKPOINT_FORMAT = 1
HISTORY_FORMAT = 1
# A reader says `IndexError` of a file that ends too early.
_DAMAGED = (tf.errors.OpError, IndexError)
# What a file system says that may answer later.
_PASSING = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.ResourceExhaustedError,
)
_KEPT = 2
_NAME = "ckpt"
_CHECKPOINT = re.compile(rf"{_NAME}-(?P<number>\d+)\.(index|data-.*)")
_STATE = "checkpoint"
_RECORD = "record/.ATTRIBUTES/VARIABLE_VALUE"


def fit(
    model,
    *,
    strategy,
    dataset_for,
    epochs,
    steps_per_epoch,
    folder,
    checkpoint_steps=0,
    callbacks=(),
):
    """Trains a model, going on where an earlier process was stopped.

    All state is saved after every epoch, in `folder/checkpoints`: variables of
    the model and its seed generators, of every optimizer that is an attribute
    of the model, running metrics, and the position. A process that is killed
    anywhere loses the steps since the last checkpoint and nothing else: taken
    up again, they give the same bits as an uninterrupted run; one that is
    given notice, see `preemption`, loses none. After the last epoch the state
    is final, and a further call restores it and returns.

    `folder/history.json` holds the figures of each epoch, and `history.csv`
    the same as a table; they are the same bits after an interruption, except
    for `seconds`.

    It is a loop of its own since that of Keras cannot begin within an epoch,
    and hands replicas equal parts of batches only.

    Args:
        model: Compiled `keras.Model`, built in the scope of the strategy, with
            optimizers that are built, whose `train_step` updates metrics that
            the model owns, alike on every replica; metrics and losses given
            to `compile` are not supported.
        strategy: `tf.distribute.Strategy`.
        dataset_for: Maps (epoch, first_step) to the finite `tf.data.Dataset`
            of that epoch's batches from `first_step` on, or of their parts,
            one a replica. It must be a pure function, with one
            `element_spec`.
        epochs: Integer. Epochs of the whole training.
        steps_per_epoch: Integer. Batches of a whole epoch.
        folder: Path of an existing folder.
        checkpoint_steps: Integer. Steps between checkpoints inside an epoch;
            0 saves at the end of epochs only.
        callbacks: Sequence of Keras callbacks. What they add to `logs` in
            `on_epoch_end` is recorded too. Called once more after a resume
            for an epoch that was not saved, so they must overwrite.

    Returns:
        The history: a list with one dictionary of floats for each epoch.
    """
    folder = storage.path(folder)
    state = _State(model, folder / "checkpoints")
    state.restore()
    team = devices.team(strategy)
    team.agree(f"{state.epoch} {state.step}", "checkpoint, by its position,")
    if state.epoch < epochs:
        listed = keras.callbacks.CallbackList(
            [
                callbacks_module.StopWhenNotFinite(folder / "checkpoints"),
                *callbacks,
                # The last one: it saves.
                _Keeper(
                    state,
                    history_file=folder / "history.json",
                    checkpoint_steps=checkpoint_steps,
                    team=team,
                ),
            ],
            model=model,
            verbose=0,
            epochs=epochs,
            steps=steps_per_epoch,
        )
        train_step = _train_step(model, strategy)
        _, num_parts, _ = devices.replicas(strategy)
        listed.on_train_begin()
        with mistakes_of_the_input():
            for epoch in range(state.epoch, epochs):
                first_step = state.step
                if first_step == 0:
                    model.reset_metrics()
                dataset = dataset_for(epoch, first_step)
                _check_length(
                    dataset, (steps_per_epoch - first_step) * num_parts
                )
                listed.on_epoch_begin(epoch)
                iterator = iter(dataset)
                for step in range(first_step, steps_per_epoch):
                    listed.on_train_batch_begin(step)
                    figures, *_ = train_step(iterator)
                    logs = {
                        name: float(value) for name, value in figures.items()
                    }
                    listed.on_train_batch_end(step, logs)
                listed.on_epoch_end(epoch, logs)
        listed.on_train_end()
    _write_history(folder / "history.json", state.history)
    return state.history


def _train_step(model, strategy):
    """Returns a function of an iterator that takes one step."""
    step = model.train_step
    if model.jit_compile:
        step = tf.function(step, jit_compile=True, reduce_retracing=True)
    return devices.on_replicas(strategy, step)


@contextlib.contextmanager
def mistakes_of_the_input():
    """Raises the `UsageError` of a Python function in a `tf.data.Dataset`.

    TensorFlow passes it on as text, within a traceback of its own.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"UsageError: (.+)", error.message)
        if found is None:
            raise
        raise UsageError(found[1]) from error


class _State:
    """Everything that a training is, in memory and in checkpoints.

    Args:
        model: The model that is trained.
        folder: Path of the checkpoints.
    """

    def __init__(self, model, folder):
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self.history = []
        self.folder = folder
        self.variables = _values(model.variables)
        for optimizer in vars(model).values():
            if isinstance(optimizer, keras.optimizers.Optimizer):
                self.variables += _values(optimizer.variables)
        self.model = model
        self.metrics = _values(model.metrics_variables)
        self.record = tf.Variable("", dtype=tf.string, trainable=False)
        self.checkpoint = tf.train.Checkpoint(
            record=self.record, variables=self.variables, metrics=self.metrics
        )

    def restore(self):
        """Goes to the last checkpoint that can be read, if there is one."""
        try:
            self._restore_last()
        except _PASSING as error:
            if devices.is_of_the_lost(error):
                raise
            raise UsageError(
                f"Expected to read checkpoints in {self.folder}. Received: "
                f"{error.message[:200]}. Look after its file system; the same "
                "command goes on from the last one"
            ) from error

    def _restore_last(self):
        paths = self._paths()
        for path in paths:
            try:
                self._restore(path)
                return
            except _PASSING:
                raise
            except _DAMAGED as error:
                warnings.warn(
                    f"Checkpoint {path} is damaged, or was not finished, and "
                    f"was passed over: {error}",
                    stacklevel=2,
                )
        # TensorFlow's own record, written after the first whole one.
        if paths and tf.io.gfile.exists(os.path.join(self.folder, _STATE)):
            raise UsageError(
                f"Expected a readable checkpoint in {self.folder}. Received: "
                f"{len(paths)} damaged. Remove the folder to begin again"
            )

    def _paths(self):
        """Returns the paths of all checkpoints, the last one first.

        By their names: the list that TensorFlow keeps may be damaged too.
        """
        try:
            listed = tf.io.gfile.listdir(self.folder)
        except tf.errors.NotFoundError:
            return []
        names = map(_CHECKPOINT.fullmatch, listed)
        numbers = {int(name["number"]) for name in names if name}
        return [
            os.path.join(self.folder, f"{_NAME}-{number}")
            for number in sorted(numbers, reverse=True)
        ]

    def _restore(self, path):
        # Without asking whether the path is that of a folder, as
        # `load_checkpoint` does: some remote file systems say yes.
        reader = tf.compat.v1.train.NewCheckpointReader(path)
        record = reader.get_tensor(_RECORD)
        record = json.loads(record)
        if record["format"] != CHECKPOINT_FORMAT:
            raise UsageError(
                f"Expected format {CHECKPOINT_FORMAT} in checkpoint {path}. "
                f"Received: format {record['format']!r}. Use the version of "
                "att-darts that wrote it, or remove its folder to begin again"
            )
        self.checkpoint.restore(path).assert_consumed()
        self.epoch = record["epoch"]
        self.step = record["step"]
        self.seconds = record["seconds"]
        self.history = record["history"]

    def save(self):
        """Writes a checkpoint, unless the weights are lost."""
        if len(self.model.metrics_variables) != len(self.metrics):
            raise ValueError(
                "`model` must own its metrics from the beginning. Received: "
                f"{len(self.metrics)} metric variables before the training, "
                f"{len(self.model.metrics_variables)} in it"
            )
        lost = [
            variable.name
            for variable in self.variables
            if variable.dtype.is_floating
            and not tf.reduce_all(tf.math.is_finite(variable))
        ]
        if lost:
            raise UsageError(
                f"Expected finite weights. Received: not finite in epoch "
                f"{self.epoch}, before step {self.step}: {lost[0]} and "
                f"{len(lost) - 1} others. Lower the learning rate and use "
                f"another --workdir; the last good checkpoint is kept in "
                f"{self.folder}"
            )
        record = {
            "format": CHECKPOINT_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        self.record.assign(json.dumps(record))
        with writing(self.folder):
            self.checkpoint.save(os.path.join(self.folder, _NAME))
            for path in self._paths()[_KEPT:]:
                for file in tf.io.gfile.glob(f"{path}.*"):
                    tf.io.gfile.remove(file)


class _Keeper(keras.callbacks.Callback):
    """Saves the state; the last of the callbacks.

    Args:
        state: `_State`, at the position where training goes on.
        history_file: Path of the record of epochs.
        checkpoint_steps: Integer, as in `fit`.
        team: As `devices.team` returns it. All end where one is given notice.
    """

    def __init__(self, state, *, history_file, checkpoint_steps, team):
        super().__init__()
        self.state = state
        self.history_file = history_file
        self.checkpoint_steps = checkpoint_steps
        self.team = team
        self.clock = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.state.step += 1
        preemption.postpone()
        if self.state.step == self.params["steps"]:
            return
        step, every = self.state.step, self.checkpoint_steps
        ending = self._ending()
        if (every and step % every == 0) or ending:
            self._count_seconds()
            self.state.save()
            self._allow(ending)

    def on_epoch_end(self, epoch, logs=None):
        self._count_seconds()
        entry = {"epoch": epoch, **logs, "seconds": self.state.seconds}
        self.state.history.append(entry)
        _write_history(self.history_file, self.state.history)
        self.state.epoch, self.state.step = epoch + 1, 0
        self.state.seconds = 0.0
        ending = self._ending()
        self.state.save()
        self._allow(ending)

    def on_train_end(self, logs=None):
        # All have saved all.
        preemption.allow()

    def _ending(self):
        """Returns whether any process was given notice."""
        return sum(self.team.sums([preemption.noticed()])) > 0

    def _allow(self, ending):
        if ending:
            raise preemption.Preempted
        if self.team.size == 1:
            # A process that ended by itself would be missed by the others.
            preemption.allow()

    def _count_seconds(self):
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now


def _values(variables):
    return [variable.value for variable in variables]


def _write_history(path, history):
    workdir.write_json(path, {"epochs": history}, format=HISTORY_FORMAT)
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    workdir.write_atomically(path.with_suffix(".csv"), table.getvalue())


def _check_length(dataset, steps):
    length = int(dataset.cardinality())
    if length != steps:
        raise ValueError(
            f"`dataset_for` must give the {steps} batches, or parts of them, "
            f"that are left of the epoch. Received: {length}"
        )
