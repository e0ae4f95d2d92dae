"""The stage `prepare`: images of any source -> files that every stage reads.

Reading (`datasets`), ranking and writing (`parts`) and what runs them (`beam`)
know nothing of each other; here they are joined.
"""

import contextlib
import hashlib
import json
import logging as python_logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from att_darts_tf import durations, memory, stages, storage
from att_darts_tf.data import (
    datasets,
    page,
    parts,
    prepared,
    shards,
    statistics,
)
from att_darts_tf.engine import lineage, workdir
from att_darts_tf.errors import UsageError

# What decides the prepared images; the rest of `config.data` is augmentation.
DECISIVE = (
    "name",
    "data_dir",
    "image_size",
    "channels",
    "test_fraction",
    "halves",
    "broken_fraction",
    "augmentation",
)
BROKEN = "broken.txt"
# Of the source's files, when they were read, and of the code that did; it
# changes no later stage.
STAMP = "stamp.txt"
# Prefix of the folder of what readers leave to writers.
STAGING = ".preparing-"
# Python with TensorFlow and Beam; a worker in a process of its own is one more.
_PROGRAM_GB = 0.75
# Seconds between two looks at how many parts have been read, here and where a
# look is a request.
_PATIENCE, _REMOTE_PATIENCE = 0.25, 5.0


def run_prepare(
    config: ml_collections.ConfigDict, *, output_dir: str | os.PathLike
) -> dict[str, Any]:
    """Writes the images of `config.data` as records, and their description.

    Records are sorted by rank, so their bytes depend on nothing but the
    images: not on the number of workers, nor on what runs them, nor on the
    order of reading. A folder that already holds what is asked for, undamaged,
    is left as it is; parts that a killed preparation has read are not read
    again.

    Args:
        config: `ConfigDict` with the sections `data` and `beam`.
        output_dir: Folder for the record files, `report.html` and
            `dataset.json`, which is written last but for its record. One
            process at a time may write there.

    Returns:
        The content of `dataset.json`.
    """
    begun = time.monotonic()
    folder = storage.path(output_dir)
    description = _prepare(config, folder)
    lineage.write_of_images(
        folder, digest=prepared.digest_of(description), begun=begun
    )
    return description


def _prepare(config, folder) -> dict[str, Any]:
    source = datasets.open_source(config.data)
    asked = {
        **{name: _plain(config.data[name]) for name in DECISIVE},
        "revision": source.revision,
    }
    code = workdir.code_fingerprint(*stages.STAGES["prepare"].code)
    stamp = f"{source.stamp}\n{code}\n"
    finished = _finished(folder, asked, stamp)
    if finished is not None:
        return finished
    run_pipeline = _runner(config, folder)
    staging = folder / f"{STAGING}{_key_of(asked, stamp)}"
    # What may refuse comes before what was prepared goes.
    _tell_memory(config.beam)
    jobs = parts.of(source)
    _begin(folder, staging)
    with _progress(staging, len(jobs)):
        run_pipeline(
            jobs,
            read=parts.Reader(source, config.data, staging),
            plan=parts.Planner(source.name, config.data, staging),
            write=parts.Writer(folder, staging),
            record=parts.Recorder(staging),
        )
    survey = _survey(folder, staging, source, config.data)
    written = _written(staging)
    encoded = datasets.keeps_files(config.data)
    with parts.writing(folder):
        indices = (
            {
                split: _write_index(folder, staging, split, files)
                for split, files in written.items()
            }
            if encoded
            else {}
        )
        description = describe(source, asked, survey, written, indices)
        page.write(folder, description)
        with storage.replacing(folder / STAMP) as partial:
            partial.write_text(stamp, "utf-8")
        _write_description(folder, description)
        storage.remove(staging)
    return description


