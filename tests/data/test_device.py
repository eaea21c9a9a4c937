"""Batches drawn on the device, against what slow loops say they must be."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import slow, slow_except

from prfl_jax.config.defaults import default_config
from prfl_jax.data import Split, load, split
from prfl_jax.data import device as D
from prfl_jax.data.rows import Rows
from prfl_jax.system.errors import UserError

KEY = jax.random.key(11)
SIZES = (47, 20, 60, 23, 100)
indices = jax.jit(D.batch_indices, static_argnums=(4, 5))
batches = jax.jit(D.draw_batches, static_argnums=(4, 5, 6, 7))


def some_data(sizes=SIZES, padding=0, shape=(6, 6, 1)) -> D.DeviceData:
    total = sum(sizes)
    rng = np.random.default_rng(0)
    order = rng.permutation(total).astype(np.int32)
    index = np.full((len(sizes), max(sizes) + padding), 0, np.int32)
    start = np.cumsum([0, *sizes])
    for client, size in enumerate(sizes):
        index[client, :size] = order[start[client] : start[client] + size]
    x = rng.integers(0, 256, (total, *shape), dtype=np.uint8)
    return D.DeviceData(*map(jnp.asarray, (x, rng.integers(0, 10, total).astype(np.int32), index, np.int32(sizes))))


@pytest.mark.parametrize("steps,batch", [(5, 20), slow(1, 7), slow(7, 3)])
def test_each_epoch_goes_through_the_images_once(steps, batch):
    data = some_data()
    for client, size in enumerate(SIZES):
        own = set(np.asarray(data.index)[client, :size].tolist())
        assert len(own) == size
        per_epoch = size // batch
        rounds = math.ceil(6 * per_epoch / steps)
        line = np.concatenate([np.asarray(indices(data, KEY, client, count, steps, batch)) for count in range(rounds)])
        assert line.shape == (rounds * steps, batch) and line.dtype == np.int32
        orders = []
        for first in range(0, len(line) - per_epoch + 1, per_epoch):
            epoch = line[first : first + per_epoch].ravel().tolist()
            assert len(set(epoch)) == per_epoch * batch and set(epoch) <= own
            orders.append(tuple(epoch))
        assert len(orders) >= 6 and len(set(orders)) == len(orders)
        if size % batch:  # who rests changes from epoch to epoch
            assert len({frozenset(o) for o in orders}) > 1


def test_the_line_of_batches_does_not_know_of_rounds():
    data = some_data()
    for client in range(len(SIZES)):
        by_five = [indices(data, KEY, client, count, 5, 20) for count in range(6)]
        by_three = [indices(data, KEY, client, count, 3, 20) for count in range(10)]
        np.testing.assert_array_equal(np.concatenate(by_five), np.concatenate(by_three))


@pytest.mark.slow
def test_padding_and_other_clients_change_nothing():
    short, long = some_data(), some_data(padding=913)
    alone = D.DeviceData(short.x, short.y, short.index[:, :60], jnp.minimum(short.size, 60))
    for client in range(4):
        for count in (0, 3, 1000):
            expected = indices(short, KEY, client, count, 5, 20)
            np.testing.assert_array_equal(expected, indices(long, KEY, client, count, 5, 20))
            np.testing.assert_array_equal(expected, indices(alone, KEY, client, count, 5, 20))


@pytest.mark.slow
def test_map_vmap_and_single_calls_agree():
    data = some_data(shape=(8, 8, 3))
    clients, counts = jnp.array([4, 0, 2, 2]), jnp.array([7, 0, 1, 2])

    def draw(client, count):
        return D.draw_batches(data, KEY, client, count, 5, 20, "cifar10", "crop_flip")

    pairs = list(zip(clients.tolist(), counts.tolist(), strict=True))
    single = [batches(data, KEY, *pair, 5, 20, "cifar10", "crop_flip") for pair in pairs]
    mapped = jax.jit(lambda: jax.lax.map(lambda a: draw(*a), (clients, counts)))()
    vmapped = jax.jit(lambda: jax.vmap(draw)(clients, counts))()
    for k in range(4):
        for way in (mapped, vmapped):
            np.testing.assert_allclose(way[0][k], single[k][0], rtol=0, atol=1e-6)
            np.testing.assert_array_equal(way[1][k], single[k][1])


def test_key_client_count_all_matter():
    data = some_data((40, 40))
    base = np.asarray(indices(data, KEY, 0, 0, 2, 20))
    assert not np.array_equal(base, indices(data, jax.random.key(12), 0, 0, 2, 20))
    assert not np.array_equal(base, indices(data, KEY, 0, 1, 2, 20))
    place = {int(row): k for k, row in enumerate(np.asarray(data.index)[0])}
    other = {int(row): k for k, row in enumerate(np.asarray(data.index)[1])}
    second = np.asarray(indices(data, KEY, 1, 0, 2, 20))
    assert [place[i] for i in base.ravel().tolist()] != [other[i] for i in second.ravel().tolist()]


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_shuffle_is_a_permutation(n, seed):
    # One shape for all n, so that one compilation serves: positions from n on are cut to 0.
    positions = np.where(np.arange(3000) < n, np.arange(3000), 0).astype(np.uint32)
    got = np.asarray(SHUFFLED(seed, positions, n))[:n]
    np.testing.assert_array_equal(np.sort(got), np.arange(n))


SHUFFLED = jax.jit(lambda seed, at, n: D._shuffled(jax.random.key(seed), at, n.astype(jnp.uint32)))


@pytest.mark.parametrize("n", slow_except([3, 4, 5], 4))
def test_shuffle_of_few_images_has_all_orders_equally_often(n):
    draws = 12_000
    keys = jax.vmap(lambda k: jax.random.fold_in(KEY, k))(jnp.arange(draws))
    orders = jax.jit(jax.vmap(lambda k: D._shuffled(k, jnp.arange(n, dtype=jnp.uint32), jnp.uint32(n))))(keys)
    counts = np.array(list(collections.Counter(map(tuple, np.asarray(orders).tolist())).values()))
    cells = math.factorial(n)
    assert len(counts) == cells
    chi2 = ((counts - draws / cells) ** 2).sum() / (draws / cells)
    assert chi2 < cells - 1 + 5 * math.sqrt(2 * (cells - 1))


@pytest.mark.slow
def test_shuffle_spreads_images_over_places_and_neighbours():
    n, draws = 37, 6000
    keys = jax.vmap(lambda k: jax.random.fold_in(KEY, k))(jnp.arange(draws))
    run = jax.jit(jax.vmap(lambda k: D._shuffled(k, jnp.arange(n, dtype=jnp.uint32), jnp.uint32(n))))
    orders = np.asarray(run(keys)).astype(int)
    table = np.zeros((n, n))
    np.add.at(table, (np.broadcast_to(np.arange(n), orders.shape), orders), 1)
    gaps = np.bincount(((orders[:, 1:] - orders[:, :-1]) % n).ravel(), minlength=n)[1:]
    for counts, freedom in ((table, (n - 1) ** 2), (gaps, n - 2)):
        chi2 = ((counts - counts.mean()) ** 2).sum() / counts.mean()
        assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)


def test_a_client_without_a_batch_repeats_rather_than_hangs():
    data = some_data((5, 30))
    rows = np.asarray(indices(data, KEY, 0, 0, 3, 20))
    assert set(rows.ravel().tolist()) <= set(np.asarray(data.index)[0, :5].tolist())


def slow_crop_flip(image: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
    height, width, channels = image.shape
    out = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            row, column = i + top - 4, (width - 1 - j if flip else j) + left - 4
            if 0 <= row < height and 0 <= column < width:
                out[i, j] = image[row, column]
    return out


def test_crop_flip_against_a_loop():
    x = np.random.default_rng(3).integers(1, 256, (60, 7, 5, 3), dtype=np.uint8)
    got = np.asarray(jax.jit(D.augment, static_argnums=2)(KEY, jnp.asarray(x), "crop_flip"))
    assert got.dtype == np.uint8 and got.shape == x.shape
    found = []
    for before, after in zip(x, got, strict=True):
        ways = [(t, left, f) for t in range(9) for left in range(9) for f in (False, True)]
        fits = [way for way in ways if np.array_equal(slow_crop_flip(before, *way), after)]
        assert len(fits) == 1
        found += fits
    assert {t for t, _, _ in found} == {left for _, left, _ in found} == set(range(9))
    assert 15 < sum(f for _, _, f in found) < 45  # of 60 at one half


def test_augmentation_is_keyed_by_step_and_client():
    data = some_data(shape=(8, 8, 3))
    plain = [batches(data, KEY, 0, n, 1, 20, "unit", "none") for n in range(4)]
    varied = [batches(data, KEY, 0, n, 1, 20, "unit", "crop_flip") for n in range(4)]
    for (x, y), (changed, same) in zip(plain, varied, strict=True):
        np.testing.assert_array_equal(y, same)
        assert not np.array_equal(x, changed)
    ones = D.DeviceData(jnp.full_like(data.x, 9), data.y, data.index, data.size)
    black = [
        np.asarray(batches(ones, KEY, client, n, 1, 20, "unit", "crop_flip")[0] == 0)
        for client, n in ((0, 0), (0, 1), (1, 0))
    ]
    assert not any(np.array_equal(black[i], black[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_preprocess_against_float64():
    x = np.random.default_rng(1).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
    expected = {"unit": x / 255, "inverted": 1 - x / 255, "cifar10": (x / 255 - mean) / std}
    for name, values in expected.items():
        got = D.preprocess(jnp.asarray(x), name)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, values, rtol=0, atol=1e-6)
    assert D.augment(KEY, jnp.asarray(x), "none").tolist() == x.tolist()
    for call in (
        lambda: D.preprocess(jnp.asarray(x), "zscore"),
        lambda: D.preprocess(jnp.asarray(x[..., :1]), "cifar10"),
        lambda: D.augment(KEY, jnp.asarray(x), "mixup"),
    ):
        with pytest.raises((ValueError, UserError), match="normalize=|augment="):
            call()


def test_draw_batches_is_indices_then_gather_then_preprocess():
    data = some_data()
    rows = np.asarray(indices(data, KEY, 2, 4, 5, 20))
    x, y = batches(data, KEY, 2, 4, 5, 20, "inverted", "none")
    assert x.shape == (5, 20, 6, 6, 1) and x.dtype == jnp.float32
    np.testing.assert_allclose(x, 1 - np.asarray(data.x)[rows] / 255, atol=1e-6)
    np.testing.assert_array_equal(y, np.asarray(data.y)[rows])


def test_to_device_keeps_what_clients_hold():
    cfg = default_config().data
    dataset = load(cfg, 0)
    shared = split(dataset, cfg, 10, 20, 0)
    data = D.to_device(dataset, shared)
    assert data.x.values.dtype == jnp.uint8 and data.x[:].shape == (3600, 28, 28, 1)
    assert data.index.dtype == data.size.dtype == data.y.dtype == jnp.int32
    for client, rows in enumerate(shared.clients):
        size = int(data.size[client])
        assert size == len(rows)
        mine = np.asarray(data.index)[client, :size]
        np.testing.assert_array_equal(np.asarray(data.x)[mine], dataset.x_train[rows])
        np.testing.assert_array_equal(np.asarray(data.y)[mine], dataset.y_train[rows])
        assert (np.asarray(data.index)[client, size:] == 0).all()


def test_to_device_with_a_client_that_holds_nothing():
    dataset = load(default_config().data, 0)
    data = D.to_device(dataset, Split((np.array([5, 9]), np.array([], np.int64)), np.array([]), np.arange(0), {}))
    assert data.index.shape == (2, 2) and data.size.tolist() == [2, 0] and len(data.x) == 2


def test_integer_square_roots():
    """Of squares and their neighbours, where a float's root may round up, and of the largest numbers."""
    roots = np.array([1, 2, 3, 10, 4095, 4096, 4097, 30_000, 46_339, 46_340], np.int64)
    numbers = np.unique(np.concatenate([roots**2 - 1, roots**2, roots**2 + 1, [2, 3, 2**31 - 1]]))
    found = jax.jit(D.integer_sqrt)(jnp.asarray(numbers, jnp.uint32))
    assert np.asarray(found).tolist() == [math.isqrt(n) for n in numbers]


def test_rows_are_samples():
    x = np.arange(2 * 5 * 3 * 4, dtype=np.uint8).reshape(2, 5, 3, 4)
    one, two = Rows.of(jnp.asarray(x)), Rows.of(jnp.asarray(x), leading=2)
    assert one.values.shape == (2, 60) and two.values.shape == (2, 5, 12)
    index = jnp.array([[1, 0], [0, 0]])
    np.testing.assert_array_equal(one[index], x[np.asarray(index)])
    np.testing.assert_array_equal(two[1], x[1])
    np.testing.assert_array_equal(np.asarray(two), x)
    assert len(one) == 2 and jax.tree.map(lambda v: v + 1, one).shape == (5, 3, 4)
