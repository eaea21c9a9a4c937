"""Calls a partition plugin, a function of labels, number of clients and generator, and checks what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax import registry
from prfl_jax.system.errors import UserError

KEY = "config.data.partition"


def checked_parts(
    name: str,
    function: Callable[..., Any],
    labels: np.ndarray,
    num_clients: int,
    rng: np.random.Generator,
    noun: str = "images",
) -> list[np.ndarray]:
    """The clients' positions in `labels`, as a plugin deals them out.

    The function takes (labels `[N]`, num_clients, rng) and returns `num_clients` lists or arrays of positions, whole
    numbers from 0 to N - 1. No position may occur twice and no client may be without one; positions may go unused. It
    must draw from `rng` alone, which the seed decides, so that a run can be repeated.

    Args:
      name: `data.partition`, `module:object` or `FILE.py:object`.
      function: the plugin.
      labels: `[N]` of the training samples that are dealt out.
      num_clients: M.
      noun: what the samples are called in messages.

    Raises:
      UserError: the function raises, or returns anything else; the text names the client.
    """
    found = registry.call(KEY, name, function, labels.copy(), num_clients, rng)
    return _checked(name, found, len(labels), num_clients, noun)


def _checked(name: str, found: Any, count: int, num_clients: int, noun: str) -> list[np.ndarray]:
    if not isinstance(found, list | tuple) or len(found) != num_clients:
        has = f"{len(found)} parts" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise UserError(f"{KEY}: {name!r} returns {has}; allowed: a list of clients.number={num_clients} parts")
    owner = np.full(count, -1)
    parts = []
    for client, part in enumerate(found):
        rows = np.asarray(part)
        if not rows.size:
            raise UserError(
                f"{KEY}: {name!r} gives client {client} no {noun.removesuffix('s')}; allowed: at least one for each"
            )
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise UserError(f"{KEY}: {name!r} gives client {client} {rows.dtype} {rows.shape}; allowed: whole numbers")
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= count:
            strange = low if low < 0 else high
            raise UserError(f"{KEY}: {name!r} gives client {client} position {strange}; allowed: 0 to {count - 1}")
        values, times = np.unique(rows, return_counts=True)
        twice = values[(times > 1) | (owner[values] >= 0)]
        if len(twice):
            other = owner[twice[0]] if owner[twice[0]] >= 0 else client
            raise UserError(
                f"{KEY}: {name!r} gives position {twice[0]} to client {other} and to client {client}; allowed: once"
            )
        owner[values] = client
        parts.append(rows.astype(np.int64))
    return parts
