"""The schema of a config: one table, dotted key -> `Rule`, of what each key may be.

A rule holds the type, the test of a value and the same in words. A key that names a choice has the rule of that
choice's `Registry`, in the choice's room. The command line, the check of a whole config and the JSON form all read
this table.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable
from typing import Any

from prfl_jax import registry, strategies
from prfl_jax.aggregate import AGGREGATIONS, CLIENT_WEIGHTS, SERVER_OPTIMIZERS, STALENESS
from prfl_jax.clock import CLOSE_RULES, DISPATCH_RULES, TRANSPORTS
from prfl_jax.data import AUGMENTATIONS, DATA_SETS, NORMALIZATIONS, PARTITIONS, SIGNALS, TARGETS, UNITS
from prfl_jax.density import DENSITIES, LOSS_CHANGES, SCALES
from prfl_jax.density import RULES as BALANCE_RULES
from prfl_jax.local import LOCAL_WORKS, LR_SCHEDULES, OPTIMIZERS
from prfl_jax.models.choices import INITS, LOSSES, MODELS, NORMS, STATES
from prfl_jax.robustness.attack_rules import ATTACKS
from prfl_jax.submodel import IMPORTANCES, SUBMODELS
from prfl_jax.system import keyword_args
from prfl_jax.system.errors import UserError, shorten, shown
from prfl_jax.tasks import TASKS
from prfl_jax.transport import BYTE_RULES, UPLOADS


@dataclasses.dataclass(frozen=True)
class Rule:
    """What one key may be.

    Args:
      type: of the value, or of each element where `many`.
      test: whether a value (or element) of that type is allowed.
      allowed: the same in words, to follow "allowed is".
      many: the value is a tuple.
      optional: None is allowed too.
      per_client: a tuple of one element per client (`clients.number`), or of fewer that are repeated in turn.
    """

    type: type
    test: Callable[..., bool]
    allowed: str
    many: bool = False
    optional: bool = False
    per_client: bool = False

    def accepts(self, value: object) -> bool:
        if value is None:
            return self.optional
        try:
            if not self.many:
                return _is(value, self.type) and self.test(value)
            return isinstance(value, tuple | list) and all(_is(v, self.type) and self.test(v) for v in value)
        except Exception:  # numbers that no float holds, objects that cannot be compared
            return False

    def canonical(self, value: object) -> object:
        """An accepted value as plain Python: int, float, bool, str, None or a tuple of them."""
        if value is None:
            return None
        if isinstance(value, tuple | list):
            return tuple(self.type(v) for v in value)
        return self.type(value)


class _Arguments(Rule):
    """The rule of keyword arguments as JSON text: texts of the same arguments are one value."""

    def canonical(self, value: object) -> object:
        return keyword_args.canonical(str(value))


def _is(value: object, type_: type) -> bool:
    # A bool counts as an int in Python, and an int is a fine float; here only the second is meant.
    if type_ is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if type_ is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, type_)


def _choice(*names: str) -> Rule:
    return Rule(str, lambda v: v in names, f"one of {', '.join(names)}")


def _choice_or_own(*names: str) -> Rule:
    return Rule(str, lambda v: v in names or registry.is_own(v), f"one of {', '.join(names)}, or {registry.WORDS}")


def _named(choices: registry.Registry[Any], **more: bool) -> Rule:
    """The rule of a key whose value names a choice."""
    return Rule(str, choices.accepts, choices.allowed + _or_none(more), **more)


def _integer(low: int, high: int = 10**9, **more: bool) -> Rule:
    words = f"an integer from {low} to {high}"
    return Rule(int, lambda v: low <= v <= high, words + _or_none(more), **more)


def _number(test: Callable[[float], bool], words: str, **more: bool) -> Rule:
    return Rule(float, test, f"a finite number {words}" + _or_none(more), **more)


# Bounds far beyond any use keep sums and quotients of seconds, bytes and FLOP finite.
def _positive(low: float = 1e-9, high: float = 1e12, **more: bool) -> Rule:
    return _number(lambda v: low <= v <= high, f"> 0 (from {low:g} to {high:g})", **more)


def _not_negative(high: float = 1e12, **more: bool) -> Rule:
    return _number(lambda v: 0 <= v <= high, f">= 0 and at most {high:g}", **more)


def _speeds(words: str, low: float, high: float) -> Rule:
    words = f"{words}, each from {low:g} to {high:g}"
    return Rule(float, lambda v: low <= v <= high, words, many=True, per_client=True)


def _or_none(more: dict[str, bool]) -> str:
    return " or None" if more.get("optional") else ""


def _seconds(low: float) -> Rule:
    words = f"() or a tuple of seconds, one per client, each from {low:g} to 1e+12"
    return Rule(float, lambda v: low <= v <= 1e12, words, many=True, per_client=True)


MB_S = (1e-4, 1e9)
ARGUMENTS = _Arguments(str, keyword_args.is_arguments, keyword_args.WORDS)
FLAG = Rule(bool, lambda v: True, "True or False")
FRACTION = _number(lambda v: 0 < v <= 1, "in (0, 1]")
PROBABILITY = _number(lambda v: 0 <= v < 1, "in [0, 1)")  # with 1 a window that asks for arrivals would never end
CSV = Rule(str, lambda v: v.strip() != "" and "\0" not in v, "the path of a CSV file or None", optional=True)


def _whole_percent(density: float) -> bool:
    return 0 < density <= 1 and abs(100 * density - round(100 * density)) < 1e-9 and round(100 * density) >= 1


RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**32 - 1),
    "strategy": _choice(*strategies.ROWS),
    "rounds": _integer(1),
    "horizon_s": _positive(optional=True),
    "eval_every_s": _positive(),
    "compare": Rule(
        str, lambda v: v in strategies.ROWS, f"a tuple of strategies among {', '.join(strategies.ROWS)}", many=True
    ),
    "stop_early": FLAG,
    "data.name": _named(DATA_SETS),
    "data.dir": Rule(str, lambda v: v.strip() != "" and "\0" not in v, "a folder or None", optional=True),
    "data.partition": _named(PARTITIONS),
    "data.alpha": _positive(),
    "data.labels_per_client": _integer(1),
    "data.fedmp_level": _integer(0, 100),
    "data.writers": _integer(1),
    "data.split_writers_over": _integer(1, optional=True),
    "data.min_images_per_writer": _integer(1),
    "data.train_limit": _integer(1, optional=True),
    "data.test_limit": _integer(1, optional=True),
    "data.context": _integer(2, 10**6),
    "data.vocabulary": _integer(1, 10**6 - 1),
    "data.unit": _named(UNITS),
    "data.targets": _named(TARGETS),
    "data.holdout_fraction": _number(lambda v: 0 <= v < 1, "in [0, 1)"),
    "data.holdout_max": _integer(1),
    "data.augment": _named(AUGMENTATIONS),
    "data.normalize": _named(NORMALIZATIONS),
    "model.name": _named(MODELS),
    "model.width": _positive(1e-3, 100.0),
    "model.classes": _integer(2, optional=True),
    "model.init": _named(INITS),
    "model.size_mb": _positive(1e-6, 1e7, optional=True),
    "model.loss": _named(LOSSES),
    "model.norm": _named(NORMS),
    "model.state": _named(STATES),
    "task.name": _named(TASKS),
    "clients.number": _integer(1),
    "clients.up_mb_s": _speeds("a tuple of numbers > 0 (MB/s), one per client", *MB_S),
    "clients.down_mb_s": _speeds("a tuple of numbers > 0 (MB/s), one per client", *MB_S),
    "clients.flop_s": _speeds("() or a tuple of numbers > 0 (FLOP/s), one per client", 1.0, 1e21),
    "clients.step_s": _seconds(0.0),
    "clients.weight_s": Rule(float, lambda v: 0 <= v <= 1e6, "() or a tuple of s, each from 0 to 1e6", many=True),
    "clients.sigma": _not_negative(3.0),
    "server.up_mb_s": _positive(*MB_S),
    "server.down_mb_s": _positive(*MB_S),
    "server.sigma": _not_negative(3.0),
    "server.contention": FLAG,
    "local.name": _named(LOCAL_WORKS),
    "local.steps": _integer(1),
    "local.batch_size": _integer(1),
    "local.lr": _positive(high=1e38),  # float32 holds it; what does not stay finite is reported
    "local.optimizer": _named(OPTIMIZERS),
    "local.optimizer_args": ARGUMENTS,
    "local.optimizer_state": _choice("reset", "kept"),
    "local.clip_grad_norm": _positive(optional=True),
    "local.lr_schedule": _named(LR_SCHEDULES),
    "local.prox_mu": _not_negative(),
    "local.momentum": _number(lambda v: 0 <= v < 1, "in [0, 1)"),
    "local.lr_decay": FRACTION,
    "local.lr_decay_rounds": _integer(1),
    "local.lr_dt_ref_s": _positive(optional=True),
    "submodel.name": _named(SUBMODELS),
    "submodel.importance": _named(IMPORTANCES),
    "pruning.interval": _integer(1),
    "pruning.share": PROBABILITY,
    "pruning.votes": FRACTION,
    "pruning.initial_votes": FRACTION,
    "pruning.votes_above": FLAG,
    "pruning.initial_density": FRACTION,
    "pruning.initial_rounds": _integer(0, 1000, optional=True),
    "pruning.initial_steps": _integer(1),
    "pruning.recovered": _choice("zero", "stale"),
    "pruning.gradients": _choice("interval", "round"),
    "pruning.density": FRACTION,
    "pruning.times": _integer(1),
    "pruning.rounds": _integer(1, optional=True),
    "density.name": _named(DENSITIES),
    "density.tiers": Rule(float, lambda v: 0 < v <= 1, "a tuple of densities in (0, 1]", many=True),
    "density.rule": _named(BALANCE_RULES),
    "density.interval": _integer(1),
    "density.min_density": _number(_whole_percent, "in (0, 1] that is a whole percent, such as 0.05"),
    "density.delta_rho": _number(lambda v: 0.01 <= v <= 1, "from 0.01 (one percent, the grain of densities) to 1"),
    "density.patience": _integer(1),
    "density.min_delta": _not_negative(),
    "density.theta": _number(lambda v: 0 < v < 1, "in (0, 1)", optional=True),
    "density.discount": _number(lambda v: 0 < v <= 1, "in (0, 1]", optional=True),
    "density.exploration": _not_negative(1e6, optional=True),
    "density.reward_scale": _named(SCALES, optional=True),
    "density.gap_floor": _positive(1e-6, 1e6),
    "density.loss_change": _named(LOSS_CHANGES, optional=True),
    "aggregation.name": _named(AGGREGATIONS),
    "aggregation.server_lr": _number(
        lambda v: 1e-9 <= v <= 1e12,
        "> 0 (from 1e-09 to 1e+12; None: by optimizer, adam and yogi 0.01, adagrad 0.1, else 1)",
        optional=True,
    ),
    "aggregation.optimizer": _named(SERVER_OPTIMIZERS),
    "aggregation.optimizer_args": ARGUMENTS,
    "aggregation.alpha": FRACTION,
    "aggregation.staleness": _named(STALENESS),
    "aggregation.staleness_a": _number(
        lambda v: 0 <= v <= 1e12,
        ">= 0 and at most 1e+12 (None: by kind, polynomial 0.6, of fedasync 0.5, hinge 10)",
        optional=True,
    ),
    "aggregation.staleness_b": _not_negative(),
    "aggregation.client_weight": _named(CLIENT_WEIGHTS),
    "aggregation.byzantine": _integer(0),
    "aggregation.clip_norm": _positive(optional=True),
    "attack.name": _named(ATTACKS),
    "attack.number": _integer(0),
    "attack.clients": Rule(int, lambda v: v >= 0, "a tuple of clients' numbers from 0", many=True),
    "attack.scale": _positive(),
    "privacy.noise_multiplier": _not_negative(1e6),
    "privacy.delta": _number(lambda v: 0 < v < 1, "in (0, 1)"),
    "window.close": _named(CLOSE_RULES),
    "window.dt_s": _positive(),
    "window.first_waits_for_all": FLAG,
    "window.k": _integer(1),
    "window.dispatch": _named(DISPATCH_RULES),
    "window.release_min_s": _positive(),
    "window.cohort": _integer(0),
    "window.deadline_share": FRACTION,
    "window.deadline_factor": _number(lambda v: 1 <= v <= 1e6, "from 1 to 1e+06"),
    "transport.name": _named(TRANSPORTS),
    "transport.bytes": _named(BYTE_RULES),
    "transport.upload": _named(UPLOADS),
    "faults.dropout": PROBABILITY,
    "faults.crash": PROBABILITY,
    "faults.lost_upload": PROBABILITY,
    "faults.repeated_upload": PROBABILITY,
    "faults.join_s": _seconds(0.0),
    "faults.leave_s": _seconds(1e-9),
    "faults.availability": CSV,
    "faults.bandwidth": CSV,
    "eval.model": _choice("mask", "fedavg"),
    "eval.signal": _named(SIGNALS),
    "eval.batch_size": _integer(1),
    "eval.thresholds": Rule(
        float,
        lambda v: True,
        "a tuple of levels of the task's metric (accuracy: in (0, 1)) or None",
        many=True,
        optional=True,
    ),
    "engine.clients": _choice("auto", "map", "vmap"),
    "engine.train": _choice("auto", "arrival", "pending"),
    "engine.matmul": _choice("float32", "tensorfloat32", "bfloat16"),
    "engine.store": _choice("float32", "bfloat16"),
    "engine.models": _choice("device", "host"),
    "engine.widths": Rule(
        float, lambda v: 0 < v < 1, "a tuple of shares in (0, 1), () or None", many=True, optional=True
    ),
    "engine.group": _integer(0),
    "engine.devices": _integer(0),
    "engine.chunk_windows": _integer(0),
    "engine.chunk_s": _positive(),
    "engine.unroll": FLAG,
    "engine.deterministic": FLAG,
    "checkpoint.every_s": _positive(),
    "checkpoint.keep": _integer(1),
}


GROUPS = tuple(dict.fromkeys(key.split(".")[0] for key in RULES if "." in key))


def unknown(key: str, *value: object) -> UserError:
    """The error for a key that does not exist (with the value it was given), naming the nearest that do."""
    key = shorten(key)
    head = f"config.{key}" + "".join(f"={shown(v)}" for v in value)
    if key in GROUPS:
        keys = ", ".join(k for k in RULES if k.startswith(key + "."))
        return UserError(f"{head} is a group: allowed is one of its keys {keys}")
    near = difflib.get_close_matches(key, [*RULES, *GROUPS], n=1, cutoff=0.75)
    last = key.split(".")[-1]
    near = near or [k for k in RULES if k.split(".")[-1] == last]
    near = near or difflib.get_close_matches(key, RULES, n=3, cutoff=0.5)
    if near:
        return UserError(f"{head} does not exist: did you mean {' or '.join(near)}?")
    top = [k for k in RULES if "." not in k]
    return UserError(f"{head} does not exist: allowed are {', '.join(top)} and the groups {', '.join(GROUPS)}")
