"""What cannot be written, told in one line, whoever writes it."""

import contextlib
import re

import tensorflow as tf

from att_darts_tf.engine import devices
from att_darts_tf.errors import UsageError


@contextlib.contextmanager
def writing(path):
    """Raises `UsageError` where TensorFlow or the system cannot write.

    Args:
        path: Path of a file or folder, as the message names it.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        if devices.is_of_the_lost(error):
            raise
        reason = getattr(error, "strerror", None) or _reason_of(error)
        raise UsageError(
            f"Expected to write {path}. Received: {reason}. Make room or "
            "choose a folder that can be written"
        ) from error


def _reason_of(error):
    """Returns what TensorFlow says without where in its code it happened."""
    return re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", str(error).splitlines()[0])
