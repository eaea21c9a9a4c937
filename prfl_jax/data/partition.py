"""How clients share the training images: a choice of partition, and the held-out part.

Each partition is a pure function of labels or writers, a generator and its own
settings. It returns one array of positions per client; no position is in two. Those of
a user's own are held to the same (`own_partition.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from prfl_jax.data.keys import generator
from prfl_jax.data.own_partition import own_partition
from prfl_jax.data.sources import BY_WRITER, Dataset, limited
from prfl_jax.system.errors import UserError

MAX_DRAWS = 100  # of the Dirichlet partition, until each client has its batch
Clients = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Split:
    """Who holds which training images.

    Attributes:
        clients: per client the rows of `Dataset.x_train` it holds, ascending, int64.
        holdout: rows that no client holds, for early stopping, ascending, int64.
        test: rows of `Dataset.x_test` the models are tested on: all, but for `partition=writer` or `writer_iid`
            those of the chosen writers, where these wrote any (LEAF splits each writer's images; MNIST's test
            writers are others).
        summary: the partition in numbers, for the report (plain JSON types).
    """

    clients: tuple[np.ndarray, ...]
    holdout: np.ndarray
    test: np.ndarray
    summary: dict[str, Any]


def split(dataset: Dataset, data_cfg: Any, num_clients: int, batch_size: int, seed: int) -> Split:
    """Hold a part of the training images out, share the rest over the clients.

    Held out are `holdout_fraction` of the images in play (for `partition=writer` and
    `writer_iid`: of the chosen writers' images), at most `holdout_max`, drawn uniformly.
    Both draws depend on the seed alone, so all methods that are compared share them.
    `writer_iid` shuffles the images that `writer` deals out by writer, so that both
    train on the same ones.

    Args:
        dataset: from `load`.
        data_cfg: the group `data` of the config.
        num_clients: M.
        batch_size: the least number of images a client must hold.
        seed: of the experiment.

    Raises:
        UserError: the settings do not fit the data, or a client is left without a
            full batch; the message names it.
    """
    kind = data_cfg.partition
    pool, test = np.arange(len(dataset.y_train)), np.arange(len(dataset.y_test))
    if kind in BY_WRITER:
        pool, test = _writers_images(dataset, data_cfg.writers, data_cfg.min_images_per_writer)
        pool = limited(pool, "train", data_cfg.train_limit, seed)
        test = limited(test, "test", data_cfg.test_limit, seed)
    held = min(round(data_cfg.holdout_fraction * len(pool)), data_cfg.holdout_max)
    holdout = np.sort(generator(seed, "data/holdout").choice(pool, held, replace=False))
    pool = np.setdiff1d(pool, holdout, assume_unique=True)

    if not len(pool):
        raise UserError(
            f"data.holdout_fraction={data_cfg.holdout_fraction}: {held} held-out images leave none to train on"
        )

    if num_clients > len(pool):  # before arrays are made of so many
        raise UserError(f"clients.number={num_clients}: allowed is at most {len(pool)}, the images to train on")

    rng, labels, classes = generator(seed, "data/partition"), dataset.y_train[pool], dataset.num_classes
    extra: dict[str, Any] = {}
    if kind in ("iid", "writer_iid"):
        parts = iid(len(pool), num_clients, rng)
    elif kind == "dirichlet":
        parts, draws = dirichlet(labels, num_clients, data_cfg.alpha, batch_size, rng)
        extra = {"alpha": float(data_cfg.alpha), "draws": draws}
    elif kind == "labels":
        parts = labels_per_client(labels, num_clients, data_cfg.labels_per_client, rng)
        extra = {"labels_per_client": int(data_cfg.labels_per_client)}
    elif kind == "fedmp":
        parts = fedmp(labels, num_clients, data_cfg.fedmp_level, classes, rng)
        extra = {"fedmp_level": int(data_cfg.fedmp_level)}
    elif kind == "writer":
        assert dataset.writer_train is not None
        units = dataset.writer_train[pool]
        if data_cfg.split_writers_over is not None:
            units, split_in_two = split_writers(units, data_cfg.split_writers_over)
            number = len(np.unique(units))
            extra = {
                "split_writers_over": int(data_cfg.split_writers_over),
                "writers_split": split_in_two,
                "shares": number,
            }
            if number < num_clients:
                raise UserError(
                    f"data.split_writers_over={data_cfg.split_writers_over}: makes {number} shares of "
                    f"data.writers={data_cfg.writers}, fewer than clients.number={num_clients}; every client needs one"
                )
        parts = by_writer(units, num_clients, even=data_cfg.split_writers_over is not None)
    else:
        parts = own_partition(kind, labels, num_clients, rng)

    _check_batches(parts, batch_size, kind)
    clients = tuple(np.sort(pool[part]) for part in parts)
    return Split(clients, holdout, test, _summary(dataset, kind, clients, holdout, test, len(pool), extra))


def iid(count: int, num_clients: int, rng: np.random.Generator) -> Clients:
    """Shuffled and cut into parts whose sizes differ by at most one."""
    return np.array_split(rng.permutation(count), num_clients)


def dirichlet(
    labels: np.ndarray, num_clients: int, alpha: float, least: int, rng: np.random.Generator
) -> tuple[Clients, int]:
    """Each label's images shared in proportions drawn from Dir(alpha, ..., alpha) over the clients.

    Small alpha: few clients hold a label; large: IID. As in Yurochkin et al.,
    "Bayesian nonparametric federated learning of neural networks" (2019); the release of
    PR-FL's authors has alpha = 1.0 for non-IID CIFAR-10. All is drawn again until every
    client holds `least` images, `MAX_DRAWS` times at most.

    Returns:
        The clients' positions, and how many draws it took.

    Raises:
        UserError: in no draw every client had so many; names those of the best draw.
    """
    if not alpha > 0:
        raise UserError(f"data.alpha={alpha}: allowed are numbers above 0")
    by_label = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    best: Clients = []
    for draw in range(1, MAX_DRAWS + 1):
        parts: list[Clients] = []
        for rows in by_label:
            share = rng.dirichlet(np.full(num_clients, float(alpha)))
            cuts = np.rint(np.cumsum(share)[:-1] * len(rows)).astype(np.int64)
            parts.append(np.split(rng.permutation(rows), cuts))
        clients = [np.concatenate(client) for client in zip(*parts, strict=True)]
        if min(map(len, clients)) >= least:
            return clients, draw
        if not best or min(map(len, clients)) > min(map(len, best)):
            best = clients
    few = _names(best, least)
    raise UserError(
        f"data.alpha={alpha}: after {MAX_DRAWS} draws {few}, fewer than local.batch_size={least}; "
        "take a larger data.alpha, fewer clients or more images"
    )


def labels_per_client(labels: np.ndarray, num_clients: int, k: int, rng: np.random.Generator) -> Clients:
    """Each client holds images of k labels; a label's images are shared equally by its holders.

    Labels are dealt so that the numbers of their holders differ by at most one, in the
    spirit of McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data" (2017), whose clients mostly see two digits.

    Raises:
        UserError: k is not in 1 .. number of labels, or some label would have no holder.
    """
    present = np.unique(labels)
    fewest = -(-len(present) // num_clients)
    if not fewest <= k <= len(present):
        raise UserError(
            f"data.labels_per_client={k}: allowed are {fewest}..{len(present)} "
            f"({len(present)} labels, {num_clients} clients, every label with a client)"
        )
    return _share_labels(labels, num_clients, k, rng)


def _share_labels(labels: np.ndarray, num_clients: int, k: int, rng: np.random.Generator) -> Clients:
    present = np.unique(labels)
    holders: list[list[int]] = [[] for _ in present]
    for client in rng.permutation(num_clients):
        # The k labels with the fewest holders so far, chance deciding between equals.
        order = np.lexsort((rng.random(len(present)), np.array([len(h) for h in holders])))
        for label in order[:k]:
            holders[label].append(int(client))
    parts: list[Clients] = [[] for _ in range(num_clients)]
    for label, who in zip(present, holders, strict=True):
        rows = rng.permutation(np.flatnonzero(labels == label))
        for client, part in zip(who, np.array_split(rows, len(who)), strict=True):
            parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def fedmp(labels: np.ndarray, num_clients: int, level: int, num_classes: int, rng: np.random.Generator) -> Clients:
    """FedMP's non-IID level y (FedMP, §V-F).

    Its two definitions, by data set: MNIST and CIFAR-10 (here: at most ten classes), y
    percent of each client's images have one label and the rest other labels; EMNIST
    and Tiny-ImageNet (here: more than ten), each client lacks y classes. Level 0 is
    IID in both. Read as follows where the paper is silent: clients take their main
    label in turn from a shuffled list, all clients hold equally many images (as many as
    the rarest main label allows; what is over goes unused), and what is not the main
    label is drawn from the others as they occur. Lacked classes are dealt so that the
    numbers of holders of a class differ by at most one.

    Raises:
        UserError: the level is outside what the data allow.
    """
    present = len(np.unique(labels))
    if level == 0:
        return iid(len(labels), num_clients, rng)
    if num_classes <= 10:
        if not 0 <= level <= 100:
            raise UserError(f"data.fedmp_level={level}: allowed are 0..100 (percent of one label)")
        return _main_label(labels, num_clients, level, rng)
    most = present - -(-present // num_clients)
    if not 0 <= level <= most:
        raise UserError(
            f"data.fedmp_level={level}: allowed are 0..{most} (classes that a client lacks) "
            f"with {present} labels and {num_clients} clients"
        )
    return _share_labels(labels, num_clients, present - level, rng)


def _main_label(labels: np.ndarray, num_clients: int, percent: int, rng: np.random.Generator) -> Clients:
    present, counts = np.unique(labels, return_counts=True)
    order = rng.permutation(len(present))
    main = order[np.arange(num_clients) % len(present)]  # per client, an index into `present`
    receivers = np.bincount(main, minlength=len(present))
    size = len(labels) // num_clients
    while np.any(receivers * round(size * percent / 100) > counts):
        size -= 1
    share = round(size * percent / 100)

    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in present]
    parts: list[Clients] = [[] for _ in range(num_clients)]
    used = np.zeros(len(present), np.int64)
    for client, label in enumerate(main):
        parts[client].append(shuffled[label][used[label] : used[label] + share])
        used[label] += share

    # Deal the rest at random, images that go unused to a client -1, then swap away every
    # image that came to a client whose main label it has.
    rest = rng.permutation(np.concatenate([rows[u:] for rows, u in zip(shuffled, used, strict=True)]))
    rest_label = np.searchsorted(present, labels[rest])
    owner = np.full(len(rest), -1)
    owner[: num_clients * (size - share)] = np.repeat(np.arange(num_clients), size - share)
    owner_main = np.where(owner >= 0, main[owner], -1)
    for label in range(len(present)):
        wrong = np.flatnonzero((owner_main == label) & (rest_label == label))
        partners = np.flatnonzero((owner_main != label) & (rest_label != label))
        if len(partners) < len(wrong):
            raise UserError(
                f"data.fedmp_level={percent}: too few images of other labels than {present[label]}; "
                "take a higher level or more clients"
            )
        partners = rng.choice(partners, len(wrong), replace=False)
        rest[wrong], rest[partners] = rest[partners], rest[wrong]
        rest_label[wrong], rest_label[partners] = rest_label[partners], rest_label[wrong]
    return [np.concatenate([*part, rest[owner == client]]) for client, part in enumerate(parts)]


def by_writer(writers: np.ndarray, num_clients: int, even: bool = False) -> Clients:
    """Consecutive shares of the writers, by id: floor(n / M) each, the last takes what is over.

    The paper's FEMNIST: 193 writers over ten clients, 19 to each of nine, 22 to the last. `even`: shares whose sizes
    differ by one at most, since with nearly as many clients as writers the last one would hold half of all.

    Raises:
        UserError: fewer writers than clients.
    """
    ids = np.unique(writers)
    if len(ids) < num_clients:
        raise UserError(f"data.writers={len(ids)}: fewer than clients.number={num_clients}; every client needs one")
    place, share = np.searchsorted(ids, writers), len(ids) // num_clients
    owner = place * num_clients // len(ids) if even else np.minimum(place // share, num_clients - 1)
    return [np.flatnonzero(owner == client) for client in range(num_clients)]


def split_writers(writers: np.ndarray, over: int) -> tuple[np.ndarray, int]:
    """Writers with more than `over` images count as two, who take turns: new ids per image, and how many were split.

    So that there can be more clients than writers.
    """
    ids, own, counts = np.unique(writers, return_inverse=True, return_counts=True)
    order = np.argsort(own, kind="stable")
    rank = np.empty(len(writers), np.int64)  # which of its writer's images each one is
    rank[order] = np.arange(len(writers)) - np.repeat(np.cumsum(counts) - counts, counts)
    large = counts > over
    return 2 * own + np.where(large[own], rank % 2, 0), int(large.sum())


def _writers_images(dataset: Dataset, count: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows of the `count` lowest writer ids among those with at least `least` training images."""
    if dataset.writer_train is None:
        raise UserError(
            f"data.partition: {dataset.name} does not say who wrote an image; "
            "allowed are iid, dirichlet, labels, fedmp, or data.name=mnist_by_writer or femnist"
        )
    ids, images = np.unique(dataset.writer_train, return_counts=True)
    ids = ids[images >= least]
    if not 1 <= count <= len(ids):
        raise UserError(
            f"data.writers={count}: allowed are 1..{len(ids)}, so many have data.min_images_per_writer={least} images"
        )
    train = np.flatnonzero(np.isin(dataset.writer_train, ids[:count]))
    test = np.arange(len(dataset.y_test))
    if dataset.writer_test is not None and np.isin(dataset.writer_test, ids[:count]).any():
        test = np.flatnonzero(np.isin(dataset.writer_test, ids[:count]))
    return train, test


def _names(parts: Clients, least: int) -> str:
    """`client 3 has 7 images, client 5 has 0 images`, at most three of them; clients count from 0."""
    few = [(client, len(part)) for client, part in enumerate(parts) if len(part) < least]
    text = ", ".join(f"client {client} has {size} images" for client, size in few[:3])
    return text + (f" and {len(few) - 3} more have too few" if len(few) > 3 else "")


def _check_batches(parts: Clients, batch_size: int, kind: str) -> None:
    few = _names(parts, batch_size)
    if few:
        raise UserError(
            f"data.partition={kind!r}: {few}, fewer than local.batch_size={batch_size}; "
            "take fewer clients, smaller batches or more images"
        )


def _who_wrote(dataset: Dataset, clients: tuple[np.ndarray, ...], test: np.ndarray) -> str | None:
    """Whether the test images are by the clients' own writers: `own`, `others` or `both`; None where nobody knows."""
    if dataset.writer_train is None or dataset.writer_test is None:
        return None
    own = np.isin(dataset.writer_test[test], dataset.writer_train[np.concatenate(clients)])
    return "own" if own.all() else "both" if own.any() else "others"


def _summary(
    dataset: Dataset,
    kind: str,
    clients: tuple[np.ndarray, ...],
    holdout: np.ndarray,
    test: np.ndarray,
    pool: int,
    extra: dict[str, Any],
) -> dict[str, Any]:
    sizes = [len(rows) for rows in clients]
    writers = dataset.writer_train
    return {
        "partition": kind,
        **extra,
        "sizes": sizes,
        "labels": [np.bincount(dataset.y_train[rows], minlength=dataset.num_classes).tolist() for rows in clients],
        "writers": None if writers is None else [len(np.unique(writers[rows])) for rows in clients],
        "holdout": len(holdout),
        "test": len(test),
        "test_writers": _who_wrote(dataset, clients, test),
        "unused": pool - sum(sizes),
    }
