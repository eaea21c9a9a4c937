"""Weight rules: which arrivals and buffer slots count at a window's close, and how much (NumPy only).

A rule is a function of (the config's group `aggregation`, `CloseContext`) that returns `AggregationWeights`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prfl_jax.aggregate.context import AggregationWeights, CloseContext
from prfl_jax.aggregate.weights import staleness_weight


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


def arrivals_equally(cfg: Any, window: CloseContext) -> AggregationWeights:
    """This window's arrivals, each as 1 / their number whatever its p (FedMP, Eqs. 1, 2; m first of Algorithm 2)."""
    number = len(window.arrivals)
    keep = 1.0 - cfg.server_lr if number else 1.0
    return AggregationWeights(np.zeros(len(window.p)), arrivals=(cfg.server_lr / max(number, 1),) * number, keep=keep)


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
    """W <- W + eta_g sum_k d_k (w_k - w_sent), d_i = p_i times the server's steps in one round of client i.

    So each client moves W by its p_i in the long run, however slow it is (FedFix, Fraboni et al. 2023). In windows of
    fixed length d_i = ceil(tau_i / dt) p_i; tau_i, in s, is the running mean of the client's own round times. The paper
    defines it for clients that wait for the window's end: with `window.dispatch=on_arrival` fast clients count for more
    than p_i. In a window that waits for all clients d_i = p_i. Where arrivals close windows
    d_i = (sum_j 1/tau_j) tau_i p_i / K, which for K = 1 is the paper's asynchronous FedAvg: j are the clients that take
    part and have arrived before, tau_j lasts until j can be dispatched again (see `CloseContext.cycle_s`), K is the
    mean number of arrivals in a window.
    """
    clients = [arrival.client for arrival in window.arrivals]
    weights = [cfg.server_lr * _server_steps(window, client) * window.p[client] for client in clients]
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(weights))


def _server_steps(window: CloseContext, client: int) -> float:
    """Aggregations of the server during one round of a client."""
    if window.waits:
        return 1.0
    if window.cycle_s is not None and window.step_s is not None:
        return float(window.cycle_s[client] / window.step_s)
    # a round that takes dt to the last bit takes one window
    return float(max(1, math.ceil(window.round_s[client] / window.dt_s - 1e-9)))


def fedbuff(cfg: Any, window: CloseContext) -> AggregationWeights:
    """W <- W + eta_g / K sum_k s(tau_k) (w_k - w_sent): divided by K, not by the weights (Nguyen et al. 2022).

    K is the number of arrivals that close a window, also where a window closes with fewer (no other client can arrive)
    or with more. Where something else closes windows, K is the number of this window's arrivals.
    """
    k = window.k or max(1, len(window.arrivals))
    weights = cfg.server_lr * _stale(cfg, window.arrival_staleness) / k
    return AggregationWeights(np.zeros(len(window.p)), arrivals=tuple(weights.tolist()))


def each_once(cfg: Any, window: CloseContext) -> AggregationWeights:
    """Every filled slot counts once: for robust kernels, because a malicious client may claim any weight.

    Where windows wait for all clients only this window's arrivals count: a client that failed has no vote by an earlier
    update.
    """
    there = window.fresh if window.waits else window.filled
    return AggregationWeights(_normalised(there.astype(np.float64)), cfg.server_lr)
