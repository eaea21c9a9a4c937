"""The server's optimisers: by hand on two weights, on what nobody holds, in whole runs against NumPy, in configs."""

import json
import math
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from marked import slow_except
from prfl_oracle import run_beside
from server_oracle import DEFAULTS, Server

from prfl_jax.aggregate import AGGREGATIONS, SERVER_OPTIMIZERS, Aggregation, AggregationKernel
from prfl_jax.aggregate.holders import TellsHeld
from prfl_jax.aggregate.kernels import ServerStep
from prfl_jax.aggregate.server_optimizers import for_weight_rule, server_lr_in_force, step_rule
from prfl_jax.aggregate.server_step import server_step
from prfl_jax.aggregate.weight_rules import fedbuff
from prfl_jax.config.canonical import canonical, config_hash, to_dict
from prfl_jax.config.comparison import compared
from prfl_jax.config.validate import validate
from prfl_jax.engine.method import resolve
from prfl_jax.report import comparable
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.scoring import Scorer
from prfl_jax.strategies import METHODS
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted
from tests.aggregate.test_kernels import BITS, LAYOUT, MASKS, MODELS, PARAMS, SLOTS, begin, close, enter

NAMES = tuple(DEFAULTS)
HERE = "tests.aggregate.test_server_optimizers"
ROWS = {"fedavgm": "sgdm", "fedadagrad": "adagrad", "fedadam": "adam", "fedyogi": "yogi"}


def rule(name, args="{}"):
    return step_rule(SimpleNamespace(optimizer=name, optimizer_args=args))


def steps(name, start, aggregates, held, eta, args="{}"):
    """The models and states after each step of two weights."""
    made, w = rule(name, args), {"w": jnp.asarray(start, jnp.float32)}
    state, models, states = made.init(w), [], []
    for aggregate, there in zip(aggregates, held, strict=True):
        new = {"w": jnp.asarray(aggregate, jnp.float32)}
        w, state = server_step(made, w, new, {"w": jnp.asarray(there)}, state, jnp.float32(eta))
        models.append(np.asarray(w["w"]))
        states.append(jax.device_get(state))
    return models, states


# --- two weights, three rounds ---

START, AGGREGATES = (1.0, -2.0), ((1.5, -2.0), (0.5, -1.0), (1.0, -4.0))
ALL = ((True, True),) * 3


def by_hand(name, eta, held=ALL):
    """Plain Python, one number after another."""
    w, m = list(START), [0.0, 0.0]
    v = [1e-6, 1e-6]
    out = []
    for aggregate, there in zip(AGGREGATES, held, strict=True):
        for i in range(2):
            if not there[i]:
                continue
            d = aggregate[i] - w[i]
            if name == "sgdm":
                m[i] = 0.9 * m[i] + d
                w[i] += eta * m[i]
                continue
            if name == "adagrad":
                m[i], v[i] = d, v[i] + d * d
            elif name == "adam":
                m[i], v[i] = 0.9 * m[i] + 0.1 * d, 0.99 * v[i] + 0.01 * d * d
            else:
                larger = (v[i] > d * d) - (v[i] < d * d)
                m[i], v[i] = 0.9 * m[i] + 0.1 * d, v[i] - 0.01 * d * d * larger
            w[i] += eta * m[i] / (math.sqrt(v[i]) + 1e-3)
        out.append(tuple(w))
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("held", [ALL, ((True, True), (False, True), (True, False))], ids=["all", "some"])
def test_three_rounds_of_two_weights(name, held):
    models, _ = steps(name, START, AGGREGATES, held, 0.5)
    np.testing.assert_allclose(models, by_hand(name, 0.5, held), rtol=2e-6)
    oracle, w = Server(name, 0.5), {"w": np.array(START)}
    for aggregate, there, got in zip(AGGREGATES, held, models, strict=True):
        w = oracle.step(w, {"w": np.array(aggregate)}, {"w": np.array(there)})
        np.testing.assert_allclose(got, w["w"], rtol=2e-6)


def test_numbers_of_the_first_two_rounds():
    """The first weight: D = 0.5, then 0.5 - W. No bias correction, and v begins at tau^2."""
    assert by_hand("sgdm", 1.0)[0] == (1.5, -2.0)
    assert by_hand("sgdm", 1.0)[1] == (1.5 + 0.9 * 0.5 - 1.0, -1.0)
    first = 1.0 + 0.05 / (math.sqrt(0.99e-6 + 0.01 * 0.25) + 1e-3)
    assert by_hand("adam", 1.0)[0][0] == pytest.approx(first, rel=1e-12) and 1.97 < first < 1.99
    np.testing.assert_allclose(steps("adam", START, AGGREGATES[:1], ALL[:1], 1.0)[0][0], (first, -2.0), rtol=1e-6)
    assert steps("yogi", START, AGGREGATES[:1], ALL[:1], 1.0)[1][0].v["w"][0] == pytest.approx(1e-6 + 0.0025, rel=1e-5)


