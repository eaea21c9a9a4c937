"""Sub-models of channels trained in narrower networks: equal to masked training at full size."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import narrow_nets
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from network_cases import network

from prfl_jax.engine.groups import AXIS
from prfl_jax.engine.widths import Widths, check_kept, width_of
from prfl_jax.local import LOCAL_WORKS, Batches, LocalInput, LocalResult, LocalSettings, LocalTask, find_client_state
from prfl_jax.local.optimizers import OPTIMIZERS
from prfl_jax.models import make_loss
from prfl_jax.models.build import wrap_module
from prfl_jax.models.channel_search import find_channels
from prfl_jax.models.narrower import narrower
from prfl_jax.models.variables import split_state, with_state
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel import SUBMODELS, Network
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

SETTINGS = LocalSettings(steps=2, batch_size=8, unroll=False)


class Case:
    """A model, its widths, and a client's sub-model of the channels of largest norm."""

    def __init__(self, model, shares, settings=SETTINGS, grouped=False):
        self.model, self.settings = model, settings
        self.layout, self.groups = Layout.of(model.shapes(), channels=True, state=True), find_channels(model)
        small = [(share, narrower(model, share)) for share in shares]
        found = (width_of(share, m, self.layout, (self.groups, find_channels(m))) for share, m in small)
        self.widths = Widths(self.groups, self.layout, tuple(found), grouped)
        base = make_loss("softmax")

        def loss(logits, y):
            return base(logits.reshape(-1, logits.shape[-1]), y.reshape(-1)).reshape(len(y), -1).mean(1)

        self.task = LocalTask(model, loss, self.layout, settings, levels=())  # as of `filters`

    def masks(self, params, percent):
        size = self.layout.model_size(self.model, None, 100)
        masked = tuple(self.layout.paths[i] for i in self.layout.prunable)
        fitted = Network(self.layout.param_shapes(), size, lambda: (), lambda: self.groups, masked)
        return SUBMODELS.find("filters").fit(fitted, "filters").masks((), jax.tree.leaves(params), jnp.int32(percent))

    def given(self, percent, work="sgd", dtype=jnp.float32):
        """A client's input: random samples, and moments or variates of earlier rounds; params are `dtype`."""
        rng, sample = np.random.default_rng(percent), self.model.sample
        lead = (self.settings.steps, self.settings.batch_size)
        floats = jnp.issubdtype(sample.dtype, jnp.floating)
        x = rng.normal(size=(*lead, *sample.shape)) if floats else rng.integers(1, 11, (*lead, *sample.shape))
        y = rng.integers(0, self.model.classes, (*lead, *sample.shape[: int(self.model.sequence)]))
        x, y = jnp.asarray(x, dtype if floats else sample.dtype), jnp.asarray(y, jnp.int32)
        params, state = split_state(self.model.init(jax.random.key(percent)))
        params = with_state(jax.tree.map(lambda leaf: leaf.astype(dtype), params), state)
        masks, kept, beside = self.masks(params, percent), (), ()
        if (state := find_client_state(LOCAL_WORKS.find(work), self.settings)) is not None:
            check_kept(self.widths, self.task, state.init)
            kept = drawn(rng, state.init(self.task, params))
            beside = () if state.server is None else drawn(rng, state.server(params))
        batches = Batches(lambda k: (x[k], y[k]), lambda: (x, y))
        sent, lr, key = apply_masks(self.layout, params, masks), dtype(0.02), jax.random.key(1)
        return LocalInput(sent, masks, batches, lr, key, jnp.int32(percent), kept=kept, beside=beside)

    def rounds(self, percent, work="sgd", dtype=jnp.float32):
        """(the result in a width, the one of masked training at full size, what was given)."""
        given, own = self.given(percent, work, dtype), LOCAL_WORKS.find(work)
        parts = given._replace(batches=None)

        def run(work):
            return jax.jit(lambda parts: work.round(self.task, parts._replace(batches=given.batches)))(parts)

        return run(self.widths.wrap(own)), run(own), given


def drawn(rng, tree):
    """Random numbers >= 0 for the floats of a pytree."""
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(0.01 * abs(rng.normal(size=leaf.shape)), leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        ),
        tree,
    )


def user_model(module=narrow_nets.ByWidth):
    return wrap_module("m", module, (4, 4, 1), 3)


def agree(got, want, sent, share=2e-3):
    """All results within 1e-5, what a round has changed within `share` of it and two units of the last place."""
    tiny.close(got, want)
    leaves = (jax.tree.leaves(tree) for tree in (got.params, want.params, sent))
    for mine, theirs, before in zip(*(map(np.asarray, own) for own in leaves), strict=True):
        change, size = (np.abs(values).max() for values in (theirs - before, theirs))
        atol = share * change + 2 * np.finfo(theirs.dtype).eps * size
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)
        np.testing.assert_array_equal(mine == 0, theirs == 0)


