"""The checks that take longer than `make test` may.

    python -m tests.verify [FOLDER]

Compares with every file of the authors' numbers in FOLDER, plants every
defect, stops a run of the demo twenty times, and feeds each reader of foreign
files 100,000 damaged ones. Each step's outcome is kept in `runs/verify/` until
a source or the file changes, so a stopped run goes on where it was. Writes the
table `results/verify.md`, and ends with status 1 if a step fails.
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import time

from tests import fuzz, planted

ROOT = pathlib.Path(__file__).parents[1]
KEPT = ROOT / "runs" / "verify"
TABLE = ROOT / "results" / "verify.md"
SOURCES = ("att_darts_tf", "configs", "pipeline", "tests")


def fingerprint():
    """Returns a digest of all sources and of the packages they run on."""
    files = [ROOT / "requirements.lock"]
    for folder in SOURCES:
        files += (ROOT / folder).rglob("*")
    total = hashlib.sha256()
    for path in sorted(files):
        if path.is_file() and path.suffix != ".pyc":
            total.update(path.relative_to(ROOT).as_posix().encode())
            total.update(path.read_bytes())
    for package in ("tensorflow", "keras", "numpy"):
        total.update(importlib.metadata.version(package).encode())
    return total.hexdigest()


def steps(folder):
    """Yields the name, the arguments and the files of every step."""
    for path in sorted(folder.glob("*.npz")) + sorted(folder.glob("*.txt")):
        yield (
            f"numbers of {path.name}",
            ("-m", "tests.reference", str(folder), path.name),
            (path,),
        )
    for defect in planted.DEFECTS:
        yield (
            f"planted: {defect.name}",
            ("-m", "tests.planted", str(folder), f"--only={defect.name}"),
            tuple(folder / name for name in defect.fixtures),
        )
    yield "a demo run stopped 20 times", ("-m", "tests.interruptions"), ()
    for reader in fuzz.READERS:
        yield f"damaged files: {reader}", ("-m", "tests.fuzz", reader), ()


def outcome(arguments, files, code):
    """Returns what a step ended with, running it if that is not known.

    A failure is not kept: it may have been an interruption.
    """
    identity = json.dumps([code, arguments[1:]]).encode()
    for file in files:
        identity += hashlib.sha256(file.read_bytes()).digest()
    kept = KEPT / f"{hashlib.sha256(identity).hexdigest()[:24]}.json"
    if kept.exists():
        return json.loads(kept.read_text("utf-8"))
    begun = time.monotonic()
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = {
        "status": result.returncode,
        "output": result.stdout[-20_000:],
        "seconds": time.monotonic() - begun,
    }
    if result.returncode:
        return found
    KEPT.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps(found), "utf-8")
    unfinished.replace(kept)
    return found


def summary(found):
    """Returns the last line of a step, or of a planted one what found it."""
    lines = [line for line in found["output"].splitlines() if line.strip()]
    line = lines[-1] if lines else "no output"
    if line.startswith("1 defects"):
        line = lines[-2].split(": ", 1)[1]
    # A duration is no result.
    return line.rsplit(", ", 1)[0] if line.endswith(" s") else line


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], prog="python -m tests.verify"
    )
    parser.add_argument(
        "folder", type=pathlib.Path, nargs="?", default=planted.FOLDER
    )
    folder = parser.parse_args(argv).folder.resolve()
    if not (folder / "operations.npz").exists():
        parser.error(
            f"Expected the authors' numbers in {folder}. Received: no "
            "operations.npz. Name their folder"
        )
    code = fingerprint()
    todo = list(steps(folder))
    rows, failed = [], 0
    for i, (name, arguments, files) in enumerate(todo, 1):
        found = outcome(arguments, files, code)
        failed += found["status"] != 0
        verdict = "ok" if found["status"] == 0 else "FAILED"
        print(
            f"{i}/{len(todo)}  {verdict:6}  {found['seconds']:5.0f} s  {name}: "
            f"{summary(found)}",
            flush=True,
        )
        cell = summary(found).replace("|", "\\|")
        rows.append(f"| {name} | {verdict} | {cell} |")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(
        "# The last `make verify`\n\n| step | verdict | outcome |\n"
        "|---|---|---|\n" + "\n".join(rows) + "\n",
        "utf-8",
    )
    print(f"{len(todo)} steps, {failed} failed. Table: {TABLE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
