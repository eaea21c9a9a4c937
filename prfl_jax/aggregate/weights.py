"""Staleness weights s(tau) and client weights p_i of Eq. 7: the choices of `aggregation.staleness` and `client_weight`.

The host knows them before anything is trained, because staleness is a matter of the clock (NumPy only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax.aggregate.server_optimizers import server_lr_in_force
from prfl_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Slot:
    """What a client's buffer slot holds.

    Attributes:
      version: the window after which its model was sent, n'(i); 0 is the initial model.
      window: the window in which it arrived.
    """

    version: int
    window: int


@dataclasses.dataclass(frozen=True)
class Staleness:
    """One choice of `aggregation.staleness`.

    Attributes:
      weight: (tau `[...]`, a, b) -> s(tau).
      a: its constant a, where `aggregation.staleness_a` is None; a row of the table of strategies may have its own.
    """

    weight: Callable[[np.ndarray, float, float], np.ndarray]
    a: float


def _constant(tau: np.ndarray, a: float, b: float) -> np.ndarray:
    """1."""
    return np.ones_like(tau)


def _polynomial(tau: np.ndarray, a: float, b: float) -> np.ndarray:
    """(tau + 1)^-a."""
    return (tau + 1.0) ** -a


def _hinge(tau: np.ndarray, a: float, b: float) -> np.ndarray:
    """1 if tau <= b, else 1 / (a (tau - b) + 1)."""
    late = np.maximum(tau - b, 0.0)  # inf * 0 would be nan for b = inf; maximum keeps the other branch finite
    return np.where(tau <= b, 1.0, 1.0 / (a * late + 1.0))


# Hinge: a is FedAsync's (Xie et al. 2019). Polynomial: a is what PR-FL's figures need.
STALENESS = Registry(
    "aggregation.staleness",
    {
        "constant": Staleness(_constant, a=0.6),
        "polynomial": Staleness(_polynomial, a=0.6),
        "hinge": Staleness(_hinge, a=10.0),
    },
)


def staleness_weight(tau: np.ndarray, kind: str, a: float | None, b: float) -> np.ndarray:
    """s(tau) of FedAsync (Xie et al., section 5.2); `[...]`, tau >= 0.

    constant: 1. polynomial: (tau+1)^-a. hinge: 1 if tau <= b, else 1 / (a(tau-b) + 1).

    Examples:
      >>> staleness_weight([0, 1, 3], "polynomial", a=1.0, b=0.0).tolist()
      [1.0, 0.5, 0.25]
      >>> staleness_weight([4, 5], "hinge", a=1.0, b=4.0).tolist()
      [1.0, 0.5]

    Args:
      kind: `aggregation.staleness`.
      a: None for the default of this kind.

    Raises:
      ValueError: a negative tau.
      UserError: there is no such kind.
    """
    tau = np.asarray(tau, np.float64)
    if np.any(tau < 0):
        raise ValueError(f"staleness {tau.min()} is negative")
    rule = STALENESS.find(kind)
    return rule.weight(tau, rule.a if a is None else a, b)


def aggregation_in_force(aggregation: Any, staleness_a: float) -> Any:
    """Returns a copy of the config group `aggregation` in which every constant has its number.

    Args:
      staleness_a: the constant a of s(tau) where the group gives none (`strategies.staleness_a`).
    """
    group = aggregation.copy_and_resolve_references()
    with group.unlocked():
        if group.staleness_a is None:
            group.staleness_a = staleness_a
        group.server_lr = server_lr_in_force(group.optimizer, group.server_lr)
    return group


@dataclasses.dataclass(frozen=True)
class ClientWeight:
    """One choice of `aggregation.client_weight`.

    Attributes:
      raw: (`[M]` samples a client trains on in a round, `[M]` samples it has) -> `[M]` p_i, not normalised.
      from_data_size: whether p_i depends on how many samples a client has, which the privacy accountant does not cover.
    """

    raw: Callable[[np.ndarray, np.ndarray], np.ndarray]
    from_data_size: bool = False


# the choices of `aggregation.client_weight`
CLIENT_WEIGHTS = Registry(
    "aggregation.client_weight",
    {
        "samples_per_round": ClientWeight(lambda samples, sizes: samples),
        "dataset": ClientWeight(lambda samples, sizes: sizes, from_data_size=True),
        "uniform": ClientWeight(lambda samples, sizes: np.ones(len(sizes))),
    },
)


def client_weights(kind: str, samples_per_round: np.ndarray, dataset_sizes: np.ndarray) -> np.ndarray:
    """p_i `[M]`, the same choice for all methods, normalised over all clients.

    Examples:
      >>> client_weights("dataset", np.array([20, 20]), np.array([300, 100])).tolist()
      [0.75, 0.25]

    Args:
      kind: `aggregation.client_weight`.
      samples_per_round: `[M]` samples each client trains on in a round.
      dataset_sizes: `[M]` samples each client has.

    Raises:
      UserError: there is no such kind.
    """
    weights = np.asarray(CLIENT_WEIGHTS.find(kind).raw(samples_per_round, dataset_sizes), np.float64)
    return weights / weights.sum()
