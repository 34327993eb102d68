"""Sentences that are not plain are found, and plain ones are not."""

import pytest

from tools import prose


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Of 192 directions take 16.", "begins with 'Of'; put the subject first"),
        ("It is done. What follows is short.", "begins with 'What'"),
        ("- **Lungs.** Whose masks they are is known.", "begins with 'Whose'"),
        ("| a | Who is asked |\n\n> Who is asked by points knows.", "begins with 'Who is'"),
        ("It fits. Only, the other fits too.", "begins with 'Only,'"),
        ("What is left? Half.", "'Half.' is no sentence"),
        ("Is it worse? Nothing else.", "'Nothing else.' is no sentence"),
        ("Then leave `--axis` away.", "write 'omit'"),
        ("It loses two hundredths.", "has 'hundredths'; write digits"),
        ("It is half as fast again.", "has 'half as fast'"),
        ("There are twenty-four of them.", "has 'twenty-four'"),
        ("It has a million pairs.", "has 'a million'"),
        ("It needs 5 per cent.", "has 'per cent'"),
    ],
)
def test_each_fault_is_found_once(text, said):
    (problem,) = prose.problems(text)
    assert said in problem


@pytest.mark.parametrize(
    "text",
    [
        "# What a prompt tells a network",
        "What is left of it? The weights are left.",
        "> **Predict.** What share do they hold?",
        "- **Polyps.** Nothing is known about them.",
        "1. One X-ray was sent twice.",
        "Two masks differ by 0.02, and a third of the pixels by 1 %.",
        "`What is this.` is code, as is\n\n```bash\necho Of. twelve\n```",
        "[chapter 2](../notebooks/twelve.ipynb) has 12 rows.",
        "Only the annotator knows.",
    ],
)
def test_plain_sentences_are_left_alone(text):
    assert list(prose.problems(text)) == []


def test_abbreviations_are_found_in_prose_alone():
    text = (
        "HD95 of MedSAGa on a GPU, `DICOM`, $A B^T$ and [ITK](https://XYZ.org).\n```\nRTSTRUCT\n```"
    )
    assert prose.abbreviations(text) == {"HD95", "MedSAGa", "ITK"}
