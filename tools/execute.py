"""Execute the chapters with papermill: each in its own process, two at a time, cached by content.

A chapter runs again only when its cells, the library, the pinned packages, the profile or the data
have changed. Its time and memory are measured, stored in the notebook's metadata under "medsaga",
and compared with the budget that its first cell declares.
"""

import argparse
import datetime
import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from medsaga_lib.data.catalog import data_root
from medsaga_lib.errors import UserError
from tools import book, exercises, pairs
from tools.book import BUILD, BookError
from tools.provenance import commit, device

EXECUTED = BUILD / "executed"
STAGE = BUILD / "stage"
AT_A_TIME = 2  # the reference machine has two cores
STARTS = 3  # attempts to start a kernel
HUNG = 1800  # seconds after which a cell is stopped
SLOWER, BIGGER = 1.5, 1.1  # factors on a budget, because machines differ; our choice
REFERENCE = 70  # GFLOP/s of a float32 matrix product on one thread, where every budget was kept
SIDE, PRODUCTS = 1024, 7  # of the matrices that are multiplied to compare a machine; our choice
SLOW_CELL = 5  # seconds from which on the time of a cell is recorded; our choice
TRACEBACK_LINES = 15
LOG_END = 4000  # characters of the log that are shown if a process ends without a message
VERSIONS = ("torch", "numpy", "monai", "segment-anything", "medsaga-lib")
WITHOUT_REAL = (
    "> **Built without real images.** `MEDSAGA_DATA` names no folder, so drawn images replace the "
    "data sets, and the cells that need the real ones are left out: {count}."
)
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS_BAR = re.compile(r"\r.|\d%\|")

KERNEL = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
}


def execute(root: Path, profile: str) -> dict[Path, Path]:
    """Execute the chapters that are not in the cache; return chapter -> executed notebook.

    The chapters are in reading order.

    Raises:
        BookError: a cell failed; the message has the notebook, the cell and the traceback's end.
    """
    done = targets(root, profile, data_folder())
    waiting = {chapter: target for chapter, target in done.items() if not target.exists()}
    print(f"make: {len(done)} chapters, {len(waiting)} to execute, profile {profile}", flush=True)
    for file in inputs(root):
        book.copy(root / file, root / STAGE / file)
    (root / STAGE / "notebooks").mkdir(parents=True, exist_ok=True)
    (root / EXECUTED).mkdir(exist_ok=True)
    in_own_processes(root, waiting, profile)
    for old in set((root / EXECUTED).glob("*.ipynb")) - set(done.values()):
        old.unlink()
    over = [line for chapter, target in done.items() for line in over_budget(chapter, target)]
    if over and profile == "quick":
        if book.in_ci():
            raise BookError("\n".join(over))
        print("\n".join(f"warning: {line}" for line in over))
    return done


def targets(root: Path, profile: str, data: str) -> dict[Path, Path]:
    """Return chapter -> path of its executed notebook, whose name depends on all its inputs."""
    files = [*library_files(root), root / "requirements.txt"]
    common = digest(*files, text=f"{sys.version_info[:3]} {profile} {data_identity(data)}")
    found = {}
    for chapter in book.chapters(root):
        source = pairs.notebook_text(pairs.read_notebook(root / chapter), book.colab_cell(root))
        source += exercises.answers_path(root, chapter).read_text(encoding="utf-8")
        # by their stems, because a chapter may compose the rest of a name
        read = [root / file for file in inputs(root) if file.stem in source]
        name = f"{chapter.stem}.{digest(*read, text=common + source)}.ipynb"
        found[chapter] = root / EXECUTED / name
    return found


def inputs(root: Path) -> list[Path]:
    """Return the files that chapters read, such as recorded runs, relative to `root`."""
    files = (path for path in (root / "notebooks").rglob("*") if path.is_file())
    apart = {".ipynb_checkpoints", exercises.ANSWERS.name}
    return sorted(
        path.relative_to(root)
        for path in files
        if path.suffix not in {".ipynb", ".py"} and not apart & {*path.parts}
    )


