"""The comparison of optimizers with those of packages: rows, refreshes, rates and runs."""

import json

import pytest
import torch
from marks import PEER

from medsaga_lib.data.catalog import open_dataset
from medsaga_lib.evaluation.of_a_run import evaluate_run
from medsaga_lib.optim.fira import FiraAdamW
from medsaga_lib.recipes import get_recipe
from medsaga_lib.recipes.recipe import changed
from medsaga_lib.training.loop import train
from medsaga_lib.training.run_folder import Settings
from tools import peers

BY_NAME = {(peer.name, peer.package): peer for peer in peers.PEERS}
ADAMW, OURS = BY_NAME["AdamW, foreach", "torch"], BY_NAME["GaLore", peers.OURS]
SHAPES = ((24, 16), (16, 40), (8, 4, 3, 3), (24,))


def some_groups(rank=2):
    """Return groups of a projected and a dense part, as `param_groups`, with gradients."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    for W in tensors:
        W.grad = torch.randn(W.shape, generator=generator)
    common = {"lr": 0.01, "weight_decay": 0.1}
    options = {"rank": rank, "refresh": peers.PERIOD, "scale": 0.25, "moments": "keep"}
    options |= {"subspace": "exact", "seed": 0}
    return [{"params": tensors[:3], **common, **options}, {"params": tensors[3:], **common}]


@pytest.fixture
def small(monkeypatch):
    """Let small tensors stand for LiteMedSAM's."""
    monkeypatch.setattr(peers, "late_stages", lambda _: some_groups())


def weights_of(groups):
    return [W.detach() for group in groups for W in group["params"]]


def built(peer):
    """Build a peer's optimizer, or skip the test if its package is not installed."""
    module = {"pytorch-optimizer": "pytorch_optimizer", "galore-torch": "galore_torch"}
    pytest.importorskip(module.get(peer.package, peer.package.replace("-", "_")), reason=PEER)
    groups = some_groups()
    return peer.build(groups, peers.BETAS), groups


def test_rows_hold_bytes_and_ratios(small):
    missing = ADAMW._replace(package="no-such-package", build=lambda *_: __import__("no_such"))
    first, ours, absent = peers.compare_steps([ADAMW, OURS, missing], turns=3)
    numbers = 24 * 16 + 16 * 40 + 8 * 36 + 24
    assert first["numbers"] == ours["numbers"] == numbers
    assert first["state_bytes"] == 8 * numbers + 4 * len(SHAPES)  # two moments, a step counter
    projected = 2 * (2 * 24 + 2 * 40 + 2 * 36) + 2 * (16 + 16 + 8)
    assert ours["state_bytes"] == 4 * projected + 8 * 24 + 4 * len(SHAPES)
    assert (first["plain"]["ratio"], first["plain"]["ratios"]) == (1, [1, 1])
    assert first["refresh"] is None
    low, high = ours["refresh"]["ratios"]
    assert 0 < low <= ours["refresh"]["ratio"] <= high
    assert absent == {
        "name": "AdamW, foreach",
        "package": "no-such-package",
        "missing": "no-such-package is not installed",
    }


def basis_of(optimizer, W):
    """Return a copy of the basis of a tensor; this library's APOLLO keeps none."""
    state = optimizer.state[W]
    basis = state["basis"] if "basis" in state else state["projector"].ortho_matrix
    return basis.clone()


WITH_BASES = [
    peer for peer in peers.PEERS if peer.refresh is not None and peer is not BY_NAME[
        "APOLLO", peers.OURS
    ]
]  # fmt: skip


