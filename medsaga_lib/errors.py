"""Error messages for users who can mend what is wrong, and plurals: 1 image, 2 images.

The command line prints the sentence of an error, with exit code 2.
"""

COLLAPSED = 3  # exit code of a training that collapsed


class UserError(Exception):
    """An error whose one sentence says what is wrong, where, and what to do about it."""


def counted(count: int, noun: str) -> str:
    """Write a number of things, such as 1 box or 1,200 boxes."""
    many = f"{noun}es" if noun.endswith("x") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"
