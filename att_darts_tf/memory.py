"""How much memory there is, beside how much a training takes.

Nothing here imports TensorFlow.
"""

import glob
import pathlib
import resource
from collections.abc import Callable

from att_darts_tf.errors import InfeasibleError

# Files of a control group: its limit, its use, and what of that is a cache.
_VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def compare(
    needed: float, *, what: str, remedy: Callable[[float], str]
) -> str:
    """Returns a line that tells the memory of something beside what is free.

    Args:
        needed: GB that its process takes on a CPU.
        what: What takes them, as `"a search"`.
        remedy: Maps the GB that are free to what the user may change.

    Raises:
        InfeasibleError: If it is more than is free, with what to change.
    """
    free, about = available(), f"about {needed:.1f} GB of memory"
    if glob.glob("/dev/nvidia[0-9]*"):
        return f"takes {about} on a CPU; that of a GPU is not looked at"
    if free is None:
        return f"takes {about}; what is free is unknown here"
    if needed <= free:
        return f"takes {about} of {free:.1f} GB free"
    raise InfeasibleError(
        f"Expected {what} that fits the {free:.1f} GB of memory that are "
        f"free. Received: one that takes {about}. To fit it, {remedy(free)}"
    )


def available() -> float | None:
    """Returns what this process may take in all, in GB, or `None` if unknown.

    Linux: what it has, and what the machine has left or the control groups of
    the process leave it, whichever is least.
    """
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return None
    values = dict(line.split(":") for line in lines)
    free = [1024 * int(values["MemAvailable"].split()[0])]
    free += _left_by_control_groups()
    return min(free) / 1e9 + resident()


def resident() -> float:
    """Returns how much memory this process has, in GB; 0 if unknown."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except FileNotFoundError:
        return 0.0
    return int(pages) * resource.getpagesize() / 1e9


def _left_by_control_groups():
    """Yields what each group above this process may still take, in bytes."""
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "memory":
            root, names = "/sys/fs/cgroup/memory", _VERSION_1
        elif not controllers:
            root, names = "/sys/fs/cgroup", _VERSION_2
        else:
            continue
        path = pathlib.PurePosixPath(group)
        for each in (path, *path.parents):
            # A container may see its own group as the root.
            folder = root + str(each).rstrip("/")
            limit, usage, cached = names
            if not pathlib.Path(f"{folder}/{limit}").exists():
                continue
            most = pathlib.Path(f"{folder}/{limit}").read_text().strip()
            if most == "max":
                continue
            used = int(pathlib.Path(f"{folder}/{usage}").read_text())
            statistics = pathlib.Path(f"{folder}/memory.stat").read_text()
            counts = dict(line.split() for line in statistics.splitlines())
            # Files that are cached make room when it is needed.
            yield int(most) - used + int(counts.get(cached, 0))
