"""The provenance of a result: commit, device, versions, date."""

import datetime
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # the repository, or the folder that the library is installed in


def commit(root: Path, *but: str) -> str:
    """Return the short commit, with a plus if files except `but` differ; "unknown" without git."""

    def git(*words: str) -> str:
        try:
            answer = subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:  # a machine without git
            return ""
        return answer.stdout.strip()

    name = git("rev-parse", "--short=10", "HEAD")
    paths = (".", *(f":!{path}" for path in but))
    return name + ("+" if git("status", "--porcelain", "--", *paths) else "") if name else "unknown"


def device(threads: int = 1, kind: str | None = None) -> str:
    """Return the name of a processor: of kind cuda or cpu, or the one that the library uses."""
    import torch  # here, so that it does not count as the kernel's memory

    if kind != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    cores = "one CPU core" if threads == 1 else f"{threads} CPU cores"
    return f"{cores} ({found[1] if found else platform.processor() or platform.machine()})"


def machine(threads: int | None = None) -> dict[str, Any]:
    """Return the date, commit, device and versions of a measurement.

    threads: cores that it used; default: torch's number.
    """
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(ROOT),
        "device": device(threads or torch.get_num_threads()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
