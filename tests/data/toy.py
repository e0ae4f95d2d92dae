"""Small settings, images and folders that the tests of `data` share."""

import io
import json

import ml_collections
import numpy as np
import tensorflow as tf
from ml_collections import config_dict
from PIL import Image

from att_darts_tf.configs import base
from att_darts_tf.data import prepared


def config(name="sample", **changes):
    """Returns a configuration with the section that `data` reads."""
    data = {
        "name": str(name),
        "data_dir": config_dict.placeholder(str),
        "image_size": (8, 8),
        "channels": 0,
        "test_fraction": 0.25,
        "halves": "hashed",
        "broken_fraction": 0.0,
        "augmentation": "padded_crop",
        "flip": True,
        "padding": 4,
        "crop_area": (0.08, 1.0),
        "color_jitter": (0.4, 0.4, 0.4, 0.2),
        "evaluation_resize": 256,
    }
    result = ml_collections.ConfigDict({"data": data, "beam": base.beam()})
    result.data.update(changes)
    return result


def images(count, *, shape=(8, 8, 3), seed=0):
    """Draws different images without a black pixel."""
    generator = np.random.default_rng(seed)
    return generator.integers(1, 256, (count, *shape)).astype(np.uint8)


def split(count, *, shape=(8, 8, 3)):
    """Returns a split whose labels are the positions of the images."""
    return prepared.Split(
        images(count, shape=shape), np.arange(count, dtype=np.int32)
    )


def write_image(path, image):
    """Writes an array as the file type that the path names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(image).numpy())


def write_folder(root, *, classes=("cat", "ant"), count=12, shape=(8, 8, 3)):
    """Writes one PNG an image, and returns the images by path under `root`."""
    written = {}
    for number, name in enumerate(classes):
        for index, image in enumerate(images(count, shape=shape, seed=number)):
            path = f"{name}/{index:02d}.png"
            write_image(root / path, image)
            written[path] = image
    return written


def contents(folder):
    """Returns what prepared images have in their files, but not when."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    # Of the files that were read, and their times.
    found.pop("stamp.txt", None)
    if "lineage.json" in found:
        record = json.loads(found["lineage.json"])
        del record["ended"], record["seconds"]
        found["lineage.json"] = json.dumps(record).encode()
    return found


def photo(*, size=(375, 500), seed=0):
    """Draws something as smooth as a photograph, an array of colours."""
    height, width = size
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    return np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
    )


def encode(image, kind="JPEG", *, mode="RGB", **options):
    """Returns the bytes of a file as Pillow writes it."""
    buffer = io.BytesIO()
    options = {"quality": 90, **options} if kind == "JPEG" else options
    Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write_photos(root, *, classes=("cat", "ant"), count=6):
    """Writes files of several kinds and sizes, and returns them by path."""
    kinds = [
        ("jpg", {}),
        ("jpeg", {"mode": "L"}),
        ("jpg", {"mode": "CMYK"}),
        ("png", {"kind": "PNG"}),
        ("jpg", {"progressive": True, "subsampling": 0}),
        ("png", {"kind": "PNG", "mode": "RGBA"}),
    ]
    sizes = [(375, 500), (33, 20), (7, 5), (64, 64), (50, 301)]
    written = {}
    for number, name in enumerate(classes):
        for index in range(count):
            suffix, options = kinds[index % len(kinds)]
            size = sizes[index % len(sizes)]
            image = photo(size=size, seed=100 * number + index)
            path = f"{name}/{index:02d}.{suffix}"
            written[path] = encode(image, **options)
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(written[path])
    return written


def encoded_config(name, **changes):
    """Returns a configuration whose images are kept as files."""
    changes = {
        "augmentation": "resized_crop",
        "image_size": (24, 20),
        "channels": 3,
        "evaluation_resize": 28,
        **changes,
    }
    return config(name, **changes)
