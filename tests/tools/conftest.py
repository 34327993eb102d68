"""A book of one small chapter, made anew for each test."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import exercises, pairs

REPOSITORY = Path(__file__).parents[2]

CONFIG = """\
title: A small book
only_build_toc_files: true
repository: {url: "https://github.com/someone/book", branch: main, path_to_book: ""}
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [dollarmath]}
sphinx: {config: {mathjax_path: mathjax/tex-svg-full.js, html_static_path: [book/_static]}}
"""
TOC = """\
format: jb-book
root: book/index
chapters:
  - file: notebooks/01_small.ipynb
  - file: book/status
"""
CHAPTER = """\
# %% [markdown]
# # 1. Small
#
# **You will be able to**
# - add two numbers,
# - tell when you cannot.
#
# **Before this** nothing.
#
# **Budget** 1 minute on two CPU cores, 1 GB of memory, 0 MB to download

# %% tags=["colab"]

# %% tags=["parameters"]
profile = "quick"
seed = 3

# %% tags=["data"]
print("phantom_small, drawn")

# %%
print(profile, 1 + 1)

# %% [markdown]
# ## Questions

# %% [markdown] tags=["question"]
# **Question 1.** Why is $1 + 1$ even?
#
# - **A.** It is a sum.
# - **B.** It is twice 1.
# - **C.** It is small.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** No: $1 + 2$ is a sum, too.
# - **B.** Yes: twice a number is even.
# - **C.** No: 1 is smaller.
# </details>

# %% [markdown] tags=["question"]
# **Question 2.** Why is 3 odd?
#
# - **A.** It is not twice a whole number.
# - **B.** It is prime.
# - **C.** It is positive.
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: this is the definition.
# - **B.** No: 2 is prime, too.
# - **C.** No: 2 is positive, too.
# </details>

# %% [markdown] tags=["question"]
# **Question 3.** Which number comes after 1?
#
# - **A.** 2
# - **B.** 3
# - **C.** 0
#
# <details class="answers"><summary>Answers</summary>
#
# - **A.** Yes: 1 + 1 is 2.
# - **B.** No: 3 comes after 2.
# - **C.** No: 0 comes before 1.
# </details>

# %% [markdown]
# ## Doubling
#
# ### Exercise 1: find the fault (easy, 1 minute)
# Double `x`.

# %% tags=["exercise"]
def double(x):
    return x

# %% tags=["solution"]
def double(x):
    return 2 * x

# %% tags=["exercise-check"]
assert double(3) == 6, f"twice 3 is 6, not {double(3)}"

# %% [markdown]
# ### Exercise 2: experiment (easy, 1 minute)
# Change the seed to 4.

# %% tags=["exercise"]
seeds = [seed]

# %% tags=["solution"]
seeds = [seed, 4]

# %% tags=["exercise-check"]
assert len(seeds) == 2 and seeds[1] == 4, f"add the seed 4 to {seeds}"

# %% [markdown]
# ### Exercise 3: calculate (hard, 1 minute)
# Halve `x`.

# %% tags=["exercise"]
half = None

# %% tags=["solution"]
half = 0.5

# %% tags=["exercise-check"]
assert half == 0.5, "half is one over two"

# %% [markdown]
# ## Summary
# $1 + 1 = 2$.
"""

ANSWERS = """\
[[1]]
answer = "def double(x):\\n    return x**2"
says = "not 9"

[[2]]
answer = "seeds = [seed, seed]"
says = "add the seed 4"

[[3]]
answer = "half = 2"
says = "one over two"
"""


@dataclass
class SmallBook:
    """A book whose one chapter keeps every convention."""

    root: Path
    script: Path
    notebook: Path

    def edit(self, old, new, file="notebooks/01_small.py"):
        """Replace `old`, which must be there, by `new` in a file."""
        content = (self.root / file).read_text(encoding="utf-8")
        assert old in content
        (self.root / file).write_text(content.replace(old, new))

    def unfolded(self):
        """The chapter as `make book` runs it."""
        return exercises.unfolded(pairs.read_notebook(self.notebook))

    def edit_chapter(self, old, new):
        """Edit the script and bring the notebook up to date."""
        self.edit(old, new)
        pairs.fix(self.root)

    def commit(self):
        """Commit all files of the book."""
        for words in ("init -q", "add -A", "commit -q -m state"):
            command = ["git", "-c", "user.name=Reader", "-c", "user.email=reader@example.org"]
            subprocess.run([*command, *words.split()], cwd=self.root, check=True)


@pytest.fixture
def small_book(tmp_path):
    """A book of one chapter, in order; not under git before its first `commit()`."""
    for folder in ("book/_static", "notebooks/answers", "medsaga_lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tools").symlink_to(REPOSITORY / "tools")
    texts = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "book/index.md": "# Small\n\nA word.\n",
        "book/status.md": "# Status\n\n<!-- The table stands here once the book is built. -->\n",
        "book/_static/book.css": "",
        "medsaga_lib/one.py": "one = 1\n",
        "requirements.txt": "",
        "notebooks/01_small.py": CHAPTER,
        "notebooks/answers/01_small.toml": ANSWERS,
        ".gitignore": "_build/\n",
    }
    for name in ("README.md", "CITATION.cff", "CONTRIBUTING.md"):
        texts[name] = "https://github.com/someone/book\n"
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
    pairs.fix(tmp_path)
    stem = tmp_path / "notebooks" / "01_small"
    return SmallBook(tmp_path, stem.with_suffix(".py"), stem.with_suffix(".ipynb"))
