"""The memory ledger of training: bytes of weights, gradients, optimizer states and activations.

Weights, gradients and states follow from shapes. Activations are the tensors that autograd keeps
for the backward pass, counted when they are saved (torch.autograd.graph.saved_tensors_hooks).
Inside `fake()` the same count needs neither time nor memory:

    with fake():
        model = build()
        image = torch.zeros(12, 3, 512, 512)
        print(ledger(model, param_groups(model, config, lr, decay), lambda: model(image)).mib())

The sum of the four is not the peak: a peak also contains temporaries, and not all four are largest
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

PEAK_SINCE = "2.13"  # the oldest torch with which `peak_bytes` was checked against MemTracker
BLOCKS = {8: 256, 4: 128}  # numbers with a common scale, by bits; torchao 0.18
LEAST_QUANTIZED = 4096  # numbers; smaller tensors have float32 states; torchao and bitsandbytes


@dataclass(frozen=True)
class Ledger:
    """Bytes by purpose; `projectors` is the part of `states` for GaLore's bases."""

    weights: int
    gradients: int
    states: int
    projectors: int
    activations: int

    @property
    def sum(self) -> int:
        """Weights + gradients + states + activations; this is not the peak."""
        return self.weights + self.gradients + self.states + self.activations

    def mib(self) -> dict[str, float]:
        """Return the entries and their sum in MiB (2^20 bytes)."""
        return {name: n / 2**20 for name, n in {**asdict(self), "sum": self.sum}.items()}


def ledger(
    module: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    forward: Callable[[], Any] | None = None,
    per_layer: bool = False,
) -> Ledger:
    """Return the ledger of training `module`, on any device, `meta` and `fake()` included.

    Args:
        module: the network.
        groups: parameter groups of the optimizer, with `params`, and with `rank` where GaLore
            projects (see `param_groups`). A group without `rank` belongs to AdamW, or to SGD if it
            has `momentum`. States are float32, or those of `quantized_bytes` in a group of AdamW
            with `bits`; step counters (4 bytes per tensor) do not count.
        forward: computes the loss, or another tensor to backpropagate; without it, activations
            are 0.
        per_layer: updates inside the backward pass, so only the largest gradient exists.
    """
    groups = list(groups)
    sizes = [_bytes(W) for group in groups for W in group["params"]]
    moments, projectors = state_bytes(groups)
    activations = 0
    if forward is not None:
        with saved_bytes(module) as saved:
            result = forward()  # it holds the graph until the count is read
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
    """Return the bytes of all parameters and buffers; shared ones count once."""
    return sum(_bytes(W) for W in [*module.parameters(), *module.buffers()])


