"""Local pruning (edge pruning, Algorithm 2) against the loop of the paper, weight by weight in float64."""

import heapq
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from edge_oracle import to_density

from prfl_jax.submodel.local_pruning import count_removed, prune_locally, prune_to_density

SHAPES = ((1,), (7,), (4, 10), (3, 3, 4, 9))
CLIENTS = 3
prune = jax.jit(prune_locally)


def loop(weights, mask, squares, share):
    """Algorithm 2 for one layer, protected weights stay: candidates come back from the top of a heap."""
    shape, mask = mask.shape, mask.reshape(-1)
    size = np.abs(weights.reshape(-1).astype(float))
    kept = sorted(size[mask])
    threshold = kept[math.floor(Fraction(str(share)) * len(kept))] if kept else math.inf
    new = [bool(m and w >= threshold) for m, w in zip(mask, size, strict=True)]
    heap = [(-float(g), i) for i, g in enumerate(squares.reshape(-1)) if not new[i]]
    heapq.heapify(heap)
    total, members = -math.fsum(g for g, _ in heap), len(heap)
    while heap:
        square, i = -heap[0][0], heapq.heappop(heap)[1]
        if not square > total / members:
            break
        new[i] = True
        total, members = total + square, members + 1
    return np.array(new).reshape(shape)


def millionths(share):
    return np.int32(round(1e6 * share))


def draw(rng, density, squares, whole=False):
    """One client: weights, masks and squared gradients; `whole`: weights of few values, so that many are equal."""
    masks = [rng.random(shape) < density for shape in SHAPES]
    for mask in masks:
        mask.flat[rng.integers(mask.size)] = True  # no layer is empty
    weights = [rng.integers(-4, 5, m.shape) if whole else rng.normal(size=m.shape) for m in masks]
    drawn = {
        "normal": lambda shape: rng.normal(size=shape) ** 2,
        "heavy tail": lambda shape: np.exp(4 * rng.normal(size=shape)),
        "whole": lambda shape: rng.integers(0, 6, shape),
        "rare": lambda shape: rng.random(shape) < 0.1,
        "equal": lambda shape: np.full(shape, 0.1),
        "zero": np.zeros,
    }[squares]
    weights = tuple((w * m).astype(np.float32) for w, m in zip(weights, masks, strict=True))
    return weights, tuple(masks), tuple(drawn(shape).astype(np.float32) for shape in SHAPES)


def check(client, share):
    """Equal to the loop in every layer; how many weights were removed and how many came back."""
    new = prune(*client, millionths(share))
    removed = back = 0
    for weights, old, squares, mask in zip(*client, new, strict=True):
        np.testing.assert_array_equal(mask, loop(weights, old, squares, share))
        assert mask.any()
        removed, back = removed + (old & ~mask).sum(), back + (~old & mask).sum()
    return removed, back


@pytest.mark.parametrize("squares", ["normal", "heavy tail", "whole", "rare"])
def test_masks_equal_the_loop(squares):
    rng, seen = np.random.default_rng(0), np.zeros(2, int)
    for density in (0.05, 0.4, 0.9):
        for share in (0.0, 0.3, 0.55, 0.999):
            for whole in (False, True):
                seen += check(draw(rng, density, squares, whole), share)
    assert (seen > 50).all()


@pytest.mark.parametrize("squares", ["normal", "whole"])
def test_nothing_pruned_before(squares):
    removed, back = check(draw(np.random.default_rng(1), 1.0, squares), 0.3)
    assert removed > 50 and back == 0


@pytest.mark.parametrize("squares", ["equal", "zero"])
def test_no_gradient_stands_out(squares):
    removed, back = check(draw(np.random.default_rng(2), 0.5, squares), 0.3)
    assert removed == sum(math.floor(0.3 * m.sum()) for m in draw(np.random.default_rng(2), 0.5, squares)[1])
    assert back == 0


