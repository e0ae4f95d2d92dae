"""How the cost of a search step grows, one setting at a time.

    python -m benchmarks.growth --folder=docs/growth

Runs `benchmarks.search_step` for every setting that the folder has no line of
yet, one after the other, writes its lines of JSON to `steps.jsonl`, draws
`steps.png` and prints a table. Half an hour on two cores.
"""

import json
import pathlib
import subprocess
import sys

from att_darts_tf.space import search_space
from benchmarks import measure

VARIED = {
    "channels": (8, 16, 32),
    "cells": (5, 8, 14),
    "batch": (8, 16, 32, 64),
    "location": tuple(search_space.SEARCH_SPACES),
    "order": (
        "first",
        "first, none",
        "first, all",
        "second",
        "second, none",
        "second, exact",
    ),
}
_FLAGS = {
    "none": {"recompute": "none"},
    "all": {"recompute": "all"},
    "exact": {"implicit": "exact"},
}
# Off the lines above: what the estimate of memory has not been fitted to.
OTHERS = (
    {"channels": 8, "cells": 5, "batch": 32, "location": "end"},
    {
        "channels": 24,
        "cells": 6,
        "batch": 8,
        "location": "double_mixed",
        "order": "second",
    },
    {"batch": 64, "microbatch": 16},
    {"precision": "mixed_bfloat16"},
)


def setting_of(name, value):
    """Returns the flags of a point of a plot, by name."""
    if name != "order":
        return {name: value}
    order, *more = value.split(", ")
    return {
        "order": order,
        **{k: v for m in more for k, v in _FLAGS[m].items()},
    }


def read(file):
    """Returns the measured figures, a list of dictionaries."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def find(measured, setting):
    """Returns the figures of a setting, or `None`."""
    defaults = {
        "channels": 16,
        "cells": 8,
        "batch": 16,
        "location": "after_every",
        "order": "first",
        "implicit": "finite_difference",
        "recompute": "large",
        "microbatch": 0,
        "precision": "float32",
        "jit": False,
        "plain": False,
    }
    wanted = {**defaults, **setting}
    for figures in measured:
        if wanted.items() <= figures.items():
            return figures
    return None


def main():
    options = measure.parser(
        __doc__, folder="docs/growth", steps=5
    ).parse_args()
    folder = pathlib.Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "steps.jsonl"
    settings = [
        setting_of(name, value)
        for name, values in VARIED.items()
        for value in values
    ]
    for setting in (*settings, *OTHERS):
        if find(read(file), setting):
            continue
        flags = [f"--{name}={value}" for name, value in setting.items()]
        output = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.search_step",
                f"--steps={options.steps}",
                *flags,
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        line = output.splitlines()[-1]
        with file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")
        figures = json.loads(line)
        print(
            *flags,
            f"{figures['seconds_per_step']['median']} s",
            f"{figures['peak_memory_gb']} GB",
            flush=True,
        )
    draw(read(file)).savefig(folder / "steps.png", dpi=80)
    print(table(read(file)))


def table(measured):
    """Returns the figures as a table in Markdown."""
    lines = [
        "| | one step, s | to the first, s | peak memory, GB | nodes |",
        "|---|---|---|---|---|",
    ]
    settings = [
        (f"{name} {value}", setting_of(name, value))
        for name, values in VARIED.items()
        for value in values
    ]
    settings += [
        (", ".join(f"{k} {v}" for k, v in other.items()), other)
        for other in OTHERS
    ]
    for title, setting in settings:
        figures = find(measured, setting)
        lines.append(
            f"| {title} | {figures['seconds_per_step']['median']:.2f} "
            f"| {figures['seconds_to_first_step']:.0f} "
            f"| {figures['peak_memory_gb']:.1f} "
            f"| {figures['graph_nodes']:,} |"
        )
    return "\n".join(lines)


def draw(measured):
    """Returns a figure of seconds, memory and the wait for the first step."""
    from matplotlib import figure as figures

    rows = {
        "seconds a step": lambda f: f["seconds_per_step"]["median"],
        "seconds to the first step": lambda f: f["seconds_to_first_step"],
        "peak memory, GB": lambda f: f["peak_memory_gb"],
    }
    figure = figures.Figure(figsize=(17, 9))
    axes = figure.subplots(len(rows), len(VARIED), sharey="row")
    for column, (name, values) in enumerate(VARIED.items()):
        found = [find(measured, setting_of(name, each)) for each in values]
        for axis, (title, figure_of) in zip(
            axes[:, column], rows.items(), strict=True
        ):
            heights = [figure_of(each) for each in found]
            if isinstance(values[0], int):
                axis.plot(values, heights, "o-")
                axis.set_xticks(values)
            else:
                axis.bar(range(len(values)), heights)
                axis.set_xticks(
                    range(len(values)), values, rotation=30, ha="right"
                )
            axis.grid(axis="y", alpha=0.3)
            if column == 0:
                axis.set_ylabel(title)
        axes[-1, column].set_xlabel(name)
    # Rows share their heights, so only now the highest is known.
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)
    figure.suptitle(
        "A search step: 16 channels, 8 cells, batch 16, after_every, first "
        "order, but for what an axis says"
    )
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
