"""A page of prepared images: how many of each class, what they look like."""

import base64
import html
from typing import Any

import numpy as np
import tensorflow as tf

from att_darts_tf import storage
from att_darts_tf.data import images

PAGE = "report.html"
# Of the grid: classes, images of each, records looked through for them, and
# the longest side in pixels.
_CLASSES, _COLUMNS, _RECORDS, _SIDE = 20, 10, 2000, 64
_STYLE = """\
body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.1em .6em;text-align:left}
td.n{text-align:right}
.bar{background:#4477aa;height:.8em;min-width:1px}
.test{background:#ccbb44}
img{image-rendering:pixelated;max-width:100%}
"""


def write(folder: storage.Path, description: dict[str, Any]) -> None:
    """Writes `report.html`, a file that loads nothing.

    Args:
        folder: Path of the prepared images.
        description: The content of `dataset.json`.
    """
    with storage.replacing(folder / PAGE) as partial:
        # Names of folders need not be text.
        partial.write_bytes(
            render(folder, description).encode("utf-8", "replace")
        )


def render(folder: storage.Path, description: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        folder: Path of the prepared images.
        description: The content of `dataset.json`.
    """
    splits = description["splits"]
    height, width, channels = description["image_shape"]
    name = html.escape(description["name"])
    counts = " and ".join(
        f"{splits[split]['examples']:,} {word} images"
        for split, word in (("train", "training"), ("test", "test"))
    )
    per_channel = "; ".join(
        f"{mean:.4f} +- {std:.4f}"
        for mean, std in zip(description["mean"], description["std"])
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><meta charset="utf-8"><title>{name}</title>',
            f"<style>{_STYLE}</style>",
            f"<h1>{name}</h1>",
            f"<p>{counts}, for a network that sees {height} x {width} x "
            f"{channels}. Mean and deviation of each channel, where 255 is 1: "
            f"{per_channel} ({html.escape(description['normalisation'])}).</p>",
            "<h2>Classes</h2>",
            *_histogram(description),
            "<h2>Images to train on</h2>",
            _grid(folder, description),
            "<h2>Broken files</h2>",
            *_broken(splits),
            "</html>",
            "",
        ]
    )


def _histogram(description) -> list[str]:
    train, test = (
        description["splits"][split]["examples_per_class"]
        for split in ("train", "test")
    )
    most = max(*train, *test, 1)
    rows = [
        f"<tr><td>{html.escape(name)}</td>"
        f'<td class="n">{train[label]:,}</td><td class="n">{test[label]:,}'
        f'</td><td style="width:20em">'
        f'<div class="bar" style="width:{100 * train[label] / most:.1f}%">'
        "</div>"
        f'<div class="bar test" style="width:{100 * test[label] / most:.1f}%">'
        "</div></td></tr>"
        for label, name in enumerate(description["class_names"])
    ]
    return [
        "<table><tr><th>class</th><th>train</th><th>test</th><th></th></tr>",
        *rows,
        "</table>",
    ]


def _grid(folder, description) -> str:
    """Returns an image: a row for a class, from the first records."""
    shape = description["image_shape"]
    classes = min(_CLASSES, len(description["class_names"]))
    scale = min(1.0, _SIDE / max(shape[:2]))
    height, width = (max(1, round(side * scale)) for side in shape[:2])
    grid = np.full((classes, _COLUMNS, height, width, 3), 255, np.uint8)
    found = [0] * classes
    files = [
        str(folder / file["name"])
        for file in description["splits"]["train"]["files"]
    ]
    encoded = "index" in description["splits"]["train"]
    records = tf.data.TFRecordDataset(files).take(_RECORDS)
    for record in records.as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        label = feature["label"].int64_list.value[0]
        if label >= classes or found[label] == _COLUMNS:
            continue
        content = feature["image"].bytes_list.value[0]
        if encoded:
            image = images.decode(content, channels=3)
        else:
            pixels = np.frombuffer(content, np.uint8).reshape(shape)
            image = images.convert(pixels, channels=3)
        grid[label, found[label]] = images.resize(
            image, height=height, width=width
        )
        found[label] += 1
        if min(found) == _COLUMNS:
            break
    sheet = grid.swapaxes(1, 2).reshape(
        classes * height, _COLUMNS * width, 3
    )
    data = base64.b64encode(tf.io.encode_png(sheet).numpy()).decode()
    names = ", ".join(description["class_names"][:classes])
    return (
        f'<img width="{2 * _COLUMNS * width}" alt="A row of images of each '
        f'class: {html.escape(names)}" src="data:image/png;base64,{data}">'
    )


def _broken(splits) -> list[str]:
    rows = [
        f"<tr><td>{html.escape(key.encode('utf-8', 'replace').decode())}</td>"
        f"<td>{html.escape(reason)}</td></tr>"
        for split in splits.values()
        for key, reason in split.get("broken", {}).items()
    ]
    return ["<table>", *rows, "</table>"] if rows else ["<p>None.</p>"]
