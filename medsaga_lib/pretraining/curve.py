"""The log of a pretraining run."""

import csv
from pathlib import Path

from medsaga_lib.files import replacing


class Curve:
    """`curve.csv`: a row every so many steps, of means since the row before.

    Of several processes it is the first one's share of the pictures.
    """

    columns = (
        "step",
        "minutes",  # of training in all
        "pictures_per_second",
        "learning_rate",
        # of `pretraining_loss`
        *("loss", "foreground", "borders", "box", "point", "unseen", "click"),
        "spread",  # of the embeddings over pictures, as a part of their whole spread
        *("test_box", "test_point", "test_clicks_3"),  # of the average, on families trained on
        *("held_out_box", "held_out_point", "held_out_clicks_3"),
    )

    def __init__(self, path: Path, step: int):
        """Continues a curve up to `step`; later rows belong to steps that were not saved."""
        self.path, self.rows = path, []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]

    def add(self, row: dict) -> None:
        """Writes the file again with one more row; unknown columns stay empty."""
        self.rows.append(row)
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def minutes(self) -> float:
        return float(self.rows[-1]["minutes"]) if self.rows else 0.0
