"""Unpacks archives from the internet: only files, only below the folder, and not too many bytes.

An archive is refused if a member would lie outside the folder, is a link or a device, or if there
are too many members or bytes. The bytes are counted as they are written, because the sizes that an
archive states may be wrong.
"""

import fnmatch
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from medsaga_lib.errors import UserError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_MEMBERS = 500_000  # our choice; CholecSeg8k has about 40,000 files
MOST_TIMES = 20  # our choice: files may take so many times the bytes of their archive ...
ALWAYS_BYTES = 1 << 30  # ... and 1 GiB in any case
CHUNK = 1 << 20  # bytes
LONGEST = 255  # bytes of a name, on the usual file systems
SHOWN = 60  # our choice: characters of such a name in a message
UNIX_LINK = 0o120000  # file type of a symbolic link in the attributes of a zip's member
UNIX_TYPES = 0o170000


class _Member(NamedTuple):
    """A file of an archive: its path, its size in bytes and its entry."""

    path: PurePosixPath
    size: int
    info: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(path: Path) -> bool:
    """Return whether a file has an ending of the archives that can be unpacked."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path, wanted: Sequence[str] = (), progress: bool = True) -> None:
    """Unpack an archive into an existing folder, without hidden files.

    Args:
        wanted: patterns such as "*/png/*.png"; only members whose path, with a / before it, matches
            one are unpacked. Default: all of them.

    Raises:
        UserError: the archive is damaged or refused, or holds none of the wanted files.
        OSError: a file cannot be written.
    """
    with _reading(archive):
        opened = _open(archive)
    with opened:
        with _reading(archive):
            members = [m for m in _members(archive, opened) if _is_wanted(m.path, wanted)]
        if not members:
            raise UserError(
                f"{archive} holds no files such as {' or '.join(wanted) or '*'}; it may be "
                "another archive: check where it is from."
            )
        _write(archive, opened, members, folder, progress)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn every error of a damaged archive into one sentence.

    The standard library has no type for them: it raises OSError, ValueError, IndexError and others.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile lists what it tried
        raise UserError(
            f"{archive} cannot be unpacked ({why or type(error).__name__}); "
            "delete it and fetch it again."
        ) from None


Opened = zipfile.ZipFile | tarfile.TarFile


def _open(archive: Path) -> Opened:
    if archive.name.lower().endswith(".zip"):
        return zipfile.ZipFile(archive)
    return tarfile.open(archive)


def _members(archive: Path, opened: Opened) -> Iterator[_Member]:
    """Yield the files of an archive; refuse what is not a file in a folder below its root."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    infos: Iterable[Any] = opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened
    for number, info in enumerate(infos, start=1):
        if number > MOST_MEMBERS:
            _refuse(archive, f"has more than {MOST_MEMBERS:,} members")
        if isinstance(info, zipfile.ZipInfo):
            name, size, is_folder = info.filename, info.file_size, info.is_dir()
            is_file = (info.external_attr >> 16) & UNIX_TYPES != UNIX_LINK
        else:
            name, size, is_folder, is_file = info.name, info.size, info.isdir(), info.isreg()
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            _refuse(archive, f"has the member '{name}', whose path may lie outside the folder")
        if is_folder:
            continue
        if not is_file:
            _refuse(archive, f"has the member '{name}', which is a link or a device")
        lengths = [len(os.fsencode(part)) for part in path.parts]
        if max(lengths, default=0) not in range(1, LONGEST + 1) or "\0" in name:
            _refuse(archive, f"has the member {name[:SHOWN]!a}, whose name no file can have")
        if path in files or path in folders or not files.isdisjoint(path.parents):
            _refuse(archive, f"has the member '{name}' twice, or as a file and a folder")
        files.add(path)
        folders.update(path.parents)
        yield _Member(path, size, info)


def _refuse(archive: Path, what: str) -> None:
    raise UserError(f"{archive} {what}; it was not unpacked: check where it is from.")


def _is_wanted(path: PurePosixPath, wanted: Sequence[str]) -> bool:
    if any(part.startswith(".") for part in path.parts) or "__MACOSX" in path.parts:
        return False
    return not wanted or any(fnmatch.fnmatchcase(f"/{path}", one) for one in wanted)


def _write(
    archive: Path, opened: Opened, members: list[_Member], folder: Path, progress: bool
) -> None:
    from tqdm import tqdm

    limit = max(ALWAYS_BYTES, MOST_TIMES * archive.stat().st_size)
    total = sum(member.size for member in members)
    if total > limit:
        _refuse(archive, f"states {total:,} bytes of files, more than {limit:,}")
    if total > shutil.disk_usage(folder).free:
        raise OSError(f"{total / 1e9:,.1f} GB are needed to unpack it")
    with tqdm(
        total=total, unit="B", unit_scale=True, desc=archive.name, disable=not progress
    ) as bar:
        for member in members:
            target = folder / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with _reading(archive):
                source = _content(opened, member)
            with source, target.open("xb") as file:
                while chunk := _chunk(archive, source):
                    limit -= len(chunk)
                    if limit < 0:
                        _refuse(archive, "holds more bytes than it states")
                    file.write(chunk)
                    bar.update(len(chunk))


def _chunk(archive: Path, source: IO[bytes]) -> bytes:
    with _reading(archive):
        return source.read(CHUNK)


def _content(opened: Opened, member: _Member) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        assert isinstance(member.info, zipfile.ZipInfo)
        return opened.open(member.info)
    assert isinstance(member.info, tarfile.TarInfo)
    content = opened.extractfile(member.info)
    assert content is not None  # a regular file has a content
    return content
