"""Channel groups found in traced programs: what is left without some channels is the network cut out."""

from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cut_channels import cut, some_channels
from flax import nnx
from flop_nets import MODULES, NNX, SHAPE, flat, linen
from marked import every_fifth, slow, slow_except
from network_cases import network

from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models import make_loss
from prfl_jax.models.build import flat_paths, wrap_linen, wrap_module
from prfl_jax.models.channel_search import check_channels, find_channels
from prfl_jax.models.checked_module import draw
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


def trained(model, params, masks, batches, layout):
    """A client's round of SGD without dropout: (params, mean loss)."""
    run = make_local_round(model, make_loss("softmax"), layout, LocalSettings(STEPS, BATCH, momentum=0.5))
    with mock.patch.object(nn.Dropout, "__call__", lambda module, x, *args, **kwargs: x):
        result = jax.jit(lambda p, m: run(p, m, *batches, jnp.float32(LR), jax.random.key(0)))(params, masks)
    return result.params, float(result.loss)


@pytest.mark.parametrize("name", slow_except(HALVES, "cnn", "word_lstm"))
def test_masks_train_the_network_cut_out(name):
    """Outputs, and three steps with momentum and the running statistics, of half of the channels, drawn at random."""
    width, half = HALVES[name]
    full, small = network(name, width), network(name, half)
    groups = find_channels(full)
    keep = some_channels(groups, seed=3, share=0.5)
    masks = groups.masks(keep)
    layout = Layout.of(full.shapes(), channels=True, state=True)
    masks = tuple(jnp.asarray(np.broadcast_to(masks[path], n)) for path, n in zip(layout.paths, layout.shapes, strict=True))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda w: w + 0.05 * np.abs(rng.normal(size=w.shape)), full.init(jax.random.key(2)))
    params = apply_masks(layout, jax.tree.map(jnp.float32, params), masks)
    alone = cut(groups, keep, params)
    assert jax.tree.map(jnp.shape, alone) == jax.tree.map(lambda leaf: leaf.shape, small.shapes())
    x = draw(full.sample, BATCH, rng, normal=True)
    outputs = [jax.jit(lambda p, m=m: m.apply(p, x, False, None))(p) for m, p in ((full, params), (small, alone))]
    tiny.close(outputs[0], outputs[1], 1e-5)

    x = np.stack([draw(full.sample, BATCH, rng, normal=True) for _ in range(STEPS)])
    y = rng.integers(0, full.classes, (STEPS, *outputs[0].shape[:-1])).astype(np.int32)
    whole, loss = trained(full, params, masks, (x, y), layout)
    want, loss_alone = trained(small, alone, (), (x, y), Layout.of(small.shapes(), prune=False))
    assert loss == pytest.approx(loss_alone, rel=1e-5)
    tiny.close(cut(groups, keep, whole), want, 1e-5)
    for leaf, mask in zip(jax.tree.leaves(whole), masks, strict=True):
        assert not np.asarray(leaf)[~np.asarray(mask)].any()


def test_a_residual_sum_has_one_group():
    groups = find_channels(network("resnet50", 1 / 32)).groups
    ties = [[path.removesuffix("/kernel") for path, _ in group.outputs] for group in groups if len(group.outputs) > 1]
    for stage, blocks in enumerate((3, 4, 6, 3)):
        first = [f"stage{stage}_block0/conv2", f"stage{stage}_block0/shortcut"]
        assert ties[stage] == [*first, *(f"stage{stage}_block{block}/conv2" for block in range(1, blocks))]
    assert len(ties) == 4 and len(groups) == 1 + 2 * 16 + 4  # each block's own two, and the stages'


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

# names of the groups that are found, in order; None: the module has none that can be removed
FOUND = {
    "linen conv": ["Conv_0"], "strided": ["Conv_0"], "dilated": ["Conv_0"], "grouped": [], "depthwise": [],
    "1-D": ["Conv_0"], "3-D": ["Conv_0"], "circular": ["Conv_0"], "transposed": ["ConvTranspose_0"],
    "LSTM": [], "another LSTM": [], "GRU": [],
}  # fmt: skip
