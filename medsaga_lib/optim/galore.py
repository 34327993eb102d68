"""GaLore with AdamW: Adam runs on R_t = P_t^T G_t, the gradient projected to a small subspace.

Zhao et al. 2024, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection"
(arXiv 2403.03507), algorithm 2. It changes only the optimizer, not the network.

    R_t = P_t^T G_t                                  P_t: leading singular vectors, every T steps
    M_t = beta_1 M_{t-1} + (1 - beta_1) R_t
    V_t = beta_2 V_{t-1} + (1 - beta_2) R_t^2
    N_t = (M_t / (1 - beta_1^t)) / (sqrt(V_t / (1 - beta_2^t)) + eps)
    W_t = (1 - eta lambda) W_{t-1} - eta alpha P_t N_t

This implementation differs from the published package: the moments follow the subspace when it is
refreshed, tensors may have any shape, the states are plain tensors of the size that the formula
gives, and torch's AdamW updates the tensors that are not projected.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from medsaga_lib.errors import UserError
from medsaga_lib.models.linear import linear
from medsaga_lib.optim.subspace import exact_basis, randomized_basis, refresh_seed, rotate_moments

SMALL = 2**14  # numbers in a tensor that is updated together with others; our choice
FUSED = ("cpu",)  # devices with torch's fused AdamW; a GPU's needs the step counters there
STATE_BYTES = 4  # moments and bases are float32 for weights of every dtype


@dataclass(frozen=True)
class GaLoreConfig:
    """Options of the projection; the defaults of `refresh` and `scale` are the published package's.

    Args:
        rank: width r of the subspace.
        refresh: number of steps T after which the basis is renewed.
        scale: alpha, the factor of the projected update.
        moments: "rotate" transforms Adam's moments to the new basis; "keep" leaves their values
            unchanged, as the paper does.
        subspace: "exact" is an SVD, "randomized" a fast subspace iteration.
        seed: seed of the randomized subspaces.
        stagger: spread the refreshes over the T steps, so that no step pays for all of them.
        projected: patterns (as in fnmatch) of names that may be projected; other tensors are dense.
    """

    rank: int
    refresh: int = 200
    scale: float = 0.25
    moments: Literal["rotate", "keep"] = "rotate"
    subspace: Literal["randomized", "exact"] = "randomized"
    seed: int = 0
    stagger: bool = False
    projected: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        for name in ("rank", "refresh"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"GaLore's {name} is {value!r}; give a whole number of at least 1.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"GaLore's scale is {self.scale!r}; give a positive number.")
        for name, choices in (
            ("moments", ("rotate", "keep")),
            ("subspace", ("randomized", "exact")),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"GaLore's {name} is {value!r}; choose one of {tuple(choices)}.")


@dataclass(frozen=True)
class Treatment:
    """How one trainable tensor is updated; state_bytes excludes its 4-byte step counter."""

    name: str
    shape: tuple[int, ...]
    matrix: tuple[int, int] | None
    how: Literal["projected", "dense"]
    why: str
    state_bytes: int


class NonFiniteGradientError(UserError):
    """A gradient contains NaN or infinity; no weight and no state was changed."""


@cache
def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Shape of the matrix that represents a tensor with 2 or more dimensions.

    The rows are the first dimension, as for a convolution (out, in, h, w). If the first dimension
    is 1, as in the position table (1, 64, 64, 768), the columns are the last dimension instead.
    """
    if shape[0] == 1:
        return math.prod(shape[:-1]), shape[-1]
    return shape[0], math.prod(shape[1:])


def projected_bytes(matrix: tuple[int, int], rank: int) -> tuple[int, int]:
    """Bytes of both moments and of the basis: 2 max(m, n) r and min(m, n) r floats for (m, n)."""
    return 2 * max(matrix) * rank * STATE_BYTES, min(matrix) * rank * STATE_BYTES


