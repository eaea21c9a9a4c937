"""Channel groups found in traced programs: what is left without some channels is the network cut out."""

import contextlib
from unittest import mock

import channel_nets as nets
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cut_channels import cut, some_channels
from flop_nets import MODULES, NNX, SHAPE, flat, linen
from marked import slow, slow_except
from network_cases import network

from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models import make_loss
from prfl_jax.models.build import flat_paths, wrap_linen, wrap_module
from prfl_jax.models.channel_search import check_channels, find_channels
from prfl_jax.models.checked_module import draw
from prfl_jax.models.variables import STATE
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import apply_masks
from prfl_jax.system.errors import UserError

STEPS, BATCH, LR = 3, 4, 0.1
# name -> a width and the half of it, of which every group has half the channels
HALVES = {
    "cnn": (0.25, 0.125), "alexnet": (1 / 32, 1 / 64), "vgg19": (1 / 16, 1 / 32), "resnet18": (1 / 16, 1 / 32),
    "resnet50": (1 / 32, 1 / 64), "word_lstm": (0.04, 0.02), "gru": (0.0625, 0.03125), "cnn1d": (1 / 16, 1 / 32),
    "text_lstm": (0.4, 0.2),
}  # fmt: skip


def in_float64(params):
    """The params in float64, in which deep networks differ by no rounding; a state is float32."""
    named = flat_paths(params).items()
    leaves = [np.asarray(w, np.float32 if path.startswith(f"{STATE}/") else np.float64) for path, w in named]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def trained(model, params, masks, batches, layout):
    """Outputs for the first batch, and a client's round of SGD without dropout: (params, mean loss)."""
    run = make_local_round(model, make_loss("softmax"), layout, LocalSettings(STEPS, BATCH, momentum=0.5))
    with mock.patch.object(nn.Dropout, "__call__", lambda module, x, *args, **kwargs: x), jax.enable_x64(True):
        before = jax.jit(lambda p: model.apply(p, batches[0][0], False, None))(in_float64(params))
        round_of = jax.jit(lambda p, m: run(p, m, *batches, jnp.float32(LR), jax.random.key(0)))
        result = round_of(in_float64(params), masks)
        return np.asarray(before), jax.tree.map(np.asarray, result.params), float(result.loss)


@pytest.mark.parametrize("name", slow_except(HALVES, "cnn"))
def test_masks_train_the_network_cut_out(name):
    """Outputs, and three steps with momentum and the running statistics, of half of the channels, drawn at random."""
    width, half = HALVES[name]
    full, small = network(name, width), network(name, half)
    groups = find_channels(full)
    keep = some_channels(groups, seed=3, share=0.5)
    layout, wide = Layout.of(full.shapes(), channels=True, state=True), groups.masks(keep)
    masks = tuple(np.broadcast_to(wide[path], shape) for path, shape in zip(layout.paths, layout.shapes, strict=True))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda w: w + 0.05 * np.abs(rng.normal(size=w.shape)), full.init(jax.random.key(2)))
    params = apply_masks(layout, params, masks)
    alone = cut(groups, keep, params)
    assert jax.tree.map(jnp.shape, alone) == jax.tree.map(lambda leaf: leaf.shape, small.shapes())
    x = np.stack([draw(full.sample, BATCH, rng, normal=True) for _ in range(STEPS)])
    targets = (full.sample.shape[0],) if full.sequence else ()
    y = rng.integers(0, full.classes, (STEPS, BATCH, *targets)).astype(np.int32)
    outputs, whole, loss = trained(full, params, masks, (x, y), layout)
    wanted, want, loss_alone = trained(small, alone, (), (x, y), Layout.of(small.shapes(), prune=False))
    tiny.close(outputs, wanted, 1e-5)
    assert loss == pytest.approx(loss_alone, rel=1e-5)
    tiny.close(cut(groups, keep, whole), want, 1e-5)
    for leaf, mask in zip(jax.tree.leaves(whole), masks, strict=True):
        assert not leaf[~mask].any()


