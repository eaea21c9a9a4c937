"""Checks of a config that tie the transport to densities and masks; `config/validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.clock import TRANSPORTS, find_transport
from prfl_jax.density import find_density
from prfl_jax.submodel import SUBMODELS
from prfl_jax.system.errors import refuse
from prfl_jax.transport.byte_rules import BYTE_RULES, find_byte_rule
from prfl_jax.transport.uploads import UPLOADS


def whole_model(flat: Mapping[str, Any]) -> None:
    """A transport that sends all clients one copy needs one mask for all, or density 1 for every client and window."""
    name, density = flat["transport.name"], flat["density.name"]
    one_mask = SUBMODELS.find(flat["submodel.name"]).server_masks
    if find_transport(name).whole_model and not one_mask and not find_density(density).stays_full:
        *others, last = TRANSPORTS.with_trait(lambda transport: not transport.whole_model)
        raise refuse("transport.name", name, f"{', '.join(others)} or {last} with density.name={density!r}")


def masks_of_any_size(flat: Mapping[str, Any]) -> None:
    """A mask that changes with what is learned is not nested, and its bytes are counted."""
    submodel, name = flat["submodel.name"], flat["transport.name"]
    if not SUBMODELS.find(submodel).server_masks:
        return
    words = f"with submodel.name={submodel!r}"
    if find_transport(name).increments:
        fitting = " or ".join(TRANSPORTS.with_trait(lambda transport: not transport.increments))
        raise refuse("transport.name", name, f"{fitting} {words}, whose masks are not nested")
    if not find_byte_rule(rule := flat["transport.bytes"]).counted:
        fitting = " or ".join(BYTE_RULES.with_trait(lambda one: one.counted))
        raise refuse("transport.bytes", rule, f"{fitting} {words}, whose masks have no density that is known before")
    if UPLOADS.find(upload := flat["transport.upload"]).compresses:
        fitting = " or ".join(UPLOADS.with_trait(lambda one: not one.compresses))
        raise refuse("transport.upload", upload, f"{fitting} {words}")


# run by `config/validate.py`
CHECKS = (whole_model, masks_of_any_size)
