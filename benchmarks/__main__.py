"""Runs a short set of benchmarks, one after the other, and prints a table.

    python -m benchmarks
"""

import json
import subprocess
import sys

SHORT_SET = (
    ("search_step",),
    ("search_step", "--order=second"),
    ("search_step", "--order=second", "--implicit=exact"),
    ("network_step",),
    ("inference",),
    ("input_pipeline",),
    ("input_pipeline", "--augmentation=resized_crop", "--steps=20"),
)
COLUMNS = "{:60}{:>10}{:>10}{:>10}"


def main():
    print(COLUMNS.format("", "median s", "first s", "peak GB"))
    for module, *flags in SHORT_SET:
        output = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{module}", *flags],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        figures = json.loads(output.splitlines()[-1])
        title = " ".join((module, *flags))
        first = [v for k, v in figures.items() if k.startswith("seconds_to_f")]
        for name, seconds in figures.items():
            if name.startswith("seconds_per"):
                rest = name.removeprefix("seconds_per_").replace("_", " ")
                print(
                    COLUMNS.format(
                        f"{title}, a {rest}",
                        seconds["median"],
                        *first,
                        figures["peak_memory_gb"],
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
