"""The aggregation seam: how a window's arrivals and the buffer become the next server model (NumPy only).

A choice is a device kernel and a rule for the weights it gets. Staleness and round times
are the clock's, so the host knows every weight before anything is trained.

Kernels: `maskfedavg` and `fedavg` average the slots of the buffer; `sum` adds each
arrival, as it comes, to a running sum: W <- keep W + sum_k c_k x_k, where x_k is the
client's model or (`updates`) what it changed, w_i - w_sent. The others (`robust.py`, or a
function of one's own) look at all slots at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.aggregate.weights import Slot, staleness_weight
from prfl_jax.clock.types import Arrival
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class CloseContext:
    """What a rule may look at when a window closes.

    Attributes:
      index: n, from 1.
      arrivals: of this window, in order.
      slots: `[M]` what each client's slot holds by now; None is an empty one.
      p: `[M]` client weights, sum 1.
      round_s: `[M]` mean of each client's own round times so far, s; NaN before its first arrival.
      dt_s: the config's length of a fixed window, s.
      waits: whether this window has waited for (nearly) everybody.
      k: how many arrivals close a window; None where something else does.
      cycle_s: `[M]` mean s from a client's dispatch until it can be dispatched again: its round, and its wait for the
        window's end where clients wait for that; NaN before its first arrival. None where windows have a fixed length.
      step_s: mean s between two closes as the clients' cycles give it (see `cycles.py`); None likewise.
    """

    index: int
    arrivals: Sequence[Arrival]
    slots: Sequence[Slot | None]
    p: np.ndarray
    round_s: np.ndarray
    dt_s: float
    waits: bool = False
    k: int | None = None
    cycle_s: np.ndarray | None = None
    step_s: float | None = None

    @property
    def filled(self) -> np.ndarray:
        """`[M]` bool: slots that hold a model."""
        return np.array([slot is not None for slot in self.slots])

    @property
    def fresh(self) -> np.ndarray:
        """`[M]` bool: slots filled in this window."""
        return np.array([slot is not None and slot.window == self.index for slot in self.slots])

    @property
    def staleness(self) -> np.ndarray:
        """`[M]` tau_i = n - 1 - n'(i), taken anew at every aggregation, so a slot ages; 0 for an empty one."""
        return np.array([0 if slot is None else self.index - 1 - slot.version for slot in self.slots])

    @property
    def arrival_staleness(self) -> np.ndarray:
        """tau of each arrival, in order."""
        return np.array([self.index - 1 - arrival.version for arrival in self.arrivals])


@dataclasses.dataclass(frozen=True)
class AggregationWeights:
    """The weights of one aggregation.

    Attributes:
      slots: `[M]` for the buffer's kernels, sum 1, or all 0 where nothing counts and W stays.
      server_lr: for the buffer's kernels: W <- (1 - server_lr) W + server_lr mean (Eq. 11).
      arrivals: c_k of each arrival, in order, for the kernel `sum`.
      keep: how much of W stays, for the kernel `sum`.
    """

    slots: np.ndarray
    server_lr: float = 1.0
    arrivals: tuple[float, ...] = ()
    keep: float = 1.0


def _normalised(raw: np.ndarray) -> np.ndarray:
    total = raw.sum()
    return raw / total if total > 0 else raw


def _stale(cfg: Any, tau: np.ndarray) -> np.ndarray:
    return staleness_weight(tau, cfg.staleness, cfg.staleness_a, cfg.staleness_b)


def _slots(cfg: Any, window: CloseContext) -> np.ndarray:
    """p_i s(tau_i) of every filled slot, not normalised (Eq. 7)."""
    return np.where(window.filled, window.p * _stale(cfg, window.staleness), 0.0)


def buffered(cfg: Any, window: CloseContext) -> AggregationWeights:
    """Every filled slot counts (Eq. 7)."""
    return AggregationWeights(_normalised(_slots(cfg, window)), cfg.server_lr)


def unbuffered(cfg: Any, window: CloseContext) -> AggregationWeights:
    """Only this window's arrivals, mixed in by their share of all slots' weight (the ablation nobuff)."""
    raw = _slots(cfg, window)
    fresh = np.where(window.fresh, raw, 0.0)
    share = fresh.sum() / raw.sum() if raw.sum() > 0 else 0.0
    return AggregationWeights(_normalised(fresh), cfg.server_lr * share)


def arrivals_by_p(cfg: Any, window: CloseContext) -> AggregationWeights:
    """This window's arrivals, by p alone (FedAvg, McMahan et al. 2017)."""
    weights = cfg.server_lr * _normalised(np.array([window.p[arrival.client] for arrival in window.arrivals]))
    keep = 1.0 - cfg.server_lr if window.arrivals else 1.0
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(weights.tolist()), keep=keep)


