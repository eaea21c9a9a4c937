"""The local-work seam: what a client does with the model it was sent, as an object.

A `LocalWork` is one function, `round`, from what a client is given to its update, with the traits that others need to
know. Built-in works and plugins are the same kind of object. Shapes: a prunable leaf has one mask; B is the batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from prfl_jax.submodel.client_masks import Choose
from prfl_jax.submodel.rule import SubmodelRule
from prfl_jax.submodel.server_mask import PruningSettings

if TYPE_CHECKING:  # at run time this module needs no JAX: configs are checked without it
    import jax
    import numpy as np

    from prfl_jax.local.factories import OptaxFactory
    from prfl_jax.local.optimizers import LrSchedule
    from prfl_jax.models.build import Model
    from prfl_jax.models.losses import Loss
    from prfl_jax.submodel.layout import Layout

MOST_UNROLLED = 32  # steps; compiling takes as many times longer, and the batches of so many are drawn at once


@dataclasses.dataclass(frozen=True)
class LocalSettings:
    """Settings of one local round.

    Attributes:
      steps: local steps of a round.
      batch_size: B, samples of a step.
      momentum: of the steps.
      prox_mu: mu of the proximal term: mu (w - w_sent) is added to each gradient.
      unroll: compile the steps one after another, not as a loop, up to `MOST_UNROLLED` of them.
      square_gradients: return the sum over steps of g^2 too.
      squares_of_all: these are of all prunable weights, not of those alone that the client holds.
      sum_gradients: return the squares of the sum over steps instead (`LocalWork.sums_gradients`): of all prunable
        weights, held or not, and the sum of the squares of all values that are never pruned. With `square_gradients`
        too, of these values the sum over steps of g^2.
      widths: densities (percent) that a client may draw for a step (`config.density.tiers`); () if none is drawn.
      optimizer: makes the steps from the gradients; None: SGD.
      keeps_moments: whether the optimiser's state (of SGD its momentum) is kept by the client, not begun anew in each
        round.
      clip_grad_norm: a gradient with a larger global norm is shortened to it; None: none is.
      lr_schedule: what the round's learning rate is multiplied by at each step; None: 1.
      pruning: settings of clients that choose their masks (`LocalWork.own_masks`); else None.
      choose_masks: how these choose them; else None.
    """

    steps: int = 5
    batch_size: int = 20
    momentum: float = 0.0
    prox_mu: float = 0.0
    unroll: bool = True
    square_gradients: bool = False
    squares_of_all: bool = False
    sum_gradients: bool = False
    widths: tuple[int, ...] = ()
    optimizer: OptaxFactory | None = None
    clip_grad_norm: float | None = None
    lr_schedule: LrSchedule | None = None
    keeps_moments: bool = False
    pruning: PruningSettings | None = None
    choose_masks: Choose | None = None

    @property
    def long(self) -> bool:
        """Whether a round has too many steps to have their batches drawn at once."""
        return self.steps > MOST_UNROLLED


@dataclasses.dataclass(frozen=True)
class LocalTask:
    """What is the same for every client and round.

    Attributes:
      model, loss: what is trained. `model.apply(params, x, True, key)` gives logits, `loss(logits, y)` one value a
        sample.
      layout: which leaves have masks (`layout.prunable`, positions in `jax.tree.leaves`).
      settings: of a round.
      levels: int8 a prunable leaf, where they are given by the architecture; else None.
    """

    model: Model
    loss: Loss
    layout: Layout
    settings: LocalSettings
    levels: tuple[np.ndarray, ...] | None = None


class Batches(NamedTuple):
    """The batches of one round: samples `[B, ...]` as the model is given them, and targets `[B]` or `[B, T]` int32.

    Attributes:
      one: from the number of a step (int32 from 0, may be traced) to its batch.
      all: () -> the batches of all steps, `[steps, B, ...]`; to be called for few steps only (`LocalSettings.long`).
    """

    one: Callable[[Any], tuple[jax.Array, jax.Array]]
    all: Callable[[], tuple[jax.Array, jax.Array]]


class LocalInput(NamedTuple):
    """What one client is given for one round.

    Attributes:
      params: the sub-model as sent, 0 where masked.
      masks: boolean, in the prunable leaves' shapes; () for the full model.
      batches: of its own samples.
      lr: float32 scalar, the learning rate of the whole round.
      key: of this client's round (from the seed, the client and how many rounds it had begun before).
      density_pct: int32 scalar, the density (percent) of the sub-model.
      present: `[classes]` bool, labels that the client has; None unless the work `reads_labels`.
      client: int32 scalar, the client's number.
      steps: int32 scalar, how many of the round's steps the client does; None: all of them.
      kept: what the client has kept since its last round (`ClientState.init` before the first); () for nothing.
      beside: what the server sent beside the model (`ClientState.server`); () for nothing.
      prunes: bool scalar, whether the client chooses its own masks anew (`LocalWork.own_masks`).
    """

    params: Any
    masks: tuple[jax.Array, ...]
    batches: Batches
    lr: jax.Array
    key: jax.Array
    density_pct: Any = 100
    present: Any = None
    client: Any = 0
    steps: Any = None
    kept: Any = ()
    beside: Any = ()
    prunes: Any = False


class LocalResult(NamedTuple):
    """A client update.

    Attributes:
      params: the trained sub-model, 0 where masked.
      loss: float32 scalar, the mean training loss.
      squares: the sum over steps of g^2 in the prunable leaves' shapes; () unless `LocalSettings.square_gradients`.
        With `sum_gradients` the squares of the sums of g, and one scalar more, for all values that are never pruned.
      kept: what the client keeps until its next round, like `LocalInput.kept`. It counts once the update has arrived:
        a round that fails leaves what was kept before.
    """

    params: Any
    loss: jax.Array
    squares: tuple[jax.Array, ...]
    kept: Any = ()


@dataclasses.dataclass(frozen=True)
class ClientState:
    """What each client keeps between its rounds, and what the server keeps beside the model.

    The engine holds it for all N clients: it is read for a dispatch and committed once, when that dispatch's update
    arrives.

    Attributes:
      init: (task, params) -> what a client has before its first round, a pytree of arrays; traced.
      server: params -> what the server sends beside the model, before the first window, float32; None: nothing.
      change: (kept before, kept after) -> a pytree like the server's: at the close of a window the server's moves by
        the sum of its arrivals' changes over N. None where `server` is.
    """

    init: Callable[[LocalTask, Any], Any]
    server: Callable[[Any], Any] | None = None
    change: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class LocalWork:
    """One choice of `local.name`.

    Attributes:
      round: (task, given) -> the client's update; called under `jax.jit`, for one client or under `vmap`. Masked values
        must stay exactly 0; those of a plugin are set to 0 after it (`plugin_check.py`).
      counted: (task, masks, present) -> the masks with which the update enters the average; None: those it was sent.
      reads_labels: whether it needs `LocalInput.present`.
      fits: whether the work is possible with sub-models of a rule.
      proximal: whether it needs `local.prox_mu` above 0.
      draws_widths: whether it needs `LocalSettings.widths`.
      takes_optimizer: whether its steps follow `optimizer`, `clip_grad_norm` and `lr_schedule` of `LocalSettings`, as
        those of `sgd.sgd_round` do; without it these settings are refused.
      plain_steps: whether the steps must be lr times a gradient: momentum is refused too.
      own_steps: whether each client does as many steps as fit the time of the median client (`LocalInput.steps`).
      prox_mu: mu of the proximal term where `local.prox_mu` is 0.
      client_state: what clients keep between their rounds; None: nothing.
      own_masks: whether clients choose masks of their own, which `LocalResult.kept.bits` has packed: with these an
        update counts, not with those of the model that was sent.
      any_width: whether `round` may be given a narrower network, with all of the client's channels and as few others as
        there is a width for (`engine/widths.py`): `task` has its model, layout and levels, `given` its params, masks
        and what is kept and sent beside.
      sums_gradients: whether `round` can return what `LocalSettings.sum_gradients` asks for.
    """

    round: Callable[[LocalTask, LocalInput], LocalResult]
    counted: Callable[[LocalTask, tuple[Any, ...], Any], tuple[Any, ...]] | None = None
    reads_labels: bool = False
    fits: Callable[[SubmodelRule], bool] = lambda rule: True
    proximal: bool = False
    draws_widths: bool = False
    takes_optimizer: bool = False
    plain_steps: bool = False
    own_steps: bool = False
    prox_mu: float = 0.0
    client_state: ClientState | None = None
    own_masks: bool = False
    any_width: bool = False
    sums_gradients: bool = False

    @property
    def sends_beside(self) -> bool:
        """Whether the server and the clients send values beside the model, as many as it has."""
        return self.client_state is not None and self.client_state.server is not None
