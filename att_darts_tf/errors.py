"""The errors that a user can cause and mend, and what may be printed."""


def printable(text: str) -> str:
    """Returns a text with what ends a line, or moves a cursor, in escapes."""
    return "".join(
        each if each.isprintable() else ascii(each)[1:-1] for each in text
    )


class UsageError(ValueError):
    """What was asked for cannot be done as asked.

    Its message is one line: what was expected, what was received, how to fix
    it. The command line prints it without a traceback and exits with status 2;
    any other exception is a defect of this project and keeps its traceback.
    """


class InfeasibleError(UsageError):
    """A recipe that cannot be trained to its end on this machine.

    Its loss is lost, or it takes more memory than there is. A tuning counts
    it as a trial that failed and goes on.
    """