def arrivals_counted(cfg: Any, window: CloseContext) -> AggregationWeights:
    """This window's arrivals, each counting once (HeteroFL, Diao et al. 2021, eq. 3)."""
    return AggregationWeights(_normalised(window.fresh.astype(np.float64)), cfg.server_lr)


def mixing(cfg: Any, window: CloseContext) -> AggregationWeights:
    """W <- (1 - a_k) W + a_k w_k for one arrival after another, a_k = alpha s(tau_k) (FedAsync, Xie et al. 2019).

    Written as one sum: c_k = a_k prod_{j > k} (1 - a_j), keep = prod_k (1 - a_k).
    """
    coefficients: list[float] = []
    keep = 1.0
    for a in reversed((cfg.alpha * _stale(cfg, window.arrival_staleness)).tolist()):
        coefficients.append(a * keep)
        keep *= 1.0 - a
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(reversed(coefficients)), keep=keep)


def fedfix(cfg: Any, window: CloseContext) -> AggregationWeights:
    """W <- W + eta_g sum_k d_k (w_k - w_sent), d_i = p_i times the steps of the server that i takes for one update.

    So each client moves W by its p_i in the long run, however slow it is (FedFix, Fraboni et al. 2023). In windows of
    fixed length d_i = ceil(tau_i / dt) p_i; tau_i, in s, is the running mean of the client's own round times. That is
    their definition, of clients that wait for the window's end: with `window.dispatch=on_arrival` fast clients count
    for more than p_i. In a
    window that waits for everybody d_i = p_i. Where arrivals close windows d_i = (sum_j 1/tau_j) tau_i p_i / K, which
    for K = 1 is their asynchronous FedAvg: j are the clients that take part and have arrived before, tau_j goes on
    until j can be dispatched again (see `CloseContext.cycle_s`), K is the mean number of arrivals in a window.
    """
    clients = [arrival.client for arrival in window.arrivals]
    weights = [cfg.server_lr * _turns(window, client) * window.p[client] for client in clients]
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(weights))


def _turns(window: CloseContext, client: int) -> float:
    """Steps of the server that one update of a client takes."""
    if window.waits:
        return 1.0
    if window.cycle_s is not None and window.step_s is not None:
        return float(window.cycle_s[client] / window.step_s)
    # a round that takes dt to the last bit takes one window
    return float(max(1, math.ceil(window.round_s[client] / window.dt_s - 1e-9)))


def fedbuff(cfg: Any, window: CloseContext) -> AggregationWeights:
    """W <- W + eta_g / K sum_k s(tau_k) (w_k - w_sent): divided by K, not by the weights (Nguyen et al. 2022).

    K is the number of arrivals that close a window, also where one closes with fewer, because nobody else could
    arrive, or with more. Where something else closes windows it is the number of this window's arrivals.
    """
    k = window.k or max(1, len(window.arrivals))
    weights = cfg.server_lr * _stale(cfg, window.arrival_staleness) / k
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(weights.tolist()))


def each_once(cfg: Any, window: CloseContext) -> AggregationWeights:
    """Every filled slot counts once: for kernels that outvote liars, who may claim any weight.

    Where windows wait for everybody only arrivals do: who failed has no vote by what it sent before.
    """
    there = window.fresh if window.waits else window.filled
    return AggregationWeights(_normalised(there.astype(np.float64)), cfg.server_lr)


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """One choice.

    Attributes:
      kernel: maskfedavg | fedavg | sum | the name of one in `robust.py` | a function of `held.Held` that returns the
        next server model, or `robust.Robust`.
      close: the weights of a window that closes, from `config.aggregation`.
      staleness: whether they depend on `aggregation.staleness`.
      updates: the kernel `sum` adds w_i - w_sent instead of w_i.
      arrivals_alone: a window's arrivals are all that counts, however few of the clients they are; what the others
        last sent, or their share of all weights, does not matter. So clients may be drawn into cohorts.
      least: clients that it needs, of whom f = `aggregation.byzantine` may lie: `least(f)`. With it the kernel looks at
        all slots at once, is given what is rejected as not a number, and returns `robust.Robust`.
      mean: the next model is a weighted mean of clients' models, mixed into W: another kind of average can take its
        place.

    Raises:
      UserError: `least` with a kernel that averages whatever comes.
    """

    kernel: str | Callable[[Any], Any]
    close: Callable[[Any, CloseContext], AggregationWeights]
    staleness: bool
    updates: bool = False
    arrivals_alone: bool = False
    least: Callable[[int], int] | None = None
    mean: bool = False

    def __post_init__(self) -> None:
        if self.least is not None and not self.at_once:
            raise UserError(f"an Aggregation with least cannot have the kernel {self.kernel!r}, which averages lies")

    @property
    def at_once(self) -> bool:
        """Whether the kernel is given all models at once."""
        return self.kernel not in ("maskfedavg", "fedavg", "sum")

    @property
    def robust(self) -> bool:
        """Whether it outvotes liars, and leaves out what is not a number."""
        return self.least is not None

    def one_model(self, server_lr: float) -> bool:
        """Whether FedAvg(B), the paper's second server model, is W itself, or is not made: of no buffer, or of lies."""
        return self.kernel == "sum" or self.robust or (self.kernel == "fedavg" and server_lr == 1.0)


