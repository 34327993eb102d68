"""Fetches an official data set: downloads, unpacks and converts it into a folder of the project."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from medsaga_lib.data.catalog import data_root, open_dataset
from medsaga_lib.data.dataset import INDEX
from medsaga_lib.data.fetching import pictures, pins, volumes
from medsaga_lib.data.fetching.archives import ENDINGS, is_archive, unpack
from medsaga_lib.data.fetching.catalogue import OfficialFile, OfficialSet, find_set
from medsaga_lib.data.fetching.slices import as_slices
from medsaga_lib.data.importing.found import Found, Options
from medsaga_lib.data.importing.importer import PROVENANCE, Request, write_dataset
from medsaga_lib.data.importing.source import Source, read_json
from medsaga_lib.data.problems import listed
from medsaga_lib.download import download, has_hash, remote_bytes
from medsaga_lib.errors import UserError
from medsaga_lib.files import (
    CACHE_VARIABLE,
    cache_folder,
    file_hash,
    remove_leftovers,
    working_folder,
)

RECORD = "fetched.json"  # what a folder was fetched from, and the sizes of its files
CONVERTERS: dict[str, Callable[[Source, OfficialSet], Found]] = {
    "listed": pins.pinned(pins.listed_files),
    "hannover": pins.pinned(pins.hannover),
    "hippocampus": pins.pinned(pins.hippocampus),
    "nuclei": pins.pinned(pins.nuclei),
    "polyps": pins.pinned(pins.polyps),
    "sammed2d": pins.pinned(pins.sammed2d),
    "msd": volumes.decathlon_task,
    "amos": volumes.amos,
    "isles": volumes.isles,
    "synapse": volumes.synapse,
    "brats": volumes.brats,
    "lits": volumes.lits,
    "cholecseg8k": pictures.cholecseg8k,
    "glas": pictures.glas,
    "ultrasound": pictures.ultrasound,
    "chestxdet": pictures.chestxdet,
    "chestxray8": pictures.chestxray8,
    "cvpr24": pictures.cvpr24,
}


class Fetched(NamedTuple):
    """A fetched data set: its folder, the notes of the conversion, and whether it was there.

    exact: whether its pixels are those that the book's results were measured on; None if the book
    has no results on it.
    """

    out: Path
    notes: list[str]
    unchanged: bool
    exact: bool | None = None


def default_folder(name: str, slices: bool) -> Path:
    """Return the folder of a data set below $MEDSAGA_DATA, or here if the variable is not set."""
    return (data_root() or Path.cwd()) / named(name, slices)


def named(name: str, slices: bool) -> str:
    """Return the name of a data set, or of the one of its slices."""
    return f"{name}_slices" if slices else name


def record_of(official: OfficialSet) -> dict[str, Any]:
    """Return what the table of official data sets shows of one of them."""
    root = data_root()
    return {
        "name": official.name,
        "title": official.title,
        "used_by": official.used_by,
        "licence": official.licence,
        "needs_consent": official.needs_consent,
        "size": size_text(official.bytes, official.about),
        "comes": official.comes,
        "unverified": ", ".join(official.unverified),
        "page": official.page,
        "citation": official.citation,
        "here": "here" if root is not None and (root / official.name).is_dir() else "",
    }


def size_text(size: int | None, about: str = "") -> str:
    """Return a size in MB or GB, or how it is known otherwise."""
    if size is None:
        return f"about {about}" if about else "unknown"
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def download_bytes(official: OfficialSet) -> int | None:
    """Return the size of the download, asked from the server if the facts do not have it."""
    sizes = [file.bytes or remote_bytes(file.url) for file in official.files]
    return sum(sizes) if sizes and None not in sizes else None  # type: ignore[arg-type]


def fetch_set(
    name: str,
    out: Path,
    *,
    given: Path | None = None,
    accepts: bool = False,
    slices: bool = False,
    progress: bool = True,
) -> Fetched:
    """Write an official data set as a folder of the project's format.

    The folder appears when it is complete. If it is there already, nothing is downloaded or
    changed. Downloads stay in the cache, so that a second conversion needs none.

    Args:
        given: an archive of the data set, or a folder with its archives or its unpacked files; it
            replaces the download.
        accepts: the user accepts the licence.
        slices: write the slices of volumes by the paper's rule.

    Raises:
        UserError: the licence is not accepted, the data set must be downloaded by hand, a download
            fails, a file is not the official one, or the folder has other files.
    """
    official, out = find_set(name), out.expanduser().absolute()
    if official.needs_consent and not accepts:
        why = "is not free" if official.terms != "free" else "was not verified"
        raise UserError(
            f"The licence of {name} {why} ({official.licence}); read {official.page}, and add "
            "--accept-licence if you accept it."
        )
    if slices and not official.least:
        raise UserError(f"{name} has no rule for slices; omit --slices.")
    remove_leftovers(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        record = _require_same(out, official, slices)
        return Fetched(out, [], unchanged=True, exact=record.get("exact"))
    if given is None and official.comes == "by hand":
        raise UserError(f"{official.how} Then add --from with the path of the file or folder.")
    with _working(out) as work:
        folder, sources = _collect(official, given, work, progress)
        source = Source(folder)
        found = CONVERTERS[official.convert](source, official)
        if slices:
            assert official.least is not None
            found = as_slices(
                found, official.modality, official.window, official.least, official.pad
            )
        bare = [file.name for file in official.files if file.hash is None]
        if bare:
            found.notes.append(f"no hash is published for {listed(bare)}; {RECORD} has those seen")
        found = replace(
            found,
            name=named(name, slices),
            modality=official.modality or found.modality,
            labels={} if official.instances else official.labels or found.labels,
            licence=official.licence,
            citation=official.citation,
            window=None if official.window is None or slices else list(official.window),
        )
        request = Request(
            options=Options(instances=official.instances), link=folder == work and _links(work)
        )

        exact: bool | None = None

        def finish(draft: Path, notes: list[str]) -> None:
            nonlocal exact
            if pins.is_pinned(name):
                pins.write_pins(name, draft / INDEX)
            if official.pixels is not None:
                exact = pins.pixel_hash(open_dataset(draft)) == official.pixels
                verb = "are" if exact else "differ from"
                notes.append(f"the pixels {verb} those that the book's results were measured on")
            text = _provenance(official, sources, notes)
            (draft / PROVENANCE).write_text(text, encoding="utf-8")
            record = {
                "set": name,
                "slices": slices,
                "exact": exact,
                "sources": sources,
                "files": _sizes(draft),
            }
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            (draft / RECORD).write_text(text, encoding="utf-8")

        done = write_dataset(source, found, out, request, official.convert, finish)
    return Fetched(out, done.notes, unchanged=False, exact=exact)


@contextmanager
def _working(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside the result, and remove it."""
    try:
        with working_folder(out) as folder:
            yield folder
    except OSError as error:
        raise UserError(
            f"Cannot fetch to {out}: {error.strerror or error} ({error.filename or out}); free "
            "some space or choose another OUT."
        ) from error


