"""Checks a config before anything is computed; its JSON form; its hash.

The rules of single keys are the table in `rules.py`; here are those that tie
several keys together. Nothing here imports jax.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from prfl_jax import clock, strategies, transport
from prfl_jax.aggregate import AGGREGATIONS, find_aggregation
from prfl_jax.config.comparison import compared
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import GROUPS, RULES, unknown
from prfl_jax.data.sources import BY_WRITER
from prfl_jax.density import DENSITIES, find_density
from prfl_jax.models.architectures import ARCHITECTURES
from prfl_jax.robustness import config_checks
from prfl_jax.system.errors import UserError, refuse

# Keys that change where files lie, how often the host looks in, what is run afterwards, or how and when the work is
# dealt out to devices and groups (which may move the last bits of a float). A run may be resumed with other values of
# these; everything else is hashed, also `engine.clients`, `engine.unroll` and `eval.batch_size`, which may do the same.
NOT_HASHED = frozenset(
    {
        "data.dir",
        "engine.devices",
        "engine.train",
        "engine.models",
        "engine.group",
        "engine.chunk_windows",
        "engine.chunk_s",
        "checkpoint.every_s",
        "checkpoint.keep",
        "compare",
    }
)

_GREY = ("mnist_embedded", "mnist_by_writer", "femnist")  # one channel
_NO_WRITERS = ("mnist_embedded", "cifar10")
_MAY_BE_EMPTY = ("clients.flop_s", "faults.join_s", "faults.leave_s")


def validate(cfg: config_dict.ConfigDict) -> None:
    """Refuses a config that is not complete and possible.

    Raises:
      UserError: an unknown or missing key, a value of a wrong type or out of
        range, or keys that contradict each other; one line, the key first.
    """
    flat = canonical(cfg)
    for check in _CROSS_CHECKS:
        check(flat)
    text = strategies.forgotten(cfg)
    if text:
        raise UserError(text)
    for name in flat["compare"]:
        try:
            compared(cfg, name, validate)
        except UserError as e:
            raise UserError(f"config.compare={name!r} cannot run with the other keys: {e}") from None


def flatten(cfg: config_dict.ConfigDict) -> dict[str, Any]:
    """The config as {dotted key: value}, in the order of the rules.

    Raises:
      UserError: a key that does not exist, a group that is not a group, or a
        key that is missing.
    """
    if not isinstance(cfg, config_dict.ConfigDict):
        raise UserError(f"the config is a {type(cfg).__name__}: allowed is an ml_collections ConfigDict")
    found = dict(_leaves(cfg))
    for key, value in found.items():
        if key not in RULES:
            raise unknown(key, value)
    for key in RULES:
        if key not in found:
            raise UserError(f"config.{key} is missing: allowed is {RULES[key].allowed}")
    return {key: found[key] for key in RULES}


def canonical(cfg: config_dict.ConfigDict) -> dict[str, Any]:
    """`flatten`, each value checked by its own rule and in plain Python (10 in a float key is 10.0).

    `aggregation.staleness_a` is the number in force, given or not: here, in the hash and in the report.

    Raises:
      UserError: as `flatten`, or a value that its rule refuses.
    """
    flat = flatten(cfg)
    for key, value in flat.items():
        if not RULES[key].accepts(value):
            raise refuse(key, value, RULES[key].allowed)
    found = {key: RULES[key].canonical(value) for key, value in flat.items()}
    if found["aggregation.staleness_a"] is None:
        kind = found["aggregation.staleness"]
        found["aggregation.staleness_a"] = strategies.staleness_a(found["strategy"], kind)  # type: ignore[arg-type]
    return found


def _leaves(cfg: config_dict.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    try:
        names = list(cfg)
    except TypeError:  # they are sorted
        raise UserError("the config has keys of several types: allowed are names") from None
    for name in names:
        key = f"{prefix}{name}"
        try:
            value = cfg[name]
        except Exception as error:  # a required placeholder, or a reference that is computed only now
            allowed = f"allowed is {RULES[key].allowed}" if key in RULES else "give it a value"
            raise UserError(f"config.{key}: has no value ({type(error).__name__}: {error}); {allowed}") from None
        if isinstance(value, config_dict.ConfigDict) and value and not prefix:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


# --- rules that tie keys together; each raises, naming the key to change first ---


def _per_client(flat: Mapping[str, Any]) -> None:
    number = flat["clients.number"]
    for key, rule in RULES.items():
        value = flat[key]
        if not rule.per_client or (key in _MAY_BE_EMPTY and value == ()):
            continue
        length = len(value)
        if not length or number % length:
            words = f"a tuple of clients.number={number} numbers, or of a divisor of it (repeated in turn)"
            raise refuse(key, value, f"{words}, not {length}")


def _cohort(flat: Mapping[str, Any]) -> None:
    """Nobody's model is kept, so no choice may need one of somebody who is not there."""
    cohort = flat["window.cohort"]
    if not cohort:
        return
    name, density = flat["aggregation.name"], flat["density.name"]
    if not find_aggregation(name).arrivals_alone:
        alone = ", ".join(key for key, choice in AGGREGATIONS.items() if choice.arrivals_alone)
        raise refuse("aggregation.name", name, f"one of {alone} with window.cohort={cohort}")
    if find_aggregation(name).kernel != "sum" and clock.find_dispatch_rule(flat["window.dispatch"]).on_arrival:
        allowed = f"'window_end' with aggregation.name={name!r} and window.cohort={cohort}"
        raise refuse("window.dispatch", flat["window.dispatch"], allowed)
    if not find_density(density).in_cohorts:
        allowed = " or ".join(key for key, policy in DENSITIES.items() if policy.in_cohorts)
        raise refuse("density.name", density, f"{allowed} with window.cohort={cohort}")


