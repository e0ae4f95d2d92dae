"""Keeps the figures of a finished run under version control.

    python -m benchmarks.record --workdir=runs/cpu --folder=results/cifar10-cpu

Copies what the run found (cells, curves, figures, how it was made) into a
folder, beside a picture of the curves, and prints times and accuracy. Curves
are those of the first seed and of the first training. Paths below the current
folder lose its name, which is that of one machine.
"""

import argparse
import csv
import json
import pathlib
import shutil

from att_darts_tf.durations import duration

# What is copied where it is there, with its name in the folder.
FILES = {
    "search/seed-0/genotype.json": "search-genotype.json",
    "selection/genotype.json": "genotype.json",
    "search/seed-0/history.csv": "search.csv",
    "search/seed-0/lineage.json": "search-lineage.json",
    "training/repeat-0/history.csv": "training.csv",
    "training/repeat-0/lineage.json": "training-lineage.json",
    "training/repeat-0/result.json": "training.json",
    "evaluation/result.json": "evaluation.json",
    "report/normal.png": "normal.png",
    "report/reduce.png": "reduce.png",
}
_AXES = {"loss": "loss", "accuracy": "accuracy, %"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FILES.values(), "curves.png"):
        (folder / name).unlink(missing_ok=True)
    for name, copy in FILES.items():
        if (options.workdir / name).exists():
            shutil.copyfile(options.workdir / name, folder / copy)
    here = f"{pathlib.Path.cwd()}/"
    for file in folder.glob("*.json"):
        file.write_text(file.read_text("utf-8").replace(here, ""), "utf-8")
    curves = {
        name: read(folder / f"{name}.csv")
        for name in ("search", "training")
        if (folder / f"{name}.csv").exists()
    }
    draw(curves).savefig(folder / "curves.png", dpi=80)
    for name, epochs in curves.items():
        seconds = sum(epoch["seconds"] for epoch in epochs)
        print(f"{name}: {len(epochs)} epochs in {duration(seconds)}")
    if (folder / "evaluation.json").exists():
        found = json.loads((folder / "evaluation.json").read_text("utf-8"))
        print(f"test accuracy: {100 * found['mean']:.2f} %")


def read(path):
    """Returns the epochs of a `history.csv`."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def draw(curves):
    """Returns a figure of losses and accuracies by epoch.

    Args:
        curves: Epochs by the name of what was trained.
    """
    from matplotlib import figure as figures

    figure = figures.Figure(figsize=(5 * len(_AXES), 4 * len(curves)))
    rows = figure.subplots(len(curves), len(_AXES), squeeze=False)
    for row, (name, epochs) in zip(rows, curves.items(), strict=True):
        numbers = [epoch["epoch"] + 1 for epoch in epochs]
        for axis, (kind, label) in zip(row, _AXES.items(), strict=True):
            for column in epochs[0]:
                if column.endswith(kind):
                    scale = 100 if kind == "accuracy" else 1
                    axis.plot(
                        numbers,
                        [scale * epoch[column] for epoch in epochs],
                        marker="o",
                        label=column,
                    )
            axis.set_xlabel("epoch")
            axis.set_ylabel(label)
            axis.set_title(name)
            axis.grid(alpha=0.3)
            axis.legend()
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
