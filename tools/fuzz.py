"""Read randomly damaged files of every format; only a valid result or a `UserError` is right.

    python -m tools.fuzz                        # 200 files of each format
    python -m tools.fuzz png tiff --count 20000 # of two formats
    python -m tools.fuzz --replay png:17        # one file again, with its error

`tools.mutations` damages the files. A process of its own reads them, so that a crash or a hang
costs one file. A file fails if its reader raises another error, prints something, crashes, takes
longer than `LONGEST` seconds, or needs more memory than `TIMES` its size or result, plus `FLOOR`.
"""

import argparse
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

from medsaga_lib.errors import UserError
from tools.mutations import FORMATS, mutated

LONGEST = 60.0  # seconds for one file; our choice, thousands of times what a valid one takes
TIMES = 4  # our choice: the memory for the file, the values and two copies of them
FLOOR = 48 * 2**20  # bytes; our choice, above what libraries load at their first use
ADDRESSES = 4 * 2**30  # bytes of address space that a reader may ask for, beyond its libraries

START: Literal["spawn", "fork"] = "spawn"  # how the process begins; "fork" copies this one

Kind = Literal["valid", "refused", "failed"]


class Outcome(NamedTuple):
    """The result of one file; `what` is the message of a refusal, or says how it failed."""

    kind: Kind
    what: str
    memory: int  # bytes above what the process held before
    seconds: float


def read(name: str, path: Path) -> int:
    """Read a file of a format as the library does, and return the bytes of the result.

    Raises:
        UserError: the file is refused.
    """
    if name in ("index.csv", "dataset.toml"):
        return _read_folder(path.parent)
    if name in ("safetensors", "pth"):
        from medsaga_lib.models.weights import read_tensors

        return sum(tensor.nbytes for tensor in read_tensors(path).values())
    if name in ("zip", "tar", "tar.gz"):
        return _unpack(path)
    if name == "checkpoint":
        from medsaga_lib.training.run_folder import read_checkpoint

        saved = read_checkpoint(path.parent)
        assert saved is not None
        return sum(tensor.nbytes for tensor in (saved.weights | saved.optimizer).values())
    if name == "run.json":
        from medsaga_lib.training.run_folder import read_run, recipe_of

        recipe_of(read_run(path.parent))
        return 0
    if name == "log.csv":
        from medsaga_lib.training.run_folder import read_log

        return len(read_log(path.parent))
    return _read_picture(path)


def _read_folder(folder: Path) -> int:
    """Check a data set, then open it; the check must name what opening refuses."""
    from medsaga_lib.data.catalog import open_dataset
    from medsaga_lib.data.check import report

    report(folder)
    return len(open_dataset(folder).cases)


def _unpack(archive: Path) -> int:
    """Unpack an archive, look for files outside its folder, and return the bytes of its files."""
    from medsaga_lib.data.fetching.archives import unpack

    folder = archive.parent / "unpacked"
    folder.mkdir()
    try:
        unpack(archive, folder, progress=False)
    finally:
        outside = sorted(path.name for path in archive.parent.iterdir())
        assert outside == [archive.name, folder.name], f"it wrote {outside}"
        assert not any(path.is_symlink() for path in folder.rglob("*"))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read_picture(path: Path) -> int:
    """Read an image, its facts and boxes, as labels too, and write labels on its grid."""
    import numpy as np

    from medsaga_lib.data.dataset import Case
    from medsaga_lib.data.facts import facts_of
    from medsaga_lib.data.images import picture_of, read_labels, read_stored
    from medsaga_lib.data.label_files import require_room, targets, write_labels
    from medsaga_lib.inference.user_boxes import stored_boxes

    def as_image() -> int:
        stored = read_stored(path)
        picture = picture_of(stored, "MR")
        facts_of(Case("a", "a", path, None, "train"), stored, None)
        out = path.parent / "out"
        for target in targets([path], out):
            require_room(target, path, picture)
            write_labels(target, picture, np.zeros(picture.shape, np.int64))
        return stored.values.nbytes + picture.pixels.nbytes

    def as_labels() -> int:
        return read_labels(path).values.nbytes

    def boxes() -> int:
        return stored_boxes(path).nbytes

    ways = [as_image, as_labels] + [boxes] * (path.suffix == ".npz")
    sizes, refusals = [], []
    for way in ways:
        try:
            sizes.append(way())
        except UserError as error:
            refusals.append(error)
    if not sizes:
        raise refusals[0]
    return max(sizes)


def attempt(name: str, seed: int, printed: Path | None = None) -> Outcome:
    """Read one damaged file in this process, and judge what happens.

    printed: the file to which the standard streams of this process go.
    """
    with TemporaryDirectory() as folder:
        files = mutated(name, seed)
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        size = sum(map(len, files.values()))
        before, start = _memory_now(), time.monotonic()
        length = printed.stat().st_size if printed else 0
        kind: Kind = "valid"
        what = ""
        try:
            size = max(size, read(name, Path(folder, FORMATS[name].target)))
        except UserError as error:
            kind, what = "refused", str(error).replace(folder, "")
            if "\n" in what:
                kind, what = "failed", f"an error of several lines: {what}"
        except Exception as error:
            kind, what = "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        seconds, memory = time.monotonic() - start, _memory_peak() - before
    if printed and printed.stat().st_size > length:
        text = printed.read_bytes()[length:].decode(errors="replace")
        kind, what = "failed", f"printed {text}"
    if kind != "failed" and memory > TIMES * size + FLOOR:
        what = f"needed {memory / 2**20:,.0f} MiB for {size:,} bytes ({kind}: {what})"
        kind = "failed"
    return Outcome(kind, what, memory, seconds)


