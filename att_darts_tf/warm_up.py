"""Requests that a server runs while it loads a model, and their fit.

TensorFlow Serving reads them from `assets.extra/tf_serving_warmup_requests` of
a SavedModel, https://www.tensorflow.org/tfx/serving/saved_model_warmup. What
they are made of is what a client sends, so they try the signatures too.
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

FILE = "assets.extra/tf_serving_warmup_requests"


def request(
    model: str, signature: str, inputs: Mapping[str, Any]
) -> predict_pb2.PredictRequest:
    """Returns the request that a client sends for an answer.

    Args:
        model: String. What the server calls the model.
        signature: String.
        inputs: Tensors or arrays by the signature's names of its inputs.
    """
    made = predict_pb2.PredictRequest()
    made.model_spec.name = model
    made.model_spec.signature_name = signature
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def write(
    model: str | os.PathLike, requests: Iterable[predict_pb2.PredictRequest]
) -> None:
    """Writes the requests into a SavedModel on this machine.

    Args:
        model: Folder of the SavedModel.
        requests: At most 1000.
    """
    file = pathlib.Path(model, FILE)
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for each in requests:
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=each)
            )
            writer.write(log.SerializeToString(deterministic=True))


def read(model: str | os.PathLike) -> list[predict_pb2.PredictRequest]:
    """Returns the requests of a SavedModel on this machine."""
    records = tf.data.TFRecordDataset(str(pathlib.Path(model, FILE)))
    return [
        prediction_log_pb2.PredictionLog.FromString(
            record
        ).predict_log.request
        for record in records.as_numpy_iterator()
    ]


def signatures_of(
    model: str | os.PathLike,
) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Returns what `saved_model.pb` promises, by the names of signatures."""
    content = pathlib.Path(model, "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return dict(graph.signature_def)


def answer(
    made: predict_pb2.PredictRequest,
    signature: meta_graph_pb2.SignatureDef,
    run: Callable[..., Mapping[str, tf.Tensor]],
) -> dict[str, tf.Tensor]:
    """Returns the outputs for a request, once both fit what is promised.

    Args:
        made: The request.
        signature: Of `signatures_of`.
        run: The same signature of the loaded model.
    """
    _check("inputs", made.inputs, signature.inputs)
    outputs = run(
        **{
            name: tf.constant(tf.make_ndarray(value))
            for name, value in made.inputs.items()
        }
    )
    sent = {
        name: tf.make_tensor_proto(value) for name, value in outputs.items()
    }
    _check("outputs", sent, signature.outputs)
    return dict(outputs)


def _check(what, tensors, promised):
    """Raises `ValueError` where names, types or shapes are others."""
    if set(tensors) != set(promised):
        raise ValueError(
            f"Expected {what} {sorted(promised)}, as the signature names them. "
            f"Received: {sorted(tensors)}"
        )
    for name, tensor in tensors.items():
        dtype = tf.as_dtype(promised[name].dtype)
        shape = tf.TensorShape(promised[name].tensor_shape)
        received = tf.TensorShape(tensor.tensor_shape)
        if tensor.dtype != dtype or not shape.is_compatible_with(received):
            raise ValueError(
                f"Expected {what} {name!r} of {dtype.name} and {shape}, as the "
                f"signature says. Received: "
                f"{tf.as_dtype(tensor.dtype).name} and {received}"
            )
