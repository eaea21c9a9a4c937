"""FedMP's settings: configs that are valid, methods that differ in their row alone, and which runs a figure needs."""

import pytest

from prfl_jax.config.validate import validate
from prfl_jax.strategies.table import METHODS
from prfl_jax.studies.fedmp import paper, presets
from prfl_jax.studies.fedmp.setting import bases, swept
from prfl_jax.studies.fedmp.smoke import smoke
from prfl_jax.studies.fedmp.study import STUDY

PRESETS = {"smoke": smoke(), "cpu": presets.cpu(), "full": presets.full()}


def flat(config):
    """As given: what is derived from a method's row is not filled in."""
    return {f"{g}.{k}" if isinstance(v, dict) else g: x for g, v in config.to_dict().items()
            for k, x in (v.items() if isinstance(v, dict) else [(g, v)])}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_configs_are_valid_and_methods_differ_in_their_row(name):
    columns = PRESETS[name].columns
    assert len({column.key for column in columns}) == len(columns)
    for column in columns:
        validate(column.config(column.methods[0], 1))
        rows = {}
        for method in column.methods if column.is_base else column.methods[:2]:
            config = flat(column.config(method, 1))
            seams = {*METHODS[method].keys(), "strategy"}
            rows[method] = {key: value for key, value in config.items() if key not in seams}
            assert config["window.k"] == 5 and config["seed"] == 1 and column.target in column.thresholds
        first = rows[column.methods[0]]
        for row in rows.values():
            assert all(row[key] == value for key, value in first.items() if key in row)


def test_what_is_varied_is_what_the_key_says():
    columns = PRESETS["cpu"].columns
    found = {(c.network, c.sweep, c.value): c.config(c.methods[0], 0) for c in columns}
    assert found["cnn", "theta", 0.25].density.theta == 0.25
    assert found["cnn", "ratio", 0.8].density.tiers == (0.2,)
    assert found["cnn", "noniid", 30].data.fedmp_level == 30
    assert found["cnn", "workers", 20].clients.number == 20
    assert found["alexnet", "floor", 0.5].density.min_density == 0.5
    high, base = found["cnn", "scenario", "high"], found["cnn", "", None]
    assert min(high.clients.up_mb_s) == 1.5 and min(base.clients.up_mb_s) == 2.25
    assert {setting.network for setting in bases(columns)} == {"cnn", "alexnet", "lstm", "vgg19", "resnet50"}
    assert [value for value, _ in swept(columns, "scenario")["cnn"]] == ["low", "medium", "high"]
    assert [value for value, _ in swept(columns, "theta")["cnn"]] == [0.01, 0.05, 0.1, 0.25]
    assert [value for value, _ in swept(columns, "ratio")["cnn"]] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert list(swept(columns, "workers")) == ["cnn"]


def test_the_full_preset_has_the_papers_targets():
    for column in PRESETS["full"].columns:
        printed = paper.NONIID_TARGETS if column.sweep == "noniid" else paper.TARGETS
        assert column.target == printed.get(column.network, paper.PERPLEXITY_TARGET)


def test_which_runs_a_table_or_figure_needs():
    columns = PRESETS["cpu"].columns

    def runs(*what):
        methods = STUDY.methods_for(what, [], columns)
        return {(column.key, method) for column in columns for method in methods(column)}

    assert runs("table4") == {("lstm", method) for method in paper.LANGUAGE}
    assert runs("fig4") == {("cnn", "fedmp"), *((f"cnn_theta_{value}", "fedmp") for value in (0.01, 0.05, 0.25))}
    assert runs("fig2") == {("cnn", "fedavg"), *((f"cnn_ratio_{value}", "fedmp") for value in (0.2, 0.4, 0.6, 0.8))}
    assert runs("fig10") == {(f"cnn{key}", m) for key in ("", "_workers_20", "_workers_30") for m in paper.MAIN}
    assert runs("fig12") == {(n, m) for n in ("cnn", "alexnet") for m in ("fedavg", "fedmp", "asyn_fl", "asyn_fedmp")}
    assert runs("fig5", "fig11") == set()
    everything = {(column.key, method) for column in columns for method in column.methods}
    assert runs(*STUDY.chosen("all")) == everything  # nothing is run that no table or figure shows, nor left out


def test_the_smoke_preset_has_a_run_for_every_product():
    columns = smoke().columns
    for name, product in STUDY.products.items():
        methods = STUDY.methods_for([name], [], columns)
        assert any(methods(column) for column in columns) == product.from_runs
