"""The tables that can be reproduced have the printed cells, recipes that exist, and known sets."""

import pandas as pd
import pytest

from medsaga_lib.claims import tables as printed
from medsaga_lib.data.fetching.catalogue import find_set
from medsaga_lib.errors import UserError
from medsaga_lib.reproduce.grid import SLICES, fetching, recipe_named
from medsaga_lib.reproduce.published import chosen, find_table, not_here, tables


@pytest.mark.parametrize("name", tables())
def test_methods_sets_and_stand_ins_exist(name):
    table = tables()[name]
    for method in table.methods:
        assert recipe_named(table.recipe_of(method)).steps > 0
        assert recipe_named(table.methods[method]).steps > 0
    for data in table.sets.values():
        official = find_set(data.removesuffix(SLICES))
        assert not data.endswith(SLICES) or official.least
        assert fetching(data).startswith(f"medsaga data fetch {official.name}")
    assert {cell.dataset for cell in table.published()} == table.sets.keys()
    places = {(cell.dataset, cell.images) for cell in table.published()}
    for dataset, stand_in in table.quick.items():
        assert {(dataset, images) for images in stand_in["images"]} <= places


@pytest.mark.parametrize("name", ["medsaga_table1", "medsaga_table2", "medsaga_table3"])
def test_cells_are_all_numbers_of_the_printed_table(name):
    """The independent reading of the file is pandas' own."""
    wide = pd.read_csv(printed.FOLDER / f"{name}.csv", comment="#", dtype=str)
    scores = wide.set_index(["data_set", "images"]).stack().dropna()
    found = {
        (cell.dataset, cell.images, f"{cell.method}_{cell.metric}"): cell.text
        for cell in find_table(name).published()
    }
    assert found == scores.to_dict()


def test_printed_values_are_intervals_of_shares():
    (brats, _) = find_table("cheap_lunch_dice").published()
    assert (brats.text, brats.shots) == ("84.10", "1%")
    assert find_table("cheap_lunch_dice").bounds(brats) == pytest.approx((0.84095, 0.84105))
    hd95 = find_table("s_sam_hd95").published()[0]
    assert hd95.shots == "100%"
    assert find_table("s_sam_hd95").bounds(hd95) == pytest.approx((44.45, 44.55))


def test_a_part_of_a_table():
    table = find_table("medsaga_table1")
    cells = chosen(table, ["Spleen", "AMOS"], ["500"], ["samed"])
    assert [(cell.dataset, cell.metric, cell.text) for cell in cells] == [
        ("Spleen", "dice", "0.877"),
        ("Spleen", "hd95", "10.473"),
        ("AMOS", "dice", "0.166"),
        ("AMOS", "hd95", "71.604"),
    ]


def test_what_no_table_has_is_one_sentence():
    table = find_table("medsaga_table1")
    for part, said in (
        ((["Liver"], [], []), "--dataset Liver is not in medsaga_table1; choose from Chest-Xray"),
        (([], ["51"], []), "--shots 51 is not in medsaga_table1; choose from 50, 100"),
        (([], [], ["unet"]), "--method unet is not in medsaga_table1; choose from medsaga"),
        ((["Spleen"], ["50"], []), "No cell of medsaga_table1 has all of these"),
    ):
        with pytest.raises(UserError, match=said):
            chosen(table, *part)
    with pytest.raises(UserError, match="did you mean medsaga_table1"):
        find_table("medsaga_table_1")
    for name in not_here():
        assert name in printed.names()
        with pytest.raises(UserError, match=f"{name} cannot be reproduced"):
            find_table(name)


@pytest.mark.parametrize(
    ("table", "method", "title"),
    [
        ("medsaga_table1", "dae_former", "DAE-Former"),
        ("medsaga_table2", "without_warmup_mean", "without warmup mean"),  # both are MedSAGa
        ("medsaga_table3", "v1", "MedSAGa_v1"),
        ("s_sam_hd95", "S-SAM", "S-SAM"),
    ],
)
def test_methods_are_named_as_the_papers_write_them(table, method, title):
    assert find_table(table).title_of(method) == title
