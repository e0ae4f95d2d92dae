"""What of the runner's talk is shown, and that nothing is lost."""

import errno
import io

from att_darts_tf.pipeline.console import Console

TALK = """\
07:15:44.619 - INFO - Running pipeline: \x1b[95m'att-darts'\x1b[0m
--------------------------------------------------------------------------------
07:15:44.622 - INFO - Executing task \x1b[96m'search'\x1b[0m
07:15:44.622 - INFO - Streamed logs:

    [KFP Executor 2026-11-24 07:15:44,100 INFO]: Looking for component
    [KFP Executor 2026-11-24 07:15:44,101 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {
            }
        }
    }
    search, seed 0: epoch 1/2  step 3/15
    Traceback (most recent call last):
    [KFP Executor 2026-11-24 07:15:48,390 INFO]: Wrote executor output file

07:15:48.426 - INFO - Task \x1b[96m'search'\x1b[0m finished with status SUCCESS
07:15:48.426 - INFO - Task \x1b[96m'search'\x1b[0m outputs:
    cells: Artifact( name='cells',
                     uri='genotype.json' )
--------------------------------------------------------------------------------
07:15:49.000 - INFO - Task train cache hit (key=47c0388); skipping execution.
"""


def test_shows_tasks_and_what_they_print():
    terminal, log = io.StringIO(), io.StringIO()
    console = Console(terminal, log)
    print(TALK, end="", file=console)
    assert terminal.getvalue().splitlines() == [
        "07:15:44 Executing task 'search'",
        "    search, seed 0: epoch 1/2  step 3/15",
        "    Traceback (most recent call last):",
        "07:15:49 Task train cache hit (key=47c0388); skipping execution.",
    ]


def test_log_holds_every_line():
    terminal, log = io.StringIO(), io.StringIO()
    console = Console(terminal, log)
    # The runner writes indentation and text apart.
    for character in TALK:
        console.write(character)
    assert len(log.getvalue().splitlines()) == len(TALK.splitlines())
    assert "Running pipeline: 'att-darts'" in log.getvalue()


def test_log_that_cannot_be_written_stops_nothing_and_is_told_once():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    terminal = io.StringIO()
    console = Console(terminal, Full())
    print(TALK, end="", file=console)
    console.flush()
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "The log ends here: No space left on device"
    assert len(lines) == 5
    assert lines[-1].startswith("07:15:49 Task train cache hit")
