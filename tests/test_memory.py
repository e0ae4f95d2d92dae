import pathlib
import types

import pytest

from att_darts_tf import memory
from att_darts_tf.errors import UsageError


def globs(*files):
    return types.SimpleNamespace(glob=lambda pattern: list(files))


@pytest.fixture
def machine(monkeypatch):
    """Replaces what the machine says by files; returns them by path."""
    files = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "/proc/self/statm": "0 0 0",
        "/proc/self/cgroup": "2:cpu:/x\n0::/\n",
    }

    class Files(pathlib.PosixPath):
        def read_text(self, *options):
            if str(self) not in files:
                raise FileNotFoundError(str(self))
            return files[str(self)]

        def exists(self):
            return str(self) in files

    # Names of the module alone: pytest reads files too.
    paths = types.SimpleNamespace(
        Path=Files, PurePosixPath=pathlib.PurePosixPath
    )
    monkeypatch.setattr(memory, "pathlib", paths)
    monkeypatch.setattr(memory, "glob", globs())
    monkeypatch.setattr(
        memory, "resource", types.SimpleNamespace(getpagesize=lambda: 4096)
    )
    return files


def compare(needed):
    return memory.compare(
        needed, what="a search", remedy=lambda free: f"lower it to {free}"
    )


def test_more_than_is_free_is_refused(monkeypatch, machine):
    monkeypatch.setattr(memory, "available", lambda: 2.5)
    assert compare(2.4) == "takes about 2.4 GB of memory of 2.5 GB free"
    with pytest.raises(UsageError) as refusal:
        compare(2.6)
    message = str(refusal.value)
    assert "a search that fits the 2.5 GB" in message
    assert message.endswith("To fit it, lower it to 2.5")


def test_memory_of_a_gpu_is_not_that_of_the_machine(monkeypatch, machine):
    monkeypatch.setattr(memory, "available", lambda: 0.1)
    monkeypatch.setattr(memory, "glob", globs("/dev/nvidia0"))
    assert "not looked at" in compare(1.0)


def test_a_machine_that_does_not_tell_refuses_nothing(machine):
    machine.clear()
    assert memory.available() is None
    assert "unknown" in compare(1.0)


def test_free_memory_counts_what_this_process_has(machine):
    assert memory.available() == pytest.approx(8.192)
    machine["/proc/self/statm"] = "9 250000 1"
    assert memory.available() == pytest.approx(8.192 + 1.024)


@pytest.mark.parametrize(
    ("group", "folder", "names"),
    [
        (
            "0::/job/step",
            "/sys/fs/cgroup/job",
            ("memory.max", "memory.current", "inactive_file"),
        ),
        (
            "4:memory:/job",
            "/sys/fs/cgroup/memory",
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            ),
        ),
    ],
)
def test_control_groups_above_the_process_leave_less(
    machine, group, folder, names
):
    limit, usage, cached = names
    machine["/proc/self/cgroup"] = f"2:cpu:/x\n{group}\n"
    machine[f"{folder}/{limit}"] = "3000000000\n"
    machine[f"{folder}/{usage}"] = "1500000000\n"
    machine[f"{folder}/memory.stat"] = f"anon 5\n{cached} 500000000\n"
    assert memory.available() == pytest.approx(2.0)
    machine[f"{folder}/{limit}"] = "max\n"
    assert memory.available() == pytest.approx(8.192)
