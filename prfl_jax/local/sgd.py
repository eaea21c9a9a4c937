"""Local SGD on a sub-model (Algorithm 1, line 29)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from prfl_jax.models.build import Model
from prfl_jax.models.losses import Loss
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks

MOST_UNROLLED = 32  # steps; compiling takes as many times longer, and the batches of so many are drawn at once


@dataclasses.dataclass(frozen=True)
class LocalWork:
    """Settings of one local round: `steps` SGD steps with `momentum` on batches of `batch_size`.

    `prox_mu` adds mu (w - w_sent) to each gradient (Li et al. 2020, FedProx; Xie et al. 2019); `scaled` is HeteroFL's
    scaler and masked logits; `square_gradients` returns the sum over steps of g^2 too; `unroll` compiles the steps one
    after another, not as a loop, up to `MOST_UNROLLED` of them.
    """

    steps: int = 5
    batch_size: int = 20
    momentum: float = 0.0
    prox_mu: float = 0.0
    scaled: bool = False
    unroll: bool = True
    square_gradients: bool = False

    @property
    def long(self) -> bool:
        """Whether a round has too many steps to have their batches drawn at once (see `make_long_round`)."""
        return self.steps > MOST_UNROLLED


class LocalResult(NamedTuple):
    """A client update: trained `params`, mean training `loss`, `squares` of gradients in the prunable leaves' shapes.

    The last is the sum over steps of g^2, () if not asked for.
    """

    params: Any
    loss: jax.Array
    squares: tuple[jax.Array, ...]


def make_local_round(model: Model, loss: Loss, layout: Layout, work: LocalWork) -> Callable[..., LocalResult]:
    """Returns `local_round(params, masks, x, y, lr, key)` for one client.

    Args of the returned function:
      params: the sub-model as sent, 0 where masked.
      masks: boolean masks in the prunable leaves' shapes; () for the full model.
      x, y: float32 `[steps, B, ...]` and int32 `[steps, B]`.
      lr: scalar, the learning rate of the whole round.
      key: for dropout.

    Masked weights stay exactly 0: gradients flow only into the sub-model.
    """

    def local_round(
        params: Any, masks: tuple[jax.Array, ...], x: jax.Array, y: jax.Array, lr: jax.Array, key: jax.Array
    ) -> LocalResult:
        start, step = _steps(model, loss, layout, work)(params, masks, lr, key)
        unroll = work.unroll and not work.long
        (params, _, squares), losses = lax.scan(step, start, (x, y, jnp.arange(work.steps)), unroll=unroll)
        return LocalResult(params, jnp.mean(losses), squares)

    return local_round


def make_long_round(model: Model, loss: Loss, layout: Layout, work: LocalWork) -> Callable[..., LocalResult]:
    """As `make_local_round`, for any number of steps: a loop that holds one batch at a time.

    The returned function takes `draw` in the place of x and y: from the number of a step, a traced int32 from 0, to
    its batch, float32 `[B, ...]` and int32 `[B]`. The loss is a running mean.
    """

    def long_round(
        params: Any,
        masks: tuple[jax.Array, ...],
        draw: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
        lr: jax.Array,
        key: jax.Array,
    ) -> LocalResult:
        start, step = _steps(model, loss, layout, work)(params, masks, lr, key)

        def body(number: jax.Array, carry: Any) -> Any:
            carry, mean = carry
            carry, value = step(carry, (*draw(number), number))
            return carry, mean + (value - mean) / (number + 1)

        (params, _, squares), mean = lax.fori_loop(0, work.steps, body, (start, jnp.zeros(())))
        return LocalResult(params, mean, squares)

    return long_round


def _steps(model: Model, loss: Loss, layout: Layout, work: LocalWork) -> Callable[..., tuple[Any, Any]]:
    """From (params as sent, masks, lr, key) to what a round carries from step to step, and its step for `lax.scan`."""
    mu = work.prox_mu
    trace = optax.trace(decay=work.momentum) if work.momentum else optax.identity()

    def begin(sent: Any, masks: tuple[jax.Array, ...], lr: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        masked = (lambda tree: apply_masks(layout, tree, masks)) if masks else (lambda tree: tree)

        def batch_loss(p: Any, batch_x: jax.Array, batch_y: jax.Array, step_key: jax.Array) -> jax.Array:
            return jnp.mean(loss(model.apply(p, batch_x, True, step_key), batch_y))

        def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
            p, momentum, squares = carry
            batch_x, batch_y, number = batch
            value, gradient = jax.value_and_grad(batch_loss)(p, batch_x, batch_y, jax.random.fold_in(key, number))
            if work.square_gradients:
                kept = layout.select(masked(gradient))
                squares = tuple(s + (g * g).reshape(s.shape) for s, g in zip(squares, kept, strict=True))
            if mu:
                gradient = jax.tree.map(lambda g, w, anchor: g + mu * (w - anchor), gradient, p, sent)
            update, momentum = trace.update(gradient, momentum)
            p = masked(jax.tree.map(lambda w, u: w - lr * u, p, update))
            return (p, momentum, squares), value

        squares = tuple(jnp.zeros(layout.shapes[i]) for i in layout.prunable) if work.square_gradients else ()
        return (sent, trace.init(sent), squares), step

    return begin
