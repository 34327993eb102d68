"""Steps that make slices agree, on volumes where the answer is known."""

import numpy as np
import pytest

from medsaga_lib.consistency import consistent


def column(*labels):
    """A volume of one voxel a slice."""
    return np.array(labels)[:, None, None]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 1, 0, 1, 1), (1, 1, 1, 1, 1)),  # a slice that was missed
        ((0, 0, 2, 0, 0), (0, 0, 0, 0, 0)),  # one too many
        ((1, 2, 3, 2, 1), (1, 2, 2, 2, 1)),  # only the middle one has two neighbours that agree
        ((1, 0, 0, 0, 2), (1, 0, 0, 0, 2)),  # the first and the last keep theirs
        ((3, 1), (3, 1)),
        ((3,), (3,)),
    ],
)
def test_majority_of_three_slices(before, after):
    assert consistent(column(*before), "majority").ravel().tolist() == list(after)


def test_majority_is_the_vote_of_three():
    labels = np.random.default_rng(0).integers(0, 4, (7, 6, 5))
    found = consistent(labels, "majority")
    for z, y, x in np.ndindex(labels.shape):
        three = labels[max(z - 1, 0) : z + 2, y, x]
        votes = np.bincount(three)
        wins = len(three) == 3 and votes.max() >= 2
        assert found[z, y, x] == (votes.argmax() if wins else labels[z, y, x])


def test_the_largest_piece_of_each_label_stays():
    labels = np.zeros((6, 12, 12), int)
    labels[1:5, 1:5, 1:5] = 1  # 64 voxels
    labels[1:3, 8:10, 8:10] = 1  # 8
    labels[5, 5, 5] = 1  # touches the large one only by a corner
    labels[0, 0:2, 9:12] = 4  # above the second piece of label 1
    wanted = labels.copy()
    wanted[1:3, 8:10, 8:10] = wanted[5, 5, 5] = 0
    assert np.array_equal(consistent(labels, "largest"), wanted)
    assert np.array_equal(consistent(wanted, "largest"), wanted)
    assert not consistent(np.zeros((2, 3, 3), int), "largest").any()


def test_nothing_is_changed_unasked():
    labels = np.random.default_rng(0).integers(0, 4, (3, 3, 3))
    assert np.array_equal(consistent(labels, "none"), labels)
