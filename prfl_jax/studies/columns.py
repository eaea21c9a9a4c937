"""What studies compare: `Column`, a setting of data, network and clients, and `Preset`, the columns of one size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from prfl_jax import strategies
from prfl_jax.config.canonical import assign
from prfl_jax.config.cli import parse_value
from prfl_jax.config.defaults import ENDLESS, default_config
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Column:
    """One setting in which methods are compared.

    Attributes:
      key: names its files.
      title: names it for a reader.
      change: sets the keys of a config that is not a method's.
      thresholds: levels of the task's metric, to which times are measured.
      why: why this horizon and these thresholds.
      paper: names the paper's column beside it, None where there is none.
      methods: rows of `strategies.METHODS`.
    """

    key: str
    title: str
    change: Callable[[Any], None]
    thresholds: tuple[float, ...]
    why: str
    paper: Any
    methods: tuple[str, ...]

    def config(self, method: str, seed: int) -> Any:
        """The config of one run; methods differ in their row of six choices alone."""
        c = strategies.use(default_config(), method)
        c.seed = seed
        c.rounds = ENDLESS
        c.eval.thresholds = self.thresholds
        self.prepare(c)
        self.change(c)
        return c

    def prepare(self, config: Any) -> None:
        """Sets the keys that all columns of a study share, before `change`."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """The columns of one size.

    Attributes:
      clock_windows: what is made by the clock alone runs so many windows.
      mark: is printed on every table and figure.
    """

    name: str
    columns: tuple[Column, ...]
    clock_windows: int
    mark: str = ""

    def only(self, settings: Sequence[str]) -> Preset:
        """The columns with these keys.

        Raises:
          UserError: no such column.
        """
        known = [column.key for column in self.columns]
        for key in settings:
            if key not in known:
                raise UserError(f"--settings={key}: allowed with --preset={self.name} are {', '.join(known)}")
        return dataclasses.replace(self, columns=tuple(c for c in self.columns if c.key in settings))

    def changed(self, changes: Sequence[str]) -> Preset:
        """Every column with keys of the config changed for all methods alike, under a name of its own.

        Args:
          changes: `KEY=VALUE` each, such as `local.lr=1.0`.

        Raises:
          UserError: no such key, or not a value of it.
        """
        values: dict[str, object] = {}
        for text in changes:
            key, found, value = text.partition("=")
            if not found or key in ("strategy", "seed"):
                raise UserError(f"--change={text}: allowed is KEY=VALUE, with a key other than strategy and seed")
            values[key] = parse_value(key, value)

        def column(old: Column) -> Column:
            def change(config: Any) -> None:
                old.change(config)
                for key, value in values.items():
                    assign(config, key, value)

            key, what = "_".join([old.key, *changes]).replace("/", "_"), ", ".join(changes)
            why = f"The preset's setting, but with {what}."
            return dataclasses.replace(old, key=key, title=f"{old.title}, but {what}", change=change, why=why)

        return dataclasses.replace(self, columns=tuple(column(old) for old in self.columns))
