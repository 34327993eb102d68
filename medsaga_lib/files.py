"""Files that are written whole or not at all, and the folder for what can be had again."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsaga_lib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CACHE_VARIABLE = "MEDSAGA_CACHE"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if all went well, and goes if not.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder. What was there before is untouched."
        ) from error


def file_hash(path: Path) -> str:
    """sha256 of a file's content; UserError if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; put the file back.") from error


def cache_folder() -> Path:
    """Where what is generated or downloaded is kept: $MEDSAGA_CACHE or the user's cache."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("medsaga")).expanduser().absolute()


def write_json(path: Path, content: Any) -> None:
    """Strict JSON, whole or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """A .safetensors file, whole or not at all, even if the power fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # a tensor that is a view of another's storage is stored for itself
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # its own wrapping of "no space left" and the like
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # safetensors lets only the owner read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
