"""The server's optimisers written out in float64 NumPy (Reddi et al. 2021, Algorithm 2; Hsu et al. 2019)."""

from __future__ import annotations

import json

import jax
import numpy as np

DEFAULTS = {
    "sgdm": dict(momentum=0.9),
    "adagrad": dict(b1=0.0, tau=1e-3),
    "adam": dict(b1=0.9, b2=0.99, tau=1e-3),
    "yogi": dict(b1=0.9, b2=0.99, tau=1e-3),
}


class Server:
    """Steps from a model towards an aggregate; a weight that nobody holds keeps its value and its moments.

    Args:
      args: the JSON text of the config.
    """

    def __init__(self, name: str, eta: float, args: str = "{}") -> None:
        self.name, self.eta = name, eta
        self.constants = {**DEFAULTS[name], **json.loads(args)}
        self.m = self.v = None

    def step(self, w, aggregate, held):
        """The next model; all three are pytrees alike."""
        w, aggregate = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (w, aggregate))
        if self.m is None:
            self.m = jax.tree.map(np.zeros_like, w)
            start = self.constants.get("tau", 0.0) ** 2
            self.v = jax.tree.map(lambda leaf: np.full_like(leaf, start), w)
        moved = jax.tree.map(self._leaf, w, aggregate, self.m, self.v)
        new, m, v = (jax.tree.map(lambda one, k=k: one[k], moved, is_leaf=_is_three) for k in range(3))

        def chosen(after, before):
            return jax.tree.map(lambda there, a, b: np.where(there, a, b), held, after, before)

        self.m, self.v = chosen(m, self.m), chosen(v, self.v)
        return chosen(new, w)

    def _leaf(self, w, aggregate, m, v):
        d, c = aggregate - w, self.constants
        if self.name == "sgdm":
            m = c["momentum"] * m + d
            return w + self.eta * m, m, v
        m = c["b1"] * m + (1 - c["b1"]) * d
        if self.name == "adagrad":
            v = v + d**2
        elif self.name == "adam":
            v = c["b2"] * v + (1 - c["b2"]) * d**2
        else:
            v = v - (1 - c["b2"]) * d**2 * np.sign(v - d**2)
        return w + self.eta * m / (np.sqrt(v) + c["tau"]), m, v


def _is_three(value) -> bool:
    return isinstance(value, tuple) and len(value) == 3
