"""The error that is the user's to mend: the command line prints its sentence, exit code 2."""


class UserError(Exception):
    """Says in one sentence what is wrong, where, and what to do about it."""
