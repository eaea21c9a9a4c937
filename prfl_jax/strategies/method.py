"""`Method`: one row of the table of strategies, six choices by name; `WindowChoice`, the choice of its windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class WindowChoice:
    """The window seam, itself three choices (docs/clock.md).

    Attributes:
      close: when a window ends.
      first_waits_for_all: whether the first one waits for every client.
      dispatch: who is sent the new model, and when.
    """

    close: str
    first_waits_for_all: bool
    dispatch: str


@dataclasses.dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      submodel, density, aggregation, window, transport, local: the six choices, by name.
      source: where the method comes from.
      optimizer: how the server steps towards the aggregate; of the same seam as `aggregation`.
      upload: which part of their updates clients send; of the same seam as `transport`.
      staleness_a: the constant a of s(tau) by kind of staleness, where the method's authors use another one than the
        kind's default.
    """

    submodel: str
    density: str
    aggregation: str
    window: WindowChoice
    transport: str
    local: str
    source: str
    optimizer: str = "none"
    staleness_a: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    upload: str = "whole"

    def keys(self) -> dict[str, str | bool]:
        """The row as dotted config keys; every row sets the same ones, so that switching leaves nothing behind."""
        return {
            "submodel.name": self.submodel,
            "density.name": self.density,
            "aggregation.name": self.aggregation,
            "aggregation.optimizer": self.optimizer,
            "aggregation.optimizer_args": "{}",
            "window.close": self.window.close,
            "window.first_waits_for_all": self.window.first_waits_for_all,
            "window.dispatch": self.window.dispatch,
            "transport.name": self.transport,
            "transport.upload": self.upload,
            "local.name": self.local,
        }


# Windows that more than one method uses.
FIXED = WindowChoice(close="fixed", first_waits_for_all=True, dispatch="window_end")
FIXED_FROM_THE_START = dataclasses.replace(FIXED, first_waits_for_all=False)
EVERYBODY = WindowChoice(close="all", first_waits_for_all=False, dispatch="window_end")
