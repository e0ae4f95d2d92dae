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
)
COLUMNS = "{:44}{:>14}{:>14}{:>12}"


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
        first = next(
            figures[name]
            for name in ("seconds_to_first_step", "seconds_to_first_image")
            if name in figures
        )
        for name, value in figures.items():
            if not name.startswith("seconds_per"):
                continue
            batch = name.removeprefix("seconds_per_step").removeprefix(
                "seconds_per_batch_of"
            )
            title = " ".join([module, *flags, batch.strip("_")]).strip()
            print(
                COLUMNS.format(
                    title, value["median"], first, figures["peak_memory_gb"]
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
