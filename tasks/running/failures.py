"""The error for what goes wrong around the program; its message is for a user."""


class OperationError(RuntimeError):
    """Something around the program fails: a database that another process holds, a server that does
    not start. The message says what to do.
    """
