import csv
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import preemption, training
from att_darts_tf.errors import UsageError
from tests.engine import toy

ROOT = pathlib.Path(__file__).parents[2]


class Interrupt(Exception):
    """Stands for whatever ends a training."""


class InterruptAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.place = (epoch, batch)
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            raise Interrupt


def state_of(model):
    variables = [
        *model.variables,
        *model.optimizer.variables,
        *model.gain_optimizer.variables,
    ]
    return [np.asarray(variable.value) for variable in variables]


def without_seconds(history):
    return [
        {name: value for name, value in entry.items() if name != "seconds"}
        for entry in history
    ]


def assert_same_training(first, second):
    assert without_seconds(first[1]) == without_seconds(second[1])
    for one, other in zip(state_of(first[0]), state_of(second[0])):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return toy.train(tmp_path_factory.mktemp("uninterrupted"))


def test_process_killed_inside_an_epoch_resumes_to_the_same_bits(
    tmp_path, uninterrupted
):
    # Step 8 is step 3 of epoch 1; the last checkpoint is at its step 2.
    killed = subprocess.run(
        [sys.executable, "-m", "tests.engine.toy", str(tmp_path), "8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"])
    assert_same_training(toy.train(tmp_path), uninterrupted)


@pytest.mark.parametrize("place", [(0, 1), (0, 2), (1, 4), (2, 0)])
@pytest.mark.parametrize("checkpoint_steps", [0, 1])
def test_interruption_does_not_show(
    tmp_path, uninterrupted, place, checkpoint_steps
):
    with pytest.raises(Interrupt):
        toy.train(
            tmp_path,
            more=[InterruptAt(*place)],
            checkpoint_steps=checkpoint_steps,
        )
    resumed = toy.train(tmp_path, checkpoint_steps=checkpoint_steps)
    assert_same_training(resumed, uninterrupted)


class Terminate(keras.callbacks.Callback):
    """Sends SIGTERM within a step, counted over all epochs, and counts."""

    def __init__(self, step=None):
        super().__init__()
        self.step = step
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
            while not preemption.noticed():
                time.sleep(0.01)
        self.steps += 1


@pytest.mark.parametrize("step", [1, 4, 7, 3 * toy.STEPS - 1])
def test_sigterm_saves_at_the_end_of_the_step_and_loses_none(
    tmp_path, uninterrupted, step
):
    first, rest = Terminate(step), Terminate()
    with preemption.watching(), pytest.raises(preemption.Preempted):
        toy.train(tmp_path, more=[first], checkpoint_steps=0)
    resumed = toy.train(tmp_path, more=[rest], checkpoint_steps=0)
    assert first.steps == step + 1
    assert first.steps + rest.steps == toy.EPOCHS * toy.STEPS
    assert_same_training(resumed, uninterrupted)


def test_interruption_after_the_history_but_before_the_checkpoint(
    tmp_path, uninterrupted, monkeypatch
):
    save = training._State.save

    def save_but_not_the_first_epoch(state):
        if (state.epoch, state.step) == (1, 0):
            raise Interrupt
        save(state)

    with monkeypatch.context() as patch:
        patch.setattr(training._State, "save", save_but_not_the_first_epoch)
        with pytest.raises(Interrupt):
            toy.train(tmp_path)
    resumed = toy.train(tmp_path)
    assert_same_training(resumed, uninterrupted)
    assert [entry["epoch"] for entry in resumed[1]] == [0, 1, 2]


def test_finished_training_is_restored_and_left_alone(tmp_path):
    first = toy.train(tmp_path)
    (tmp_path / "history.json").unlink()
    second = toy.train(tmp_path)
    assert_same_training(first, second)
    assert second[0].traces == 0
    written = json.loads((tmp_path / "history.json").read_text())
    assert written == {"format": 1, "epochs": first[1]}


def test_history_tells_losses_rates_and_seconds(uninterrupted):
    history = uninterrupted[1]
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert [entry["learning_rate"] for entry in history] == [
        0.1,
        0.05,
        0.1 / 3,
    ]
    assert all(entry["seconds"] > 0 for entry in history)
    assert len({entry["loss"] for entry in history}) == 3


def test_history_is_a_table_too(tmp_path):
    _, history = toy.train(tmp_path)
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        {name: float(value) for name, value in row.items()} for row in rows
    ] == history


def test_step_is_traced_once_for_all_epochs(uninterrupted):
    assert uninterrupted[0].traces == 1


def test_every_step_counts_and_every_random_number_is_drawn_once(
    uninterrupted,
):
    model = uninterrupted[0]
    assert int(model.optimizer.iterations.value) == toy.EPOCHS * toy.STEPS
    seed, draws = np.asarray(model.noise.state.value)
    assert (seed, draws) == (7, toy.EPOCHS * toy.STEPS)


