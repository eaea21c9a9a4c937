"""Optimisers, clipping and schedules of a client's steps, against NumPy; and the configs that are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimizer_oracle as oracle
import pytest
import tiny
from marked import slow, slow_except
from paths import HELPERS
from prfl_oracle import LAYERS, masked, mlp_gradient

from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.density import prunes
from prfl_jax.engine.method import resolve
from prfl_jax.local import (
    LR_SCHEDULES,
    OPTIMIZERS,
    Batches,
    LocalInput,
    LocalSettings,
    LocalTask,
    LocalWork,
    find_local,
)
from prfl_jax.local import work as local_work
from prfl_jax.local.factories import OptaxFactory, of_optax
from prfl_jax.local.optimizers import LrSchedule
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.local.sgd import sgd_round
from prfl_jax.models import make_loss
from prfl_jax.system import keyword_args
from prfl_jax.system.errors import UserError
from tests.local.test_sgd import BATCH, CLASSES, KEY, LAYOUT, LR, MODEL, STEPS, local_round, some_masks, start

ADAMW = '{"b1": 0.8, "weight_decay": 0.3}'
RATE = 0.02


def of_name(name, args="{}"):
    return OPTIMIZERS.find(name).with_args(args)


def trained(masks, rate=RATE, seed=0, **settings):
    """(the model after a round, the model that was sent, the batches)."""
    params, x, y = start(seed)
    params = masked(params, masks)
    return local_round(**settings)(params, masks, x, y, jnp.float32(rate), KEY).params, params, x, y


# --- each optimiser against the method written out ---

NAMES = ("adam", "adamw", "lion", "rmsprop", "adagrad", "yogi")


@pytest.mark.parametrize("masks", [some_masks(), slow(())], ids=["masked", "full"])
@pytest.mark.parametrize("name", slow_except(NAMES, "lion"))
def test_a_round_equals_the_optimiser_written_out(name, masks):
    got, sent, x, y = trained(masks, optimizer=of_name(name))
    want, _ = oracle.local_round(sent, masks, x, y, getattr(oracle, name), [RATE] * STEPS)
    tiny.close(got, want, 2e-5)


def test_adamw_under_masks_clipped_and_scheduled():
    """Arguments, decay of weights, a proximal term, clipping and a schedule at once; masked values stay exactly 0."""
    masks = some_masks()
    more = dict(prox_mu=0.1, clip_grad_norm=0.2, lr_schedule=LR_SCHEDULES.find("linear"))
    got, sent, x, y = trained(masks, optimizer=of_name("adamw", ADAMW), **more)
    rule = functools.partial(oracle.adamw, b1=0.8, weight_decay=0.3)
    rates = [RATE * (1 - k / STEPS) for k in range(STEPS)]
    want, norms = oracle.local_round(sent, masks, x, y, rule, rates, prox_mu=0.1, clip=0.2)
    assert min(norms) < 0.2 < max(norms)  # some are shortened, some are not
    tiny.close(got, want, 2e-5)
    for mask, layer in zip(masks, LAYERS, strict=True):
        kernel = np.asarray(got[layer]["kernel"])
        assert not kernel[~mask].any() and (kernel[mask] != sent[layer]["kernel"][mask]).all()


def test_factories_of_optax_are_found_by_name():
    names = [name for name in dir(optax) if of_optax(name) is not None]
    assert set(NAMES) < set(names) and not {"noisy_sgd", "scale_by_rprop", "clip", "polyak_sgd"} & set(names)


FACTORIES = ("adafactor", "adan", "lamb", "lars", "novograd", "radam", "sm3", "signum", "rprop")


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTORIES)
def test_other_factories_equal_a_plain_loop_of_optax(name):
    masks = some_masks()
    got, sent, x, y = trained(masks, optimizer=of_name(name))
    made = getattr(optax, name)(RATE)
    w = jax.tree.map(jnp.asarray, sent)
    state = made.init(w)
    for batch_x, batch_y in zip(x, y, strict=True):
        _, gradient = mlp_gradient(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), w), batch_x, batch_y)
        gradient = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), masked(gradient, masks))
        update, state = made.update(gradient, state, w)
        w = masked(optax.apply_updates(w, update), masks)
    tiny.close(got, w, 1e-4)


# --- clipping and schedules of SGD ---


def test_clipping_takes_the_norm_of_what_the_client_holds():
    masks = some_masks()
    params, x, y = start()
    sent = masked(params, masks)
    _, norms = oracle.local_round(sent, masks, x, y, oracle.momentum, [LR] * STEPS)
    most = float(np.median(norms))
    got, *_ = trained(masks, LR, clip_grad_norm=most, momentum=0.9)
    want, norms = oracle.local_round(
        sent, masks, x, y, functools.partial(oracle.momentum, decay=0.9), [LR] * STEPS, clip=most
    )
    assert min(norms) < most < max(norms)
    tiny.close(got, want, 1e-5)


def test_a_large_bound_clips_nothing():
    plain, *_ = trained((), LR)
    clipped, *_ = trained((), LR, clip_grad_norm=1e6)
    tiny.close(clipped, plain, 1e-6)


WARM = optax.linear_schedule(0.0, 1.0, 2)  # 0, 0.5, 1, 1, ...
SHARE = optax.constant_schedule(0.5)  # a Python float


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (LR_SCHEDULES.find("cosine"), [0.5 + 0.5 * np.cos(np.pi * k / STEPS) for k in range(STEPS)]),
        slow(LR_SCHEDULES.find("linear"), [1 - k / STEPS for k in range(STEPS)]),
        slow(LrSchedule(WARM, of_step_alone=True), [0, 0.5, 1, 1]),
    ],
    ids=["cosine", "linear", "file"],
)
def test_a_schedule_multiplies_the_rate_of_the_round(schedule, factors):
    got, sent, x, y = trained((), LR, lr_schedule=schedule, momentum=0.5)
    rule = functools.partial(oracle.momentum, decay=0.5)
    want, _ = oracle.local_round(sent, (), x, y, rule, [LR * factor for factor in factors])
    tiny.close(got, want, 1e-5)


def test_a_schedule_from_a_file_is_given_the_step_alone():
    found = LR_SCHEDULES.find("tests.local.test_optimizers:WARM")
    assert [float(found.factor(k, 100)) for k in range(4)] == [0.0, 0.5, 1.0, 1.0]
    assert found == LR_SCHEDULES.find("tests.local.test_optimizers:WARM")  # one program for runs that share it
    assert LR_SCHEDULES.find("tests.local.test_optimizers:SHARE").factor(0, 1).dtype == jnp.float32


# --- works with masks of their own at each step, and long rounds ---


def magnitude(rule, w, masks, x, y, rate):
    """FIARSE's round in NumPy with an optimiser: (params, how many held weights each step left as they were)."""
    thetas = [np.abs(w[layer]["kernel"][mask]).min() for layer, mask in zip(LAYERS, masks, strict=True)]
    leaves, treedef = jax.tree.flatten(w)
    states, rested = [{} for _ in leaves], []
    for t, (batch_x, batch_y) in enumerate(zip(x, y, strict=True), start=1):
        w = jax.tree.unflatten(treedef, leaves)
        size = [np.abs(w[layer]["kernel"]) for layer in LAYERS]
        here = tuple(m & (s >= theta) for m, s, theta in zip(masks, size, thetas, strict=True))
        _, gradient = mlp_gradient(masked(w, here), batch_x, batch_y)
        for layer, s, theta in zip(LAYERS, size, thetas, strict=True):
            gradient[layer]["kernel"] = gradient[layer]["kernel"] * (1 + 2 * theta * s / (s + theta) ** 2)
        gradients = jax.tree.leaves(masked(gradient, here))
        change = [rate * rule(s, g, p, t) for s, g, p in zip(states, gradients, leaves, strict=True)]
        change = jax.tree.leaves(masked(jax.tree.unflatten(treedef, change), here))
        leaves = [p + c for p, c in zip(leaves, change, strict=True)]
        rested.append(sum(int((m & ~h).sum()) for m, h in zip(masks, here, strict=True)))
    return jax.tree.unflatten(treedef, leaves), rested


