"""Follow the page "Add something of your own" in a copy of the repository, section by section."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from loopback import serving

from medsaga_lib.data.catalog import DATA_VARIABLE
from medsaga_lib.files import CACHE_VARIABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCK = re.compile(
    r"^```(?:\{code-block\} (?P<kind>\w+)\n"
    r":caption: `(?P<file>[^`]+)`(?: \((?P<how>[^)\n]+)\))?|bash)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
ORIGIN = "https://example.org"  # where the page's files would be published
BUILT = ("_build", "build", "dist", "runs", ".*", "*.egg-info", "__pycache__")


def patched(content: str, difference: str) -> str:
    """Return `content` with the lines of a difference, whose old lines it has exactly once."""
    lines = difference.splitlines()
    old = "\n".join(line[1:] for line in lines if line[0] != "+")
    new = "\n".join(line[1:] for line in lines if line[0] != "-")
    assert f"\n{content}".count(f"\n{old}\n") == 1, f"the page is out of date:\n{old}"
    return f"\n{content}".replace(f"\n{old}\n", f"\n{new}\n")[1:]


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, root: Path, server):
        self.root, self.server, self.said = root, server, {}

    def follow(self, section: str) -> None:
        """Write each file of a section and run each command, in the order of the page."""
        blocks = list(BLOCK.finditer(SECTIONS[section]))
        assert len(blocks) == SECTIONS[section].count("\n```") / 2  # no block is overlooked
        for block in blocks:
            if block["file"] is None:
                for command in block["text"].splitlines():
                    self.run(command)
            else:
                self.write(self.root / block["file"], block["kind"], block["how"], block["text"])

    def write(self, path: Path, kind: str, how: str | None, text: str) -> None:
        """Write a file, or change it."""
        for name in re.findall(f'{ORIGIN}/(\\S+)",\n.*HASH', text):
            content = (self.root / name).read_bytes()
            self.server.files[f"/{name}"] = content
            text = text.replace("HASH", hashlib.sha256(content).hexdigest())
            text = text.replace(ORIGIN, self.server.address)
        if how == "new":
            assert not path.exists()
        elif how == "at the end":
            text = path.read_text(encoding="utf-8") + text
        else:
            assert (kind, how) == ("diff", None)
            text = patched(path.read_text(encoding="utf-8"), text)
        path.write_text(text, encoding="utf-8")

    def run(self, command: str) -> None:
        """Run a command of the page, which must succeed."""
        folder = Path(sys.executable).parent
        environment = os.environ | {
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            CACHE_VARIABLE: str(self.root.parent / "cache"),
        }
        environment.pop(DATA_VARIABLE, None)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.root,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.said[command.split(" --")[0]] = done.stdout


@pytest.fixture
def reader(tmp_path):
    """A reader with a copy of the repository."""
    root = tmp_path / "book"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*BUILT))
    with serving({}) as server:
        yield Reader(root, server)


@pytest.mark.slow
def test_a_method(reader):
    reader.follow("A method")
    assert "norm_tuning" in reader.said["medsaga methods"]
    record = json.loads((reader.root / "runs/norm_tuning/run.json").read_text(encoding="utf-8"))
    assert record["recipe"]["name"] == "norm_tuning"


@pytest.mark.slow
def test_a_backbone(reader):
    reader.follow("A backbone")
    assert len(reader.server.sent) == 1  # the checkpoint is downloaded once
    written = {path.name for path in (reader.root / "runs/small_vit").iterdir()}
    assert written == {"frame_labels.png", "frame_overlay.png"}


@pytest.mark.slow
def test_a_data_set(reader):
    reader.follow("A data set")
    assert "moles" in reader.said["medsaga data fetch"]


@pytest.mark.slow
def test_a_claim(reader):
    reader.follow("A claim")
    assert "reproduced" in reader.said["medsaga claims ssam-ranks-double"]


@pytest.mark.slow
def test_a_chapter(reader):
    reader.follow("A chapter")
    executed = nbformat.read(reader.root / "_build/15_agreement.ipynb", as_version=4)
    printed = [out.text for cell in executed.cells for out in cell.get("outputs", [])]
    assert printed == ["Dice 0.900\n"]


def test_every_section_has_its_test():
    tested = {name for name in globals() if name.startswith("test_a_")}
    assert {f"test_{name.lower().replace(' ', '_')}" for name in SECTIONS} == tested
