"""Every setting of a run with its default, unit and reader.

A configuration is data: nothing here imports the library. The values are the
CIFAR-10 recipe of Nakai et al., 2020 (which follows Liu et al., 2019,
https://arxiv.org/abs/1806.09055, appendix A) unless a line says otherwise.
"""

import ml_collections
from ml_collections import config_dict


def data():
    return ml_collections.ConfigDict({
        # "sample" (embedded), a folder of images, or a name of TensorFlow
        # Datasets.
        "name": "sample",
        # Where TensorFlow Datasets keeps its data; None is its own default.
        "data_dir": config_dict.placeholder(str),
        # (height, width) in pixels that a network sees.
        "image_size": (32, 32),
        # 1 grey, 3 colour, 0 as the source has them.
        "channels": 0,
        # Share of a folder without `test/` that becomes the test split.
        "test_fraction": 0.2,
        # What trains the weights of a search and what its architecture:
        # "hashed", halves that are alike, or "source_order", the first and
        # the second half in the order of the source, as the released code.
        "halves": "hashed",
        # Largest share of images that cannot be decoded and are left out.
        "broken_fraction": 0.0,
        # "padded_crop": images are resized to "image_size" once; training
        # shifts them. "resized_crop", as for ImageNet: files are kept as they
        # are; training cuts windows out and resizes those.
        "augmentation": "padded_crop",
        # Mirror half of the training images left to right.
        "flip": True,
        # Of "padded_crop", as cutout is: zeros added on each side before the
        # random crop, in pixels.
        "padding": 4,
        # Of "resized_crop", as the next two: smallest and largest share of an
        # image's area that a window has.
        "crop_area": (0.08, 1.0),
        # Strength of changes of brightness, contrast, saturation and hue.
        "color_jitter": (0.4, 0.4, 0.4, 0.2),
        # Pixels of the shorter side before the middle is cut out to be judged.
        "evaluation_resize": 256,
    })


def beam():
    """What prepares the images; the result does not depend on it."""
    return ml_collections.ConfigDict({
        # "DirectRunner" is this machine, "DataflowRunner" Google Cloud.
        "runner": "DirectRunner",
        # Of the former: "in_memory" is one worker, "multi_threading" and
        # "multi_processing" are several, the last one each in a process.
        "mode": "in_memory",
        "workers": 1,
        # Further options of Apache Beam, as "--project=NAME".
        "options": (),
    })


def space():
    return ml_collections.ConfigDict({
        # Where attention goes; see att_darts_tf/space/search_space.py.
        "location": "after_every",
    })


def engine():
    return ml_collections.ConfigDict({
        # What to run on: "default" is one device, "mirrored" several of this
        # machine, "multi_worker" those of the machines that TF_CONFIG names,
        # "tpu" the cores of a TPU (untried).
        "strategy": "default",
        # Devices that "mirrored" takes: GPUs, 0 for all; on a machine without,
        # as many parts of the processor, to try things out.
        "replicas": 0,
        # Normalise by statistics of the whole batch, not of the part that a
        # device has.
        "sync_batch_norm": False,
        # Same bits on every run of the same machine and versions.
        "deterministic": True,
        # What layers compute in: "float32", or "mixed_bfloat16", in which
        # weights, statistics and losses keep full precision.
        "precision": "float32",
        # Compile with XLA; needs "deterministic" False.
        "jit": False,
        # Steps between checkpoints inside an epoch; 0 is once an epoch.
        "checkpoint_steps": 0,
    })


def search():
    return ml_collections.ConfigDict({
        "seeds": (0, 1, 2, 3),
        "cells": 8,
        "channels": 16,
        "epochs": 50,
        # Images of each half in a step.
        "batch_size": 64,
        # Weights: SGD, cosine per epoch from the first to the last.
        "learning_rate": 0.025,
        "final_learning_rate": 0.001,
        "momentum": 0.9,
        "weight_decay": 3e-4,
        "clip_norm": 5.0,
        # Architecture weights: Adam.
        "architecture_learning_rate": 3e-4,
        "architecture_betas": (0.5, 0.999),
        "architecture_weight_decay": 1e-3,
        # Gradient of the architecture weights: "first" at the weights,
        # "second" (the paper's) through a virtual step of theirs, at twice
        # the time.
        "order": "first",
        # How the second order derives that step: "finite_difference" (the
        # paper's too) or "exact".
        "implicit": "finite_difference",
        # Cells whose mixed layers are computed again for their gradients
        # instead of kept, for less memory and more time: "none", "large" (all
        # before the last reduction) or "all", as the exact second order does.
        "recompute": "large",
        # Most images computed at once, at least 2; 0 is the whole batch.
        # Each part is normalised by statistics of its own.
        "microbatch": 0,
    })


