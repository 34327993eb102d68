"""The small chapter keeps every convention; breaking one gives exactly that message."""

import pytest

from tools import book, glossary, lint, pairs

BLOCK = "\n".join(f"x{number} = {number}" for number in range(26))


def test_the_small_book_is_in_order(small_book):
    assert lint.lint(small_book.root) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# # 1. Small", "# 1. Small", "open with '# ' and the title"),
        ("# - tell when you cannot.\n", "", "at least two '- ' goals"),
        ("**Before this** nothing.", "Nothing before.", "'**Before this** '"),
        ("1 minute on two", "A minute on two", "no line '**Budget**"),
        ("1 minute on two", "4 minutes on two", "the budget is 4.0 minutes; the limit is 3"),
        ('tags=["colab"]', 'tags=["other"]', "must have the tag 'colab'"),
        ("seed = 3", "seeds = 3", "one cell tagged 'parameters'"),
        ("print(profile, 1 + 1)", BLOCK, "the cell 'x0 = 0' has 26 lines; the limit is 25"),
        ("print(profile, 1 + 1)", f"x = '{'9' * 76}'", "has 82 columns; the limit is 80"),
        ("print(profile, 1 + 1)", "display.show(figure, alt='x')", "a figure without a caption"),
        ("print(profile, 1 + 1)", "plt.show()", "shows a figure without alt text"),
        ('%% tags=["data"]\nprint(', "%%\nopen_dataset(", "no cell tagged 'data' prints its name"),
        ("# Double `x`.", "# ```{note}\n# Double.\n# ```", "a MyST directive"),
        ("# Double `x`.", "# {ref}`there`", "a MyST directive"),
        ("# Double `x`.", "# Of `x` make two.", "begins with 'Of'"),
        ("# Double `x`.", "# | a |\n# | - |\n# | b |", "a table without a line 'Table: "),
        ("# Double `x`.", "# ![](a.png)", "an image without alt text"),
        ("# Double `x`.", '# <img src="a.png">', "an image without alt text"),
        ("# ## Summary", "# ## The end", "there is no '## Summary'"),
        ("Exercise 1: find the fault", "Exercise 1", "like '### Exercise 1: calculate (easy"),
        ('tags=["exercise"]\nhalf', "\nhalf", "it has 2 exercises; it should have 3 to 5"),
        ('tags=["exercise"]\nhalf', "\nhalf", "a solution or a check has no exercise"),
        (
            'tags=["exercise-check", "raises-exception"]\nassert half',
            "\nassert half",
            "a solution, then a check",
        ),
        ("3: calculate", "3: experiment", "no exercise of the kind calculate"),
        ("3: calculate", "4: calculate", "exercise 3: the cell before its stub"),
        ("**Question 3.**", "Question 3.", "question 3 has not the form in CONTRIBUTING.md"),
        ("**Question 3.**", "**Question 2.**", "question 3 is called question 2"),
        ("# - **C.** 0\n", "", "question 3 needs 3 or 4 options A, B, ..."),
        ("# - **C.** No: 0 comes before 1.\n", "", "question 3 needs 3 or 4 options A, B, ..."),
        ("# - **C.** No: 0 comes", "# - **C.** Yes: 0 comes", "question 3: 1 answer must begin"),
        ('tags=["question"]\n# **Question 3', "\n# **Question 3", "it has 2 questions; it should"),
        ("## Questions", "## Tests", "no cell that begins with '## Questions'"),
    ],
)
def test_each_convention_is_held(small_book, old, new, said):
    small_book.edit_chapter(old, new)
    found = list(lint.structure(small_book.unfolded(), small_book.root))
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[2]]", "[[1]]", "01_small.toml has no wrong answer to exercise 2"),
        ("[[3]]", "[[4]]", "01_small.toml has answers to exercise 4, which is not in the chapter"),
        ('says = "not 9"', "", "entry 1 of exercise 1 must have the texts 'answer' and 'says'"),
        ("[[1]]", "[[1", "01_small.toml: Expected"),
    ],
)
def test_each_exercise_has_wrong_answers(small_book, old, new, said):
    small_book.edit(old, new, file="notebooks/answers/01_small.toml")
    assert any(said in problem for problem in lint.lint(small_book.root))


def test_a_table_of_a_page_has_a_caption(small_book):
    page = small_book.root / "book" / "more.md"
    page.write_text("# More\n\n| a |\n| - |\n")
    said = "book/more.md has a table without a line 'Table: its caption' above it"
    assert said in lint.lint(small_book.root)
    page.write_text("# More\n\nTable: Letters.\n\n| a |\n| - |\n")
    assert said not in lint.lint(small_book.root)


