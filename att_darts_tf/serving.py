"""Stage: a trained network -> a SavedModel that needs TensorFlow alone.

Its folder is one that TensorFlow Serving takes: `NAME/VERSION/`, with requests
that warm the server up, the labels and a model card in `assets.extra`.
"""

import contextlib
import os
import pathlib
import shlex
import statistics
import string
import sys
import time
from collections.abc import Iterator

import ml_collections
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from att_darts_tf import (
    durations,
    litert,
    model_card,
    stages,
    storage,
    warm_up,
)
from att_darts_tf.data import (
    augment,
    input_pipeline,
    prepared,
    preprocess,
)
from att_darts_tf.engine import devices, lineage, stage_folder, workdir
from att_darts_tf.engine.writing import writing
from att_darts_tf.errors import UsageError, printable
from att_darts_tf.network import cost, evaluate, memory
from att_darts_tf.network import network as network_module

PIXELS, ENCODED = "serving_default", "encoded"
# Between the probabilities of the SavedModel and of the trained network.
TOLERANCE = 1e-5
# Between those of LiteRT and of the SavedModel. Its kernels sum in an order of
# their own: measured, up to 3 times the SavedModel's difference from the
# network, of 3 to 20 cells with random weights and large logits.
LITERT_TOLERANCE = 10 * TOLERANCE
_IMAGES_COMPARED = 32
# Of each signature's requests for a server that starts.
WARM_UP_BATCHES = (1, 8)
LABELS, CARD = "labels.txt", "model_card.md"
_EVALUATION = {
    "accuracies": [float],
    "losses": [float],
    "mean": float,
    "images": int,
}
# Of the network, in memory: that of the SavedModel and that which is read back.
_GRAPHS = 2
# A whole export beside its beginning, reading the network and tracing it.
_TIMES_AS_LONG, _WITH_LITERT = 2.4, 0.8

