"""Modules of a user's own, linen and nnx, that know nothing of this package."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from marked import slow_except
from ml_collections import ConfigDict
from tiny import primitives

from prfl_jax.models import build_model, load_model, save_model
from prfl_jax.models.build import flat_paths, wrap_linen, wrap_module
from prfl_jax.system.errors import UserError

SHAPE = (12, 12, 2)
X = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


class Mixed(nn.Module):
    """Strides, dilation, groups, a transposed convolution, dropout with a `train` flag."""

    num_classes: int
    grouped: bool = True

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(8, (3, 2), kernel_dilation=(2, 1), padding="VALID")(x))
        if self.grouped:
            x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4)(x))
            x = nn.relu(nn.ConvTranspose(4, (2, 2), strides=(2, 2))(x))
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


class Deterministic(nn.Module):
    """Wants to be told of evaluation rather than of training."""

    @nn.compact
    def __call__(self, x, *, deterministic):
        x = nn.Dropout(0.5)(x.reshape(x.shape[0], -1), deterministic=deterministic)
        return nn.Dense(10)(x)


class Nnx(nnx.Module):
    """A list of convolutions, and dropout that `train()` and `eval()` switch."""

    def __init__(self, classes, *, rngs):
        self.convs = nnx.List(
            [
                nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs),
                nnx.Conv(4, 4, (3, 3), kernel_dilation=2, rngs=rngs),
            ]
        )
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4 * 36, classes, rngs=rngs)

    def __call__(self, x):
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.out(self.drop(x.reshape(x.shape[0], -1)))


class OneForAll(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.mean(axis=0).reshape(-1))


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(x.shape[0], -1)), x


class OtherImages(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(x.shape[0], 7, 7))


class MoreArguments(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class NnxOtherImages(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.out = nnx.Linear(7, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(x)


class NeedsSetting(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


class NnxNeedsSetting(nnx.Module):
    def __init__(self, hidden, *, rngs):
        self.out = nnx.Linear(hidden, 10, rngs=rngs)


class Raises(nn.Module):
    def __call__(self, x):
        raise RuntimeError("first line\nsecond line")


def init(model):
    """Params from the generator that compiles fastest."""
    return jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"))


@pytest.fixture(scope="module")
def mixed():
    model = wrap_module("mixed", Mixed, SHAPE, 10)
    return model, init(model)


@pytest.mark.slow
def test_a_linen_module_and_its_gradient_are_unchanged(mixed):
    model, params = mixed
    key = jax.random.key(5)

    @jax.jit
    def both(params):
        def outputs(apply):
            gradient = jax.grad(lambda p: jnp.sum(jnp.sin(apply(p, True))))(params)
            return gradient, apply(params, True), apply(params, False)

        theirs = outputs(lambda p, train: Mixed(10).apply({"params": p}, X, train=train, rngs={"dropout": key}))
        return outputs(lambda p, train: model.apply(p, X, train, key if train else None)), theirs

    got, want = both(params)
    assert got[1].shape == got[2].shape == (3, 10) and (np.asarray(got[1]) != got[2]).any()
    tiny.close(got, want, 1e-5)


def test_its_convolutions_are_matmuls_where_they_can_be(mixed):
    model, params = mixed
    names = primitives(lambda p: model.apply(p, X, False, None), params)
    # the grouped and the transposed one are left to lax; the other three and the dense layer are matmuls
    assert names.count("conv_general_dilated") == 2 and names.count("dot_general") >= 4
    alone = primitives(lambda p: Mixed(10).apply({"params": p}, X, train=False), params)
    assert alone.count("conv_general_dilated") == 5
    plain = wrap_linen("plain", Mixed(10, grouped=False), SHAPE, 10)
    assert "conv_general_dilated" not in primitives(lambda p: plain.apply(p, X, False, None), plain.shapes())


def test_dropout_differs_by_key_and_rests_in_evaluation(mixed):
    model, params = mixed
    apply = jax.jit(lambda key: (model.apply(params, X, True, key), model.apply(params, X, False, None)))
    (one, still), (again, _), (other, _) = (jax.device_get(apply(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and (one != still).any()


@pytest.mark.slow
def test_a_module_that_is_told_deterministic():
    model = wrap_module("deterministic", Deterministic, SHAPE, 10)
    params = init(model)
    kernel, bias = (np.asarray(params["Dense_0"][leaf], np.float64) for leaf in ("kernel", "bias"))
    want = X.reshape(3, -1).astype(np.float64) @ kernel + bias
    apply = jax.jit(lambda p: (model.apply(p, X, False, None), model.apply(p, X, True, jax.random.key(0))))
    still, dropped = apply(params)
    tiny.close(still, want, 1e-5)
    assert not np.allclose(dropped, want, atol=1e-3)


@pytest.fixture(scope="module")
def nnx_model():
    model = wrap_module("nnx", Nnx, SHAPE, 10)
    return model, init(model)


def by_itself(params):
    """What the nnx module gives with these params, in evaluation."""
    module = Nnx(10, rngs=nnx.Rngs(0))
    for k, conv in enumerate(module.convs):
        conv.kernel[...] = params["convs"][str(k)]["kernel"]
        conv.bias[...] = params["convs"][str(k)]["bias"]
    module.out.kernel[...], module.out.bias[...] = params["out"]["kernel"], params["out"]["bias"]
    module.eval()
    return module(X)


@pytest.mark.slow
def test_an_nnx_module_gives_what_it_gives_by_itself(nnx_model):
    model, params = nnx_model
    got, want = jax.jit(lambda p: (model.apply(p, X, False, None), by_itself(p)))(params)
    tiny.close(got, want, 1e-5)
    names = primitives(lambda p: model.apply(p, X, False, None), params)
    assert "conv_general_dilated" not in names and names.count("dot_general") >= 3


@pytest.mark.slow
def test_nnx_dropout_follows_the_key(nnx_model):
    model, params = nnx_model
    apply = jax.jit(lambda key: (model.apply(params, X, True, key), model.apply(params, X, False, None)))
    (one, still), (again, _), (other, _) = (jax.device_get(apply(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    # half of the inputs of the last layer are dropped, the others doubled: never what evaluation gives
    assert (one != other).any() and (one != still).all()


@pytest.mark.parametrize("which", slow_except(["mixed", "nnx_model"], "mixed"))
def test_save_and_load_give_the_same_model(which, request, tmp_path):
    model, params = request.getfixturevalue(which)
    save_model(str(tmp_path / "m.npz"), params)
    loaded = load_model(str(tmp_path / "m.npz"))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    tiny.same(loaded, params)
    out = jax.jit(lambda p: model.apply(p, X, False, None))
    np.testing.assert_array_equal(out(loaded), out(params))


def test_flop_of_a_users_module(mixed):
    flop = mixed[0].leaf_flop
    assert flop["Conv_0/kernel"] == 2 * 3 * 3 * 2 * 8 * 36
    assert flop["Conv_1/kernel"] == 2 * 3 * 2 * 8 * 8 * (2 * 5)
    assert flop["Conv_2/kernel"] == 2 * 3 * 3 * 2 * 8 * (2 * 5)  # groups: each output sees two channels
    assert flop["Dense_0/kernel"] == 2 * 4 * (4 * 10) * 10
    assert set(flop) == set(flat_paths(mixed[0].shapes()))


@pytest.mark.parametrize(
    "module,says",
    [
        (OneForAll, r"returns \(10,\) for 2 images; allowed: \(2, 10\)"),
        (Pair, "returns a tuple for 2 images"),
        (OtherImages, r"does not take images \(12, 12, 2\)"),
        (MoreArguments, "does not take images .*mask"),
        (NnxOtherImages, "does not take images"),
        (NeedsSetting, "cannot be built from nothing: .*hidden"),
        (NnxNeedsSetting, "cannot be built from nothing: .*hidden"),
        (Raises, "does not take images .*first line$"),
        (np.zeros, "allowed: a flax linen or nnx module"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_in_one_line(module, says):
    with pytest.raises(UserError, match=says) as caught:
        wrap_module("theirs", module, SHAPE, 10)
    assert str(caught.value).startswith("config.model.name: 'theirs' ") and "\n" not in str(caught.value)


def test_an_unknown_network_is_refused_with_those_there_are():
    with pytest.raises(
        UserError, match="config.model.name='conv3': allowed is one of conv2, vgg11, .*, or module:object"
    ):
        build_model(ConfigDict(dict(name="conv3", classes=None, width=1.0, init="release")), SHAPE, 10)


@pytest.mark.parametrize("name", ["no_such_module_anywhere:Net", "tiny:NoSuchNet", "no/such/file.py:Net"])
def test_an_unknown_module_is_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"config.model.name: '{name}' cannot be loaded") as caught:
        build_model(ConfigDict(dict(name=name, classes=None, width=1.0, init="release")), SHAPE, 10)
    assert "\n" not in str(caught.value)


def test_a_module_from_a_file_by_its_path(tmp_path):
    file = tmp_path / "my_net.py"
    file.write_text(
        "import flax.linen as nn\n\n\nclass Net(nn.Module):\n    num_classes: int\n\n    @nn.compact\n"
        "    def __call__(self, x):\n        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))\n"
    )
    cfg = ConfigDict(dict(name=f"{file}:Net", classes=17, width=1.0, init="release"))
    model = build_model(cfg, SHAPE, 10)
    assert model.num_parameters() == 288 * 17 + 17
