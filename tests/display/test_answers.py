"""The checks of exercises read any answer, and a wrong kind gets a sentence."""

import numpy as np
import pytest
import torch

from medsaga_lib.display.answers import as_number, as_returned


@pytest.mark.parametrize("answer", [3, 3.0, np.int64(3), np.float32(3), torch.tensor(3.0)])
def test_all_kinds_of_numbers_are_numbers(answer):
    assert as_number("half", answer) == 3.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "There is no number for half yet."),
        (..., "There is no number for half yet."),
        ("0.5", "half is '0.5'; it must be a number."),
        (True, "half is True; it must be a number."),
        ([1, 2], "half is [1, 2]; it must be a number."),
        (torch.zeros(2), "half is tensor([0., 0.]); it must be a number."),
        (np.zeros(2), "half is array([0., 0.]); it must be a number."),
        (float("nan"), "half is NaN, which is not a number."),
    ],
)
def test_what_is_no_number_gets_a_sentence(answer, said):
    with pytest.raises(AssertionError) as raised:
        as_number("half", answer)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "f(x) returns None; does the function end with return?"),
        (np.zeros(2), "f(x) returns ndarray; it must return Tensor."),
        (torch.zeros(3), "f(x) has the shape (3,); it must be (2,)."),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(answer, said):
    with pytest.raises(AssertionError) as raised:
        as_returned("f(x)", answer, torch.ones(2))
    assert str(raised.value) == said


def test_what_can_be_compared_is_returned():
    answer = torch.zeros(2)
    assert as_returned("f(x)", answer, torch.ones(2)) is answer
    assert as_returned("f(x)", (1, 2), (3, 4)) == (1, 2)
    assert as_returned("f(x)", np.float64(0.5), 0.4) == 0.5  # a number of NumPy has a shape
