"""Files with weights inside installed packages: found without an import, checked by sha256 once.

Some pretrained models are on the package index as data of a wheel. Their packages are never
imported: `importlib.metadata` finds the file, and its sha256 is compared with the pinned one. A
file that was checked is remembered in the cache by its path, size and time.
"""

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from medsaga_lib.errors import UserError
from medsaga_lib.files import cache_folder, file_hash, write_json

CHECKED_FILE = "checked.json"


@dataclass(frozen=True)
class PackagedFile:
    """A file in a package of the package index."""

    package: str
    version: str  # the version that was examined; others are accepted if the hash is the same
    member: str  # path inside the site-packages folder
    sha256: str

    @property
    def command(self) -> str:
        """The command that installs the package."""
        return f"pip install {self.package}=={self.version}"

    def find(self) -> Path | None:
        """Return the path of the file, or None if the package is not installed."""
        try:
            path = Path(str(distribution(self.package).locate_file(self.member)))
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None

    def require(self) -> Path:
        """Return the path of the file after a check of its content.

        Raises:
            UserError: the package is not installed, or the file is not the pinned one.
        """
        path = self.find()
        if path is None:
            raise UserError(
                f"{Path(self.member).name} is part of the package {self.package}, which is not "
                f"installed; run: {self.command}."
            )
        if not _was_checked(path, self.sha256):
            if file_hash(path) != self.sha256:
                raise UserError(
                    f"{path} does not have the pinned sha256 {self.sha256}; reinstall it with "
                    f"pip install --force-reinstall --no-deps {self.package}=={self.version}."
                )
            _remember(path, self.sha256)
        return path


def _state(path: Path, sha256: str) -> list:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, sha256]


def _was_checked(path: Path, sha256: str) -> bool:
    return _checked().get(str(path)) == _state(path, sha256)


def _checked() -> dict[str, list]:
    """Return what was checked before; nothing if the file is missing or damaged."""
    try:
        content = json.loads((cache_folder() / CHECKED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(path: Path, sha256: str) -> None:
    """Note that a file was checked; in a cache that cannot be written it is checked every time."""
    try:
        write_json(cache_folder() / CHECKED_FILE, {**_checked(), str(path): _state(path, sha256)})
    except UserError:
        return
