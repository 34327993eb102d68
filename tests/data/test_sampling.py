"""How often each modality is drawn: the probabilities exactly, the draws by a chi-square test."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from medsaga_lib.data.sampling import ModalitySampler, probabilities
from medsaga_lib.errors import UserError

OTHERS = ("PET", "US", "X-Ray", "Dermoscopy", "Endoscopy", "Fundus", "Microscopy", "Mammography",
          "OCT")  # fmt: skip
# Roughly the paper's proportions: 82 % CT, 13 % MR, the rest small and unequal
MODALITIES = ["CT"] * 820 + ["MR"] * 130 + [m for i, m in enumerate(OTHERS) for _ in range(i + 1)]
FALSE_ALARM = 1e-6  # probability that a correct sampler fails, over all seeds


def share_of(modality, modalities, **options):
    chosen = np.array(modalities) == modality
    return probabilities(modalities, **options)[chosen].sum()


def test_shares_are_the_papers():
    assert share_of("CT", MODALITIES) == pytest.approx(0.40)
    assert share_of("MR", MODALITIES) == pytest.approx(0.10)
    for modality in OTHERS:
        assert share_of(modality, MODALITIES) == pytest.approx(0.50 / 9)
    assert probabilities(MODALITIES).sum() == pytest.approx(1)
    assert len(set(probabilities(MODALITIES)[:820])) == 1  # evenly within a modality


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["CT", "MR"], {"CT": 0.8, "MR": 0.2}),
        (["CT", "US", "US"], {"CT": 4 / 9, "US": 5 / 9}),
        (["CT", "MR", "US", "OCT"], {"CT": 0.4, "MR": 0.1, "US": 0.25, "OCT": 0.25}),
        (["OCT", "OCT"], {"OCT": 1.0}),
        (["CT"], {"CT": 1.0}),
    ],
)
def test_missing_modalities_leave_their_share_to_the_present(present, expected):
    for modality, share in expected.items():
        assert share_of(modality, present) == pytest.approx(share)


def p_value(indices, modalities):
    """p-value of the modality counts under the paper's shares (chi-square test)."""
    names = sorted(set(modalities))
    drawn = np.array(modalities)[indices]
    observed = [(drawn == name).sum() for name in names]
    expected = [share_of(name, modalities) * len(indices) for name in names]
    return chisquare(observed, expected).pvalue


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_passes_a_chi_square_test(seed):
    sampler = ModalitySampler(MODALITIES, 20_000, seed)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 20_000
    assert p_value(indices, MODALITIES) > FALSE_ALARM
    of_ct = np.bincount([i for i in indices if i < 820], minlength=820)
    assert chisquare(of_ct).pvalue > FALSE_ALARM  # evenly within a modality


def test_the_chi_square_test_sees_small_faults():
    """The test rejects a share of 0.45 for CT, and draws that ignore the modality."""
    wrong = ModalitySampler(MODALITIES, 20_000, 0, {"CT": 0.45, "MR": 0.1})
    assert p_value(list(wrong), MODALITIES) < FALSE_ALARM
    anyhow = np.random.default_rng(0).integers(len(MODALITIES), size=20_000)
    assert p_value(anyhow, MODALITIES) < FALSE_ALARM


def test_the_seed_decides_every_pass_and_each_pass_draws_anew():
    first, again, loaded, other = (ModalitySampler(MODALITIES, 50, seed) for seed in (1, 1, 1, 2))
    passes = [list(first) for _ in range(3)]
    torch.manual_seed(7)  # the global random state plays no role
    assert [list(again) for _ in range(3)] == passes
    assert len({tuple(indices) for indices in passes}) == 3
    assert list(other) != passes[0]
    loader = DataLoader(range(len(MODALITIES)), batch_size=10, sampler=loaded)
    assert [int(i) for batch in loader for i in batch] == passes[0]
    assert [int(i) for batch in loader for i in batch] == passes[1]


@pytest.mark.parametrize(
    ("modalities", "shares", "sentence"),
    [
        ([], {"CT": 0.4}, "no images to sample from"),
        (["US"], {"CT": 1.0}, "give US a probability of 0"),
        (["CT"], {"CT": 1.2}, "add up to at most 1"),
        (["CT"], {"CT": -0.1}, "0 or more"),
    ],
)
def test_impossible_shares_say_why(modalities, shares, sentence):
    with pytest.raises(UserError, match=sentence):
        probabilities(modalities, shares)


@pytest.mark.parametrize("length", [-1, 0])
def test_a_pass_without_images_is_refused(length):
    with pytest.raises(UserError, match=f"draws {length} images"):
        ModalitySampler(["CT"], length, seed=0)
