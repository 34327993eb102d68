"""The syllabus has the minutes of the chapters, and names only what is there."""

from tools import pairs, syllabus

PAGE = """\
# Syllabus

| when | chapter | exercises | lesson | exercises, minutes | with breaks |
| --- | --- | --- | --- | --- | --- |
| first | [1. Small](../notebooks/01_small.ipynb) | 1, 2 | | | |
| then | [1. Small](../notebooks/01_small.ipynb) | | | | |
| **sum** | | | | | |

Text.

| **sum** | | | | | |
"""


def test_minutes_come_from_words_predictions_and_titles(small_book):
    text = "> **Predict.** " + "word " * 258  # 260 words with the mark and the quote sign
    small_book.edit_chapter("# ## Questions\n", f"# {text.strip()}\n#\n# ## Questions\n")
    before = syllabus.minutes(pairs.read_notebook(small_book.notebook))
    assert before.predictions == 1
    assert before.cells == 1
    assert before.text == 2  # with the 30 words of the first cell
    assert before.lesson == 4
    shown = {n: (one.kind, one.level, one.minutes) for n, one in before.exercises.items()}
    assert shown == {
        1: ("find the fault", "easy", 1),
        2: ("experiment", "easy", 1),
        3: ("calculate", "hard", 1),
    }


def test_rows_and_sums_are_filled(small_book):
    lesson = syllabus.minutes(pairs.read_notebook(small_book.notebook)).lesson
    filled = syllabus.fill(PAGE, small_book.root).splitlines()
    link = "[1. Small](../notebooks/01_small.ipynb)"
    assert lesson == 1  # so the rows have 3 and 1 minutes and the sum 4, and a quarter more
    assert filled[4] == f"| first | {link} | 1: find the fault, 2: experiment | 1 | 2 | 4 |"
    assert filled[5] == f"| then | {link} |  | 1 |  | 1 |"
    assert filled[6] == "| **sum** | | | **2** | **2** | **5** |"
    assert filled[10].endswith("| **0** | **0** | **0** |")  # a new table starts from 0


def test_unknown_chapters_exercises_and_forms_are_named(small_book):
    page = PAGE.replace("| 1, 2 |", "| 1, 4 |") + (
        "| now | [2. Gone](../notebooks/02_gone.ipynb) | 1 | | | |\n"
        "| now | [1. Small](../notebooks/01_small.ipynb) | all | | | |\n"
    )
    (small_book.root / syllabus.PAGE).write_text(page)
    found = list(syllabus.problems(small_book.root))
    assert len(found) == 3
    assert "notebooks/01_small.ipynb has no exercise 4" in found[0]
    assert "there is no notebooks/02_gone.ipynb" in found[1]
    assert "must be '| when | [chapter](link) | 1, 2 | | | |'" in found[2]
