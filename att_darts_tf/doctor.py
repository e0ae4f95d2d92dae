"""What this machine has, and how long a small search step takes on it."""

import os
import platform
import time

from att_darts_tf import memory, settings, startup
from att_darts_tf.engine import lineage

CELLS, CHANNELS, BATCH, SIDE = 3, 8, 16, 32
STEPS = 3


def examine():
    """Yields lines: versions, devices, memory, and the time of a step."""
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(" ".join(each) for each in lineage.versions().items())
    startup.load_tensorflow()
    yield from _devices()
    free = memory.available()
    yield (
        f"CPU: {len(os.sched_getaffinity(0))} cores, "
        f"{os.environ['TF_NUM_INTEROP_THREADS']} operations at once with "
        f"{os.environ['TF_NUM_INTRAOP_THREADS']} threads each, "
        + ("free memory unknown" if free is None else f"{free:.1f} GB free")
    )
    yield (
        f"A search step of {CELLS} cells of {CHANNELS} channels, twice {BATCH} "
        f"images of {SIDE} x {SIDE}:"
    )
    first, steps = _time_steps()
    yield (
        f"  {first:.1f} s for the first, which holds the tracing; then "
        f"{min(steps):.2f} s (of {STEPS}, the slowest {max(steps):.2f} s)"
    )


def _devices():
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        yield (
            f"{gpu.name}: {details.get('device_name', 'unnamed')}, compute "
            f"capability {capability or 'unknown'}, memory taken as needed "
            f"(TF_FORCE_GPU_ALLOW_GROWTH="
            f"{os.environ['TF_FORCE_GPU_ALLOW_GROWTH']})"
        )
    if gpus:
        yield (
            f"CUDA {build.get('cuda_version')}, cuDNN "
            f"{build.get('cudnn_version')}"
        )
    elif build["is_cuda_build"]:
        yield (
            "GPU: none that TensorFlow can use. On a machine with one: pip "
            "install 'att-darts-tf[gpu]'"
        )
    else:
        yield "GPU: none, and this TensorFlow is built without CUDA"


def _time_steps():
    import keras
    import tensorflow as tf

    from att_darts_tf.engine import devices
    from att_darts_tf.search import run

    config = settings.load("base").unlock()
    config.search.cells, config.search.channels = CELLS, CHANNELS
    devices.configure(config)
    keras.utils.set_random_seed(0)
    search = run.make_search(
        config, image_shape=(SIDE, SIDE, 3), num_classes=10
    )
    batch = (tf.zeros((BATCH, SIDE, SIDE, 3)), tf.zeros((BATCH,), tf.int32))
    step = tf.function(search.train_step, autograph=False)
    seconds = []
    for _ in range(1 + STEPS):
        begun = time.perf_counter()
        float(step((batch, batch))["loss"])
        seconds.append(time.perf_counter() - begun)
    return seconds[0], seconds[1:]
