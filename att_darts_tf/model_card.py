"""What a served network is for, was made from, and can do: a page of Markdown.

Its parts are those of Mitchell et al., 2019, https://arxiv.org/abs/1810.03993.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

import att_darts_tf
from att_darts_tf import intervals
from att_darts_tf.data.prepared import PreparedData
from att_darts_tf.engine import lineage
from att_darts_tf.errors import printable
from att_darts_tf.network.classifier import Classifier

_MARKS = re.compile(r"([\\`*_\[\]<>|~&$])")


class Evaluation(NamedTuple):
    """How good networks are on the test split, and which is the served one.

    Attributes:
        result: Dictionary, as `evaluate.run_evaluation` returns it.
        position: Integer. The place of the served network among them.
    """

    result: Mapping[str, Any]
    position: int


def render(
    settings: ml_collections.ConfigDict,
    *,
    network: Classifier,
    data: PreparedData,
    evaluation: Evaluation | None,
    costs: Mapping[str, Any],
    lineages: Sequence[Mapping[str, Any]],
    requests: str,
) -> str:
    """Returns the card.

    Args:
        settings: `config.export`.
        network: The served network.
        data: The images that it was trained on.
        evaluation: `None` where nobody has judged it.
        costs: `cost` and `latencies`, as `serving.run_export` returns them.
        lineages: Records, as `lineage.write` makes them, of the stages that
            the network comes from.
        requests: What the requests that warm a server up are.
    """
    sections = {
        "Model details": _details(network, data),
        "Intended use": _use(data),
        "Training data": _data(data),
        "Evaluation": _evaluation(evaluation),
        "Cost": _cost(**costs),
        "Lineage": _lineage(lineages),
        "Licence": _LICENCE,
        "How to serve it": [
            *_serving(settings),
            "",
            f"While it loads the model, the server runs {requests} from "
            "`assets.extra/tf_serving_warmup_requests`. Remove that file where "
            "these images must not be passed on.",
        ],
    }
    lines = [f"# Model card: {settings.name}, version {settings.version}"]
    for title, text in sections.items():
        lines += ["", f"## {title}", "", *text]
    return "\n".join([*lines, ""])


def plain(text: str) -> str:
    """Returns a text of somebody else's as Markdown shows it, in one line."""
    return _MARKS.sub(r"\\\1", printable(text))


def _details(network, data):
    height, width, channels = data.image_shape
    made = network.get_config()
    size = ", ".join(
        f"{made[name]} {meaning}"
        for name, meaning in (
            ("cells", "cells"),
            ("channels", "channels of the first cells"),
            ("num_layers", "layers in each of 3 dense blocks"),
            ("growth_rate", "channels more with each"),
        )
        if name in made
    )
    lines = [
        f"- Classifies images of {height} x {width} pixels and {channels} "
        f"channels into {len(data.class_names)} classes; `labels.txt` beside "
        "this page has their names, line by line in the order of "
        "`probabilities`.",
        f"- {type(network).__name__}: {size}.",
    ]
    genotype = getattr(network, "genotype", None)
    if genotype is not None:
        for name in ("normal", "reduce"):
            cell = getattr(genotype, name)
            nodes = "; ".join(" + ".join(map(str, node)) for node in cell.nodes)
            bottleneck = cell.bottleneck and f", then `{cell.bottleneck}`"
            lines.append(f"- The {name} cell: `{nodes}`{bottleneck}.")
        lines.append(
            "- In brackets is the state that is read: 0 and 1 are the outputs "
            "of the two cells before, 2 is the first node. Found or trained as "
            "in Nakai et al., *Att-DARTS*, 2020, "
            "<https://doi.org/10.1109/IJCNN48605.2020.9207369>."
        )
    lines.append(
        f"- Made with att-darts-tf {att_darts_tf.__version__}. Normalisation "
        "is in the model."
    )
    return lines


def _use(data):
    return [
        f"For images like those of the data set {plain(data.name)}, each of "
        "which shows one of its classes.",
        "",
        "Not for images of another kind: it has no answer \"none of these\", "
        "and is sure of itself there too. Probabilities are those of the "
        "softmax, not calibrated. Which groups of images it serves worse has "
        "not been examined. Nothing that harms somebody if it is wrong should "
        "rest on it without an evaluation for that use.",
    ]


def _data(data):
    def numbers(values):
        return ", ".join(f"{value:.4f}" for value in values)

    return [
        f"- {plain(data.name)}: {data.num_examples('train'):,} images for "
        f"training, {data.num_examples('test'):,} for the evaluation, "
        f"{len(data.class_names)} classes.",
        f"- Mean of each channel {numbers(data.mean)}, standard deviation "
        f"{numbers(data.std)}, where 255 is 1.",
        f"- SHA-256 of images, labels and names: `{data.digest}`.",
    ]


