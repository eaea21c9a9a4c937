"""`Setting`, a column of the edge pruning study, its methods, and which settings a table or figure shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.config.canonical import assign
from prfl_jax.report.names import strategy_name
from prfl_jax.studies.columns import Column
from prfl_jax.studies.edge_pruning import paper
from prfl_jax.studies.edge_pruning.devices import DENSE

# All that are compared, in the order of tables and colours.
METHODS = ("layerwise", "threshold", "prunefl", "conventional", "snip", "iterative", "fedavg")
VANILLA = "fedavg"  # never prunes
SAMPLED_METHODS = ("layerwise", VANILLA)  # of Figs. 12 and 13
_NAMES = {VANILLA: "FedAvg, no pruning"}

# Keys that one method has otherwise than all others.
_TARGET = {"pruning.density": paper.TABLE3["layerwise"].retention}  # of Table 3's rows with a target
OWN_SETTINGS: dict[str, dict[str, Any]] = {VANILLA: DENSE, "snip": _TARGET, "iterative": _TARGET}


def method_name(method: str) -> str:
    """The name of a method in this study."""
    return _NAMES.get(method, strategy_name(method))


@dataclasses.dataclass(frozen=True)
class Setting(Column):
    """A column of the edge pruning study.

    Attributes:
      sampled: whether it has Complement Sparsification's set-up, users drawn anew each round (Figs. 12 and 13).
      variant: what it changes of the base setting; "" for a setting in its own right.
      width: of Conv2.
      rounds: of a run.
      own: keys that one method has otherwise than all others, by method.
    """

    sampled: bool = False
    variant: str = ""
    width: float = 1.0
    rounds: int = 0
    own: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: OWN_SETTINGS, hash=False)

    def config(self, method: str, seed: int) -> Any:
        """As the base class, then the method's own settings."""
        c = super().config(method, seed)
        c.rounds = self.rounds
        for key, value in self.own.get(method, {}).items():
            assign(c, key, value)
        return c

    @property
    def is_base(self) -> bool:
        """Whether all clients take part in each round, and nothing is varied."""
        return not self.sampled and not self.variant


def settings_of(columns: Sequence[Column]) -> list[Setting]:
    """The columns as what they are."""
    return [column for column in columns if isinstance(column, Setting)]


def bases(columns: Sequence[Column]) -> list[Setting]:
    """The settings of Tables 2 and 3."""
    return [setting for setting in settings_of(columns) if setting.is_base]


def sampled(columns: Sequence[Column]) -> list[Setting]:
    """The settings of Figs. 12 and 13."""
    return [setting for setting in settings_of(columns) if setting.sampled]