@pytest.mark.parametrize("peer", WITH_BASES, ids=lambda peer: f"{peer.name} {peer.package}")
def test_bases_are_renewed_in_the_step_that_is_said(peer):
    """The first period computes the bases; each later one renews them in one known step."""
    optimizer, groups = built(peer)
    W = groups[0]["params"][0]
    generator, before, renewed = torch.Generator().manual_seed(1), None, []
    for step in range(3 * peers.PERIOD):
        W.grad = torch.randn(W.shape, generator=generator)
        optimizer.step()
        basis = basis_of(optimizer, W)
        if step >= peers.PERIOD and not torch.equal(basis, before):
            renewed.append(step % peers.PERIOD)
        before = basis
    assert renewed == [peer.refresh, peer.refresh]


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: f"{peer.name} {peer.package}")
def test_a_step_moves_every_tensor_and_keeps_the_gradients(peer, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # of torchao
    optimizer, groups = built(peer)
    weights, gradients = weights_of(groups), [W.grad.clone() for g in groups for W in g["params"]]
    before = [W.clone() for W in weights]
    optimizer.step()
    for W, was, G, W_now in zip(
        weights, before, gradients, (W for g in groups for W in g["params"]), strict=True
    ):
        assert not torch.equal(W, was)
        assert torch.equal(W_now.grad, G)


def test_a_scale_in_the_rate_gives_the_same_steps():
    pytest.importorskip("galore_torch", reason="galore-torch is for comparison only")
    from galore_torch import GaLoreAdamW

    results = []
    for way in (lambda groups: groups, peers.scaled_outside):
        groups = some_groups()
        optimizer = GaLoreAdamW(
            way(peers.matrices(groups, "proj_type")), no_deprecation_warning=True
        )
        for _ in range(3):
            optimizer.step()
        results.append(weights_of(groups))
    for inside, outside in zip(*results, strict=True):
        torch.testing.assert_close(outside, inside, rtol=1e-5, atol=1e-6)


def test_the_first_step_of_fira_is_that_of_this_library():
    peer = BY_NAME["Fira", "pytorch-optimizer"]
    optimizer, theirs = built(peer)
    ours = some_groups()
    for one, groups in ((optimizer, theirs), (FiraAdamW(ours), ours)):
        for group in one.param_groups:
            # the decay is before the step in one and after it in the other, and eps differs
            group |= {"weight_decay": 0.0, "eps": 1e-12}
        groups[0]["params"][2].grad = None  # a kernel: only this library projects it
        one.step()
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_each_algorithm_has_its_recorded_rate():
    recorded = json.loads((peers.RECORDED / "optimizers.json").read_text())
    recipes = {run["recipe"] for run in recorded["runs"]}
    rates = {"AdamW": 0.001, "GaLore": 0.003, "Fira": 0.01, "APOLLO": 0.1}  # of chapter 4's test
    for algorithm, rate in rates.items():
        assert peers.recorded_recipe(algorithm) in recipes
        peer = next(peer for peer in peers.PEERS if peer.algorithm == algorithm)
        recipe = peers.recipe_with(peer, steps=7)
        assert (recipe.image_encoder.lr, recipe.steps) == (rate, 7)
        assert recipe.image_encoder.peer is peer
        assert getattr(recipe.image_encoder, "refresh", 20) == 20


def test_a_run_scores_as_the_command_line_does(monkeypatch, tmp_path, phantoms):
    dataset = open_dataset(phantoms)
    monkeypatch.setattr(peers, "SHOTS", 2)
    monkeypatch.setattr(peers, "SIZE", 64)
    fused = BY_NAME["AdamW, fused", "torch"]  # what a recipe's AdamW is on a CPU
    row = peers.row_of(fused, dataset, seed=1, steps=2)
    settings = Settings(shots=2, size=64, seed=1)
    name, *changes = peers.recorded_recipe("AdamW").split(":")
    recipe = changed(get_recipe(name), [*changes, "steps=2"])
    train(recipe, dataset, settings, tmp_path, progress=False)
    summary = evaluate_run(tmp_path, dataset, "test", tmp_path / "scores").summary()
    assert row["dice"] == summary["dice"]
    assert [name for name, *_ in row["case_dice"]] == [case["case"] for case in summary["cases"]]


def test_what_is_there_is_not_done_again(monkeypatch, tmp_path, small, phantoms):
    asked = []
    monkeypatch.setattr(peers, "PEERS", (ADAMW, OURS._replace(trains=True)))
    monkeypatch.setattr(peers, "open_dataset", lambda _: open_dataset(phantoms))
    monkeypatch.setattr(
        peers,
        "row_of",
        lambda peer, _, seed, steps: (
            asked.append((peer.name, seed))
            or {"name": peer.name, "package": peer.package, "seed": seed, "steps": steps, "dice": 0}
        ),
    )
    out = tmp_path / "out.json"
    words = ["--out", str(out), "--turns", "1", "--steps", "3", "--seeds"]
    peers.main([*words, "0"])
    first = json.loads(out.read_text())
    peers.main([*words, "0", "1"])
    both = json.loads(out.read_text())
    assert asked == [("GaLore", 0), ("GaLore", 1)]
    assert both["steps"] == first["steps"]
    assert [run["seed"] for run in both["runs"]] == [0, 1]
    assert both["provenance"]["command"].startswith("python -m tools.peers --out")