def describe(
    source: datasets.Source,
    asked: dict[str, Any],
    survey: parts.Survey,
    files: dict[str, list[dict[str, Any]]],
    indices: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns the content of `dataset.json`.

    Args:
        source: Where the images are from.
        asked: The settings that decide them.
        survey: What they are like.
        files: The shards by split, as `Writer` returns them.
        indices: Name and digest of the index by split; none for pixels.
    """
    shape = (*asked["image_size"], survey.channels)
    if survey.sums is None or (
        source.published and shape == statistics.PUBLISHED_SHAPE
    ):
        normalisation, origin = source.published, "published"
    else:
        normalisation = statistics.from_sums(survey.sums)
        origin = "training images"
    splits = {}
    for split in ("train", "test"):
        splits[split] = {
            "examples": survey.examples[split],
            "examples_per_class": survey.histograms[split],
            "files": files[split],
        }
        if indices:
            splits[split]["index"] = indices[split]
        if survey.broken[split]:
            splits[split]["broken"] = dict(survey.broken[split])
    return {
        "format": prepared.FORMAT,
        "name": source.name,
        "image_shape": list(shape),
        "class_names": list(source.class_names),
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
        "normalisation": origin,
        "splits": splits,
        "source": asked,
    }


def _runner(config, folder):
    """Returns what runs the pipeline, or raises `UsageError` without Beam."""
    if config.beam.runner == "DataflowRunner":
        _check_reach(config.data)
    # It warns that it cannot reach what of Google's nothing here uses.
    python_logging.disable(python_logging.WARNING)
    try:
        from att_darts_tf.data import beam
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise UsageError(
            "Expected the package apache-beam, which prepares images. "
            "Received: it is not installed. Run: pip install "
            "'att-darts-tf[beam]', or copy images that are prepared already"
        ) from error
    finally:
        python_logging.disable(python_logging.NOTSET)
    return beam.runner(config.beam, folder)


def _check_reach(settings) -> None:
    """Raises `UsageError` for images that other machines cannot read."""
    for name in ("name", "data_dir"):
        place = settings[name]
        if place and storage.is_dir(place) and not storage.is_remote(place):
            raise UsageError(
                f"Expected config.data.{name} that workers of Dataflow can "
                f"read, as gs://bucket/images. Received: {place}. Copy it "
                "there, or give --config.beam.runner=DirectRunner"
            )


def _tell_memory(settings) -> None:
    if settings.runner != "DirectRunner":
        return
    apart = settings.mode == "multi_processing"
    told = memory.compare(
        _PROGRAM_GB * (1 + (settings.workers if apart else 0)),
        what="a preparation",
        remedy=lambda free: "lower config.beam.workers",
    )
    print(f"prepare: {told}", flush=True)


@contextlib.contextmanager
def _progress(staging, count) -> Iterator[None]:
    """Tells from time to time how many parts have been read."""
    over = threading.Event()

    def done():
        return sum(1 for _ in staging.glob(f"*-?????{parts.SUMMARY}"))

    def watch(seen):
        # Parts of an earlier process say nothing of the pace.
        forecast = durations.Forecast(
            "prepare", steps=count - seen, unit="parts"
        )
        patience = (
            _REMOTE_PATIENCE if storage.is_remote(staging) else _PATIENCE
        )
        last = False
        while not last:
            last = over.wait(patience)
            read = done()
            for _ in range(read - seen):
                forecast.step()
            if read > seen:
                logging.info("Read %d of %d parts", read, count)
            seen = read

    watcher = threading.Thread(
        target=watch, args=(done(),), name="progress", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _survey(folder, staging, source, settings) -> parts.Survey:
    """Returns what was read, or raises `UsageError` for what is wrong."""
    summaries = json.loads((staging / parts.SUMMARIES).read_text("utf-8"))
    try:
        return parts.survey(summaries, source.name, settings)
    except UsageError:
        named = [
            f"{key}\t{reason}\n"
            for each in summaries
            for key, reason in each.get("broken", ())
        ]
        if named:
            (folder / BROKEN).write_bytes(
                "".join(named).encode("utf-8", "surrogateescape")
            )
        storage.remove(staging)
        raise


def _written(staging) -> dict[str, list[dict[str, Any]]]:
    """Returns the shards by split, or raises `UsageError` for a full disk."""
    files = {"train": [], "test": []}
    for shard in json.loads((staging / parts.WRITTEN).read_text("utf-8")):
        if "mistake" in shard:
            raise UsageError(shard["mistake"])
        files[shard["split"]].append(shard["file"])
    return files


def _write_index(folder, staging, split, files) -> dict[str, Any]:
    """Joins the indices of the shards to that of a split."""
    index = np.concatenate(
        [_load(parts.index_of(staging, split, n)) for n in range(len(files))]
    )
    name = shards.INDEX_FILE.format(split)
    with storage.replacing(folder / name) as partial:
        with partial.open("w+b") as file:
            np.save(file, index)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": name, "sha256": sha256}


def _load(path) -> np.ndarray:
    with storage.local(path) as file:
        return np.load(file, allow_pickle=False)


def _key_of(asked, stamp) -> str:
    """Names what is asked for, of which files, and by which code."""
    text = json.dumps([asked, stamp], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finished(folder, asked, stamp) -> dict[str, Any] | None:
    if not (folder / prepared.DESCRIPTION).exists():
        return None
    description = prepared.read_description(folder)
    if description["source"] != asked:
        return None
    file = folder / STAMP
    if not file.exists() or file.read_text("utf-8") != stamp:
        return None
    try:
        prepared.check_files(folder, description)
    except UsageError as error:
        logging.warning("%s: doing so", error)
        return None
    return description


def _begin(folder, staging) -> None:
    """Takes the description away: without it nothing is complete."""
    with parts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (prepared.DESCRIPTION, page.PAGE, BROKEN):
            (folder / name).unlink(missing_ok=True)
        # Of another number of files, some would stay.
        for split in ("train", "test"):
            for file in folder.glob(f"{split}-?????-of-?????.tfrecord"):
                file.unlink()
            (folder / shards.INDEX_FILE.format(split)).unlink(missing_ok=True)
        for pattern in (f"{storage.PARTIAL}*", f"{STAGING}*"):
            for left_over in folder.glob(pattern):
                if left_over.name != staging.name:
                    storage.remove(left_over)
        staging.mkdir(parents=True, exist_ok=True)


def _write_description(folder, description) -> None:
    with storage.replacing(folder / prepared.DESCRIPTION) as partial:
        partial.write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
