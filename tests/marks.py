"""Marks that several test files share."""

import pytest
import torch
from torch.torch_version import TorchVersion

from medsaga_lib.memory.ledger import PEAK_SINCE

needs_peak = pytest.mark.skipif(
    torch.__version__ < TorchVersion(PEAK_SINCE), reason=f"the peak needs torch {PEAK_SINCE}"
)
