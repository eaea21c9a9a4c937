"""Local SGD on a sub-model (PR-FL, Algorithm 1, line 29), with the masks of the round or with new ones at each step.

FedMP's Eq. 3 is the same step.
Another optimiser (`LocalSettings.optimizer`) takes the place of SGD's step; gradients, masks and batches stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from prfl_jax.local.moments import kept_where_not_held
from prfl_jax.local.work import Batches, LocalInput, LocalResult, LocalSettings, LocalTask
from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.losses import Loss
from prfl_jax.models.variables import split_state, with_state
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks


class StepMasks(NamedTuple):
    """What one step trains of the sub-model, in the prunable leaves' shapes.

    Attributes:
      masks: boolean: values that the forward pass has; the others count as 0 and keep their value.
      factors: float32, what the gradient of each of them is multiplied by; None: by 1.
    """

    masks: tuple[jax.Array, ...]
    factors: tuple[jax.Array, ...] | None = None


# (prunable leaves of the present weights, number of the step) -> what the step trains
Anew = Callable[[tuple[jax.Array, ...], jax.Array], StepMasks]


def sgd_round(task: LocalTask, given: LocalInput, anew: Anew | None = None, correction: Any = None) -> LocalResult:
    """`settings.steps` steps of SGD with momentum, or of another optimiser, with the proximal term.

    Few steps are compiled one after another and have their batches drawn at once; many are a loop that holds one batch
    at a time, whose loss is a running mean. Where the client does fewer steps than the round has (`given.steps`), the
    others change nothing.

    Args:
      anew: the masks of each step within the client's own; None: the client's own masks.
      correction: added to each gradient, a pytree like the params without their state; None: nothing.
    """
    settings = task.settings
    start, step = _steps(task, given, anew, correction)
    if not settings.long:
        x, y = given.batches.all()
        numbers = jnp.arange(settings.steps)
        end, losses = lax.scan(step, start, (x, y, numbers), unroll=settings.unroll)
        if given.steps is None:
            return _result(task, given, end, jnp.mean(losses))
        return _result(task, given, end, jnp.sum(losses, where=numbers < given.steps) / given.steps)

    def body(number: jax.Array, carry: Any) -> Any:
        carry, mean = carry
        carry, value = step(carry, (*given.batches.one(number), number))
        return carry, mean + (value - mean) / (number + 1)

    steps = settings.steps if given.steps is None else given.steps
    end, mean = lax.fori_loop(0, steps, body, (start, jnp.zeros(())))
    return _result(task, given, end, mean)


def _result(task: LocalTask, given: LocalInput, end: Any, loss: jax.Array) -> LocalResult:
    """What a round ends with, from what its steps carried."""
    params, moments, squares = end
    if task.settings.sum_gradients:
        squares = _squares_of_all(task, squares)
    if not task.settings.keeps_moments:
        return LocalResult(params, loss, squares)
    held = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
    held = apply_masks(task.layout, held, given.masks) if given.masks else held
    return LocalResult(params, loss, squares, kept_where_not_held(held, params, given.kept, moments))


def _steps(task: LocalTask, given: LocalInput, anew: Anew | None, correction: Any) -> tuple[Any, Any]:
    """What a round carries from step to step, and its step for `lax.scan`."""
    model, loss, layout, settings = task.model, task.loss, task.layout, task.settings
    sent, masks, lr = given.params, given.masks, given.lr
    mu, most, optimizer = settings.prox_mu, settings.clip_grad_norm, settings.optimizer
    masked = (lambda tree: apply_masks(layout, tree, masks)) if masks else (lambda tree: tree)

    def rate_at(number: jax.Array) -> jax.Array:
        return lr if settings.lr_schedule is None else lr * settings.lr_schedule.factor(number, settings.steps)

    def batch_loss(p: Any, batch_x: jax.Array, batch_y: jax.Array, step_key: jax.Array) -> tuple[jax.Array, Any]:
        """(mean loss, the model's state after the step)."""
        logits, after = model.step(p, batch_x, step_key)
        return jnp.mean(loss(logits, batch_y)), after

    def loss_and_gradient(
        p: Any, batch_x: jax.Array, batch_y: jax.Array, number: jax.Array
    ) -> tuple[tuple[jax.Array, Any], Any, tuple[jax.Array, ...] | None]:
        """((loss, state after the step), gradient, the step's own masks)."""
        step_key, with_gradient = jax.random.fold_in(given.key, number), jax.value_and_grad(batch_loss, has_aux=True)
        if anew is None:
            return *with_gradient(p, batch_x, batch_y, step_key), None
        here = anew(layout.prunable_leaves(p), number)
        value, gradient = with_gradient(apply_masks(layout, p, here.masks), batch_x, batch_y, step_key)
        gradient = apply_masks(layout, gradient, here.masks)
        if here.factors is not None:
            gradient = layout.map_pruned(gradient, here.factors, jnp.multiply)
        return value, gradient, here.masks

    def step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        p, state, squares = carry
        (value, after), gradient, own = loss_and_gradient(p, *batch)
        if settings.sum_gradients:
            of_step = split_state(gradient)[0]
            of_step = jax.tree.map(jnp.square, of_step) if settings.square_gradients else of_step
            squares = jax.tree.map(jnp.add, squares, of_step)
        elif settings.square_gradients:
            kept = layout.select(gradient if settings.squares_of_all else masked(gradient))
            squares = tuple(s + (g * g).reshape(s.shape) for s, g in zip(squares, kept, strict=True))
        if mu:
            gradient = jax.tree.map(lambda g, w, anchor: g + mu * (w - anchor), gradient, p, sent)
        if correction is not None:
            gradient = {**gradient, **jax.tree.map(jnp.add, split_state(gradient)[0], correction)}
        if after:  # state is not trained: it counts in no norm, and the step writes it
            gradient = with_state(gradient, jax.tree.map(jnp.zeros_like, after))
        if most is not None or optimizer is not None:  # norms and moments are of what the step trains
            gradient = masked(gradient) if own is None else apply_masks(layout, gradient, own)
        if most is not None:
            gradient = shortened(gradient, most)
        rate = rate_at(batch[-1])
        update, state = _transformation(settings, rate).update(gradient, state, p)
        if own is not None:  # moments, weight decay and the proximal term must not move what the step does not train
            update = apply_masks(layout, update, own)
        moved = (lambda w, u: w - rate * u) if optimizer is None else jnp.add
        p = masked(with_state(jax.tree.map(moved, p, update), after))  # statistics of removed channels too
        return (p, state, squares), value

    def own_step(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        after, value = step(carry, batch)
        return jax.tree.map(lambda new, old: jnp.where(batch[-1] < given.steps, new, old), after, carry), value

    squares = tuple(jnp.zeros(layout.shapes[i]) for i in layout.prunable) if settings.square_gradients else ()
    if settings.sum_gradients:
        squares = jax.tree.map(jnp.zeros_like, split_state(sent)[0])
    moments = given.kept if settings.keeps_moments else first_moments(task, sent, lr)
    return (sent, moments, squares), step if given.steps is None or settings.long else own_step


def _squares_of_all(task: LocalTask, sums: Any) -> tuple[jax.Array, ...]:
    """Squares of the prunable leaves, and one sum of those of all others, of sums over steps of gradients or of g^2."""
    layout, squared = task.layout, (lambda leaf: leaf) if task.settings.square_gradients else jnp.square
    squares = {path: squared(leaf) for path, leaf in flat_paths(sums).items()}
    pruned = tuple(squares.pop(layout.paths[i]) for i in layout.prunable)
    return *pruned, sum((jnp.sum(rest) for rest in squares.values()), jnp.zeros(()))


def first_moments(task: LocalTask, params: Any, lr: Any = 0.0) -> Any:
    """The optimiser's state before a client's first step."""
    return _transformation(task.settings, lr).init(params)


def _transformation(settings: LocalSettings, rate: Any) -> Any:
    """What makes updates of gradients; those of SGD are multiplied by the rate afterwards."""
    if settings.optimizer is not None:
        return settings.optimizer.make(rate)
    return optax.trace(decay=settings.momentum) if settings.momentum else optax.identity()


def shortened(gradient: Any, most: float) -> Any:
    """The gradient times min(1, most / its global norm)."""
    norm = optax.tree.norm(gradient)
    factor = jnp.minimum(1.0, most / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
    return jax.tree.map(lambda g: g * factor, gradient)


def make_local_round(model: Model, loss: Loss, layout: Layout, settings: LocalSettings) -> Callable[..., LocalResult]:
    """Returns `local_round(params, masks, x, y, lr, key)`: SGD of one client on given batches.

    Args of the returned function:
      params, masks, lr, key: as in `LocalInput`.
      x, y: float32 `[steps, B, ...]` and int32 `[steps, B]`.
    """
    task = LocalTask(model, loss, layout, settings)

    def local_round(
        params: Any, masks: tuple[jax.Array, ...], x: jax.Array, y: jax.Array, lr: jax.Array, key: jax.Array
    ) -> LocalResult:
        batches = Batches(one=lambda number: (x[number], y[number]), all=lambda: (x, y))
        return sgd_round(task, LocalInput(params, masks, batches, lr, key))

    return local_round
