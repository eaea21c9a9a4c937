"""Votes of the clients' masks, the server's masks from them, and the masks' similarity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.masks import pack
from prfl_jax.submodel.server_mask import least_votes
from prfl_jax.submodel.votes import by_threshold, count_votes, layerwise, similarity

SHAPES = {"a": (5, 3), "b": (2, 3, 2, 4), "c": (4, 2)}
LAYOUT = Layout.of({name: {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)} for name, shape in SHAPES.items()})
CLIENTS = 5


def draw(clients, density=0.7, seed=0):
    """Masks of some clients `[N, ...]` a leaf, and their bits."""
    rng = np.random.default_rng(seed)
    masks = tuple(rng.random((clients, *shape)) < density for shape in SHAPES.values())
    return masks, tuple(np.asarray(jax.vmap(pack)(jnp.asarray(mask.reshape(clients, -1)))) for mask in masks)


count = jax.jit(lambda bits: count_votes(LAYOUT, bits))


@pytest.mark.parametrize("clients", [CLIENTS, 300])  # 300: more than a byte counts
def test_votes_are_the_sum_of_the_masks(clients):
    masks, bits = draw(clients, 0.97)
    tiny.same(count(bits), tuple(mask.sum(0, dtype=np.int32) for mask in masks))


def loops(masks, clients, least, ends):
    """Algorithm 1, lines 5-14: a sum for the ends, a product client by client for the others."""
    out = []
    for i, leaf in enumerate(masks):
        if i in ends:
            kept = leaf.astype(int).sum(0) >= least
        else:
            kept = leaf[0]
            for n in range(1, clients):
                kept = kept & leaf[n]
        out.append(kept)
    return tuple(out)


def test_layerwise_equals_the_loop():
    for seed in range(3):
        masks, bits = draw(CLIENTS, 0.85, seed)
        votes = count(bits)
        want = loops(masks, CLIENTS, 4, (0, 2))
        assert all(leaf.any() for leaf in want)
        tiny.same(layerwise(votes, CLIENTS, 4, (0, 2)), want)
        # the literal "> 4 of 5" is the product of all masks: the branches coincide
        tiny.same(layerwise(votes, CLIENTS, 5, (0, 2)), by_threshold(votes, CLIENTS))


def test_threshold_equals_the_sum():
    masks, bits = draw(CLIENTS)
    votes = count(bits)
    vote = jax.jit(by_threshold)  # the least number may be traced
    for least in (1, 3, 4):
        tiny.same(vote(votes, np.int32(least)), tuple(leaf.astype(int).sum(0) >= least for leaf in masks))
    # Eq. 5 as printed: sum > thres_mask
    literal = least_votes(0.6, CLIENTS, above=True)
    tiny.same(vote(votes, np.int32(literal)), tuple(leaf.astype(int).sum(0) > 3 for leaf in masks))


def test_a_layer_is_never_empty():
    votes = (np.array([[1, 2, 0], [2, 1, 1]], np.int32), np.array([4, 3], np.int32), np.array([0, 3], np.int32))
    most = np.array([[False, True, False], [True, False, False]])
    want = (most, np.array([True, False]), np.array([False, True]))
    tiny.same(by_threshold(votes, 4), want)
    tiny.same(layerwise(votes, CLIENTS, 4, (0, 2)), want)


@pytest.mark.parametrize(
    ("share", "clients", "least", "more"),
    [(0.8, 5, 4, 5), (0.6, 5, 3, 4), (0.8, 193, 155, 155), (0.55, 100, 55, 56), (0.07, 100, 7, 8), (1.0, 10, 10, 11)],
)
def test_least_votes(share, clients, least, more):
    assert least_votes(share, clients) == least
    assert least_votes(share, clients, above=True) == more


def test_similarity_is_intersection_over_union(monkeypatch):
    monkeypatch.setattr("prfl_jax.submodel.votes._CHUNK", 2)  # several chunks a leaf
    masks, bits = draw(CLIENTS, 0.3)
    got = similarity(bits)
    flat = np.concatenate([leaf.reshape(CLIENTS, -1) for leaf in masks], axis=1)
    want = [[(a & b).sum() / (a | b).sum() for b in flat] for a in flat]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert (np.diag(got) == 1).all() and 0 < got.min() < 0.5
