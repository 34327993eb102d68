"""The table of `medsaga methods`: parameters and optimizer states of every recipe.

The numbers hold for one backbone, size and number of classes. Counting builds every network without
memory, which imports many packages and takes some seconds. Therefore the numbers for the command's
defaults are stored beside this file. They are used only while the code that they depend on is
unchanged; `make sync` updates them, and a test counts again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from medsaga_lib.files import write_json

FILE = Path(__file__).with_name("counts.json")
BACKBONE, SIZE, CLASSES = "vit_b", 512, 8  # as in SAMed's and MedSAGa's tables
FOLLOWS_FROM = ("adapt", "models", "optim", "recipes", "memory")  # packages with that code


def counts(backbone: str, size: int, classes: int) -> list[dict[str, Any]]:
    """Return one record for each recipe: `name, trainable, total, state_bytes, source`.

    Raises:
        UserError: an unknown backbone, or a size that does not fit it.
    """
    if (backbone, size, classes) == (BACKBONE, SIZE, CLASSES) and FILE.exists():
        stored = json.loads(FILE.read_text(encoding="utf-8"))
        if stored["code"] == code_digest():
            return stored["counts"]
    return computed(backbone, size, classes)


def computed(backbone: str, size: int, classes: int) -> list[dict[str, Any]]:
    """Count every recipe now, without the stored file."""
    from medsaga_lib.memory.plan import count
    from medsaga_lib.recipes import RECIPES

    return [count(recipe, backbone, size, classes)._asdict() for recipe in RECIPES.values()]


def write_counts() -> bool:
    """Write the file if it is out of date; return whether it was."""
    code = code_digest()
    if FILE.exists() and json.loads(FILE.read_text(encoding="utf-8"))["code"] == code:
        return False
    write_json(FILE, {"code": code, "counts": computed(BACKBONE, SIZE, CLASSES)})
    return True


def main() -> None:
    """Write the file if it is out of date; `make sync` runs this."""
    print(f"{FILE.name}: {'written anew' if write_counts() else 'up to date'}")


def code_digest() -> str:
    """Return a digest of the Python files that the numbers depend on."""
    total = hashlib.sha256()
    root = Path(__file__).parents[1]
    for package in FOLLOWS_FROM:
        for path in sorted((root / package).rglob("*.py")):
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:16]


if __name__ == "__main__":
    main()
