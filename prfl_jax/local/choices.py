"""The choices of `local.name`, by name or as a plugin from a user's file, and the checks of a config about them.

Nothing here imports JAX: what runs on the device is imported when a round is traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax import registry
from prfl_jax.clock import DISPATCH_RULES
from prfl_jax.local.magnitude import magnitude_round
from prfl_jax.local.ordered import ordered_round
from prfl_jax.local.personal import OWN_MODELS, personal_round
from prfl_jax.local.scaffold import CONTROL_VARIATES, scaffold_round
from prfl_jax.local.scaled import scaled_round, without_absent
from prfl_jax.local.work import ClientState, LocalInput, LocalResult, LocalTask, LocalWork
from prfl_jax.registry import Registry
from prfl_jax.submodel import SUBMODELS
from prfl_jax.submodel.rule import SubmodelRule
from prfl_jax.system.errors import UserError, refuse

_KEY = "local.name"


def _sgd(task: LocalTask, given: LocalInput) -> LocalResult:
    from prfl_jax.local.sgd import sgd_round

    return sgd_round(task, given)


def _accept(name: str, found: Any) -> LocalWork:
    """A plugin as a local work.

    Raises:
      UserError: it is none, or its `round`, `counted` or `fits` cannot be called.
    """
    if not isinstance(found, LocalWork) or not callable(found.round):
        raise registry.wrong(f"config.{_KEY}", name, found, "a prfl_jax.local.LocalWork with a function round")
    if found.counted is not None and not callable(found.counted):
        raise _wrong_field(name, "counted", found.counted, "a function (task, masks, present) -> masks, or None")
    if not callable(found.fits):
        raise _wrong_field(name, "fits", found.fits, "a function (rule) -> bool")
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if field.type == "bool" and not isinstance(value, bool):
            raise _wrong_field(name, field.name, value, "True or False")
    if isinstance(found.prox_mu, bool) or not isinstance(found.prox_mu, int | float) or not 0 <= found.prox_mu < 1e12:
        raise _wrong_field(name, "prox_mu", found.prox_mu, "a number >= 0")
    state = found.client_state
    if state is not None and not (
        isinstance(state, ClientState)
        and callable(state.init)
        and (state.server is None) == (state.change is None)
        and (state.server is None or (callable(state.server) and callable(state.change)))
    ):
        words = "None, or a prfl_jax.local.ClientState: functions init, and server and change or neither"
        raise _wrong_field(name, "client_state", state, words)
    return found


def _wrong_field(name: str, field: str, found: Any, allowed: str) -> UserError:
    return UserError(f"config.{_KEY}: {field} of {name!r} is {registry.one_line(found)}; allowed: {allowed}")


# the choices of `local.name`
LOCAL_WORKS: Registry[LocalWork] = Registry(
    _KEY,
    {
        "sgd": LocalWork(_sgd, takes_optimizer=True, any_width=True, sums_gradients=True),
        "scaled_sgd": LocalWork(
            scaled_round,
            counted=without_absent,
            reads_labels=True,
            fits=lambda rule: rule.known_networks and rule.channels,
            takes_optimizer=True,
            any_width=True,
        ),
        "proximal": LocalWork(_sgd, proximal=True, takes_optimizer=True, any_width=True, sums_gradients=True),
        "proximal_own_steps": LocalWork(_sgd, takes_optimizer=True, own_steps=True, prox_mu=0.01, any_width=True),
        "scaffold": LocalWork(scaffold_round, plain_steps=True, client_state=CONTROL_VARIATES, any_width=True),
        "ordered_sgd": LocalWork(
            ordered_round,
            fits=lambda rule: rule.fixed_levels,
            draws_widths=True,
            takes_optimizer=True,
            any_width=True,
        ),
        "personal": LocalWork(
            personal_round,
            fits=lambda rule: rule.masks_of_clients,
            takes_optimizer=True,
            client_state=OWN_MODELS,
            own_masks=True,
        ),
        "magnitude_sgd": LocalWork(magnitude_round, fits=lambda rule: rule.by_magnitude, takes_optimizer=True),
    },
    _accept,
)


def find_local(name: str) -> LocalWork:
    """The local work of that name.

    Raises:
      UserError: there is none, or a plugin that is none or cannot be loaded.
    """
    return LOCAL_WORKS.find(name)


def prox_mu_in_force(name: str, mu: float) -> float:
    """mu of the proximal term: `local.prox_mu`, or the work's own where that is 0."""
    return mu or find_local(name).prox_mu


def _fits_the_submodels(flat: Mapping[str, Any]) -> None:
    name, submodel = flat[_KEY], flat["submodel.name"]
    work = find_local(name)

    def fits(rule: SubmodelRule) -> bool:
        if not registry.is_own(name):
            return work.fits(rule)
        return bool(registry.call(f"config.{_KEY}", name, lambda: bool(work.fits(rule))))

    if not fits(SUBMODELS.find(submodel)):
        fitting = SUBMODELS.with_trait(fits)
        others = " or ".join(repr(one) for one in fitting) or "any of the built-in ones"
        raise refuse(_KEY, name, f"sgd, or submodel.name={others}")


def _has_a_proximal_term(flat: Mapping[str, Any]) -> None:
    name = flat[_KEY]
    if find_local(name).proximal and not flat["local.prox_mu"]:
        raise refuse("local.prox_mu", flat["local.prox_mu"], f"> 0 with local.name={name!r}")


def _chooses_masks(flat: Mapping[str, Any]) -> None:
    """Clients' own masks need a work that chooses them, before the clock runs the round in which it does."""
    submodel, name = flat["submodel.name"], flat[_KEY]
    if not SUBMODELS.find(submodel).masks_of_clients:
        return
    words = f"with submodel.name={submodel!r}"
    if not find_local(name).own_masks:
        fitting = " or ".join(LOCAL_WORKS.with_trait(lambda work: work.own_masks))
        raise refuse(_KEY, name, f"{fitting} {words}")
    if (train := flat["engine.train"]) == "arrival":
        raise refuse(
            "engine.train", train, f"auto or pending {words}: what a client uploads is known when it is trained"
        )
    if DISPATCH_RULES.find(dispatch := flat["window.dispatch"]).on_arrival:
        fitting = " or ".join(DISPATCH_RULES.with_trait(lambda rule: not rule.on_arrival))
        raise refuse(
            "window.dispatch", dispatch, f"{fitting} {words}: what a client uploads is known when it is trained"
        )


def _under_a_shared_mask(flat: Mapping[str, Any]) -> None:
    """What the server's mask costs is counted for models alone, of `local.steps` steps; its rule may need gradients."""
    submodel, name = flat["submodel.name"], flat[_KEY]
    if not (rule := SUBMODELS.find(submodel)).shared_mask:
        return

    def fits(work: LocalWork) -> bool:
        return not work.own_steps and not work.sends_beside and (rule.evidence is None or work.sums_gradients)

    if not fits(find_local(name)):
        fitting = LOCAL_WORKS.with_trait(lambda work: fits(work) and work.fits(rule))
        raise refuse(_KEY, name, f"{' or '.join(fitting)} with submodel.name={submodel!r}")


# run by `config/validate.py`
CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (
    _fits_the_submodels,
    _has_a_proximal_term,
    _chooses_masks,
    _under_a_shared_mask,
)