def in_own_processes(root: Path, waiting: dict[Path, Path], profile: str) -> None:
    """Run this module on each chapter, a few at a time; the first failure stops all of them.

    The longest come first, so that none is left to run alone at the end.
    """
    queue = sorted(waiting.items(), key=lambda each: -budgeted_minutes(root / each[0]))
    running: dict[subprocess.Popen[str], Path] = {}
    try:
        while queue or running:
            while queue and len(running) < AT_A_TIME:
                chapter, target = queue.pop(0)
                command = [sys.executable, "-m", "tools.execute", str(chapter), str(target)]
                with log_file(root, chapter).open("w", encoding="utf-8") as log:
                    process = subprocess.Popen(
                        [*command, "--profile", profile],
                        cwd=root,
                        env=kernel_environment(),
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                running[process] = chapter
            time.sleep(0.1)
            for process in [one for one in running if one.poll() is not None]:
                chapter, said = running.pop(process), process.communicate()[0].strip()
                if process.returncode:
                    log_end = log_file(root, chapter).read_text(encoding="utf-8")[-LOG_END:]
                    raise BookError(said or f"{chapter}: {log_end}")
                print(said, flush=True)
    finally:
        for process in running:
            process.terminate()


def log_file(root: Path, chapter: Path) -> Path:
    """Return the file for text of a chapter's process that is not an output of a cell."""
    return root / EXECUTED / f"{chapter.stem}.log"


def execute_one(root: Path, chapter: Path, target: Path, profile: str) -> dict[str, Any]:
    """Execute one chapter into `target`, and return the record of its execution."""
    part = target.with_name(f".{target.stem}.part.ipynb")
    answers = exercises.read_answers(root, chapter)
    for start in range(1, STARTS + 1):
        unfolded = exercises.unfolded(pairs.read_notebook(root / chapter))
        try:
            notebook = papermill.execute_notebook(
                exercises.with_proofs(without_real(unfolded), answers),
                str(part),
                parameters={"profile": profile},
                cwd=str(root / STAGE / "notebooks"),
                progress_bar=False,
                execution_timeout=HUNG,
                coalesce_streams=True,
            )
            break
        except PapermillExecutionError as error:
            raise BookError(failure(chapter, root, error)) from error
        except (DeadKernelError, CellTimeoutError) as error:
            raise BookError(f"{chapter}: {str(error).splitlines()[0]}") from error
        except RuntimeError:  # jupyter_client raises it when the kernel does not reply
            if start == STARTS:
                raise
        finally:
            part.unlink(missing_ok=True)
    record = provenance(root, notebook, profile)
    notebook, problems = exercises.without_proofs(without_kernel(notebook))
    notebook.cells = [
        cell for cell in notebook.cells if "injected-parameters" not in book.tags(cell)
    ]
    if problems := [*problems, *blemishes(notebook)]:
        raise BookError("\n".join(f"{chapter}: {problem}" for problem in problems))
    for cell in notebook.cells:
        cell.metadata = {
            key: value for key, value in cell.metadata.items() if key in pairs.CELL_METADATA
        }
    notebook.metadata = {
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": notebook.metadata.language_info,
        "medsaga": record,
    }
    book.write(target, nbformat.writes(notebook, indent=1))
    return record


def without_real(notebook: NotebookNode) -> NotebookNode:
    """Leave out the cells tagged `real` if there are no real images, and say so at the top."""
    real = [cell for cell in notebook.cells if book.REAL in book.tags(cell)]
    if real and data_root() is None:
        notebook.cells = [cell for cell in notebook.cells if cell not in real]
        note = nbformat.v4.new_markdown_cell(WITHOUT_REAL.format(count=len(real)))
        notebook.cells.insert(1, note)
    return notebook


def without_kernel(notebook: NotebookNode) -> NotebookNode:
    """Take the widgets out of outputs that also have HTML, which a page shows instead."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text/html" in (data := output.get("data", {})):
                data.pop(WIDGET, None)
    return notebook


def failure(chapter: Path, root: Path, error: PapermillExecutionError) -> str:
    """Describe a failure: the cell, its first line and the end of the traceback."""
    cells = exercises.unfolded(pairs.read_notebook(root / chapter)).cells
    sources = [cell.source for cell in cells]
    number = sources.index(error.source) + 1 if error.source in sources else error.cell_index + 1
    head = error.source.strip().splitlines()[0]
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()
    said = lines[-TRACEBACK_LINES:] or [f"{error.ename}: {error.evalue}"]
    return "\n".join([f"{chapter}: cell {number} failed ({head})", *said])


def blemishes(notebook: NotebookNode) -> Iterator[str]:
    """Yield outputs that do not belong on a page: warnings, progress bars, dead widgets."""
    for number, cell in enumerate(notebook.cells, start=1):
        hidden = {"remove-output", "remove-cell"} & set(book.tags(cell))
        for output in [] if hidden else cell.get("outputs", []):
            said = output.get("text", "")
            if PROGRESS_BAR.search(said):
                yield f"cell {number} prints a progress bar"
            elif output.get("name") == "stderr":
                yield f"cell {number} writes to stderr: {said.strip()[:300]}"
            elif WIDGET in output.get("data", {}):
                yield f"cell {number} shows a widget, which needs a kernel; tag it 'remove-output'"


def provenance(root: Path, notebook: NotebookNode, profile: str) -> dict[str, Any]:
    """Return how a page was made: commit, date, profile, device, versions, seed, costs, data."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss; the largest child is the kernel
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    parameters = [cell.source for cell in notebook.cells if book.PARAMETERS in book.tags(cell)]
    seed = re.search(r"^seed = (\d+)", "\n".join(parameters), re.MULTILINE)
    return {
        "commit": commit(root),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "profile": profile,
        "device": device(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in VERSIONS},
        "seed": int(seed[1]) if seed else None,
        "minutes": round(notebook.metadata.papermill.duration / 60, 2),
        "gigabytes": round(peak / 1e9, 2),
        "data": data_used(notebook),
        "slow": slow_cells(notebook),
    }


def slow_cells(notebook: NotebookNode) -> dict[str, int]:
    """Return the seconds of the cells that took many, by the cells' ids."""
    timed = {cell["id"]: cell.metadata.get("papermill", {}) for cell in notebook.cells}
    seconds = {name: round(took.get("duration") or 0) for name, took in timed.items()}
    return {name: took for name, took in seconds.items() if took >= SLOW_CELL}


def data_used(notebook: NotebookNode) -> list[str]:
    """Return the lines that the cells tagged `data` print."""
    outputs = [
        output for cell in notebook.cells if book.DATA in book.tags(cell) for output in cell.outputs
    ]
    said = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs]
    return [line.strip() for text in said for line in text.splitlines() if line.strip()]


