"""What is wrong with a file of a data set: one sentence for the check and for training."""

from dataclasses import dataclass
from pathlib import Path

from medsaga_lib.errors import UserError


@dataclass(frozen=True)
class Problem:
    """A fault of one file and its remedy; a `note` tells something without forbidding the use."""

    file: str
    what: str
    remedy: str
    note: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"


class BadFile(UserError):  # noqa: N818 - it is a kind of UserError, and named for the reader
    """A UserError that keeps its `Problem`: what training raises, `check_dataset` collects."""

    def __init__(self, file: str | Path, what: str, remedy: str) -> None:
        self.problem = Problem(str(file), what, remedy)
        super().__init__(str(self.problem))