def test_moments_and_decay_do_not_move_what_a_step_leaves_out():
    params, x, y = start()
    masks = tuple(np.abs(params[layer]["kernel"]) >= np.median(np.abs(params[layer]["kernel"])) for layer in LAYERS)
    params, rate = masked(params, masks), 0.1
    settings = LocalSettings(STEPS, BATCH, optimizer=of_name("adamw", ADAMW))
    task = LocalTask(MODEL, make_loss("sigmoid"), LAYOUT, settings)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    given = LocalInput(params, tuple(map(jnp.asarray, masks)), batches, jnp.float32(rate), KEY)
    got = jax.jit(lambda p: find_local("magnitude_sgd").round(task, given._replace(params=p)))(params).params
    rule = functools.partial(oracle.adamw, b1=0.8, weight_decay=0.3)
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    want, rested = magnitude(rule, w, masks, x, y, rate)
    assert rested[0] == 0 < max(rested)
    tiny.close(got, want, 2e-5)


@pytest.mark.slow
def test_widths_not_drawn_keep_their_values_under_adamw():
    from tests.local.test_ordered import setting, widths

    task, given, _, (x, y) = setting(100)
    settings = LocalSettings(2, 4, widths=(100, 50, 25, 13, 6), optimizer=of_name("adamw", ADAMW))
    task = LocalTask(task.model, task.loss, task.layout, settings, task.levels)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x[:2], y[:2]))
    result = find_local("ordered_sgd").round(task, given._replace(batches=batches))
    widest, moved = max(widths(100, steps=2)), 0
    for level, before, after in zip(task.levels, *map(jax.tree.leaves, (given.params, result.params)), strict=True):
        before, after = np.asarray(before), np.asarray(after)
        np.testing.assert_array_equal(before[level > widest], after[level > widest])
        moved += int((before != after)[level <= widest].sum())
    assert moved > 0 and widest < 100