def _submodel(flat: Mapping[str, Any]) -> None:
    density = flat["density.name"]
    if flat["submodel.name"] == "leading":
        if flat["model.name"] not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise refuse("submodel.name", "leading", f"nested or full with a model that is not one of {known}")
    elif flat["local.name"] == "scaled_sgd":
        raise refuse("local.name", "scaled_sgd", "sgd with a submodel.name other than 'leading'")
    if density != "full":
        if flat["submodel.name"] == "full":
            raise refuse("density.name", density, "'full' with submodel.name='full'")
    name = flat["aggregation.name"]
    if find_density(density).recovers and find_aggregation(name).kernel == "sum":
        buffered = ", ".join(key for key, choice in AGGREGATIONS.items() if choice.kernel != "sum")
        raise refuse("aggregation.name", name, f"{buffered} with density.name={density!r}, which looks at the buffer")


def _trained_ahead(flat: Mapping[str, Any]) -> None:
    if flat["engine.train"] == "pending" and flat["submodel.importance"] == "client_sq_grad":
        if config_checks.prunes_by(flat):
            allowed = "auto or arrival with submodel.importance='client_sq_grad', which is not kept until the arrival"
            raise refuse("engine.train", "pending", allowed)


def _with_the_host(flat: Mapping[str, Any]) -> None:
    if flat["engine.models"] == "host" and flat["engine.devices"] > 1:
        raise refuse("engine.devices", flat["engine.devices"], "0 or 1 with engine.models='host'")


def _tiers(flat: Mapping[str, Any]) -> None:
    """Tiers are given once, by the round times of the first window."""
    name = flat["density.name"]
    if name.startswith("tiers") and not flat["density.tiers"]:
        raise refuse("density.tiers", (), f"at least one density with density.name={name!r}")
    if find_density(name).needs_first_times and not clock.find_close_rule(flat["window.close"]).waits_for_all(1):
        if not flat["window.first_waits_for_all"]:
            allowed = f"True with density.name={name!r}, which needs every client's first round time"
            raise refuse("window.first_waits_for_all", False, allowed)


def _data(flat: Mapping[str, Any]) -> None:
    name, limit = flat["data.name"], flat["data.train_limit"]
    if name in _GREY and flat["data.normalize"] == "cifar10":
        raise refuse("data.normalize", "cifar10", f"unit or inverted with data.name={name!r} (one channel)")
    partition = flat["data.partition"]
    over = flat["data.split_writers_over"]
    if over is not None and partition != "writer":
        raise refuse("data.split_writers_over", over, f"None with data.partition={partition!r}")
    if partition in BY_WRITER:
        if name in _NO_WRITERS:
            raise refuse("data.partition", partition, f"iid, dirichlet, labels or fedmp with data.name={name!r}")
        most = flat["data.writers"] * (1 if flat["data.split_writers_over"] is None else 2)
        if most < flat["clients.number"]:
            allowed = f"at least clients.number={flat['clients.number']} with data.partition={partition!r}"
            raise refuse("data.writers", flat["data.writers"], allowed)
    least = flat["clients.number"] * flat["local.batch_size"]
    if limit is not None and limit < least:
        raise refuse("data.train_limit", limit, f"None or at least {least}, one batch for every client")


