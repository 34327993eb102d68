"""Downloads files: an interrupted download continues, and a wrong one is deleted."""

import os
import shutil
from pathlib import Path

from medsaga_lib.errors import UserError

CHUNK = 1 << 16  # bytes written at a time, and at most lost when a download is interrupted
TIMEOUT = 30  # seconds without an answer


def download(
    url: str,
    path: Path,
    known_hash: str | None,
    what: str,
    *,
    without: str,
    room: str,
    progress: bool = True,
) -> None:
    """Download a file, unless it is there with the known hash.

    The file exists only after its hash is checked. Until then its bytes are in a file that ends
    with .part, which the next call continues.

    Args:
        known_hash: "sha256:..." or "md5:..."; None if no hash is published. Then a file that is
            there counts as complete.
        what: the name of the content in the message about a wrong hash.
        without: what to do without a connection, as in "or put the file at PATH".
        room: what to do if the file cannot be written.

    Raises:
        UserError: there is no connection, the hash is wrong, or the file cannot be written.
    """
    import requests

    try:
        if path.is_file() and (known_hash is None or has_hash(path, known_hash)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        _download(url, part, progress)
        if known_hash is not None and not has_hash(part, known_hash):
            part.unlink()
            raise UserError(
                f"The file at {url} does not have the hash {known_hash} of {what} and was deleted; "
                "try again, and if it happens again, do not use that file."
            )
        os.replace(part, path)
    except requests.RequestException as error:
        raise UserError(
            f"Cannot download {url} ({type(error).__name__}); run the command again to continue, "
            f"{without}."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}; {room}.") from error


def has_hash(path: Path, known: str) -> bool:
    """Tell whether a file has a hash such as "sha256:..."."""
    import pooch

    kind, _, digest = known.partition(":")
    return pooch.file_hash(str(path), alg=kind) == digest


def remote_bytes(url: str) -> int | None:
    """Return the size of a file on a server; None if the server does not say or answer."""
    import requests

    try:
        with requests.head(url, allow_redirects=True, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            size = answer.headers.get("Content-Length", "")
    except requests.RequestException:
        return None
    return int(size) if size.isdigit() and int(size) else None


def _download(url: str, part: Path, progress: bool) -> None:
    """Download a file to `part`, and continue an interrupted download."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    # Ranges count the bytes that are sent, so these must be those of the file
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # `part` is complete but wrong, or the file on the server changed
            return _download(url, part, progress)
        answer.raise_for_status()
        resumes = answer.status_code == requests.codes.partial_content
        length = int(answer.headers.get("Content-Length", 0))
        total = length + (have if resumes else 0)
        _require_room(part, length if resumes else length - have)
        with (
            part.open("ab" if resumes else "wb") as file,
            tqdm(
                total=total or None,
                initial=have if resumes else 0,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=not progress,
            ) as bar,
        ):
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total and part.stat().st_size != total:
        raise requests.ConnectionError(f"Only {part.stat().st_size} of {total} bytes arrived.")


def _require_room(part: Path, needed: int) -> None:
    """Raise OSError before the download if the disk has no room for it."""
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(f"{needed / 1e9:,.1f} GB are needed, and {free / 1e9:,.1f} GB are free")
