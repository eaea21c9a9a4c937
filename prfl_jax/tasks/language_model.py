"""The task `language_model`: each step of a sequence of tokens predicts the next token; the metric is perplexity."""

from __future__ import annotations

from typing import Any

from prfl_jax.tasks.sample import SEQUENCES
from prfl_jax.tasks.task import PERPLEXITY, TargetLoss, Task


def _targets(logits: Any, y: Any) -> tuple[Any, Any]:
    """Logits `[B, T, tokens]` and next tokens `[B, T]` as `[B T, tokens]` and `[B T]`."""
    return logits.reshape(-1, logits.shape[-1]), y.reshape(-1)


def _loss(loss: TargetLoss, logits: Any, y: Any) -> Any:
    """Losses `[B]` whose mean is the mean over all targets of the batch, however many each sequence has."""
    import jax.numpy as jnp

    there = y >= 0
    flat, labels = _targets(logits, jnp.where(there, y, 0))
    losses = jnp.where(there, loss(flat, labels).reshape(y.shape), 0.0)
    return jnp.sum(losses, axis=1) * (len(y) / jnp.maximum(jnp.sum(there), 1))


LANGUAGE_MODEL = Task(
    PERPLEXITY, (SEQUENCES,), sequence=True, causal=True, loss=_loss, targets=_targets, by_label=False
)