def _robust(kernel: str, least: Callable[[int], int]) -> Aggregation:
    return Aggregation(kernel, each_once, staleness=False, arrivals_alone=True, least=least)


# values of `aggregation.name`
AGGREGATIONS = {
    "buffered_maskfedavg": Aggregation("maskfedavg", buffered, staleness=True, mean=True),
    "unbuffered_maskfedavg": Aggregation("maskfedavg", unbuffered, staleness=True, mean=True),
    "buffered_fedavg": Aggregation("fedavg", buffered, staleness=True, mean=True),
    "fedavg": Aggregation("sum", arrivals_by_p, staleness=False, mean=True, arrivals_alone=True),
    "counted": Aggregation("maskfedavg", arrivals_counted, staleness=False, mean=True, arrivals_alone=True),
    "mixing": Aggregation("sum", mixing, staleness=True, arrivals_alone=True),
    "fedfix": Aggregation("sum", fedfix, staleness=False, updates=True),
    "fedbuff": Aggregation("sum", fedbuff, staleness=True, updates=True, arrivals_alone=True),
    "median": _robust("median", lambda f: 2 * f + 1),
    "trimmed_mean": _robust("trimmed_mean", lambda f: 2 * f + 1),
    "krum": _robust("krum", lambda f: 2 * f + 3),
    "multi_krum": _robust("multi_krum", lambda f: 2 * f + 3),
}


def find_aggregation(name: str) -> Aggregation:
    """The choice that `aggregation.name` names: one of the table, or one of a user's own.

    Raises:
      UserError: an object that is no `Aggregation`, one with a kernel or rule that does not exist, or none to load.
    """
    if name in AGGREGATIONS:
        return AGGREGATIONS[name]
    key = "config.aggregation.name"
    found = registry.find_object(name, key)
    if not isinstance(found, Aggregation):
        raise registry.wrong(key, name, found, "a prfl_jax.aggregate.Aggregation")
    kernels = sorted({choice.kernel for choice in AGGREGATIONS.values() if isinstance(choice.kernel, str)})
    if not callable(found.kernel) and found.kernel not in kernels:
        allowed = f"{', '.join(kernels)}, or a function of a held.Held"
        raise UserError(f"{key}: {name!r} has kernel={found.kernel!r}; allowed: {allowed}")
    if not callable(found.close):
        raise UserError(f"{key}: {name!r} has close={found.close!r}; allowed: a function of (config, CloseContext)")
    return found


def weights_of(choice: Aggregation, cfg: Any, window: CloseContext) -> AggregationWeights:
    """What a choice's rule makes of a window, checked: a rule of one's own may be wrong.

    Args:
      cfg: the group `aggregation` of a config.

    Raises:
      UserError: no `AggregationWeights`, weights of another number than there are clients or arrivals, or not finite.
    """
    closing = choice.close(cfg, window)
    head = f"config.aggregation.name={cfg.name!r}: in window {window.index} close gives"
    if not isinstance(closing, AggregationWeights):
        raise UserError(f"{head} a {type(closing).__name__}; allowed: a prfl_jax.aggregate.AggregationWeights")
    slots, clients = np.asarray(closing.slots), len(window.p)
    if slots.shape != (clients,) or not np.isfinite(slots).all() or slots.min() < 0:
        raise UserError(f"{head} slots={registry.one_line(closing.slots)}; allowed: {clients} finite weights >= 0")
    wanted = len(window.arrivals) if choice.kernel == "sum" else 0
    if len(closing.arrivals) != wanted or not all(map(math.isfinite, (*closing.arrivals, closing.keep))):
        what = f"{wanted} finite weights of arrivals with kernel={choice.kernel!r}, and a finite keep"
        raise UserError(f"{head} arrivals={registry.one_line(closing.arrivals)}, keep={closing.keep}; allowed: {what}")
    return closing
