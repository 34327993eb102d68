"""The benchmark reports the bytes that the formulas give. No time is asserted."""

import json

import pytest

from medsaga_lib.bench import named, optimizers
from medsaga_lib.optim.galore import projected_bytes


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("galore_torch", reason="galore-torch is for comparison only")
    return {
        row["name"]: row
        for row in optimizers.compare_optimizers("pocket", rank=16, rounds=1, plain=1)
    }


def test_states_are_what_the_formulas_say(rows):
    shapes = [(576, 192), (192, 192), (768, 192), (192, 768)] * 6
    numbers = sum(m * n for m, n in shapes)
    counters = 4 * len(shapes)
    assert rows["AdamW"]["trainable"] == numbers
    assert rows["AdamW"]["state_bytes"] == 8 * numbers + counters
    ours = sum(sum(projected_bytes(shape, 16)) for shape in shapes)
    assert rows["GaLore, here"]["state_bytes"] == ours + counters
    assert rows["galore-torch 1.0"]["state_bytes"] > ours + 6 * 4 * 192 * (192 - 16)  # the leak
    assert rows["LoRA, r = 4"]["trainable"] == 6 * 2 * 2 * 4 * 192
    assert ours < rows["GaLore, here"]["checkpoint_bytes"] < 1.1 * ours + 100_000


def test_every_kind_of_step_was_timed(rows):
    for row in rows.values():
        assert min(row["first_step"], row["plain_step"], row["refresh_step"]) > 0


def test_the_ratio_of_a_step_is_the_median_of_the_rounds_with_the_range():
    ours = {"name": "GaLore, here"}
    peer = {"name": optimizers.PUBLISHED}
    for kind in ("plain_step", "refresh_step"):
        ours |= {kind: 2.0, f"{kind}s": [1.0, 2.0, 4.0]}
        peer |= {kind: 6.0, f"{kind}s": [3.0, 8.0, 6.0]}
    refresh, plain = named.steps([peer, ours])
    assert (refresh["name"], plain["name"]) == ("galore_refresh", "galore_step")
    assert plain["ratio"] == 3  # of 3, 4 and 1.5
    assert plain["ratios"] == [1.5, 4]


def test_turns_renew_the_bases_when_they_should():
    """Only the last step of a round computes new bases."""
    pytest.importorskip("galore_torch", reason="galore-torch is for comparison only")
    (ours,) = (c for c in optimizers._contestants("pocket", 16, 3, 0) if c.name == "GaLore, here")
    weight = ours.weights[0]
    bases = []
    for _ in range(7):
        ours.step()
        bases.append(ours.optimizer.state[weight]["basis"].clone())
    renewed = [i for i in range(1, 7) if not bases[i].equal(bases[i - 1])]
    assert renewed == [3, 6]


def test_randomized_bases_hold_nearly_all_that_exact_ones_hold(monkeypatch):
    """Target 6 of the optimizer: cold at least 0.985, warm at least 0.98, on real gradients too."""
    monkeypatch.setattr("medsaga_lib.data.phantoms.PATIENTS", 18)
    monkeypatch.setattr("medsaga_lib.data.phantoms.PICTURES", 26)  # enough for its 16 shots
    energy = optimizers.captured_energy(refresh=3, steps=7, size=64)
    assert energy["cold_min"] >= 0.985
    assert energy["warm_mean"] >= 0.98
    assert all(value <= 1 + 1e-4 for value in energy.values())


def test_command_line(rows, monkeypatch, tmp_path, capsys):
    from medsaga_lib import cli

    def compare(names, runtime, threads, rounds):
        assert (runtime, threads, rounds) == ("torch", None, 1)
        return [{"name": name, "ours": 1.0, "peer": 3.0, "ratio": 3.0} for name in names]

    monkeypatch.setattr(named, "compare", compare)
    monkeypatch.setattr(optimizers, "compare_optimizers", lambda *_: list(rows.values()))
    monkeypatch.setattr(optimizers, "captured_energy", lambda: {"cold_mean": 0.5})
    cli.bench(backbone="pocket", rank=16, rounds=1, out=tmp_path / "optimizers.json")
    assert "ratio: peer / ours" in capsys.readouterr().out
    cli.bench(backbone="pocket", rank=16, rounds=1, as_json=True)
    compared = json.loads(capsys.readouterr().out)
    assert compared == json.loads((tmp_path / "optimizers.json").read_text())
    found = {one["name"]: one for one in compared}
    assert [*found][: len(named.NAMES)] == [*named.NAMES]
    state = found["state bytes: AdamW"]
    assert state["ratio"] == rows["AdamW"]["state_bytes"] / rows["GaLore, here"]["state_bytes"]
    assert found["energy: cold mean"] == {
        "name": "energy: cold mean",
        "ours": 0.5,
        "peer": 1,
        "ratio": 2,
    }
    assert "refresh step: LoRA, r = 4" not in found
    assert found["refresh step: galore-torch 1.0"]["ratio"] > 0