@pytest.mark.parametrize("name", [*NAMES, f"{HERE}:SGD", f"{HERE}:make_adam", f"{HERE}:MASKED"])
def test_what_nobody_holds_keeps_value_and_moments_to_the_bit(name):
    first = [(True, True), (False, True)]
    (before, after), (state_before, state_after) = steps(name, START, AGGREGATES[:2], first, 0.5)
    assert before[0] == after[0] and before[1] != after[1]
    paired = list(zip(*map(jax.tree.leaves, (state_before, state_after)), strict=True))
    assert paired
    for old, new in paired:
        if old.shape == (2,):
            assert old[0].tobytes() == new[0].tobytes()
    assert any(old.shape == (2,) and old[1] != new[1] for old, new in paired)
    nobody = steps(
        name, START, AGGREGATES[:2], [(True, True), (False, False)], 0.5
    )  # of an empty window: no count moves
    tiny.same(nobody[0][1], nobody[0][0])
    tiny.same(nobody[1][1], nobody[1][0])


# --- transformations of optax, from a file ---

SGD = optax.sgd(1.0, momentum=0.9)
MASKED = optax.masked(optax.trace(0.5), {"w": True})


def make_adam(learning_rate, b1=0.9):
    return optax.adam(learning_rate, b1=b1)


def needs_value(learning_rate):
    return optax.lbfgs(learning_rate)


def no_rate(rate):
    return optax.sgd(rate)


def test_a_transformation_steps_against_minus_d():
    """Itself times eta, or made for eta."""
    ours, _ = steps("sgdm", START, AGGREGATES, ALL, 0.5)
    theirs, _ = steps(f"{HERE}:SGD", START, AGGREGATES, ALL, 0.5)
    np.testing.assert_allclose(theirs, ours, rtol=1e-6)
    models, states = steps(f"{HERE}:make_adam", START, AGGREGATES, ALL, 0.3, '{"b1": 0.8}')
    plain, w = optax.adam(0.3, b1=0.8), jnp.array(START)
    state = plain.init(w)
    for aggregate, got in zip(AGGREGATES, models, strict=True):
        update, state = plain.update(w - jnp.array(aggregate), state, w)
        w = w + update
        np.testing.assert_allclose(got, w, rtol=1e-6)
    assert [int(one[0].count) for one in states] == [1, 2, 3]
    again, _ = steps("optax:adam", START, AGGREGATES, ALL, 0.3, '{"b1": 0.8}')
    np.testing.assert_array_equal(again, models)


# --- which weights a close decides about ---


@pytest.mark.parametrize("arrivals", [[0, 1, SLOTS], [2, SLOTS, SLOTS]], ids=["two", "one"])
@pytest.mark.parametrize("name", ["buffered_maskfedavg", "buffered_fedavg", "fedavg", "fedbuff"])
def test_the_close_tells_what_is_held(name, arrivals):
    """Of a buffer with the weights 0.5, 0.2, 0.3, or of the arrivals; padding holds nothing."""
    choice = AGGREGATIONS.find(name)
    kernel = TellsHeld(choice.device)
    held = enter(kernel, begin(kernel), arrivals, 0.5)
    step = close(kernel, held)
    tiny.same(step.params, close(choice.device, enter(choice.device, begin(choice.device), arrivals, 0.5)).params)
    mine = MASKS if choice.buffered else MASKS[[slot for slot in arrivals if slot < SLOTS]]
    want = mine.any(0) if choice.buffered else mine.any(0)
    if choice.buffered:  # slots that nobody has filled hold nothing, whatever their weight
        want = MASKS[[slot for slot in arrivals if slot < SLOTS]].any(0)
    whole = np.broadcast_to(np.asarray(step.held["w"]), (4, 3))
    np.testing.assert_array_equal(whole, want if not choice.device.absent_as_zero else True)
    assert np.asarray(step.held["b"]).all()
    if not choice.buffered:
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(step.total))