def state_bytes(groups: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return (moments, projectors) of GaLoreAdamW, AdamW or SGD in bytes, from shapes alone."""
    moments = projectors = 0
    for group in groups:
        rank = group.get("rank")
        for W in group["params"]:
            shape = tuple(W.shape)
            if rank is not None and is_projected(shape, rank):
                of_moments, of_basis = projected_bytes(as_matrix(shape), rank)
                moments += of_moments
                projectors += of_basis if group.get("keeps_basis", True) else 0
            elif "bits" in group and "momentum" not in group:
                moments += quantized_bytes(math.prod(shape), group["bits"])
            else:
                moments += _dense_moments(group) * math.prod(shape) * STATE_BYTES
    return moments, projectors


def quantized_bytes(numbers: int, bits: int) -> int:
    """Return the bytes of both moments of AdamW for a tensor, with 8 or 4 bits as in torchao.

    A moment has a code of `bits` for each number, a float32 scale for each block, and a float32 map
    of the codes. Small tensors, and tensors that are not whole blocks, have float32 moments.
    """
    block = BLOCKS[bits]
    if numbers < LEAST_QUANTIZED or numbers % block:
        return 2 * numbers * STATE_BYTES
    return 2 * (numbers * bits // 8 + (numbers // block + 2**bits) * STATE_BYTES)


def _dense_moments(group: Mapping[str, Any]) -> int:
    """Return the moments per weight of a dense optimizer: AdamW 2, SGD 1 with momentum, else 0."""
    return int(group["momentum"] > 0) if "momentum" in group else 2


def held_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the storages that an optimizer's states keep alive, each counted once.

    States inside objects count too, because galore-torch keeps its projectors in one, and so do the
    parts of torchao's quantized tensors, which have the shape of a float32 tensor but hold codes,
    scales and a map. A view counts as its whole storage, because it keeps all of it alive. Step
    counters are included if they are tensors.
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
    """Return the peak of a training step after the first, in bytes; call this inside `fake()`.

    The peak is the largest number of bytes alive at once. This function follows every tensor that
    the forward pass, the backward pass and the update create, and adds weights and states, which
    stay alive throughout. It does not see the memory inside single operators and the reserve of an
    allocator. Existing gradients are dropped.

    Args:
        module, groups, per_layer: as in `ledger`.
        forward: computes the scalar loss; create the batch inside it, so that it counts.

    Raises:
        UserError: torch is older than 2.13; in 2.6, freed fake tensors stayed alive.
    """
    if torch.__version__ < TorchVersion(PEAK_SINCE):
        raise UserError(
            f"The peak needs torch {PEAK_SINCE} or newer, but this is {torch.__version__}; "
            "update torch, or use the ledger without the peak."
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
        if loss.requires_grad:  # otherwise nothing is trained
            loss.backward()
        del loss
        # GaLoreAdamW computes R_t and N_t of all float32 tensors before it changes any
        at_once = [
            2 * _projection_bytes(W, group_of[W])
            for W in group_of
            if W.dtype == torch.float32 and not per_layer
        ]
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
    """Return the bytes of R_t in a step that does not refresh the basis."""
    rank = group.get("rank")
    if rank is None or not is_projected(tuple(W.shape), rank):
        return 0
    return max(as_matrix(tuple(W.shape))) * rank * STATE_BYTES


def _update_bytes(W: Tensor, group: Mapping[str, Any], per_layer: bool) -> int:
    """Return the bytes of temporaries for updating one tensor; GaLore's between two refreshes.

    They are those of a GPU: on a CPU, torch's fused AdamW has none.
    """
    copies = 0 if W.dtype == torch.float32 else 2 * W.numel() * STATE_BYTES  # weight and gradient
    if projection := _projection_bytes(W, group):
        own = 2 if per_layer or copies else 0  # R_t and N_t
        return (own + 2) * projection + copies  # and two in AdamW
    # AdamW: the root of V_t and the denominator; SGD: the gradient with weight decay
    temporaries = 1 if "momentum" in group else 2
    return temporaries * W.numel() * STATE_BYTES + copies


class _Timeline(TorchDispatchMode):
    """Adds up the bytes of all storages that operators create, until they are freed."""

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
    """A counter of the bytes that autograd saves for the backward pass; see `saved_bytes`."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        self._known = {StorageWeakRef(tensor.untyped_storage()) for tensor in known}
        self._saved: dict[StorageWeakRef, int] = {}

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._saved[StorageWeakRef(storage)] = storage.nbytes()
        return tensor

    def total(self) -> int:
        """Return the bytes held at this moment; storages that are already freed do not count."""
        return sum(
            size
            for storage, size in self._saved.items()
            if storage not in self._known and not storage.expired()
        )


@contextmanager
def saved_bytes(module: nn.Module) -> Iterator[SavedBytes]:
    """Count the bytes that a forward pass inside the block saves for its backward pass.

    Every storage counts once and as a whole; those of the module's parameters and buffers do not
    count. With checkpointing, the checkpoints count; the activations that the backward pass
    recomputes come on top, one checkpoint at a time. Read `total()` while the result of the forward
    pass still exists.
    """
    counter = SavedBytes([*module.parameters(), *module.buffers()])
    with torch.autograd.graph.saved_tensors_hooks(counter._pack, lambda tensor: tensor):
        yield counter


def fake() -> FakeTensorMode:
    """Return a context in which tensors have shape, type and device, but no memory and values."""
    return FakeTensorMode()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if hasattr(value, "__tensor_flatten__"):  # a tensor of tensors, without a storage of its own
        yield from _tensors_in([getattr(value, name) for name in value.__tensor_flatten__()[0]])
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)
    elif hasattr(value, "__dict__"):
        yield from _tensors_in(vars(value))