@cache
def is_projected(shape: tuple[int, ...], rank: int | None) -> bool:
    """Whether a projection saves memory; never at rank >= min(m, n), where GaLore is AdamW."""
    if rank is None or len(shape) < 2:
        return False
    return sum(projected_bytes(as_matrix(shape), rank)) < 2 * math.prod(shape) * STATE_BYTES


def treatment(module: nn.Module, config: GaLoreConfig) -> list[Treatment]:
    """List how each trainable tensor of `module` is updated, and why; frozen ones are omitted.

    Raises:
        UserError: no tensor is trainable, or a pattern of `config.projected` matches no name.
    """
    names = [name for name, W in module.named_parameters() if W.requires_grad]
    if not names:
        raise UserError("Nothing to train: every tensor is frozen; set requires_grad for some.")
    for pattern in config.projected:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"No trainable tensor is called {pattern!r}; give a pattern that matches a name in "
                "named_parameters()."
            )
    return [
        _treat(name, tuple(W.shape), config)
        for name, W in module.named_parameters()
        if W.requires_grad
    ]


def _treat(name: str, shape: tuple[int, ...], config: GaLoreConfig) -> Treatment:
    dense_bytes = 2 * math.prod(shape) * STATE_BYTES
    if len(shape) < 2:
        return Treatment(name, shape, None, "dense", "fewer than 2 dimensions", dense_bytes)
    matrix = as_matrix(shape)
    if not any(fnmatchcase(name, pattern) for pattern in config.projected):
        return Treatment(name, shape, matrix, "dense", "not among the chosen names", dense_bytes)
    if not is_projected(shape, config.rank):
        why = f"rank {config.rank} saves no memory"
        return Treatment(name, shape, matrix, "dense", why, dense_bytes)
    size = sum(projected_bytes(matrix, config.rank))
    why = f"states {dense_bytes / size:.1f} times smaller"
    return Treatment(name, shape, matrix, "projected", why, size)