def _evaluation(evaluation):
    if evaluation is None:
        return [
            "Not judged yet: nobody had evaluated this network on the test "
            "split when it was exported."
        ]
    result, position = evaluation
    images = result["images"]
    lines = [
        f"On {images:,} test images, which neither search nor training saw:",
        "",
        "| | this network | 95 % interval |",
        "|---|---|---|",
    ]
    for title, prefix in (("accuracy", ""), ("top-5 accuracy", "top_5_")):
        if f"{prefix}accuracies" in result:
            share = result[f"{prefix}accuracies"][position]
            low, high = intervals.of_share(share, images)
            lines.append(
                f"| {title} | {_percent(share)} | {_percent(low)} to "
                f"{_percent(high)} |"
            )
    loss = result["losses"][position]
    lines += [
        f"| cross entropy | {loss:.4f} | |",
        "",
        "The interval is Wilson's, of other images alike; the network is the "
        "same.",
    ]
    if "half_width_95" in result:
        lines += ["", *_of_trainings(result)]
    return lines


def _of_trainings(result):
    count = len(result["accuracies"])
    yield (
        f"Of {count} trainings, of which this is one whatever its figure, the "
        "mean, with its 95 % interval by Student's distribution:"
    )
    yield ""
    for title, prefix in (("accuracy", ""), ("top-5 accuracy", "top_5_")):
        if f"{prefix}mean" in result:
            mean, half, deviation = (
                100 * result[f"{prefix}{name}"]
                for name in ("mean", "half_width_95", "standard_deviation")
            )
            yield (
                f"- {title}: {mean:.2f} +- {half:.2f} % (standard deviation "
                f"{deviation:.2f})"
            )


def _cost(cost, latencies):
    lines = [
        f"- {cost['parameters']:,} parameters, {cost['multiply_adds']:,} "
        "multiply-adds of an image.",
    ]
    for times in latencies:
        lines.append(
            f"- Batch of {times['batch']}: {times['median']:,.1f} ms, from "
            f"{times['least']:,.1f} to {times['most']:,.1f}."
        )
    return [*lines, "", "Times are of the machine that exported it."]


def _lineage(lineages):
    if not lineages:
        return ["No stage before has left a record of it."]
    lines = [
        "| stage | result, SHA-256 | code, SHA-256 | data, SHA-256 | seed |",
        "|---|---|---|---|---|",
    ]
    versions = {}
    for record in lineages:
        made_from = record["made_from"]
        fields = (
            plain(record["stage"]),
            _digest(record["result"]["sha256"]),
            _digest(made_from.get("code")),
            _digest(lineage.images_of(record)),
            plain(str(made_from.get("seed", ""))),
        )
        lines.append(f"| {' | '.join(fields)} |")
        for name, version in (record["packages"] | record["machine"]).items():
            versions.setdefault(name, {})[version] = None
    return [
        *lines,
        "",
        "With "
        + ", ".join(
            f"{plain(name)} {' and '.join(map(plain, found))}"
            for name, found in versions.items()
        )
        + ". The first 16 of 64 digits; `lineage.json` beside this page has "
        "all of them, and the settings. `att-darts lineage FOLDER` shows it.",
    ]


def _digest(value):
    return f"`{value[:16]}`" if value else ""


_LICENCE = [
    "The code that made and runs the model is under the Apache License 2.0. "
    "The images are under the licence of whoever owns the data set, which may "
    "hold for what is made from them too: ask there before you pass the model "
    "on.",
]


def _serving(settings) -> Sequence[str]:
    name = settings.name
    return f"""\
In the folder that holds `{name}/`:

```
docker run --rm -p 8500:8500 -p 8501:8501 -e MODEL_NAME={name} \\
    -v "$PWD/{name}:/models/{name}:ro" tensorflow/serving
```

A JPEG or PNG file of any size by REST:

```
echo "{{\\"signature_name\\": \\"encoded\\", \\"instances\\":
    [{{\\"contents\\": {{\\"b64\\": \\"$(base64 -w0 photo.jpg)\\"}}}}]}}" |
curl --data @- http://localhost:8501/v1/models/{name}:predict
```

By gRPC, with `pip install tensorflow-serving-api`:

```python
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
request.model_spec.signature_name = "encoded"
with open("photo.jpg", "rb") as file:
    request.inputs["contents"].CopyFrom(tf.make_tensor_proto([file.read()]))
with grpc.insecure_channel("localhost:8500") as channel:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout=10)
print(tf.make_ndarray(answer.outputs["label_name"]))
```

The signature `serving_default` takes `images`, pixels as `uint8`, instead of
`contents`. Both answer with `probabilities`, `label` and `label_name`.
""".splitlines()


def _percent(share):
    return f"{100 * share:.2f} %"
