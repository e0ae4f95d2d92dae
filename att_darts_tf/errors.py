"""The one error that a user can cause and mend."""


class UsageError(ValueError):
    """What was asked for cannot be done as asked.

    Its message is one line: what was expected, what was received, how to fix
    it. The command line prints it without a traceback and exits with status 2;
    any other exception is a defect of this project and keeps its traceback.
    """