@pytest.mark.parametrize(
    ("name", "blocks", "last"), [("resnet18", (2, 2, 2, 2), "conv1"), slow("resnet50", (3, 4, 6, 3), "conv2")]
)
def test_a_residual_sum_has_one_group(name, blocks, last):
    """All layers of a stage that are added are ranked together; each block's inner layers by themselves."""
    found = find_channels(network(name, 1 / 32))
    ties = [[path.removesuffix("/kernel") for path, _ in group.outputs] for group in found.groups]
    for stage, count in enumerate(blocks):
        added = [f"stage{stage}_block{block}/{last}" for block in range(count)]
        # the first stage of ResNet-18 has the first layer's channels, the other stages a projected shortcut's
        first = ["conv0"] if (name, stage) == ("resnet18", 0) else [f"stage{stage}_block0/shortcut"]
        assert sorted([*first, *added]) in [sorted(tie) for tie in ties]
    inner = sum(blocks) * (1 if name == "resnet18" else 2)
    assert len(ties) == inner + 4 + (name == "resnet50") and sum(len(tie) == 1 for tie in ties) == len(ties) - 4
    for path, (channels, *_) in found.axes.items():
        if path.startswith(f"{STATE}/"):  # running statistics go with the gain
            layer = path.removeprefix(f"{STATE}/batch_stats/").rpartition("/")[0]
            np.testing.assert_array_equal(channels, found.axes[f"{layer}/scale"][0])
            assert channels is not None


@pytest.mark.parametrize("name", slow_except(["conv2", "cnn", "alexnet", "resnet18"], "conv2"))
def test_convolutions_as_matrix_products_have_the_same_groups(name):
    model = network(name, 0.25)
    found = find_channels(model)
    with mock.patch("prfl_jax.models.channel_search.plain_convolutions", contextlib.nullcontext):
        other = find_channels(model)
    assert found.groups == other.groups
    for path, axes in found.axes.items():
        for one, two in zip(axes, other.axes[path], strict=True):
            np.testing.assert_array_equal(one, two)


def test_axes_of_a_recurrent_network():
    model = network("char_lstm", 0.03)
    groups = find_channels(model)
    assert [(g.name, g.size, g.recurrent) for g in groups.groups] == [
        ("embedding", 8, False), ("lstm0", 8, True), ("lstm1", 8, True),
    ]  # fmt: skip
    for layer, inputs in (("lstm0", 0), ("lstm1", 8)):
        here, kernel = groups.axes[f"{layer}/bias"][0], groups.axes[f"{layer}/kernel"]
        np.testing.assert_array_equal(here, np.tile(np.arange(8), 4) + inputs + 8)  # four gates
        np.testing.assert_array_equal(kernel[0], np.arange(8) + inputs)
        np.testing.assert_array_equal(kernel[1], here)
        np.testing.assert_array_equal(groups.axes[f"{layer}/recurrent_kernel"][0], np.arange(8) + inputs + 8)
    assert groups.axes["output/kernel"][1] is None and groups.axes["output/bias"] == (None,)
    assert groups.axes["embedding/embedding"][0] is None


def test_a_flattened_image_has_each_channel_at_all_its_places():
    groups = find_channels(network("cnn", 0.1))
    (conv1,) = (group for group in groups.groups if group.name == "conv1")
    np.testing.assert_array_equal(groups.axes["dense0/kernel"][0], np.tile(np.arange(3), 49) + conv1.first)


# --- modules of a user's own ---


