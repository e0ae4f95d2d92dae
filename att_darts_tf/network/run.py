"""Stages: candidates -> the best cells; cells -> a trained network."""

import json
import math
import os
from collections.abc import Sequence

import ml_collections

from att_darts_tf import stages, storage
from att_darts_tf.data import prepared, preprocess
from att_darts_tf.engine import devices, stage_folder, workdir
from att_darts_tf.errors import InfeasibleError, UsageError
from att_darts_tf.network import evaluate, trainer
from att_darts_tf.network import network as network_module
from att_darts_tf.space import published
from att_darts_tf.space.genotype import Genotype


def run_selection(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    genotypes: list[str | os.PathLike],
    output_dir: str | os.PathLike,
) -> dict:
    """Trains every candidate briefly and keeps the best.

    Candidates are trained on the weight half of the training images and
    judged on the other; the test split plays no part.

    Source: Liu et al., 2019, https://arxiv.org/abs/1806.09055, section 3.1.

    Args:
        config: The resolved configuration; `config.selection` is the recipe.
        data_dir: Folder of the prepared images.
        genotypes: Genotype files, one for each of `config.search.seeds`.
        output_dir: Folder of the result and of the chosen `genotype.json`.

    Returns:
        `candidates`, the index that was `chosen`, and the `reason`.
    """
    seeds = config.search.seeds
    if len(genotypes) != len(seeds):
        raise UsageError(
            f"Expected one genotype for each of the seeds {tuple(seeds)}. "
            f"Received: {len(genotypes)}. Name as many, or change "
            "config.search.seeds"
        )
    # Before TensorFlow is used otherwise.
    team = devices.team(devices.strategy(config))
    data = prepared.load(data_dir)
    cells = [Genotype.read(path) for path in genotypes]
    identity = _identity(
        config,
        "selection",
        data=data,
        judged_on=preprocess.evaluation_settings(config.data),
        seeds=list(seeds),
        genotypes=[json.loads(each.to_json()) for each in cells],
    )
    with stage_folder.StageFolder(
        output_dir,
        stage="select",
        identity=identity,
        reads=[data_dir, *genotypes],
        team=team,
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        candidates = []
        for i, (file, genotype, seed) in enumerate(
            zip(genotypes, cells, seeds, strict=True)
        ):
            # All begin alike and see the same batches: what differs is cells.
            judged = run_candidate(
                config,
                section="selection",
                data=data,
                genotype=genotype,
                reads=[data_dir, file],
                # Not in a copy, where a process has one.
                output_dir=storage.path(output_dir) / f"candidate-{i}",
                stage="select",
                label=f"selection, candidate {i + 1} of {len(cells)}",
                alike=len(cells) - i - 1,
            )
            candidates.append(
                {"genotype_file": str(file), "seed": seed, **judged}
            )
        chosen = choose(candidates)
        cells[chosen].write(folder.path / "genotype.json")
        return folder.finish(
            {
                "candidates": candidates,
                "chosen": chosen,
                "reason": explain(candidates, chosen),
            }
        )


def choose(candidates: list[dict]) -> int:
    """Returns the index of the most accurate; a tie goes to the lower seed."""
    return min(
        range(len(candidates)),
        key=lambda i: (
            -candidates[i]["validation_accuracy"],
            candidates[i]["seed"],
        ),
    )


def explain(candidates: list[dict], chosen: int) -> str:
    """Returns in a sentence why a candidate was chosen."""
    best = candidates[chosen]
    if len(candidates) == 1:
        return f"seed {best['seed']}, the only candidate"
    others = [c for i, c in enumerate(candidates) if i != chosen]
    second = others[choose(others)]
    figures = [
        f"{100 * candidate['validation_accuracy']:.2f} %"
        for candidate in (best, second)
    ]
    of = f"on {best['validation_images']:,} images not trained on"
    if best["validation_accuracy"] == second["validation_accuracy"]:
        return (
            f"seed {best['seed']}, the lowest seed with the highest "
            f"validation accuracy, {figures[0]} {of}"
        )
    return (
        f"seed {best['seed']}, the highest validation accuracy, {figures[0]} "
        f"{of}; next is seed {second['seed']} with {figures[1]}"
    )


def run_training(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    genotype: str | os.PathLike,
    output_dir: str | os.PathLike,
    seed: int,
    alike: int = 0,
    reads: Sequence[str | os.PathLike] = (),
) -> dict:
    """Trains the network of a genotype on the full training split.

    Args:
        config: The resolved configuration; `config.network` is the recipe.
        data_dir: Folder of the prepared images.
        genotype: One of `published.network_names()`, or the path of a genotype
            file or of a trained network.
        output_dir: Folder of the result and of `model.keras`, the network
            after its last epoch.
        seed: Integer.
        alike: How many trainings come after this one, for the forecast.
        reads: Folders of further stages that the configuration comes from.

    Returns:
        `seed`, `parameters` (without auxiliary head),
        `parameters_with_auxiliary`, `train_accuracy` and `train_loss` of the
        last epoch (with augmentation), `epochs` and `seconds`.
    """
    # Before TensorFlow is used otherwise.
    team = devices.team(devices.strategy(config))
    data = prepared.load(data_dir)
    architecture = published.resolve_network(genotype)
    pretrained = config.network.pretrained
    identity = _identity(
        config,
        "network",
        data=data,
        inputs={"pretrained": pretrained} if pretrained else {},
        seed=seed,
        genotype=published.plain(architecture),
    )
    files = [
        each
        for each in dict.fromkeys((str(genotype), pretrained))
        if storage.is_file(each)
    ]
    with stage_folder.StageFolder(
        output_dir,
        stage="train",
        identity=identity,
        reads=[data_dir, *files, *reads],
        team=team,
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        network, history = trainer.train(
            config,
            config.network,
            data=data,
            split=data.split("train"),
            genotype=architecture,
            seed=seed,
            folder=folder.path,
            label=f"training, seed {seed}",
            alike=alike,
            pretrained=pretrained,
            frozen=config.network.frozen,
        )
        network_module.save(network, folder.path / "model.keras")
        return folder.finish(
            {
                "seed": seed,
                "parameters": network.num_parameters(),
                "parameters_with_auxiliary": network.num_parameters(
                    auxiliary=True
                ),
                "train_accuracy": history[-1]["accuracy"],
                "train_loss": history[-1]["loss"],
                "epochs": len(history),
                "seconds": _total_seconds(history),
            }
        )


def run_candidate(
    config: ml_collections.ConfigDict,
    *,
    section: str,
    data: prepared.PreparedData,
    genotype: Genotype | str,
    reads: Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    stage: str,
    label: str,
    seed: int = 0,
    alike: int = 0,
) -> dict:
    """Trains a network on the weight half and judges it on the other.

    Args:
        config: The resolved configuration.
        section: `"selection"` or `"network"`, the part of it that is the
            recipe.
        data: Description of the prepared images.
        genotype: The cells, or the name of a network without.
        reads: As in `StageFolder`.
        output_dir: Folder of the result.
        stage: As in `StageFolder`.
        label: What progress calls the training.
        seed: Integer.
        alike: How many trainings come after this one, for the forecast.

    Returns:
        `validation_accuracy` and `validation_loss` on the `validation_images`
        of the architecture half, `train_accuracy` of the last epoch,
        `parameters` (without auxiliary head) and `seconds`.
    """
    strategy = devices.strategy(config)
    team = devices.team(strategy)
    recipe = config[section]
    # A selection's recipe begins with random weights.
    pretrained = recipe.get("pretrained", "")
    identity = _identity(
        config,
        section,
        data=data,
        inputs={"pretrained": pretrained} if pretrained else {},
        judged_on=preprocess.evaluation_settings(config.data),
        seed=seed,
        genotype=published.plain(genotype),
    )
    with stage_folder.StageFolder(
        output_dir, stage=stage, identity=identity, reads=reads, team=team
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        network, history = trainer.train(
            config,
            recipe,
            data=data,
            split=data.split("weights"),
            genotype=genotype,
            seed=seed,
            folder=folder.path,
            label=label,
            alike=alike,
            pretrained=pretrained,
            frozen=recipe.get("frozen", False),
        )
        split = data.split("architecture")
        judged = evaluate.judge(
            network,
            split=split,
            preprocessing=preprocess.of(config.data, data),
            strategy=strategy,
        )
        if not math.isfinite(judged.loss):
            raise InfeasibleError(
                "Expected a finite loss on images not trained on. Received: "
                f"{judged.loss} after the last epoch. Lower the learning rate "
                "and use another --workdir"
            )
        return folder.finish(
            {
                "validation_accuracy": judged.accuracy,
                "validation_loss": judged.loss,
                "validation_images": len(split),
                "train_accuracy": history[-1]["accuracy"],
                "parameters": network.num_parameters(),
                "seconds": _total_seconds(history),
            }
        )


def _identity(config, section, *, data, **more) -> dict:
    augmentation = preprocess.training_settings(config.data)
    return workdir.identity(
        config,
        sections=("engine", section),
        code=stages.STAGES["train"].code,
        data={"digest": data.digest, **augmentation},
        **more,
    )


def _total_seconds(history) -> float:
    return sum(epoch["seconds"] for epoch in history)
