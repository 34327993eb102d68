"""What the images of a run are like is recorded, and images far from it are named."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsaga_lib.data.domain import Domain, Traits, shifts, traits_of
from medsaga_lib.data.images import Picture, read_image

VALUES = np.random.default_rng(9).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
ONE = Traits((6, 5, 4), (5.0, 0.8, 0.7), "RAS", "int16", -1000, 1000, (-160, 240), "CT")


def test_traits_are_those_of_the_file(tmp_path):
    nib.save(nib.Nifti1Image(VALUES, np.diag([0.7, 0.8, 5, 1])), tmp_path / "a.nii")
    low, high = float(VALUES.min()), float(VALUES.max())
    found = traits_of(read_image(tmp_path / "a.nii", "CT"))
    assert found == replace(ONE, low=low, high=high, spacing=pytest.approx((5.0, 0.8, 0.7)))
    assert found.bits == 10
    of_mr = traits_of(read_image(tmp_path / "a.nii", "MR"))
    ends = np.percentile(VALUES[VALUES > 0], [0.5, 99.5])
    assert (of_mr.rule, of_mr.window) == ("percentiles", pytest.approx(ends))
    assert traits_of(read_image(tmp_path / "a.nii", "MR", (0, 9))).rule == "declared"
    assert traits_of(Picture(np.zeros((4, 5), np.float32), (1.0, 1.0))) is None


def test_a_domain_is_read_as_it_was_written():
    other = replace(ONE, shape=(9, 5, 3), spacing=None, codes="?", dtype="uint8", low=0, high=255)
    domain = Domain.of([ONE, other])
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain
    assert domain.orientations == ("?", "RAS")
    assert domain.size == ((6, 5, 3), (9, 5, 4))
    assert domain.spacing_mm == (ONE.spacing, ONE.spacing)
    assert (domain.bits, domain.range) == ((8, 10), (255, 2000))
    assert Domain.of([]) is None
    assert Domain.from_json(None) is None


@given(st.lists(st.tuples(*[st.floats(0.1, 9)] * 3), min_size=1, max_size=4))
def test_no_training_image_is_far_from_the_training_images(spacings):
    traits = [replace(ONE, spacing=spacing) for spacing in spacings]
    assert all(Domain.of(traits).shifts(one) == {} for one in traits)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"spacing": (5, 0.8, 0.34)}, "spacing", "5 x 0.8 x 0.34 mm, not 5 x 0.8 x 0.7 mm"),
        ({"spacing": (11, 0.8, 0.7)}, "spacing", "the spacing 11 x"),
        ({"spacing": (0.8, 0.34)}, "spacing", "the spacing 0.8 x 0.34 mm, not 5 x 0.8 x 0.7 mm"),
        ({"codes": "PIR"}, "orientation", "is stored in sagittal slices, not in axial ones"),
        ({"codes": "?"}, "orientation", "is stored in unknown slices, not in axial ones"),
        ({"low": 0, "high": 255}, "values", "0 to 255, a range of 255 and not of 2000"),
        ({"low": 0, "high": 9000}, "values", "a range of 9000 and not of 2000"),
    ],
)
def test_what_is_far_is_named(change, kind, said):
    ((found, text),) = Domain.of([ONE]).shifts(replace(ONE, **change)).items()
    assert found == kind
    assert said in text


@pytest.mark.parametrize(
    "change",
    [
        {"spacing": None},
        {"spacing": (0.8, 0.8)},
        {"spacing": (9.9, 0.41, 1.3)},
        {"codes": "LPI"},
        {"high": -499},
    ],
)
def test_what_is_near_or_not_known_is_not(change):
    assert Domain.of([ONE]).shifts(replace(ONE, **change)) == {}


def test_intensities_that_are_scaled_by_each_volume_have_no_range():
    domain = Domain.of([replace(ONE, rule="percentiles")])
    assert domain.shifts(replace(ONE, low=0, high=1)) == {}
    assert shifts(None, Picture(np.zeros((2, 2), np.float32), (1.0, 1.0))) == {}


def test_a_window_that_is_not_declared_is_said():
    several = [replace(ONE, rule="percentiles", window=(3, high)) for high in (800, 950)]
    line = "values of 3 become black and values of 800 to 950 white (percentiles of each volume)"
    assert Domain.of(several).window_line() == line
    assert "values of 240 white (the window of CT)" in Domain.of([ONE]).window_line()
    for rule in ("declared", "type"):
        assert Domain.of([replace(ONE, rule=rule)]).window_line() is None