@pytest.mark.slow
def test_a_long_round_takes_the_same_steps_in_a_loop(monkeypatch):
    steps, rng = 40, np.random.default_rng(3)
    x = jnp.asarray(rng.random((steps, 4, *MODEL.input_shape), np.float32))
    y = jnp.asarray(rng.integers(0, CLASSES, (steps, 4)), jnp.int32)
    batches = Batches(one=lambda k: (x[k], y[k]), all=lambda: (x, y))
    schedule = LR_SCHEDULES.find("cosine")
    work = LocalSettings(
        steps, 4, optimizer=of_name("adamw", ADAMW), clip_grad_norm=0.2, lr_schedule=schedule, unroll=False
    )
    task = LocalTask(MODEL, make_loss("sigmoid"), LAYOUT, work)
    run = jax.jit(lambda p: sgd_round(task, LocalInput(p, (), batches, jnp.float32(0.02), KEY)))
    params = MODEL.init(KEY)
    assert work.long
    looped = run(params)
    monkeypatch.setattr(local_work, "MOST_UNROLLED", steps)
    run.clear_cache()
    tiny.close(looped.params, run(params).params, 1e-5)


# --- whole runs ---

# With Adam's eps of 1e-8 the rounding error of a gradient that is all but 0 would decide about a whole step.
STEADY = '{"b1": 0.8, "eps": 0.001, "weight_decay": 0.3}'
RUN = dict(local__optimizer="adamw", local__optimizer_args=STEADY, local__lr=0.01, local__clip_grad_norm=0.2)


