"""The check of a config that ties the transport to the densities; `config/validate.py` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.clock import TRANSPORTS, find_transport
from prfl_jax.density import find_density
from prfl_jax.system.errors import refuse


def whole_model(flat: Mapping[str, Any]) -> None:
    """A transport that sends all clients one copy needs density 1 for every client in every window."""
    name, density = flat["transport.name"], flat["density.name"]
    if find_transport(name).whole_model and not find_density(density).stays_full:
        *others, last = TRANSPORTS.with_trait(lambda transport: not transport.whole_model)
        raise refuse("transport.name", name, f"{', '.join(others)} or {last} with density.name={density!r}")


# run by `config/validate.py`
CHECKS = (whole_model,)
