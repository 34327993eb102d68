"""Tables of a page: titles of scores, numbers with commas, no decimals of whole numbers."""

import pandas as pd
import pytest

from medsaga_lib.display import table


def test_scores_get_their_titles_on_every_side():
    index = pd.MultiIndex.from_tuples([("dice", "MONAI"), ("nsd", "MONAI")], names=["x", "hd95"])
    columns = pd.MultiIndex.from_product([["val_dice"], ["mean", "dice"]], names=["dice", None])
    shown = table(pd.DataFrame([[0.5, 1.0], [0.25, 2.0]], index, columns))
    assert shown.index.tolist() == [("Dice", "MONAI"), ("NSD", "MONAI")]
    assert shown.index.names == ["x", "HD95"]
    assert shown.columns.tolist() == [("validation Dice", "mean"), ("validation Dice", "Dice")]
    assert shown.columns.names == ["Dice", None]
    assert shown.to_numpy().tolist() == [["0.500", "1"], ["0.250", "2"]]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([59.0, 17.0], ["59", "17"]),
        ([5726740, 6220], ["5,726,740", "6,220"]),
        ([1.0, None], ["1", ""]),
        ([0.98765, None], ["0.99", ""]),
        ([1.0, 0.5], ["1.00", "0.50"]),
        (pd.array([1, None], dtype="Int64"), ["1", ""]),
        ([True, False], ["True", "False"]),
        (["0.5 ± 0.1", None], ["0.5 ± 0.1", ""]),
        ([-1234.5, 0.0], ["-1,234.50", "0.00"]),
    ],
)
def test_cells(values, texts):
    assert table(pd.DataFrame({"x": values}), digits=2)["x"].tolist() == texts


def test_rows_with_equal_names_stay_apart_and_the_frame_is_not_changed():
    frame = pd.DataFrame({"dice": [0.5, None, 0.25]}, ["a", "a", "b"])
    kept = frame.copy()
    assert table(frame)["Dice"].tolist() == ["0.500", "", "0.250"]
    pd.testing.assert_frame_equal(frame, kept)


def test_whole_numbers_among_objects():
    """A transposed frame has columns of objects."""
    frame = pd.DataFrame({"LiteMedSAM": {"masks": 59, "area": 0.1}}).T
    assert table(frame.astype(object)).loc["LiteMedSAM"].tolist() == ["59", "0.100"]


def test_columns_with_digits_of_their_own():
    frame = pd.DataFrame([[0.12345, 12.345, 1.25, 2.5]], columns=["dice", "hd95", "minutes", "x"])
    assert table(frame, minutes=1).loc[0].tolist() == ["0.123", "12.35", "1.2", "2.500"]
    assert table(frame, digits=1).loc[0].tolist() == ["0.1", "12.3", "1.2", "2.5"]
    twice = frame.set_axis(pd.MultiIndex.from_product([["a"], frame.columns]), axis=1)
    assert table(twice, x=0).loc[0].tolist() == ["0.123", "12.35", "1.250", "2"]
