"""`tools/setup.sh` finds a Python, makes .venv once, and mends a half-made one."""

import os
import pathlib
import shutil
import subprocess

import pytest

SETUP = pathlib.Path(__file__).parents[2] / "tools" / "setup.sh"
NAMES = ("python3.13", "python3.12", "python3.11", "python3")

# Stands in for Python: writes down what it is asked to do, makes a .venv out of itself.
PRETENDER = """\
#!/bin/sh
echo "$*" >>{log}
case "$*" in
    --version) echo "Python {version}" ;;
    -c*version_info*) exit {too_old} ;;
    -c*ensurepip*) exit {poor} ;;
    *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"pip "*) exit {pip} ;;
esac
"""


class Machine:
    """A folder to set up, with nothing on its PATH but a shell's tools and pretended Pythons."""

    def __init__(self, folder):
        self.root, self.bin, self.log = folder / "book", folder / "bin", folder / "log"
        self.root.mkdir()
        self.bin.mkdir()
        for tool in ("sh", "cat", "cksum", "rm", "mkdir", "touch", "grep", "cp"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name in ("requirements.txt", "pyproject.toml"):
            (self.root / name).write_text("")

    def install(self, *names, version="3.12.1", pip=0, poor=0):
        old = int(version.split(".")[1]) < 11
        for name in names:
            path = self.bin / name
            path.write_text(
                PRETENDER.format(
                    log=self.log, version=version, too_old=int(old), pip=pip, poor=poor
                )
            )
            path.chmod(0o755)

    def run(self):
        """Run the script; returns its exit status, its output, and the calls of Python."""
        self.log.write_text("")
        answer = subprocess.run(
            ["sh", str(SETUP)],
            cwd=self.root,
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.returncode, answer.stdout + answer.stderr, self.log.read_text()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_without_a_python_one_sentence_says_so(machine):
    status, said, _ = machine.run()
    assert status == 1
    assert said == (
        "make stopped: this book needs Python 3.11 or newer and found no Python; "
        "see https://www.python.org/downloads/\n"
    )


def test_a_python_that_is_too_old_is_named(machine):
    machine.install("python3", version="3.9.2")
    status, said, _ = machine.run()
    assert status == 1
    assert "needs Python 3.11 or newer and found Python 3.9.2" in said
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_python_is_found_under_each_of_its_names(machine, name):
    machine.install("python3", version="3.9.2")
    machine.install(name, version="3.11.0")
    status, said, _ = machine.run()
    assert status == 0
    assert "making .venv with Python 3.11.0" in said


def test_the_python_of_the_path_comes_first_and_one_without_venv_last(machine):
    """python3 is the user's choice, by a version manager or by the setup of a build server."""
    machine.install("python3", version="3.11.0")
    machine.install("python3.13", version="3.13.0")
    assert "making .venv with Python 3.11.0" in machine.run()[1]
    shutil.rmtree(machine.root / ".venv")
    machine.install("python3", version="3.11.0", poor=1)
    assert "making .venv with Python 3.13.0" in machine.run()[1]
    shutil.rmtree(machine.root / ".venv")
    machine.install("python3.13", version="3.13.0", poor=1)
    status, said, _ = machine.run()
    assert status == 1
    assert "python3 cannot make virtual environments" in said


def test_a_second_run_does_nothing_until_a_requirement_changes(machine):
    machine.install("python3")
    assert machine.run()[0] == 0
    status, said, asked = machine.run()
    assert (status, said) == (0, "")
    assert "pip" not in asked
    (machine.root / "requirements.txt").write_text("one==1\n")
    status, said, asked = machine.run()
    assert status == 0
    assert "install --quiet -r requirements.txt" in asked
    assert "-m venv" not in asked


def test_an_update_that_fails_is_tried_again_in_place(machine):
    machine.install("python3")
    machine.run()
    working = (machine.root / ".venv" / "bin" / "python").read_text()
    (machine.root / "requirements.txt").write_text("one==1\n")
    machine.install("python3", pip=1)
    shutil.copy(machine.bin / "python3", machine.root / ".venv" / "bin" / "python")
    assert machine.run()[0] == 1
    (machine.root / ".venv" / "bin" / "python").write_text(working)
    status, _, asked = machine.run()
    assert status == 0
    assert "install --quiet -r requirements.txt" in asked
    assert "-m venv" not in asked


def test_an_installation_that_fails_stops_and_is_made_anew(machine):
    machine.install("python3", pip=1)
    status, said, _ = machine.run()
    assert status == 1
    assert "the packages could not be installed" in said
    machine.install("python3")
    status, said, asked = machine.run()
    assert status == 0
    assert "removing a .venv that is unfinished" in said
    assert "-m venv" in asked


def test_a_venv_whose_python_is_gone_or_that_was_moved_is_made_anew(machine):
    machine.install("python3")
    machine.run()
    (machine.root / ".venv" / "bin" / "python").unlink()
    assert "-m venv" in machine.run()[2]
    machine.root = machine.root.rename(machine.root.with_name("moved"))
    assert "-m venv" in machine.run()[2]
    assert machine.run()[1] == ""


def test_a_venv_made_by_hand_is_kept(machine):
    machine.install("python3")
    (machine.root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(machine.bin / "python3", machine.root / ".venv" / "bin" / "python")
    (machine.root / ".venv" / "mine").write_text("")
    status, _, asked = machine.run()
    assert status == 0
    assert "-m venv" not in asked
    assert (machine.root / ".venv" / "mine").exists()
