"""What of the runner's talk reaches the terminal."""

import io
import re
from typing import TextIO

_COLOUR = re.compile(r"\x1b\[\d+m")
# The runner's own lines start with the time, those of a task are indented.
_RUNNER = re.compile(r"(\d\d:\d\d:\d\d)\.\d+ - [A-Z]+ - (.*)")
_INTERESTING = ("Executing task", "cache hit")
_EXECUTOR = re.compile(r" *\[KFP Executor .*?\]: (.*)")


class Console(io.TextIOBase):
    """Passes on what stages print and little else; the log has everything.

    The runner reports each task's inputs and outputs as some eighty lines of
    JSON around the few that a stage prints.

    Args:
        terminal: Text stream for the lines of interest.
        log: Text stream for all lines, without a buffer.
    """

    def __init__(self, terminal: TextIO, log: TextIO):
        super().__init__()
        self.terminal = terminal
        self.log = log
        self.rest = ""
        # The line that ends what is being left out.
        self.until = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            line = _COLOUR.sub("", line)
            self._record(line)
            shown = self._shown(line)
            if shown is not None:
                self.terminal.write(f"{shown}\n")
        return len(text)

    def flush(self) -> None:
        self.terminal.flush()

    def _record(self, line: str) -> None:
        if self.log is None:
            return
        try:
            self.log.write(f"{line}\n")
        except OSError as error:
            # A full disk stops the stages; they say so better.
            self.terminal.write(f"The log ends here: {error.strerror}\n")
            self.log = None

    def _shown(self, line: str) -> str | None:
        if self.until is not None:
            if re.fullmatch(self.until, line):
                self.until = None
            return None
        runner = _RUNNER.fullmatch(line)
        if runner:
            clock, message = runner.groups()
            if message.endswith("outputs:"):
                self.until = "-+"
            interesting = any(words in message for words in _INTERESTING)
            return f"{clock} {message}" if interesting else None
        executor = _EXECUTOR.fullmatch(line)
        if executor:
            if executor[1].startswith("Got executor_input"):
                # Indented as far as the lines of a task are.
                self.until = r" {4}\}"
            return None
        if re.fullmatch(r"-*| *", line):
            return None
        return line