_SCRIPT = string.Template('''\
"""Classifies images with the model beside this file.

    python classify.py IMAGE [IMAGE ...]

prints a line for each image: its name, the most probable label and the
probability. Images are JPEG or PNG files of any size. Needs TensorFlow.

Exit status: 0 done, 2 a mistake in the command or its files.
"""

import os
import pathlib
import sys

MODEL = pathlib.Path(__file__).resolve().parent / "$name" / "$version"


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
            "read. Keep this file beside the exported folder `$name`"
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
''')


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
    evaluation: str | os.PathLike | None = None,
) -> dict:
    """Writes a trained network as a SavedModel, and a script that uses it.

    The signature `serving_default` takes `images`, `uint8` of shape
    `(batch, height, width, channels)`; `encoded` takes `contents`, a string
    tensor of shape `(batch,)` of JPEG or PNG files of any size. Both return
    `probabilities`, `label` and `label_name`.

    Args:
        config: The resolved configuration; `config.export` names the folders.
        data_dir: Folder of the prepared images.
        model: Folder of the training, with a `model.keras`.
        output_dir: Folder of the result, of `NAME/VERSION`, of `classify.py`
            and, if it is asked for, of `NAME.tflite`.
        evaluation: Folder of an evaluation of this network, which the model
            card then shows; needed where `config.export.least_accuracy` is
            above 0.

    Returns:
        `model`, the folder of the SavedModel; its `signatures`, `class_names`
        and `image_shape`; the `largest_difference` of its probabilities on
        some training images from the trained network's; the `command` that
        classifies an image; the network's `cost`, as `cost.count` returns it;
        and the `latencies` of the SavedModel here: of each `batch` the
        `median`, `least` and `most` milliseconds. `litert` is `None`, or the
        `model` for LiteRT and the `largest_difference` of its probabilities
        from the SavedModel's.
    """
    data = prepared.load(data_dir)
    file = storage.path(model) / "model.keras"
    reads = {"data": data_dir, "model": model}
    inputs = {"model": file}
    if evaluation is not None:
        reads["evaluation"] = evaluation
        inputs["evaluation"] = storage.path(evaluation) / "result.json"
    inputs |= {
        f"lineage_{name}": record
        for name, folder in reads.items()
        for record in [storage.path(folder) / lineage.FILE]
        if record.exists()
    }
    identity = workdir.identity(
        config,
        sections=("engine", "export"),
        code=stages.STAGES["export"].code,
        # It decides whether there is a model, not what it is like.
        without_influence=(
            *workdir.WITHOUT_INFLUENCE,
            "export.least_accuracy",
        ),
        inputs=inputs,
        data={
            "digest": data.digest,
            **preprocess.evaluation_settings(config.data),
        },
    )
    with stage_folder.StageFolder(
        output_dir,
        stage="export",
        identity=identity,
        reads=reads.values(),
        # A server has its versions, each of which is replaced whole.
        stays=(config.export.name,),
    ) as folder:
        result = folder.result()
        if result is not None:
            return result
        judged = None if evaluation is None else _judged(evaluation, file)
        _check_accuracy(config.export.least_accuracy, judged)
        devices.configure(config)
        begun = time.monotonic()
        network = network_module.load(file)
        evaluate.check_fits(network, data=data, file=file)
        _check_channels(data)
        settings = config.export
        if settings.litert:
            litert.check(network.compute_dtype)
        told = memory.check_inference(
            network, _IMAGES_COMPARED, graphs=_GRAPHS
        )
        print(f"export: {told}", flush=True)
        preprocessing = preprocess.of(config.data, data)
        classifier = Classifier(network, data, preprocessing)
        times = _TIMES_AS_LONG + settings.litert * _WITH_LITERT
        seconds = times * (time.monotonic() - begun)
        print(f"export: takes about {durations.duration(seconds)}", flush=True)
        saved = folder.path / settings.name / str(settings.version)
        script = folder.path / "classify.py"
        command = [sys.executable, str(script.absolute()), "IMAGE"]
        result = {
            "model": str(saved),
            "signatures": [PIXELS, ENCODED],
            "class_names": list(data.class_names),
            "image_shape": list(data.image_shape),
            "command": shlex.join(command),
            "cost": cost.count(network),
            "litert": None,
        }
        split = data.split("train").head(_IMAGES_COMPARED)
        inputs = _inputs(split, preprocessing)
        with _becoming(saved, within=folder.path) as unfinished:
            with writing(saved):
                classifier.save(unfinished)
            signatures = tf.saved_model.load(str(unfinished)).signatures
            result["largest_difference"] = _largest_difference(
                network,
                signatures,
                inputs=inputs,
                batches=input_pipeline.evaluation_batches(
                    split, preprocessing=preprocessing, batch_size=len(split)
                ),
                file=file,
            )
            if settings.litert:
                place = folder.path / f"{settings.name}.tflite"
                result["litert"] = {
                    "model": str(place),
                    "largest_difference": _write_litert(
                        classifier, signatures, inputs=inputs, path=place
                    ),
                }
            requests = _requests(settings.name, inputs)
            with writing(saved):
                warm_up.write(unfinished, requests)
            _try_requests(unfinished, signatures)
            result["latencies"] = _latencies(
                signatures[PIXELS], data.image_shape
            )
            extra = unfinished / lineage.EXTRA
            workdir.write_atomically(
                extra / LABELS,
                "".join(
                    f"{printable(name)}\n"
                    for name in data.class_names
                ),
            )
            card = model_card.render(
                settings,
                network=network,
                data=data,
                evaluation=judged,
                costs={name: result[name] for name in ("cost", "latencies")},
                lineages=folder.ancestors,
                requests=f"{len(requests)} requests of up to "
                f"{_largest_batch(inputs)} training images",
            )
            workdir.write_atomically(extra / CARD, card)
            graph = "saved_model.pb"
            files = {
                path.relative_to(unfinished).as_posix(): workdir.digest(path)
                for path in unfinished.rglob("*")
                if path.is_file()
            }
            folder.record(extra, result=(graph, files.pop(graph)), files=files)
        workdir.write_atomically(
            script,
            _SCRIPT.substitute(name=settings.name, version=settings.version),
        )
        return folder.finish(result)


def _judged(evaluation, file) -> model_card.Evaluation:
    """Returns an evaluation and the place in it of the network of a file."""
    folder = storage.path(evaluation)
    identity = workdir.read_record(
        folder / "identity.json",
        {"inputs": dict},
        format=workdir.IDENTITY_FORMAT,
    )
    networks = [
        name
        for name, digest in identity["inputs"].items()
        if digest == workdir.digest(file)
    ]
    if not networks:
        raise UsageError(
            f"Expected an evaluation of {file}. Received: one of other "
            f"networks, {folder}. Evaluate this one, or leave the evaluation "
            "out"
        )
    result = workdir.read_record(
        folder / "result.json", _EVALUATION, format=workdir.RESULT_FORMAT
    )
    return model_card.Evaluation(result, int(networks[0].split("_")[1]))


