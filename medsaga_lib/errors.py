"""The error that the user can fix: the command line prints its sentence, with exit code 2."""

COLLAPSED = 3  # exit code of a training that collapsed


class UserError(Exception):
    """An error whose one sentence says what is wrong, where, and what to do about it."""
