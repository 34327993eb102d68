"""Write files completely or not at all, and find the folder for cached files."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsaga_lib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CACHE_VARIABLE = "MEDSAGA_CACHE"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success and is deleted on failure.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder (no file was changed)."
        ) from error


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out`, and remove it; remove those of killed processes, too.

    Rename what is complete in it to `out`. Only its owner can read the folder itself.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    prefix = f".{out.name}.{os.getpid()}.tmp."
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=out.parent, ignore_cleanup_errors=True
    ) as f:
        yield Path(f)


def is_leftover(path: Path) -> bool:
    """Tell whether a file or a folder is the temporary one of a process that was killed."""
    import psutil

    found = re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)
    return found is not None and not psutil.pid_exists(int(found[1]))


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders beside `path` of processes that were killed."""
    for other in path.parent.glob(f".{escape(path.name)}.*.tmp*"):
        if is_leftover(other) and other.is_dir() and not other.is_symlink():
            shutil.rmtree(other, ignore_errors=True)
        elif is_leftover(other):
            other.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's content; raise UserError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; restore the file.") from error


def cache_folder() -> Path:
    """Return the folder of generated and downloaded files: $MEDSAGA_CACHE or the user's cache."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("medsaga")).expanduser().absolute()


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, completely or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """Write a .safetensors file, completely or not at all, even if the power fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # a view of another tensor's storage is stored as a tensor of its own
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # wraps errors such as "no space left"
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # safetensors makes it readable for the owner only
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def file_stem(path: Path) -> str:
    """Return the file's name without its ending; .nii.gz counts as one ending.

    >>> file_stem(Path("scans/a.b.nii.gz"))
    'a.b'
    """
    name = path.name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else path.stem