def training(epochs):
    """The recipe of a network; selection uses it with fewer epochs."""
    return ml_collections.ConfigDict({
        # Of "densenet_bc" the layers of each block and the growth rate; the
        # paper's are 31 and 40.
        "cells": 20,
        "channels": 36,
        # "small" for images as of CIFAR; "imagenet" divides sizes by 8 first.
        "stem": "small",
        "epochs": epochs,
        "batch_size": 96,
        # SGD, from the first rate on a "cosine" per epoch to the last, or
        # "exponential", by the factor `decay` every epoch.
        "schedule": "cosine",
        "learning_rate": 0.025,
        "final_learning_rate": 0.0,
        "decay": 0.97,
        "momentum": 0.9,
        "weight_decay": 3e-4,
        "clip_norm": 5.0,
        # Share of each label that is spread over all classes.
        "label_smoothing": 0.0,
        # Loss weight of the auxiliary head; 0 builds none.
        "auxiliary_weight": 0.4,
        # Drop-path probability reached after the last epoch.
        "drop_path": 0.2,
        # Side of the erased square in pixels; 0 erases none, which
        # "resized_crop" needs.
        "cutout": 16,
    })


def export():
    return ml_collections.ConfigDict({
        # Folders of the SavedModel, export/NAME/VERSION, and how TensorFlow
        # Serving names it.
        "name": "att_darts",
        # A server takes the highest one that it finds in NAME.
        "version": 1,
        # Write NAME.tflite too, in float32, for LiteRT.
        "litert": False,
        # Mean test accuracy below which nothing is exported, as 0.95.
        "least_accuracy": 0.0,
    })


def pipeline():
    """What the stage `pipeline` does beside the stages of one run."""
    return ml_collections.ConfigDict({
        # Runs to compare with, by the same recipe and on the same images:
        # "random", cells drawn at random, as many as there are searches, and
        # "no_attention", searches of that space.
        "baselines": (),
        # Configurations whose images the selected cells are trained on too,
        # by their recipes, as "cifar:cifar100".
        "targets": (),
        # How often a task that ends with an error is tried again.
        "retries": 0,
    })


def tune():
    """What the stage `tune` tries, which other stages then take."""
    return ml_collections.ConfigDict({
        # "train" tunes `network`, "search" tunes `search` and `space`.
        "stage": "train",
        # "random", "bayesian" or "hyperband".
        "method": "random",
        # As "network.learning_rate=log(0.005,0.5)",
        # "network.weight_decay=linear(0.0,0.001)" or
        # "network.cutout=choice(0,8,16)"; () tunes nothing.
        "space": (),
        # Of "random" and "bayesian".
        "trials": 20,
        # Trainings or searches of each trial; their mean counts.
        "repeats": 1,
        "seed": 0,
    })


def vertex():
    """Where `pipeline --runner=vertex` runs its tasks; see docs/cloud.md."""

    def machine(cpus, memory):
        # Gigabytes; and how many of which accelerator, "" for none.
        return {
            "cpus": cpus,
            "memory": memory,
            "accelerator": "",
            "accelerators": 0,
        }

    return ml_collections.ConfigDict({
        # Of Google Cloud; these four are asked for.
        "project": "",
        "region": "",
        # With this project in it, as of the Dockerfile.
        "image": "",
        # Folder that Vertex AI keeps its own files in, as gs://bucket/pipeline.
        "root": "",
        # Who runs the tasks; "" is the default of the project.
        "service_account": "",
        # What tasks do after another one has failed: "slow" finishes those that
        # can be, "fast" starts none.
        "failure_policy": "fast",
        # As "team=vision".
        "labels": (),
        # Of each search, selection, training and evaluation, beside
        # config.engine.strategy "multi_worker"; and what Compute Engine calls
        # such a machine. Accelerators are those of the task, for each machine.
        "machines": 1,
        "machine_type": "n1-standard-8",
        # Of each kind of task.
        "prepare": machine(8, 32),
        "sample": machine(2, 8),
        "search": machine(8, 32),
        "tune": machine(8, 32),
        "select": machine(8, 32),
        "train": machine(8, 32),
        "evaluate": machine(8, 32),
        "export": machine(4, 16),
        "report": machine(2, 8),
    })


def get_config(variant=""):
    """Returns the configuration; a shipped one names its variants."""
    if variant:
        raise ValueError(
            f"Unknown variant. Expected none. Received: {variant!r}"
        )
    config = ml_collections.ConfigDict({
        "data": data(),
        "beam": beam(),
        "space": space(),
        "engine": engine(),
        "search": search(),
        # Each candidate is trained on the weight half, judged on the other.
        "selection": training(epochs=100),
        "network": training(epochs=600),
        "export": export(),
        "pipeline": pipeline(),
        "tune": tune(),
        "vertex": vertex(),
        # Published results are the mean of several trainings.
        "repeats": 1,
        # Of the device, in any currency: the report multiplies it with the
        # hours; 0 leaves prices out.
        "hourly_price": 0.0,
    })
    # "" trains the selected genotype; else a published cell's name, a file, or
    # "densenet_bc", which has neither auxiliary head nor drop path.
    config.network.cell = ""
    # A model.keras whose weights, but for the classifiers, a training begins
    # with; "" begins with random ones.
    config.network.pretrained = ""
    # Train the classifier alone, on top of those weights.
    config.network.frozen = False
    return config