def budgeted_minutes(chapter: Path) -> float:
    """Return the minutes that a chapter's first cell declares; infinity if it declares none."""
    declared = book.budget(pairs.read_notebook(chapter))
    return math.inf if declared is None else declared.minutes


def over_budget(chapter: Path, target: Path) -> Iterator[str]:
    """Yield where an executed chapter exceeded its budget, whose limit `make lint` holds."""
    notebook = pairs.read_notebook(target)
    took, declared = notebook.metadata.medsaga, book.budget(notebook)
    if declared is None:
        yield f"{chapter}: its first cell declares no budget"
        return
    minutes = declared.minutes * SLOWER
    if took["minutes"] > minutes:  # only then is this machine's speed needed
        minutes *= max(1, REFERENCE / gigaflops())
    if took["minutes"] > minutes:
        yield f"{chapter}: took {took['minutes']} minutes; its budget allows {minutes:.3g}"
    gigabytes = declared.gigabytes * BIGGER
    if took["gigabytes"] > gigabytes:
        yield f"{chapter}: needed {took['gigabytes']} GB; its budget allows {gigabytes:.3g}"


@functools.cache
def gigaflops() -> float:
    """Return the GFLOP/s of this machine: the median of float32 matrix products on one thread."""
    import torch  # takes a second, which a build within its budgets does not need

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.ones(SIDE, SIDE)
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * SIDE**3 / statistics.median(seconds) / 1e9


def kernel_environment() -> dict[str, str]:
    """Return a kernel's environment: one thread, no progress bars, an absolute data folder."""
    data = data_folder()
    return {**os.environ, **KERNEL, **({"MEDSAGA_DATA": data} if data else {})}


def data_folder() -> str:
    """Return the absolute path of MEDSAGA_DATA, or "" if it is not set.

    Raises:
        BookError: MEDSAGA_DATA is not a folder.
    """
    try:
        root = data_root()
    except UserError as error:
        raise BookError(str(error)) from error
    return str(root) if root else ""


def data_identity(folder: str) -> str:
    """Return a digest of the names and sizes of the files in the data folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file()) if folder else []
    return digest(
        text="\n".join(f"{path.relative_to(folder)} {path.stat().st_size}" for path in files)
    )


def library_files(root: Path) -> list[Path]:
    """Return the library's files, code and data."""
    return sorted(
        path
        for path in (root / "medsaga_lib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def digest(*files: Path, text: str = "") -> str:
    """Return 16 hexadecimal digits that change when a file, its name or the text does."""
    total = hashlib.sha256(text.encode())
    for file in files:
        total.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def main() -> None:
    """Execute one chapter; `in_own_processes` starts this command."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("chapter", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--profile", default="quick")
    given = parser.parse_args()
    try:
        took = execute_one(Path.cwd(), given.chapter, given.target, given.profile)
    except BookError as error:
        print(error)
        raise SystemExit(1) from error
    print(f"  {given.chapter}: {took['minutes']} minutes, {took['gigabytes']} GB")


if __name__ == "__main__":
    main()
