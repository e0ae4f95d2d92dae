import ast
import json
import pathlib
import signal
import statistics
import subprocess
import sys

import numpy as np
import pytest

from att_darts_tf.engine import training, workdir
from att_darts_tf.errors import UsageError
from att_darts_tf.network import evaluate, network, run, trainer
from tests.network import toy

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return toy.prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """Returns the folder of a training, and its result."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, toy.train(data_dir, folder)


@pytest.fixture
def forbid_training(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("nothing was to be trained")

    monkeypatch.setattr(training, "fit", fail)


def epochs_of(folder):
    history = workdir.read_json(
        folder / "history.json", format=training.HISTORY_FORMAT
    )
    return [
        {name: value for name, value in epoch.items() if name != "seconds"}
        for epoch in history["epochs"]
    ]


def state_of(folder):
    model = network.load(folder / "model.keras")
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(variable.value) for variable in variables]


def test_training_killed_inside_an_epoch_resumes_to_the_same_bits(
    data_dir, trained, tmp_path
):
    def process(step):
        command = [sys.executable, "-m", "tests.network.toy"]
        return subprocess.run(
            [*command, str(data_dir), str(tmp_path), str(step)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    # Step 8 is step 3 of epoch 1; the last checkpoint is at its step 2.
    killed = process(8)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "model.keras").exists()
    resumed = process(-1)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1/3" not in resumed.stdout
    folder, result = trained
    assert epochs_of(tmp_path) == epochs_of(folder)
    for one, other in zip(state_of(tmp_path), state_of(folder), strict=True):
        np.testing.assert_array_equal(one, other)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["train_accuracy"] == result["train_accuracy"]
    assert found["train_loss"] == result["train_loss"]


def test_training_reports_what_it_did(trained):
    folder, result = trained
    model = network.load(folder / "model.keras")
    last = epochs_of(folder)[-1]
    assert result["seed"] == 1
    assert result["epochs"] == 3
    assert result["parameters"] == model.num_parameters()
    assert result["parameters_with_auxiliary"] == model.num_parameters(
        auxiliary=True
    )
    assert result["parameters_with_auxiliary"] > result["parameters"]
    assert result["train_accuracy"] == last["accuracy"]
    assert result["train_loss"] == last["loss"]
    assert result["seconds"] > 0


def test_a_batch_of_more_than_all_images_is_refused(data_dir, tmp_path):
    settings = toy.config()
    settings.network.batch_size = 10**7
    with pytest.raises(UsageError, match="48 images. Lower the batch_size"):
        run.run_training(
            settings,
            data_dir=data_dir,
            genotype="darts_v2",
            output_dir=tmp_path,
            seed=0,
        )


def test_training_follows_the_schedules_of_the_recipe(trained):
    folder, _ = trained
    rates = [epoch["learning_rate"] for epoch in epochs_of(folder)]
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.025])
    model = network.load(folder / "model.keras")
    # 0.2 * epoch / epochs in the last epoch.
    np.testing.assert_allclose(model.drop_probability.value, 0.2 * 2 / 3)
    # 5 steps an epoch: the last of 8 images.
    assert int(model.optimizer.iterations.value) == 15


def body_of(model):
    return [
        np.asarray(variable.value)
        for layer in (model.stem, *model.cells)
        for variable in layer.variables
    ]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_training_begins_with_a_trained_network(
    data_dir, trained, tmp_path, frozen
):
    file = trained[0] / "model.keras"
    config = toy.config()
    config.network.update(
        pretrained=str(file),
        frozen=frozen,
        auxiliary_weight=0.0,
        drop_path=0.0,
        # So small a rate leaves weights as they were, but not statistics.
        learning_rate=0.1 if frozen else 1e-12,
        final_learning_rate=0.0,
    )
    run.run_training(
        config, data_dir=data_dir, genotype=file, output_dir=tmp_path, seed=2
    )
    tuned = network.load(tmp_path / "model.keras")
    before = network.load(file)
    assert tuned.genotype == before.genotype
    same = [
        np.allclose(mine, theirs, rtol=1e-6)
        for mine, theirs in zip(body_of(tuned), body_of(before), strict=True)
    ]
    weights = [
        np.allclose(mine, theirs, rtol=1e-6)
        for layer, other in zip(tuned.cells, before.cells, strict=True)
        for mine, theirs in zip(
            layer.trainable_variables, other.trainable_variables
        )
    ]
    assert all(same) if frozen else all(weights) and not all(same)
    new, old = tuned.classifier.kernel, before.classifier.kernel
    assert not np.allclose(new, old)


@pytest.mark.usefixtures("forbid_training")
def test_finished_training_is_returned_at_once(data_dir, trained):
    folder, result = trained
    assert toy.train(data_dir, folder) == result


def test_folder_of_another_training_is_refused(data_dir, trained):
    folder, _ = trained
    settings = toy.config()
    settings.network.momentum = 0.5
    with pytest.raises(UsageError, match="config.network.momentum=0.9"):
        run.run_training(
            settings,
            data_dir=data_dir,
            genotype=data_dir / "useful.json",
            output_dir=folder,
            seed=1,
        )


def test_unknown_cells_are_refused_before_any_work(data_dir, tmp_path):
    with pytest.raises(UsageError, match="att_dart"):
        run.run_training(
            toy.config(),
            data_dir=data_dir,
            genotype="att_dartz",
            output_dir=tmp_path / "out",
            seed=0,
        )
    assert not (tmp_path / "out").exists()


def test_fewer_images_than_a_batch_are_refused(data_dir, tmp_path):
    settings = toy.config()
    settings.network.batch_size = toy.TRAIN + 1
    toy.USEFUL.write(tmp_path / "genotype.json")
    with pytest.raises(UsageError, match="one batch of 49 images"):
        run.run_training(
            settings,
            data_dir=data_dir,
            genotype=tmp_path / "genotype.json",
            output_dir=tmp_path / "out",
            seed=0,
        )


def test_evaluation_judges_every_network_on_the_test_split(
    data_dir, trained, tmp_path
):
    folder, _ = trained
    models = [folder, folder]
    result = evaluate.run_evaluation(
        toy.config(),
        data_dir=data_dir,
        models=models,
        output_dir=tmp_path,
    )
    assert result["images"] == toy.TEST
    assert len(result["accuracies"]) == len(result["losses"]) == 2
    assert result["accuracies"][0] * toy.TEST == pytest.approx(
        round(result["accuracies"][0] * toy.TEST)
    )
    assert result["mean"] == statistics.fmean(result["accuracies"])
    assert result["standard_deviation"] == 0.0


def test_spread_is_the_sample_standard_deviation(
    data_dir, trained, tmp_path, monkeypatch
):
    figures = iter(
        evaluate.Judgement(*each, None)
        for each in [(0.5, 1.0), (0.7, 2.0), (0.9, 3.0)]
    )
    monkeypatch.setattr(evaluate, "judge", lambda *a, **k: next(figures))
    result = evaluate.run_evaluation(
        toy.config(),
        data_dir=data_dir,
        models=[trained[0]] * 3,
        output_dir=tmp_path,
    )
    assert result["accuracies"] == [0.5, 0.7, 0.9]
    assert result["losses"] == [1.0, 2.0, 3.0]
    assert result["mean"] == pytest.approx(0.7)
    # sqrt((0.2**2 + 0 + 0.2**2) / 2)
    assert result["standard_deviation"] == pytest.approx(0.2)


def test_network_of_other_images_is_refused(data_dir, tmp_path):
    other = network.Network.from_genotype(
        toy.HOPELESS,
        image_shape=(toy.SIDE, toy.SIDE, 1),
        num_classes=2,
        channels=4,
        cells=3,
    )
    network.save(other, tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"\(9, 9, 3\).*\(9, 9, 1\)"):
        evaluate.run_evaluation(
            toy.config(),
            data_dir=data_dir,
            models=[tmp_path],
            output_dir=tmp_path / "out",
        )


@pytest.mark.parametrize("models", [[], ["nowhere"]])
def test_evaluation_without_a_network_is_refused(data_dir, tmp_path, models):
    with pytest.raises(UsageError, match="stage"):
        evaluate.run_evaluation(
            toy.config(),
            data_dir=data_dir,
            models=models,
            output_dir=tmp_path,
        )


def test_only_the_evaluation_reads_the_test_split():
    readers = set()
    for file in (ROOT / "att_darts_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "split"
                and any(
                    isinstance(argument, ast.Constant)
                    and argument.value == "test"
                    for argument in node.args
                )
            ):
                readers.add(file.relative_to(ROOT / "att_darts_tf").as_posix())
    assert readers == {"network/evaluate.py"}


@pytest.fixture(scope="module")
def selected(data_dir, tmp_path_factory):
    """Returns the folder of a selection with a planted hopeless candidate."""
    folder = tmp_path_factory.mktemp("selected")
    files = [folder / "hopeless.json", folder / "useful.json"]
    toy.HOPELESS.write(files[0])
    toy.USEFUL.write(files[1])
    return folder, files, select(data_dir, files, folder / "out")


def select(data_dir, files, folder):
    settings = toy.config()
    settings.selection.epochs = 6
    settings.selection.drop_path = 0.0
    settings.selection.cutout = 0
    return run.run_selection(
        settings, data_dir=data_dir, genotypes=files, output_dir=folder
    )


def test_hopeless_candidate_loses(selected):
    folder, files, result = selected
    hopeless, useful = result["candidates"]
    assert hopeless["genotype_file"] == str(files[0])
    assert (hopeless["seed"], useful["seed"]) == (3, 5)
    assert hopeless["validation_images"] == toy.TRAIN // 2
    assert hopeless["validation_accuracy"] < useful["validation_accuracy"]
    assert result["chosen"] == 1
    assert result["reason"].startswith("seed 5, the highest validation")
    chosen = (folder / "out" / "genotype.json").read_text()
    assert chosen == toy.USEFUL.to_json()


@pytest.mark.usefixtures("forbid_training")
def test_finished_candidates_are_not_trained_again(data_dir, selected):
    folder, files, result = selected
    # As if the process had been killed just before it wrote the result.
    (folder / "out" / "result.json").unlink()
    assert select(data_dir, files, folder / "out") == result
    assert select(data_dir, files, folder / "out") == result


def test_candidates_train_on_one_half_and_are_judged_on_the_other(
    data_dir, tmp_path, monkeypatch
):
    used = {}

    class Trained:
        num_parameters = staticmethod(lambda: 7)

    def train(config, recipe, *, split, **options):
        assert recipe == config.selection
        used["trained"] = split
        return Trained(), [{"accuracy": 0.5, "seconds": 1.0}]

    def judge(model, *, split, preprocessing, strategy):
        used["judged"] = split
        return evaluate.Judgement(0.5, 1.0, None)

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(evaluate, "judge", judge)
    file = tmp_path / "genotype.json"
    toy.USEFUL.write(file)
    result = select(data_dir, [file, file], tmp_path / "out")
    halves = [
        {image.tobytes() for image in used[name].images}
        for name in ("trained", "judged")
    ]
    assert len(halves[0]) == len(halves[1]) == toy.TRAIN // 2
    assert halves[0].isdisjoint(halves[1])
    assert result["chosen"] == 0
    assert "the lowest seed" in result["reason"]


def test_each_seed_needs_a_genotype(data_dir, tmp_path):
    file = tmp_path / "genotype.json"
    toy.USEFUL.write(file)
    with pytest.raises(UsageError, match=r"seeds \(3, 5\). Received: 1"):
        select(data_dir, [file], tmp_path / "out")


def candidate(accuracy, seed):
    return {
        "validation_accuracy": accuracy,
        "seed": seed,
        "validation_images": 1500,
    }


@pytest.mark.parametrize(
    ("candidates", "chosen", "reason"),
    [
        ([candidate(0.5, 4)], 0, "seed 4, the only candidate"),
        (
            [candidate(0.5, 4), candidate(0.75, 9), candidate(0.6, 1)],
            1,
            "seed 9, the highest validation accuracy, 75.00 % on 1,500 images "
            "not trained on; next is seed 1 with 60.00 %",
        ),
        (
            [candidate(0.5, 4), candidate(0.5, 1), candidate(0.4, 0)],
            1,
            "seed 1, the lowest seed with the highest validation accuracy, "
            "50.00 % on 1,500 images not trained on",
        ),
    ],
)
def test_best_candidate_is_chosen_and_explained(candidates, chosen, reason):
    assert run.choose(candidates) == chosen
    assert run.explain(candidates, chosen) == reason


def test_the_rank_of_a_class_is_the_number_of_those_before_it():
    logits = np.array(
        [
            [0.1, 0.5, 0.3],
            [0.1, 0.5, 0.3],
            # Equal ones stand in the order of the classes.
            [2.0, 2.0, 2.0],
            [2.0, 2.0, 2.0],
            # A network that diverged is never right.
            [np.nan, 0.0, 1.0],
            [np.nan, np.nan, np.nan],
        ]
    )
    labels = np.array([1, 0, 0, 2, 2, 0])
    ranks = evaluate.ranks_of(logits, labels)
    assert ranks.tolist() == [0, 2, 0, 2, 1, 2]