def _check_accuracy(least, judged) -> None:
    """Raises `UsageError` for networks that are not to be served."""
    received = 0.0 if judged is None else judged.result["mean"]
    if received < least:
        raise UsageError(
            "Expected a mean test accuracy of at least config.export."
            f"least_accuracy={least}. Received: "
            + ("no evaluation" if judged is None else f"{received:.4f}")
            + ". Evaluate first, train longer, or give "
            "--config.export.least_accuracy=0"
        )


def _check_channels(data) -> None:
    channels = data.image_shape[-1]
    if channels not in (1, 3):
        raise UsageError(
            "Expected a network for images of 1 or 3 channels, as files have. "
            f"Received: one for {channels}, as in {data.folder}. Prepare "
            "images with config.data.channels=3 and train again"
        )


@contextlib.contextmanager
def _becoming(
    path: storage.Path, *, within: storage.Path
) -> Iterator[pathlib.Path]:
    """Gives a new folder, which gets its name once the body has succeeded.

    Args:
        path: Path of the folder. What is there goes before.
        within: Path of a folder around it, on the same disk.
    """
    with contextlib.ExitStack() as stack:
        with writing(path):
            for left_over in (path, *within.glob(f"{storage.PARTIAL}*")):
                storage.remove(left_over)
            place = stack.enter_context(
                storage.temporary_folder(within, prefix=storage.PARTIAL)
            )
        unfinished = pathlib.Path(place, "model")
        yield unfinished
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.move_folder(unfinished, path)


def _inputs(split, preprocessing) -> dict[str, dict[str, tf.Tensor]]:
    """Returns images as each of the signatures takes them."""
    files = split.files()
    pixels = tf.stack([preprocessing.fit(each) for each in files])
    return {PIXELS: {"images": pixels}, ENCODED: {"contents": files}}


def _largest_batch(inputs) -> int:
    return min(WARM_UP_BATCHES[-1], len(inputs[PIXELS]["images"]))


def _requests(model, inputs) -> list:
    """Returns requests of one image and of several, for each signature."""
    batches = sorted({WARM_UP_BATCHES[0], _largest_batch(inputs)})
    return [
        warm_up.request(
            model,
            signature,
            {name: value[:batch] for name, value in tensors.items()},
        )
        for signature, tensors in inputs.items()
        for batch in batches
    ]


def _try_requests(folder, signatures) -> None:
    """Answers the requests of a SavedModel as a server would."""
    promised = warm_up.signatures_of(folder)
    for each in warm_up.read(folder):
        name = each.model_spec.signature_name
        warm_up.answer(each, promised[name], signatures[name])


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
    network, signatures, *, inputs, batches, file
) -> float:
    """Compares both signatures with the network, on training images."""
    with _whole_floats():
        logits = network.predict(batches, verbose=0)
        answers = [
            signatures[name](**tensors) for name, tensors in inputs.items()
        ]
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


def _write_litert(classifier, signatures, *, inputs, path) -> float:
    """Writes the file for LiteRT, if it gives what the SavedModel does."""
    images = inputs[PIXELS]["images"]
    pixels = tf.TensorSpec((None, *images.shape[1:]), tf.uint8, "images")
    content = litert.convert(classifier.classify, pixels)
    with _whole_floats():
        expected = signatures[PIXELS](images)["probabilities"].numpy()
    received = litert.probabilities(content, images.numpy())
    difference = float(np.abs(received - expected).max())
    if not difference <= LITERT_TOLERANCE:
        raise UsageError(
            "Expected LiteRT to give the probabilities of the SavedModel to "
            f"{LITERT_TOLERANCE}. Received: a difference of {difference}. "
            "Give --config.export.litert=false"
        )
    workdir.write_atomically(path, content)
    return difference


@contextlib.contextmanager
def _whole_floats() -> Iterator[None]:
    """Keeps kernels of reduced precision out, which a GPU may take."""
    experimental = tf.config.experimental
    before = experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        experimental.enable_tensor_float_32_execution(before)
