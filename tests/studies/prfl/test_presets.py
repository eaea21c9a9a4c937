"""The PR-FL paper's numbers, and the settings in which its methods are compared."""

from __future__ import annotations

import pytest

from prfl_jax.config.canonical import to_dict
from prfl_jax.config.validate import validate
from prfl_jax.strategies.table import METHODS
from prfl_jax.studies.prfl import paper, presets
from prfl_jax.studies.prfl.study import STUDY


def test_the_papers_numbers_stand_where_the_paper_has_them():
    # sums of the rows as printed, over both accuracies of all four columns (Table IV) and in hundredths (Table V)
    sums = {"prfl": 221_000, "heterofl_windowed": 377_600, "fedfix": 474_600, "fedasyn": 661_300, "fedavg": 686_100}
    for method, total in sums.items():
        cells = [row[method] for column in paper.TABLE4.values() for row in column.values()]
        assert len(cells) == 8 and sum(cell or 0 for cell in cells) == total
    sums = {"prfl": 345.15, "heterofl_windowed": 340.24, "fedfix": 341.72, "fedasyn": 339.14, "fedavg": 323.31}
    for method, total in sums.items():
        assert 100 * sum(column[method] for column in paper.TABLE5.values()) == pytest.approx(total)
    assert [sum(row) for row in paper.TABLE3.values()] == [59_101, 99_643]
    assert paper.TABLE4["cifar10", "non-iid"][0.84] == {
        "prfl": 52500, "heterofl_windowed": 97900, "fedfix": 111500, "fedasyn": 172500, "fedavg": None
    }  # fmt: skip
    assert paper.TABLE4["femnist", "iid"][0.80]["prfl"] == 10700
    assert paper.TABLE4["femnist", "non-iid"][0.835]["fedasyn"] == 81600
    assert paper.TABLE5["cifar10", "non-iid"]["heterofl_windowed"] == 0.8472
    assert paper.TABLE5["femnist", "iid"]["fedavg"] == 0.7922
    # not in the paper's tables
    families = (
        *("fjord", "fedrolex", "fiarse", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedprox", "scaffold"),
        *("flexcom", "asyn_f", "fedmp", "up_fl", "layerwise", "threshold", "prfl_personal"),
        *("prunefl", "conventional", "snip", "iterative"),
    )
    others = {name for name in METHODS if name.startswith(families)}
    assert set(paper.MAIN + paper.ABLATIONS + paper.EXTRAS) == set(METHODS) - others and len(others) == 30


PRESETS = {"smoke": presets.smoke(), "cpu": presets.cpu(), "full": presets.full(False), "femnist": presets.full(True)}


@pytest.mark.parametrize("name", PRESETS)
def test_configs_are_valid_and_methods_differ_in_their_row(name):
    for column in PRESETS[name].columns:
        rows = {}
        for method in column.methods:
            config = column.config(method, 1)
            validate(config)
            assert config.seed == 1 and tuple(config.eval.thresholds) == column.thresholds
            seams = set(METHODS[method].keys()) | {"strategy"}
            flat = {f"{g}.{k}" if isinstance(v, dict) else g: x for g, v in to_dict(config).items()
                    for k, x in (v.items() if isinstance(v, dict) else [(g, v)])}  # fmt: skip
            rows[method] = {key: value for key, value in flat.items() if key not in seams}
        assert all(row == rows["prfl"] for row in rows.values())
        assert column.paper is None or len(paper.TABLE4[column.paper]) == len(column.thresholds)


def test_full_is_the_papers_setting():
    dts = {(c.paper, c.config("prfl", 0).window.dt_s): c.config("prfl", 0) for c in PRESETS["femnist"].columns}
    assert {dt for (data, _), dt in dts if data == "cifar10"} == {12.5, 10.5}
    assert {dt for (data, _), dt in dts if data == "femnist"} == {14.0, 7.0}
    for ((data, _), _), config in dts.items():
        assert config.horizon_s == {"cifar10": 250_000, "femnist": 140_000}[data]
        assert (config.density.interval, config.density.patience, config.local.lr) == (50, 10, 0.25)
        assert (config.density.min_delta, config.density.delta_rho, config.model.width) == (0.0, 0.2, 1.0)
        assert (config.local.steps, config.local.batch_size, config.data.test_limit) == (5, 20, None)
        assert config.model.name == {"cifar10": "vgg11", "femnist": "conv2"}[data]
        assert config.model.size_mb == {"cifar10": 39.2, "femnist": 26.5}[data]
        assert config.density.min_density == {"cifar10": 0.1, "femnist": 0.05}[data]
        assert config.clients.up_mb_s == (5, 4, 3, 2.5, 1.5, 1, 0.6, 0.5, 0.5, 0.4)
        assert config.clients.down_mb_s == (20, 18, 12, 10, 6, 4, 2.5, 2, 2, 1.5)
        assert (config.server.up_mb_s, config.server.down_mb_s) == (20, 100)
        if data == "cifar10":  # 0.25 * 0.5 ** (r / 10000), r in windows of 12.5 s
            decay = (config.local.lr_decay, config.local.lr_decay_rounds, config.local.lr_dt_ref_s)
            assert decay == (0.5, 10_000, 12.5)
            assert config.data.alpha == 1.0
        else:
            assert config.local.lr_decay == 1.0 and config.data.writers == 193
    partitions = {c.paper: c.config("prfl", 0).data.partition for c in PRESETS["femnist"].columns}
    assert partitions == {
        ("cifar10", "iid"): "iid", ("cifar10", "non-iid"): "dirichlet",
        ("femnist", "iid"): "writer_iid", ("femnist", "non-iid"): "writer",
    }  # fmt: skip


def test_settings_alone_and_keys_changed_for_all_methods():
    cpu = PRESETS["cpu"].only(["mnist_by_writer"]).changed(["local.lr=1", "horizon_s=2100"])
    (column,) = cpu.columns
    assert column.key == "mnist_by_writer_local.lr=1_horizon_s=2100" and "local.lr=1" in column.title
    for method in ("prfl", "fedfix"):
        config, before = column.config(method, 3), PRESETS["cpu"].columns[0].config(method, 3)
        validate(config)
        assert (config.local.lr, config.horizon_s) == (1.0, 2100.0)
        assert (before.local.lr, before.horizon_s) == (0.5, 4200.0)
        assert config.strategy == method and config.seed == 3


def test_what_is_run_for_a_table_or_figure():
    (column,) = PRESETS["cpu"].only(["mnist_by_writer"]).columns
    for what, only, expected in (
        (["table4"], [], paper.MAIN),
        (["fig10"], [], ("prfl", *paper.ABLATIONS, *paper.EXTRAS)),
        (STUDY.chosen("all"), [], (*paper.MAIN, *paper.ABLATIONS, *paper.EXTRAS)),
        (["table4"], ["fedbuff"], ("fedbuff",)),  # named, so run
        (["table3"], [], ()),
    ):
        assert tuple(STUDY.methods_for(what, only, [column])(column)) == expected