def test_arrivals_that_do_not_count_hold_nothing():
    kernel = TellsHeld(AGGREGATIONS.find("fedbuff").device)
    for held in (begin(kernel), enter(kernel, begin(kernel), [0, 1], 0.0)):
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(close(kernel, held).held))
    buffered = TellsHeld(AGGREGATIONS.find("counted").device)
    inputs = enter(buffered, begin(buffered), [0, 1])
    with mock.patch("tests.aggregate.test_kernels.WEIGHTS", jnp.zeros(SLOTS)):
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(close(buffered, inputs).held))


def test_a_robust_rule_tells_what_it_has_not_kept():
    kernel = TellsHeld(AGGREGATIONS.find("median").device)
    with mock.patch("tests.aggregate.test_kernels.WEIGHTS", jnp.array([0.5, 0.0, 0.5])):
        step = close(kernel, enter(kernel, begin(kernel), [0, 1, 2]))
    there = MASKS[[0, 2]].any(0)
    np.testing.assert_array_equal(step.held["w"], there)
    assert int(step.kept) == (~there).sum()


class LastOne(AggregationKernel):
    """A user's kernel without a buffer: the model that arrived last."""

    buffered = False

    def init(self, params, stack, bits):
        return super().init(params, stack, bits)._replace(buffer=(), buffer_bits=(), total=params)

    def add(self, held, arrivals):
        return held._replace(total=jax.tree.map(lambda w: w[-1] if arrivals.here.ndim else w, arrivals.params))

    def close(self, inputs):
        return ServerStep(inputs.held.total, inputs.held.total)


def test_a_kernel_of_a_plugin_need_not_know_of_it():
    kernel = TellsHeld(LastOne())
    step = close(kernel, enter(kernel, begin(kernel), [0, 1], 0.5))
    tiny.same(step.params, jax.tree.map(lambda stack: stack[1], MODELS))
    np.testing.assert_array_equal(step.held["w"], MASKS[:2].any(0))
    tiny.same(step.total.total, step.params)
    assert isinstance(Aggregation(LastOne(), fedbuff, staleness=True).device, LastOne)


# --- whole runs ---


