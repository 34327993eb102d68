"""Where the memory of training goes: weights, gradients, optimizer states, activations, in bytes.

Weights, gradients and states follow from shapes. Activations are what autograd keeps for the
backward pass, counted where it is saved (torch.autograd.graph.saved_tensors_hooks); inside `fake()`
the same count needs neither time nor memory:

    with fake():
        model = build()
        image = torch.zeros(12, 3, 512, 512)
        print(ledger(model, param_groups(model, config, lr, decay), lambda: model(image)).mib())

The sum of the four is no peak: a peak also holds temporaries, and not all four are at their largest
at the same time. `peak_bytes` follows a whole step instead.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medsaga_lib.errors import UserError
from medsaga_lib.optim.galore import STATE_BYTES, as_matrix, is_projected, projected_bytes

PEAK_SINCE = "2.13"  # the oldest torch with which `peak_bytes` was held against MemTracker


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
    `param_groups`); a group without `rank` is AdamW's, or SGD's where it has `momentum`. States
    are float32; step counters (4 bytes a tensor) are left out. forward: computes the loss, or
    whatever is backpropagated; without it activations are 0. per_layer: updates inside the
    backward pass, so that only the largest gradient exists.
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
    """(moments, projectors) of GaLoreAdamW, AdamW or SGD in bytes, from shapes alone."""
    moments = projectors = 0
    for group in groups:
        rank = group.get("rank")
        for W in group["params"]:
            shape = tuple(W.shape)
            if rank is not None and is_projected(shape, rank):
                of_moments, of_basis = projected_bytes(as_matrix(shape), rank)
                moments += of_moments
                projectors += of_basis if group.get("keeps_basis", True) else 0
            else:
                moments += _dense_moments(group) * math.prod(shape) * STATE_BYTES
    return moments, projectors


def _dense_moments(group: Mapping[str, Any]) -> int:
    """Numbers that a dense optimizer keeps for each weight: AdamW two, SGD its momentum."""
    return int(group["momentum"] > 0) if "momentum" in group else 2


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


def peak_bytes(
    module: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    forward: Callable[[], Tensor],
    per_layer: bool = False,
) -> int:
    """Most bytes alive at once in a training step after the first; call it inside `fake()`.

    Follows every tensor that the forward pass, the backward pass and the update create, and adds
    weights and states, which stay throughout. forward: computes the scalar loss; create the batch
    inside it, so that it counts. What single operators use inside themselves is not seen, nor what
    an allocator keeps in reserve. The other arguments are those of `ledger`; gradients are dropped.

    Raises:
        UserError: torch is older than 2.13, where freed fake tensors were seen to stay alive (2.6).
    """
    if torch.__version__ < TorchVersion(PEAK_SINCE):
        raise UserError(
            f"The peak needs torch {PEAK_SINCE} or newer, and this is {torch.__version__}; "
            "update torch, or use the ledger, which does not."
        )
    groups = list(groups)
    group_of = {W: group for group in groups for W in group["params"]}

    def update(W: Tensor) -> None:
        if W.grad is not None:
            torch.empty(_update_bytes(W, group_of[W], per_layer), dtype=torch.uint8)
        if per_layer:
            W.grad = None

    for W in group_of:
        W.grad = None
    hooks = [W.register_post_accumulate_grad_hook(update) for W in group_of] if per_layer else []
    with _Timeline([*module.parameters(), *module.buffers()]) as timeline:
        loss = forward()
        if loss.requires_grad:  # else nothing trains
            loss.backward()
        del loss
        # GaLoreAdamW projects all gradients before it changes anything
        at_once = [] if per_layer else [_projection_bytes(W, group_of[W]) for W in group_of]
        projections = torch.empty(sum(at_once), dtype=torch.uint8)
        for W in group_of:
            update(W)
        del projections
    for hook in hooks:
        hook.remove()
    for W in group_of:
        W.grad = None
    return weight_bytes(module) + sum(state_bytes(groups)) + timeline.peak


def _projection_bytes(W: Tensor, group: Mapping[str, Any]) -> int:
    """Of R_t, in a step that renews no basis."""
    rank = group.get("rank")
    if rank is None or not is_projected(tuple(W.shape), rank):
        return 0
    return max(as_matrix(tuple(W.shape))) * rank * STATE_BYTES


def _update_bytes(W: Tensor, group: Mapping[str, Any], per_layer: bool) -> int:
    """Temporaries of an update of one tensor, GaLoreAdamW's between two refreshes."""
    copies = 0 if W.dtype == torch.float32 else 2 * W.numel() * STATE_BYTES  # weight and gradient
    if projection := _projection_bytes(W, group):
        return (3 if per_layer else 2) * projection + copies  # R_t, and two for N_t
    # AdamW: the root of V_t and the denominator; SGD: the gradient with the decay in it
    temporaries = 1 if "momentum" in group else 2
    return temporaries * W.numel() * STATE_BYTES + copies


class _Timeline(TorchDispatchMode):
    """Adds up the storages that operators create, from their creation to their end."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = self._alive = 0
        self._seen = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}

    def __torch_dispatch__(  # type: ignore[override]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        reference = StorageWeakRef(storage)
        if reference in self._seen:
            return
        self._seen.add(reference)
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, reference, storage.nbytes())

    def _forget(self, reference: StorageWeakRef, size: int) -> None:
        self._seen.discard(reference)
        self._alive -= size


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
