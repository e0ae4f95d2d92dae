"""A released checkpoint becomes a model that evaluation and export accept."""

import json

import numpy as np
import pytest

from att_darts_tf import __main__ as command_line
from att_darts_tf.errors import UsageError
from att_darts_tf.network import network as network_module
from att_darts_tf.network.network import Network
from att_darts_tf.released import models, names
from att_darts_tf.search.supernet import Supernet
from att_darts_tf.space import published
from tests.released.torch_files import checkpoint, random_state


@pytest.fixture
def at_authors():
    """Returns the state dictionary of a small network of theirs."""
    model = Network.from_genotype(
        "att_darts",
        image_shape=(32, 32, 3),
        num_classes=10,
        channels=4,
        cells=3,
        auxiliary=True,
    )
    return random_state(names.of_network(model))


def command(stage, folder, *more):
    arguments = ("--config=demo", "--config.repeats=1", f"--workdir={folder}")
    return command_line.main([stage, *arguments, *map(str, more)])


def test_a_network_is_imported_evaluated_and_exported(
    tmp_path, at_authors, capsys
):
    file = tmp_path / "cifar10_att.pt"
    file.write_bytes(checkpoint(at_authors))
    folder = tmp_path / "run"
    flags = (f"--checkpoint={file}", "--cell=att_darts")
    assert command("prepare", folder) == 0
    # A mistake leaves the folder free for the mended command.
    wrong = (flags[0], "--cell=darts_v2")
    assert command("import-checkpoint", folder, *wrong) == 2
    assert command("import-checkpoint", folder, *flags) == 0
    assert "3 cells, 4 channels, 10 classes" in capsys.readouterr().out
    network = network_module.load(folder / "training/repeat-0/model.keras")
    assert network.genotype == published.get("att_darts")
    for name, place in names.of_network(network).items():
        np.testing.assert_array_equal(
            place.part(place.variable.numpy()),
            place.ours(at_authors[name]).ravel(),
            err_msg=name,
        )
    assert command("evaluate", folder) == 0
    result = json.loads((folder / "evaluation/result.json").read_text())
    assert result["images"] == 500
    assert command("export", folder) == 0
    assert (folder / "export/att_darts/1/saved_model.pb").exists()
    # The same command again finds its result; another file does not.
    assert command("import-checkpoint", folder, *flags) == 0
    file.write_bytes(checkpoint({**at_authors, "more": np.zeros(3)}))
    assert command("import-checkpoint", folder, *flags) == 2
    assert "another --workdir" in capsys.readouterr().err


def test_a_supernet_is_imported_with_its_cells(tmp_path, capsys):
    model = Supernet(10, "end", 2, 3)
    model.build((None, 32, 32, 3))
    state = random_state(names.of_supernet(model))
    file = tmp_path / "weights.pt"
    file.write_bytes(checkpoint(state))
    folder = tmp_path / "run"
    assert command("import-checkpoint", folder, f"--checkpoint={file}") == 2
    assert "--config.space.location=end" in capsys.readouterr().err
    flags = (f"--checkpoint={file}", "--config.space.location=end")
    assert command("import-checkpoint", folder, *flags) == 0
    cells = json.loads((folder / "imported/genotype.json").read_text())
    assert cells["normal_bottleneck"] in (
        *("Identity", "SE", "BAM", "CBAM", "GE_theta-plus"),
        "DoubleAttention",
    )
    strongest = int(np.argmax(state["gammas_normal"]))
    assert cells["normal_bottleneck"] == model.space.output[strongest]
    assert (folder / "imported/supernet.keras").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--cell=att_darts"], "Expected --checkpoint=FILE"),
        (["--checkpoint={file}"], "Add --cell="),
        (["--checkpoint={file}", "--cell=att_dart"], "att_darts"),
        (["--checkpoint={file}", "--cell=darts_v2"], "differences: missing"),
        (["--checkpoint={file}.gone", "--cell=att_darts"], "Expected a state"),
        (
            [
                "--checkpoint={file}",
                "--cell=att_darts",
                "--config.repeats=2",
            ],
            "Expected config.repeats=1",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused(
    tmp_path, at_authors, flags, complaint, capsys
):
    file = tmp_path / "weights.pt"
    file.write_bytes(checkpoint(at_authors))
    flags = [flag.format(file=file) for flag in flags]
    assert command("import-checkpoint", tmp_path / "run", *flags) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_other_stages_take_no_checkpoint(tmp_path, capsys):
    assert command("search", tmp_path / "run", "--checkpoint=x.pt") == 2
    assert "import-checkpoint alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        # Neither a name nor a shape without numbers makes a large network.
        ("cells.999.preprocess0.op.1.weight", (1, 1), "of 4 cells"),
        ("stem.0.weight", (0, 2**40, 3, 3), "with stem.0.weight of 4 axes"),
        ("classifier.bias", (0,), "with classifier.bias of 1 axes"),
    ],
)
def test_no_network_is_made_of_sizes_without_weights(
    at_authors, name, shape, complaint
):
    state = {**at_authors, name: np.zeros(shape, "float32")}
    with pytest.raises(UsageError, match=complaint):
        models.network(
            state, published.get("att_darts"), image_size=(8, 8)
        )
