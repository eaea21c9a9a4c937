"""Optimisers written out in float64 NumPy for one array, and a client's round by them for `tiny.TwoLayers`."""

from __future__ import annotations

import jax
import numpy as np
from prfl_oracle import masked, mlp_gradient

# A rule: (state, gradient, weights, number of the step from 1) -> change at learning rate 1; it updates its state.


def adam(s, g, w, t, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    m, v = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)
    return -m / (np.sqrt(v) + eps) - weight_decay * w


def adamw(s, g, w, t, weight_decay=1e-4, **more):
    return adam(s, g, w, t, weight_decay=weight_decay, **more)


def lion(s, g, w, t, b1=0.9, b2=0.99, weight_decay=1e-3):
    direction = np.sign(b1 * s.get("m", 0.0) + (1 - b1) * g)
    s["m"] = b2 * s.get("m", 0.0) + (1 - b2) * g
    return -direction - weight_decay * w


def rmsprop(s, g, w, t, decay=0.9, eps=1e-8):
    s["v"] = decay * s.get("v", 0.0) + (1 - decay) * g**2
    return -g / np.sqrt(s["v"] + eps)


def adagrad(s, g, w, t, initial_accumulator_value=0.1, eps=1e-7):
    s["v"] = s.get("v", initial_accumulator_value) + g**2
    return -g / np.sqrt(s["v"] + eps)


def yogi(s, g, w, t, b1=0.9, b2=0.999, eps=1e-3):
    s["m"] = b1 * s.get("m", 1e-6) + (1 - b1) * g
    v = s.get("v", 1e-6)
    s["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
    return -s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def momentum(s, g, w, t, decay=0.0):
    s["m"] = decay * s.get("m", 0.0) + g
    return -s["m"]


def norm(gradient):
    """Of all leaves together."""
    return np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))


def local_round(params, masks, x, y, rule, rates, prox_mu=0.0, clip=np.inf):
    """One round: (params, the norm of each step's gradient under the masks).

    Args:
      rates: learning rate of each step.
      clip: a longer gradient is shortened to it.
    """
    sent = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    leaves, treedef = jax.tree.flatten(sent)
    states, norms = [{} for _ in leaves], []
    for t, (batch_x, batch_y, rate) in enumerate(zip(x, y, rates, strict=True), start=1):
        w = jax.tree.unflatten(treedef, leaves)
        _, gradient = mlp_gradient(w, batch_x, batch_y)
        gradient = jax.tree.map(lambda g, now, first: g + prox_mu * (now - first), gradient, w, sent)
        gradient = masked(gradient, masks)
        norms.append(norm(gradient))
        short = min(1.0, clip / norms[-1])
        gradients = [short * g for g in jax.tree.leaves(gradient)]
        leaves = [p + rate * rule(s, g, p, t) for s, g, p in zip(states, gradients, leaves, strict=True)]
        leaves = jax.tree.leaves(masked(jax.tree.unflatten(treedef, leaves), masks))
    return jax.tree.unflatten(treedef, leaves), norms