def test_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path, uninterrupted
):
    with pytest.raises(Interrupt):
        toy.train(tmp_path, more=[InterruptAt(1, 3)])
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    data = pathlib.Path(f"{newest}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        resumed = toy.train(tmp_path)
    assert_same_training(resumed, uninterrupted)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder of two checkpoints, at steps 2 and 4 of the first epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.raises(Interrupt):
        toy.train(folder, more=[InterruptAt(0, 4)])
    return folder / "checkpoints"


def step_restored_from(folder):
    model = toy.Toy()
    model.compile()
    state = training._State(model, folder)
    state.restore()
    assert int(model.optimizer.iterations.value) == state.step
    return state.step


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 128
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": pathlib.Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_the_checkpoint_before_a_damaged_one_is_used_with_a_warning(
    checkpoints, tmp_path, part, damage
):
    folder = shutil.copytree(checkpoints, tmp_path / "copy")
    DAMAGES[damage](folder / f"ckpt-2.{part}")
    with pytest.warns(UserWarning, match="ckpt-2 is damaged, or was not fin"):
        assert step_restored_from(folder) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_checkpoint_is_lost_with_the_list_of_them(
    checkpoints, tmp_path, damage
):
    folder = shutil.copytree(checkpoints, tmp_path / "copy")
    DAMAGES[damage](folder / "checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert step_restored_from(folder) == 4


@pytest.mark.parametrize("call", ["listdir", "checkpoint"])
def test_checkpoint_that_cannot_be_reached_is_no_damaged_one(
    checkpoints, tmp_path, monkeypatch, call
):
    folder = shutil.copytree(checkpoints, tmp_path / "copy")

    def unreachable(*_):
        raise tf.errors.UnavailableError(None, None, "no answer")

    place = {
        "listdir": (tf.io.gfile, "listdir"),
        "checkpoint": (tf.compat.v1.train, "NewCheckpointReader"),
    }
    monkeypatch.setattr(*place[call], unreachable)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match="Expected to read .* no answer"):
            step_restored_from(folder)


def test_training_whose_first_checkpoint_was_not_finished_begins_anew(
    checkpoints, tmp_path
):
    folder = shutil.copytree(checkpoints, tmp_path / "copy")
    # TensorFlow writes its list after the first whole checkpoint.
    for file in [folder / "checkpoint", *folder.glob("ckpt-1.*")]:
        file.unlink()
    DAMAGES["truncated"](folder / "ckpt-2.index")
    with pytest.warns(UserWarning, match="was not finished"):
        assert step_restored_from(folder) == 0


def test_the_last_two_of_many_checkpoints_are_kept(tmp_path):
    # From 9 to 10 names and numbers differ in their order.
    toy.train(tmp_path, checkpoint_steps=1, epochs=2)
    kept = {file.stem for file in (tmp_path / "checkpoints").glob("*.index")}
    assert kept == {"ckpt-9", "ckpt-10"}


class Limit(keras.callbacks.Callback):
    """Lets no file of this process become longer, from an epoch on."""

    def __init__(self, size, epoch):
        super().__init__()
        self.size = size
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


# As on a full disk, TensorFlow or the system cannot write on; that of a
# checkpoint, or with none inside of epochs that of the history.
@pytest.mark.parametrize(
    ("checkpoint_steps", "size", "named"),
    [(2, 2000, "checkpoints"), (0, 100, "history.json")],
)
def test_full_disk_is_told_in_one_line_and_loses_nothing(
    tmp_path, uninterrupted, checkpoint_steps, size, named
):
    options = {"checkpoint_steps": checkpoint_steps}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UsageError) as caught:
            toy.train(tmp_path, more=[Limit(size, epoch=1)], **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.fullmatch(
        rf"Expected to write {tmp_path}/{named}. Received: (\S+; )?File too "
        "large. Make room or choose a folder that can be written",
        str(caught.value),
    )
    resumed = Terminate()
    assert_same_training(
        toy.train(tmp_path, more=[resumed], **options), uninterrupted
    )
    assert resumed.steps == 2 * toy.STEPS


def test_folder_with_damaged_checkpoints_only_is_refused(tmp_path):
    toy.train(tmp_path, epochs=1, checkpoint_steps=0)
    for data in (tmp_path / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:-100])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="readable checkpoint"):
            toy.train(tmp_path)


def test_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    toy.train(tmp_path, epochs=1)
    monkeypatch.setattr(training, "CHECKPOINT_FORMAT", 9)
    with pytest.raises(UsageError, match="format 9 .* format 1"):
        toy.train(tmp_path)


class Spoil(keras.callbacks.Callback):
    """Makes the weights infinite after a step of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.place = (epoch, batch)
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.place:
            self.model.gain.assign(np.inf)


def test_infinite_loss_stops_and_keeps_the_last_good_checkpoint(
    tmp_path, uninterrupted
):
    with pytest.raises(UsageError, match="finite loss.*epoch 1, step 3"):
        toy.train(tmp_path, more=[Spoil(1, 2)])
    assert_same_training(toy.train(tmp_path), uninterrupted)


def test_infinite_weights_are_not_saved(tmp_path, uninterrupted):
    with pytest.raises(UsageError, match="finite weights.*epoch 1.*step 2"):
        toy.train(tmp_path, more=[Spoil(1, 1)])
    assert_same_training(toy.train(tmp_path), uninterrupted)


def test_dataset_of_another_length_is_refused(tmp_path):
    model = toy.Toy()
    model.compile()
    with pytest.raises(ValueError, match="the 7 batches, .* Received: 5"):
        training.fit(
            model,
            strategy=tf.distribute.get_strategy(),
            dataset_for=toy.dataset_for,
            epochs=1,
            steps_per_epoch=7,
            folder=tmp_path,
        )


def test_checkpoints_of_elsewhere_are_neither_read_nor_deleted(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    first = toy.train(mine, epochs=1)
    toy.train(other)
    before = sorted(path.name for path in (other / "checkpoints").iterdir())
    listed = mine / "checkpoints" / "checkpoint"
    for path in ("../../other/checkpoints", other / "checkpoints"):
        listed.write_text(
            f'model_checkpoint_path: "{path}/ckpt-1"\n'
            f'all_model_checkpoint_paths: "{path}/ckpt-1"\n'
            "all_model_checkpoint_timestamps: 1.0\n"
        )
        assert_same_training(toy.train(mine, epochs=1), first)
    after = sorted(path.name for path in (other / "checkpoints").iterdir())
    assert before == after
