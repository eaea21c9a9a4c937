"""Runs in which much happens at one moment: windows of length 0, grid points and horizons met up to rounding."""

import json

import pytest
import tiny

from prfl_jax.report import read_metrics
from prfl_jax.runtime.dry_run import estimate
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.signals import Interrupted

# Four clients of one speed, alone on the network: rounds of 8/8 + 8/2 = 5 s that all end together.
ALIKE = dict(
    clients__up_mb_s=(2.0,), clients__down_mb_s=(8.0,), clients__sigma=0.0, server__sigma=0.0, server__contention=False
)


def test_fedasync_with_equal_clients_takes_arrivals_in_turn(tmp_path):
    """Report, figure and page of it; staleness 0 + 1 + 2 + 3 and then 3 each, on average 2.7 in 20 windows."""
    done = Experiment(tiny.config("fedasync", rounds=20, eval_every_s=5.0, **ALIKE)).run(tmp_path, progress=False)
    records = list(read_metrics(tmp_path / "metrics.jsonl"))
    windows = [record for record in records if record["kind"] == "window"]
    assert [window["end_s"] for window in windows] == [5.0 * (1 + n // 4) for n in range(20)]
    assert [window["arrivals"] for window in windows] == [[n % 4] for n in range(20)]
    assert [window["staleness"] for window in windows] == [[min(n, 3)] for n in range(20)]
    assert done.report["client_updates"] == 20 and done.report["simulated_s"] == 25.0
    assert [client["staleness_mean"] for client in done.report["clients"]] == [2.4, 2.6, 2.8, 3.0]
    evaluated = {record["t_s"]: record["window"] for record in records if record["kind"] == "eval"}
    assert evaluated == {0.0: 0, 5.0: 4, 10.0: 8, 15.0: 12, 20.0: 16, 25.0: 20}  # after all that ends at the point
    assert (tmp_path / "figure.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedasync", "fedbuff"])
def test_a_run_stopped_between_windows_of_length_0_is_resumed(strategy, tmp_path):
    changes = dict(rounds=10, engine__chunk_windows=1, eval_every_s=5.0, **ALIKE)
    whole = tiny.run(strategy, **changes)
    for checks in range(1, 40, 3):  # another signal whenever it goes on
        try:
            experiment = Experiment(tiny.config(strategy, **changes))
            experiment.run(tmp_path, progress=False, guard=tiny.StopAt(checks))
        except Interrupted:
            continue
        break
    else:
        raise AssertionError("never ended")
    records = [{k: v for k, v in r.items() if k != "host_s"} for r in read_metrics(tmp_path / "metrics.jsonl")]
    assert [r for r in records if r["kind"] == "window"] == whole.of("window")
    assert [r for r in records if r["kind"] == "eval"] == whole.of("eval")


@pytest.mark.slow
def test_a_grid_point_and_a_horizon_are_met_up_to_rounding():
    """Windows of .7 s end at .7, 1.4, 2.0999999999999996, ...; the point and horizon 2.1 are window 3's."""
    assert 0.7 + 0.7 + 0.7 < 2.1 < 3 * 0.7 + 1e-15
    assert 0.1 + 0.1 + 0.1 > 0.3
    for dt_s, point in ((0.7, 2.1), (0.1, 0.3)):
        changes = dict(window__dt_s=dt_s, eval_every_s=point, horizon_s=point, rounds=50)
        ran = tiny.run("fedasyn", **changes)
        assert [(r["t_s"], r["window"]) for r in ran.of("eval")] == [(0.0, 0), (point, 3)]
        assert ran.report["windows"] == 3 and ran.report["ended"]["how"] == "horizon"
        assert all(r["model_s"] <= r["t_s"] for r in ran.of("eval"))


@pytest.mark.slow
def test_a_dry_run_of_very_many_equal_clients():
    """400 windows of the clock alone would all be at one moment."""
    config = tiny.config("fedasync", **{**ALIKE, "clients__number": 300}, horizon_s=25.0, rounds=10**6)
    config.local.batch_size = 1
    assert estimate(config).windows == pytest.approx(5 * 300, rel=0.3)
    json.dumps(estimate(config).simulated_s, allow_nan=False)
