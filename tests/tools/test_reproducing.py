"""The generated parts of the page "Reproducing the tables" name every table, set and row."""

from reproduce.rows import a_row

from medsaga_lib.reproduce.published import not_here, tables
from tools import reproducing
from tools.provenance import ROOT


def test_the_page_is_filled_from_the_library():
    source = (ROOT / reproducing.PAGE).read_text(encoding="utf-8")
    marks = (reproducing.TABLES_MARK, reproducing.SETS_MARK, reproducing.ROWS_MARK)
    assert all(source.count(mark) == 1 for mark in marks)
    text = reproducing.filled(source)
    assert not any(mark in text for mark in marks)
    for table in tables().values():
        assert f"| `{table.name}` | {table.title} |" in text
        assert all(f"`{data}`" in text for data in table.sets.values())
    assert all(f"`{name}`, because {why}." in text for name, why in not_here().items())


def test_rows_of_a_table_have_headings_below_those_of_the_page(monkeypatch):
    monkeypatch.setattr(reproducing, "accumulated", lambda: [a_row()])
    text = reproducing.pages_of_rows()
    assert text.startswith("### MedSAGa, Table 1")
    assert "\n#### Published and ours\n" in text
    assert "\n\nTable: The published scores and ours." in text
    assert "| Spleen, 100 | MedSAGa | Dice | 0.842 |" in text
    assert "not run here" not in text
    monkeypatch.setattr(reproducing, "accumulated", list)
    assert reproducing.pages_of_rows() == "There are no rows yet."
