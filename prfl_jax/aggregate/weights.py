"""Aggregation weights (Eq. 7), known to the host because staleness is a matter of the clock (NumPy only)."""

from __future__ import annotations

import dataclasses

import numpy as np

# a of s(tau), by kind, where `aggregation.staleness_a` is None. Hinge: FedAsync's (Xie et al. 2019). Polynomial: what
# PR-FL's figures need; a row of `strategies.py` may have its authors' own.
STALENESS_A = {"constant": 0.6, "polynomial": 0.6, "hinge": 10.0}


@dataclasses.dataclass(frozen=True)
class Slot:
    """What a client's buffer slot holds.

    Attributes:
      version: the window after which its model was sent, n'(i); 0 is the initial model.
      window: in which it arrived.
    """

    version: int
    window: int


def staleness_weight(tau: np.ndarray, kind: str, a: float | None, b: float) -> np.ndarray:
    """s(tau) of FedAsync (Xie et al., section 5.2); `[...]`, tau >= 0.

    constant: 1. polynomial: (tau+1)^-a. hinge: 1 if tau <= b, else 1 / (a(tau-b) + 1).

    Examples:
      >>> staleness_weight([0, 1, 3], "polynomial", a=1.0, b=0.0).tolist()
      [1.0, 0.5, 0.25]
      >>> staleness_weight([4, 5], "hinge", a=1.0, b=4.0).tolist()
      [1.0, 0.5]

    Args:
      a: None for the default of this kind.

    Raises:
      ValueError: a negative tau, another kind.
    """
    tau = np.asarray(tau, np.float64)
    if np.any(tau < 0):
        raise ValueError(f"staleness {tau.min()} is negative")
    if kind not in STALENESS_A:
        raise ValueError(f"unknown staleness {kind!r}")
    a = STALENESS_A[kind] if a is None else a
    if kind == "constant":
        return np.ones_like(tau)
    if kind == "polynomial":
        return (tau + 1.0) ** -a
    # inf * 0 would be nan for b = inf; maximum keeps the other branch finite
    late = np.maximum(tau - b, 0.0)
    return np.where(tau <= b, 1.0, 1.0 / (a * late + 1.0))


def client_weights(kind: str, samples_per_round: np.ndarray, dataset_sizes: np.ndarray) -> np.ndarray:
    """p_i `[M]`, the same choice for all methods, normalised over all clients.

    Examples:
      >>> client_weights("dataset", np.array([20, 20]), np.array([300, 100])).tolist()
      [0.75, 0.25]

    Args:
      kind: samples_per_round | dataset | uniform (`aggregation.client_weight`).
      samples_per_round: `[M]` images each client trains on in a round.
      dataset_sizes: `[M]` images each client has.
    """
    raw = {
        "samples_per_round": samples_per_round,
        "dataset": dataset_sizes,
        "uniform": np.ones(len(dataset_sizes)),
    }[kind]
    weights = np.asarray(raw, np.float64)
    return weights / weights.sum()