def no_dropout(function, args, kwargs, context):
    """Its draws depend on the shape of what they drop."""
    return args[0] if isinstance(context.module, nn.Dropout) else function(*args, **kwargs)


NAMES = ["cnn", "vgg11", "alexnet", "vgg19", "resnet50", "cnn1d", "gru", "word_lstm"]


@pytest.mark.parametrize("name", slow_except(NAMES))
def test_a_round_equals_masked_training_at_full_size(name):
    width = {"cnn": 0.2, "alexnet": 0.04, "word_lstm": 0.05}.get(name, 0.1)
    case = Case(network(name, width), (0.5,))
    assert all(map(int.__le__, case.widths.widths[0].sizes, (group.size for group in case.groups.groups)))
    with nn.intercept_methods(no_dropout), jax.enable_x64(True):  # deep networks magnify float32's rounding
        got, want, given = case.rounds(40, dtype=jnp.float64)
    agree(got, want, given.params, share=1e-9)


SGD = dataclasses.replace(SETTINGS, steps=3, momentum=0.9, keeps_moments=True, prox_mu=0.1, clip_grad_norm=0.5)
ADAM = dataclasses.replace(SETTINGS, steps=3, optimizer=OPTIMIZERS.find("adamw").with_args("{}"), keeps_moments=True)


@pytest.mark.parametrize(
    ("module", "settings", "work"),
    [
        slow(narrow_nets.ByWidth, dataclasses.replace(SGD, square_gradients=True), "sgd"),
        slow(narrow_nets.ByShare, ADAM, "sgd"),
        (narrow_nets.ByWidth, SETTINGS, "scaffold"),
    ],
)
def test_what_clients_keep_comes_back_to_its_place(module, settings, work):
    got, want, given = Case(user_model(module), (0.5,), settings).rounds(30, work)
    agree(got, want, given.params)
    assert len(jax.tree.leaves(got.kept)) > 4 and (not settings.square_gradients or got.squares)


def tells_width(task, given):
    """A round that trains nothing, whose loss is the length of its network's first bias."""
    return LocalResult(given.params, jnp.float32(len(jax.tree.leaves(given.params)[0])), (), given.kept)


def test_the_smallest_width_that_holds_the_sub_model_is_taken():
    case = Case(user_model(), (0.25, 0.5, 0.75))
    told = jax.jit(lambda parts: case.widths.round(tells_width, case.task, parts))
    for percent, width in {1: 4, 25: 4, 26: 8, 50: 8, 51: 12, 75: 12, 76: 16, 100: 16}.items():
        given = case.given(percent)._replace(batches=None)
        result = told(given)
        assert result.loss == width
        tiny.same(result.params, given.params)  # taken and put back


def test_density_1_is_trained_at_full_size_to_the_bit():
    got, want, _ = Case(user_model(), (0.5,)).rounds(100)
    tiny.same(got, want)


def test_a_group_is_trained_in_the_smallest_width_that_holds_all():
    case = Case(user_model(), (0.25, 0.5, 0.75), grouped=True)
    told = jax.vmap(lambda parts: case.widths.round(tells_width, case.task, parts), axis_name=AXIS)
    for percents, width in (((1, 25), 4), ((60, 10), 12), ((100, 25), 16)):
        given = [case.given(percent)._replace(batches=None) for percent in percents]
        result = told(jax.tree.map(lambda *leaves: jnp.stack(leaves), *given))
        assert result.loss.tolist() == [width, width]
        tiny.same(result.params, jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one.params for one in given)))
    conditions = [e for e in tiny.equations(told, jax.tree.map(lambda *leaves: jnp.stack(leaves), *given))]
    switches = [e for e in conditions if e.primitive.name == "cond" and len(e.params["branches"]) == 4]
    assert [e.invars[0].aval.shape for e in switches] == [()]  # one branch is run, not all


# --- in a run ---

OWN = dict(model__name="narrow_nets:ByWidth", model__size_mb=None)
ROWS = {
    "fedmp": OWN,
    "fedmp_bsp": {**OWN, "model__name": "narrow_nets:ByShare"},
    "heterofl": {},
    "heterofl_recovery": {},
    "fedrolex": {},
    "fjord": {},
    "asyn_fedmp": OWN,
}


