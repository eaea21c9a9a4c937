"""A plugin of `local.name` is checked before a run: what it returns, its other functions, and its masks in the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.engine.method import make_engine, resolve
from prfl_jax.local import ClientState, LocalInput, LocalResult, LocalSettings, LocalTask, LocalWork
from prfl_jax.local.sgd import sgd_round
from prfl_jax.system.errors import UserError

ZERO = np.float32(0.0)


def work(change=lambda params: params, loss=ZERO, squares=(), **traits):
    """A local work that returns the model it was sent, changed."""
    return LocalWork(lambda task, given: LocalResult(change(given.params), jnp.asarray(loss), squares), **traits)


def with_squares(task, given):
    return LocalResult(given.params, jnp.float32(0), tuple(jnp.ones(mask.shape) for mask in given.masks))


def uses_everything(task, given):
    """Each field of the input enters the loss, in its own shape."""
    (x, y), (xs, ys) = given.batches.one(jnp.int32(0)), given.batches.all()
    settings = task.settings
    assert xs.shape == (settings.steps, *x.shape) and ys.shape == (settings.steps, settings.batch_size)
    assert given.present.shape == (task.model.classes,) and len(given.masks) == len(task.layout.prunable)
    loss = jnp.mean(task.loss(task.model.apply(given.params, x, True, given.key), y))
    drawn = jax.random.uniform(jax.random.fold_in(given.key, given.client))
    return LocalResult(given.params, loss + given.lr * drawn * given.density_pct, ())


seen = []


def sees(task, given):
    """Keeps the settings it is given, and returns what they ask for."""
    seen.append(task.settings)
    result = with_squares(task, given)
    return result if task.settings.square_gradients else result._replace(squares=())


SEES = LocalWork(sees, draws_widths=True)
GOOD = LocalWork(uses_everything, counted=lambda task, masks, present: masks, reads_labels=True)
SQUARES = LocalWork(with_squares)
LIKE_SGD = LocalWork(sgd_round, sums_gradients=True)
NO_SUMS = LocalWork(with_squares, sums_gradients=True)
TUPLE = LocalWork(lambda task, given: (given.params, ZERO))
RAISES = LocalWork(lambda task, given: given.nothing)
TREE = work(lambda params: jax.tree.leaves(params))
SHAPE = work(lambda params: jax.tree.map(lambda w: w[None], params))
DTYPE = work(lambda params: jax.tree.map(lambda w: w.astype(jnp.bfloat16), params))
INT_LOSS = work(loss=np.int32(0))
VECTOR_LOSS = work(loss=np.zeros(3, np.float32))
NO_SQUARES = work()
FEW_COUNTED = work(counted=lambda task, masks, present: masks[:1])
FLOAT_COUNTED = work(counted=lambda task, masks, present: tuple(m * 1.0 for m in masks))
COUNTED_RAISES = work(counted=lambda task, masks, present: present[0])
NO_COUNTED = work(counted=1)
FITS_RAISES = work(fits=lambda rule: rule.nothing)
NO_FITS = work(fits=True)
ROUNDS = ClientState(init=lambda task, params: jnp.int32(0))
KEEPS_NOTHING = work(client_state=ROUNDS)
INIT_RAISES = work(client_state=ClientState(init=lambda task, params: params.nothing))
HALF_A_STATE = work(client_state=ClientState(init=lambda task, params: jnp.int32(0), server=lambda params: ZERO))
NO_STATE = work(client_state=3)
INT_SERVER = work(
    client_state=ClientState(
        init=lambda task, params: jnp.int32(0), server=lambda params: jnp.int32(0), change=lambda before, after: after
    )
)
KEEPS_A_KEY = work(client_state=ClientState(init=lambda task, params: jax.random.key(3)))
KEEPS_EMPTY = work(client_state=ClientState(init=lambda task, params: jnp.zeros((0, 3))))
WORDS_FOR_FLAGS = work(own_steps="yes")
LESS_THAN_NO_MU = work(prox_mu=-1.0)
OTHER_CHANGE = LocalWork(
    lambda task, given: LocalResult(given.params, jnp.float32(0), (), given.kept),
    client_state=ClientState(
        init=lambda task, params: jnp.int32(0), server=lambda params: ZERO, change=lambda before, after: (before, after)
    ),
)
LEAKS = work(lambda params: jax.tree.map(lambda w: w + 0.01, params))


def method_of(name, **changes):
    own = {"local__name": f"tests.local.test_plugin_check:{name}", "submodel__importance": "weight"}
    config = tiny.config("prfl", **{**own, **changes})
    validate(config)
    return resolve(config, (28, 28, 1), 10)


@pytest.mark.parametrize(
    ("name", "found", "allowed"),
    [
        ("TUPLE", "returns a tuple", "a prfl_jax.local.LocalResult"),
        ("RAISES", "failed (", "AttributeError: 'LocalInput' object has no attribute 'nothing'"),
        ("TREE", "returns params of another pytree, PyTreeDef([*", "a pytree like given.params"),
        ("SHAPE", "returns a leaf of shape (1, ", "a pytree like given.params"),
        ("DTYPE", "bfloat16 in params", "a pytree like given.params"),
        ("INT_LOSS", "returns loss of shape (), int32", "a float32 scalar"),
        ("VECTOR_LOSS", "returns loss of shape (3,), float32", "a float32 scalar"),
        ("SQUARES", "returns squares as a tuple of", "(), as settings.square_gradients is not set"),
        ("FEW_COUNTED", "counted of", "a tuple of bool in the shapes of masks ("),
        ("FLOAT_COUNTED", "returns masks[0] of shape", "a tuple of bool in the shapes of masks, here ("),
        ("COUNTED_RAISES", "failed (", "TypeError: 'NoneType' object is not subscriptable"),
        ("NO_COUNTED", "is 1", "a function (task, masks, present) -> masks, or None"),
        ("KEEPS_NOTHING", "returns kept of another pytree, PyTreeDef(()", "a pytree like given.kept"),
        ("INIT_RAISES", "failed (", "has no attribute 'nothing'"),
        ("HALF_A_STATE", "client_state of", "functions init, and server and change or neither"),
        ("NO_STATE", "is 3", "None, or a prfl_jax.local.ClientState"),
        ("INT_SERVER", "client_state.server of", "float32"),
        ("KEEPS_A_KEY", "client_state.init of", "arrays of numbers, with some values"),
        ("KEEPS_EMPTY", "client_state.init of", "arrays of numbers, with some values"),
        ("WORDS_FOR_FLAGS", "own_steps of", "True or False"),
        ("LESS_THAN_NO_MU", "prox_mu of", "a number >= 0"),
        ("OTHER_CHANGE", "returns changes of another pytree", "a pytree like what client_state.server returns"),
        ("FITS_RAISES", "failed (", "has no attribute 'nothing'"),
        ("NO_FITS", "is True", "a function (rule) -> bool"),
    ],
)
def test_a_bad_plugin_is_refused_in_one_line(name, found, allowed):
    with pytest.raises(UserError) as caught:
        method_of(name)
    said = str(caught.value)
    assert said.startswith("config.local.name: ") and f"'tests.local.test_plugin_check:{name}'" in said
    assert "\n" not in said and found in said and allowed in said


@pytest.mark.slow
def test_sums_of_gradients_are_asked_of_a_plugin():
    """They are of all weights: what the mask leaves out is not set to 0."""
    settings = dict(pruning__initial_rounds=0, clients__weight_s=(1e-3,))
    ran = tiny.run("prunefl", local__name=f"{__file__}:LIKE_SGD", **settings)
    tiny.same(ran.params, tiny.run("prunefl", **settings).params)
    assert ran.of("masks")[-1]["server"] < ran.of("masks")[0]["server"] < 1
    with pytest.raises(UserError, match="squares.*and a scalar, as settings.sum_gradients is set"):
        tiny.simulation("prunefl", local__name=f"{__file__}:NO_SUMS")
    with pytest.raises(UserError, match="config.local.name=.*sgd or proximal"):
        validate(tiny.config("prunefl", local__name=f"{__file__}:SQUARES"))


def test_squares_are_needed_exactly_where_clients_upload_them():
    uploaded = {"submodel__importance": "client_sq_grad"}
    assert method_of("SQUARES", **uploaded).importance.from_clients
    with pytest.raises(UserError, match=r"returns squares as a tuple of 0; allowed: a tuple of float32"):
        method_of("NO_SQUARES", **uploaded)


@pytest.mark.parametrize("name", ["GOOD", "NO_SQUARES"])
def test_a_good_plugin_is_taken(name):
    assert callable(method_of(name).work.round)


def test_masked_values_of_a_plugin_stay_zero():
    method = method_of("LEAKS")
    layout = method.layout
    masks = tuple(
        jnp.arange(n).reshape(layout.shapes[i]) % 2 == 0 for n, i in zip(layout.sizes(), layout.prunable, strict=True)
    )
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), method.model.shapes())
    task = LocalTask(method.model, method.loss, layout, LocalSettings())
    result = method.work.round(task, LocalInput(params, masks, None, jnp.float32(0.1), None))
    for i, leaf in enumerate(jax.tree.leaves(result.params)):
        mask = masks[layout.prunable.index(i)] if i in layout.prunable else np.ones(leaf.shape, bool)
        np.testing.assert_array_equal(leaf, np.where(mask, np.float32(0.01), ZERO))


@pytest.mark.parametrize("importance", ["server_sq_grad", "client_sq_grad"])
@pytest.mark.parametrize("strategy", ["prfl", "fedavg", "fjord"])
def test_the_check_sees_the_settings_of_the_run(strategy, importance):
    name = "tests.local.test_plugin_check:SEES"
    config = tiny.config(strategy, local__name=name, submodel__importance=importance)
    seen.clear()
    engine = make_engine(config, resolve(config, (28, 28, 1), 10))
    assert seen == [engine.config.local]