def apart(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.slow
def test_sgd_at_rate_1_is_fedavg():
    sgd = tiny.run("fedavgm", rounds=4, aggregation__optimizer_args='{"momentum": 0}', aggregation__server_lr=1.0)
    fedavg = tiny.run("fedavg", rounds=4)
    tiny.close(sgd.params, fedavg.params, 1e-6)
    assert apart(tiny.run("fedavgm", rounds=4).params, fedavg.params) > 1e-3


SUBMODELS_BY_CHANGES = "sub-models by changes with adam"
PRFL = dict(rounds=11, density__interval=2)
RUNS = {
    **{name: (name, dict(rounds=5)) for name in ROWS},
    "prfl with adam": ("prfl", dict(aggregation__optimizer="adam", **PRFL)),
    "prfl of arrivals with adam": ("prfl", dict(aggregation__name="counted", aggregation__optimizer="adam", **PRFL)),
    "prfl with momentum": (
        "prfl",
        dict(aggregation__optimizer="sgdm", aggregation__optimizer_args='{"momentum": 0.5}', **PRFL),
    ),
    "prfl of nobuff with yogi": ("prfl_nobuff", dict(aggregation__optimizer="yogi", **PRFL)),
    "plain mean with adagrad": (  # a tau of 0.001 would blow up the rounding errors of D
        "prfl_fedavg",
        dict(aggregation__optimizer="adagrad", aggregation__optimizer_args='{"tau": 0.01}', **PRFL),
    ),
    SUBMODELS_BY_CHANGES: (
        "prfl",
        dict(
            aggregation__name="fedbuff",
            aggregation__optimizer="adam",
            density__name="time_balance",
            aggregation__optimizer_args='{"b1": 0.5, "tau": 0.01}',
            **PRFL,
        ),
    ),
    "fedasyn with adam": ("fedasyn", dict(rounds=9, aggregation__optimizer="adam")),
    "fedasync with momentum": ("fedasync", dict(rounds=12, aggregation__optimizer="sgdm", aggregation__server_lr=0.5)),
    "fedbuff with yogi": ("fedbuff", dict(rounds=9, aggregation__optimizer="yogi", aggregation__server_lr=0.02)),
    "fedfix with adagrad": ("fedfix", dict(rounds=9, aggregation__optimizer="adagrad")),
}


@pytest.mark.parametrize("run", slow_except(RUNS, "prfl of arrivals with adam"))
def test_a_run_equals_the_method_written_out(run):
    strategy, changes = RUNS[run]
    ran, oracle, prunings = run_beside(Experiment(tiny.config(strategy, **changes)))
    tiny.close(ran.params, oracle.w, 3e-5)
    for window, losses in zip(ran.of("window"), oracle.losses, strict=True):
        np.testing.assert_allclose(window["loss"], losses, rtol=1e-4)
    if strategy.startswith("prfl"):
        assert any(levels is not None for levels in prunings)
    full = jax.tree.reduce(lambda total, leaf: total + leaf.size, ran.params, 0)
    partly = any(0 < count < full for count in oracle.undecided)
    assert partly == (run in ("prfl of arrivals with adam", "prfl of nobuff with yogi", SUBMODELS_BY_CHANGES))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl", "fedbuff"])
def test_a_resumed_run_equals_an_uninterrupted_one_with_adam(strategy, tmp_path):
    config = tiny.config(strategy, rounds=12, aggregation__optimizer="adam")
    whole = tiny.run_experiment(Experiment(config))
    experiment = Experiment(config)
    for checks in (3, 4):
        with pytest.raises(Interrupted), mock.patch("prfl_jax.runtime.experiment.run_figure"):
            experiment.run(tmp_path, guard=tiny.StopAt(checks), progress=False)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        again = experiment.run(tmp_path, progress=False)
    assert comparable(again.report) == comparable(whole.report)
    tiny.same(again.params, whole.params)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl", "fedbuff", "heterofl_windowed"])
def test_map_and_vmap_agree_with_adam(strategy):
    settings = dict(rounds=12, density__interval=4, submodel__importance="weight", aggregation__optimizer="adam")
    by_map = tiny.run(strategy, engine__clients="map", **settings)
    for way in ({"engine__clients": "vmap"}, {"engine__clients": "vmap", "engine__train": "pending"}):
        tiny.close(tiny.run(strategy, **way, **settings).params, by_map.params, 1e-5)


@pytest.mark.slow
def test_rates_of_the_server_may_differ_in_a_batch(tmp_path):
    """Eta is a number of the plan, so one program serves all rates; moments belong to their experiment."""
    configs = [tiny.config("fedadam", aggregation__server_lr=eta) for eta in (0.003, 0.03)]
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        done = run_batched(configs, [tmp_path / str(k) for k in range(2)], progress=False)
    for finished, config in zip(done, configs, strict=True):
        tiny.close(finished.params, tiny.run_experiment(Experiment(config)).params, 1e-5)
    with pytest.raises(UserError, match="--vary: what is compiled of optimizer differs"):
        run_batched([configs[0], tiny.config("fedyogi")], [tmp_path / "a", tmp_path / "b"], progress=False)


# --- the choice in a config ---


def refused(strategy="fedavg", **changes):
    with pytest.raises(UserError) as caught:
        config = tiny.config(strategy, **{f"aggregation__{key}": value for key, value in changes.items()})
        validate(config)
        resolve(config, (28, 28, 1), 10)
    said = str(caught.value)
    assert "\n" not in said
    return said


ADAM = "with aggregation.optimizer='adam'"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(optimizer_args='{"b1": 0.5}'), "allowed is {}, with aggregation.optimizer='none'"),
        (dict(optimizer="adam", optimizer_args='{"eps": 1}'), f"names among b1, b2, tau, not 'eps', {ADAM}"),
        (dict(optimizer="adam", optimizer_args='{"b1": 1}'), f"an object in which b1 is in [0, 1), {ADAM}"),
        (dict(optimizer="adam", optimizer_args='{"b2": 1.5}'), f"an object in which b2 is in [0, 1], {ADAM}"),
        (dict(optimizer="adam", optimizer_args='{"tau": 0}'), "tau is > 0 (from 1e-15 to 1e+15)"),
        (dict(optimizer="adam", optimizer_args='{"tau": "x"}'), f"an object in which tau is a number, {ADAM}"),
        (dict(optimizer="sgdm", optimizer_args='{"b1": 0.5}'), "names among momentum, not 'b1'"),
        (dict(optimizer="adagrad", optimizer_args='{"b2": 0.5}'), "names among b1, tau, not 'b2'"),
        (
            dict(optimizer=f"{HERE}:no_rate"),
            "allowed: an optax.GradientTransformation, or a function (learning_rate, **a",
        ),
        (dict(optimizer=f"{HERE}:START"), "is a tuple: (1.0, -2.0); allowed: an optax.GradientTransformation, or"),
        (dict(optimizer=f"{HERE}:SGD", optimizer_args='{"a": 1}'), "allowed is {}, with aggregation.optimizer="),
        (dict(optimizer=f"{HERE}:make_adam", optimizer_args='{"b3": 1}'), "an object with names among b1, not 'b3'"),
        (
            dict(optimizer=f"{HERE}:needs_value"),
            f"config.aggregation.optimizer: '{HERE}:needs_value' failed (TypeError",
        ),
        (dict(optimizer=f"{HERE}:MASKED"), f"config.aggregation.optimizer: '{HERE}:MASKED' failed ("),
    ],
    ids=str,
)
def test_a_wrong_optimiser_or_argument_is_refused_in_one_line(changes, says):
    assert says in refused(**changes)


