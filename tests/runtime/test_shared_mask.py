"""Whole runs with one mask for all clients against the rules written out in float64 (`shared_oracle.py`)."""

import json

import jax
import numpy as np
import pytest
import tiny
from marked import slow_except
from prfl_oracle import masked
from shared_oracle import SharedOracle

from prfl_jax.report import comparable, summary_text
from prfl_jax.report.masks import held_shares
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.training import train

RUNS = {
    # times with which the first layer's weights come back more easily than the second's
    "prunefl": dict(
        pruning__initial_rounds=0, rounds=9, pruning__interval=2, clients__step_s=(1.0, 3.0, 0.5, 2.0),
        clients__weight_s=(1e-4, 3e-3), clients__flop_s=(8e5, 4e5, 2e5, 1e5),
    ),
    "conventional": dict(
        pruning__initial_rounds=40, pruning__interval=4, rounds=3, clients__step_s=(1.0, 2.0, 1.5, 1.0),
        clients__weight_s=(1e-4,), clients__flop_s=(8e5, 4e5, 2e5, 1e5),
    ),
    "snip": dict(pruning__density=0.2, rounds=4),
    "iterative": dict(pruning__density=0.1, pruning__times=3, rounds=12),
}  # fmt: skip


@pytest.fixture(scope="module", params=slow_except(RUNS, "prunefl", "conventional"))
def pair(request):
    """(the run, the oracle's)."""
    experiment = Experiment(tiny.config(request.param, local__lr=0.5, **RUNS[request.param]))
    simulation = experiment.simulation
    initial = jax.device_get(simulation.init_state(simulation.init_key).params)
    ran = tiny.run_experiment(experiment)
    oracle = SharedOracle(simulation, initial)
    oracle.run(experiment.config.rounds)
    return ran, oracle


def test_masks_hold_what_the_loops_say(pair):
    ran, oracle = pair
    size, method = ran.experiment.simulation.method.size, ran.experiment.config.strategy
    found = {r["window"]: round(r["server"] * size.total) - size.fixed for r in ran.of("masks")}
    assert found == oracle.held
    assert all(record["clients"] == [record["server"]] * 4 for record in ran.of("masks"))
    assert min(found.values()) < size.prunable and len(found) == {"prunefl": 4, "iterative": 3}.get(method, 1)


def test_the_server_model(pair):
    ran, oracle = pair
    tiny.close(ran.params, masked(oracle.w, oracle.server), 1e-5)
    zeros = [np.asarray(ran.params[layer]["kernel"]) == 0 for layer in ("Dense_0", "Dense_1")]
    assert all((zero >= ~mask).all() for zero, mask in zip(zeros, oracle.server, strict=True))


def test_losses_and_bytes_of_every_message(pair):
    ran, oracle = pair
    windows = ran.of("window")
    assert [w["bytes_down"] for w in windows] == oracle.down  # one copy
    for window, losses, up, down in zip(windows, oracle.losses, oracle.up, oracle.down, strict=True):
        np.testing.assert_allclose(window["loss"], [losses[client] for client in window["arrivals"]], rtol=1e-5)
        assert window["client_bytes_up"] == [up[client] for client in window["arrivals"]]
        assert window["client_bytes_down"] == [[client, down] for client in range(4)]


def test_the_first_stage_passes_before_window_1(pair):
    """At t = 0 the model is W_0, and window 1 begins when the stage is over."""
    ran, oracle = pair
    if ran.experiment.config.strategy != "conventional":
        assert ran.of("window")[0]["start_s"] == 0.0 and ran.report["masks"]["initial"] is None
        return
    initial, (first, *others) = ran.report["masks"]["initial"], ran.of("eval")
    assert initial["rounds"] == oracle.first_rounds > 11 and initial["bytes_up"] == initial["bytes_down"] == 0
    assert initial["t_s"] == ran.of("window")[0]["start_s"] == pytest.approx(oracle.first_s)
    assert initial["retention"] == ran.report["masks"]["retention"] < 0.5
    lines = " ".join(summary_text(ran.report).split())
    assert "own masks keep" not in lines and f"as do all clients; initial rounds: {initial['rounds']}" in lines
    unlike = [e["t_s"] for e in others if e["mask"] != first["mask"]]
    assert min(unlike) >= initial["t_s"] and all(e["t_s"] < initial["t_s"] for e in others if e["t_s"] not in unlike)


