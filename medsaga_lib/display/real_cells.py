"""In a notebook without real images, cells that need them are skipped and say so."""

import sys

REAL_MARK = "# needs real images"  # the first line of such a cell
SKIPPED = 'print("skipped, because this cell needs real images")\n'


def skip_real_cells(skip: bool) -> None:
    """Skip the cells that begin with `REAL_MARK` from now on, or stop to skip them.

    It does nothing outside IPython.

    Args:
        skip: whether there are no real images.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    transforms = shell.input_transformers_cleanup  # IPython's own list
    if without_real in transforms:
        transforms.remove(without_real)
    if skip:
        transforms.append(without_real)


def without_real(lines: list[str]) -> list[str]:
    """Return the lines of a cell, or a line that says that it was skipped."""
    return [SKIPPED] if lines and lines[0].strip() == REAL_MARK else lines
