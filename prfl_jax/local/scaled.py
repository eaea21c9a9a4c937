"""HeteroFL's local work (Diao et al. 2021): SGD with its scaler, and without the logits of labels a client lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfl_jax.local.work import LocalInput, LocalResult, LocalTask
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.submodel.leading import RATES

if TYPE_CHECKING:
    import jax


def scaled_round(task: LocalTask, given: LocalInput) -> LocalResult:
    """SGD on `models.scaled.scaled_model`, whose rate is the share of channels at the client's density."""
    import dataclasses

    import jax.numpy as jnp

    from prfl_jax.local.sgd import sgd_round
    from prfl_jax.models.scaled import scaled_model

    rate = jnp.asarray(RATES, jnp.float32)[given.density_pct]
    model = scaled_model(task.model, rate, given.present)
    return sgd_round(dataclasses.replace(task, model=model), given)


def without_absent(task: LocalTask, masks: tuple[jax.Array, ...], present: jax.Array) -> tuple[jax.Array, ...]:
    """The output layer's columns of labels that a client lacks do not count (HeteroFL's authors' code)."""
    last = ARCHITECTURES[task.model.name].output
    paths = [task.layout.paths[i] for i in task.layout.prunable]
    return tuple(
        mask & present if path.startswith(f"{last}/") else mask for mask, path in zip(masks, paths, strict=True)
    )
