"""Values far beyond any use: each is refused in one line before anything runs, or the run begins."""

import tracemalloc

import pytest
import tiny
from marked import every_third, slow_except

from prfl_jax.clock import clock as clock_module
from prfl_jax.config.validate import validate
from prfl_jax.runtime.dry_run import estimate
from prfl_jax.runtime.training import Variants
from prfl_jax.system.errors import UserError

MOST = 10**9


LARGE = [
    dict(local__steps=MOST),
    dict(rounds=MOST, horizon_s=30.0),
    dict(eval__batch_size=MOST),
    dict(density__interval=MOST),
    dict(density__patience=MOST),
    dict(engine__chunk_windows=MOST),
    dict(checkpoint__keep=MOST),
    dict(window__dt_s=1e12),
    dict(clients__flop_s=(1.0,)),
]


@pytest.mark.parametrize("changes", every_third((changes,) for changes in LARGE), ids=str)
def test_large_values_that_a_run_can_begin_with(changes):
    config = tiny.config("prfl", **changes)
    validate(config)
    assert estimate(config).updates > 0
    simulation = tiny.Simulation(config)
    assert simulation.memory().startswith("memory: ")
    assert simulation.new_planner().take().window.index == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(clients__number=MOST, clients__up_mb_s=(1.0,), clients__down_mb_s=(1.0,)), "train_limit=400"),
        (dict(local__batch_size=MOST), "data.train_limit=400: allowed is None or at least 4000000000"),
        (dict(engine__devices=MOST), "config.engine.devices=1000000000"),
        (dict(window__k=MOST, window__close="k_arrivals"), "config.window.k=1000000000"),
        (dict(model__classes=MOST), "config.clients.number=4: this machine would need"),
        (dict(aggregation__byzantine=MOST, aggregation__name="median"), "config.aggregation.byzantine=1000000000"),
    ],
)
def test_large_values_that_cannot_work(changes, words):
    for strategy in ("fedavg", "prfl"):
        config = tiny.config(strategy, **changes, submodel__importance="weight")
        with pytest.raises(UserError, match=words):
            validate(config)
            estimate(config)
            tiny.Simulation(config).memory()


@pytest.mark.parametrize("key", ["join_s", "leave_s"])
def test_a_tuple_by_client_is_checked_without_one_entry_for_each(key):
    config = tiny.config(
        "fedavg", clients__number=10**8, clients__up_mb_s=(1.0,), clients__down_mb_s=(1.0,), data__train_limit=None,
        **{f"faults__{key}": (1.0, 2.0)},
    )  # fmt: skip
    tracemalloc.start()
    validate(config)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**7
    config.faults.join_s, config.faults.leave_s = (1.0, 5.0), (2.0, 6.0, 3.0, 4.0)
    with pytest.raises(UserError, match="client 3 joins at 5 s and leaves at 4 s"):
        validate(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(window__close="k_arrivals", window__k=MOST), "config.window.k=1000000000: window 1"),
        (dict(window__close="fixed", window__first_waits_for_all=False, window__dt_s=1e12), "config.window.dt_s=1000"),
        (dict(window__close="release", window__release_min_s=1e12), "config.window.release_min_s=1000.*: window 3"),
    ],
)
@pytest.mark.parametrize("faults", slow_except([{}, dict(faults__dropout=0.1)], {}))
def test_a_window_with_endless_arrivals_is_refused(changes, words, faults, monkeypatch):
    monkeypatch.setattr(clock_module, "MOST_DISPATCHES", 2000)
    config = tiny.config("fedbuff", window__dispatch="on_arrival", **changes, **faults)
    validate(config)
    with pytest.raises(UserError, match=words):
        estimate(config)
    with pytest.raises(UserError, match=words):
        planner = tiny.Simulation(config).new_planner()
        for _ in range(3):
            planner.take()


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        (Variants(seeds=MOST), "--seeds=1000000000: allowed are at most 1,000 experiments"),
        (Variants(seeds=1001), "--seeds=1001: allowed are at most 1,000"),
        (Variants(seeds=501, vary="local.lr=0.1,0.2"), "--vary has 2 values, --seeds=501: allowed are at most 1,000"),
    ],
)
def test_more_experiments_than_a_process_has_room_for(variants, words):
    with pytest.raises(UserError, match=words):
        variants.of(tiny.config())
    assert len(Variants(seeds=3, vary="local.lr=0.1,0.2").of(tiny.config())) == 6
