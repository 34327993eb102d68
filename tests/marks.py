"""Marks that several test files share."""

import pytest
import torch
from torch.torch_version import TorchVersion

from medsaga_lib.memory.ledger import PEAK_SINCE

# Why a test is skipped that needs a package which only `tools.peers` compares with
PEER = "the package is not installed: it is needed for a recorded run only"
needs_peak = pytest.mark.skipif(
    torch.__version__ < TorchVersion(PEAK_SINCE), reason=f"the peak needs torch {PEAK_SINCE}"
)
