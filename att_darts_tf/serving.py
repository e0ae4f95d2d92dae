"""Stage: a trained network -> a SavedModel that needs TensorFlow alone."""

import contextlib
import os
import pathlib
import shlex
import statistics
import sys
import time

import ml_collections
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from att_darts_tf import durations, storage
from att_darts_tf.data import (
    augment,
    input_pipeline,
    prepared,
    preprocess,
)
from att_darts_tf.engine import devices, workdir
from att_darts_tf.engine.writing import writing
from att_darts_tf.errors import UsageError
from att_darts_tf.network import cost, evaluate, memory
from att_darts_tf.network import network as network_module

PIXELS, ENCODED = "serving_default", "encoded"
# Between the probabilities of the SavedModel and of the trained network.
TOLERANCE = 1e-5
_IMAGES_COMPARED = 32
# Of the network, in memory: that of the SavedModel and that which is read back.
_GRAPHS = 2
# A whole export beside its beginning, reading the network and tracing it.
_TIMES_AS_LONG = 2.2
_PACKAGES = (*evaluate.PACKAGES, "serving")

_SCRIPT = '''\
"""Classifies images with the model beside this file.

    python classify.py IMAGE [IMAGE ...]

prints a line for each image: its name, the most probable label and the
probability. Images are JPEG or PNG files of any size. Needs TensorFlow.

Exit status: 0 done, 2 a mistake in the command or its files.
"""

import os
import pathlib
import sys

MODEL = pathlib.Path(__file__).resolve().parent / "model"


def main(arguments):
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    if not arguments:
        return refuse(
            "Expected names of JPEG or PNG files. Received: none. "
            "Run: python classify.py IMAGE [IMAGE ...]"
        )
    try:
        tf, model = load()
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        return refuse(
            f"Expected TensorFlow. Received: {sys.executable} without it. "
            "Run: pip install tensorflow"
        )
    except OSError:
        return refuse(
            f"Expected a SavedModel in {MODEL}. Received: none that can be "
            "read. Keep this file beside the exported folder `model`"
        )
    classify = model.signatures["encoded"]
    status = 0
    for name in arguments:
        try:
            with open(name, "rb") as file:
                answer = classify(tf.constant([file.read()]))
        except OSError as error:
            status = refuse(
                f"Expected a readable image. Received: {name}: "
                f"{error.strerror}. Name another"
            )
        except tf.errors.InvalidArgumentError:
            status = refuse(
                f"Expected a JPEG or PNG image. Received: {name}, which "
                "cannot be decoded or is too large. Name another"
            )
        else:
            label = answer["label_name"].numpy()[0].decode()
            probability = answer["probabilities"].numpy().max()
            print(f"{name}: {label} {100 * probability:.2f} %")
    return status


def load():
    # TensorFlow greets at length, and calls the lack of a GPU an error, before
    # any setting reaches it. What fails is an exception all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    visible = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        return tf, tf.saved_model.load(str(MODEL))
    finally:
        os.dup2(visible, 2)
        os.close(visible)
        os.close(nowhere)


def refuse(reason):
    print(f"classify.py: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''


class Classifier(tf.Module):
    """What is served: from pixels, or encoded files, to classes.

    Weights are constants of its graph, since thousands of variables would be
    most of the time of loading it. Only those that inference reads are in it:
    no auxiliary head, no optimizer.

    Args:
        network: A built network.
        data: `PreparedData`, the images that it was trained on.
        preprocessing: Of these images.
    """

    def __init__(self, network, data, preprocessing):
        super().__init__()
        pixels = tf.TensorSpec((None, *data.image_shape), tf.uint8, "images")

        @tf.function(input_signature=[pixels])
        def predict(images):
            inputs = augment.normalise(images, mean=data.mean, std=data.std)
            logits = network(inputs, training=False)
            return tf.nn.softmax(tf.cast(logits, tf.float32))

        frozen = _frozen(predict.get_concrete_function())

        @tf.function(input_signature=[pixels])
        def classify(images):
            probabilities = frozen(images)
            labels = tf.argmax(probabilities, -1, tf.int32)
            return {
                "probabilities": probabilities,
                "label": labels,
                "label_name": tf.gather(list(data.class_names), labels),
            }

        @tf.function(
            input_signature=[tf.TensorSpec((None,), tf.string, "contents")]
        )
        def classify_encoded(contents):
            image = tf.TensorSpec(data.image_shape, tf.uint8)
            return classify(
                tf.map_fn(
                    preprocessing.fit, contents, fn_output_signature=image
                )
            )

        self.classify = classify
        self.classify_encoded = classify_encoded

    def save(self, path):
        """Writes the SavedModel."""
        tf.saved_model.save(
            self,
            str(path),
            signatures={
                PIXELS: self.classify,
                ENCODED: self.classify_encoded,
            },
            # Nobody derives what is served.
            options=tf.saved_model.SaveOptions(
                experimental_custom_gradients=False
            ),
        )


def _frozen(function):
    """Returns a function of one tensor with its variables as constants."""
    convert = (
        convert_to_constants.convert_variables_to_constants_v2_as_graph
    )
    frozen, graph = convert(function)
    for node in graph.node:
        # Whoever serves derives nothing, and would be warned of it.
        node.attr.pop("_gradient_op_type", None)
    imported = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(graph, name=""), []
    )
    return imported.prune(frozen.inputs[0].name, frozen.outputs[0].name)


def run_export(
    config: ml_collections.ConfigDict,
    *,
    data_dir: str | os.PathLike,
    model: str | os.PathLike,
    output_dir: str | os.PathLike,
) -> dict:
    """Writes a trained network as a SavedModel, and a script that uses it.

    The signature `serving_default` takes `images`, `uint8` of shape
    `(batch, height, width, channels)`; `encoded` takes `contents`, a string
    tensor of shape `(batch,)` of JPEG or PNG files of any size. Both return
    `probabilities`, `label` and `label_name`.

    Args:
        config: The resolved configuration.
        data_dir: Folder of the prepared images.
        model: Folder of the training, with a `model.keras`.
        output_dir: Folder of the result, of `model` and of `classify.py`.

    Returns:
        `model`, the folder of the SavedModel; its `signatures`, `class_names`
        and `image_shape`; the `largest_difference` of its probabilities on
        some training images from the trained network's; the `command` that
        classifies an image; the network's `cost`, as `cost.count` returns it;
        and the `latencies` of the SavedModel here: of each `batch` the
        `median`, `least` and `most` milliseconds.
    """
    data = prepared.load(data_dir)
    file = storage.path(model) / "model.keras"
    identity = workdir.identity(
        config,
        sections=("engine",),
        packages=_PACKAGES,
        inputs={"model": file},
        data={
            "digest": data.digest,
            **preprocess.evaluation_settings(config.data),
        },
    )
    with workdir.StageFolder(output_dir, identity=identity) as folder:
        result = folder.result()
        if result is not None:
            return result
        devices.configure(config)
        begun = time.monotonic()
        network = network_module.load(file)
        evaluate.check_fits(network, data=data, file=file)
        _check_channels(data)
        told = memory.check_inference(
            network, _IMAGES_COMPARED, graphs=_GRAPHS
        )
        print(f"export: {told}", flush=True)
        preprocessing = preprocess.of(config.data, data)
        classifier = Classifier(network, data, preprocessing)
        seconds = _TIMES_AS_LONG * (time.monotonic() - begun)
        print(f"export: takes about {durations.duration(seconds)}", flush=True)
        saved = folder.path / "model"
        script = folder.path / "classify.py"
        difference, latencies = _save(
            classifier,
            network,
            data=data,
            preprocessing=preprocessing,
            path=saved,
            file=file,
        )
        workdir.write_atomically(script, _SCRIPT)
        command = [sys.executable, str(script.absolute()), "IMAGE"]
        return folder.finish(
            {
                "model": str(saved),
                "signatures": [PIXELS, ENCODED],
                "class_names": list(data.class_names),
                "image_shape": list(data.image_shape),
                "largest_difference": difference,
                "command": shlex.join(command),
                "cost": cost.count(network),
                "latencies": latencies,
            }
        )


def _check_channels(data) -> None:
    channels = data.image_shape[-1]
    if channels not in (1, 3):
        raise UsageError(
            "Expected a network for images of 1 or 3 channels, as files have. "
            f"Received: one for {channels}, as in {data.folder}. Prepare "
            "images with config.data.channels=3 and train again"
        )


def _save(
    classifier, network, *, data, preprocessing, path, file
) -> tuple[float, list[dict]]:
    """Writes the SavedModel, compares it, and only then gives it its name.

    Returns:
        As `largest_difference` and `latencies` in `run_export`.
    """
    with contextlib.ExitStack() as stack:
        with writing(path):
            for left_over in (path, *path.parent.glob(f"{storage.PARTIAL}*")):
                storage.remove(left_over)
            place = stack.enter_context(
                storage.temporary_folder(path.parent, prefix=storage.PARTIAL)
            )
            unfinished = pathlib.Path(place, "model")
            classifier.save(unfinished)
        signatures = tf.saved_model.load(str(unfinished)).signatures
        difference = _largest_difference(
            network,
            signatures,
            split=data.split("train").head(_IMAGES_COMPARED),
            preprocessing=preprocessing,
            file=file,
        )
        latencies = _latencies(signatures[PIXELS], data.image_shape)
        with writing(path):
            storage.move_folder(unfinished, path)
    return difference, latencies


def _latencies(classify, image_shape) -> list[dict]:
    times = cost.latencies_of(
        lambda images: classify(images)["probabilities"],
        tf.TensorSpec((None, *image_shape), tf.uint8),
    )
    return [
        {
            "batch": batch,
            "median": statistics.median(milliseconds),
            "least": milliseconds[0],
            "most": milliseconds[-1],
        }
        for batch, milliseconds in times
    ]


def _largest_difference(
    network, signatures, *, split, preprocessing, file
) -> float:
    """Compares both signatures with the network, on training images."""
    files = split.files()
    short_floats = tf.config.experimental.tensor_float_32_execution_enabled()
    # On a GPU kernels of reduced precision may differ by more than allowed.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        logits = network.predict(
            input_pipeline.evaluation_batches(
                split, preprocessing=preprocessing, batch_size=len(split)
            ),
            verbose=0,
        )
        answers = [
            signatures[PIXELS](
                tf.stack([preprocessing.fit(each) for each in files])
            ),
            signatures[ENCODED](files),
        ]
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(short_floats)
    if not np.isfinite(logits).all():
        raise UsageError(
            f"Expected a network with finite outputs in {file}. Received: one "
            "whose training diverged. Train again with a lower "
            "config.network.learning_rate"
        )
    expected = tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()
    difference = max(
        float(np.abs(answer["probabilities"].numpy() - expected).max())
        for answer in answers
    )
    if not difference <= TOLERANCE:
        raise RuntimeError(
            "Expected the SavedModel to give the probabilities of the network "
            f"in {file} to {TOLERANCE}. Received: a difference of {difference}"
        )
    return difference