@pytest.mark.parametrize(
    ("name", "eta"), [("none", 1.0), ("sgdm", 1.0), ("adagrad", 0.1), ("adam", 0.01), ("yogi", 0.01)]
)
def test_the_rate_has_a_default_by_optimiser(name, eta):
    config = tiny.config("fedavg", aggregation__optimizer=name)
    assert canonical(config)["aggregation.server_lr"] == to_dict(config)["aggregation"]["server_lr"] == eta
    assert config_hash(config) == config_hash(
        tiny.config("fedavg", aggregation__optimizer=name, aggregation__server_lr=eta)
    )
    assert server_lr_in_force(name, None) == eta and server_lr_in_force(name, 0.3) == 0.3
    assert server_lr_in_force(f"{HERE}:SGD", None) == 1.0


@pytest.mark.parametrize("strategy", ["fedavg", "prfl", "prfl_nobuff", "fedbuff"])
def test_the_aggregate_is_that_of_rate_1_and_eta_is_planned(strategy):
    def rows(**changes):
        planner = tiny.simulation(strategy, rounds=3, **changes).new_planner()
        return [row for _ in range(3) for row in planner.take().rows if row.close]

    for eta, plain, stepped in zip(
        (1.0, 0.25),
        (rows(), rows()),
        (rows(aggregation__optimizer="sgdm"), rows(aggregation__optimizer="sgdm", aggregation__server_lr=0.25)),
        strict=True,
    ):
        for one, other in zip(plain, stepped, strict=True):
            assert float(other.optimizer_lr) == eta
            for name in ("weights", "server_lr", "keep", "coefficient"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    group = tiny.config("fedavg", aggregation__server_lr=0.5).aggregation
    assert for_weight_rule(group) is group


def test_rows_differ_from_fedavg_in_the_optimiser_alone():
    fedavg = METHODS["fedavg"].keys()
    for name, optimizer in ROWS.items():
        apart = {key for key, value in METHODS[name].keys().items() if value != fedavg[key]}
        assert apart == {"aggregation.optimizer"} and METHODS[name].optimizer == optimizer
    assert set(SERVER_OPTIMIZERS) == {"none", *NAMES}


def test_the_mean_of_the_buffer_is_a_model_of_its_own():
    def one_model(**changes):
        simulation = SimpleNamespace(config=tiny.config("prfl_fedavg", **changes))
        return Scorer(simulation, lambda: None).one_model

    assert one_model() and not one_model(aggregation__optimizer="sgdm")


def test_compared_methods_keep_their_optimiser():
    config = tiny.config("fedadam", aggregation__optimizer_args='{"tau": 0.01}', local__optimizer="adam")
    for name, args, says in (("fedyogi", '{"tau": 0.01}', ()), ("fedavg", "{}", ("aggregation.optimizer_args=",))):
        found = compared(config, name, validate)
        assert found.config.aggregation.optimizer == METHODS[name].optimizer
        assert found.config.aggregation.optimizer_args == args and found.config.local.optimizer == "adam"
        assert len(found.lacks) == len(says) and all(map(str.startswith, found.lacks, says))
        assert canonical(found.config)["aggregation.server_lr"] == (0.01 if name == "fedyogi" else 1.0)
    median = tiny.config("fedavg", aggregation__name="median", aggregation__byzantine=1)
    found = compared(median, "fedadam", validate)
    assert found.config.aggregation.name == "median" and not found.lacks  # it is no twin of FedAvg then
    over = compared(tiny.config("fedavg", aggregation__optimizer="yogi"), "fedbuff", validate)
    assert over.config.aggregation.optimizer == "yogi" and json.loads(over.config.aggregation.optimizer_args) == {}


assert LAYOUT.prunable and BITS and PARAMS  # the small model of test_kernels
