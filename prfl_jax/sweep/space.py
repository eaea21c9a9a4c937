"""The space of a sweep: which config keys are searched, and the values or the range of each."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers import RandomSampler

from prfl_jax import strategies
from prfl_jax.config.canonical import assign
from prfl_jax.config.cli import load_python
from prfl_jax.config.schema import RULES, unknown
from prfl_jax.config.validate import validate
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import user_path

_FORMS = "a list of values, or an Optuna FloatDistribution, IntDistribution or CategoricalDistribution"


@dataclasses.dataclass(frozen=True)
class Space:
    """Distributions by config key, in the file's order.

    Attributes:
      texts: key -> text -> value, of choices that are no plain values (tuples), which a database holds as text.
    """

    keys: dict[str, BaseDistribution]
    texts: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: str) -> Space:
        """From a file with `get_space() -> dict`, dotted key -> list of values or Optuna distribution.

        Raises:
          UserError: the file cannot be read or run, or a key or value is not allowed.
        """
        found = load_python("space", user_path("--space", path), "get_space", dict, "a dict of config keys")
        keys: dict[str, BaseDistribution] = {}
        texts: dict[str, dict[str, Any]] = {}
        for key, form in found.items():
            if key not in RULES:
                raise UserError(f"--space={path}: {unknown(key)}")
            if key == "task.name":
                raise UserError(f"--space={path}: {key}: allowed is one task for all trials, whose metric is compared")
            if isinstance(form, list | tuple):
                form = CategoricalDistribution([_plain(value) for value in form]) if form else None
                texts[key] = {_plain(value): value for value in found[key] if not _is_plain(value)}
            if not isinstance(form, FloatDistribution | IntDistribution | CategoricalDistribution):
                raise UserError(f"--space={path}: {key}: allowed is {_FORMS}, not {found[key]!r}")
            keys[key] = form
            for value in form.choices if isinstance(form, CategoricalDistribution) else (form.low, form.high):
                value = _meant(texts.get(key, {}), value)
                if not RULES[key].accepts(value):
                    raise UserError(f"--space={path}: {key}={value!r}: allowed is {RULES[key].allowed}")
        if not keys:
            raise UserError(f"--space={path}: allowed is at least one key")
        return cls(keys, texts)

    def to_json(self) -> str:
        """The same for the same space."""
        return json.dumps({key: json.loads(distribution_to_json(form)) for key, form in self.keys.items()})

    def config(self, base: Any, values: Mapping[str, Any]) -> Any:
        """A copy of `base` with these values; a strategy's row first.

        Raises:
          UserError: the values do not go together.
        """
        config = copy.deepcopy(base).unlock()
        if "strategy" in values:
            strategies.use(config, values["strategy"])
        for key, value in values.items():
            if key != "strategy":
                assign(config, key, _meant(self.texts.get(key, {}), value))
        validate(config)
        return config.lock()

    def grid(self) -> list[dict[str, Any]]:
        """All combinations, the last key changing fastest.

        Raises:
          UserError: a key has no list of values.
        """
        choices = []
        for key, form in self.keys.items():
            if not isinstance(form, CategoricalDistribution):
                raise UserError(f"--sampler=grid: {key} has a range; allowed is a list of values for every key")
            choices.append(form.choices)
        return [dict(zip(self.keys, values, strict=True)) for values in itertools.product(*choices)]

    def draw(self, seed: int, number: int) -> dict[str, Any]:
        """The random values of trial `number`: the same whoever asks, and however many there are."""
        sampler = RandomSampler(seed=(seed * 1_000_003 + number) % 2**32)
        # of the study and the trial a random sampler wants to know nothing
        return {key: sampler.sample_independent(None, None, key, form) for key, form in self.keys.items()}  # type: ignore[arg-type]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _meant(texts: dict[str, Any], value: Any) -> Any:
    """What a choice stands for."""
    return texts.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return value if _is_plain(value) else repr(value)
