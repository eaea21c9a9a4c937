"""The rules that tie the keys of `density` to other keys; `config/validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.clock import find_close_rule
from prfl_jax.data import SIGNALS
from prfl_jax.density.choices import DENSITIES, evidence_needed, find_density
from prfl_jax.submodel import SUBMODELS
from prfl_jax.system.errors import refuse


def submodel(flat: Mapping[str, Any]) -> None:
    """Densities below 1 need sub-models."""
    name = flat["density.name"]
    if not find_density(name).stays_full and not SUBMODELS.find(flat["submodel.name"]).partial:
        full = " or ".join(repr(name) for name in DENSITIES.with_trait(lambda policy: policy.stays_full))
        raise refuse("density.name", name, f"{full} with submodel.name={flat['submodel.name']!r}")


def server_masks(flat: Mapping[str, Any]) -> None:
    """Of masks that clients and server choose only some have a density that a policy could decide."""
    name, submodel = flat["density.name"], flat["submodel.name"]
    rule = SUBMODELS.find(submodel)
    if rule.server_masks and not rule.masks_by_density and not find_density(name).stays_full:
        full = " or ".join(DENSITIES.with_trait(lambda policy: policy.stays_full))
        raise refuse(
            "density.name", name, f"{full} with submodel.name={submodel!r}, whose masks have sizes of their own"
        )


def cohort(flat: Mapping[str, Any]) -> None:
    """Some policies need round times or models of all clients, which a cohort does not give."""
    clients, name = flat["window.cohort"], flat["density.name"]
    if clients and not find_density(name).in_cohorts:
        allowed = " or ".join(DENSITIES.with_trait(lambda policy: policy.in_cohorts))
        raise refuse("density.name", name, f"{allowed} with window.cohort={clients}")


def tiers(flat: Mapping[str, Any]) -> None:
    """There is a tier, and the first window has a round time of every client where the policy needs one."""
    name = flat["density.name"]
    policy = find_density(name)
    if policy.uses_tiers and not flat["density.tiers"]:
        raise refuse("density.tiers", (), f"at least one density with density.name={name!r}")
    waits = find_close_rule(flat["window.close"]).waits_for_all(1)
    if policy.needs_first_times and not waits and not flat["window.first_waits_for_all"]:
        allowed = f"True with density.name={name!r}, which needs every client's first round time"
        raise refuse("window.first_waits_for_all", False, allowed)


def held_out(flat: Mapping[str, Any]) -> None:
    """Where something is measured on held-out data there is some."""
    name = flat["density.name"]
    if not evidence_needed(name, flat["stop_early"]):
        return
    if SIGNALS.find(flat["eval.signal"]).held_out and flat["data.holdout_fraction"] == 0:
        allowed = f"in (0, 1) with eval.signal={flat['eval.signal']!r} and density.name={name!r} or stop_early=True"
        raise refuse("data.holdout_fraction", flat["data.holdout_fraction"], allowed)


def ratios(flat: Mapping[str, Any]) -> None:
    """Where pruning ratios are drawn there is more than one."""
    name, least = flat["density.name"], flat["density.min_density"]
    if find_density(name).draws_ratios and least >= 1:
        raise refuse(
            "density.min_density", least, f"below 1 with density.name={name!r}, which prunes up to 1 - min_density"
        )


# run by `config/validate.py`
CHECKS = (submodel, server_masks, cohort, tiers, held_out, ratios)
