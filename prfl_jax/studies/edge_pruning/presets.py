"""Presets of the edge pruning study: the paper's clients and Complement Sparsification's set-up, and their methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from prfl_jax.studies.columns import Preset
from prfl_jax.studies.edge_pruning import paper
from prfl_jax.studies.edge_pruning.devices import set_devices
from prfl_jax.studies.edge_pruning.setting import METHODS, OWN_SETTINGS, SAMPLED_METHODS, Setting

Change = Callable[[Any], None]


@dataclasses.dataclass(frozen=True)
class Data:
    """What the columns of one data set share.

    Attributes:
      key, title: of its columns.
      change: sets the data.
      width: of Conv2.
      rounds: of a run; `sampled_rounds`: of one with drawn users.
      eval_every_s: the evaluation grid.
      thresholds: levels whose times are compared.
      why: how these were chosen.
      own: keys that one method has otherwise than all others, by method.
    """

    key: str
    title: str
    change: Change
    width: float
    rounds: int
    sampled_rounds: int
    eval_every_s: float
    thresholds: tuple[float, ...]
    why: str
    own: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: OWN_SETTINGS)

    def base(self, methods: tuple[str, ...] = METHODS) -> Setting:
        """Five clients, each with a fifth of the writers."""
        return self._setting(methods, lambda c: None)

    def variant(self, name: str, title: str, methods: tuple[str, ...], change: Change) -> Setting:
        """The base setting but for what `change` sets."""
        made = self._setting(methods, change)
        return dataclasses.replace(made, key=f"{self.key}_{name}", title=f"{made.title}, {title}", variant=title)

    def sampled(self, methods: tuple[str, ...] = SAMPLED_METHODS) -> Setting:
        """Each writer a client, of which ten are drawn each round; initial pruning stops at 55 % sparsity."""

        def change(c: Any) -> None:
            c.clients.number, c.window.cohort = c.data.writers, paper.SAMPLED
            c.engine.devices = 1  # where what a drawn client keeps stays
            c.pruning.initial_density = 1.0 - paper.STOP_SPARSITY

        made = self._setting(methods, change)
        title = f"{made.title}, 10 writers drawn a round"
        return dataclasses.replace(
            made, key=f"{self.key}_sampled", title=title, sampled=True, rounds=self.sampled_rounds
        )

    def _setting(self, methods: tuple[str, ...], change: Change) -> Setting:
        def changed(c: Any) -> None:
            c.eval_every_s = self.eval_every_s
            c.clients.number, c.model.width = 5, self.width
            c.data.partition = "writer"
            set_devices(c)
            self.change(c)
            change(c)

        return Setting(
            self.key, self.title, changed, self.thresholds, self.why, None, methods, width=self.width,
            rounds=self.rounds, own=self.own,
        )  # fmt: skip


def round_gradients(c: Any) -> None:
    """Squared gradients of the pruning round alone, instead of all since the last pruning."""
    c.pruning.gradients = "round"


def _written(data: str, normalize: str, test: int | None) -> Change:
    def change(c: Any) -> None:
        c.data.name, c.data.normalize = data, normalize
        c.data.test_limit, c.data.holdout_max = test, 200

    return change


ROUND_GRADIENTS = ("gradients_round", "gradients of the pruning round alone")


def _columns(data: Data) -> tuple[Setting, ...]:
    return (data.base(), data.sampled(), data.variant(*ROUND_GRADIENTS, ("layerwise",), round_gradients))


def cpu() -> Preset:
    """Conv2 of a quarter of the width on MNIST by writer, 2,000 rounds: at most 20 minutes a run on one core."""
    why = (
        "Levels, rounds, learning rate and evaluation grid stand since before any two methods were compared; learning "
        "rate, batch and local steps are PruneFL's, and digits are easier than the paper's 62 classes"
    )
    mnist = Data(
        key="mnist",
        title="MNIST by writer (for FEMNIST), Conv2 of a quarter of the width",
        change=_written("mnist_by_writer", "unit", 1000),
        width=0.25,
        rounds=2000,
        sampled_rounds=1000,
        eval_every_s=200.0,
        thresholds=(0.90, 0.95),
        why=why,
    )
    return Preset("cpu", _columns(mnist), 0)


def full() -> Preset:
    """The paper's data, network and rounds."""
    femnist = Data(
        "femnist", "FEMNIST, Conv2", _written("femnist", "inverted", None), 1.0, paper.ROUNDS, 2000, 100.0,
        paper.THRESHOLDS, "The paper's rounds and levels; learning rate, batch and local steps are PruneFL's",
    )  # fmt: skip
    return Preset("full", _columns(femnist), 0)


def smoke() -> Preset:
    """All of it in about three minutes; the numbers mean nothing."""

    def change(c: Any) -> None:
        c.data.name, c.data.partition = "mnist_embedded", "dirichlet"
        c.data.train_limit, c.data.test_limit, c.data.holdout_max, c.data.writers = 1000, 100, 50, 14
        c.local.steps, c.local.batch_size, c.local.lr = 2, 5, 0.3
        c.pruning.interval, c.pruning.initial_steps, c.pruning.initial_rounds = 3, 2, 2

    own = OWN_SETTINGS | {"iterative": OWN_SETTINGS["iterative"] | {"pruning.times": 2}}
    digits = Data("digits", "smoke test", change, 0.1, 10, 8, 20.0, (0.03, 0.06), "as short as can be", own)
    return Preset("smoke", _columns(digits), 0, mark="SMOKE TEST: these numbers mean nothing")
