"""A local work as an object: plugins beside the built-in ones, and what a config is refused for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax
from marked import slow_except

from prfl_jax.config.validate import validate
from prfl_jax.local import LOCAL_WORKS, LocalResult, LocalWork, find_local
from prfl_jax.system.errors import UserError


def my_sgd(task, given):
    """SGD as a user would write it, from the contract alone."""
    layout = task.layout

    def step(params, batch):
        x, y, number = batch
        key = jax.random.fold_in(given.key, number)
        loss, slope = jax.value_and_grad(lambda p: jnp.mean(task.loss(task.model.apply(p, x, True, key), y)))(params)
        leaves = jax.tree.leaves(jax.tree.map(lambda w, g: w - given.lr * g, params, slope))
        for i, mask in zip(layout.prunable, given.masks, strict=True):
            leaves[i] = jnp.where(mask, leaves[i], 0.0)
        return jax.tree.unflatten(layout.treedef, leaves), loss

    steps = task.settings.steps
    params, losses = lax.scan(step, given.params, (*given.batches.all(), jnp.arange(steps)), unroll=True)
    return LocalResult(params, jnp.mean(losses), ())


MINE = LocalWork(my_sgd)
NO_FUNCTION = LocalWork("sgd")


@pytest.mark.parametrize("strategy", slow_except(["prfl", "fedavg"], "fedavg"))
def test_a_plugin_equals_sgd_to_the_bit(strategy):
    mine = tiny.run(strategy, local__name="tests.local.test_choices:MINE")
    built_in = tiny.run(strategy)
    tiny.same(mine.params, built_in.params)
    for kind in ("window", "eval", "interval", "final"):
        assert mine.of(kind) == built_in.of(kind)


def refused(strategy="prfl", **changes):
    with pytest.raises(UserError) as caught:
        validate(tiny.config(strategy, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tests.local.test_choices:my_sgd", "is a function: <function my_sgd"),
        ("tests.local.test_choices:NO_FUNCTION", "allowed: a prfl_jax.local.LocalWork with a function round"),
        ("no_such_module:X", "cannot be loaded (ModuleNotFoundError"),
    ],
)
def test_what_is_no_local_work_is_refused_in_one_line(name, says):
    said = refused(local__name=name)
    assert said.startswith(f"config.local.name: '{name}'") and says in said


@pytest.mark.parametrize(
    ("strategy", "name", "allowed"),
    [
        ("prfl", "scaled_sgd", "sgd, or submodel.name='leading' or 'rolling'"),
        ("fedrolex", "ordered_sgd", "sgd, or submodel.name='leading'"),
        ("heterofl", "magnitude_sgd", "sgd, or submodel.name='magnitude'"),
    ],
)
def test_a_local_work_is_refused_with_unsuitable_sub_models(strategy, name, allowed):
    assert refused(strategy, local__name=name) == f"config.local.name='{name}': allowed is {allowed}"


@pytest.mark.slow
def test_the_proximal_work_needs_its_mu_and_is_sgd_with_it():
    assert refused("fedavg", local__name="proximal").startswith("config.local.prox_mu=0.0: allowed is > 0")
    one, other = (tiny.run("fedavg", local__name=name, local__prox_mu=0.1) for name in ("proximal", "sgd"))
    tiny.same(one.params, other.params)
    assert np.abs(one.params["Dense_0"]["kernel"] - tiny.run("fedavg").params["Dense_0"]["kernel"]).max() > 0


def test_channels_of_an_unknown_model_are_refused():
    for strategy in ("fjord", "fedrolex", "heterofl"):
        said = refused(strategy, model__name="tiny:TwoLayers")
        assert said.startswith("config.submodel.name=") and "a model that is not one of conv2, vgg11" in said


def test_every_built_in_name_is_found():
    assert [find_local(name) for name in LOCAL_WORKS] and "sgd" in LOCAL_WORKS and "adam" not in LOCAL_WORKS
    with pytest.raises(UserError, match="config.local.name='adam'"):
        find_local("adam")


def test_names_of_version_0_1_are_still_importable():
    with pytest.warns(FutureWarning, match="prfl_jax.local.sgd"):
        from prfl_jax.local import make_local_round
    with pytest.warns(FutureWarning, match="IMPORTANCES"):
        from prfl_jax.submodel import SCORES
    assert callable(make_local_round)
    assert SCORES["weight"]((np.float32(-2.0),), ()) == (2.0,)