OWN = {
    "gated": (nets.gated, [("Dense_0", 6)]),
    "squeezed": (nets.squeezed, [("Conv_0", 6), ("Dense_1", 4)]),
    "separable": (nets.separable, [("Conv_0", 6)]),
    "grouped": (nets.grouped, [("Conv_0", 4), ("Conv_1", 6)]),
    "shortcut": (nets.shortcut, [("narrow", 4), ("wide", 2)]),
    "dense net": (nets.dense_net, [("a", 4), ("b", 6)]),
    "shuffled": (nets.shuffled, [("Conv_0", 6)]),
    "added to images": (nets.added_to_images, [("one", 4)]),
    "mixing": (nets.mixing, [("x", 6)]),
    "by hand": (nets.by_hand, [("in", 6)]),
    "adapted": (nets.adapted, [("hidden", 6), ("w", 5)]),
    "LSTM": (MODULES["LSTM"], [("OptimizedLSTMCell_0/if", 96)]),
    "GRU": (MODULES["GRU"], [("GRUCell_0/ir", 96)]),
    "low rank": (MODULES["low rank"], [("b", 64)]),
    "3-D": (MODULES["3-D"], [("Conv_0", 16)]),
    "transposed": (MODULES["transposed"], [("ConvTranspose_0", 16)]),
    "circular": (MODULES["circular"], [("Conv_0", 32)]),
    "ensemble": (MODULES["ensemble"], [("VmapConv_0", 32)]),
    "remat": (MODULES["remat"], [("CheckpointDense_0", 256)]),
    "nnx convolutions": (NNX["nnx convolutions"], [("one", 32), ("two", 16)]),
    "nnx GRU": (NNX["nnx GRU"], [("rnn/cell/dense_i", 96)]),
}


@pytest.mark.parametrize("name", slow_except(OWN, "gated", "grouped"))
def test_nothing_reads_removed_channels_of_own_modules(name):
    """The groups, and by numbers: what made the removed channels does not matter, in evaluation and in training."""
    module, want = OWN[name]
    model = wrap_module(name, module, SHAPE, 10) if name in NNX else wrap_linen(name, linen(module), SHAPE, 10)
    groups = find_channels(model)
    assert [(group.name, group.size) for group in groups.groups] == want
    check_channels(model, groups)
    for group in groups.groups:
        assert group.recurrent == (name in ("LSTM", "GRU", "nnx GRU", "by hand"))


@pytest.mark.parametrize(
    ("make", "want"),
    [(nets.tied, [("Embed_0", 8)]), slow(nets.attending, [("x", 8), ("q", 16), ("v", 8)])],
)
def test_own_modules_equal_the_network_cut_out(make, want):
    full, small = make(8), make(4)
    groups = find_channels(full)
    assert [(group.name, group.size) for group in groups.groups] == want
    keep = some_channels(groups, seed=0, share=0.5)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: np.float32(w + 0.3 * rng.normal(size=w.shape)), full.init(jax.random.key(0)))
    masks = groups.masks(keep)
    masked = [np.where(masks[path], leaf, 0) for path, leaf in flat_paths(params).items()]
    x = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    whole = full.apply(jax.tree.unflatten(jax.tree.structure(params), masked), x, False, None)
    tiny.close(whole, small.apply(cut(groups, keep, params), x, False, None), 1e-5)


# --- what is refused ---


