import csv
import json
import pathlib
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from att_darts_tf.engine import training
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
    with pytest.raises(ValueError, match="the 7 batches .* Received: 5"):
        training.fit(
            model,
            dataset_for=toy.dataset_for,
            epochs=1,
            steps_per_epoch=7,
            folder=tmp_path,
        )


def test_checkpoints_of_elsewhere_are_neither_read_nor_deleted(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
        toy.train(folder, epochs=1)
    before = sorted(path.name for path in (other / "checkpoints").iterdir())
    listed = mine / "checkpoints" / "checkpoint"
    for path in ("../../other/checkpoints", other / "checkpoints"):
        listed.write_text(
            f'model_checkpoint_path: "{path}/ckpt-1"\n'
            f'all_model_checkpoint_paths: "{path}/ckpt-1"\n'
            "all_model_checkpoint_timestamps: 1.0\n"
        )
        with pytest.raises(UsageError, match="Received: .*other/checkpoints"):
            toy.train(mine)
    after = sorted(path.name for path in (other / "checkpoints").iterdir())
    assert before == after
