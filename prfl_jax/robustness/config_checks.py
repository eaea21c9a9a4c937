"""Checks that tie `attack.*` and `privacy.*` to other keys of a config.

`config/validate.py` runs each of `CHECKS` on {dotted key: value}. Nothing here imports JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prfl_jax.aggregate import AGGREGATIONS
from prfl_jax.aggregate.weights import CLIENT_WEIGHTS
from prfl_jax.data import SIGNALS
from prfl_jax.density import evidence_needed, prunes_by, reads_losses
from prfl_jax.local import LOCAL_WORKS
from prfl_jax.models.choices import STATES
from prfl_jax.robustness.attack_rules import ATTACKS
from prfl_jax.submodel import IMPORTANCES, SUBMODELS
from prfl_jax.system.errors import refuse
from prfl_jax.transport import UPLOADS


def attack(flat: Mapping[str, Any]) -> None:
    """The malicious clients are given by number or by list, and only where there is an attack."""
    name, number, chosen, clients = (
        flat[key] for key in ("attack.name", "attack.number", "attack.clients", "clients.number")
    )
    if ATTACKS.find(name) is None:
        for key, value in (("attack.number", number), ("attack.clients", chosen)):
            if value:
                raise refuse(key, value, f"{type(value)()!r} with attack.name={name!r}")
        return
    if bool(number) == bool(chosen):
        raise refuse("attack.number", number, f"{'0' if chosen else '>= 1'} with attack.clients={chosen!r}")
    if number > clients:
        raise refuse("attack.number", number, f"at most clients.number={clients}")
    if len(set(chosen)) < len(chosen) or max(chosen, default=0) >= clients:
        raise refuse("attack.clients", chosen, f"different numbers from 0 to {clients - 1} (clients.number={clients})")


def privacy(flat: Mapping[str, Any]) -> None:
    """With noise, a client's data are seen only through its clipped, noised updates, which the accountant covers."""
    noise = flat["privacy.noise_multiplier"]
    if not noise:
        return
    words = f"with privacy.noise_multiplier={noise}"
    if flat["aggregation.clip_norm"] is None:
        raise refuse("aggregation.clip_norm", None, f"a number > 0 {words}: noise is measured by it")
    weight = flat["aggregation.client_weight"]
    if CLIENT_WEIGHTS.find(weight).from_data_size:
        others = " or ".join(CLIENT_WEIGHTS.with_trait(lambda one: not one.from_data_size))
        allowed = f"{others} {words}: how many samples a client has is not covered by the accountant"
        raise refuse("aggregation.client_weight", weight, allowed)
    if LOCAL_WORKS.find(local := flat["local.name"]).reads_labels:
        allowed = f"sgd {words}: which labels a client has is not covered by the accountant"
        raise refuse("local.name", local, allowed)
    evidence = evidence_needed(flat["density.name"], flat["stop_early"])
    if evidence and SIGNALS.find(flat["eval.signal"]).held_out:
        allowed = f"test {words}: held-out samples are clients' own, and decide without noise who recovers, and when"
        raise refuse("eval.signal", "heldout", allowed)
    importance = flat["submodel.importance"]
    if prunes_by(flat) and IMPORTANCES.find(importance).from_clients:
        allowed = f"server_sq_grad, weight or product {words}: uploaded squares are not covered by the accountant"
        raise refuse("submodel.importance", importance, allowed)
    name = flat["submodel.name"]
    if SUBMODELS.find(name).evidence is not None:
        allowed = f"0 with submodel.name={name!r}: the gradients that clients upload are not covered by the accountant"
        raise refuse("privacy.noise_multiplier", noise, allowed)
    rounds = flat["pruning.initial_rounds"]
    if SUBMODELS.find(name).first_stage and rounds != 0:
        allowed = f"0 {words}: what one client learns before window 1 is not covered by the accountant"
        raise refuse("pruning.initial_rounds", rounds, allowed)


def sent_beside(flat: Mapping[str, Any]) -> None:
    """What clients send beside their models is neither clipped nor noised, and no robust aggregation looks at it."""
    name = flat["local.name"]
    if not LOCAL_WORKS.find(name).sends_beside:
        return
    _no_defence(flat, f"with local.name={name!r}: what is sent beside models bypasses it")
    if STATES.find(flat["model.state"]).personal:
        words = f"average or static with local.name={name!r}: what is sent beside models is about all of their layers"
        raise refuse("model.state", flat["model.state"], words)


def parts_of_updates(flat: Mapping[str, Any]) -> None:
    """A client that sends a part of its update adds what it kept of earlier ones, which no defence is defined for."""
    upload = flat["transport.upload"]
    if not UPLOADS.find(upload).compresses:
        return
    words = f"with transport.upload={upload!r}: an update holds what was not sent of earlier ones"
    if AGGREGATIONS.find(name := flat["aggregation.name"]).robust:
        raise refuse("aggregation.name", name, f"a mean of models {words}")
    if noise := flat["privacy.noise_multiplier"]:
        raise refuse("privacy.noise_multiplier", noise, f"0 {words}")


def losses(flat: Mapping[str, Any]) -> None:
    """Training losses reach the server without clipping or noise, and no robust aggregation looks at them."""
    name = flat["density.name"]
    if not reads_losses(name):
        return
    words = f"with density.name={name!r}: its clients' training losses"
    if noise := flat["privacy.noise_multiplier"]:
        raise refuse("privacy.noise_multiplier", noise, f"0 {words} are not covered by the accountant")
    if AGGREGATIONS.find(aggregation := flat["aggregation.name"]).robust:
        raise refuse("aggregation.name", aggregation, f"a mean of models {words} bypass it")


def own_masks(flat: Mapping[str, Any]) -> None:
    """Which weights a client holds tells of its data, and its votes are neither clipped nor noised."""
    name = flat["submodel.name"]
    if not SUBMODELS.find(name).masks_of_clients:
        return
    _no_defence(flat, f"with submodel.name={name!r}: the clients' masks bypass it")
    if STATES.find(state := flat["model.state"]).personal:
        fitting = " or ".join(STATES.with_trait(lambda one: not one.personal))
        raise refuse("model.state", state, f"{fitting} with submodel.name={name!r}: each client has a model of its own")


def _no_defence(flat: Mapping[str, Any], words: str) -> None:
    """Refuses robust aggregations, clipping, noise and attacks; `words` say with what, and why."""
    # whether it is set, and what is allowed
    seen = {
        "aggregation.name": (AGGREGATIONS.find(flat["aggregation.name"]).robust, "a mean of models"),
        "aggregation.clip_norm": (flat["aggregation.clip_norm"] is not None, "None"),
        "privacy.noise_multiplier": (bool(flat["privacy.noise_multiplier"]), "0"),
        "attack.name": (ATTACKS.find(flat["attack.name"]) is not None, "none"),
    }
    for key, (is_set, allowed) in seen.items():
        if is_set:
            raise refuse(key, flat[key], f"{allowed} {words}")


# run by `config/validate.py`
CHECKS = (attack, privacy, sent_beside, parts_of_updates, losses, own_masks)
