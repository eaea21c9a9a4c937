"""Whole runs against PR-FL, its ablations and its rivals written out in float64 (`prfl_oracle.py`)."""

import numpy as np
import pytest
import tiny
from marked import slow_except
from prfl_oracle import accuracy, run_beside

from prfl_jax.runtime.experiment import Experiment

ON_ARRIVAL = dict(window__dispatch="on_arrival", window__first_waits_for_all=False)
RUNS = {
    "prfl": ("prfl", dict(rounds=11, density__interval=2)),
    "prfl with other settings": (
        "prfl",
        dict(
            submodel__importance="client_sq_grad",
            aggregation__server_lr=0.7,
            local__momentum=0.5,
            local__lr_decay=0.5,
            local__lr_decay_rounds=4,
        ),
    ),
    "prfl, dispatch on arrival": (
        "prfl",
        dict(rounds=7, window__dt_s=5.0, submodel__importance="product", **ON_ARRIVAL),
    ),
    "prfl, windows of five arrivals": (
        "prfl",
        dict(rounds=7, window__close="k_arrivals", window__k=5, submodel__importance="weight", **ON_ARRIVAL),
    ),
    "nobuff": ("prfl_nobuff", dict(rounds=9, density__interval=2, aggregation__server_lr=0.8)),
    "fedavg of the buffer": ("prfl_fedavg", dict(rounds=9, density__interval=2, aggregation__server_lr=0.8)),
    "arrivals counted": ("prfl", dict(rounds=9, density__interval=2, aggregation__name="counted")),
    "fedavg": ("fedavg", dict(rounds=5)),
    "fedasyn": ("fedasyn", dict(rounds=9)),
    "fedasync": ("fedasync", dict(rounds=20, local__prox_mu=0.1)),
    "fedfix": ("fedfix", dict(rounds=9, aggregation__server_lr=0.7)),
    "fedfix by arrival": ("fedfix", dict(rounds=20, window__close="each_arrival", window__dispatch="on_arrival")),
    "fedbuff": ("fedbuff", dict(rounds=9)),
    "fedprox": ("fedprox", dict(rounds=6, local__steps=4, clients__flop_s=(8e5, 5e5, 4e5, 3e4))),
    "scaffold": ("scaffold", dict(rounds=6, local__steps=3)),
    "scaffold of sub-models": (
        "prfl",
        dict(local__name="scaffold", submodel__importance="weight", local__lr=0.1, density__interval=2),
    ),
    "adam kept": (
        "prfl",
        dict(
            local__optimizer="adam",
            local__optimizer_state="kept",
            local__lr=0.003,
            submodel__importance="weight",
            rounds=11,
            density__interval=2,
        ),
    ),
    "momentum kept": ("fedasyn", dict(local__momentum=0.7, local__optimizer_state="kept", local__lr=0.1)),
}
# Those that differ most in aggregation, windows and local work.
FAST = ("prfl", "prfl with other settings", "fedavg of the buffer", "fedasync", "fedbuff")


@pytest.fixture(scope="module", params=slow_except(RUNS, *FAST))
def pair(request):
    """(the run, the oracle's): the oracle is given the levels of each pruning, and checks them."""
    strategy, changes = RUNS[request.param]
    return run_beside(Experiment(tiny.config(strategy, **changes)))


def test_the_server_model(pair):
    ran, oracle, _ = pair
    tiny.close(ran.params, oracle.w, 1e-5)


def test_arrivals_staleness_and_training_losses(pair):
    ran, oracle, _ = pair
    windows = ran.of("window")
    assert [w["staleness"] for w in windows] == oracle.staleness
    for window, losses in zip(windows, oracle.losses, strict=True):
        np.testing.assert_allclose(window["loss"], losses, rtol=1e-5)


def test_early_stopping_signals_and_densities(pair):
    ran, oracle, prunings = pair
    intervals = ran.of("interval")
    assert len(intervals) == len(oracle.client_accuracy) == len(prunings)
    for record, own in zip(intervals, oracle.client_accuracy, strict=True):
        seen = [np.nan if a is None else a for a in record["client_accuracy"]]
        if not np.isnan(seen).all():  # methods that do not recover do not look
            np.testing.assert_allclose(seen, own, rtol=1e-12)
    if intervals:
        assert intervals[-1]["percents"] == oracle.policy.density_pct.tolist()


def test_accuracy_of_both_server_models_at_the_end(pair):
    ran, oracle, _ = pair
    data, number = oracle.sim.dataset, oracle.config.rounds
    (final,) = ran.of("final")
    assert final["mask"]["accuracy"] == pytest.approx(accuracy(oracle.w, data.x_test, data.y_test), abs=1e-12)
    if oracle.nested:
        buffered = oracle.buffer_average(number)
        assert final["fedavg"]["accuracy"] == pytest.approx(accuracy(buffered, data.x_test, data.y_test), abs=1e-12)
    else:
        assert final["fedavg"] == final["mask"]


def test_the_runs_are_what_they_are_meant_to_be(pair, request):
    """Pruned and recovered, stale and fresh updates, windows of several rows: none of it passed by unseen."""
    ran, oracle, prunings = pair
    if not oracle.nested:
        assert not any(prunings)
        assert any(any(stale) for stale in oracle.staleness) == (oracle.config.window.close != "all")
        return
    assert any(levels is not None for levels in prunings)
    assert max(max(stale, default=0) for stale in oracle.staleness) >= 2
    assert min(min(r["percents"]) for r in ran.of("interval")) < 60
    on_arrival = oracle.config.window.dispatch == "on_arrival"
    planner = oracle.sim.new_planner()
    assert (max(len(planner.take().rows) for _ in range(5)) > 1) == on_arrival
    if oracle.config.density.interval == 2:
        assert any(any(r["triggered"]) for r in ran.of("interval"))
        generations = {slot[2] // 2 for slot in oracle.slots.values()}
        assert len(generations) > 1  # the last aggregation had masks of several prunings
