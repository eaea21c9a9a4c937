"""Training put off until an arrival and done for all that are in flight: the same run, in fewer and fuller calls."""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.engine.memory import state_bytes
from prfl_jax.engine.method import resolve
from prfl_jax.report import comparable
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

# By |w|, so that a rounding error does not reach the choice of what is pruned.
STEADY = {"rounds": 20, "density__interval": 4, "submodel__importance": "weight"}
KINDS = ("prfl", "fedbuff", "fedasync", "heterofl_windowed")  # each kernel, each dispatch rule, each kind of sub-model


def same_windows(got, want):
    assert len(got.of("window")) == len(want.of("window"))
    for one, other in zip(got.of("window"), want.of("window"), strict=True):
        np.testing.assert_allclose(one.pop("loss"), other.pop("loss"), rtol=1e-4)
        assert one == other
    assert got.of("interval") == want.of("interval")


@pytest.mark.slow
@pytest.mark.parametrize("method", KINDS)
@pytest.mark.parametrize("group", [0, 3])
def test_one_after_another_and_in_groups(method, group):
    """`test_axes.py` has all at once, for every method."""
    axis = "vmap" if group else "map"
    ahead = tiny.run(method, engine__train="pending", engine__clients=axis, engine__group=group, **STEADY)
    on_arrival = tiny.run(method, engine__train="arrival", **STEADY)
    tiny.close(ahead.params, on_arrival.params, 1e-5)
    same_windows(ahead, on_arrival)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedbuff", "prfl"])
def test_models_stored_in_bfloat16_are_the_same(method):
    """Updates that wait are kept as they were trained: small steps would be lost in bfloat16."""
    settings = {"engine__store": "bfloat16", "local__lr": 0.002, "rounds": 8}
    ahead, on_arrival = (tiny.run(method, engine__train=train, **settings) for train in ("pending", "arrival"))
    tiny.close(ahead.params, on_arrival.params, 1e-6)


@pytest.mark.slow
def test_accumulated_importance_counts_arrivals_not_trainings():
    """Whoever is in flight at an interval's end is trained, but has not arrived: the next pruning may not know it."""
    settings = {"rounds": 8, "density__interval": 4, "submodel__importance": "server_sq_grad"}
    ahead, on_arrival = (tiny.run("prfl", engine__train=train, **settings) for train in ("pending", "arrival"))
    tiny.close(ahead.params, on_arrival.params, 1e-5)
    same_windows(ahead, on_arrival)


def planned(method, **changes):
    """The rows of twenty windows: (arrivals of each, slots trained in each)."""
    planner = tiny.simulation(method, engine__train="pending", **changes).new_planner()
    rows = [row for _ in range(20) for row in planner.take().rows]
    arrivals = [row.arrive[: row.arrive_count].tolist() for row in rows]
    return rows, arrivals, [row.train[: row.train_count].tolist() for row in rows]


@pytest.mark.parametrize("method", ["fedasync", "fedbuff", "prfl"])
def test_each_round_is_trained_once_and_before_it_arrives(method):
    rows, arrivals, trained = planned(method)
    ready: set[int] = set()
    for row, arrived, now in zip(rows, arrivals, trained, strict=True):
        assert not ready & set(now)  # nobody twice
        ready |= set(now)
        assert set(arrived) <= ready
        ready -= set(arrived)
        assert all(row.lr[slot] > 0 for slot in {*now, *arrived})


def test_methods_with_one_arrival_a_window_train_many_at_once():
    """Alike clients come in turn: one call trains all of them, where each arrival alone would need its own."""
    alike = {"clients__up_mb_s": (2.0,) * 4, "clients__down_mb_s": (8.0,) * 4, "clients__sigma": 0.1}
    _, arrivals, trained = planned("fedasync", **alike)
    calls = [now for now in trained if now]
    assert max(map(len, arrivals)) == 1 and sum(map(len, arrivals)) == 20
    assert len(calls) <= 10 and max(map(len, calls)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prfl", "fedasync"])
def test_a_run_goes_on_exactly_and_in_either_way(method, tmp_path):
    whole = tiny.run(method, engine__train="pending", engine__clients="vmap")
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for name, train in (("same", "pending"), ("other", "arrival")):
            config = tiny.config(method, engine__train="pending", engine__clients="vmap")
            for checks in (3, 4):
                with pytest.raises(Interrupted):
                    Experiment(config).run(tmp_path / name, guard=tiny.StopAt(checks), progress=False)
            config.engine.train = train
            again = Experiment(config).run(tmp_path / name, progress=False)
            if train == "pending":
                assert comparable(again.report) == comparable(whole.report)
                tiny.same(again.params, whole.params)
            else:
                tiny.close(again.params, whole.params, 1e-5)


@pytest.mark.slow
def test_a_cohort_and_seeds_together(tmp_path):
    changes = {
        "clients__number": 10, "clients__up_mb_s": (5.0, 4.0, 1.5, 1.0, 3.0), "window__cohort": 3,
        "clients__down_mb_s": (20.0, 16.0, 6.0, 4.0, 12.0), "rounds": 12,
    }  # fmt: skip
    alone = [tiny.run("fedbuff", seed=seed, engine__train="arrival", **changes) for seed in range(2)]
    configs = [tiny.config("fedbuff", seed=seed, engine__train="pending", **changes) for seed in range(2)]
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        done = run_batched(configs, [tmp_path / str(seed) for seed in range(2)], progress=False)
    for finished, want in zip(done, alone, strict=True):
        tiny.close(finished.params, want.params, 1e-5)


def test_a_model_a_client_in_memory_and_none_in_checkpoints():
    shapes = {}
    for train in ("pending", "arrival"):
        simulation = tiny.simulation("fedbuff", engine__train=train)
        shapes[train] = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
        assert simulation.saved_shapes().trained == ()
    pending, arrival = (state_bytes(shapes[train]) for train in ("pending", "arrival"))
    assert pending.pop("trained ahead") == arrival["models in flight"] + 4 * 4  # and a loss
    assert pending == arrival


def test_clients_own_gradients_are_kept_for_arrivals_only():
    config = tiny.config("prfl", engine__train="pending", submodel__importance="client_sq_grad")
    with pytest.raises(UserError, match="engine.train='pending'"):
        validate(config)


@pytest.mark.parametrize(
    ("backend", "method", "changes", "train"),
    [
        ("gpu", "fedbuff", {}, "pending"),
        ("gpu", "prfl", {}, "pending"),
        ("gpu", "prfl", {"submodel__importance": "client_sq_grad"}, "arrival"),
        ("gpu", "fedavg", {}, "arrival"),  # everybody arrives at once as it is
        ("gpu", "fedbuff", {"engine__clients": "map"}, "arrival"),
        ("cpu", "fedbuff", {"engine__clients": "vmap"}, "arrival"),
        ("cpu", "fedbuff", {"engine__train": "pending"}, "pending"),
    ],
)
def test_which_way_is_taken(backend, method, changes, train):
    with mock.patch.object(accelerator, "backend", lambda: backend):
        assert resolve(tiny.config(method, **changes), (28, 28, 1), 10).train == train
