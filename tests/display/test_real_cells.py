"""In a notebook with phantoms, cells that need real images are skipped, and others run."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from medsaga_lib.data.catalog import DATA_VARIABLE, open_or_phantoms
from medsaga_lib.display.real_cells import REAL_MARK, SKIPPED, skip_real_cells, without_real
from medsaga_lib.errors import UserError


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def run(shell, source):
    shell.run_cell(source).raise_error()


def test_cells_are_skipped_with_phantoms_and_run_with_a_folder(
    shell, own_cache, monkeypatch, tmp_path, capsys
):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    run(shell, f"{REAL_MARK}\nbefore = 1")
    assert shell.user_ns["before"] == 1  # nothing was opened yet
    open_or_phantoms("polyp_kvasir")
    open_or_phantoms("hippocampus_msd")  # asking twice skips once
    run(shell, f"{REAL_MARK}\nx = volume.of_a_real_ct()")
    assert "x" not in shell.user_ns
    assert capsys.readouterr().out.count("skipped, because this cell needs real images") == 1
    run(shell, f"y = 1  {REAL_MARK}")
    assert shell.user_ns["y"] == 1
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="polyp_kvasir"):
        open_or_phantoms("polyp_kvasir")
    run(shell, f"{REAL_MARK}\nz = 1")
    assert shell.user_ns["z"] == 1


def test_nothing_happens_outside_a_notebook():
    assert not InteractiveShell.initialized()
    skip_real_cells(True)
    assert not InteractiveShell.initialized()


def test_only_the_first_line_counts():
    assert without_real([f"{REAL_MARK}\n", "a = 1\n"]) == [SKIPPED]
    for kept in ([], ["a = 1\n", f"{REAL_MARK}\n"]):
        assert without_real(kept) == kept
