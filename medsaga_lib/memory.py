"""Where the memory of training goes: weights, gradients, optimizer states, activations, in bytes.

Weights, gradients and states follow from shapes. Activations are what autograd keeps for the
backward pass, counted where it is saved (torch.autograd.graph.saved_tensors_hooks); inside `fake()`
the same count needs neither time nor memory:

    with fake():
        model = build()
        image = torch.zeros(12, 3, 512, 512)
        print(ledger(model, param_groups(model, config, lr, decay), lambda: model(image)).mib())

The sum of the four is no peak: a peak also holds temporaries, and not all four are at their largest
at the same time.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from medsaga_lib.optim.galore import STATE_BYTES, as_matrix, is_projected, projected_bytes


@dataclass(frozen=True)
class Ledger:
    """Bytes by purpose; `projectors` is the part of `states` that GaLore's bases take."""

    weights: int
    gradients: int
    states: int
    projectors: int
    activations: int

    @property
    def sum(self) -> int:
        """Weights + gradients + states + activations; not a peak."""
        return self.weights + self.gradients + self.states + self.activations

    def mib(self) -> dict[str, float]:
        """The entries and their sum in MiB (2^20 bytes)."""
        return {name: n / 2**20 for name, n in {**asdict(self), "sum": self.sum}.items()}


def ledger(
    module: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    forward: Callable[[], Any] | None = None,
    per_layer: bool = False,
) -> Ledger:
    """The ledger of training `module`, on any device, `meta` and `fake()` included.

    groups: what the optimizer is given: `params`, and `rank` where GaLore projects (as from
    `param_groups`); a group without `rank` is AdamW's. States are float32; step counters (4 bytes a
    tensor) are left out. forward: computes the loss, or whatever is backpropagated; without it
    activations are 0. per_layer: updates inside the backward pass, so that only the largest
    gradient exists.
    """
    groups = list(groups)
    sizes = [_bytes(W) for group in groups for W in group["params"]]
    moments, projectors = state_bytes(groups)
    activations = 0
    if forward is not None:
        with saved_bytes(module) as saved:
            result = forward()  # kept until the count is taken: it holds the graph
            activations = saved.total()
            del result
    return Ledger(
        weights=weight_bytes(module),
        gradients=max(sizes, default=0) if per_layer else sum(sizes),
        states=moments + projectors,
        projectors=projectors,
        activations=activations,
    )


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    return sum(_bytes(W) for W in [*module.parameters(), *module.buffers()])


def state_bytes(groups: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """(moments, projectors) of GaLoreAdamW in bytes, from shapes alone."""
    moments = projectors = 0
    for group in groups:
        rank = group.get("rank")
        for W in group["params"]:
            shape = tuple(W.shape)
            if rank is not None and is_projected(shape, rank):
                of_moments, of_basis = projected_bytes(as_matrix(shape), rank)
                moments, projectors = moments + of_moments, projectors + of_basis
            else:
                moments += 2 * math.prod(shape) * STATE_BYTES
    return moments, projectors


def held_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the storages that an optimizer's states keep alive, each counted once.

    Looks inside objects too (galore-torch keeps its projectors in one), and counts a view as the
    whole storage behind it, because that is what it costs. Includes the step counters.
    """
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for tensor in _tensors_in(optimizer.state)
    }
    return sum(storages.values())


class SavedBytes:
    """Counts what autograd saves for the backward pass; see `saved_bytes`."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self._known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self._saved: dict[StorageWeakRef, int] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._saved[StorageWeakRef(storage)] = storage.nbytes()
        return tensor

    def total(self) -> int:
        """Bytes held at this moment: storages that are freed by now no longer count."""
        return sum(
            size
            for storage, size in self._saved.items()
            if storage not in self._known and not storage.expired()
        )


@contextmanager
def saved_bytes(module: nn.Module) -> Iterator[SavedBytes]:
    """Counts the bytes that a forward pass inside the block saves for its backward pass.

    Storages are counted once and whole; those of the module's parameters and buffers not at all.
    With checkpointing these are the checkpoints; what backward computes anew comes on top, one
    checkpoint at a time. Read `total()` while the result of the forward pass still exists.
    """
    counter = SavedBytes([*module.parameters(), *module.buffers()])
    with torch.autograd.graph.saved_tensors_hooks(counter._pack, lambda tensor: tensor):
        yield counter


def fake() -> FakeTensorMode:
    """A block in which tensors have shapes, types and devices but no memory and no values."""
    return FakeTensorMode()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)
    elif hasattr(value, "__dict__"):
        yield from _tensors_in(vars(value))
