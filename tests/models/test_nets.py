"""Conv2 and VGG-11: sizes, initialisation, pooling, losses, saving."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow, slow_except
from ml_collections import ConfigDict

from prfl_jax.models import build_model, load_model, make_loss, save_model
from prfl_jax.models.build import flat_paths
from prfl_jax.models.nets import max_pool2
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError

FEMNIST, CIFAR10 = ((28, 28, 1), 62), ((32, 32, 3), 10)


def build(name, shape, classes, width=1.0, init="release"):
    return build_model(ConfigDict(dict(name=name, classes=None, width=width, init=init)), shape, classes)


@pytest.mark.parametrize("name,data,parameters", [("conv2", FEMNIST, 6_603_710), slow("vgg11", CIFAR10, 9_750_922)])
def test_parameter_counts_of_the_paper(name, data, parameters):
    assert build(name, *data).num_parameters() == parameters


@pytest.mark.parametrize("width", slow_except([1.0, 0.5, 0.05], 0.05))
@pytest.mark.parametrize("name,data", [("conv2", FEMNIST), ("conv2", ((28, 28, 1), 10)), slow("vgg11", CIFAR10)])
def test_modules_have_the_shapes_and_flop_of_the_clocks_tables(name, data, width):
    model = build(name, *data, width)
    table = layer_table(name, *data, width)
    want = {f"{layer.name}/kernel": layer.kernel for layer in table}
    want |= {f"{layer.name}/bias": (layer.biases,) for layer in table}
    assert {path: leaf.shape for path, leaf in flat_paths(model.shapes()).items()} == want
    for layer in table:
        assert model.leaf_flop[f"{layer.name}/kernel"] == layer.flop
    # and what the clock is told is the same, whether the table or the module told it
    size = Layout.of(model.shapes()).model_size(model, 26.5, 5)
    by_name = sorted(table, key=lambda layer: layer.name)  # the order of the leaves
    assert size.layers == tuple(layer.weights for layer in by_name)
    assert size.layer_flop == tuple(layer.flop for layer in by_name)
    assert size.fixed == sum(layer.biases for layer in table)
    assert size.value_bytes(100) == 26_500_000


def drawn(model, seeds=(3,)):
    """Initial params by path, one dict a seed, drawn with the generator that compiles fastest."""
    init = jax.jit(model.init)
    return [flat_paths(jax.device_get(init(jax.random.key(seed, impl="unsafe_rbg")))) for seed in seeds]


def assert_uniform(leaf, bound):
    """All within the bound, which is all but reached, and spread as a uniform distribution is."""
    leaf = np.asarray(leaf, np.float64)
    assert np.abs(leaf).max() <= bound * (1 + 1e-6)
    if leaf.size >= 500:
        assert np.abs(leaf).max() > 0.97 * bound
        assert abs(leaf.std() - bound / math.sqrt(3)) < 6 * bound / math.sqrt(leaf.size)
        assert abs(leaf.mean()) < 6 * bound / math.sqrt(leaf.size)


def test_the_releases_initialisation_of_conv2():
    (paths,) = drawn(build("conv2", *FEMNIST))
    for layer, fan_in in (("conv0", 25), ("conv1", 25 * 32)):
        for leaf in ("kernel", "bias"):
            assert_uniform(paths[f"{layer}/{leaf}"], 1 / math.sqrt(fan_in))
        assert paths[f"{layer}/bias"].std() > 0
    assert_uniform(paths["dense0/kernel"], math.sqrt(6 / 2048))
    assert_uniform(paths["dense1/kernel"], math.sqrt(6 / 62))
    assert round(math.sqrt(6 / 2048), 3) == 0.054 and round(math.sqrt(6 / 62), 2) == 0.31
    assert not paths["dense0/bias"].any() and not paths["dense1/bias"].any()


@pytest.mark.slow
def test_the_releases_initialisation_of_vgg11():
    (paths,) = drawn(build("vgg11", *CIFAR10, width=0.25))
    fan_in = 3
    for layer, channels in enumerate((16, 32, 64, 64, 128, 128, 128, 128)):
        for leaf in ("kernel", "bias"):
            assert_uniform(paths[f"conv{layer}/{leaf}"], 1 / math.sqrt(9 * fan_in))
        fan_in = channels
    assert_uniform(paths["dense0/kernel"], math.sqrt(6 / 128))
    assert_uniform(paths["dense1/kernel"], math.sqrt(6 / 128))
    assert_uniform(paths["dense2/kernel"], math.sqrt(6 / (3.25 * 10)))
    assert not any(paths[f"dense{k}/bias"].any() for k in range(3))


@pytest.mark.slow
def test_he_and_flax_initialisation_and_that_they_follow_the_key():
    he, again, other = drawn(build("conv2", *FEMNIST, width=0.25, init="he"), seeds=(3, 3, 4))
    assert_uniform(he["conv1/kernel"], math.sqrt(6 / (25 * 8)))
    assert_uniform(he["dense0/kernel"], math.sqrt(6 / (49 * 16)))
    tiny.same(again, he)
    assert all((he[path] != other[path]).any() for path in he if path.endswith("kernel"))
    (flax,) = drawn(build("conv2", *FEMNIST, width=0.25, init="flax"))
    # Flax's own layers have Flax's own defaults.
    theirs = jax.jit(nn.Dense(512).init)(jax.random.key(3, impl="unsafe_rbg"), np.zeros((1, 49 * 16), np.float32))
    theirs = np.asarray(theirs["params"]["kernel"])
    assert flax["dense0/kernel"].std() == pytest.approx(theirs.std(), rel=0.02)
    assert np.abs(flax["dense0/kernel"]).max() == pytest.approx(np.abs(theirs).max(), rel=0.02)
    for paths in (he, flax):
        assert not any(leaf.any() for path, leaf in paths.items() if path.endswith("bias"))


def test_sigmoid_loss_is_the_mean_over_batch_and_classes():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 4, (7, 5)), rng.integers(0, 5, 7)
    logits[0, 0], logits[1, 1] = 90.0, -90.0  # where log(1 + exp) would overflow in float32
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for k, z in enumerate(row):
            p = 1 / (1 + np.exp(-np.float64(z)))
            total -= np.log(p) if k == label else np.log1p(-p) if p < 1 else -z
    got = make_loss("sigmoid")(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    assert got.shape == (7,)
    assert float(got.mean()) == pytest.approx(total / 35, rel=1e-6)


def test_softmax_loss():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 4, (7, 5)), rng.integers(0, 5, 7)
    want = np.log(np.exp(logits).sum(1)) - logits[np.arange(7), labels]
    got = make_loss("softmax")(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("height,width", [slow(4, 6), (5, 7), slow(2, 2), slow(3, 2)])
def test_max_pool_equals_flaxs(height, width):
    rng = np.random.default_rng(height)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    cotangent = rng.normal(size=(2, height // 2, width // 2, 3)).astype(np.float32)

    @jax.jit
    def both(x):
        own, own_vjp = jax.vjp(max_pool2, x)
        want, want_vjp = jax.vjp(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)), x)
        return own, want, own_vjp(cotangent)[0], want_vjp(cotangent)[0]

    own, want, gradient, theirs = both(x)
    np.testing.assert_array_equal(own, want)
    np.testing.assert_array_equal(gradient, theirs)
    # Where the largest is not unique, ours shares the gradient among them: what a pooled pixel passes on is the same.
    _, _, gradient, theirs = (np.asarray(part) for part in both(np.zeros_like(x)))
    rows, columns = height // 2 * 2, width // 2 * 2
    for part in (gradient, theirs):
        inside = part[:, :rows, :columns].reshape(2, rows // 2, 2, columns // 2, 2, 3)
        np.testing.assert_allclose(inside.sum((2, 4)), cotangent, rtol=1e-6)
        assert not part[:, rows:].any() and not part[:, :, columns:].any()


@pytest.mark.parametrize("name,shape", [("vgg11", (28, 28, 1)), ("conv2", (3, 28, 1))])
def test_images_too_small_for_the_poolings_are_refused(name, shape):
    with pytest.raises(UserError, match=rf"config.model.name: '{name}' .*{shape[0]}.*too small") as caught:
        build(name, shape, 10)
    assert "\n" not in str(caught.value)


def test_more_outputs_than_labels_but_not_fewer():
    cfg = ConfigDict(dict(name="conv2", classes=62, width=0.05, init="he"))
    model = build_model(cfg, (28, 28, 1), 10)
    assert model.classes == 62 and model.shapes()["dense1"]["kernel"].shape[1] == 62
    with pytest.raises(UserError, match="config.model.classes: 62; allowed: at least the data's 100 classes"):
        build_model(cfg, (28, 28, 1), 100)


def test_save_and_load_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    shapes = build("conv2", *FEMNIST, width=0.05).shapes()
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    path = tmp_path / "model.npz"
    save_model(str(path), params)
    loaded = load_model(str(path))
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    tiny.same(loaded, params)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "model.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="model.npz: ") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_a_bare_array_is_no_model(tmp_path):
    path = tmp_path / "model.npz"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="not a saved model"):
        load_model(str(path))


def test_a_pickled_array_is_not_loaded(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, weights=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="not a saved model"):
        load_model(str(path))
