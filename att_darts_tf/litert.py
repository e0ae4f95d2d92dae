"""A served network as a file for LiteRT, which phones have for TensorFlow.

The interpreter is TensorFlow's own, of the same version as the converter: the
package `ai-edge-litert`, which is to replace it, would be required for nothing
but a comparison.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from att_darts_tf.errors import UsageError


def check(compute_dtype: str) -> None:
    """Raises `UsageError` for a network that LiteRT cannot compute.

    Args:
        compute_dtype: String. What its layers compute in.
    """
    if compute_dtype != "float32":
        raise UsageError(
            "Expected a network that was trained with config.engine.precision="
            "float32 beside config.export.litert=true, since LiteRT has no "
            f"such convolutions. Received: {compute_dtype}. Give "
            "--config.export.litert=false"
        )


def convert(
    classify: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    pixels: tf.TensorSpec,
) -> bytes:
    """Returns the content of a `.tflite` file, with LiteRT's own operations.

    Its signature `serving_default` takes `images` and returns `probabilities`,
    in float32 and for any number of images.

    Args:
        classify: Maps images to `probabilities` and more.
        pixels: Of the images.
    """
    module = tf.Module()

    @tf.function(input_signature=[pixels], autograph=False)
    def predict(images):
        return {"probabilities": classify(images)["probabilities"]}

    module.predict = predict
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [predict.get_concrete_function()], module
    )
    try:
        return converter.convert()
    except ConverterError as error:
        raise UsageError(
            "Expected a network of operations that LiteRT has, beside "
            "config.export.litert=true. Received: "
            f"{str(error).splitlines()[0]} Give --config.export.litert=false"
        ) from error


def probabilities(content: bytes, images: np.ndarray) -> np.ndarray:
    """Returns what LiteRT makes of images.

    Args:
        content: Bytes, as `convert` returns them.
        images: `uint8` array of shape `(batch, height, width, channels)`.
    """
    with warnings.catch_warnings():
        # That it goes with a later TensorFlow than is required here.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter")
        interpreter = tf.lite.Interpreter(model_content=content)
    run = interpreter.get_signature_runner("serving_default")
    return run(images=images)["probabilities"]
