"""The canonical form of a config: flat and plain values, the JSON form, and the hash of the run that it describes.

Nothing here imports jax.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.aggregate import server_lr_in_force
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import GROUPS, RULES, unknown
from prfl_jax.density import setting_in_force
from prfl_jax.local import prox_mu_in_force
from prfl_jax.system.errors import UserError, refuse
from prfl_jax.tasks import default_thresholds, find_task

# Keys that are not hashed: the place of files, the length of chunks, what is run afterwards, and how work is
# distributed over devices and groups (which may change the last bits of a float). A run may be resumed with other
# values of these. Everything else is hashed, also `engine.clients`, `engine.unroll` and `eval.batch_size`, which may
# change the last bits too.
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

# Keys that came after version 0.2: hashed only where they differ from their default, which describes the run that a
# config without them did, so that a config keeps its hash.
HASHED_IF_CHANGED = frozenset(
    {
        *("task.name", "model.norm", "model.state", "data.context", "data.vocabulary", "data.unit", "data.targets"),
        *("local.optimizer", "local.optimizer_args", "local.optimizer_state"),
        *("local.clip_grad_norm", "local.lr_schedule"),
        *("aggregation.optimizer", "aggregation.optimizer_args", "transport.upload"),
        *("density.theta", "density.discount", "density.exploration"),
        *("density.reward_scale", "density.gap_floor", "density.loss_change", "engine.widths"),
        *("clients.step_s", "clients.weight_s"),
        *("pruning.interval", "pruning.share", "pruning.votes", "pruning.initial_votes", "pruning.votes_above"),
        *("pruning.initial_density", "pruning.initial_rounds", "pruning.initial_steps"),
        *("pruning.recovered", "pruning.gradients", "pruning.density", "pruning.times", "pruning.rounds"),
    }
)
# of `density`, where a choice may have its own
OWN_DEFAULTS = ("theta", "discount", "exploration", "reward_scale", "loss_change")


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

    `aggregation.staleness_a`, `aggregation.server_lr`, `local.prox_mu`, `eval.thresholds` and the settings of a bandit
    are those in force, given or not: here, in the hash and in the report.

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
    if found["eval.thresholds"] is None:
        found["eval.thresholds"] = default_thresholds(find_task(str(found["task.name"])).metric)
    found["local.prox_mu"] = prox_mu_in_force(found["local.name"], found["local.prox_mu"])  # type: ignore[arg-type]
    optimizer, server_lr = found["aggregation.optimizer"], found["aggregation.server_lr"]
    found["aggregation.server_lr"] = server_lr_in_force(optimizer, server_lr)  # type: ignore[arg-type]
    for key in OWN_DEFAULTS:
        given = found[f"density.{key}"]
        found[f"density.{key}"] = setting_in_force(found["density.name"], key, given)  # type: ignore[arg-type]
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

    SHA-256 over canonical JSON (sorted keys, no spaces), of every key but `NOT_HASHED`, and of those in
    `HASHED_IF_CHANGED` where they have their default.

    Raises:
      UserError: the config is not valid key by key.
    """
    defaults = flatten(default_config())
    kept = {
        key: value
        for key, value in canonical(cfg).items()
        if key not in NOT_HASHED and not (key in HASHED_IF_CHANGED and value == defaults[key])
    }
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
