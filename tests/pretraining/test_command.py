"""What somebody types wrongly gets one sentence and exit code 2."""

import sys

import pytest

from medsaga_lib.pretraining.__main__ import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--start", "no.safetensors"], "There are no weights at no.safetensors"),
        (["--report"], "to report on; train it first"),
        (["--data", "phantom_cxr"], "--data is for --report"),
    ],
)
def test_one_sentence(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pretraining", "--out", str(tmp_path / "run"), *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