REFUSED = {
    "layer norm": (nets.normed, "reduce_sum of .*norm reads those of hidden/"),
    "mean": (nets.by_mean, "reduce_sum of .* reads those of hidden/"),
    "largest": (lambda module, x: nn.Dense(10)(nn.Dense(6)(flat(x)).max(-1, keepdims=True)), "reduce_max .* Dense_1/"),
    "sorted": (lambda module, x: nn.Dense(10)(jnp.sort(nn.Dense(6)(flat(x)))), "sort .* Dense_1/"),
    "decision": (nets.decided, "gt .* reads those of hidden/"),
    "one for all": (nets.scaled_by_one, "mul .* reads those of .*bias"),
    "index": (nets.looked_up, "gather .* reads those of hidden/"),
    "kernel of a sum": (nets.beside_one, "dot_general .* reads those of hidden/"),
    "keys and queries": (nets.positive, "dot_general .* reads those of [kq]/"),
    "one layer": (lambda module, x: nn.Dense(10)(flat(x)), "has no channel groups: "),
    "one channel": (lambda module, x: nn.Dense(10)(nn.relu(nn.Dense(1)(flat(x)))), "has no channel groups: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_channels_is_refused(name):
    module, text = REFUSED[name]
    with pytest.raises(UserError, match=text) as error:
        find_channels(wrap_linen("own", linen(module), SHAPE, 10))
    assert "\n" not in str(error.value) and "'own'" in str(error.value)


@pytest.mark.parametrize("name,changes", [("transformer_lm", {}), slow("resnet18", {"norm": "group"})])
def test_norms_over_channels_are_refused(name, changes):
    with pytest.raises(UserError, match="reduce_sum of .*norm"):
        find_channels(network(name, **changes))


def test_a_program_that_cannot_be_followed_is_refused():
    model = wrap_linen("own", linen(nets.gated), SHAPE, 10)
    text = r"whose channels cannot be followed \(KeyError: 'x'\); allowed"
    with (
        mock.patch("prfl_jax.models.channel_trace.take", side_effect=KeyError("x")),
        pytest.raises(UserError, match=text) as error,
    ):
        find_channels(model)
    assert "\n" not in str(error.value)


class Uneven(nn.Module):
    """A residual sum of 8 and 4 channels."""

    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(nn.Dense(8)(flat(x)) + nn.Dense(4)(flat(x)))


def test_a_residual_sum_of_different_widths_is_refused():
    with pytest.raises(UserError, match="'uneven' does not take images .*incompatible shapes") as error:
        wrap_module("uneven", Uneven, SHAPE, 10)
    assert "\n" not in str(error.value)


# --- declared by the module ---

HIDDEN = {
    "Dense_0/kernel": (None, "hidden"), "Dense_0/bias": ("hidden",), "Dense_1/kernel": ("hidden", None),
}  # fmt: skip


class Declared(nn.Module):
    """Its first layer's mean of squares is read too, which a trace refuses."""

    classes: int

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(6)(flat(x)))
        return nn.Dense(self.classes)(h) + self.after(h)

    def after(self, h):
        w = self.param("w", nn.initializers.ones, (6,))
        return (h * w).sum(-1, keepdims=True)


def declaring(groups, module=Declared):
    return wrap_module("own", type("Own", (module,), {"channel_groups": groups, "__annotations__": {}}), SHAPE, 10)


def test_a_module_may_declare_its_groups():
    with pytest.raises(UserError, match="reduce_sum .* Dense_0"):
        find_channels(declaring(None))
    groups = find_channels(declaring({**HIDDEN, "w": ("hidden",)}))
    (group,) = groups.groups
    assert (group.name, group.size, group.outputs) == ("hidden", 6, (("Dense_0/kernel", 1),))
    for axes in (groups.axes["Dense_0/kernel"][1], groups.axes["Dense_1/kernel"][0], groups.axes["w"][0]):
        np.testing.assert_array_equal(axes, np.arange(6))


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ({**HIDDEN, "w": (None,)}, "reads channels in evaluation that its channel_groups remove"),
        ({"dense/kernel": (None, "hidden")}, "'dense/kernel' is no leaf; allowed: .*Dense_0/kernel"),
        ({"Dense_0/kernel": ("hidden",)}, "one name or None for each of 2 axes"),
        ({"Dense_0/kernel": "hidden"}, "one name or None for each of 2 axes"),
        ({"Dense_0/bias": ("hidden",), "Dense_1/bias": ("hidden",)}, r"lengths \[6, 10\]; allowed: .* multiples"),
        ([1], "a dict from the path"),
        ({"Dense_0/bias": ("hidden",), "w": ("hidden",)}, "'hidden' is made by no kernel"),
        ({}, "has no channel groups"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(groups, text):
    with pytest.raises(UserError, match=text) as error:
        find_channels(declaring(groups))
    assert "\n" not in str(error.value) and "'own'" in str(error.value)
