"""What a user's module may do: each image by itself, fixed variables, switches, random numbers (`module_zoo.py`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import module_zoo as zoo
import numpy as np
import pytest
from marked import every_fifth, slow_except

from prfl_jax.models import module_checks
from prfl_jax.models.build import load_model, save_model, wrap_module
from prfl_jax.models.checked_module import Sizes
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import SEQUENCES, SampleSpec

X = np.random.default_rng(0).normal(size=(3, *zoo.SHAPE)).astype(np.float32)


def names(modules):
    return [getattr(module, "__name__", str(k)) for k, module in enumerate(modules)]


def wrap(module, sizes=None):
    return wrap_module("theirs", module, zoo.SHAPE, 4, sizes) if sizes else wrap_module("theirs", module, zoo.SHAPE, 4)


def refused(module, says, sizes=None):
    with pytest.raises(UserError, match=says) as caught:
        wrap(module, sizes)
    text = str(caught.value)
    assert text.startswith("config.model.name: 'theirs' ") and "\n" not in text
    return text


# Each image by itself.


@pytest.mark.parametrize("inner", every_fifth([(inner,) for inner in zoo.ACROSS]), ids=names(zoo.ACROSS))
def test_a_module_that_looks_across_its_batch_is_refused(inner):
    says = "keeps state between calls" if inner is zoo.batch_norm_of_flax else "mixes the images of its batch"
    text = refused(zoo.Around(inner), says)
    assert "GroupNorm or LayerNorm" in text and "batch norm without" not in text


@pytest.mark.parametrize("inner", slow_except(zoo.ALONE, zoo.group_norm), ids=names(zoo.ALONE))
def test_a_module_that_does_not_is_taken(inner):
    model = wrap(zoo.Around(inner), Sizes((7, 50), (9,)))
    tree = model.whole(jax.random.key(0))
    assert model.apply(tree, X, False, None).dtype == jnp.float32


def test_only_the_runs_own_batches_count():
    """A dependence that begins at 300 images is found where there are so many, and with as many on each device."""

    def inner(module, h):
        return h - h.mean(0) if h.shape[0] >= 300 else h

    module = zoo.Around(inner)
    wrap(module, Sizes((299,)))
    refused(module, "position 0 of 300", Sizes((299, 300)))


def test_one_image_alone_keeps_its_axis():
    class Squeezes(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return jnp.squeeze(zoo.nn.Dense(4)(zoo.flat(x)))

    refused(Squeezes, r"returns \(4,\) for 1 image; allowed: \(1, 4\)")


def test_outputs_that_are_no_numbers_or_no_floats():
    class Nan(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return zoo.nn.Dense(4)(zoo.flat(x)) + jnp.log(-1.0)

    class Labels(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return zoo.nn.Dense(4)(zoo.flat(x)).astype(jnp.int32)

    refused(Nan, "not finite with its initial weights")
    refused(Labels, "returns int32 outputs; allowed: floats")


class Embeds(zoo.nn.Module):
    """Six tokens, however many there are."""

    classes: int

    @zoo.nn.compact
    def __call__(self, x):
        return zoo.nn.Dense(self.classes)(zoo.nn.Embed(6, 3)(x).mean(axis=1))


def test_an_embedding_of_too_few_tokens_is_told_how_many():
    sample = SampleSpec((4,), SEQUENCES, tokens=12)
    with pytest.raises(UserError) as caught:
        wrap_module("theirs", Embeds, sample, 4)
    assert str(caught.value) == (
        "config.model.name: 'theirs' gives outputs that are not finite with its initial weights, for tokens 0..11; "
        "allowed: finite ones, so an embedding of 12 tokens or more, whose number the module's class is given as an "
        "argument tokens"
    )


# Variables that are no params.


@pytest.mark.parametrize("module,says", zoo.KEEPS_STATE, ids=[module.__name__ for module, _ in zoo.KEEPS_STATE])
def test_state_that_cannot_be_kept_is_refused(module, says):
    refused(module, says)


@pytest.mark.parametrize("module", zoo.UNREPEATABLE, ids=names(zoo.UNREPEATABLE))
def test_numbers_that_no_key_gives_are_refused(module):
    refused(module, "is not repeatable")


def nnx_by_hand(tree, x):
    """`NnxFixed` in NumPy, float64."""
    params, fixed = tree["out"], tree["@fixed"]
    f = {name: np.asarray(value, np.float64) for name, value in fixed.items() if not isinstance(value, dict)}
    h = x.reshape(len(x), -1)[:, ::-1].astype(np.float64) @ f["projection"] + f["constant"]
    scale = np.asarray(fixed["parts"]["1"]["scale"], np.float64)
    h = h[:, f["order"].astype(int)] * float(fixed["parts"]["0"]) * scale + f["bare"]
    return h @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def linen_by_hand(tree, x):
    """`LinenFixed` in NumPy, float64."""
    params, fixed = tree["Dense_0"], tree["@fixed"]
    h = x.reshape(len(x), -1).astype(np.float64) @ np.asarray(fixed["buffers"]["projection"], np.float64)
    h = h[:, np.asarray(fixed["constants"]["order"])] * np.asarray(fixed["constants"]["scale"], np.float64)
    norm = fixed["batch_stats"]["BatchNorm_0"]
    scale, bias = (np.asarray(tree["BatchNorm_0"][leaf], np.float64) for leaf in ("scale", "bias"))
    h = (h - np.asarray(norm["mean"])) / np.sqrt(np.asarray(norm["var"], np.float64) + 1e-5) * scale + bias
    return h @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("module,by_hand", [(zoo.NnxFixed, nnx_by_hand), (zoo.LinenFixed, linen_by_hand)])
def test_fixed_variables_are_drawn_once_and_saved(module, by_hand, tmp_path):
    model = wrap(module)
    trees = [jax.jit(model.whole)(jax.random.key(seed)) for seed in (1, 1, 2)]
    same, other = (jax.tree.map(np.array_equal, trees[0]["@fixed"], tree["@fixed"]) for tree in trees[1:])
    assert all(jax.tree.leaves(same)) and not all(jax.tree.leaves(other))  # drawn from the model's seed
    # in evaluation, in training, and at whatever step they are what they were drawn as
    want = by_hand(trees[0], X)
    for train, key in ((False, None), (True, jax.random.key(8)), (True, jax.random.key(9))):
        got = np.asarray(jax.jit(model.apply, static_argnums=2)(trees[0], X, train, key))
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())
    save_model(str(tmp_path / "m.npz"), trees[0])
    loaded = load_model(str(tmp_path / "m.npz"))
    assert jax.tree.structure(loaded) == jax.tree.structure(trees[0])
    np.testing.assert_array_equal(model.apply(loaded, X, False, None), model.apply(trees[0], X, False, None))
    with pytest.raises(ValueError, match="without the module's fixed variables"):
        model.apply(model.init(jax.random.key(1)), X, False, None)
    # neither trained nor counted
    assert model.num_parameters() == {"NnxFixed": 36 * 4 + 4, "LinenFixed": 36 * 4 + 4 + 72}[module.__name__]
    assert model.num_fixed() == sum(np.size(leaf) for leaf in jax.tree.leaves(trees[0]["@fixed"]))


# Training switches and random numbers.


def follows_the_key(module):
    """Asserts that a module draws by the key in training, and nothing in evaluation; without a warning."""
    model = wrap(module)
    assert model.warnings == ()
    tree = jax.jit(model.whole)(jax.random.key(0))
    apply = jax.jit(model.apply, static_argnums=2)
    still, again = (np.asarray(apply(tree, X, False, key)) for key in (None, None))
    one, same, other = (np.asarray(apply(tree, X, True, jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(still, again)
    assert (one != other).any() and (one != still).any()


@pytest.mark.parametrize("parameters,told", every_fifth(zoo.SWITCHES), ids=[switch for switch, _ in zoo.SWITCHES])
def test_a_switch_in_the_call(parameters, told):
    follows_the_key(zoo.with_call(parameters, told))


@pytest.mark.parametrize("parameters,told,field", every_fifth(zoo.FIELDS), ids=[field for _, _, field in zoo.FIELDS])
def test_a_switch_among_the_fields(parameters, told, field):
    follows_the_key(zoo.with_call(parameters, told, field))


@pytest.mark.parametrize("module", every_fifth([(module,) for module in zoo.NNX_SWITCHES]), ids=names(zoo.NNX_SWITCHES))
def test_a_switch_of_an_nnx_module(module):
    follows_the_key(module)


def test_a_linen_instance_is_switched_by_its_field():
    follows_the_key(zoo.with_call("", "self.train", "train: bool = False")(4))


@pytest.mark.parametrize("draw", every_fifth([(draw,) for draw in zoo.DRAWS]), ids=names(zoo.DRAWS))
def test_random_numbers_of_any_name(draw):
    follows_the_key(zoo.drawing(draw))


def test_names_have_keys_of_their_own():
    """`one` less `two` would be 0 with one key, and add nothing."""
    follows_the_key(zoo.drawing(zoo.two_names))


def test_a_key_that_evaluation_asks_for_and_does_not_use():
    follows_the_key(zoo.AsksForAKeyItDoesNotUse)


@pytest.mark.parametrize(
    "module", slow_except(zoo.DRAWS_IN_EVALUATION, zoo.AlwaysDrops), ids=names(zoo.DRAWS_IN_EVALUATION)
)
def test_random_numbers_in_evaluation_are_refused(module):
    refused(module, "draws random numbers in evaluation")


@pytest.mark.parametrize("module", zoo.SILENT, ids=names(zoo.SILENT))
def test_dropout_that_does_nothing_gets_a_warning_line(module):
    (line,) = wrap(module).warnings
    assert line.startswith("config.model.name: 'theirs' ") and "\n" not in line
    assert "drops nothing in training" in line or "draws no random numbers in training" in line


def test_dropout_of_nothing_gets_none():
    assert wrap(zoo.RateZero).warnings == ()


def test_an_argument_that_nobody_knows_is_named():
    refused(zoo.with_call(", mask, train", "train"), r"does not take images \(6, 6, 1\) alone: .*'mask'")


# Types.


@pytest.mark.parametrize("dtype", slow_except([jnp.bfloat16, jnp.float16], jnp.bfloat16))
def test_a_module_that_computes_in_less_gives_float32(dtype):
    class Less(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return zoo.nn.Dense(4, dtype=dtype)(zoo.flat(x))

    model = wrap(Less)
    tree = model.whole(jax.random.key(0))
    want = X.reshape(3, -1).astype(np.float64) @ np.asarray(tree["Dense_0"]["kernel"], np.float64)
    got = model.apply(tree, X, False, None)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_params_of_another_type_are_refused(dtype):
    class Less(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return zoo.nn.Dense(4, param_dtype=jnp.dtype(dtype))(zoo.flat(x))

    refused(Less, f"has {dtype} params .*allowed: float32")


def test_nothing_to_train_is_refused():
    class Nothing(zoo.nn.Module):
        @zoo.nn.compact
        def __call__(self, x):
            return zoo.flat(x)[:, :4]

    refused(Nothing, "has no params to train")


def test_a_model_too_large_to_compute_is_not_checked(monkeypatch):
    """Its memory is refused later, in a line; before, nothing is allocated."""
    monkeypatch.setattr(module_checks, "_asked_before", [])
    monkeypatch.setattr(module_checks, "host_available", lambda: 1000)
    (line,) = wrap(zoo.RateZero).warnings
    assert line.startswith("config.model.name: 'theirs' is not checked for outputs that depend on other images: ")
