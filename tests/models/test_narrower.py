"""Networks with a share of the channels of another one."""

import math

import narrow_nets
import pytest
from marked import slow_except
from network_cases import CASES, network

from prfl_jax.models.build import wrap_module
from prfl_jax.models.channel_search import find_channels
from prfl_jax.models.narrower import narrower
from prfl_jax.system.errors import UserError

WITH_CHANNELS = [name for name in CASES if name != "transformer_lm"]  # whose layer norms mix them


@pytest.mark.parametrize("name", slow_except(WITH_CHANNELS, "conv2", "cnn", "char_lstm"))
def test_built_in_networks_keep_a_share_rounded_up(name):
    width = 0.37
    whole, small = (find_channels(m) for m in (network(name, width), narrower(network(name, width), 0.3)))
    assert [group.name for group in small.groups] == [group.name for group in whole.groups]
    for group, other in zip(whole.groups, small.groups, strict=True):
        # at least the share; a bottleneck's outputs are four times its rounded channels, the embedding keeps its 8
        if other.size == group.size == 8:
            assert name == "char_lstm" and group.name == "embedding"
            continue
        assert math.ceil(0.3 * group.size) <= other.size <= math.ceil(0.3 * group.size) + 3


@pytest.mark.parametrize(("module", "sizes"), [(narrow_nets.ByWidth, [8, 6]), (narrow_nets.ByShare, [5])])
def test_a_users_module_says_how_it_is_built_narrower(module, sizes):
    model = narrower(wrap_module("m", module, (4, 4, 1), 3), 0.5)
    assert [group.size for group in find_channels(model).groups] == sizes
    assert model.has_state == (module is narrow_nets.ByShare)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (narrow_nets.OtherLayers, "has other params with 0.5 of its channels"),
        (narrow_nets.Broken, "cannot be built with 0.5 of its channels: no;"),
    ],
)
def test_what_gives_no_narrower_network_is_refused(module, words):
    with pytest.raises(UserError, match=words) as error:
        narrower(wrap_module("m", module, (4, 4, 1), 3), 0.5)
    assert "\n" not in str(error.value)