# FedRolex has HeteroFL's local work and aggregation, and its moments begin anew in each round, as its masks do.
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["prfl", "heterofl", "fjord", "fiarse", "fedasync"])
def test_map_and_vmap_agree_with_adamw(strategy):
    settings = dict(rounds=12, density__interval=4, submodel__importance="weight", local__lr_schedule="cosine", **RUN)
    by_map = tiny.run(strategy, engine__clients="map", **settings)
    for way in ({"engine__clients": "vmap"}, {"engine__clients": "vmap", "engine__train": "pending"}):
        other = tiny.run(strategy, **way, **settings)
        tiny.close(other.params, by_map.params, 1e-5)
        assert [w["arrivals"] for w in other.of("window")] == [w["arrivals"] for w in by_map.of("window")]
    plain = tiny.run(strategy, engine__clients="map", **{**settings, "local__optimizer": "sgd", **NO_ARGS})
    pairs = zip(*map(jax.tree.leaves, (plain.params, by_map.params)), strict=True)
    assert max(np.abs(one - other).max() for one, other in pairs) > 1e-3


NO_ARGS = dict(local__optimizer_args="{}")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "lion", "rmsprop", "adagrad", "yogi"])
def test_a_run_learns_with_another_optimiser(optimizer):
    rates = {"adam": 0.01, "lion": 0.003, "rmsprop": 0.003, "adagrad": 0.1, "yogi": 0.03}
    ran = tiny.run("fedavg", rounds=25, local__optimizer=optimizer, local__lr=rates[optimizer], local__steps=5)
    accuracy = [e["mask"]["accuracy"] for e in ran.of("eval")]
    assert accuracy[0] < 0.25 and ran.report["final"]["accuracy"] > 0.5


# --- the choice in a config ---


def bad_state(learning_rate):
    """Its state grows from step to step."""
    return optax.GradientTransformation(lambda p: jnp.zeros(1), lambda g, s, p=None: (g, jnp.concatenate([s, s])))


def no_tree(learning_rate):
    return optax.GradientTransformation(lambda p: (), lambda g, s, p=None: (jax.tree.leaves(g), s))


def half(learning_rate):
    to_half = optax.stateless(lambda g, p=None: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), g))
    return optax.chain(optax.sgd(learning_rate), to_half)


def no_transformation(learning_rate, b1=0.9):
    return learning_rate * b1


def branches(learning_rate):
    return optax.sgd(learning_rate) if learning_rate > 0 else optax.identity()


def three(step):
    return jnp.zeros(3)


def needs_more(learning_rate):
    def update(gradient, state, params=None, *, hint):
        return gradient, state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def named_lr(lr):
    return optax.sgd(lr)


def mine(learning_rate, decay=0.5):
    """SGD with optax's decay of weights."""
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(learning_rate))


def own_steps(task, given):
    return sgd_round(task, given)


OWN_STEPS = LocalWork(own_steps)
BY_SETTINGS = LocalWork(own_steps, takes_optimizer=True)
HERE = "tests.local.test_optimizers"


def refused(strategy="fedavg", **changes):
    with pytest.raises(UserError) as caught:
        config = tiny.config(strategy, **changes)
        validate(config)
        resolve(config, (28, 28, 1), 10)
    said = str(caught.value)
    assert "\n" not in said and said.startswith("config.")
    return said


NAMES_OF_ADAMW = "an object with names among b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov"


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        ('{"beta": 1}', f"{NAMES_OF_ADAMW}, not 'beta'"),
        ('{"b1": "0.9"}', "an object in which b1 is a number"),
        ('{"b1": true}', "an object in which b1 is a number"),
        ('{"nesterov": 1}', "an object in which nesterov is true or false"),
        ('{"learning_rate": 0.1}', f"{NAMES_OF_ADAMW}, not 'learning_rate'"),
        ('{"b1": 1.5}', "an object in which b1 is in [0, 1)"),
        ('{"b2": 1}', "an object in which b2 is in [0, 1)"),  # its correction divides by 1 - b2
        ('{"b1": 0.0, "eps": -0.5}', "an object in which eps is >= 0"),
    ],
)
def test_arguments_that_the_factory_does_not_take_are_refused(args, allowed):
    said = refused(local__optimizer="adamw", local__optimizer_args=args)
    assert said.startswith(f"config.local.optimizer_args={args!r}: allowed is {allowed}")
    assert said.endswith("with local.optimizer='adamw'")