def param_groups(
    module: nn.Module, config: GaLoreConfig, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for GaLoreAdamW: projected tensors of `module` first, then dense ones.

    Each trainable tensor is in exactly one group; groups without tensors are omitted.

    Raises:
        UserError: as in `treatment`.
    """
    tensors = dict(module.named_parameters())
    plan = treatment(module, config)
    options = {key: value for key, value in asdict(config).items() if key != "projected"}
    groups = []
    for how, extra in (("projected", options), ("dense", {})):
        names = [tensor.name for tensor in plan if tensor.how == how]
        if names:
            params = [tensors[name] for name in names]
            common = {"lr": lr, "weight_decay": weight_decay}
            groups.append({"params": params, "names": names, **common, **extra})
    return groups


_Indexed = tuple[int, dict[str, Any], Tensor]


class Step(NamedTuple):
    """Quantities of one tensor's step before its weights change; letters as in algorithm 2."""

    G: Tensor  # (m, n)
    P: Tensor  # (m, r)
    R: Tensor  # (r, n)
    N: Tensor  # (r, n)
    state: dict[str, Tensor]
    keep: float  # factor of the weights, 1 - eta lambda
    rate: float  # factor of the update, eta alpha


class Projected(NamedTuple):
    """A tensor, its gradient (m, n), the basis (m, r), the projected gradient (r, n), the state."""

    W: Tensor
    G: Tensor
    P: Tensor
    R: Tensor
    state: dict[str, Tensor]


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW with moments in a rank-r subspace for the parameter groups that have a `rank`.

    torch's AdamW (on a CPU with `fused`) updates groups without a `rank`, and tensors whose states
    a projection would not make smaller, bit for bit. Weights may be float32, bfloat16 or float16;
    states are float32.

    Args:
        params: groups from `param_groups`, or any that torch.optim.AdamW accepts.
        lr, betas, eps, weight_decay: as in torch.optim.AdamW.
        nonfinite: what a step does at a gradient with NaN or infinity: "raise" an error, or "skip"
            the whole step and count it in `skipped`.

    Raises:
        UserError: an argument is out of range.
        NonFiniteGradientError: from `step`, before anything changes; not with nonfinite="skip".
    """

    keeps_basis = True  # stored in the state; False: drawn again in every step

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        nonfinite: Literal["raise", "skip"] = "raise",
    ) -> None:
        if nonfinite not in ("raise", "skip"):
            raise UserError(f"nonfinite is {nonfinite!r}; choose 'raise' or 'skip'.")
        self.nonfinite, self.skipped = nonfinite, 0
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "rank": None}
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group as in torch; raise UserError for a value that is out of range."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        beta_1, beta_2 = group["betas"]
        if group["lr"] < 0 or group["weight_decay"] < 0 or group["eps"] < 0:
            raise UserError("lr, weight_decay and eps must not be negative; give 0 or more.")
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise UserError(f"betas are {group['betas']}; both must be at least 0 and below 1.")
        if group["rank"] is not None:
            known = GaLoreConfig.__dataclass_fields__
            options = asdict(GaLoreConfig(**{k: v for k, v in group.items() if k in known}))
            group.update({key: value for key, value in options.items() if key != "projected"})
            group["keeps_basis"] = self.keeps_basis

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every tensor that has a gradient; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(list(self._tensors()))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as in torch, but keep float32 states for weights of lower precision.

        Raises:
            UserError: the state was saved with another rank.
        """
        saved_groups = state_dict["param_groups"]
        for group, saved in zip(self.param_groups, saved_groups, strict=False):
            if saved.get("rank") != group["rank"]:
                raise UserError(
                    f"The saved optimizer has rank {saved.get('rank')}, this one {group['rank']}; "
                    "resume with the rank of the saved run."
                )
        super().load_state_dict(state_dict)
        numbers = [number for saved in saved_groups for number in saved["params"]]
        for number, (_, _, W) in zip(numbers, self._tensors(), strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                device = value.device if key == "step" else W.device
                self.state[W][key] = value.detach().to(device=device, copy=True)

    def _tensors(self) -> Iterator[_Indexed]:
        """Yield (index, group, W) of every tensor; the index is its number in the state dict."""
        index = 0
        for group in self.param_groups:
            for W in group["params"]:
                yield index, group, W
                index += 1

    def _update(self, tensors: list[_Indexed]) -> None:
        """Update the tensors that have a gradient; errors are raised before any change."""
        tensors = [item for item in tensors if item[2].grad is not None]
        if any(_gradient(W).is_sparse for _, _, W in tensors):
            raise UserError(
                "GaLoreAdamW does not support sparse gradients; use torch.optim.SparseAdam."
            )
        projections = {
            item[2]: R for item in tensors if (R := self._in_kept_basis(*item)) is not None
        }
        broken = self._nonfinite(tensors, projections)
        if broken and self.nonfinite == "skip":
            self.skipped += 1
            return
        if broken:
            raise NonFiniteGradientError(
                f"The gradient of {broken[0]} contains NaN or infinity ({len(broken)} of "
                f"{len(tensors)} tensors do); lower the learning rate."
            )
        small: dict[int, list[Tensor]] = {id(group): [] for group in self.param_groups}
        low: dict[int, list[Projected]] = {id(group): [] for group in self.param_groups}
        for index, group, W in tensors:
            if is_projected(tuple(W.shape), group["rank"]):
                low[id(group)] += self._projected(index, group, W, projections.get(W))
                if _gradient(W).dtype != torch.float32:  # the list holds a float32 copy
                    self._galore(group, low[id(group)])
                    low[id(group)].clear()
            elif W.numel() <= SMALL:
                small[id(group)].append(W)
            else:
                self._adamw(group, [W])
        for group in self.param_groups:
            self._galore(group, low[id(group)])
            self._adamw(group, small[id(group)])

    def _in_kept_basis(self, index: int, group: dict[str, Any], W: Tensor) -> Tensor | None:
        """R_t = P^T G_t for a tensor that keeps its basis P in this step, None for others.

        It is computed before anything changes, because it also shows cheaply whether G_t is finite.
        """
        if not (is_projected(tuple(W.shape), group["rank"]) and self.keeps_basis):
            return None
        if self._is_due(index, group, W) or _gradient(W).dtype != torch.float32:
            return None
        # The same product as P.T @ G, by the faster kernel
        return linear(self.state[W]["basis"].T, _short_side_first(_gradient(W)).T)

    def _nonfinite(self, tensors: list[_Indexed], projections: dict[Tensor, Tensor]) -> list[str]:
        """Names of the tensors whose gradient is not finite.

        The test costs one norm per tensor, over P^T G where it is known: NaN and infinity propagate
        through the projection.
        """
        seen = [projections.get(W, _gradient(W)) for _, _, W in tensors]
        if not seen or torch.nn.utils.get_total_norm(seen).isfinite():
            return []
        # none is broken if the norm of finite gradients overflowed
        broken = [not _gradient(W).isfinite().all() for _, _, W in tensors]
        return [_name(*item) for item, bad in zip(tensors, broken, strict=True) if bad]

    def _adamw(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        """Update tensors by torch's AdamW, with float32 states and arithmetic for lower precision.

        Biases and other small tensors share a call, which takes longer than their update. A call
        has temporary tensors of the size of all its tensors.
        """
        if not weights:
            return
        states = [self.state[W] for W in weights]
        for state, W in zip(states, weights, strict=True):
            if not state:
                state.update(new_moments(torch.zeros_like(W, dtype=torch.float32)))
        work = [W.float() for W in weights]  # W itself where it is float32
        gradients = [_gradient(W).float() for W in weights]
        _torch_adamw(work, gradients, states, group, group["lr"], group["weight_decay"])
        for W, updated in zip(weights, work, strict=True):
            if updated is not W:
                W.copy_(updated)

    def _projected(
        self, index: int, group: dict[str, Any], W: Tensor, projection: Tensor | None
    ) -> list[Projected]:
        """Project the gradient of W; `projection` is R_t if the basis stays, else None.

        The list is empty if the gradient has no direction: then only the weights decay.
        """
        G = _short_side_first(_gradient(W)).float()  # (m, n)
        state = self.state[W]
        if not state and _is_rounding(G, group["eps"]):  # its basis would stay for T steps
            W.mul_(1 - group["lr"] * group["weight_decay"])
            return []
        if projection is None:
            P, R = self._project(index, group, W, G)  # (m, r), (r, n)
        else:
            P, R = state["basis"], projection
        return [Projected(W, G, P, R, state)]

    def _galore(self, group: dict[str, Any], tensors: list[Projected]) -> None:
        """Update tensors by algorithm 2; all N_t are computed in one call, which costs less."""
        if not tensors:
            return
        states = [one.state for one in tensors]
        Ns = [torch.zeros_like(state["exp_avg"]) for state in states]  # a step of Adam from 0
        _torch_adamw(Ns, [one.R for one in tensors], states, group, lr=-1.0, weight_decay=0.0)
        eta, alpha, decay = (group[key] for key in ("lr", "scale", "weight_decay"))
        for (W, G, P, R, state), N in zip(tensors, Ns, strict=True):
            work = _short_side_first(W).float()  # a view of W where W is contiguous and float32
            self._move(work, Step(G, P, R, N, state, keep=1 - eta * decay, rate=eta * alpha))
            if work.data_ptr() != W.data_ptr():
                W.copy_((work.T if _stands(W) else work).reshape(W.shape))

    def _move(self, W: Tensor, step: Step) -> None:
        """Set W (m, n) to keep W - rate P N; subclasses override this update."""
        W.addmm_(step.P, step.N, beta=step.keep, alpha=-step.rate)

    def _is_due(self, index: int, group: dict[str, Any], W: Tensor) -> bool:
        """Whether this step renews the tensor's basis."""
        state, T = self.state[W], group["refresh"]
        spread = group.get("stagger")  # states that were saved without this option lack it
        offset = index * T // sum(1 for _ in self._tensors()) if spread else 0
        return "basis" not in state or (int(state["step"]) + offset) % T == 0

    def _project(
        self, index: int, group: dict[str, Any], W: Tensor, G: Tensor
    ) -> tuple[Tensor, Tensor]:
        """P_t and R_t = P_t^T G_t; every T steps, renew P_t and transform the moments to it."""
        state = self.state[W]
        t = int(state["step"]) if state else 0
        P_old = state.get("basis")
        # a gradient of zeros defines no subspace, so the basis then stays
        due = self._is_due(index, group, W)
        if not (due and (P_old is None or float(torch.linalg.vector_norm(G)) > 0)):
            return P_old, P_old.T @ G

        if group["subspace"] == "exact":
            P, R = exact_basis(G, group["rank"])
        else:
            seed = refresh_seed(group["seed"], t, index)
            P, R = randomized_basis(G, group["rank"], P_old, seed)
        if P_old is None:
            state.update(new_moments(torch.zeros_like(R)))
        elif group["moments"] == "rotate":
            M, V = state["exp_avg"], state["exp_avg_sq"]
            correction = 1 - group["betas"][1] ** t
            state["exp_avg"], state["exp_avg_sq"] = rotate_moments(M, V, P_old, P, R, correction)
        state["basis"] = P
        return P, R


def _torch_adamw(
    weights: list[Tensor],
    gradients: list[Tensor],
    states: list[dict[str, Tensor]],
    group: dict[str, Any],
    lr: float,
    weight_decay: float,
) -> None:
    """Update float32 tensors by torch's AdamW, on a CPU by its fused kernel.

    That kernel passes over the memory once, and the other ways about 10 times. It takes no notice
    of strides (torch 2.13), so each tensor with its own is updated in another way, whatever it is
    grouped with.
    """
    ways: dict[bool, list[tuple[Tensor, Tensor, dict[str, Tensor]]]] = {True: [], False: []}
    for W, G, state in zip(weights, gradients, states, strict=True):
        tensors = (W, G, state["exp_avg"], state["exp_avg_sq"])
        fused = all(one.device.type in FUSED and one.is_contiguous() for one in tensors)
        ways[fused].append((W, G, state))
    for fused, items in ways.items():
        if not items:
            continue
        adamw(
            [W for W, _, _ in items],
            [G for _, G, _ in items],
            [state["exp_avg"] for _, _, state in items],
            [state["exp_avg_sq"] for _, _, state in items],
            [],
            [state["step"] for _, _, state in items],
            foreach=not fused and len(items) > 1,
            fused=fused,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=lr,
            weight_decay=weight_decay,
            eps=group["eps"],
            maximize=False,
        )


def new_moments(zeros: Tensor) -> dict[str, Tensor]:
    """Adam's state before the first step, with the names of torch.optim.AdamW.

    It is contiguous, as a state that is loaded from a file: products of matrices with another
    layout have other rounding errors, so that a resumed run would differ in its last bits.
    """
    zeros = zeros.contiguous()
    return {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def _gradient(W: Tensor) -> Tensor:
    assert W.grad is not None  # `_update` keeps only tensors that have one
    return W.grad


def _is_rounding(G: Tensor, eps: float) -> bool:
    """Whether the root mean square of G (m, n) is at most Adam's eps, so that G has no direction.

    This happens in the first step of a network whose classes all start equal, and of a layer whose
    output is multiplied by 0.
    """
    return float(torch.linalg.vector_norm(G)) <= eps * G.numel() ** 0.5


def _stands(W: Tensor) -> bool:
    """Whether the matrix of W is tall or square, as the published package distinguishes them."""
    rows, columns = as_matrix(tuple(W.shape))
    return rows >= columns


def _short_side_first(W: Tensor) -> Tensor:
    """Reshape W or a gradient to (m, n) with m <= n; a view where W is contiguous."""
    matrix = W.reshape(as_matrix(tuple(W.shape)))
    return matrix.T if _stands(W) else matrix


def _name(index: int, group: dict[str, Any], W: Tensor) -> str:
    if "names" not in group:
        return f"tensor {index} {tuple(W.shape)}"
    return next(name for name, V in zip(group["names"], group["params"], strict=True) if V is W)
