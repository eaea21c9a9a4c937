"""`Setting`, a column of the FedMP study, and which settings a table or figure compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prfl_jax.config.defaults import default_config
from prfl_jax.density.choices import setting_in_force
from prfl_jax.report.names import strategy_name
from prfl_jax.studies.columns import Column
from prfl_jax.studies.fedmp.paper import MIXTURES
from prfl_jax.studies.fedmp.workers import SCENARIOS, in_clusters

SYN_FL = "fedavg"
OUTSIDE = (*MIXTURES, "fedmp_literal")  # rows that the paper's tables do not have
_NAMES = {SYN_FL: "Syn-FL", "fedprox": "FedProx"}  # as the paper has them

# What the base setting of a network has of that which other settings vary.
BASE_VALUES: dict[str, Any] = {
    "scenario": "medium",
    "theta": setting_in_force("bandit", "theta", None),
    "ratio": 0.0,
    "noniid": 0,
    "workers": 10,
    "floor": default_config().density.min_density,
}
# what is varied of the pruning alone: Syn-FL's runs are those of the base setting
OF_PRUNING = ("theta", "ratio", "floor")


def method_name(method: str) -> str:
    """The name of a method in the FedMP paper."""
    return _NAMES.get(method, strategy_name(method))


@dataclasses.dataclass(frozen=True)
class Setting(Column):
    """A column of the FedMP study.

    Attributes:
      network: cnn | alexnet | vgg19 | resnet50 | lstm.
      sweep: what is varied: scenario | theta | ratio | noniid | workers | floor; "" for the base column of a network.
      value: of what is varied.
      target: level of the task's metric whose time is compared, one of `thresholds`.
    """

    network: str = ""
    sweep: str = ""
    value: Any = None
    target: float = 0.0

    def prepare(self, config: Any) -> None:
        """As the base class: m of Algorithm 2 (section V-H)."""
        config.window.k = 5

    @property
    def is_base(self) -> bool:
        """Whether it is the base setting of its network."""
        return not self.sweep

    @property
    def language(self) -> bool:
        """Whether its task is the language model of Table IV."""
        return self.network == "lstm"

    def clusters(self, workers: int) -> list[str]:
        """The cluster of each worker, `[workers]`."""
        return in_clusters(self.value if self.sweep == "scenario" else BASE_VALUES["scenario"], workers)


def settings_of(columns: Sequence[Column]) -> list[Setting]:
    """The columns as what they are."""
    return [column for column in columns if isinstance(column, Setting)]


def bases(columns: Sequence[Column]) -> list[Setting]:
    """The base settings, one for each network."""
    return [setting for setting in settings_of(columns) if setting.is_base]


def swept(columns: Sequence[Column], sweep: str) -> dict[str, list[tuple[Any, Setting]]]:
    """Network -> (value, setting) in ascending order, the base setting among them, of what `sweep` names.

    Networks of which nothing is varied are left out; values of a scenario ascend from low to high.
    """
    places = {scenario: place for place, scenario in enumerate(SCENARIOS)}
    found: dict[str, list[tuple[Any, Setting]]] = {}
    for setting in settings_of(columns):
        if setting.sweep == sweep:
            found.setdefault(setting.network, []).append((setting.value, setting))
    for setting in bases(columns):
        if setting.network in found and sweep in BASE_VALUES:
            found[setting.network].append((BASE_VALUES[sweep], setting))
    return {network: sorted(own, key=lambda one: places.get(one[0], one[0])) for network, own in found.items()}