def test_an_empty_layer_gets_what_comes_back():
    weights, masks, squares = draw(np.random.default_rng(3), 0.5, "normal")
    masks = tuple(np.zeros_like(mask) for mask in masks)
    new = prune(weights, masks, squares, millionths(0.3))
    for leaf in zip(weights, masks, squares, new, strict=True):
        np.testing.assert_array_equal(leaf[3], loop(*leaf[:3], 0.3))
    assert np.asarray(new[-1]).any()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_nothing_comes_back_by_a_square_that_is_not_finite(bad):
    weights, masks, squares = client = draw(np.random.default_rng(4), 0.5, "normal")
    assert check(client, 0.3)[1] > 0
    none = prune(weights, masks, tuple(map(np.zeros_like, squares)), millionths(0.3))
    for leaf, new in zip(squares, none, strict=True):
        leaf.flat[np.argmin(np.asarray(new))] = bad  # a candidate, where there is one
    tiny.same(prune(weights, masks, squares, millionths(0.3)), none)


def test_vmap_is_map_is_one_by_one():
    rng = np.random.default_rng(5)
    clients = [tuple(part[-2:] for part in draw(rng, 0.5, "normal")) for _ in range(CLIENTS)]
    shares = np.array([100_000, 300_000, 700_000], np.int32)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *clients)
    want = [prune(*client, share) for client, share in zip(clients, shares, strict=True)]
    assert len({int(masks[-1].sum()) for masks in want}) == CLIENTS
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *want)
    together = jax.jit(jax.vmap(prune_locally))(*stacked, shares)
    in_turn = jax.jit(lambda *every: jax.lax.map(lambda one: prune_locally(*one), every))(*stacked, shares)
    tiny.same(together, want)
    tiny.same(in_turn, want)


def test_it_is_not_magnitude_pruning():
    """As many weights by magnitude alone are others: some that were pruned are back for their gradient."""
    weights, masks, squares = draw(np.random.default_rng(6), 0.6, "normal")
    new = np.asarray(prune(weights, masks, squares, millionths(0.3))[-1])
    largest = np.zeros(new.size, bool)
    largest[np.argsort(-np.abs(weights[-1].reshape(-1)))[: new.sum()]] = True
    assert (new & ~masks[-1]).sum() > 5
    assert (new.reshape(-1) & ~largest).sum() > 5


def test_large_sums_do_not_move_the_threshold():
    """A million squares that differ by 1e-3 of their size, sorted: float32 added one by one would be off by more."""
    n = 1 << 20
    squares = np.sort(0.1 + 1e-4 * np.random.default_rng(7).random(n)).astype(np.float32)
    new = prune((np.zeros(n, np.float32),), (np.zeros(n, bool),), (squares,), millionths(0.3))[0]
    falling = squares[::-1].astype(float)
    before = falling.sum() + np.cumsum(falling) - falling
    back = np.argmin(falling > before / (n + np.arange(n)))  # the first failure
    assert abs(int(np.sum(new)) - back) < 200  # about 80 of them share a value
    added_up = np.cumsum(squares)[-1] / n  # in float32, one by one
    assert abs(int((squares > added_up).sum()) - int((falling > falling.mean()).sum())) > 1000


def test_the_number_of_removed_weights_is_exact():
    rng = np.random.default_rng(8)
    shares = np.array([0, 300_000, 700_000, 1, 333_333, 999_999, *rng.integers(0, 10**6, 20)], np.int32)
    kept = np.array([0, 1, 2, 3, 10, 2**23 - 1, 6_422_528, 2**30 - 1, *rng.integers(1, 10**7, 20)], np.int32)
    counted = jax.jit(jax.vmap(jax.vmap(count_removed, (None, 0)), (0, None)))(shares, kept)
    for row, share in zip(np.asarray(counted), shares.tolist(), strict=True):
        assert row.tolist() == [share * k // 10**6 for k in kept.tolist()]
        assert jnp.all(row[1:] < kept[1:])


@pytest.mark.parametrize("squares", ["normal", "whole"])
@pytest.mark.parametrize("percent", [1, 30, 70, 100])
def test_masks_hold_a_density(squares, percent):
    rng = np.random.default_rng(9)
    for density in (0.05, 0.5, 1.0):
        client = draw(rng, density, squares, whole=squares == "whole")
        new = jax.jit(prune_to_density)(*client, millionths(0.3), np.int32(percent))
        for weights, old, square, mask in zip(*client, new, strict=True):
            want = to_density(weights, old, square, 0.3, percent).reshape(mask.shape)
            np.testing.assert_array_equal(mask, want)
            assert mask.sum() == max((percent * mask.size + 50) // 100, 1)
