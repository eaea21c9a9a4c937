"""Refuses a server optimiser from a user's file that cannot step by the pseudo-gradient; it traces and runs nothing."""

from __future__ import annotations

from typing import Any

import jax

from prfl_jax import registry
from prfl_jax.aggregate.server_optimizers import step_rule
from prfl_jax.aggregate.server_step import Optax
from prfl_jax.local.optimizer_check import check_factory, trace_steps


def check_server_optimizer(aggregation: Any, params: Any) -> None:
    """Traces two steps.

    Args:
      aggregation: the group of a config.
      params: shapes of the server's model, a pytree.

    Raises:
      UserError: the optimiser cannot be traced, or its update is of another shape or type than the model.
    """
    rule = step_rule(aggregation)
    if not isinstance(rule, Optax):
        return
    if rule.factory is not None:
        check_factory("aggregation", aggregation, rule.factory, params)
    else:
        key = "config.aggregation.optimizer"
        registry.call(
            key, aggregation.optimizer, jax.eval_shape, lambda params: trace_steps(rule.transformation, params), params
        )
