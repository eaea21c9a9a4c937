"""The edge pruning study's settings: valid, alike but for the method, and which runs a table or figure needs."""

import pytest

from prfl_jax.config.validate import validate
from prfl_jax.strategies.table import METHODS as ROWS
from prfl_jax.studies.edge_pruning import paper, presets
from prfl_jax.studies.edge_pruning.setting import METHODS, OWN_SETTINGS, SAMPLED_METHODS
from prfl_jax.studies.edge_pruning.study import STUDY

PRESETS = {"smoke": presets.smoke(), "cpu": presets.cpu(), "full": presets.full()}


def flat(config):
    return {f"{g}.{k}" if isinstance(v, dict) else g: x for g, v in config.to_dict().items()
            for k, x in (v.items() if isinstance(v, dict) else [(g, v)])}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_methods_differ_in_their_row_and_in_their_own_settings(name):
    columns = PRESETS[name].columns
    assert len({column.key for column in columns}) == len(columns)
    for column in columns:
        rows = []
        for method in column.methods:
            config = column.config(method, 1)
            validate(config)
            own = {*ROWS[method].keys(), "strategy", *(key for keys in column.own.values() for key in keys)}
            rows.append({key: value for key, value in flat(config).items() if key not in own})
            assert all(flat(config)[key] == value for key, value in column.own.get(method, {}).items())
            assert config.rounds == column.rounds and config.model.width == column.width
        for row in rows:
            assert all(row[key] == value for key, value in rows[0].items() if key in row)


def test_one_methods_own_settings_are_not_the_others():
    data = presets.cpu().columns[0]
    assert data.own == OWN_SETTINGS
    made = presets.Data("k", "t", lambda c: None, 0.5, 7, 7, 1.0, (0.5,), "why", own={"layerwise": {"local.lr": 0.5}})
    lrs = {method: made.base().config(method, 0).local.lr for method in METHODS}
    assert lrs["layerwise"] == 0.5 and {lr for method, lr in lrs.items() if method != "layerwise"} == {0.25}


def test_the_papers_clients():
    base, drawn, gradients = (column.config("layerwise", 0) for column in PRESETS["full"].columns)
    assert (base.clients.number, base.data.writers, base.rounds, base.eval.thresholds) == (5, 193, 10_000, (0.7, 0.8))
    assert (base.pruning.share, base.pruning.votes * 5, base.pruning.initial_votes * 5) == (0.3, 3.0, 4.0)
    assert (drawn.clients.number, drawn.window.cohort) == (193, 10)
    assert drawn.pruning.initial_density == pytest.approx(1 - paper.STOP_SPARSITY)
    assert gradients.pruning.gradients == "round" and base.pruning.gradients == "interval"


def test_which_runs_a_table_or_figure_needs():
    columns = PRESETS["cpu"].columns

    def runs(*what):
        methods = STUDY.methods_for(what, [], columns)
        return {(column.key, method) for column in columns for method in methods(column)}

    assert runs("table3") == {*(("mnist", m) for m in METHODS), ("mnist_gradients_round", "layerwise")}
    assert ("mnist", "fedavg") not in runs("table2")
    assert runs("fig12") == {("mnist_sampled", m) for m in SAMPLED_METHODS} == runs("fig13")
    assert runs("fig5") == {("mnist", "layerwise"), ("mnist_sampled", "layerwise")}
    assert runs(*STUDY.chosen("all")) == {(column.key, method) for column in columns for method in column.methods}
    smoke = PRESETS["smoke"].columns
    for name in STUDY.products:
        methods = STUDY.methods_for([name], [], smoke)
        assert any(methods(column) for column in smoke)