def _memory_now() -> int:
    """Return the bytes that this process holds, and start a new measurement of the peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not Linux: the peak is then that of the whole process so far
        return _memory_peak()
    return _status("VmRSS")


def _memory_peak() -> int:
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(text.split(f"{key}:")[1].split()[0])


class Reader:
    """A process that reads damaged files; another one takes its place after a crash or a hang."""

    def __init__(self) -> None:
        self._process: Any = None
        self._folder = TemporaryDirectory()

    def attempt(self, name: str, seed: int) -> Outcome:
        """Return the outcome of one file."""
        if self._process is None:
            self._start()
        start = time.monotonic()
        self._pipe.send((name, seed))
        try:
            if self._pipe.poll(LONGEST):
                return self._pipe.recv()
            what = f"took longer than {LONGEST:g} s"
        except (EOFError, ConnectionError):
            self._process.join()
            what = f"crashed with exit code {self._process.exitcode}"
        self.close()
        return Outcome("failed", what, 0, time.monotonic() - start)

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(START)
        self._pipe, other = context.Pipe()
        printed = Path(self._folder.name) / "printed"
        self._process = context.Process(target=_serve, args=(other, printed), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()  # it has imported everything

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


@contextmanager
def reader() -> Iterator[Reader]:
    """Give a `Reader` and end its process."""
    one = Reader()
    try:
        yield one
    finally:
        one.close()


def _serve(pipe: Connection, printed: Path) -> None:
    """Read the files that the other process asks for, until it ends."""
    kept = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for number in (1, 2):
        os.dup2(kept, number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    warnings.simplefilter("always")  # each one counts as printed
    warnings.simplefilter("ignore", ResourceWarning)  # Python does not print it either
    _load()
    limit = _status("VmSize") + ADDRESSES if Path("/proc/self/status").exists() else None
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(name, seed, printed))


def _load() -> None:
    """Import what readers import at their first use, so that it is not measured with a file."""
    import imagecodecs  # noqa: F401
    import nibabel  # noqa: F401
    import safetensors.torch  # noqa: F401
    import SimpleITK  # noqa: F401
    import tifffile  # noqa: F401
    import torch  # noqa: F401
    from PIL import Image

    import medsaga_lib.data.check
    import medsaga_lib.data.fetching.archives
    import medsaga_lib.data.label_files
    import medsaga_lib.training.run_folder  # noqa: F401

    Image.init()
    logging.captureWarnings(False)


class Tally(NamedTuple):
    """The outcomes of one format."""

    name: str
    counts: Counter[str]
    failures: dict[int, str]  # by seed
    seconds: float
    slowest: float
    memory: int


def fuzz(one: Reader, name: str, seeds: Iterable[int]) -> Tally:
    """Read the damaged files of one format."""
    counts: Counter[str] = Counter()
    failures: dict[int, str] = {}
    start, slowest, memory = time.monotonic(), 0.0, 0
    for seed in seeds:
        outcome = one.attempt(name, seed)
        counts[outcome.kind] += 1
        slowest, memory = max(slowest, outcome.seconds), max(memory, outcome.memory)
        if outcome.kind == "failed":
            failures[seed] = outcome.what
    return Tally(name, counts, failures, time.monotonic() - start, slowest, memory)


def _job(names: Sequence[str], seeds: range) -> list[Tally]:
    """Read and print formats one after the other."""
    with reader() as one:
        tallies = []
        for name in names:
            tallies.append(fuzz(one, name, seeds))
            print(_row(tallies[-1]), flush=True)
        return tallies


def _row(tally: Tally) -> str:
    counts = "".join(f"{tally.counts[kind]:9,}" for kind in ("valid", "refused", "failed"))
    first = f"{tally.name:13}{counts}{tally.seconds:9.1f}{tally.slowest:9.2f}"
    failures = [
        f"  {tally.name}:{seed} {what.splitlines()[0]}" for seed, what in tally.failures.items()
    ]
    return "\n".join([f"{first}{tally.memory / 2**20:6,.0f}", *failures])


def replay(word: str) -> None:
    """Read one damaged file in this process and print what happens; keep the file."""
    name, _, seed = word.partition(":")
    kept = Path(f"fuzz-{name}-{seed}")
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for file, content in mutated(name, int(seed)).items():
        (kept / file).write_bytes(content)
    _load()
    print(f"{kept / FORMATS[name].target}: {attempt(name, int(seed))}")


def main() -> None:
    """Run the command; the exit code is 1 if a file fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--count", type=int, default=200, help="Files of each format.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first file.")
    parser.add_argument("--jobs", type=int, default=1, help="Formats at a time.")
    parser.add_argument("--replay", metavar="FORMAT:SEED", help="Read one file again.")
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay)
    names = options.formats or list(FORMATS)
    if unknown := set(names) - FORMATS.keys():
        parser.error(f"there is no format {', '.join(sorted(unknown))}; use {', '.join(FORMATS)}")
    seeds = range(options.seed, options.seed + options.count)
    failed = 0
    heads = ("valid", "refused", "failed", "seconds", "slowest")
    print(f"{'format':13}" + "".join(f"{head:>9}" for head in heads) + f"{'MiB':>6}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        parts = [names[job :: options.jobs] for job in range(options.jobs)]
        for tallies in pool.map(partial(_job, seeds=seeds), parts):
            failed += sum(len(tally.failures) for tally in tallies)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
