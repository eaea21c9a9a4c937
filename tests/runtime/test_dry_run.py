"""`--dry_run`: true numbers, and nothing is run for them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from paths import ROOT

import prfl_jax
from prfl_jax.aggregate import AGGREGATIONS
from prfl_jax.local import LOCAL_WORKS
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.dry_run import describe, estimate
from prfl_jax.runtime.training import train
from prfl_jax.strategies.table import METHODS

_COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: _COMPILED.append(event))


def test_it_tells_and_compiles_the_chunk_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = prfl_jax.load_config(ROOT / "configs/quickstart.py")
    jax.clear_caches()
    _COMPILED.clear()
    assert train(config, "x.py", None, dry_run=True) == 0
    assert len([event for event in _COMPILED if "backend_compile" in event]) == 1  # for its memory; nothing is run
    said = capsys.readouterr().out
    for words in ("clients", "6,603,710", "memory, state", "bytes up", "host time", "Nothing was trained"):
        assert words in said
    assert not list(tmp_path.iterdir())
    # that more would have been seen
    _COMPILED.clear()
    jax.jit(lambda x: x + 1)(np.float32(1))
    assert [event for event in _COMPILED if "backend_compile" in event]


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        slow("fedavg", {"rounds": 5}),
        ("prfl", {"rounds": 3}),
        slow("prfl_norecover", {"rounds": 8, "transport__bytes": "density"}),
    ],
)
def test_a_real_run_counts_the_same(strategy, changes):
    """Exact where the clock alone knows all: nobody has recovered, and masks cost what they cost at first."""
    config = tiny.config(strategy, **changes)
    told, report = estimate(config), tiny.run(strategy, **changes).report
    assert told.windows == report["windows"] and told.updates == report["client_updates"]
    assert told.simulated_s == report["simulated_s"]
    assert told.bytes_up == report["bytes_up"] and told.bytes_down == report["bytes_down"]
    assert f"{report['windows']:,}, about" in describe(config)


@pytest.mark.slow
def test_a_horizon_shortens_it():
    config = tiny.config("fedavg", rounds=1000, horizon_s=45.0)
    told, report = estimate(config), tiny.run("fedavg", rounds=1000, horizon_s=45.0).report
    assert abs(told.windows - report["windows"]) <= 1 and told.simulated_s == pytest.approx(45.0, rel=0.4)


# One for each kind of state: what is buffered, what is summed, masks, channels.
@pytest.mark.parametrize("strategy", slow_except(METHODS, "prfl", "fedavg", "fedbuff", "heterofl_windowed", "fiarse"))
def test_memory_is_that_of_the_state(strategy):
    sim = tiny.simulation(strategy)
    state = sim.init_state(sim.init_key)
    told = estimate(tiny.config(strategy)).state
    assert sum(told.values()) == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert told["models in flight"] == sim.config.clients.number * model
    counter = 4 if METHODS[strategy].optimizer != "none" else 0  # of the arrivals that count
    if not AGGREGATIONS.find(METHODS[strategy].aggregation).buffered:  # these keep no arrival
        assert told["running sum"] == model + counter and "buffer" not in told
    else:
        assert told["buffer"] == sim.config.clients.number * model and "running sum" not in told
    if LOCAL_WORKS.find(METHODS[strategy].local).sends_beside:  # the value and the sum of a window's changes
        assert told["beside the server model"] == 2 * model
        assert told["kept by clients"] == told["sent beside models"] == sim.config.clients.number * model


def test_narrower_networks_are_told():
    config = tiny.config("fedmp", model__name="narrow_nets:ByWidth", model__size_mb=None, engine__widths=(0.5,))
    assert "sub-models are trained with 0.5 or all of the channels" in describe(config)
    config.engine.widths = ()
    assert "narrower networks" not in describe(config)


def test_the_first_stage_of_a_shared_mask_is_counted():
    """Its rounds are ten steps of 5 s of the first client: of a horizon that is later the windows have the rest."""
    keys = dict(clients__step_s=(5.0, 1.0, 1.0, 1.0), rounds=50, pruning__initial_rounds=3)
    whole, none, beyond = (
        tiny.config("conventional", **{**keys, **more})
        for more in (dict(horizon_s=400.0), dict(horizon_s=250.0, pruning__initial_rounds=0), dict(horizon_s=150.0))
    )
    told, alike = estimate(whole), estimate(none)
    assert (told.first_stage.rounds, told.first_stage.seconds, alike.first_stage.rounds) == (3, 150.0, 0)
    assert (told.windows, told.simulated_s, told.bytes_up) == (alike.windows, alike.simulated_s, alike.bytes_up)
    sample = told.method.model.flop.total(10)
    assert told.flop - alike.flop == pytest.approx(100 * sample * 3.1 * 3)  # 100 samples, looked at in each tenth round
    said = " ".join(describe(whole).split())
    assert "first stage at most 3 rounds, 150 simulated s, before window 1 windows" in said
    assert f"windows {told.windows}, about" in said and "first stage has all its rounds" in said
    said = " ".join(describe(beyond).split())
    assert "the run may end within it windows at most" in said and "updates at most" in said
    assert "first stage" not in describe(none)
    notes = [run_clock(config, 2, told.method.size)["note"] for config in (whole, none)]
    assert [told.first_stage.text in note for note in notes] == [True, False]
