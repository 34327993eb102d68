"""Consistency steps on volumes with a known answer, and against MONAI."""

import numpy as np
import pytest
from monai.transforms import KeepLargestConnectedComponent
from scipy.ndimage import label

from medsaga_lib.inference.volume_labels import consistent


def column(*labels):
    """Volume with one voxel in each slice."""
    return np.array(labels)[:, None, None]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 1, 0, 1, 1), (1, 1, 1, 1, 1)),  # one slice was missed
        ((0, 0, 2, 0, 0), (0, 0, 0, 0, 0)),  # one slice is a false positive
        ((1, 2, 3, 2, 1), (1, 2, 2, 2, 1)),  # only the middle one has two neighbours that agree
        ((1, 0, 0, 0, 2), (1, 0, 0, 0, 2)),  # the first and the last slice keep their labels
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
    labels[5, 5, 5] = 1  # touches the large component only at a corner
    labels[0, 0:2, 9:12] = 4  # touches the second component of label 1
    wanted = labels.copy()
    wanted[1:3, 8:10, 8:10] = wanted[5, 5, 5] = 0
    assert np.array_equal(consistent(labels, "largest"), wanted)
    assert np.array_equal(consistent(wanted, "largest"), wanted)
    assert not consistent(np.zeros((2, 3, 3), int), "largest").any()


def test_the_largest_component_equals_monais_and_the_first_of_equal_ones_stays():
    """Where sizes are equal, the component that MONAI keeps depends on the CPU's sort."""
    keep = KeepLargestConnectedComponent(is_onehot=False, connectivity=1)
    generator = np.random.default_rng(0)
    seen = {"one is the largest": 0, "equal sizes": 0}
    for _ in range(100):
        labels = generator.choice(4, generator.integers(3, 12, 3), p=[0.6, 0.2, 0.1, 0.1])
        before, found = labels.copy(), consistent(labels, "largest")
        peer = np.asarray(keep(labels[None].copy()))[0]
        assert np.array_equal(labels, before)
        for value in range(1, 4):
            components, _ = label(labels == value)
            sizes = np.bincount(components.ravel())[1:]
            (largest,) = np.nonzero(sizes == sizes.max(initial=1))
            if len(largest) == 1:
                assert np.array_equal(found == value, peer == value)
            if len(largest):
                assert np.array_equal(found == value, components == 1 + largest[0])
                assert (peer == value).sum() == sizes.max()
                seen["equal sizes" if len(largest) > 1 else "one is the largest"] += 1
    assert min(seen.values()) > 50


def test_the_step_none_changes_nothing():
    labels = np.random.default_rng(0).integers(0, 4, (3, 3, 3))
    assert np.array_equal(consistent(labels, "none"), labels)