def test_a_run_may_end_within_the_first_stage():
    """Which takes 20 s a round: at its horizon the model is W_0, and the mask is full; and it says so."""
    ran = tiny.run("conventional", clients__step_s=(2.0,) * 4, horizon_s=50.0, eval_every_s=20.0)
    fedavg = tiny.run("fedavg", horizon_s=50.0, eval_every_s=20.0)
    ended, (record,) = ran.report["ended"], ran.of("masks")
    assert ended["how"] == "horizon" and ended["detail"] == "within the first stage, round 3 of at most 1000"
    assert not ran.of("window") and record["server"] == 1.0 and not record["initial_over"]
    assert ran.report["masks"]["initial"].items() >= {"rounds": 3, "ended": False, "t_s": 50.0}.items()
    assert held_shares(ran.report)[:2] == ([0.0, 50.0, 50.0], [1.0, 1.0, 1.0])
    assert [e["t_s"] for e in ran.of("eval")] == [0.0, 20.0, 40.0]
    assert all(e["mask"] == fedavg.of("eval")[0]["mask"] for e in ran.of("eval"))


@pytest.mark.slow
def test_the_last_line_names_the_files_that_there_are(tmp_path, capsys):
    """Also of a mask that never changed."""
    config = tiny.config("prunefl", pruning__initial_rounds=0, rounds=1)
    assert train(config, "x.py", str(tmp_path / "run")) == 0
    named = capsys.readouterr().out.splitlines()[-1].rpartition(": ")[0].split(", ")
    assert "masks.npz" in named and "masks" not in json.loads((tmp_path / "run/report.json").read_text())
    assert all((tmp_path / "run" / name).exists() for name in named)


# five of eight clients at a time
IN_COHORTS = dict(
    clients__number=8, clients__up_mb_s=(2.0,) * 8, clients__down_mb_s=(8.0,) * 8, window__cohort=5, rounds=9,
    pruning__density=0.1, pruning__times=2,
)  # fmt: skip


@pytest.mark.parametrize("method", slow_except(["snip", "iterative"], "iterative"))
def test_a_mask_is_sent_until_an_update_has_arrived(method):
    """In cohorts each new mask goes to each client with its next model."""
    ran = tiny.run(method, **IN_COHORTS)
    size = ran.experiment.simulation.method.size
    counts = {r["window"]: round(r["server"] * size.total) - size.fixed for r in ran.of("masks")}
    held, owed, seen = size.prunable, set(), 0
    for window in ran.of("window"):
        values = round((held + size.fixed) * size.bytes_per_value)
        mask = min(-(-size.prunable // 8), 4 * held)
        for client, sent in window["client_bytes_down"]:
            assert sent == values + (mask if client in owed else 0)
            seen += client in owed
        assert window["client_bytes_up"] == [values] * 5
        owed -= set(window["arrivals"])
        if window["window"] in counts:
            held, owed = counts[window["window"]], set(range(8))
    assert seen > 5 and len(counts) == {"snip": 1, "iterative": 2}[method]


def test_a_change_waits_for_a_window_with_arrivals():
    """Where all rounds of window 1 fail SNIP has no update to go by yet."""
    ran = tiny.run("snip", faults__dropout=0.75, rounds=4, seed=6)
    with_arrivals = [window["window"] for window in ran.of("window") if window["arrivals"]]
    assert [record["window"] for record in ran.of("masks")] == with_arrivals[:1]
    assert with_arrivals[0] > 1 and ran.of("masks")[0]["server"] < 0.11


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_it_goes_on_from_wherever_it_was_stopped(method, tmp_path):
    settings = IN_COHORTS | dict(eval_every_s=1.0)
    whole, experiment = tiny.run(method, **settings), Experiment(tiny.config(method, **settings))
    for stop in range(2, {"snip": 17}.get(method, 40), 5):
        again = tiny.stopped_and_resumed(experiment, tmp_path / str(stop), stop)
        assert comparable(again.report) == comparable(whole.report)


@pytest.mark.slow
def test_malicious_clients_are_outvoted():
    """Attacks and robust aggregations work as under any other masks."""
    ran = tiny.run(
        "iterative", attack__name="nan", attack__number=1, aggregation__name="median", aggregation__byzantine=1
    )
    assert ran.report["ended"]["how"] == "rounds" and ran.of("window")[-1]["rejected"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ran.params))


@pytest.mark.parametrize(("changes", "kept"), [({}, 1.0), (dict(faults__dropout=0.5), 0.0)])
def test_gradients_count_that_are_uploaded(changes, kept):
    """Where a round may fail, sums of earlier windows are not what this window's clients upload."""
    simulation = tiny.simulation("prunefl", pruning__initial_rounds=0, pruning__interval=2, **changes)
    masks, state = simulation.masks(), simulation.init_state(simulation.init_key)
    state = state._replace(importance=jax.tree.map(jax.numpy.ones_like, state.importance))
    assert not masks.prepare(state, 2)[1]
    after, charged = masks.prepare(state, 3)
    assert charged and all(float(total.min()) == float(total.max()) == kept for total in after.importance.total)
