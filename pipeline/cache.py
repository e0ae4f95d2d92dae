"""What the runner's cache may still be taken at its word for."""

import json
import pathlib

from att_darts_tf.engine import workdir
from att_darts_tf.pipeline import task

FOLDER = "cache"


def forget_changed(folder: pathlib.Path) -> None:
    """Removes what tells of outputs that are no longer what they were.

    The runner looks whether an output is there, not what it holds; another
    run with other settings may have put its own in that place.

    Args:
        folder: Path of the pipeline's folder.
    """
    digests = {}

    def stands(output):
        told = isinstance(output, dict) and output.get("metadata") or {}
        if task.SHA256 not in told:
            return True
        content = pathlib.Path(told[task.CONTENT])
        if content not in digests:
            digests[content] = (
                workdir.digest(content) if content.exists() else None
            )
        return digests[content] == told[task.SHA256]

    for entry in (folder / FOLDER).glob("*.json"):
        try:
            outputs = json.loads(entry.read_text("utf-8")).values()
        except ValueError:
            # Power failed before what the runner wrote was on the disk.
            entry.unlink()
            continue
        if not all(map(stands, outputs)):
            entry.unlink()
