"""Makes the config of a strategy that a run is compared with: its row, plus this run's overrides where they apply.

Nothing here imports jax.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from prfl_jax import strategies
from prfl_jax.aggregate import find_aggregation
from prfl_jax.clock import find_close_rule
from prfl_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Compared:
    """The other strategy's `config`, and the overrides of this run that it `lacks`, in words, with the reason."""

    config: Any
    lacks: tuple[str, ...]


def compared(cfg: Any, name: str, check: Callable[[Any], None]) -> Compared:
    """The config of strategy `name` beside the run of `cfg`, all else equal.

    Groups that no row sets (data, clients, faults, attack, privacy, ...) and the settings inside a seam (clip_norm,
    deadline_share, ...) are this run's. Of the keys that rows do set, the other row counts, but

    - what this run overrides in its own row is overridden in the other one too where both rows agree in it;
    - a robust aggregation (one that withstands attacks) takes the place of any weighted mean of models;
    - a deadline takes the place of windows that wait for all clients.

    An override that `check` refuses is left out, and so is one that would make the other run equal to this one, or to
    the run of an earlier row of the table: an ablation keeps the choice that defines it.

    Args:
      cfg: a config that is valid by itself.
      check: raises UserError for a config that cannot run.

    Raises:
      UserError: the other strategy cannot run with the keys of no row, as `check` says it.
    """
    base = strategies.for_comparison(cfg, name)
    mine, theirs = strategies.row(cfg.strategy), strategies.row(name)
    lacks: list[str] = []
    kept: dict[str, Any] = {}
    for key in mine:
        value = _at(cfg, key)
        if value == mine[key] or value == theirs[key]:
            continue
        matters, why = _matters(key, value, mine, theirs)
        if not matters:
            continue
        if why is None:
            why = _refused(base, {**kept, key: value}, check)
        if why is None and _is_this_run(cfg, theirs, {**kept, key: value}):
            why = "with it this would be the same run again"
        if why is None and (twin := _twin(name, key, value, mine)):
            why = f"its own, {theirs[key]}, is all that sets it apart from {twin}"
        if why is None:
            kept[key] = value
        else:
            lacks.append(f"{key}={value!r} ({why})")
    other = _with(base, kept)
    check(other)
    return Compared(other, tuple(lacks))


def not_taken_over(cfg: Any, check: Callable[[Any], None]) -> list[str]:
    """A line for each strategy of `compare` that lacks an override of this run; [] if none does."""
    lines = []
    for name in cfg.compare:
        lacks = compared(cfg, name, check).lacks if name != cfg.strategy else ()
        if lacks:
            lines.append(f"config.compare: {name} runs without this run's {'; '.join(lacks)}")
    return lines


def _matters(key: str, value: Any, mine: dict[str, Any], theirs: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether an override is to be taken over, and why it cannot be, if so."""
    if key == "aggregation.name" and find_aggregation(value).robust:
        if mine[key] == theirs[key] or find_aggregation(theirs[key]).mean:
            return True, None
        return True, f"its own, {theirs[key]}, is no weighted mean of models"
    if key == "window.close" and find_close_rule(value).cuts_off:
        if find_close_rule(theirs[key]).synchronous or theirs[key] == mine[key]:
            return True, None
        return True, f"its windows, {theirs[key]}, wait for no client that is late"
    return mine[key] == theirs[key], None


def _refused(base: Any, values: dict[str, Any], check: Callable[[Any], None]) -> str | None:
    """Why the config cannot run with these values, though it can without them."""
    try:
        check(_with(base, values))
    except UserError as error:
        return str(error)
    return None


def _is_this_run(cfg: Any, theirs: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether the other row with these values is what this run has, and without them is not."""
    with_them = {**theirs, **values}
    return all(_at(cfg, key) == value for key, value in with_them.items())


def _twin(name: str, key: str, value: Any, mine: dict[str, Any]) -> str | None:
    """An earlier row from which `name` differs in the seam of `key` alone, and with this value no more."""
    theirs, seam = strategies.row(name), _seam(key)
    for other in strategies.ROWS:
        if other == name:
            return None
        row = strategies.row(other)
        apart = {_seam(k) for k in theirs if theirs[k] != row[k]}
        if apart == {seam} and (row[key] == value or _matters(key, value, mine, row) == (True, None)):
            return other
    return None


def _seam(key: str) -> str:
    """The seam of a key of a row; the server's optimiser, its arguments and the upload count as seams of their own."""
    return key if key.startswith(("aggregation.optimizer", "transport.upload")) else key.partition(".")[0]


def _with(base: Any, values: dict[str, Any]) -> Any:
    other = copy.deepcopy(base)
    with other.unlocked():
        other.update_from_flattened_dict(values)
    return other


def _at(cfg: Any, key: str) -> Any:
    group, _, leaf = key.partition(".")
    return cfg[group][leaf]
