"""The aggregation seam: each choice of `aggregation.name`, a weight rule on the host and a kernel on the device.

Staleness and round times are the clock's, so the host knows every weight before anything is trained (NumPy only; a
kernel imports JAX when it is traced).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.aggregate.context import AggregationWeights, CloseContext
from prfl_jax.aggregate.kernels import AggregationKernel, AllModels, MaskedMean, PlainMean, RunningSum, robust_rule
from prfl_jax.aggregate.server_optimizers import SERVER_OPTIMIZERS, server_lr_in_force
from prfl_jax.aggregate.weight_rules import (
    arrivals_by_p,
    arrivals_counted,
    arrivals_equally,
    buffered,
    each_once,
    fedbuff,
    fedfix,
    mixing,
    unbuffered,
)
from prfl_jax.system.errors import UserError

__all__ = [
    "AGGREGATIONS",
    "KERNELS",
    "Aggregation",
    "AggregationWeights",
    "CloseContext",
    "buffered",
    "each_once",
    "fedbuff",
    "find_aggregation",
    "weights_of",
]


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """One choice, built-in or a plugin.

    Attributes:
      kernel: an `AggregationKernel`, the name of one in `KERNELS`, or a function of `stacked.StackedUpdates` that
        returns the next server model (with `least`: `robust.Robust`). `device` is the kernel object.
      close: the host rule: (the config's group `aggregation`, `CloseContext`) -> `AggregationWeights`.
      staleness: whether these depend on `aggregation.staleness`.
      updates: the kernel `sum` adds w_i - w_sent instead of w_i.
      arrivals_alone: a window's arrivals are all that counts, however few of the clients they are; what the others
        last sent, or their share of all weights, does not matter. So clients may be drawn into cohorts.
      least: `least(f)` is how many clients it needs if f = `aggregation.byzantine` may be malicious. With it the kernel
        looks at all slots at once, gets rejected updates as NaN, and returns `robust.Robust`.
      mean: the next model is a weighted mean of clients' models, mixed into W: a robust kind of mean can replace it.
      restores: a value that a client does not hold counts as the server's was when the client was dispatched (FedMP's
        residual model), not as 0. The engine then keeps that whole model of each dispatch.

    Raises:
      UserError: `least` with a kernel that averages whatever arrives.
    """

    kernel: str | AggregationKernel | Callable[[Any], Any]
    close: Callable[[Any, CloseContext], AggregationWeights]
    staleness: bool
    updates: bool = False
    arrivals_alone: bool = False
    least: Callable[[int], int] | None = None
    mean: bool = False
    restores: bool = False

    def __post_init__(self) -> None:
        if self.least is not None and not self.device.at_once:
            raise UserError(
                f"an Aggregation with least cannot have the kernel {self.kernel!r}, which averages whatever arrives"
            )

    @functools.cached_property
    def device(self) -> AggregationKernel:
        """The device functions `init`, `add` and `close`.

        Raises:
          UserError: `kernel` is the name of none, and no function.
        """
        if isinstance(self.kernel, AggregationKernel):
            return self.kernel
        if isinstance(self.kernel, str) and self.kernel in KERNELS:
            return KERNELS[self.kernel](self)
        if callable(self.kernel):
            return AllModels(self.kernel, counts_kept=self.robust)
        allowed = f"{', '.join(sorted(KERNELS))}, or a function of a prfl_jax.aggregate.stacked.StackedUpdates"
        raise UserError(f"kernel={self.kernel!r}; allowed: {allowed}")

    @property
    def buffered(self) -> bool:
        """Whether the server keeps every client's latest update."""
        return self.device.buffered

    @property
    def at_once(self) -> bool:
        """Whether the kernel is given all models at once."""
        return self.device.at_once

    @property
    def robust(self) -> bool:
        """Whether a minority of malicious clients cannot spoil the result; rejected updates are left out of it."""
        return self.least is not None

    def one_model(self, group: Any) -> bool:
        """Whether W is the only server model, under a config's group `aggregation`.

        Else there is a second one, FedAvg(B): it is W itself where the kernel is that mean and W becomes it, and is not
        made without a buffer, or from updates of malicious clients.
        """
        server_lr = server_lr_in_force(group.optimizer, group.server_lr)
        becomes_it = server_lr == 1.0 and SERVER_OPTIMIZERS.find(group.optimizer).rule is None
        return not self.buffered or self.robust or (self.device.plain_mean and becomes_it)


