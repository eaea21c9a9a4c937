"""The rules of a config that tie liars, defences and privacy to the rest; `validate.py` runs them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from prfl_jax.aggregate import find_aggregation
from prfl_jax.data import SIGNALS
from prfl_jax.density import find_density
from prfl_jax.submodel.choices import prunes
from prfl_jax.system.errors import refuse


def attack(flat: Mapping[str, Any]) -> None:
    """Who lies is said once, and only where somebody does."""
    name, number, chosen, clients = (
        flat[key] for key in ("attack.name", "attack.number", "attack.clients", "clients.number")
    )
    if name == "none":
        for key, value in (("attack.number", number), ("attack.clients", chosen)):
            if value:
                raise refuse(key, value, f"{type(value)()!r} with attack.name='none'")
        return
    if bool(number) == bool(chosen):
        raise refuse("attack.number", number, f"{'0' if chosen else '>= 1'} with attack.clients={chosen!r}")
    if number > clients:
        raise refuse("attack.number", number, f"at most clients.number={clients}")
    if len(set(chosen)) < len(chosen) or max(chosen, default=0) >= clients:
        raise refuse("attack.clients", chosen, f"different numbers from 0 to {clients - 1} (clients.number={clients})")


def defence(flat: Mapping[str, Any]) -> None:
    """Liars can be outvoted, and all models looked at together."""
    name, f = flat["aggregation.name"], flat["aggregation.byzantine"]
    choice, (there, why) = find_aggregation(name), _most(flat)
    if choice.least is not None and choice.least(f) > there:
        most = max((k for k in range(min(f, there + 1)) if choice.least(k) <= there), default=None)
        allowed = f"at most {most}" if most is not None else f"with at least {choice.least(0)} clients"
        raise refuse("aggregation.byzantine", f, f"{allowed} with aggregation.name={name!r} and {why}")
    if choice.at_once and flat["engine.models"] == "host":
        raise refuse("engine.models", "host", f"device with aggregation.name={name!r}, which looks at all models")
    importance = flat["submodel.importance"]
    if choice.robust and prunes_by(flat) and importance != "weight":
        allowed = f"weight with aggregation.name={name!r}: squared updates are what liars make them"
        raise refuse("submodel.importance", importance, allowed)


def prunes_by(flat: Mapping[str, Any]) -> bool:
    """Whether sub-models come from scores, and densities may be below 1."""
    group = SimpleNamespace(name=flat["submodel.name"], importance=flat["submodel.importance"])
    return prunes(SimpleNamespace(density=SimpleNamespace(name=flat["density.name"]), submodel=group))


def _most(flat: Mapping[str, Any]) -> tuple[int, str]:
    """How many clients a close may look at, and what says so."""
    cohort, k = flat["window.cohort"], flat["window.k"]
    if not cohort:
        return flat["clients.number"], f"clients.number={flat['clients.number']}"
    if flat["window.close"] == "each_arrival":
        return 1, "window.close='each_arrival'"
    if flat["window.close"] == "k_arrivals" and k < cohort:
        return k, f"window.k={k}"
    return cohort, f"window.cohort={cohort}"


def privacy(flat: Mapping[str, Any]) -> None:
    """All that anybody sees of a client's data comes out of its clipped, noised updates."""
    noise = flat["privacy.noise_multiplier"]
    if not noise:
        return
    words = f"with privacy.noise_multiplier={noise}"
    if flat["aggregation.clip_norm"] is None:
        raise refuse("aggregation.clip_norm", None, f"a number > 0 {words}: noise is measured by it")
    if flat["aggregation.client_weight"] == "dataset":
        allowed = f"samples_per_round or uniform {words}: how many images a client has is not covered by the accountant"
        raise refuse("aggregation.client_weight", "dataset", allowed)
    if flat["local.name"] == "scaled_sgd":
        allowed = f"sgd {words}: which labels a client has is not covered by the accountant"
        raise refuse("local.name", "scaled_sgd", allowed)
    if SIGNALS.find(flat["eval.signal"]).held_out and (
        find_density(flat["density.name"]).recovers or flat["stop_early"]
    ):
        allowed = f"test {words}: held-out images are clients' own, and decide without noise who recovers, and when"
        raise refuse("eval.signal", "heldout", allowed)
    if prunes_by(flat) and flat["submodel.importance"] == "client_sq_grad":
        allowed = f"server_sq_grad, weight or product {words}: uploaded squares are not covered by the accountant"
        raise refuse("submodel.importance", "client_sq_grad", allowed)


CHECKS = (attack, defence, privacy)
