"""GaLore with AdamW: Adam runs on R_t = P_t^T G_t, the gradient seen in a small subspace.

Zhao et al. 2024, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection"
(arXiv 2403.03507), algorithm 2. It changes only the optimizer; the network stays as it is.

    R_t = P_t^T G_t                                  P_t: leading singular vectors, every T steps
    M_t = beta_1 M_{t-1} + (1 - beta_1) R_t
    V_t = beta_2 V_{t-1} + (1 - beta_2) R_t^2
    N_t = (M_t / (1 - beta_1^t)) / (sqrt(V_t / (1 - beta_2^t)) + eps)
    W_t = (1 - eta lambda) W_{t-1} - eta alpha P_t N_t

What differs from the published package: the moments follow the subspace when it is refreshed,
tensors of any shape are handled, the states are plain tensors of the size that the formula says,
and what is not projected is updated by torch's own AdamW.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from medsaga_lib.errors import UserError
from medsaga_lib.optim.subspace import exact_basis, randomized_basis, refresh_seed, rotate_moments

STATE_BYTES = 4  # moments and bases are float32 whatever the weights are


@dataclass(frozen=True)
class GaLoreConfig:
    """How tensors are projected.

    rank: width r of the subspace. refresh: the basis is renewed every T steps (T = 200 and
    scale = 0.25 are the published package's values). scale: alpha, multiplies the projected update.
    moments: "rotate" carries Adam's moments into the new basis, "keep" leaves their numbers as they
    are, as the paper does. subspace: "exact" is an SVD, "randomized" a fast subspace iteration.
    stagger: spread the refreshes over the T steps instead of paying for all in one step.
    projected: patterns (as in fnmatch) of the names that may be projected; the rest is dense.
    """

    rank: int
    refresh: int = 200
    scale: float = 0.25
    moments: Literal["rotate", "keep"] = "rotate"
    subspace: Literal["randomized", "exact"] = "randomized"
    stagger: bool = False
    seed: int = 0
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
    """What happens to one trainable tensor; state_bytes leaves out its 4-byte step counter."""

    name: str
    shape: tuple[int, ...]
    matrix: tuple[int, int] | None
    how: Literal["projected", "dense"]
    why: str
    state_bytes: int


class NonFiniteGradientError(UserError):
    """A gradient holds NaN or infinity; no weight and no state was changed."""


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """The matrix that a tensor of two or more dimensions is seen as.

    First dimension x rest, as for a convolution's (out, in, h, w); a leading 1, as in the position
    table (1, 64, 64, 768), is no side of a matrix, so there the last dimension stands alone.
    """
    if shape[0] == 1:
        return math.prod(shape[:-1]), shape[-1]
    return shape[0], math.prod(shape[1:])


def projected_bytes(matrix: tuple[int, int], rank: int) -> tuple[int, int]:
    """Bytes of (both moments, basis) of an m x n matrix: 2 max(m, n) r and min(m, n) r floats."""
    return 2 * max(matrix) * rank * STATE_BYTES, min(matrix) * rank * STATE_BYTES


def is_projected(shape: tuple[int, ...], rank: int | None) -> bool:
    """Whether projecting saves memory; never so at rank >= min(m, n), where GaLore is AdamW."""
    if rank is None or len(shape) < 2:
        return False
    return sum(projected_bytes(as_matrix(shape), rank)) < 2 * math.prod(shape) * STATE_BYTES


def treatment(module: nn.Module, config: GaLoreConfig) -> list[Treatment]:
    """How each trainable tensor of `module` is treated and why; frozen tensors are left out.

    Raises UserError when nothing trains or a pattern of `config.projected` fits no trainable name.
    """
    names = [name for name, W in module.named_parameters() if W.requires_grad]
    if not names:
        raise UserError("Nothing to train: every tensor of the module is frozen.")
    for pattern in config.projected:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"No trainable tensor is called {pattern!r}; see named_parameters().")
    return [
        _treat(name, tuple(W.shape), config)
        for name, W in module.named_parameters()
        if W.requires_grad
    ]


def _treat(name: str, shape: tuple[int, ...], config: GaLoreConfig) -> Treatment:
    dense_bytes = 2 * math.prod(shape) * STATE_BYTES
    if len(shape) < 2:
        return Treatment(name, shape, None, "dense", "has no two sides", dense_bytes)
    matrix = as_matrix(shape)
    if not any(fnmatchcase(name, pattern) for pattern in config.projected):
        return Treatment(name, shape, matrix, "dense", "not among the chosen names", dense_bytes)
    if not is_projected(shape, config.rank):
        why = f"rank {config.rank} saves nothing here"
        return Treatment(name, shape, matrix, "dense", why, dense_bytes)
    size = sum(projected_bytes(matrix, config.rank))
    why = f"states {dense_bytes / size:.1f} times smaller"
    return Treatment(name, shape, matrix, "projected", why, size)


def param_groups(
    module: nn.Module, config: GaLoreConfig, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for GaLoreAdamW: the projected tensors of `module`, then the dense ones.

    Each trainable tensor is in exactly one group; a group without tensors is left out.
    Raises UserError as `treatment` does.
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
    """What is known of one tensor's step when it is about to move; letters as in algorithm 2."""

    G: Tensor  # (m, n)
    P: Tensor  # (m, r)
    R: Tensor  # (r, n)
    N: Tensor  # (r, n)
    state: dict[str, Tensor]
    keep: float  # factor of the weights, 1 - eta lambda
    rate: float  # eta alpha


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW whose moments live in a rank-r subspace for the groups that carry a `rank`.

    params: groups from `param_groups`, or any that torch.optim.AdamW takes; a group without `rank`
    is trained by torch's AdamW, bit for bit, as is every tensor that projection would not make
    smaller. Weights may be float32, bfloat16 or float16; states are float32.
    nonfinite: what a NaN or infinite gradient does to a step: "raise" NonFiniteGradientError before
    anything changes, or "skip" the step and count it in `skipped`.
    """

    keeps_basis = True  # or draws it again in every step

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
        self.nonfinite = nonfinite
        self.skipped = 0
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "rank": None}
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; raises UserError where a value makes no sense."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        beta_1, beta_2 = group["betas"]
        if group["lr"] < 0 or group["weight_decay"] < 0 or group["eps"] < 0:
            raise UserError("lr, weight_decay and eps must not be negative.")
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise UserError(f"betas are {group['betas']}; both must be at least 0 and below 1.")
        if group["rank"] is not None:
            known = GaLoreConfig.__dataclass_fields__
            options = asdict(GaLoreConfig(**{k: v for k, v in group.items() if k in known}))
            group.update({key: value for key, value in options.items() if key != "projected"})
            group["keeps_basis"] = self.keeps_basis

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every tensor that has a gradient; returns the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(list(self._tensors()))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, except that states stay float32 beside weights of lower precision.

        Raises UserError where the state was saved with another rank.
        """
        saved_groups = state_dict["param_groups"]
        for group, saved in zip(self.param_groups, saved_groups, strict=False):
            if saved.get("rank") != group["rank"]:
                raise UserError(
                    f"The saved optimizer has rank {saved.get('rank')}, this one {group['rank']}; "
                    "resume with the rank that the run was started with."
                )
        super().load_state_dict(state_dict)
        numbers = [number for saved in saved_groups for number in saved["params"]]
        for number, (_, _, W) in zip(numbers, self._tensors(), strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                device = value.device if key == "step" else W.device
                self.state[W][key] = value.detach().to(device=device, copy=True)

    def _tensors(self) -> Iterator[_Indexed]:
        """(index, group, W) of every tensor; the index is the tensor's number in the state dict."""
        index = 0
        for group in self.param_groups:
            for W in group["params"]:
                yield index, group, W
                index += 1

    def _update(self, tensors: list[_Indexed]) -> None:
        """Updates those of `tensors` that have a gradient; a refusal comes before any change."""
        tensors = [item for item in tensors if item[2].grad is not None]
        if any(_gradient(W).is_sparse for _, _, W in tensors):
            raise UserError("GaLoreAdamW takes no sparse gradients; use torch.optim.SparseAdam.")
        projections = {item[2]: R for item in tensors if (R := self._kept(*item)) is not None}
        broken = self._nonfinite(tensors, projections)
        if broken and self.nonfinite == "raise":
            raise NonFiniteGradientError(
                f"The gradient of {broken[0]} holds NaN or infinity ({len(broken)} of "
                f"{len(tensors)} tensors do); lower the learning rate, or pass nonfinite='skip'."
            )
        if broken:
            self.skipped += 1
            return
        for index, group, W in tensors:
            if is_projected(tuple(W.shape), group["rank"]):
                self._galore(index, group, W, projections.get(W))
            else:
                self._adamw(group, W)

    def _kept(self, index: int, group: dict[str, Any], W: Tensor) -> Tensor | None:
        """R_t = P^T G_t of a tensor that goes on in its basis P; None for all others.

        Taken before anything changes, because it tells for little whether G_t is finite.
        """
        if not (is_projected(tuple(W.shape), group["rank"]) and self.keeps_basis):
            return None
        if self._is_due(index, group, W) or _gradient(W).dtype != torch.float32:
            return None
        return self.state[W]["basis"].T @ _short_side_first(_gradient(W))

    def _nonfinite(self, tensors: list[_Indexed], projections: dict[Tensor, Tensor]) -> list[str]:
        """Names of the tensors whose gradient is not finite.

        At the price of one sum each, of P^T G where there is one: NaN and infinity go through.
        """
        seen = [projections.get(W, _gradient(W)) for _, _, W in tensors]
        sums = [part.sum(dtype=torch.float32).to(seen[0].device) for part in seen]
        if not sums or torch.stack(sums).isfinite().all():
            return []
        broken = [not _gradient(W).isfinite().all() for _, _, W in tensors]  # or a sum overflowed
        return [_name(*item) for item, bad in zip(tensors, broken, strict=True) if bad]

    def _adamw(self, group: dict[str, Any], W: Tensor) -> None:
        """torch's AdamW, with float32 states and arithmetic for a weight of lower precision."""
        state = self.state[W]
        if not state:
            state.update(new_moments(torch.zeros_like(W, dtype=torch.float32)))
        work = W.float()  # W itself where it is float32
        adamw(
            [work],
            [_gradient(W).float()],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            foreach=False,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if work is not W:
            W.copy_(work)

    def _galore(
        self, index: int, group: dict[str, Any], W: Tensor, projection: Tensor | None
    ) -> None:
        """Algorithm 2 for one tensor; `projection` is R_t where its basis stays."""
        eta, alpha, eps, decay = (group[key] for key in ("lr", "scale", "eps", "weight_decay"))
        beta_1, beta_2 = group["betas"]
        G = _short_side_first(_gradient(W)).float()  # (m, n)
        state = self.state[W]
        if not state and _is_rounding(G, eps):  # a basis of it would stay for T steps
            W.mul_(1 - eta * decay)
            return
        if projection is None:
            P, R = self._project(index, group, W, G)  # (m, r), (r, n)
        else:
            P, R = state["basis"], projection
        M, V = state["exp_avg"], state["exp_avg_sq"]  # (r, n)

        state["step"] += 1
        t = int(state["step"])
        M.lerp_(R, 1 - beta_1)
        V.mul_(beta_2).addcmul_(R, R, value=1 - beta_2)
        N = (M / (1 - beta_1**t)).div_((V / (1 - beta_2**t)).sqrt_().add_(eps))

        work = _short_side_first(W).float()  # a view of W where W is contiguous and float32
        self._move(work, Step(G, P, R, N, state, keep=1 - eta * decay, rate=eta * alpha))
        if work.data_ptr() != W.data_ptr():
            W.copy_((work.T if _stands(W) else work).reshape(W.shape))

    def _move(self, W: Tensor, step: Step) -> None:
        """W (m, n) becomes keep W - rate P N; this is what a successor of GaLore does otherwise."""
        W.addmm_(step.P, step.N, beta=step.keep, alpha=-step.rate)

    def _is_due(self, index: int, group: dict[str, Any], W: Tensor) -> bool:
        """Whether this step, by its number, renews the tensor's basis."""
        state, T = self.state[W], group["refresh"]
        offset = index * T // sum(1 for _ in self._tensors()) if group["stagger"] else 0
        return "basis" not in state or (int(state["step"]) + offset) % T == 0

    def _project(
        self, index: int, group: dict[str, Any], W: Tensor, G: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(P_t, R_t = P_t^T G_t); every T steps P_t is new and the moments are carried into it."""
        state = self.state[W]
        t = int(state["step"]) if state else 0
        P_old = state.get("basis")
        # a gradient of zeros says nothing about the subspace, so the basis then stays
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


def new_moments(zeros: Tensor) -> dict[str, Tensor]:
    """Adam's state before the first step, named as in torch.optim.AdamW."""
    return {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def _gradient(W: Tensor) -> Tensor:
    assert W.grad is not None  # `_update` keeps only tensors that have one
    return W.grad


def _is_rounding(G: Tensor, eps: float) -> bool:
    """Whether Adam's eps is all that Adam would see: then G (m, n) has no direction to follow.

    So it is in the first step of a network whose classes all start equal, or of a layer behind a
    zero.
    """
    return float(torch.linalg.vector_norm(G)) <= eps * G.numel() ** 0.5


def _stands(W: Tensor) -> bool:
    """Whether the matrix of W is tall or square; the published package draws the line there too."""
    rows, columns = as_matrix(tuple(W.shape))
    return rows >= columns


def _short_side_first(W: Tensor) -> Tensor:
    """W or a gradient as an m x n matrix with m <= n: a view where W is contiguous."""
    matrix = W.reshape(as_matrix(tuple(W.shape)))
    return matrix.T if _stands(W) else matrix


def _name(index: int, group: dict[str, Any], W: Tensor) -> str:
    if "names" not in group:
        return f"tensor {index} {tuple(W.shape)}"
    return next(name for name, V in zip(group["names"], group["params"], strict=True) if V is W)
