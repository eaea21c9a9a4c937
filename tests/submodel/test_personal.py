"""Edge pruning's rule: what it is given of a network, and the keys that it cannot be had with."""

import jax
import numpy as np
import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.submodel.server_mask import MaskInputs, PruningSettings
from prfl_jax.system.errors import UserError

REFUSED = [
    (dict(transport__name="delta"), "transport.name", "not nested"),
    (dict(transport__bytes="density"), "transport.bytes", "counted"),
    (dict(transport__upload="topk"), "transport.upload", "whole"),
    (
        dict(window__close="k_arrivals", window__dispatch="on_arrival", pruning__initial_rounds=0),
        "window.dispatch",
        "window_end",
    ),
    (dict(engine__train="arrival"), "engine.train", "auto or pending"),
    (dict(local__name="sgd"), "local.name", "personal"),
    (dict(model__state="local"), "model.state", "average or static"),
    (dict(aggregation__name="median", aggregation__byzantine=1), "aggregation.name", "a mean of models"),
    (dict(aggregation__clip_norm=1.0), "aggregation.clip_norm", "None"),
    (dict(attack__name="noise", attack__number=1), "attack.name", "none"),
    (dict(pruning__votes=1.0, pruning__votes_above=True), "pruning.votes", "5 votes of clients.number=4"),
    (
        dict(window__close="fixed"),
        "pruning.initial_rounds",
        "0 with submodel.name='layerwise' and window.close='fixed'",
    ),
    (dict(density__name="time_balance", transport__name="unicast"), "density.name", "full with submodel.name"),
    (dict(pruning__share=1.0), "pruning.share", "in [0, 1)"),
]


@pytest.mark.parametrize(("keys", "named", "why"), REFUSED, ids=[named for _, named, _ in REFUSED])
def test_what_does_not_go_with_own_masks_is_refused(keys, named, why):
    with pytest.raises(UserError) as caught:
        validate(tiny.config("layerwise", **keys))
    text = str(caught.value)
    assert text.startswith(f"config.{named}=") and why in text and "\n" not in text


def test_own_masks_are_refused_in_other_methods():
    with pytest.raises(UserError, match="submodel.name='layerwise' or 'threshold' or 'own_shares' or 'own_sizes'"):
        validate(tiny.config("fedavg", local__name="personal"))


def test_the_ends_of_a_network_are_found_in_its_forward_pass():
    """ResNet-18's leaves are not in the order of its layers: `output` comes before the blocks."""
    simulation = tiny.simulation("layerwise", data__name="mnist_embedded", model__name="resnet18", model__width=0.05)
    method = simulation.method
    paths = [method.layout.paths[i] for i in method.layout.prunable]
    rule = method.submodels.server_mask
    # what two of four clients hold is enough at the ends alone
    shapes = [method.layout.shapes[i] for i in method.layout.prunable]
    votes = tuple(jax.numpy.full(shape, 2).at[(0,) * len(shape)].set(4) for shape in shapes)
    masks = rule.initial(MaskInputs((), (), votes), PruningSettings(clients=4, initial_votes=0.5))
    whole = [path for path, mask in zip(paths, masks, strict=True) if np.asarray(mask).all()]
    assert whole == ["conv0/kernel", "output/kernel"]
    assert all(np.asarray(mask).sum() == 1 for path, mask in zip(paths, masks, strict=True) if path not in whole)
