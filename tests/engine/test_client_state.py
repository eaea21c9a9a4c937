"""What clients keep between their rounds: read for a round, committed once, when its update arrives."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax.engine.memory import state_bytes
from prfl_jax.engine.method import place
from prfl_jax.engine.placement import Placement
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

WORKS = Path(__file__).parents[1] / "helpers" / "counting_work.py"
COUNTED, READS = (f"{WORKS}:{name}" for name in ("COUNTED", "READS"))
FAULTS = {
    "faults__dropout": 0.1,
    "faults__crash": 0.1,
    "faults__lost_upload": 0.2,
    "faults__repeated_upload": 0.3,
}
COHORT = {
    "clients__number": 10,
    "clients__up_mb_s": (5.0, 4.0, 1.5, 1.0, 3.0),
    "clients__down_mb_s": (20.0, 16.0, 6.0, 4.0, 12.0),
    "window__cohort": 3,
}
# ways to run, each of which must read and commit alike
WAYS = {
    "map": {},
    "vmap": dict(engine__clients="vmap"),
    "groups": dict(engine__clients="vmap", engine__group=2),
    "pending": dict(engine__clients="vmap", engine__train="pending"),
    "host": dict(engine__models="host"),
}


def config(work=COUNTED, strategy="fedasyn", **changes):
    changes = {**dict(rounds=24, local__name=work), **changes}
    return tiny.config(strategy, **changes)


def check_counts(ran):
    """Each arrival had read how many of its client's rounds had arrived; the last state counts them all."""
    seen = Counter()
    for window in ran.of("window"):
        for client, loss in zip(window["arrivals"], window["loss"], strict=True):
            assert loss == seen[client]
            seen[client] += 1
    return seen


@pytest.mark.parametrize("way", ["map", "pending", slow("vmap"), slow("groups"), slow("host")])
@pytest.mark.parametrize(
    "settings", [FAULTS, slow({**COHORT, **FAULTS}), slow(COHORT)], ids=["", "cohort_faults", "cohort"]
)
def test_state_is_read_and_committed_once_an_arrival(way, settings):
    ran = tiny.run_experiment(Experiment(config(**settings, **WAYS[way])))
    seen = check_counts(ran)
    assert max(seen.values()) >= 3
    if settings is FAULTS:  # some rounds failed, some uploads came twice
        kinds = ran.report["faults"]
        assert kinds["lost_upload"] > 0 and kinds["repeated_upload"] > 0


def test_a_rejected_update_leaves_what_was_kept():
    """An update that is not finite is rejected by the server's check; its client goes on from what it had."""
    made = config(f"{WORKS}:OFTEN_NAN", aggregation__clip_norm=1.0)
    ran = tiny.run_experiment(Experiment(made))
    seen, rejected = Counter(), 0
    for window in ran.of("window"):
        for client, loss in zip(window["arrivals"], window["loss"], strict=True):
            assert loss == seen[client]
            seen[client] += client not in window["rejected"]
            rejected += client in window["rejected"]
    assert rejected > 3


def test_a_full_cohort_keeps_by_client():
    """With as many places as clients, slots are still given out anew."""
    ran = tiny.run_experiment(Experiment(config(strategy="fedasync", window__cohort=4)))
    assert len(check_counts(ran)) == 4


@pytest.mark.parametrize("way", ["map", slow("pending")])
def test_state_goes_on_after_a_resume(tmp_path, way):
    made = config(**FAULTS, **WAYS[way])
    with pytest.raises(Interrupted):
        Experiment(made).run(tmp_path / "run", progress=False, guard=tiny.StopAt(4))
    finished = Experiment(made).run(tmp_path / "run", progress=False)
    ran = tiny.Ran(Experiment(made), finished)
    assert len(ran.of("window")) == 24
    check_counts(ran)


@pytest.mark.parametrize(
    ("way", "settings"),
    [("map", {}), slow("pending", {}), slow("vmap", COHORT), slow("map", FAULTS)],
)
def test_what_is_sent_beside_moves_at_the_close(way, settings):
    """Its value at a dispatch: the arrivals in all windows that had closed before, over N."""
    made = config(READS, **settings, **WAYS[way])
    ran = tiny.run_experiment(Experiment(made))
    arrived = np.cumsum([0] + [len(w["arrivals"]) for w in ran.of("window")])
    for number, window in enumerate(ran.of("window"), start=1):
        for staleness, loss in zip(window["staleness"], window["loss"], strict=True):
            version = number - 1 - staleness  # the window at whose close it was sent
            assert loss == pytest.approx(arrived[version] / made.clients.number, rel=1e-6)


def test_state_of_all_clients_is_counted():
    simulation = Experiment(config(**COHORT)).simulation
    shapes = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
    assert shapes.clients.work.shape == (10,) and state_bytes(shapes)["kept by clients"] == 40
    assert "kept by clients" in simulation.memory()


@pytest.mark.parametrize(
    "changes",
    [
        dict(local__name=READS),
        dict(local__name="scaffold", strategy="fedavg"),
        dict(local__name="sgd", local__optimizer="adam", local__optimizer_state="kept"),
    ],
)
def test_a_cohort_on_several_devices_is_refused(monkeypatch, changes):
    made = config(**{**COHORT, **changes})
    monkeypatch.setattr(Placement, "of", lambda *args, **more: Placement(3, tuple(jax.devices()) * 2))
    with pytest.raises(UserError, match="2 devices would share a cohort.*engine.devices=1"):
        place(made)
    assert place(config(local__name="sgd", **COHORT)).count == 2  # where nothing is kept


@pytest.mark.slow
def test_runs_in_a_batch_keep_their_own(tmp_path):
    """Two seeds at once equal two runs."""
    configs = [tiny.config("scaffold", seed=seed, rounds=6) for seed in (0, 1)]
    together = run_batched(configs, [tmp_path / "0", tmp_path / "1"], progress=False)
    for made, finished in zip(configs, together, strict=True):
        alone = tiny.run_experiment(Experiment(made))
        tiny.close(finished.params, alone.params, 1e-5)
