"""A book of one small chapter, made anew for each test."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import pairs

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
# ## Doubling
#
# ### Exercise 1 (easy, 1 minute)
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
# ### Exercise 2 (hard, 1 minute)
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
    for folder in ("book/_static", "notebooks", "medsaga_lib"):
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
        ".gitignore": "_build/\n",
    }
    for name in ("README.md", "CITATION.cff", "CONTRIBUTING.md"):
        texts[name] = "https://github.com/someone/book\n"
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
    pairs.fix(tmp_path)
    stem = tmp_path / "notebooks" / "01_small"
    return SmallBook(tmp_path, stem.with_suffix(".py"), stem.with_suffix(".ipynb"))
