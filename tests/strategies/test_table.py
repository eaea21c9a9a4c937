"""The table of six choices."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import re

import pytest

from prfl_jax import strategies
from prfl_jax.config.canonical import flatten, to_dict
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import RULES
from prfl_jax.config.validate import validate
from prfl_jax.system.errors import UserError


@pytest.mark.parametrize("name", strategies.ROWS)
def test_every_row_is_complete_and_makes_a_valid_config(name):
    assert set(strategies.ROWS[name]) == set(strategies.ROWS["prfl"])
    assert all(RULES[key].accepts(value) for key, value in strategies.ROWS[name].items())
    assert strategies.METHODS[name].source
    cfg = strategies.use(default_config(), name)
    validate(cfg)
    assert cfg.strategy == name
    assert flatten(cfg).items() >= strategies.ROWS[name].items()


def test_a_method_is_six_choices_a_source_and_their_parts():
    names = [field.name for field in dataclasses.fields(strategies.Method)]
    assert names[:6] == ["submodel", "density", "aggregation", "window", "transport", "local"]
    # the optimiser is a part of the aggregation's seam, the upload of the transport's
    assert names[6:] == ["source", "optimizer", "staleness_a", "upload"]


def test_each_family_has_a_file_with_its_paper():
    folder = pathlib.Path(strategies.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "method", "table"}
    families = {stem: importlib.import_module(f"prfl_jax.strategies.{stem}") for stem in files}
    assert {name for family in families.values() for name in family.METHODS} == set(strategies.METHODS)
    assert all(re.search(r"\([^)]*20\d\d[^)]*\)", family.__doc__) for family in families.values())


def test_the_default_config_is_the_row_prfl():
    assert to_dict(strategies.use(default_config(), "prfl")) == to_dict(default_config())


def test_switching_there_and_back_leaves_nothing_behind():
    cfg = default_config()
    cfg.window.dt_s = 3.0
    before = to_dict(cfg)
    strategies.use(strategies.use(cfg, "fedavg"), "prfl")
    assert to_dict(cfg) == before


def test_fedavg_differs_from_prfl_in_the_seams_only():
    apart = {
        key
        for key, value in flatten(strategies.use(default_config(), "fedavg")).items()
        if value != flatten(default_config())[key]
    }
    assert apart == {
        "strategy",
        "submodel.name",
        "density.name",
        "aggregation.name",
        "window.close",
        "window.first_waits_for_all",
        "transport.name",
    }


def test_for_comparison_is_a_copy_that_runs_to_the_horizon():
    cfg = default_config()
    cfg.compare, cfg.stop_early = ("fedavg",), True
    before = to_dict(cfg)
    other = strategies.for_comparison(cfg.lock(), "fedavg")
    validate(other)
    assert (other.strategy, other.compare, other.stop_early) == ("fedavg", (), False)
    assert other.window.dt_s == cfg.window.dt_s
    assert to_dict(cfg) == before


@pytest.mark.parametrize("name", ["fedsgd", "", None, 3, ["prfl"]])
def test_unknown_strategy_lists_those_there_are(name):
    cfg = default_config()
    with pytest.raises(UserError, match="prfl, prfl_norecover, .*fedavg"):
        strategies.use(cfg, name)
    assert cfg.strategy == "prfl"
