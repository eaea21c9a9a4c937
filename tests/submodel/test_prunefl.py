"""PruneFL's step against its greedy loop in float64; when its initial stage begins, prunes and ends, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prfl_jax.submodel import prunefl
from prfl_jax.submodel.prunefl import InitialPruning, prunefl_removal

SHAPES = ((3, 2, 4), (11, 5), (1,))
EQUAL_S = (1.0, 1.0, 1.0)
prunefl_step = jax.jit(prunefl.prunefl_step)


def drawn(rng, draw):
    return tuple(np.asarray(draw(rng, shape), np.float32) for shape in SHAPES)


def constant(value):
    return tuple(np.full(shape, value, np.float32) for shape in SHAPES)


def some(rng, share):
    return tuple(rng.random(shape) < share for shape in SHAPES)


def protected(weights, masks, removal):
    """What stays of each layer; of equal weights the first, at least one."""
    out = []
    for w, mask in zip(weights, masks, strict=True):
        held = np.flatnonzero(mask)
        most = max(len(held) - int(np.float32(removal) * np.float32(len(held))), min(len(held), 1))
        order = sorted(held, key=lambda k, w=w: (-abs(float(w.flat[k])), k))
        left = np.zeros(w.shape, bool)
        left.flat[order[:most]] = True
        out.append(left)
    return out


def by_greedy_loop(held, squares, layer_s, constant_s, fixed_squares):
    """All candidates in one list by descending quotient; one comes back after the other until one is not worth it."""
    held = [mask.copy() for mask in held]
    total, seconds, candidates = float(fixed_squares), float(constant_s), []
    for leaf, mask in enumerate(held):
        g, t = squares[leaf].astype(np.float64), float(np.float32(layer_s[leaf]))
        total, seconds = total + g[mask].sum(), seconds + t * mask.sum()
        candidates += [(g.flat[k] / t, g.flat[k], t, leaf, k) for k in np.flatnonzero(~mask)]
    for quotient, g, t, leaf, k in sorted(candidates, key=lambda one: -one[0]):
        if not quotient > total / seconds:
            break
        total, seconds = total + g, seconds + t
        held[leaf].flat[k] = True
    return held


def stepped(weights, masks, squares, layer_s=EQUAL_S, removal=0.3, constant_s=1.0, fixed_squares=0.0):
    """How many weights are protected and how many are held after a step, which is compared with the loop."""
    arrays = (tuple(map(jnp.asarray, part)) for part in (weights, masks, squares))
    found = prunefl_step(*arrays, *map(np.float32, (layer_s, removal, constant_s, fixed_squares)))
    kept = protected(weights, masks, removal)
    for one, other in zip(found, by_greedy_loop(kept, squares, layer_s, constant_s, fixed_squares), strict=True):
        np.testing.assert_array_equal(one, other)
    return sum(int(mask.sum()) for mask in kept), sum(int(mask.sum()) for mask in found)


def test_a_step_equals_the_greedy_loop():
    """Squares over many orders of magnitude, layers of unlike seconds; then many equal quotients, exact in float32."""
    back = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        weights, masks = drawn(rng, lambda rng, shape: rng.normal(size=shape)), some(rng, rng.random())
        squares = drawn(rng, lambda rng, shape: rng.lognormal(0, 3, shape))
        seconds = 10.0 ** rng.uniform(-6, 0, 3)
        kept, held = stepped(weights, masks, squares, seconds, rng.random(), 10.0 ** rng.uniform(-6, 2), rng.random())
        back.add(held - kept)
        tied = drawn(rng, lambda rng, shape: rng.integers(0, 5, shape))
        stepped(tied, masks, tied, (0.5, 1.0, 2.0), 0.5, rng.integers(1, 9), rng.integers(0, 9))
    assert len(back) > 20


def test_a_step_finds_the_best_of_all_sets():
    """The largest quotient of squares and seconds among all sets that contain the protected weights."""
    rng, seconds = np.random.default_rng(7), np.array([0.3, 0.02, 1.0])
    weights, masks = drawn(rng, lambda rng, shape: rng.normal(size=shape)), constant(True)
    squares = drawn(rng, lambda rng, shape: rng.lognormal(0, 2, shape))
    kept = protected(weights, [mask.astype(bool) for mask in masks], 0.1)
    free = [(leaf, k) for leaf, mask in enumerate(kept) for k in np.flatnonzero(~mask)]
    assert len(free) == 7

    def quotient(held):
        total = sum(float(g[mask].sum(dtype=np.float64)) for g, mask in zip(squares, held, strict=True))
        return total / (40.0 + sum(t * mask.sum() for t, mask in zip(seconds, held, strict=True)))

    best = 0.0
    for flags in itertools.product((False, True), repeat=len(free)):
        held = [mask.copy() for mask in kept]
        for (leaf, k), flag in zip(free, flags, strict=True):
            held[leaf].flat[k] = flag
        best = max(best, quotient(held))
    arrays = (tuple(jnp.asarray(a, d) for a in part) for part, d in ((weights, float), (masks, bool), (squares, float)))
    found = prunefl_step(*arrays, *map(np.float32, (seconds, 0.1, 40.0, 0.0)))
    assert quotient([np.asarray(mask) for mask in found]) == pytest.approx(best, rel=1e-6)
    assert quotient(kept) < 0.99 * best


def test_extremes_of_a_step():
    rng = np.random.default_rng(8)
    weights, full = drawn(rng, lambda rng, shape: rng.normal(size=shape)), some(rng, 2.0)
    one = constant(1.0)
    assert stepped(weights, full, one, removal=0.0) == (80, 80)  # nothing to take back
    assert stepped(weights, full, constant(0.0)) == (57, 57)  # no gradient: what was removed stays away
    assert stepped(weights, full, one, constant_s=0.0) == (57, 57)  # a quotient equal to that of what is held
    assert stepped(weights, full, one, constant_s=1e-3) == (57, 80)  # each weight makes up for a part of the constant
    assert stepped(weights, full, one, fixed_squares=1.0) == (57, 57)  # which is paid for by what is never pruned
    assert stepped(weights, full, one, removal=1.0, constant_s=0.0) == (3, 3)  # one weight of each layer
    none = some(rng, 0.0)
    assert stepped(weights, none, one, fixed_squares=2.0) == (0, 0)
    assert stepped(weights, none, one, fixed_squares=0.5) == (0, 80)


def test_the_first_removal_is_halved_every_10000_rounds():
    assert prunefl_removal(0) == 0.3 and prunefl_removal(20_000) == pytest.approx(0.075)
    assert prunefl_removal(50) == pytest.approx(0.3 * 0.996540262827868)


def test_when_the_initial_stage_begins_and_prunes():
    stage = InitialPruning(classes=62)
    assert not stage.begins(4 / 200) and stage.begins(5 / 200)  # 1.5 / 62 = 0.0242
    assert InitialPruning(classes=10).begins(0.15) and not InitialPruning(classes=10).begins(0.149)
    assert [r for r in range(1, 200) if stage.prunes(r, begun=81)] == [81, 131, 181]


def test_the_initial_stage_ends_after_five_small_changes():
    stage = InitialPruning(classes=62)
    settled = [1000, 700, 635, 635, 600, 655, 715]  # -30, -9.3, 0, -5.5, +9.2, +9.2 %
    assert [stage.ends(50 * k, settled[:k]) for k in range(1, 8)] == [False] * 6 + [True]
    late = [1000, 950, 920, 900, 700, 690, 680, 670, 660, 650]  # the change of 22 % is the fourth
    assert [stage.ends(50 * k, late[:k]) for k in range(1, 11)] == [False] * 9 + [True]
    assert not stage.ends(999, []) and stage.ends(1000, [])
