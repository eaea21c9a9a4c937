"""Checks a whole config before anything is computed: each key by its own rule, then the keys together.

The rules of single keys are the table in `schema.py`. The rules that tie keys together stand beside the choices that
make them: each room exports a tuple `CHECKS` of functions that take the config as {dotted key: value} and raise
`UserError`, the key to change first. This module only runs them. Nothing here imports jax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from prfl_jax import aggregate, clock, data, density, local, models, robustness, strategies, submodel, tasks, transport
from prfl_jax.config import checks
from prfl_jax.config.canonical import canonical
from prfl_jax.config.comparison import compared
from prfl_jax.system.errors import UserError

# The rooms whose keys are checked together, in the order in which they are asked.
ROOMS = (checks, clock, aggregate, density, submodel, local, transport, data, models, robustness, tasks)


def validate(cfg: config_dict.ConfigDict) -> None:
    """Checks that a config is complete and that it can run.

    Raises:
      UserError: an unknown or missing key, a value of a wrong type or out of
        range, or keys that contradict each other; one line, the key first.
    """
    flat = canonical(cfg)
    for check in all_checks():
        check(flat)
    text = strategies.forgotten(cfg)
    if text:
        raise UserError(text)
    for name in flat["compare"]:
        try:
            compared(cfg, name, validate)
        except UserError as e:
            text = f"config.compare={name!r} cannot run with the other keys ({e}); or give config.compare=()"
            raise UserError(text) from None


def all_checks() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """The checks of every room, in order."""
    for room in ROOMS:
        yield from room.CHECKS
