"""A cohort: few of many clients take part at a time, and nobody's model is kept."""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from marked import slow_except

from prfl_jax.data.device import draw_batches
from prfl_jax.engine import planner
from prfl_jax.local.sgd import make_local_round
from prfl_jax.report import comparable
from prfl_jax.runtime import simulation
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.signals import Interrupted

TEN = {
    "clients__number": 10,
    "clients__up_mb_s": (5.0, 4.0, 1.5, 1.0, 3.0),
    "clients__down_mb_s": (20.0, 16.0, 6.0, 4.0, 12.0),
    "window__cohort": 3,
}
METHODS = ("fedavg", "fedasyn", "fedbuff", "fedasync", "heterofl")


def changes(method):
    """HeteroFL without its tiers, which need everybody's round time."""
    return {**TEN, "density__name": "time_balance"} if method == "heterofl" else TEN


def everybody_kept(config):
    """A run of the same clock that keeps a slot for each client."""
    slots = planner.Slots
    with (
        mock.patch.object(simulation, "slots", lambda config: config.clients.number),
        mock.patch("prfl_jax.engine.method.slots", lambda config: config.clients.number),
        mock.patch.object(planner, "Slots", lambda clients, cohort: slots(clients, 0)),
    ):
        return tiny.run_experiment(Experiment(config))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_slots_that_are_handed_on_change_nothing(method):
    ran = tiny.run(method, **changes(method))
    kept = everybody_kept(tiny.config(method, **changes(method)))
    for own, theirs in zip(ran.of("window"), kept.of("window"), strict=True):
        np.testing.assert_allclose(own.pop("loss"), theirs.pop("loss"), rtol=1e-5)
        assert own == theirs
    # a mean over slots adds in the order of the slots
    (tiny.close if method == "heterofl" else tiny.same)(ran.params, kept.params)
    state = ran.experiment.simulation.saved_shapes()
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state.sent)} == {3}
    in_cohort = [len(w["arrivals"]) for w in ran.of("window")]
    assert max(in_cohort) >= 1 and len({c for w in ran.of("window") for c in w["arrivals"]}) > 3


def test_a_cohort_of_all_is_everybody():
    same = {**TEN, "rounds": 4}
    cohort, all_of_them = (tiny.run("fedavg", **{**same, "window__cohort": number}) for number in (10, 0))
    assert cohort.of("window") == all_of_them.of("window")
    tiny.same(cohort.params, all_of_them.params)


@pytest.mark.parametrize("method", slow_except(["fedavg", "fedbuff", "heterofl"], "fedbuff"))
def test_a_run_goes_on_exactly(method, tmp_path):
    config = tiny.config(method, **changes(method))
    experiment = Experiment(config)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for checks in (4, 7):
            with pytest.raises(Interrupted):
                experiment.run(tmp_path / "run", guard=tiny.StopAt(checks), progress=False)
        report = experiment.run(tmp_path / "run", progress=False).report
    whole = tiny.run(method, **changes(method)).report
    assert comparable(report) == comparable(whole)


@pytest.mark.slow
def test_fedavg_of_a_cohort_is_the_mean_of_its_clients():
    """One window from the first model: the mean of what each drawn client makes of it alone."""
    ran = tiny.run("fedavg", **{**TEN, "rounds": 1, "eval_every_s": 1e6})
    (window,) = ran.of("window")
    assert len(window["arrivals"]) == 3 == len(window["client_bytes_down"])
    alone = []
    for client in window["arrivals"]:
        alone.append(first_round_of(client))
    mean = jax.tree.map(lambda *leaves: np.mean(np.stack(leaves).astype(np.float64), axis=0), *alone)
    tiny.close(ran.params, mean, relative=1e-6)


def first_round_of(client):
    """What one client makes of the first model in its first round."""
    sim = tiny.simulation("fedavg", **TEN)
    state, work = sim.init_state(sim.init_key), sim.engine.config.local
    data, config = sim.device_data(), sim.config
    x, y = draw_batches(
        data, sim.keys.data, client, 0, work.steps, work.batch_size, config.data.normalize, config.data.augment
    )
    key = jax.random.fold_in(jax.random.fold_in(sim.keys.dropout, client), 0)
    model, loss, layout = sim.method.model, sim.method.loss, sim.method.layout
    run = make_local_round(model, loss, layout, work)
    masks = tuple(np.ones(layout.shapes[i], bool) for i in layout.prunable)
    return jax.device_get(run(state.params, masks, x, y, np.float32(config.local.lr), key).params)
