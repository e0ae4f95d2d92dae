"""Loads TensorFlow without its greetings."""

import glob
import os
import sys
import tempfile


def load_tensorflow() -> None:
    """Imports TensorFlow, and shows what it says only where that helps.

    On a machine without a GPU it reports, as an error too, that there is none,
    before any setting can reach it. On one with a GPU that cannot be used the
    same lines say why, and are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Operations beside each other are faster than threads within each: on 2
    # cores a search step takes 2.0 s instead of 2.3 s, and a training step of
    # a network 0.8 s instead of 1.0 s.
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(cores))
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, cores // 2)))
    # A GPU's memory is taken as it is needed, not all of it at once.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    sys.stderr.flush()
    visible = os.dup(2)
    shown = True
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            try:
                import tensorflow as tf

                gpus = tf.config.list_physical_devices("GPU")
                shown = bool(glob.glob("/dev/nvidia[0-9]*")) and not gpus
            finally:
                os.dup2(visible, 2)
                if shown:
                    said.seek(0)
                    os.write(2, said.read())
    finally:
        os.close(visible)
