"""The oracle files: outputs of reference implementations on weights that NumPy rebuilds."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "oracles"

_spec = importlib.util.spec_from_file_location("fill", FOLDER / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def tensor(described: dict) -> torch.Tensor:
    """Return the input that an oracle describes by tag, shape and kind."""
    uniform = torch.from_numpy(fill.uniform(described["tag"], described["shape"]))
    kind = described["kind"]
    if kind == "uniform":
        return uniform
    factor, offset = kind.split("*uniform-")
    return uniform * float(factor) - float(offset)


def filled(shapes: dict) -> dict[str, torch.Tensor]:
    """Return a state dict that is filled by name, from shapes or from tensors of these shapes."""
    return {k: torch.from_numpy(fill.fill(k, getattr(s, "shape", s))) for k, s in shapes.items()}


def assert_close(stored: dict, result: torch.Tensor, rtol: float = 1e-4) -> None:
    """Compare with a stored summary or tensor; `rtol` is in stored standard deviations."""
    array = result.detach().double().numpy()
    if "values" in stored:
        wanted = np.array(stored["values"]).reshape(stored["shape"])
        assert array.shape == wanted.shape
        np.testing.assert_allclose(array, wanted, atol=rtol * (wanted.std() or 1), rtol=0)
        return
    assert list(array.shape) == stored["shape"]
    scale = stored["std"]
    sample = array.reshape(-1)[fill.sample_indices(array.size)]
    np.testing.assert_allclose(sample, stored["sample"], atol=rtol * scale, rtol=0)
    assert abs(array.mean() - stored["mean"]) <= rtol * scale
    assert abs(array.std() - stored["std"]) <= rtol * scale
