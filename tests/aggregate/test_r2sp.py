"""FedMP's aggregations: R2SP and BSP against float64 NumPy, their limits, first m of N, and what failing rounds do."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from ml_collections import ConfigDict
from prfl_oracle import run_beside

from prfl_jax.aggregate import AGGREGATIONS, CloseContext
from prfl_jax.clock.types import Arrival
from prfl_jax.config.validate import validate
from prfl_jax.models.variables import STATE
from prfl_jax.report import comparable
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.dry_run import estimate
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks, put_back
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

WINDOW_END = dict(window__dispatch="window_end", window__first_waits_for_all=False)
SYNC = dict(window__close="all", **WINDOW_END)
FIRST_TWO = dict(window__close="k_arrivals", window__k=2, **WINDOW_END)
# scores whose rounding errors swap no two weights
STEADY = dict(submodel__importance="weight")
ON_ARRIVAL = dict(window__close="k_arrivals", window__k=3, window__dispatch="on_arrival")
RUNS = {
    "r2sp": dict(aggregation__name="r2sp", **SYNC),
    "r2sp, first two": dict(aggregation__name="r2sp", rounds=14, **FIRST_TWO),
    "r2sp, by arrivals": dict(aggregation__name="r2sp", rounds=12, **ON_ARRIVAL),
    "r2sp, half a step": dict(aggregation__name="r2sp", aggregation__server_lr=0.5, rounds=12, **FIRST_TWO),
    "r2sp with adam": dict(aggregation__name="r2sp", aggregation__optimizer="adam", rounds=12, **FIRST_TWO),
    "bsp": dict(aggregation__name="bsp", **SYNC),
    "bsp, first two": dict(aggregation__name="bsp", rounds=12, **FIRST_TWO),
}


def pruned(**changes):
    """A run of sub-models, nested and of densities by round time."""
    return tiny.config("prfl_norecover", **{**STEADY, **changes})


@pytest.mark.parametrize("name", slow_except(RUNS, "r2sp, first two"))
def test_whole_runs_follow_the_oracle(name):
    """In windows of the first arrivals, updates of several generations of masks and of server models meet."""
    ran, oracle, prunings = run_beside(Experiment(pruned(**RUNS[name])))
    tiny.close(ran.params, oracle.w, 1e-5)
    for window, losses in zip(ran.of("window"), oracle.losses, strict=True):
        np.testing.assert_allclose(window["loss"], losses, rtol=1e-5)
    assert sum(levels is not None for levels in prunings) >= 2
    assert min(min(r["percents"]) for r in ran.of("interval")) < 60
    if "all" not in RUNS[name].values():
        met = [len(set(stale)) for stale in oracle.staleness]
        assert max(met) > 1 and max(map(max, oracle.staleness)) >= 2


def test_a_sub_model_is_put_back_where_it_is_held():
    rng = np.random.default_rng(0)
    shapes = {"b": (3,), "v": (5, 2), "w": (4, 3)}
    whole = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    layout = Layout.of(whole)
    masks = tuple(jnp.asarray(rng.random(shapes[name]) < 0.5) for name in ("v", "w"))
    trained = apply_masks(layout, jax.tree.map(lambda leaf: leaf + 1, whole), masks)
    back = put_back(layout, trained, masks, whole)
    np.testing.assert_array_equal(back["b"], whole["b"] + 1)
    for name, mask in zip(("v", "w"), masks, strict=True):
        assert 0 < np.asarray(mask).sum() < mask.size
        np.testing.assert_array_equal(back[name], np.where(mask, whole[name] + 1, whole[name]))
    tiny.same(put_back(layout, apply_masks(layout, whole, masks), masks, whole), whole)


def test_each_arrival_counts_once_whatever_its_p():
    p = np.array([0.7, 0.2, 0.1])
    for name in ("r2sp", "bsp"):
        for came in ((0, 2), (1,), ()):
            arrivals = [Arrival(client, 0, 0, 0.0, 0.0, 0.0, 1.0, 0) for client in came]
            seen = CloseContext(1, arrivals, [None] * 3, p, np.full(3, np.nan), 7.0)
            closing = AGGREGATIONS.find(name).close(ConfigDict({"server_lr": 0.8}), seen)
            assert closing.arrivals == tuple(0.8 / len(came) for _ in came) and not closing.slots.any()
            assert closing.keep == pytest.approx(0.2 if came else 1.0)


@pytest.mark.parametrize("name", slow_except(["r2sp", "bsp"], "r2sp"))
def test_with_full_models_it_is_fedavg(name):
    tiny.close(tiny.run("fedavg", aggregation__name=name).params, tiny.run("fedavg").params, 1e-6)


FAULTS = dict(faults__dropout=0.1, faults__crash=0.1, faults__lost_upload=0.1, faults__leave_s=(1e9, 1e9, 23.0, 1e9))


@pytest.mark.parametrize("name", slow_except(["asyn_fl", "faults", "r2sp"], "asyn_fl"))
def test_the_first_n_of_n_are_the_synchronous_form(name):
    """To the bit: models, losses, times and bytes."""
    if name != "r2sp":
        more = FAULTS if name == "faults" else {}
        first, all_ = tiny.run("asyn_fl", window__k=4, **more), tiny.run("fedavg", **more)
    else:
        first = tiny.run_experiment(Experiment(pruned(aggregation__name="r2sp", **{**FIRST_TWO, "window__k": 4})))
        all_ = tiny.run_experiment(Experiment(pruned(**RUNS["r2sp"])))
    tiny.same(first.params, all_.params)
    assert first.of("window") == all_.of("window") and first.of("eval") == all_.of("eval")
    fewer = run_clock(tiny.config("asyn_fl", window__k=2), 8, first.experiment.simulation.method.size)
    assert max(fewer["staleness_mean"]) > 0 and sum(fewer["updates"]) == 16


def test_more_than_n_arrivals_are_refused_in_one_line():
    config = tiny.config("asyn_fl", window__k=5)
    for refuses in (validate, estimate, Experiment):
        with pytest.raises(UserError, match="window.k") as info:
            refuses(config)
        assert "\n" not in str(info.value) and "at most" in str(info.value)


@pytest.mark.slow
def test_what_nobody_trained_keeps_its_value():
    """All updates are rejected: the whole server model comes back, to the bit; with BSP only what was sent of it."""
    attack = dict(attack__name="nan", attack__number=4, aggregation__clip_norm=1.0)
    r2sp, bsp = (pruned(aggregation__name=name, rounds=5, **SYNC, **attack) for name in ("r2sp", "bsp"))
    experiment = Experiment(r2sp)
    simulation = experiment.simulation
    initial = jax.device_get(simulation.init_state(simulation.init_key).params)
    tiny.same(tiny.run_experiment(experiment).params, initial)
    left = tiny.run_experiment(Experiment(bsp)).params
    kernels = [model["Dense_0"]["kernel"] for model in (left, initial)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).mean() > 0.3


# Other ways to run, each of which must give the same model; groups of three have padding.
WAYS = {
    "groups": dict(engine__clients="vmap", engine__group=3),
    "pending": dict(engine__clients="vmap", engine__train="pending"),
    "host": dict(engine__models="host"),
    "host groups": dict(engine__models="host", engine__clients="vmap", engine__group=3),
}


@pytest.mark.parametrize("way", [slow(way) for way in WAYS])
def test_other_ways_to_run_give_the_same_model(way):
    one, other = (tiny.run_experiment(Experiment(pruned(**RUNS["r2sp, first two"], **add))) for add in ({}, WAYS[way]))
    tiny.close(other.params, one.params, 1e-5)
    assert [w["arrivals"] for w in other.of("window")] == [w["arrivals"] for w in one.of("window")]


@pytest.mark.slow
def test_state_is_averaged_and_nothing_trained_is_lost():
    """Sub-models of a network with batch norm: of the state, which no mask covers, the mean of all is taken."""
    module = f"{Path(__file__).parents[1] / 'runtime' / 'test_model_state.py'}:NormedInside"
    changes = dict(model__name=module, rounds=1, **SYNC)
    r2sp, bsp = (tiny.run("prfl_norecover", aggregation__name=name, **changes) for name in ("r2sp", "bsp"))
    whole = tiny.run("fedavg", model__name=module, rounds=1)  # of the first round, in which all clients hold all
    for ran in (r2sp, bsp):
        tiny.close(ran.params, whole.params, 1e-6)
    later = tiny.run("prfl_norecover", aggregation__name="r2sp", **{**changes, "rounds": 8})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(later.params))
    assert all(leaf.size == 12 for leaf in jax.tree.leaves(later.params[STATE]))


@pytest.mark.slow
def test_half_precision_rounds_what_comes_back():
    """The residual model is kept as models in flight are, so an untrained weight is rounded once, not in each round."""
    changes = dict(**RUNS["r2sp"], attack__name="nan", attack__number=4, aggregation__clip_norm=1.0)
    experiment = Experiment(pruned(engine__store="bfloat16", **changes))
    simulation = experiment.simulation
    initial = jax.device_get(simulation.init_state(simulation.init_key).params)
    rounded = jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf, jnp.bfloat16), np.float32), initial)
    tiny.same(tiny.run_experiment(experiment).params, rounded)


@pytest.mark.slow
def test_a_run_goes_on_with_models_in_flight(tmp_path):
    config = pruned(**RUNS["r2sp, first two"], engine__chunk_windows=2)
    experiment, whole = Experiment(config), tiny.run_experiment(Experiment(config))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for checks in (5, 4):
            with pytest.raises(Interrupted):
                experiment.run(tmp_path, guard=tiny.StopAt(checks), progress=False)
        again = experiment.run(tmp_path, progress=False)
    assert comparable(again.report) == comparable(whole.report)
    tiny.same(again.params, whole.params)
