"""The workflows: jobs that exist, no more permissions than needed, a site that may be published."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from medsaga_lib.data.fetching.catalogue import official_sets
from tools import book, colab, offline, pdf, slides

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What a job may write, and why: deploy-pages needs both; a release; PyPI trusts the workflow.
WRITES = {
    "ci.publish": {"pages", "id-token"},
    "release.release": {"contents"},
    "release.pypi": {"id-token"},
}


def read(path):
    """The content of a workflow; YAML reads its key `on` as true."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs():
    """Names such as ci.book, and the jobs."""
    found = {path.stem: read(path)["jobs"] for path in WORKFLOWS}
    return [
        (f"{file}.{name}", job)
        for file, all_jobs in found.items()
        for name, job in all_jobs.items()
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_its_jobs_need_jobs_of_it(path):
    content = read(path)
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= content["jobs"].keys()
        assert job["runs-on"] == "ubuntu-latest"


def test_only_the_jobs_that_publish_may_write():
    asked = {name: set(job["permissions"]) for name, job in jobs() if "permissions" in job}
    assert asked == WRITES


def test_actions_have_a_version_and_no_step_runs_what_is_not_there():
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for name, job in jobs():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step["uses"]), (name, step)
            for target in re.findall(r"\bmake ([a-z]+)", step.get("run", "")):
                assert target in targets, (name, target)
            folder = ROOT / step.get("working-directory", "")
            for file in re.findall(
                r"(?:^|python |\s)(\.ci/\w+|\w[\w/]*\.py)\b", step.get("run", "")
            ):
                assert (folder / file).exists(), (name, file)


def test_the_site_of_the_main_branch_is_published_after_its_tests():
    content = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    steps = content["book"]["steps"]
    runs = [step.get("run") or step.get("uses") for step in steps]
    fetch = next(at for at, run in enumerate(runs) if run.startswith(".ci/fetch"))
    upload = next(at for at, run in enumerate(runs) if run.startswith("actions/upload-pages"))
    extra = next(at for at, run in enumerate(runs) if run.startswith("make slides pdf"))
    assert fetch < runs.index(".ci/run") < extra < upload
    assert runs[extra].splitlines()[1:] == [
        f"cp -r {slides.SLIDES} _build/html/slides",
        f"cp {pdf.PDF} _build/html/book.pdf",
    ]
    assert steps[upload]["with"] == {"path": "_build/html"}
    assert "refs/heads/main" in steps[upload]["if"]
    assert content["publish"]["needs"] == "book"
    assert "refs/heads/main" in content["publish"]["if"]
    assert content["publish"]["environment"]["name"] == "github-pages"


def test_the_release_has_the_zip_that_make_offline_writes():
    steps = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["build"]["steps"]
    (run,) = [step["run"] for step in steps if "make offline" in step.get("run", "")]
    assert f"cp {offline.OFFLINE} offline/" in run.splitlines()


@pytest.mark.parametrize(("exact", "code"), [("true", 0), ("null", 0), ("false", 1)])
def test_only_other_pixels_stop_the_fetching(tmp_path, exact, code):
    script = (ROOT / ".ci" / "fetch").read_text(encoding="utf-8")
    (check,) = re.findall(r'-c "(import json.*)" "\$folder', script)
    (tmp_path / "data.json").write_text(f'{{"exact": {exact}}}')
    done = subprocess.run([sys.executable, "-c", check, tmp_path / "data.json"], check=False)
    assert done.returncode == code


def test_the_pictures_on_the_site_may_be_passed_on():
    """Every set that `.ci/fetch` fetches has a licence that lets others publish its pictures."""
    script = (ROOT / ".ci" / "fetch").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"for pins in (\S+);", script)
    fetched = {path.stem for path in ROOT.glob(pattern)}
    for name in fetched:
        facts = official_sets()[name]
        assert facts.terms == "free", name
        assert re.match(r"CC0|CC BY(-SA)? \d|Apache-2.0", facts.licence), (name, facts.licence)
    shown = set()
    for chapter in book.chapters(ROOT):
        text = (ROOT / chapter).with_suffix(".py").read_text(encoding="utf-8")
        shown |= {name for name in re.findall(r'"([a-z0-9_]+)"', text) if name in official_sets()}
    assert shown <= fetched
    assert {"cxr_hannover_lungs", "polyp_kvasir", "hippocampus_msd"} <= shown


def test_binder_installs_what_the_chapters_use():
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o111, "Binder runs it, so it must be executable"
    subprocess.run(["bash", "-n", script], check=True)
    extras = re.findall(r'"\.\[([a-z,]+)\]"', script.read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras == [colab.EXTRAS]
    assert set(extras[0].split(",")) <= project["optional-dependencies"].keys()
    # The Python that the pinned versions were made on.
    made_on = re.search(
        r"Made on Python (\d+\.\d+)", (ROOT / "requirements.txt").read_text(encoding="utf-8")
    )[1]
    assert (script.parent / "runtime.txt").read_text(encoding="utf-8") == f"python-{made_on}\n"
    assert "--constraint requirements.txt" in script.read_text(encoding="utf-8")
    assert book.settings(ROOT)["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