def _collect(
    official: OfficialSet, given: Path | None, work: Path, progress: bool
) -> tuple[Path, dict[str, str]]:
    """Return the folder of the unpacked files, and the hash of each file by its address or name."""
    sources = {}
    if given is None:
        for file in official.files:
            path = _downloaded(file, official.name, progress)
            sources[file.url] = file.hash or f"sha256:{file_hash(path)}"
            _place(path, work / (file.to or file.name), official, progress)
        return work, sources
    given = given.expanduser().absolute()
    if given.is_dir():
        tops = [p for p in sorted(given.iterdir()) if p.is_file() and not p.name.startswith(".")]
        if not any(is_archive(path) for path in tops):
            return given, {given.name: "a folder that was given"}
    elif given.is_file() and is_archive(given):
        tops = [given]
    else:
        raise UserError(
            f"{given} is neither a folder nor an archive ({', '.join(ENDINGS)}); give what you "
            "downloaded."
        )
    known = {file.name: file.hash for file in official.files}
    for path in tops:
        wanted = known.get(path.name)
        if wanted is not None and not has_hash(path, wanted):
            raise UserError(
                f"{path} does not have the hash {wanted} of {official.name}; download it again."
            )
        sources[path.name] = wanted or f"sha256:{file_hash(path)}"
        _place(path, work / path.name, official, progress)
    return work, sources


def _downloaded(file: OfficialFile, name: str, progress: bool) -> Path:
    """Download a file to the cache, unless it is there, and return its path."""
    path = cached(file)
    download(
        file.url,
        path,
        file.hash,
        name,
        without="or download it yourself and add --from with its path",
        room=f"free some space or set {CACHE_VARIABLE} to a folder that can be written",
        progress=progress,
    )
    return path


def cached(file: OfficialFile) -> Path:
    """Return the path of a download in the cache; two addresses never share one."""
    return cache_folder() / "data" / sha256(file.url.encode()).hexdigest()[:8] / file.name


def _place(path: Path, target: Path, official: OfficialSet, progress: bool) -> None:
    """Unpack an archive beside the target; copy another file to it."""
    if is_archive(path):
        unpack(path, target.parent, official.wanted, progress)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _links(folder: Path) -> bool:
    """Return whether the file system has hard links."""
    probe, other = folder / ".probe", folder / ".link"
    probe.touch()
    try:
        os.link(probe, other)
    except OSError:
        return False
    finally:
        probe.unlink()
        other.unlink(missing_ok=True)
    return True


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes of all files of a folder by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _require_same(out: Path, official: OfficialSet, slices: bool) -> dict[str, Any]:
    """Return the record of a folder that the same command fetched and nobody changed since.

    Raises:
        UserError: it is another folder.
    """
    other = f"choose another OUT (nothing was changed in {out})"
    if not (out / RECORD).is_file():
        raise UserError(f"{out} exists and was not fetched; {other}.")
    record: dict[str, Any] = read_json(out / RECORD)
    if (record.get("set"), record.get("slices")) != (official.name, slices):
        kind = " with --slices" if record.get("slices") else ""
        raise UserError(f"{out} was fetched as {record.get('set')}{kind}; {other}.")
    sizes = _sizes(out)
    changed = [path for path, size in record.get("files", {}).items() if sizes.get(path) != size]
    if changed:
        raise UserError(f"{out} was fetched, but its {changed[0]} has changed since; {other}.")
    return record


def _provenance(official: OfficialSet, sources: dict[str, str], notes: list[str]) -> str:
    """Return SOURCE.md: where the files are from, what they may be used for, what was done."""
    unverified = ", ".join(official.unverified)
    lines = [
        f"# {official.title}",
        "",
        f"- page: {official.page}",
        f"- licence: {official.licence}",
        f"- cite: {official.citation}",
        *([f"- not verified by this project: {unverified}"] if unverified else []),
        "",
        "From:",
        "",
        *(f"- {source}, {digest}" for source, digest in sources.items()),
        "",
        "Done:",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"