def test_a_chapter_without_a_file_of_wrong_answers_is_found(small_book):
    (small_book.root / "notebooks/answers/01_small.toml").unlink()
    assert lint.lint(small_book.root) == [
        "notebooks/01_small.ipynb: there is no notebooks/answers/01_small.toml, where the wrong "
        "answers of its exercises belong"
    ]


def test_the_median_cell_is_short(small_book):
    notebook = pairs.read_notebook(small_book.notebook)
    for cell in book.code_cells(notebook)[2:]:
        cell.source = "\n".join(f"x = {number}" for number in range(7))
    assert "the median code cell has 7 lines; the limit is 6" in list(lint.code(notebook))


def test_chapters_and_contents_name_each_other(small_book):
    other = small_book.root / "notebooks" / "02_other.py"
    other.write_text(small_book.script.read_text())
    pairs.fix(small_book.root)
    assert lint.lint(small_book.root) == ["notebooks/02_other.ipynb is not in _toc.yml"]
    small_book.edit("01_small", "03_gone", file="_toc.yml")
    assert "notebooks/03_gone.ipynb is in _toc.yml, but there is no such file" in lint.lint(
        small_book.root
    )


def test_every_file_names_the_repository_of_the_configuration(small_book):
    small_book.edit("someone/book", "other/place", file="README.md")
    assert lint.lint(small_book.root) == [
        "README.md does not name someone/book, the repository in _config.yml"
    ]
    (small_book.root / "README.md").write_text(
        "https://github.com/someone/book\n"
        "https://colab.research.google.com/github/other/place/blob/main/notebooks/a.ipynb\n"
        "https://github.com/third/one/actions/workflows/ci.yml/badge.svg\n"
    )
    assert lint.lint(small_book.root) == [
        "README.md points at other/place; _config.yml says someone/book",
        "README.md points at third/one; _config.yml says someone/book",
    ]


def test_every_file_has_the_same_version(small_book):
    texts = {
        "pyproject.toml": '[project]\nversion = "1.2.0"\n',
        "medsaga_lib/__init__.py": '__version__ = "1.2.0"\n',
        "CITATION.cff": "https://github.com/someone/book\nversion: 1.1.0\n",
        "CHANGELOG.md": "# Changes\n\n## 1.2.0, not yet released\n\n## 1.1.0\n",
        "book/index.md": "# Small\n\n  note = {Version 1.2.0},\n",
    }
    for name, content in texts.items():
        (small_book.root / name).write_text(content)
    said = "CITATION.cff has 1.1.0, but pyproject.toml has the version 1.2.0"
    assert lint.lint(small_book.root) == [said]
    (small_book.root / "CHANGELOG.md").unlink()
    assert "CHANGELOG.md has no version, but" in lint.lint(small_book.root)[1]


def test_pages_come_in_reading_order(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "  - caption: one\n    chapters:\n"
        "      - file: notebooks/01_a.ipynb\n        sections: [{file: book/b}]\n"
        "  - chapters: [{file: notebooks/02_c.ipynb}]\n"
    )
    assert book.pages(tmp_path) == [
        "book/index",
        "notebooks/01_a.ipynb",
        "book/b",
        "notebooks/02_c.ipynb",
    ]
    assert [path.name for path in book.chapters(tmp_path)] == ["01_a.ipynb", "02_c.ipynb"]


def test_a_budget_is_read_from_the_first_cell(small_book):
    notebook = pairs.read_notebook(small_book.notebook)
    assert book.budget(notebook) == book.Budget(1.0, 1.0, 0)
    notebook.cells[
        0
    ].source = "# T\n\n**Budget** 2.5 minutes on two CPU cores, 0.8 GB of memory, 40 MB to download"
    assert book.budget(notebook) == book.Budget(2.5, 0.8, 40)


def test_an_abbreviation_must_be_in_the_glossary(small_book):
    page = small_book.root / glossary.PAGE
    page.write_text("```{glossary}\nDAE-Former\n  A network.\n```\n", encoding="utf-8")
    notebook = pairs.read_notebook(small_book.notebook)
    assert list(lint.unexplained(notebook, small_book.root)) == []
    notebook.cells[0].source += "\nDAE, DAEs, a GPU and `TRE`. HD95 is new."
    assert list(lint.unexplained(notebook, small_book.root)) == [
        "'HD95' is not in book/glossary.md; explain it there"
    ]


def test_a_standard_term_must_be_in_the_glossary(small_book):
    page = small_book.root / glossary.PAGE
    page.write_text("```{glossary}\nbatch\n  Images of a step.\n```\n", encoding="utf-8")
    notebook = pairs.read_notebook(small_book.notebook)
    notebook.cells[0].source += "\nBatches, a batch, `softmax` and $softmax$. Learning rates fall."
    assert list(lint.unexplained(notebook, small_book.root)) == [
        "'learning rate' is not in book/glossary.md; explain it there"
    ]
