"""Problems of the files of a data set, with the same message in the check and in training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medsaga_lib.errors import UserError


@dataclass(frozen=True)
class Problem:
    """A problem of one file and its remedy; if `note` is true, the data set can still be used."""

    file: str
    what: str
    remedy: str
    note: bool = False

    def __str__(self) -> str:
        text = f"{self.file}: {self.what}; {self.remedy}"
        return " ".join(text.splitlines())  # names in a file may have line breaks


class BadFile(UserError):  # noqa: N818 - the name says what is wrong
    """A `UserError` with its `Problem`; training raises it, and `check_dataset` collects it."""

    def __init__(self, file: str | Path, what: str, remedy: str) -> None:
        self.problem = Problem(str(file), what, remedy)
        super().__init__(str(self.problem))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Make copies and pickles from the three arguments, not from the sentence."""
        return type(self), (self.problem.file, self.problem.what, self.problem.remedy)


def listed(names: Iterable[object]) -> str:
    """Join names with commas, or return "none" if there are no names."""
    return ", ".join(str(name) for name in names) or "none"


def times(shape: tuple[int, ...]) -> str:
    """Write a shape as text, such as 5 x 12 x 12."""
    return " x ".join(str(length) for length in shape)


def in_mm(spacing: tuple[float, ...]) -> str:
    """Write a spacing as text, such as 5 x 0.8 x 0.8 mm."""
    return " x ".join(f"{length:.3g}" for length in spacing) + " mm"