def _signals(flat: Mapping[str, Any]) -> None:
    needed = find_density(flat["density.name"]).recovers or flat["stop_early"]
    if needed and flat["eval.signal"] == "heldout" and flat["data.holdout_fraction"] == 0:
        name = flat["density.name"]
        allowed = f"in (0, 1) with eval.signal='heldout' and density.name={name!r} or stop_early=True"
        raise refuse("data.holdout_fraction", flat["data.holdout_fraction"], allowed)


_CROSS_CHECKS: tuple[Callable[[Mapping[str, Any]], None], ...] = (
    _per_client,
    *clock.CHECKS,
    _cohort,
    _submodel,
    *transport.CHECKS,
    _trained_ahead,
    _with_the_host,
    _tiers,
    _data,
    _signals,
    *config_checks.CHECKS,
)


# --- JSON form and hash ---


def to_dict(cfg: config_dict.ConfigDict) -> dict[str, Any]:
    """The config as nested plain Python that JSON can hold (tuples become lists).

    Equal configs give equal dicts, whatever the order of their keys.

    Raises:
      UserError: the config is not valid key by key.
    """
    tree: dict[str, Any] = {}
    for key, value in canonical(cfg).items():
        group, _, leaf = key.rpartition(".")
        holder = tree.setdefault(group, {}) if group else tree
        holder[leaf] = list(value) if isinstance(value, tuple) else value
    return tree


def from_dict(tree: Mapping[str, Any]) -> config_dict.ConfigDict:
    """The config that `to_dict` wrote, also after a trip through JSON; placeholders keep their type.

    Raises:
      UserError: an unknown or missing key, or a value of a wrong type.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if key in GROUPS and isinstance(value, Mapping):
            found |= {f"{key}.{leaf}": v for leaf, v in value.items()}
        else:
            found[key] = value
    cfg = default_config()
    for key, value in found.items():
        assign(cfg, key, value)
    for key in RULES:
        if key not in found:
            raise UserError(f"config.{key} is missing: allowed is {RULES[key].allowed}")
    return cfg


def assign(cfg: config_dict.ConfigDict, key: str, value: object) -> None:
    """Sets one dotted key, in the key's own type (lists become tuples, ints in float keys floats).

    Raises:
      UserError: no such key, or a value its rule refuses.
    """
    if key not in RULES:
        raise unknown(key, value)
    if not RULES[key].accepts(value):
        raise refuse(key, value, RULES[key].allowed)
    group, _, leaf = key.rpartition(".")
    holder = cfg[group] if group else cfg
    with holder.ignore_type():  # the rule has checked the type; a file may have left a wrong one behind
        holder[leaf] = RULES[key].canonical(value)


def config_hash(cfg: config_dict.ConfigDict) -> str:
    """16 hexadecimal digits that two configs share exactly if they describe the same run.

    SHA-256 over canonical JSON (sorted keys, no spaces), of every key but `NOT_HASHED`.

    Raises:
      UserError: the config is not valid key by key.
    """
    kept = {key: value for key, value in canonical(cfg).items() if key not in NOT_HASHED}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_run(saved: Mapping[str, Any], cfg: config_dict.ConfigDict) -> bool:
    """Whether a saved `to_dict` describes the run of `cfg`, perhaps from before some keys existed.

    A key that it does not have yet must have its default now. `NOT_HASHED` keys do not count.
    """
    before = {
        f"{group}.{key}" if isinstance(value, Mapping) else group: item
        for group, value in saved.items()
        for key, item in (value.items() if isinstance(value, Mapping) else [(group, value)])
    }
    now, defaults = (_plain(c) for c in (cfg, default_config()))
    if before.keys() - now.keys():
        return False
    return all(before.get(key, defaults[key]) == value for key, value in now.items() if key not in NOT_HASHED)


def _plain(cfg: config_dict.ConfigDict) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in canonical(cfg).items()}
