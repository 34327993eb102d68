"""A picture with labels for the tests of the figures."""

import numpy as np
import pytest


@pytest.fixture
def chest():
    """A picture of 60 x 80 with two rectangles as lungs, and the same one row lower."""
    image = np.linspace(0, 1, 4800).reshape(60, 80)
    truth = np.zeros((60, 80), int)
    truth[10:40, 8:32], truth[10:40, 45:69] = 1, 2
    return image, truth, np.roll(truth, 1, axis=0)
