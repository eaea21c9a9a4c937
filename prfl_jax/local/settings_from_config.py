"""Makes `LocalSettings`, the settings of a run's local rounds, from a config."""

from __future__ import annotations

from typing import Any

from prfl_jax.density import prunes
from prfl_jax.local.choices import prox_mu_in_force
from prfl_jax.local.optimizers import LR_SCHEDULES, OPTIMIZERS
from prfl_jax.local.work import LocalSettings, LocalWork
from prfl_jax.submodel import IMPORTANCES, find_submodel, pruning_settings, to_percent


def settings_from_config(config: Any, work: LocalWork) -> LocalSettings:
    """The settings of all local rounds of a run."""
    rule = find_submodel(config.submodel)
    own = rule.client_masks if work.own_masks else None
    schedule = LR_SCHEDULES.find(config.local.lr_schedule)
    return LocalSettings(
        steps=config.local.steps,
        batch_size=config.local.batch_size,
        momentum=config.local.momentum,
        prox_mu=prox_mu_in_force(config.local.name, config.local.prox_mu),
        unroll=config.engine.unroll,
        square_gradients=prunes(config) and IMPORTANCES.find(config.submodel.importance).from_clients,
        sum_gradients=rule.evidence is not None,
        widths=tuple(map(to_percent, config.density.tiers)) if work.draws_widths else (),
        optimizer=OPTIMIZERS.find(config.local.optimizer).with_args(config.local.optimizer_args),
        clip_grad_norm=config.local.clip_grad_norm,
        keeps_moments=config.local.optimizer_state == "kept",
        lr_schedule=None if schedule.function is None else schedule,
        pruning=pruning_settings(config) if work.own_masks else None,
        choose_masks=None if own is None else own.choose,
    )
