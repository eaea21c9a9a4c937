"""Partitions: nobody shares an image, nothing is lost, everyone has a batch, the seed decides."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.config.defaults import default_config
from prfl_jax.data import Dataset, data_dir, load, split
from prfl_jax.data import partition as P
from prfl_jax.data.keys import generator
from prfl_jax.system.errors import UserError

KINDS = ("iid", "dirichlet", "labels", "fedmp", "writer", "writer_iid")
SLOW = settings(deadline=None, max_examples=25)


def toy(seed: int, images: int, classes: int = 10, writers: int = 20, balanced: bool = True) -> Dataset:
    rng = np.random.default_rng(seed)
    weights = np.ones(classes) if balanced else rng.uniform(0.5, 2, classes)
    y = rng.choice(classes, images, p=weights / weights.sum()).astype(np.int32)
    y[:classes] = np.arange(classes)
    x = np.zeros((images, 2, 2, 1), np.uint8)
    who = rng.integers(0, writers, images).astype(np.int32)
    return Dataset("toy", x, y, x[:5], y[:5], classes, who, None, "made here")


def settings_for(kind: str, **changes):
    data = default_config().data
    data.partition, data.writers, data.min_images_per_writer = kind, 15, 1
    data.fedmp_level = 30
    data.update(changes)
    return data


@pytest.fixture(scope="module")
def embedded() -> Dataset:
    return load(default_config().data, 0)


@SLOW
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31 - 1),
    clients=st.integers(5, 12),
    images=st.integers(800, 1500),
    balanced=st.booleans(),
)
def test_parts_are_disjoint_complete_and_keyed(kind, seed, clients, images, balanced):
    data, cfg = toy(seed % 7, images, balanced=balanced), settings_for(kind)
    got = split(data, cfg, clients, 5, seed)
    everything = np.concatenate([*got.clients, got.holdout])
    assert len(np.unique(everything)) == len(everything)
    pool = np.arange(images)
    if kind in ("writer", "writer_iid"):
        pool = np.flatnonzero(np.isin(data.writer_train, np.unique(data.writer_train)[:15]))
    assert np.isin(everything, pool).all()
    assert len(everything) + got.summary["unused"] == len(pool)
    if kind != "fedmp":
        assert got.summary["unused"] == 0
    assert len(got.holdout) == round(0.1 * len(pool)) == got.summary["holdout"]
    assert len(got.clients) == clients and all(len(rows) >= 5 for rows in got.clients)
    assert all((np.diff(rows) > 0).all() for rows in got.clients)
    for rows, size, labels in zip(got.clients, got.summary["sizes"], got.summary["labels"], strict=True):
        assert len(rows) == size == sum(labels)
        assert labels == [int(np.sum(data.y_train[rows] == c)) for c in range(10)]
    assert json.loads(json.dumps(got.summary)) == got.summary

    again, other = split(data, cfg, clients, 5, seed), split(data, cfg, clients, 5, seed + 1)
    for a, b in zip(got.clients, again.clients, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(got.holdout, other.holdout)
    assert any(not np.array_equal(a, b) for a, b in zip(got.clients, other.clients, strict=True))


def test_generator_depends_on_seed_and_purpose_alone():
    draw = generator(3, "data/holdout").random(4)
    np.testing.assert_array_equal(draw, generator(3, "data/holdout").random(4))
    for other in (generator(4, "data/holdout"), generator(-3, "data/holdout"), generator(3, "data/partition")):
        assert not np.array_equal(draw, other.random(4))


def test_split_leaves_numpys_global_generator_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    split(toy(0, 900), settings_for("dirichlet"), 5, 5, 0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_the_holdout_is_the_same_for_every_partition():
    data = toy(0, 1000)
    held = [split(data, settings_for(kind), 6, 5, 9).holdout for kind in ("iid", "dirichlet", "labels", "fedmp")]
    for other in held[1:]:
        np.testing.assert_array_equal(held[0], other)
    assert len(split(data, settings_for("iid", holdout_max=17), 6, 5, 9).holdout) == 17
    assert len(split(data, settings_for("iid", holdout_fraction=0.0), 6, 5, 9).holdout) == 0


def test_holdout_is_uniform_over_images():
    data, cfg = toy(0, 200), settings_for("iid")
    held = np.zeros(200)
    for seed in range(300):
        held[split(data, cfg, 2, 1, seed).holdout] += 1
    # 300 draws at 0.1: mean 30, deviation 5.2
    assert abs(held.mean() - 30) < 1e-9 and held.min() > 30 - 5 * 5.2 and held.max() < 30 + 5 * 5.2


@SLOW
@given(count=st.integers(0, 500), clients=st.integers(1, 20), seed=st.integers(0, 999))
def test_iid_sizes_differ_by_at_most_one(count, clients, seed):
    sizes = [len(p) for p in P.iid(count, clients, np.random.default_rng(seed))]
    assert sum(sizes) == count and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_dirichlet_shares_have_the_variance_of_alpha(alpha):
    clients, labels = 6, np.repeat(np.arange(50), 400)
    parts, draws = P.dirichlet(labels, clients, alpha, 0, np.random.default_rng(5))
    assert draws == 1
    share = np.array([np.bincount(labels[p], minlength=50) for p in parts]) / 400
    np.testing.assert_allclose(share.sum(0), 1)
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert share.var() == pytest.approx(expected, rel=0.25)


def test_dirichlet_draws_again_until_each_client_has_its_batch():
    labels = np.repeat(np.arange(10), 30)
    took = []
    for seed in range(8):
        parts, draws = P.dirichlet(labels, 10, 0.5, 10, np.random.default_rng(seed))
        assert min(map(len, parts)) >= 10
        took.append(draws)
    assert max(took) > 1


def test_dirichlet_names_the_client_it_cannot_serve():
    labels = np.repeat(np.arange(2), 30)
    with pytest.raises(UserError, match=r"data\.alpha=0\.01: after 100 draws client \d+ has \d+ images"):
        P.dirichlet(labels, 10, 0.01, 20, np.random.default_rng(0))
    with pytest.raises(UserError, match="numbers above 0"):
        P.dirichlet(labels, 2, 0.0, 1, np.random.default_rng(0))


@SLOW
@given(classes=st.integers(2, 20), clients=st.integers(1, 15), data=st.data())
def test_labels_are_dealt_evenly(classes, clients, data):
    k = data.draw(st.integers(-(-classes // clients), classes))
    labels = np.repeat(np.arange(classes), 30)
    parts = P.labels_per_client(labels, clients, k, np.random.default_rng(k))
    held = np.array([np.bincount(labels[p], minlength=classes) for p in parts])
    assert (np.count_nonzero(held, axis=1) == k).all()
    holders = np.count_nonzero(held, axis=0)
    assert holders.max() - holders.min() <= 1 and (held.sum(0) == 30).all()
    for label in range(classes):
        mine = held[held[:, label] > 0, label]
        assert mine.max() - mine.min() <= 1


@pytest.mark.parametrize("k", [0, 1, 11])
def test_labels_per_client_says_what_is_allowed(k):
    with pytest.raises(UserError, match=rf"data\.labels_per_client={k}: allowed are 2\.\.10"):
        P.labels_per_client(np.arange(100) % 10, 5, k, np.random.default_rng(0))


@SLOW
@given(level=st.integers(1, 100), clients=st.integers(2, 15), seed=st.integers(0, 99))
def test_fedmp_level_is_the_percentage_of_the_main_label(level, clients, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(10, 3000, p=np.array([8, 9, 10, 11, 12, 10, 10, 10, 10, 10]) / 100)
    try:
        parts = P.fedmp(labels, clients, level, 10, rng)
    except UserError as e:
        assert clients < 4 and level < 10 and "too few images of other labels" in str(e)
        return
    sizes = {len(p) for p in parts}
    assert len(sizes) == 1
    size = sizes.pop()
    assert len(np.unique(np.concatenate(parts))) == size * clients
    held = np.array([np.bincount(labels[p], minlength=10) for p in parts])
    share = round(size * level / 100)
    assert ((held == share).any(axis=1)).all()
    if level > 50:  # otherwise another label may be as frequent
        mains = held.argmax(1)
        assert (held.max(1) == share).all()
        assert len(np.unique(mains)) == min(clients, 10)


def test_fedmp_rest_comes_from_all_other_labels():
    labels = np.arange(10_000) % 10
    parts = P.fedmp(labels, 10, 60, 10, np.random.default_rng(1))
    for part in parts:
        held = np.sort(np.bincount(labels[part], minlength=10))
        assert held[-1] == 600 and len(part) == 1000
        assert held[0] > 20  # 400 over nine labels: 44 each, deviation about 6


def test_the_fedmp_level_is_the_number_of_lacking_classes():
    labels = np.repeat(np.arange(62), 40)
    parts = P.fedmp(labels, 10, 20, 62, np.random.default_rng(1))
    assert [len(np.unique(labels[p])) for p in parts] == [42] * 10
    assert sum(map(len, parts)) == len(labels)
    with pytest.raises(UserError, match=r"data\.fedmp_level=60: allowed are 0\.\.55"):
        P.fedmp(labels, 10, 60, 62, np.random.default_rng(1))


def test_fedmp_level_0_is_iid_and_levels_are_checked():
    labels = np.arange(1000) % 10
    same = zip(
        P.fedmp(labels, 7, 0, 10, np.random.default_rng(2)), P.iid(1000, 7, np.random.default_rng(2)), strict=True
    )
    assert all(np.array_equal(a, b) for a, b in same)
    for level in (-1, 101):
        with pytest.raises(UserError, match=rf"data\.fedmp_level={level}: allowed are 0\.\.100"):
            P.fedmp(labels, 7, level, 10, np.random.default_rng(2))
    with pytest.raises(UserError, match="too few images of other labels"):
        P.fedmp(np.zeros(100, int), 4, 30, 10, np.random.default_rng(2))


def test_writers_are_the_lowest_ids_in_consecutive_shares():
    # 200 writers of which every tenth has too few images: 193 of them cannot be had, 180 can.
    who = np.concatenate([np.full(3 if w % 10 == 0 else 25, w * 7) for w in range(230)]).astype(np.int32)
    data = dataclasses.replace(toy(0, len(who)), writer_train=np.random.default_rng(0).permutation(who))
    cfg = settings_for("writer", writers=193, min_images_per_writer=20)
    got = split(data, cfg, 10, 20, 0)
    wanted = [w * 7 for w in range(230) if w % 10][:193]
    held = [np.unique(data.writer_train[rows]).tolist() for rows in got.clients]
    assert sum(held, []) == wanted and [len(h) for h in held] == [19] * 9 + [22] == got.summary["writers"]
    assert np.isin(data.writer_train[got.holdout], wanted).all()
    with pytest.raises(UserError, match=r"data\.writers=208: allowed are 1\.\.207"):
        split(data, settings_for("writer", writers=208, min_images_per_writer=20), 10, 20, 0)
    with pytest.raises(UserError, match=r"data\.writers=4: fewer than clients\.number=5"):
        split(data, settings_for("writer", writers=4), 5, 20, 0)


@SLOW
@given(writers=st.integers(1, 60), clients=st.integers(1, 12))
def test_writer_shares_are_the_floor_and_the_last_takes_the_rest(writers, clients):
    who = np.repeat(np.arange(writers) * 3, 2)
    if writers < clients:
        with pytest.raises(UserError):
            P.by_writer(who, clients)
        return
    sizes = [len(np.unique(who[rows])) for rows in P.by_writer(who, clients)]
    assert sizes[:-1] == [writers // clients] * (clients - 1) and sum(sizes) == writers


@SLOW
@given(writers=st.integers(1, 60), clients=st.integers(1, 12))
def test_even_shares_differ_by_one_at_most(writers, clients):
    who = np.repeat(np.arange(writers) * 3, 2)
    if writers >= clients:
        parts = P.by_writer(who, clients, even=True)
        sizes = [len(np.unique(who[rows])) for rows in parts]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == writers
        assert np.array_equal(np.concatenate(parts), np.arange(len(who)))


@SLOW
@given(writers=st.lists(st.integers(0, 6), min_size=1, max_size=80), over=st.integers(1, 12))
def test_large_writers_are_halved_and_the_others_left(writers, over):
    who = np.array(writers)
    units, split_in_two = P.split_writers(who, over)
    assert len(units) == len(who)
    large = 0
    for writer in np.unique(who):
        own, counts = np.unique(units[who == writer], return_counts=True)
        assert set(own) & set(units[who != writer]) == set()
        if (who == writer).sum() > over:
            large += 1
            assert len(own) == 2 and abs(counts[0] - counts[1]) <= 1
        else:
            assert len(own) == 1
    assert split_in_two == large


def test_the_test_set_is_that_of_the_chosen_writers():
    who = np.repeat(np.arange(12) * 2, 30).astype(np.int32)
    data = dataclasses.replace(toy(0, len(who)), writer_train=who, x_test=np.zeros((9, 2, 2, 1), np.uint8))
    data = dataclasses.replace(data, y_test=np.zeros(9, np.int32))
    cfg = settings_for("writer", writers=5)  # writers 0, 2, 4, 6, 8
    theirs = np.array([0, 10, 4, 8, 22, 9, 6, 7, 0], np.int32)
    got = split(dataclasses.replace(data, writer_test=theirs), cfg, 2, 20, 0)
    assert got.test.tolist() == [0, 2, 3, 6, 8]
    for others in (None, theirs * 0 + 1):  # nobody knows; all by others, as in MNIST
        assert split(dataclasses.replace(data, writer_test=others), cfg, 2, 20, 0).test.tolist() == list(range(9))
    assert len(split(dataclasses.replace(data, writer_test=theirs), settings_for("iid"), 2, 20, 0).test) == 9


def test_limits_cut_what_the_chosen_writers_wrote():
    who = np.repeat(np.arange(30) * 2, 30).astype(np.int32)
    data = dataclasses.replace(toy(0, len(who)), writer_train=who, x_test=np.zeros((300, 2, 2, 1), np.uint8))
    theirs = np.repeat(np.arange(30) * 2, 10).astype(np.int32)
    data = dataclasses.replace(data, y_test=np.zeros(300, np.int32), writer_test=theirs)
    for limit in (1, 7, 40):
        cfg = settings_for("writer", writers=5, test_limit=limit, train_limit=110)
        got = split(data, cfg, 2, 20, 0)
        assert len(got.test) == limit == got.summary["test"] and got.summary["test_writers"] == "own"
        assert (theirs[got.test] <= 8).all()
        assert sum(got.summary["sizes"]) + got.summary["holdout"] + got.summary["unused"] == 110
    others = dataclasses.replace(data, writer_test=theirs + 1)
    assert split(others, settings_for("writer", writers=5), 2, 20, 0).summary["test_writers"] == "others"


def test_writer_partition_of_images_without_writers(embedded):
    with pytest.raises(UserError, match="mnist_embedded does not say who wrote an image"):
        split(embedded, settings_for("writer"), 10, 20, 0)


def test_who_has_no_batch_is_named():
    with pytest.raises(UserError, match=r"client 0 has 18 images, client 1 has 18 images.* and 2 more have too few"):
        split(toy(0, 100), settings_for("iid"), 5, 19, 0)
    with pytest.raises(UserError, match=r"data\.holdout_fraction=1\.0: 100 held-out images leave none"):
        split(toy(0, 100), settings_for("iid", holdout_fraction=1.0), 5, 2, 0)
    with pytest.raises(
        UserError, match="allowed is one of iid, dirichlet, labels, writer, writer_iid, fedmp, or module:object"
    ):
        split(toy(0, 100), settings_for("random"), 5, 2, 0)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "labels", "fedmp"])
def test_embedded_images_are_shared_over_the_ten_clients(embedded, kind):
    got = split(embedded, settings_for(kind), 10, 20, 0)
    assert len(got.holdout) == 400 and min(got.summary["sizes"]) >= 20 and got.summary["writers"] is None
    assert sum(got.summary["sizes"]) + got.summary["unused"] == 3600


def real(name: str) -> Dataset:
    cfg = default_config().data
    cfg.name = name
    if not (data_dir(cfg) / f"{name}.npz").is_file():
        pytest.skip(f"no {name}.npz in the data folder (PRFL_DATA_DIR)")
    return load(cfg, 0)


def test_mnist_has_the_papers_193_writers():
    data = real("mnist_by_writer")
    got = split(data, settings_for("writer", writers=193, min_images_per_writer=20), 10, 20, 0)
    ids, images = np.unique(data.writer_train, return_counts=True)
    assert len(ids) == 539 and images.min() == 19 and images.max() == 131
    held = np.unique(data.writer_train[np.concatenate(got.clients)])
    np.testing.assert_array_equal(held, ids[images >= 20][:193])
    assert got.summary["writers"] == [19] * 9 + [22] and len(got.holdout) == 2000


def test_a_thousand_clients_hold_a_half_of_a_writers_images_each():
    data = real("mnist_by_writer")
    cfg = settings_for("writer", writers=500, min_images_per_writer=50, split_writers_over=40)
    got = split(data, cfg, 1000, 10, 0)
    assert got.summary["split_writers_over"] == 40 and got.summary["writers_split"] == 500
    assert got.summary["writers"] == [1] * 1000 and min(got.summary["sizes"]) >= 10


def test_cifar10_dirichlet_1():
    got = split(real("cifar10"), settings_for("dirichlet", alpha=1.0), 10, 20, 0)
    assert len(got.holdout) == 2000 and sum(got.summary["sizes"]) == 48_000
    held = np.array(got.summary["labels"])
    assert (held.max(0) / held.sum(0)).mean() > 0.2  # far from the IID share of 0.1


def test_writers_images_dealt_iid_are_the_same_images():
    data = toy(3, 400)
    by_writer, mixed = (split(data, settings_for(kind, writers=5), 2, 20, 0) for kind in ("writer", "writer_iid"))
    np.testing.assert_array_equal(by_writer.holdout, mixed.holdout)
    np.testing.assert_array_equal(by_writer.test, mixed.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(by_writer.clients)), np.sort(np.concatenate(mixed.clients)))
    assert by_writer.summary["writers"] == [2, 3] and mixed.summary["writers"] == [5, 5]