@pytest.mark.parametrize(
    ("name", "args", "constant"),
    [
        ("rmsprop", '{"decay": -0.1}', "decay"),
        ("adadelta", '{"rho": 1}', "rho"),
        ("lars", '{"momentum": 1.0}', "momentum"),
        ("lars", '{"momentum": 0, "eps": 0}', None),
        ("rmsprop", '{"momentum": null}', None),
        (f"{HERE}:no_transformation", '{"b1": 2.0}', None),  # of a user's function, which may mean something else
    ],
)
def test_ranges_of_other_optimisers_constants(name, args, constant):
    config = tiny.config("fedavg", local__optimizer=name, local__optimizer_args=args)
    if constant is None:
        validate(config)
        return
    with pytest.raises(
        UserError, match=rf"an object in which {constant} is in \[0, 1\), with local\.optimizer='{name}'"
    ):
        validate(config)


def test_an_optimiser_that_needs_the_loss_says_so():
    config = tiny.config("fedavg", local__optimizer="lbfgs", local__lr=0.01)
    with pytest.raises(UserError) as caught:
        validate(config)
    assert str(caught.value) == (
        "config.local.optimizer='lbfgs': allowed is an optimiser that steps by the gradient; this one needs the loss "
        "in each step (value, grad, value_fn), which steps do not give"
    )
    config.local.optimizer_args = '{"linesearch": null}'  # without its search it needs none
    validate(config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(optimizer="adam", momentum=0.9), "config.local.momentum=0.9: allowed is 0 with local.optimizer='adam'"),
        (dict(optimizer_args='{"momentum": 0.9}'), "allowed is {} with local.optimizer='sgd', whose momentum is local"),
        (dict(optimizer=f"{HERE}:needs_more"), "its update needs more in each step (hint), which steps do not give"),
        (dict(optimizer="adam", optimizer_args='{"mu_dtype": "no"}'), "failed (TypeError: data type 'no' not"),
        (dict(optimizer="adafactor", optimizer_args='{"decay_offset": 2.5}'), "decay_offset is a whole number"),
        (dict(optimizer=f"{HERE}:named_lr"), "is a function: <function named_lr"),
        (dict(optimizer=f"{HERE}:RATE"), "is a float: 0.02; allowed: a function (learning_rate, **arguments)"),
        (dict(optimizer=f"{HERE}:no_transformation"), "no optax.GradientTransformation"),
        (dict(optimizer=f"{HERE}:bad_state"), "its state has float32[2] for float32[1] of the state before"),
        (dict(optimizer=f"{HERE}:no_tree"), "its update is another pytree than the gradient"),
        (dict(optimizer=f"{HERE}:half"), "its update has bfloat16["),
        (dict(optimizer=f"{HERE}:branches"), "failed (line "),
        (dict(lr_schedule=f"{HERE}:three"), f"config.local.lr_schedule: '{HERE}:three' gives shape (3,); allowed: a s"),
        (dict(lr_schedule=f"{HERE}:RATE"), "is a float: 0.02; allowed: a function (step) -> a factor"),
        (dict(lr_schedule=f"{HERE}:no_tree"), "failed (TypeError: "),
    ],
    ids=str,
)
def test_what_cannot_make_steps_is_refused_in_one_line(changes, says):
    assert says in refused(**{f"local__{key}": value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("key", "value", "usual"),
    [("optimizer", "adam", "sgd"), ("lr_schedule", "linear", "constant"), ("clip_grad_norm", 1.0, "None")],
)
def test_a_work_with_steps_of_its_own_is_refused_with_them(key, value, usual):
    changes = {f"local__{key}": value, "local__name": f"{HERE}:OWN_STEPS"}
    said = refused(**changes)
    assert said.startswith(f"config.local.{key}={value!r}: allowed is {usual} with local.name='{HERE}:OWN_STEPS'")
    validate(tiny.config("fedavg", **{**changes, "local__name": f"{HERE}:BY_SETTINGS"}))


@pytest.mark.parametrize("importance", ["server_sq_grad", "product"])
@pytest.mark.parametrize(("key", "value"), [("optimizer", "adam"), ("lr_schedule", "cosine")])
def test_squared_gradients_from_updates_are_for_sgd_alone(importance, key, value):
    changes = {f"local__{key}": value, "submodel__importance": importance}
    said = refused("prfl", **changes)
    words = f"config.submodel.importance={importance!r}: allowed is client_sq_grad or weight with local.{key}={value!r}"
    assert said.startswith(words)
    for other in ("client_sq_grad", "weight"):
        config = tiny.config("prfl", **{**changes, "submodel__importance": other})
        validate(config)
        assert prunes(config)
    validate(tiny.config("fedavg", **changes))  # nothing is pruned by it


def test_the_settings_of_a_run_compare_equal_where_they_are():
    def settings(**changes):
        config = tiny.config("fedavg", **changes)
        return settings_from_config(config, find_local("sgd"))

    assert settings() == LocalSettings(2, 10)
    one = settings(local__optimizer="adam", local__optimizer_args='{"b2":0.9, "b1": 5e-1}')
    assert one == settings(local__optimizer="adam", local__optimizer_args='{"b1": 0.5,"b2": 0.9}')
    assert one != settings(local__optimizer="adam") and one.optimizer == OptaxFactory(
        optax.adam, '{"b1": 0.5, "b2": 0.9}'
    )
    own = settings(local__optimizer=f"{HERE}:mine", local__lr_schedule=f"{HERE}:WARM")
    assert own == settings(local__optimizer=f"{HERE}:mine", local__lr_schedule=f"{HERE}:WARM")
    assert OPTIMIZERS.find("optax:sgd").factory is optax.sgd


def test_the_hash_is_of_the_arguments_and_not_of_their_text():
    one, same, other = (
        tiny.config("fedavg", local__optimizer="adam", local__optimizer_args=text)
        for text in ('{"b1":0.5,"b2":0.9}', '{ "b2": 0.9, "b1": 0.5 }', '{"b1": 0.5}')
    )
    assert config_hash(one) == config_hash(same) != config_hash(other)
    assert to_dict(same)["local"]["optimizer_args"] == '{"b1": 0.5, "b2": 0.9}'
    assert keyword_args.misfit(lambda learning_rate, **rest: None, {"any": 1}, "learning_rate") is None
    assert keyword_args.misfit(lambda learning_rate, eta: None, {}, "learning_rate") == "an object with eta too"


def injected(learning_rate):
    """Adam that has its rate in its state."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)


KEEPING = f"{HELPERS}/counting_work.py:KEEPING"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(local__optimizer="tests.local.test_optimizers:injected"), "holds the learning rate"),
        (dict(local__optimizer="sign_sgd"), "'sign_sgd' has no state"),
        (dict(local__optimizer="sgd"), "which has no moments"),
        (
            dict(local__optimizer="adam", local__name=f"{HELPERS}/counting_work.py:KEEPING"),
            "keep something of their own",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(changes, said):
    with pytest.raises(UserError, match=f"local.optimizer_state='kept'.*{said}"):
        made = tiny.config("fedavg", local__optimizer_state="kept", **changes)
        validate(made)
        resolve(made, (28, 28, 1), 10)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "rmsprop", "adagrad", "yogi"])
def test_moments_of_usual_optimizers_can_be_kept(name):
    made = tiny.config("fedavg", local__optimizer=name, local__lr=0.01, local__optimizer_state="kept")
    validate(made)
    resolve(made, (28, 28, 1), 10)