@pytest.mark.parametrize("strategy", slow_except(ROWS))
def test_a_run_equals_one_at_full_size(strategy):
    settings = dict(rounds=8, **ROWS[strategy])
    full = tiny.run(strategy, engine__widths=(), **settings)
    ran = tiny.run(strategy, engine__widths=(0.5,), **settings)
    tiny.close(ran.params, full.params)
    assert ran.experiment.simulation.method.shares == (0.5,)
    assert (ran.report["flags"]["widths"], full.report["flags"]["widths"]) == ([0.5], [])
    for one, other in zip(full.of("window"), ran.of("window"), strict=True):
        np.testing.assert_allclose(other.pop("loss"), one.pop("loss"), rtol=1e-4)
        assert one == other
    assert any(min(window["percents"]) <= 50 for window in ran.of("window"))


@pytest.mark.slow
def test_groups_of_vmap_equal_clients_one_after_another():
    settings = dict(rounds=8, engine__widths=(0.5,), **OWN)
    ran = tiny.run("fedmp", engine__clients="vmap", engine__group=2, **settings)
    tiny.close(ran.params, tiny.run("fedmp", **settings).params)


@pytest.mark.slow
def test_a_run_at_density_1_equals_one_at_full_size_to_the_bit():
    settings = dict(rounds=8, density__name="full", **OWN)
    one, other = (tiny.run("fedmp", engine__widths=shares, **settings) for shares in ((), (0.5,)))
    assert other.experiment.simulation.method.shares == (0.5,)
    tiny.same(one.params, other.params)


@pytest.mark.slow
def test_a_run_goes_on_in_other_widths_and_says_so(tmp_path, monkeypatch, capsys):
    """As where a run on a CPU was first one of several experiments, or on a GPU."""
    settings, folder = dict(rounds=8, **ROWS["heterofl"]), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("prfl_jax.engine.find_widths.SHARES", (0.5,))
        patch.setattr("prfl_jax.engine.find_widths.LEAST_FLOP", 1.0)
        first = Experiment(tiny.config("heterofl", **settings))
    then = Experiment(tiny.config("heterofl", **settings))
    assert (first.simulation.method.shares, then.simulation.method.shares) == ((0.5,), ())
    with pytest.raises(Interrupted):
        first.run(folder, guard=tiny.StopAt(6), progress=False)
    finished = then.run(folder)
    said = capsys.readouterr().err
    assert "resumed after window" in said and "engine.widths=None meant (0.5,) before and means () here: last" in said
    tiny.close(finished.params, tiny.run("heterofl", engine__widths=(), **settings).params)

    given = Experiment(tiny.config("heterofl", engine__widths=(0.5,), **settings))
    with pytest.raises(UserError, match=r"another config \(config.engine.widths is None there and \[0.5\] here"):
        given.run(folder)


def test_large_networks_have_widths_by_themselves():
    large = dict(model__name="cnn", model__size_mb=None, local__steps=5, local__batch_size=20)
    assert tiny.simulation("fedmp", **large).method.shares == (0.25, 0.5, 0.75)
    for other in ({"local__steps": 1}, {"engine__clients": "vmap"}, {"engine__widths": ()}):
        assert tiny.simulation("fedmp", **{**large, **other}).method.shares == ()
    for plain in ("fedavg", "prfl"):
        assert tiny.simulation(plain, **large).method.shares == ()


@pytest.mark.slow
def test_a_width_that_is_also_a_factor_is_not_taken_by_itself(monkeypatch):
    monkeypatch.setattr("prfl_jax.engine.find_widths.LEAST_FLOP", 1.0)
    monkeypatch.setattr("prfl_jax.engine.find_widths.SHARES", (0.5,))
    for name, shares in (("Scaled", ()), ("ByWidth", (0.5,))):
        own = {**OWN, "model__name": f"narrow_nets:{name}"}
        assert tiny.simulation("fedmp", **own).method.shares == shares


@pytest.mark.parametrize(
    ("strategy", "settings", "words"),
    [
        ("prfl", OWN, "submodel.name='nested' does not take whole channels"),
        ("fedmp", {}, "'tiny:TwoLayers' does not say how it is built narrower"),
        ("fedmp", {**OWN, "model__name": "narrow_nets:Wider"}, "with 0.5 of its channels has"),
        ("fedmp", {**OWN, "model__name": "narrow_nets:Scaled"}, "with 0.5 of its channels has other outputs"),
        ("fedmp", {**OWN, "engine__widths": (0.05,)}, "with 0.05 of its channels has other groups of channels"),
        ("fedmp", {**OWN, "local__optimizer": "adafactor"}, "local.optimizer='adafactor' depend on the size"),
    ],
)
def test_widths_that_cannot_be_had_are_refused(strategy, settings, words):
    with pytest.raises(UserError, match=r"^config.engine.widths=\(0\..*" + words) as error:
        tiny.simulation(strategy, **{"engine__widths": (0.5,), **settings})
    assert "\n" not in str(error.value)
