"""Uploads of a part of an update (FlexCom): how many values, their bytes, error feedback, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from local_oracle import Largest, keep_largest, most_values
from marked import slow
from prfl_oracle import run_beside

from prfl_jax.config.canonical import config_hash
from prfl_jax.config.validate import validate
from prfl_jax.engine.method import keeps
from prfl_jax.models.variables import STATE
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.size import ModelSize
from prfl_jax.system.errors import UserError
from prfl_jax.transport import find_upload, topk, upload_sizes
from prfl_jax.transport.uploads import sparse_bytes

SIZE = ModelSize(layers=(800, 200), fixed=24)  # 1024 values: an index has 10 bits, a bitmap 128 bytes
TOPK = find_upload("topk")
# from none to nearly all of an update is left out
SLOW = dict(clients__up_mb_s=(5.0, 4.0, 0.4, 0.05), clients__down_mb_s=(20.0, 16.0, 6.0, 4.0), rounds=6)


def sizes(mb_s, size=SIZE, density_pct=None, **more):
    density_pct = np.full(len(mb_s), 100) if density_pct is None else np.array(density_pct)
    return upload_sizes(size, density_pct, mb_s, **more)


def test_bytes_of_a_part_worked_out_by_hand():
    """80 values: 320 bytes and 100 of indices; 200: 800 and a bitmap of 128; 1000: all are cheaper, 4096 bytes."""
    values = np.array([1, 80, 102, 103, 200, 1000, 1024])
    want = [4 + 2, 320 + 100, 408 + 128, 412 + 128, 800 + 128, 4096, 4096]
    assert sparse_bytes(sizes((1.0,) * 7), values).tolist() == want
    with_state = dataclasses.replace(SIZE, state=4)  # of the 24: sent whole, and never chosen from
    assert sizes((1.0,), with_state).values.tolist() == [1020]
    assert sparse_bytes(sizes((1.0,), with_state), np.array([80])).tolist() == [336 + 100]


def test_values_fit_the_time_of_the_median_client():
    """All take 2.048, 4.096 and 40.96 ms; in 4.096 ms the last one sends 409 bytes: 77 values and 97 of indices."""
    found = TOPK.values(sizes((2.0, 1.0, 0.1)))
    assert found.tolist() == [1024, 1024, 77]
    assert TOPK.values(sizes((1.0, 1.0, 1e-6))).tolist() == [1024, 1024, 1]  # at least one
    assert TOPK.values(sizes((1.0,) * 3)).tolist() == [1024] * 3
    one = ModelSize(layers=(1,), fixed=0)
    assert TOPK.values(sizes((2.0, 2.0, 0.1), one)).tolist() == [1, 1, 1]


def test_values_are_those_of_a_search_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(30):
        size = ModelSize(
            layers=(int(rng.integers(1, 900)),),
            fixed=(fixed := int(rng.integers(0, 60))),
            state=int(rng.integers(0, fixed + 1)),
            bytes_per_value=float(rng.choice([4.0, 837.7, 0.3])),
        )
        given = sizes(tuple(np.exp(rng.normal(0, 2, 5))), size)
        budget = np.median(given.whole_bytes / given.mb_s) * given.mb_s
        found, sent = TOPK.values(given), sparse_bytes(given, TOPK.values(given))
        for k in range(5):
            total = int(given.values[k])
            assert found[k] == most_values(total, size.bytes_per_value, budget[k], size.state)
            assert sent[k] <= budget[k] * (1 + 1e-9) or found[k] in (1, total)


def test_a_part_of_a_sub_model_is_of_what_it_holds():
    given = sizes((1.0, 1.0, 0.1), density_pct=[100, 50, 20])
    assert given.values.tolist() == [1024, 524, 224] and given.whole_bytes.tolist() == [4096, 2096, 896]
    assert (TOPK.values(given) <= given.values).all()


SHAPES = {"b": (3,), "v": (5, 2), "w": (4, 3)}


def model(rng, state):
    """Multiples of 1/64, so that sums are exact and many sizes tie."""
    drawn = {name: jnp.asarray(rng.integers(-9, 10, shape) / 64, jnp.float32) for name, shape in SHAPES.items()}
    return {**drawn, STATE: {"mean": jnp.asarray(rng.normal(size=3), jnp.float32)}} if state else drawn


@pytest.mark.parametrize(("state", "masked"), [(False, False), slow(True, False), slow(False, True), (True, True)])
def test_error_feedback_over_several_rounds(state, masked):
    """Against float64: the largest values, ties by position, the others later; nothing of what is not held."""
    rng = np.random.default_rng(4 * state + 2 * masked)
    layout = Layout.of(model(rng, state))
    unsent = topk.init(model(rng, state))
    own = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    encode = jax.jit(topk.encode, static_argnums=0)
    lost = 0
    for values in (3, 0, 25, 1, 7, 7, 11):
        sent, trained = model(rng, state), model(rng, state)
        held = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
        if masked:
            held |= {name: rng.random(SHAPES[name]) < 0.6 for name in ("v", "w")}
            sent, trained = ({**one, **{n: jnp.where(held[n], one[n], 0) for n in SHAPES}} for one in (sent, trained))
        masks = tuple(jnp.asarray(held[name]) for name in ("v", "w")) if masked else ()
        arrived, unsent = encode(layout, sent, trained, masks, unsent, jnp.int32(values))
        total = {n: held[n] * (np.asarray(trained[n], float) - np.asarray(sent[n], float) + own[n]) for n in SHAPES}
        kept = keep_largest([total[name].ravel() for name in SHAPES], values)
        for name, part in zip(SHAPES, kept, strict=True):
            part = part.reshape(SHAPES[name])
            np.testing.assert_array_equal(arrived[name], np.asarray(sent[name], float) + part)
            own[name] = np.where(held[name], total[name] - part, own[name])
            np.testing.assert_array_equal(unsent[name], own[name])
            lost += np.abs(own[name]).sum()
        if state:
            tiny.same(arrived[STATE], trained[STATE])
    assert lost > 0


def test_keeping_all_is_fedavg():
    ran, fedavg = tiny.run("flexcom", clients__up_mb_s=(2.0,)), tiny.run("fedavg")  # whose speeds change no model
    tiny.close(ran.params, fedavg.params, 1e-6)
    assert ran.report["bytes_up"] == fedavg.report["bytes_up"]


@pytest.mark.slow
def test_a_whole_run_follows_the_oracle():
    """Not to the last bits: a rounding error may swap two values that are all but equally large."""
    config = tiny.config("flexcom", **SLOW)
    ran, oracle, _ = run_beside(Experiment(config))
    costs = ran.experiment.simulation.costs(np.full(4, 100))
    assert costs.values_up.tolist() == oracle.upload.values and 0 < costs.values_up[3] < 0.1 * costs.values_up[0]

    def apart(w):
        pairs = zip(jax.tree.leaves(ran.params), jax.tree.leaves(w), strict=True)
        return max(np.abs(got - want).max() / np.abs(want).max() for got, want in pairs)

    assert apart(oracle.w) < 1e-3
    Largest.feedback = False
    try:
        assert apart(run_beside(Experiment(config))[1].w) > 1e-2
    finally:
        Largest.feedback = True


@pytest.mark.slow
def test_state_is_sent_whole():
    module = f"{Path(__file__).parents[1] / 'runtime' / 'test_model_state.py'}:NormedInside"
    part, whole = (tiny.run(name, model__name=module, **{**SLOW, "rounds": 1}).params for name in ("flexcom", "fedavg"))
    tiny.close(part[STATE], whole[STATE], 1e-6)
    assert (np.asarray(part["Dense_0"]["kernel"]) != np.asarray(whole["Dense_0"]["kernel"])).mean() > 0.3


def test_the_clock_charges_what_is_sent():
    config = tiny.config("flexcom", **SLOW)
    simulation = tiny.Simulation(config)
    costs, whole = simulation.costs(np.full(4, 100)), tiny.simulation("fedavg", **SLOW).costs(np.full(4, 100))
    assert (costs.up_bytes < whole.up_bytes).tolist() == [False, False, True, True]
    np.testing.assert_array_equal(costs.down_bytes, whole.down_bytes)
    alone = run_clock(config, 3, simulation.method.size)
    assert alone["bytes_up"] == 3 * costs.up_bytes.sum()
    planned = simulation.new_planner().take()
    assert planned.rows[-1].values_up.tolist() == costs.values_up.tolist()
    assert {a.client: a.bytes_up for a in planned.window.arrivals} == dict(enumerate(costs.up_bytes.tolist()))


WAYS = {
    "groups": dict(engine__clients="vmap", engine__group=3),
    "pending": dict(engine__clients="vmap", engine__train="pending"),
    "host": dict(engine__models="host"),
}


@pytest.mark.parametrize("way", [slow(way) for way in WAYS])
def test_other_ways_to_run_send_the_same(way):
    """In windows of two arrivals, with lost uploads, after which a client still has what it had not sent."""
    changes = dict(**{**SLOW, "rounds": 12}, window__k=2, transport__upload="topk", faults__lost_upload=0.2)
    one, other = (tiny.run("asyn_fl", **changes, **more) for more in ({}, WAYS[way]))
    tiny.close(other.params, one.params, 1e-3)
    assert [w["client_bytes_up"] for w in other.of("window")] == [w["client_bytes_up"] for w in one.of("window")]


@pytest.mark.parametrize("strategy", [slow("prfl"), slow("heterofl"), slow("scaffold"), slow("fedbuff")])
def test_other_methods_send_parts(strategy):
    ran = tiny.run(strategy, transport__upload="topk", **SLOW)
    whole = tiny.run(strategy, **SLOW)
    assert ran.report["bytes_up"] < whole.report["bytes_up"] and np.isfinite(ran.report["final"]["accuracy"])


REFUSED = {
    "median": dict(aggregation__name="median", aggregation__byzantine=1),
    "privacy": dict(privacy__noise_multiplier=1.0, aggregation__clip_norm=1.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_defences_are_refused_in_one_line(name):
    with pytest.raises(UserError, match="with transport.upload='topk'") as info:
        validate(tiny.config("flexcom", **REFUSED[name]))
    assert "\n" not in str(info.value)
    validate(tiny.config("fedavg", **REFUSED[name]))


def test_clients_keep_what_they_have_not_sent():
    config = tiny.config("flexcom")
    assert keeps(config) and not keeps(tiny.config("fedavg"))
    simulation = tiny.Simulation(config)
    state = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
    assert jax.tree.structure(state.clients.unsent) == jax.tree.structure(state.params) and state.clients.work == ()


def test_a_config_without_the_key_keeps_its_hash():
    fedavg = tiny.config("fedavg")
    assert config_hash(tiny.config("fedavg", transport__upload="whole")) == config_hash(fedavg)
    assert config_hash(tiny.config("fedavg", transport__upload="topk")) != config_hash(fedavg)
