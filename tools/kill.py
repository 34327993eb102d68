"""Kill commands at random moments, and look at what they leave.

    python -m tools.kill                          # 60 kills, 10 of each command
    python -m tools.kill predict fix --kills 20   # 20 of each of two commands

A command runs in a forked process, which has its libraries already. After a kill, every visible
file must be whole: a folder is complete or not there, a run can be read. Then the same command must
end as if it had not been killed, and leave nothing else.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from medsaga_lib.files import is_leftover

PICTURES = 5  # our choice: small, so that a command takes about a second
LATE = 1.1  # our choice: the last kill comes up to 10 % after the time that the command takes
VARYING = {"seconds", "command", "versions", "commit"}  # keys of content that differs by run
Content = dict[str, Any]  # what a folder holds, by the paths of its files


@dataclass(frozen=True)
class Command:
    """The words of a command after `medsaga`, and what it writes.

    out: path of the result in the folder of the inputs. at_once: whether the result is a folder
    that appears when it is complete; otherwise its files appear one by one.
    """

    words: str
    out: str
    at_once: bool = False


IMAGES = " ".join(f"data/images/p{number:03d}_0.png" for number in range(PICTURES))
TRAIN = "train unet --data data --shots 2 --weights random --size 32 --batch 2"
COMMANDS = {
    "train": Command(f"{TRAIN} --steps 6 --out new", "new"),
    "predict": Command(f"predict run {IMAGES} --out new", "new"),
    "evaluate": Command("evaluate run --data data --split train --out new", "new"),
    "import": Command("data import pair new --modality X-ray --labels 1=a,2=b,3=c", "new", True),
    "fix": Command("data check broken --fix new", "new", True),
    "fetch": Command("data fetch lits new --from given --accept-licence", "new", True),
}


def prepare(folder: Path) -> None:
    """Write the inputs of all commands."""
    import nibabel
    import numpy as np

    _load()
    from medsaga_lib.data.phantoms import write_phantoms

    write_phantoms(folder / "data", PICTURES, PICTURES, 0)
    for name in ("images", "masks"):
        shutil.copytree(folder / "data" / name, folder / "pair" / name)
    shutil.copytree(folder / "data", folder / "broken")
    index = folder / "broken/index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("images/", "images//"), "utf-8")
    description = folder / "broken/dataset.toml"
    text = description.read_text(encoding="utf-8").replace('"X-ray"', '"chest x-ray"')
    description.write_text(text, encoding="utf-8")
    (folder / "given").mkdir()
    for kind in ("volume", "segmentation"):
        for number in range(PICTURES):
            values = np.full((40, 40, 12), number % 2, np.uint8)
            path = folder / f"given/{kind}-{number}.nii"
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    assert _wait(_start(folder, f"{TRAIN} --steps 1 --out run")) == 0


def _load() -> None:
    """Import what commands import, so that most kills come while they work."""
    import matplotlib.pyplot  # noqa: F401
    import monai.metrics  # noqa: F401
    import torch  # noqa: F401

    import medsaga_lib.data.check
    import medsaga_lib.data.fetching.fetch
    import medsaga_lib.data.repair
    import medsaga_lib.display.pictures
    import medsaga_lib.evaluation.of_a_run
    import medsaga_lib.inference.predictor
    import medsaga_lib.training.loop  # noqa: F401


def _start(folder: Path, words: str) -> int:
    """Start a command in a forked process, and return its id."""
    child = os.fork()
    if child == 0:
        code: Any = 1
        try:
            os.chdir(folder)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            sys.argv = ["medsaga", *words.split()]
            from medsaga_lib import cli

            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code)
    return child


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content_of(folder: Path) -> Content:
    """Return what the visible files of a folder hold, without what differs by run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        try:
            return _without(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            return "not JSON"
    if path.name == "log.csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [_without(row) for row in csv.DictReader(file)]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without(value) for key, value in content.items() if key not in VARYING}
    return content


def _faults(name: str, folder: Path, whole: Content) -> list[str]:
    """Return what is wrong with the files that a killed command has left."""
    command, out = COMMANDS[name], folder / COMMANDS[name].out
    if name == "train" and out.exists():
        return _faults_of_run(out)
    found = content_of(out)
    if command.at_once:
        return [] if found in ({}, whole) else [f"{len(found)} of {len(whole)} files are there"]
    return [f"{path} is not whole" for path, value in found.items() if whole.get(path) != value]


def _faults_of_run(out: Path) -> list[str]:
    """Return what is wrong with the run of a killed training; each step saves it."""
    from medsaga_lib.training.run_folder import read_checkpoint, read_log, read_run

    visible = content_of(out)
    if not visible:
        return []
    read_run(out)
    saved = read_checkpoint(out)
    steps = 0 if saved is None else saved.step
    rows = len(read_log(out)) if "log.csv" in visible else 0
    return [] if rows >= steps else [f"the log has {rows} rows at step {steps}"]


def kill_once(name: str, folder: Path, delay: float, whole: Content) -> tuple[str, list[str]]:
    """Run a command, kill it after some seconds, and run it again.

    Returns:
        the state that the kill left, "absent", "partial" or "complete", and what was wrong.
    """
    command, out = COMMANDS[name], folder / COMMANDS[name].out
    shutil.rmtree(out, ignore_errors=True)
    child = _start(folder, command.words)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _wait(child)
    found = content_of(out)
    state = "absent" if not found else "complete" if found == whole else "partial"
    faults = _faults(name, folder, whole)
    code = _wait(_start(folder, command.words))
    if code != 0 and not (name == "fix" and state == "complete"):  # a copy is never overwritten
        faults.append(f"the next call ends with exit code {code}")
    if (again := content_of(out)) != whole:
        odd = [path for path in whole.keys() | again.keys() if again.get(path) != whole.get(path)]
        faults.append(f"the next call gives other files: {', '.join(sorted(odd))}")
    left = [path for path in (*out.rglob(".*"), *folder.glob(".*")) if is_leftover(path)]
    if left and not (command.at_once and state == "complete"):
        faults.append(f"the next call leaves {', '.join(path.name for path in left)}")
    return state, faults


def kill_often(name: str, folder: Path, kills: int, random: Random) -> dict[str, Any]:
    """Kill a command at random moments; return the states that were left, and the faults."""
    command, out = COMMANDS[name], folder / COMMANDS[name].out
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    assert _wait(_start(folder, command.words)) == 0, name
    seconds, whole = time.monotonic() - start, content_of(out)
    assert whole, name
    states: dict[str, int] = dict.fromkeys(("absent", "partial", "complete"), 0)
    faults = []
    for _ in range(kills):
        delay = random.uniform(0, LATE * seconds)
        state, wrong = kill_once(name, folder, delay, whole)
        states[state] += 1
        faults += [f"{name} after {delay:.3f} s: {text}" for text in wrong]
    return {"seconds": seconds, "states": states, "faults": faults}


def main(run: Callable[..., dict[str, Any]] = kill_often) -> None:
    """Run the command; the exit code is 1 if a kill leaves something half-written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--kills", type=int, default=10, help="Kills of each command.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the moments.")
    options = parser.parse_args()
    names = options.commands or list(COMMANDS)
    if unknown := set(names) - COMMANDS.keys():
        parser.error(f"there is no command {', '.join(sorted(unknown))}; use {', '.join(COMMANDS)}")
    failed = False
    with TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in names:
            found = run(name, Path(folder), options.kills, Random(f"{name}:{options.seed}"))
            states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
            print(
                f"{name:9} {found['seconds']:.2f} s; left by {options.kills} kills: {states}",
                flush=True,
            )
            for fault in found["faults"]:
                print(f"  {fault}")
            failed |= bool(found["faults"])
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