def _all_models(rule: str) -> Callable[[Aggregation], AggregationKernel]:
    return lambda choice: AllModels(robust_rule(rule), counts_kept=choice.robust)


# Kernels by the name that an `Aggregation` may give.
KERNELS: dict[str, Callable[[Aggregation], AggregationKernel]] = {
    "sum": lambda choice: RunningSum(choice.updates),
    "maskfedavg": lambda choice: MaskedMean(),
    "fedavg": lambda choice: PlainMean(),
    **{name: _all_models(name) for name in ("median", "trimmed_mean", "krum", "multi_krum")},
}


def _robust(kernel: str, least: Callable[[int], int]) -> Aggregation:
    return Aggregation(kernel, each_once, staleness=False, arrivals_alone=True, least=least)


def _accept(name: str, found: Any) -> Aggregation:
    """A plugin, if it is an `Aggregation` with a kernel and a rule."""
    key = "config.aggregation.name"
    if not isinstance(found, Aggregation):
        raise registry.wrong(key, name, found, "a prfl_jax.aggregate.Aggregation")
    try:
        _ = found.device
    except UserError as error:
        raise UserError(f"{key}: {name!r} has {error}") from None
    if not callable(found.close):
        raise UserError(f"{key}: {name!r} has close={found.close!r}; allowed: a function of (config, CloseContext)")
    return found


# the choices of `aggregation.name`
AGGREGATIONS: registry.Registry[Aggregation] = registry.Registry(
    "aggregation.name",
    {
        "buffered_maskfedavg": Aggregation("maskfedavg", buffered, staleness=True, mean=True),
        "unbuffered_maskfedavg": Aggregation("maskfedavg", unbuffered, staleness=True, mean=True),
        "buffered_fedavg": Aggregation("fedavg", buffered, staleness=True, mean=True),
        "fedavg": Aggregation("sum", arrivals_by_p, staleness=False, mean=True, arrivals_alone=True),
        "counted": Aggregation("maskfedavg", arrivals_counted, staleness=False, mean=True, arrivals_alone=True),
        "r2sp": Aggregation("sum", arrivals_equally, staleness=False, arrivals_alone=True, restores=True),
        # edge pruning, Algorithm 3: what a client does not hold counts as the server's
        "merge": Aggregation("sum", arrivals_by_p, staleness=False, arrivals_alone=True, restores=True),
        "bsp": Aggregation("sum", arrivals_equally, staleness=False, mean=True, arrivals_alone=True),
        "mixing": Aggregation("sum", mixing, staleness=True, arrivals_alone=True),
        "fedfix": Aggregation("sum", fedfix, staleness=False, updates=True),
        "fedbuff": Aggregation("sum", fedbuff, staleness=True, updates=True, arrivals_alone=True),
        "median": _robust("median", lambda f: 2 * f + 1),
        "trimmed_mean": _robust("trimmed_mean", lambda f: 2 * f + 1),
        "krum": _robust("krum", lambda f: 2 * f + 3),
        "multi_krum": _robust("multi_krum", lambda f: 2 * f + 3),
    },
    _accept,
)


def find_aggregation(name: str) -> Aggregation:
    """The choice that `aggregation.name` names: a built-in, or a plugin.

    Raises:
      UserError: there is none of that name; or the plugin cannot be loaded, is no `Aggregation`, or has a kernel or a
        rule that does not exist.
    """
    return AGGREGATIONS.find(name)


def weights_of(choice: Aggregation, cfg: Any, window: CloseContext) -> AggregationWeights:
    """The weights that a choice's rule gives a window, checked: the rule of a plugin may be wrong.

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
    wanted = 0 if choice.buffered else len(window.arrivals)
    if len(closing.arrivals) != wanted or not all(map(math.isfinite, (*closing.arrivals, closing.keep))):
        what = f"{wanted} finite weights of arrivals with kernel={choice.kernel!r}, and a finite keep"
        raise UserError(f"{head} arrivals={registry.one_line(closing.arrivals)}, keep={closing.keep}; allowed: {what}")
    return closing
