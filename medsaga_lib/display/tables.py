"""Tables of a page: the field's names of scores as heads, and numbers that a reader can compare."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TITLES = {  # names in our data frames and what a page calls them
    "dice": "Dice",
    "hd95": "HD95",
    "nsd": "NSD",
    "iou": "IoU",
    "val_dice": "validation Dice",
    "dice_synapse": "Dice, Synapse rule",
    "hd95_synapse": "HD95, Synapse rule",
    "trainable": "trained parameters",
}
DIGITS = {"hd95": 2}  # decimals that differ from the table's; our choice


def table(frame: "pd.DataFrame", digits: int = 3, **own: int) -> "pd.DataFrame":
    """Return a table for a page, with text in its cells.

    Names of scores become titles, in the columns and in the index (`val_dice`: validation Dice).
    A column of whole numbers has no decimals and a comma between thousands; other numbers have
    `digits` decimals, HD95 at most 2, and a column that is named in `own` its own number. A missing
    value is an empty cell.

    >>> import pandas as pd
    >>> table(pd.DataFrame({"dice": [0.8123, None], "trainable": [94848.0, 7]}, ["S-SAM", "none"]))
            Dice trained parameters
    S-SAM  0.812             94,848
    none                          7
    """
    own = {name: min(places, digits) for name, places in DIGITS.items()} | own

    def cells(column: "pd.Series") -> "pd.Series":
        names = column.name if isinstance(column.name, tuple) else (column.name,)
        return _cells(column, next((own[name] for name in names if name in own), digits))

    shown = frame.apply(cells).astype(object)
    names = shown.rename(columns=_title, index=_title)
    return names.rename_axis(index=_title, columns=_title)


def _cells(column: "pd.Series", digits: int) -> "pd.Series":
    """Return the texts of one column."""
    values = column.infer_objects()
    known = values.dropna()
    pattern = "{}"
    if values.dtype.kind in "iuf":
        whole = np.equal(known, np.round(known)).all()
        pattern = "{:,.0f}" if whole else f"{{:z,.{digits}f}}"  # z: no -0.00
    return values.astype(object).map(pattern.format, na_action="ignore").fillna("")


def _title(name: Hashable) -> Hashable:
    return TITLES.get(name, name) if isinstance(name, str) else name
