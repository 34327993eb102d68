"""Imports that would fail, be slow or print warnings: torchvision, segment_anything, bitsandbytes.

A CPU build of torch with the package index's torchvision (a CUDA build) leaves torchvision without
its operators. Importing it then fails with "operator torchvision::nms does not exist", and so does
importing segment_anything, transformers or peft; peft shows a misleading ModuleNotFoundError. This
module defines `nms` and `qnms` instead, so that the import works and non-maximum suppression, which
segment_anything's automatic masks need, gives correct results. A torchvision whose operators load
is not changed. Nothing is imported before torchvision is, so `medsaga --help` need not wait for
torch.

Where torchvision does load, its import is slow, because it brings torch's compiler.
segment_anything imports torchvision for its predictor and its automatic masks, and the library
seldom needs them. So the package runs its own `__init__` only once one of its names is used, and
`segment_anything.modeling` comes without torchvision.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: "torch.library.Library | None" = None  # the definitions live as long as this object


def prepare_torchvision() -> None:
    """Supply torchvision's missing operators when it is imported, or now if it already was."""
    if "torchvision" in sys.modules or "torchvision.extension" in sys.modules:
        supply_missing_operators()
    else:
        sys.meta_path.insert(0, _TorchvisionFinder())


def supply_missing_operators() -> bool:
    """Define torchvision's `nms` and `qnms` if it has none; return whether they are ours.

    This may be called before or after imports of torchvision, also after a failed one.
    """
    import torch

    global _library
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _TorchvisionFinder)]
    if _library is not None:
        return True
    if _is_defined("nms") or not (folder := _torchvision_folder()) or _loads(folder):
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for name, function in (("nms", nms), ("qnms", _quantized_nms)):
        _library.define(name + _SCHEMA)
        _library.impl(name, function, "CompositeExplicitAutograd")
    if (extension := sys.modules.get("torchvision.extension")) is not None:
        _allow_operators(extension)  # left behind by an import that failed
    else:
        sys.meta_path.insert(0, _ExtensionFinder())
    return True


def delay_segment_anything() -> None:
    """Let segment_anything run its `__init__` when a name of the package is first used."""
    if "segment_anything" not in sys.modules:
        sys.meta_path.insert(0, _DelayingFinder())


def quiet_bitsandbytes() -> None:
    """Silence bitsandbytes' warning on CPUs with bf16 that kernels for 4 bits are missing.

    peft and galore_torch import it. Nothing here computes with 4 bits, but the book's pages show
    warnings.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def nms(dets: "torch.Tensor", scores: "torch.Tensor", iou_threshold: float) -> "torch.Tensor":
    """Run greedy non-maximum suppression, as `torchvision.ops.nms`.

    Args:
        dets: (N, 4) boxes, x0 y0 x1 y1.
        scores: (N,); a box with a higher score is chosen earlier.
        iou_threshold: a box is dropped if its IoU with a chosen box is greater than this.

    Returns:
        int64 (M,) indices of the kept boxes, by decreasing score.
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order].to(torch.float64 if dets.dtype == torch.float64 else torch.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    candidate = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    kept = []
    for i in range(len(order)):
        if not candidate[i]:
            continue
        kept.append(i)
        corner = torch.maximum(boxes[i, :2], boxes[:, :2])
        side = (torch.minimum(boxes[i, 2:], boxes[:, 2:]) - corner).clamp(min=0)
        overlap = side[:, 0] * side[:, 1]
        candidate &= ~(overlap / (area[i] + area - overlap) > iou_threshold)
    return order[kept]


def _quantized_nms(
    dets: "torch.Tensor", scores: "torch.Tensor", iou_threshold: float
) -> "torch.Tensor":
    return nms(dets.dequantize(), scores.dequantize(), iou_threshold)


def _is_defined(name: str) -> bool:
    import torch

    return hasattr(torch.ops.torchvision, name)


def _torchvision_folder() -> Path | None:
    if (module := sys.modules.get("torchvision")) is not None and module.__file__:
        return Path(module.__file__).parent
    spec = importlib.util.find_spec("torchvision")
    return Path(spec.origin).parent if spec and spec.origin else None


def _loads(folder: Path) -> bool:
    """Load and register torchvision's compiled operators; return whether that worked."""
    import torch

    if sys.platform == "win32":
        return True  # the Windows wheels of both packages are CPU builds and fit each other
    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except (OSError, ImportError):
            continue
        return _is_defined("nms")
    return False


def _allow_operators(extension: Any) -> None:
    """Let `_assert_has_ops` pass, which torchvision calls before each operator."""
    extension._assert_has_ops = lambda: None
    if (boxes := sys.modules.get("torchvision.ops.boxes")) is not None:
        vars(boxes)["_assert_has_ops"] = extension._assert_has_ops


class _TorchvisionFinder(importlib.abc.MetaPathFinder):
    """A finder that supplies the operators when torchvision is looked up, before its import."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            supply_missing_operators()
        return None  # the other finders find it


class _ExtensionFinder(importlib.abc.MetaPathFinder):
    """A finder that runs `_allow_operators` once torchvision.extension is imported."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision.extension":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return spec
        loader = _ExtensionLoader(fullname, spec.origin)
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)


class _ExtensionLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        _allow_operators(module)


class _Delayed(types.ModuleType):
    """A package whose `__init__` runs when a name is asked for that the module does not have."""

    def __getattr__(self, name: str) -> Any:
        loader = self.__spec__ and self.__spec__.loader
        if not isinstance(loader, _DelayedLoader) or (name.startswith("__") and name != "__all__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        loader.run(self)
        return getattr(self, name)


class _DelayedLoader(importlib.machinery.SourceFileLoader):
    """A loader that makes a `_Delayed` module and runs its code later."""

    def create_module(self, spec):
        return _Delayed(spec.name)

    def exec_module(self, module):
        return None

    def run(self, module: types.ModuleType) -> None:
        """Run the code of the package; from now on the module is as any other."""
        module.__class__ = types.ModuleType
        try:
            super().exec_module(module)
        except BaseException:
            module.__class__ = _Delayed  # the next use tries again
            raise


class _DelayingFinder(importlib.abc.MetaPathFinder):
    """A finder that gives segment_anything a `_DelayedLoader`."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "segment_anything":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return spec
        spec.loader = _DelayedLoader(fullname, spec.loader.path)
        return spec
