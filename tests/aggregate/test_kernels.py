"""Aggregation kernels: `init`, `add` and `close` against NumPy, traits of the choices, and kernels of plugins."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.aggregate import AGGREGATIONS, Aggregation, AggregationKernel
from prfl_jax.aggregate import stacked as stacked_module
from prfl_jax.aggregate.kernels import AllModels, Arrivals, CloseInputs, MaskedMean, PlainMean, RunningSum, ServerStep
from prfl_jax.aggregate.plugin_check import check_kernel
from prfl_jax.aggregate.weight_rules import fedbuff
from prfl_jax.submodel.layout import Layout, empty_bits
from prfl_jax.submodel.masks import pack
from prfl_jax.system.errors import UserError

SHAPES = {"b": jax.ShapeDtypeStruct((3,), jnp.float32), "w": jax.ShapeDtypeStruct((4, 3), jnp.float32)}
LAYOUT = Layout.of(SHAPES)
SLOTS = 3
MASKS = np.random.default_rng(1).random((SLOTS, 4, 3)) < 0.6


def drawn(seed, lead=()):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=(*lead, *one.shape)), jnp.float32) for name, one in SHAPES.items()}


PARAMS = drawn(0)
MODELS = {"b": drawn(2, (SLOTS,))["b"], "w": jnp.where(MASKS, drawn(2, (SLOTS,))["w"], 0.0)}
SENT = drawn(3, (SLOTS,))
BITS = (jax.vmap(lambda mask: pack(mask.reshape(-1)))(jnp.asarray(MASKS)),)
WEIGHTS = jnp.array([0.5, 0.2, 0.3])


def at(tree, *index):
    return jax.tree.map(lambda leaf: leaf[jnp.array(index)], tree)


def begin(kernel):
    stack = jax.tree.map(lambda w: jnp.zeros((SLOTS, *w.shape)), PARAMS)
    return kernel.init(PARAMS, stack, empty_bits(LAYOUT, SLOTS))


def enter(kernel, held, slots, coefficient=0.0):
    """Adds a group of arrivals; a slot of `SLOTS` is padding, and has the values of the last slot."""
    ids = jnp.minimum(jnp.array(slots), SLOTS - 1)
    here = jnp.array(slots) < SLOTS
    c = jnp.where(here, coefficient, 0.0)
    return kernel.add(held, Arrivals(jnp.array(slots), here, at(MODELS, *ids), at(BITS, *ids), at(SENT, *ids), c))


def close(kernel, held, server_lr=1.0, keep=1.0):
    inputs = CloseInputs(
        LAYOUT, PARAMS, held, WEIGHTS, jnp.float32(server_lr), jnp.float32(keep), 0, lambda x: x, lambda x: x
    )
    return kernel.close(inputs)


@pytest.mark.parametrize("updates", [False, True])
def test_a_running_sum_adds_arrivals_and_begins_again(updates):
    kernel = RunningSum(updates)
    held = enter(kernel, begin(kernel), [1, SLOTS], 0.25)  # one arrival, one padding
    held = enter(kernel, held, [0, 2], 0.5)
    step = close(kernel, held, keep=0.5)
    for name in PARAMS:
        x = np.asarray(MODELS[name]) - (np.asarray(SENT[name]) if updates else 0.0)
        want = 0.5 * np.asarray(PARAMS[name]) + 0.25 * x[1] + 0.5 * (x[0] + x[2])
        np.testing.assert_allclose(step.params[name], want, rtol=1e-6, atol=1e-6)
        assert not np.asarray(step.total[name]).any()
    assert held.buffer == () == held.buffer_bits and step.kept == ()


def test_one_arrival_without_the_axis_of_a_group_adds_the_same():
    kernel = RunningSum()
    one = Arrivals(
        jnp.int32(1), jnp.bool_(True), *jax.tree.map(lambda a: a[1], (MODELS, BITS, SENT)), jnp.float32(0.25)
    )
    tiny.same(kernel.add(begin(kernel), one).total, enter(kernel, begin(kernel), [1], 0.25).total)


def test_buffers_keep_the_latest_update_of_each_slot():
    for kernel in (MaskedMean(), PlainMean(), AllModels(lambda stacked: stacked.params)):
        held = enter(kernel, begin(kernel), [2, SLOTS])
        tiny.same(at(held.buffer, 2), at(MODELS, 2))
        assert not np.asarray(held.buffer["w"][:2]).any() and held.total == ()
        tiny.same(held.buffer_bits[0], jnp.where(jnp.arange(SLOTS)[:, None] == 2, BITS[0], 0))


def test_the_two_means_differ_in_what_a_masked_weight_counts():
    models, weights = np.asarray(MODELS["w"]), np.asarray(WEIGHTS)[:, None, None]
    masked, plain = (
        np.asarray(close(kernel, enter(kernel, begin(kernel), [0, 1, 2]), server_lr=0.5).params["w"])
        for kernel in (MaskedMean(), PlainMean())
    )
    held = (MASKS * weights).sum(0)
    old = np.asarray(PARAMS["w"])
    mean = (models * weights).sum(0) / np.where(held > 0, held, 1)
    np.testing.assert_allclose(masked, np.where(held > 0, 0.5 * old + 0.5 * mean, old), rtol=1e-5)
    np.testing.assert_allclose(plain, 0.5 * old + 0.5 * (models * weights).sum(0), rtol=1e-5, atol=1e-7)


def test_a_function_of_all_models_is_given_what_was_entered():
    def function(stacked):
        assert [mask.shape for mask in stacked.masks()] == [(SLOTS, 3), (SLOTS, 12)] and stacked.byzantine == 0
        return jax.tree.map(lambda models: models[1], stacked.models)

    kernel = AllModels(function)
    step = close(kernel, enter(kernel, begin(kernel), [0, 1, 2]))
    tiny.same(step.params, jax.tree.map(lambda models: models[1], MODELS))
    assert step.kept == ()


def group(optimizer="none", server_lr=None):
    return SimpleNamespace(optimizer=optimizer, server_lr=server_lr)


def test_traits_of_the_choices():
    summed = ["fedavg", "r2sp", "merge", "bsp", "mixing", "fedfix", "fedbuff"]
    assert AGGREGATIONS.with_trait(lambda one: not one.buffered) == summed
    assert AGGREGATIONS.with_trait(lambda one: one.restores) == ["r2sp", "merge"]
    robust = ["median", "trimmed_mean", "krum", "multi_krum"]
    for trait in ("robust", "at_once"):
        assert AGGREGATIONS.with_trait(lambda one, trait=trait: getattr(one, trait)) == robust
    choices = {name: AGGREGATIONS.find(name) for name in AGGREGATIONS}
    assert all(choice.device.counts_kept == choice.robust for choice in choices.values())
    two_models = {name for name, choice in choices.items() if not choice.one_model(group())}
    assert two_models == {"buffered_maskfedavg", "unbuffered_maskfedavg", "counted"}
    assert not choices["buffered_fedavg"].one_model(group(server_lr=0.5))
    assert not choices["buffered_fedavg"].one_model(group("sgdm")) and choices["fedavg"].one_model(group("sgdm"))


def test_the_former_name_of_stacked_updates_is_known():
    with pytest.warns(FutureWarning, match="is now StackedUpdates"):
        assert stacked_module.Held is stacked_module.StackedUpdates


# --- kernels of plugins; named `tests.aggregate.test_kernels:...` ---


class Momentum(RunningSum):
    """W <- W + v, v <- sum of updates + 0.9 v (FedAvgM, Hsu et al. 2019): v is what is left in the sum."""

    def __init__(self):
        super().__init__(updates=True)

    def close(self, inputs):
        step = super().close(inputs)
        return step._replace(total=jax.tree.map(lambda v: 0.9 * v, inputs.held.total))


class OtherTree(MaskedMean):
    def close(self, inputs):
        return ServerStep({"w": inputs.params})


class NoStep(MaskedMean):
    def close(self, inputs):
        return inputs.params


class HalfPrecision(MaskedMean):
    def add(self, held, arrivals):
        return held._replace(buffer=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), held.buffer))


class Miscounts(MaskedMean):
    counts_kept = True


class Raises(AggregationKernel):
    def close(self, inputs):
        raise ValueError("no step")


def choice(kernel):
    return Aggregation(kernel, fedbuff, staleness=True)


MOMENTUM = choice(Momentum())


def test_a_kernel_of_a_plugin_may_keep_what_it_needs():
    kernel = AGGREGATIONS.find("tests.aggregate.test_kernels:MOMENTUM").device
    held = enter(kernel, begin(kernel), [0], 1.0)
    first = close(kernel, held)
    held = enter(kernel, held._replace(total=first.total), [1], 1.0)
    step = close(kernel, held)
    for name in PARAMS:
        u = np.asarray(MODELS[name]) - np.asarray(SENT[name])
        np.testing.assert_allclose(step.params[name], PARAMS[name] + 0.9 * u[0] + u[1], rtol=1e-5, atol=1e-6)


def check(kernel, name="tests.aggregate.test_kernels:MINE"):
    check_kernel(SimpleNamespace(name=name, byzantine=0), choice(kernel), LAYOUT, SHAPES, SLOTS)


def test_kernels_that_fit_pass_the_check():
    for kernel in (Momentum(), MaskedMean(), AllModels(lambda stacked: stacked.params)):
        check(kernel)


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (OtherTree(), "gives another pytree; allowed: a pytree like held.params"),
        (NoStep(), "gives a dict in close; allowed: a prfl_jax.aggregate.kernels.ServerStep"),
        (HalfPrecision(), "gives other arrays in add than in init; allowed: the same pytree, shapes and types"),
        (Miscounts(), "gives kept=(); allowed: an int32 with counts_kept, else ()"),
        (Raises(), "failed ("),
        (AllModels(lambda stacked: stacked.weights), "gives another pytree"),
    ],
)
def test_kernels_that_do_not_fit_are_refused_before_a_run(kernel, says):
    with pytest.raises(UserError) as caught:
        check(kernel)
    said = str(caught.value)
    assert says in said and said.startswith("config.aggregation.name: ") and "\n" not in said
    assert check_kernel(SimpleNamespace(name="fedavg"), choice(kernel), LAYOUT, SHAPES, SLOTS) is None  # a built-in


@pytest.mark.slow
def test_a_whole_run_with_the_kernel_of_a_plugin():
    settings = {"aggregation__name": "tests.aggregate.test_kernels:MOMENTUM", "rounds": 3}
    ran, plain = tiny.run("fedbuff", **settings), tiny.run("fedbuff", rounds=3)
    assert [r["arrivals"] for r in ran.of("window")] == [r["arrivals"] for r in plain.of("window")]
    apart = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(
        jax.tree.leaves(ran.params), jax.tree.leaves(plain.params), strict=True
    )]  # fmt: skip
    assert max(apart) > 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ran.params))
