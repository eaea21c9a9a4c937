"""Every key of a config is checked alone and with the others, before anything is computed."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from config_values import VALUES, put
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.canonical import NOT_HASHED, assign, config_hash, flatten, from_dict, to_dict
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import RULES
from prfl_jax.config.validate import validate
from prfl_jax.system.errors import UserError


def leaves(cfg, prefix=""):
    for key, value in cfg.items():
        if isinstance(value, config_dict.ConfigDict):
            yield from leaves(value, prefix + key + ".")
        else:
            yield prefix + key


def error(cfg) -> str:
    with pytest.raises(UserError) as info:
        validate(cfg)
    text = str(info.value)
    assert "\n" not in text
    return text


def test_every_key_has_a_rule_and_an_example_of_both_kinds():
    keys = set(leaves(default_config()))
    assert keys == set(RULES)
    assert keys == set(VALUES)
    assert keys >= NOT_HASHED


def test_default_config_is_valid():
    validate(default_config())


@pytest.mark.parametrize(("key", "bad"), [(key, bad) for key, (_, bads) in VALUES.items() for bad in bads])
def test_a_malformed_value_is_refused_with_what_is_allowed(key, bad):
    text = error(put(default_config(), key, bad))
    assert text == f"config.{key}={bad!r}: allowed is {RULES[key].allowed}"


@given(
    key=st.sampled_from(sorted(RULES)),
    value=st.one_of(st.binary(), st.complex_numbers(), st.dictionaries(st.text(), st.none()), st.sets(st.integers())),
)
@settings(deadline=None, max_examples=60)
def test_a_value_of_a_strange_type_is_refused_by_every_rule(key, value):
    assert not RULES[key].accepts(value)


@given(value=st.floats() | st.integers())
@settings(deadline=None, max_examples=200)
def test_density_and_speed_rules_equal_their_definition(value):
    whole = math.isfinite(value) and any(abs(value - p / 100) < 1e-12 for p in range(1, 101))
    assert RULES["density.min_density"].accepts(value) == whole
    assert RULES["server.up_mb_s"].accepts(value) == (1e-4 <= value <= 1e9)
    assert RULES["clients.up_mb_s"].accepts((1.0, value)) == (1e-4 <= value <= 1e9)


@pytest.mark.parametrize("percent", range(1, 101))
def test_every_whole_percent_is_a_density(percent):
    assert RULES["density.min_density"].accepts(percent / 100)


def changed(**keys):
    cfg = default_config()
    for key, value in keys.items():
        put(cfg, key.replace("__", "."), value)
    return cfg


CROSS = [
    (dict(clients__number=5), "clients.up_mb_s", "clients.number=5"),
    (dict(clients__down_mb_s=(1.0, 2.0, 3.0)), "clients.down_mb_s", "clients.number=10"),
    (dict(clients__flop_s=(1e9,) * 20), "clients.flop_s", "clients.number=10"),
    (dict(window__close="all", window__dispatch="on_arrival"), "window.dispatch", "window.close='all'"),
    (dict(window__close="deadline", window__dispatch="on_arrival"), "window.dispatch", "window.close='deadline'"),
    (dict(faults__join_s=(0.0,) * 20), "faults.join_s", "clients.number=10"),
    (dict(faults__leave_s=(1e9, 3.0), faults__join_s=(3.0,)), "faults.leave_s", "client 1 joins at 3 s"),
    (dict(window__close="k_arrivals", window__k=11), "window.k", "clients.number=10"),
    (dict(window__cohort=11), "window.cohort", "clients.number=10"),
    (
        dict(window__cohort=5),
        "aggregation.name",
        "fedavg, counted, r2sp, merge, bsp, mixing, fedbuff, median, trimmed_mean, krum, multi_krum "
        "with window.cohort=5",
    ),
    (dict(window__cohort=5, aggregation__name="counted"), "density.name", "window.cohort=5"),
    (
        dict(
            window__cohort=5, aggregation__name="counted", density__name="time_balance", window__dispatch="on_arrival"
        ),
        "window.dispatch",
        "window.cohort=5",
    ),
    (
        dict(
            window__cohort=2,
            window__close="k_arrivals",
            window__k=3,
            aggregation__name="counted",
            density__name="time_balance",
        ),
        "window.k",
        "window.cohort=2",
    ),
    (dict(submodel__name="full"), "density.name", "submodel.name='full'"),
    (dict(transport__name="one_copy"), "transport.name", "density.name='recovery'"),
    (dict(data__normalize="cifar10"), "data.normalize", "one channel"),
    (dict(data__partition="writer"), "data.partition", "data.name='mnist_embedded'"),
    (
        dict(data__name="femnist", data__partition="writer", data__writers=9),
        "data.writers",
        "clients.number=10",
    ),
    (dict(data__split_writers_over=40), "data.split_writers_over", "data.partition='dirichlet'"),
    (dict(data__partition="writer_iid"), "data.partition", "data.name='mnist_embedded'"),
    (
        dict(density__name="tiers", window__first_waits_for_all=False),
        "window.first_waits_for_all",
        "every client's first round time",
    ),
    (dict(data__train_limit=199), "data.train_limit", "200"),
    (dict(data__holdout_fraction=0.0), "data.holdout_fraction", "eval.signal='heldout'"),
    (dict(eval__thresholds=(0.0, 0.5)), "eval.thresholds", "(0, 1) with task.name='classification'"),
    (dict(eval__thresholds=(80,)), "eval.thresholds", "(0, 1) with task.name='classification'"),
]


@pytest.mark.parametrize(("keys", "named", "why"), CROSS)
def test_keys_that_contradict_each_other_are_refused(keys, named, why):
    text = error(changed(**keys))
    assert text.startswith(f"config.{named}=")
    assert why in text


@pytest.mark.parametrize(
    "keys",
    [
        dict(window__close="k_arrivals", window__k=11, window__dispatch="on_arrival"),
        dict(window__close="k_arrivals", window__k=10),
        dict(density__name="full"),
        dict(density__name="full", submodel__name="full", transport__name="one_copy"),
        dict(data__train_limit=200),
        dict(data__holdout_fraction=0.0, eval__signal="test"),
        dict(data__holdout_fraction=0.0, density__name="full"),
        dict(data__name="femnist", data__partition="writer", data__writers=10),
        dict(data__name="cifar10", data__normalize="cifar10"),
        dict(density__name="tiers", window__close="all", window__first_waits_for_all=False),
        dict(density__name="tiers_recovery"),
        dict(clients__flop_s=(1e9,) * 10),
        dict(horizon_s=None, window__dt_s=10),
    ],
)
def test_what_can_work_is_not_refused(keys):
    validate(changed(**keys))


def test_strategy_assigned_without_its_row_is_refused():
    assert "strategies.use(cfg, 'fedavg')" in error(changed(strategy="fedavg"))


def test_row_may_be_overridden_in_part():
    cfg = strategies.use(default_config(), "fedavg")
    cfg.window.close = "fixed"
    validate(cfg)


def test_what_is_compared_must_be_possible_too():
    cfg = strategies.use(default_config(), "fedavg")
    cfg.data.holdout_fraction = 0.0
    validate(cfg)
    cfg.compare = ("prfl",)
    assert error(cfg).startswith("config.compare='prfl' cannot run")


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("windw.dt_s", "window.dt_s"), ("window.dt", "window.dt_s"), ("dt_s", "window.dt_s"), ("round", "rounds")],
)
def test_unknown_key_is_refused_with_the_nearest_one(key, suggestion):
    cfg = default_config()
    group, _, leaf = key.rpartition(".")
    if group and group not in cfg:
        cfg[group] = config_dict.ConfigDict()
    (cfg[group] if group else cfg)[leaf] = 3
    assert error(cfg) == f"config.{key}=3 does not exist: did you mean {suggestion}?"


def test_missing_keys_groups_and_strange_configs_are_refused():
    cfg = default_config()
    del cfg.window.dt_s
    assert error(cfg) == "config.window.dt_s is missing: allowed is a finite number > 0 (from 1e-09 to 1e+12)"
    text = error(put(default_config(), "window", 3))
    assert text.startswith("config.window=3 is a group: allowed is one of its keys window.close, ")
    assert "dict" in error({"seed": 0})
    assert len(error(put(default_config(), "data.dir", 10**400))) < 250


# --- JSON form and hash ---


def test_json_round_trip_keeps_values_types_and_placeholders():
    cfg = default_config()
    for key, (other, _) in VALUES.items():
        if other is not None and key != "strategy":
            put(cfg, key, other)
    tree = to_dict(cfg)
    again = from_dict(json.loads(json.dumps(tree, allow_nan=False)))
    assert to_dict(again) == tree
    assert flatten(again) == flatten(cfg)
    assert isinstance(again.clients.up_mb_s, tuple)
    again.horizon_s = None
    with pytest.raises(TypeError):
        again.horizon_s = "soon"


def test_from_dict_refuses_unknown_missing_and_wrong():
    tree = to_dict(default_config())
    with pytest.raises(UserError, match=r"config.window.dt=1 does not exist: did you mean window.dt_s\?"):
        from_dict({**tree, "window": {**tree["window"], "dt": 1}})
    with pytest.raises(UserError, match="config.seed is missing"):
        from_dict({key: value for key, value in tree.items() if key != "seed"})
    with pytest.raises(UserError, match="config.rounds='many'"):
        from_dict({**tree, "rounds": "many"})


def test_assign_brings_values_into_the_type_of_the_key():
    cfg = default_config()
    assign(cfg, "window.dt_s", 10)
    assign(cfg, "clients.up_mb_s", [1] * 10)
    assign(cfg, "rounds", np.int64(3))
    assign(cfg, "local.lr", np.float32(0.5))
    assert flatten(cfg)["window.dt_s"] == 10.0 and isinstance(cfg.window.dt_s, float)
    assert cfg.clients.up_mb_s == (1.0,) * 10 and isinstance(cfg.clients.up_mb_s[0], float)
    assert type(cfg.rounds) is int and type(cfg.local.lr) is float


@pytest.mark.parametrize("key", [key for key, (other, _) in VALUES.items() if other is not None])
def test_hash_changes_with_exactly_the_keys_that_change_results(key):
    before = config_hash(default_config())
    after = config_hash(put(default_config(), key, VALUES[key][0]))
    assert len(before) == 16 and int(before, 16) >= 0
    assert (after == before) == (key in NOT_HASHED)


def test_hash_does_not_depend_on_order_or_on_ints_for_floats():
    cfg = default_config()
    backwards = config_dict.ConfigDict()
    for key in reversed(list(cfg.keys())):
        value = cfg[key]
        if isinstance(value, config_dict.ConfigDict):
            value = config_dict.ConfigDict({k: value[k] for k in reversed(list(value.keys()))})
        backwards[key] = value
    backwards.clients.up_mb_s = tuple(int(v) if v == int(v) else v for v in cfg.clients.up_mb_s)
    assert config_hash(backwards) == config_hash(cfg)


def test_hash_is_the_same_in_another_process():
    code = "from prfl_jax.config import canonical, default_config; print(canonical.config_hash(default_config()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == config_hash(default_config())
